//! What happens at a trapped call, in signal context.
//!
//! Nothing here allocates, waits, panics or uses thread-local storage, whose base the program may have moved (P24). The
//! call itself is not made here: the return from the handler leads the thread to a place that makes it.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::atomic::Ordering::Relaxed;

use nix::errno::Errno;
use syscalls::Sysno;

use super::context::{Context, Info, SIGSYS, SIGSYS_BIT};
use super::frame::{self, Room};
use super::record::{Record, Verdict, What};
use super::shared::Shared;
use super::{gate, masks, spread, user};
use crate::notify::TrappedSyscall;
use crate::syscall::{pointer, syscall0, syscall3, syscall4};

/// What the filter says of a call that is traced, and of one that is trapped for the handler's own sake.
pub(super) const TRACED: u16 = 0xa571;
pub(super) const SERVED: u16 = 0xa572;

/// The calls that are trapped in any case, besides those that carry masks.
pub(super) const SERVED_CALLS: [Sysno; 4] = [
    Sysno::execve,
    Sysno::execveat,
    Sysno::clone3,
    Sysno::io_uring_enter,
];

/// The calls that never are: a thread that unmapped its stack makes the first (P20).
pub(super) const ALLOWED_CALLS: [Sysno; 1] = [Sysno::exit];

/// What an execution fails with, unless it is allowed: the new program would die of its first trapped call (P8).
const NO_EXEC: i32 = Errno::EPERM as i32;
/// What a call fails with whose rewriting can't be undone afterwards.
const NO_REWRITE: i32 = Errno::EOPNOTSUPP as i32;
/// What a call fails with for which the gate has no entry left.
const NO_ENTRY: i32 = Errno::EAGAIN as i32;

/// Called by `asm_tracer_sigsys_entry`, with room for a frame below that of the kernel.
///
/// # Safety
///
/// The pointers must be those of a signal that was just delivered.
pub(super) unsafe extern "C" fn handle(signal: i32, info: *mut Info, context: *mut Context, room: *mut Room) {
    let Some(shared) = Shared::get() else { return };
    // SAFETY: the kernel made both for this handler.
    let (data, to_spread, site, number, registers) = unsafe {
        let info = &*info;
        (
            info.data(),
            spread::is_sent_by_us(info),
            info.site(),
            info.number(),
            &mut *context,
        )
    };
    let traced = match data {
        Some(TRACED) => true,
        Some(SERVED) => false,
        _ if to_spread => {
            shared.spread.arrived();
            // A call that opens the mask while it sleeps was interrupted, and has another put back.
            registers.set_mask(registers.mask() & !SIGSYS_BIT);
            return;
        }
        _ => {
            // SAFETY: they are a handler's arguments still.
            unsafe {
                deliver_foreign(shared, signal, info, context);
                // The program's handler may have changed what is returned to, which no filter sees.
                (*context).set_mask((*context).mask() & !SIGSYS_BIT);
            }
            return;
        }
    };
    // Whatever the kernel made of the number (P3).
    registers.set_rip(site);
    registers.set_rax(number.cast_unsigned());
    let call = TrappedSyscall {
        nr: number,
        args: registers.args(),
    };
    if call.sysno() == Some(Sysno::rt_sigprocmask) && spread::is_question(call.args) {
        registers.set_rax(spread::ANSWER.cast_unsigned());
        return;
    }
    let recorded = traced && shared.is_recording();
    let mut trap = Trap {
        shared,
        context: registers,
        site,
        made: call,
        room,
        record_result: recorded && shared.results.is_some(),
    };
    if !recorded {
        let verdict = trap.carry_out(&call);
        if matches!(verdict, Verdict::Refused(NO_EXEC)) && shared.is_recording() {
            record(shared, thread_id(), site, call, verdict);
        }
        return;
    }
    let thread = thread_id();
    let mut wanted = call;
    let answer = match shared.hook {
        // What comes back from a signal handler has no result, and a call of the hook's own is not shown to it.
        Some(hook) if call.sysno() != Some(Sysno::rt_sigreturn) && shared.in_hook.insert(thread) => {
            let answer = hook(&mut wanted);
            shared.in_hook.remove(thread);
            answer
        }
        _ => None,
    };
    let verdict = match answer {
        Some(value) => {
            trap.context.set_rax(value.cast_unsigned());
            Verdict::Returned(value)
        }
        None => trap.carry_out(&wanted),
    };
    record(shared, thread, site, call, verdict);
}

/// A call at the moment of its trap.
struct Trap<'a> {
    shared: &'a Shared,
    context: &'a mut Context,
    site: u64,
    made: TrappedSyscall,
    /// That of the handler that this is in.
    room: *mut Room,
    record_result: bool,
}

impl Trap<'_> {
    /// Has the call be made, in the way that suits it, or says what comes of it.
    fn carry_out(&mut self, wanted: &TrappedSyscall) -> Verdict {
        let rewritten = self.made != *wanted;
        let done = match rewritten {
            true => Verdict::Rewritten(*wanted),
            false => Verdict::Run,
        };
        let call = wanted.sysno();
        match call {
            Some(Sysno::rt_sigprocmask) => {
                let result = masks::change_mask(self.context, wanted);
                return self.returns(result, done);
            }
            Some(Sysno::rt_sigaction) if wanted.args[0] == i64::from(SIGSYS) => {
                return self.returns(change_own_action(self.shared, wanted), done);
            }
            Some(Sysno::rt_sigaction) => return self.returns(masks::change_action(wanted), done),
            Some(Sysno::rt_sigreturn) => masks::open_return(self.context),
            Some(Sysno::execve | Sysno::execveat) if !self.shared.allow_exec => return self.refuse(NO_EXEC),
            // The child's handlers would be gone, and with them it. The C library does without this flag then.
            Some(Sysno::clone3) if clears_handlers(wanted) => return self.refuse(Errno::EINVAL as i32),
            _ => {}
        }
        let mask = masks::replacement(wanted);
        let stackless = call.is_some_and(|call| STACKLESS.contains(&call));
        if rewritten && stackless {
            self.shared.refused_rewrites.fetch_add(1, Relaxed);
            return self.refuse(NO_REWRITE);
        }
        let record_result = self.record_result && !stackless;
        if !rewritten && mask.is_none() {
            if let Some(entry) = gate::entry_of(self.site, stackless, record_result) {
                self.context.go_to(entry);
                return done;
            }
            self.shared.full_tables.fetch_add(1, Relaxed);
            if stackless {
                return self.refuse(NO_ENTRY);
            }
        }
        let place = gate::rewritten(record_result);
        // SAFETY: the room is that of the handler that this is in.
        unsafe { frame::go_through(self.context, self.site, wanted, mask, self.room, place) };
        done
    }

    fn returns(&mut self, value: i64, done: Verdict) -> Verdict {
        self.context.set_rax(value.cast_unsigned());
        done
    }

    fn refuse(&mut self, errno: i32) -> Verdict {
        self.returns(i64::from(-errno), Verdict::Refused(errno))
    }
}

/// Calls that leave the stack, share it with another process, or take it away: nothing can be put back by way of it, and
/// nothing written down on it.
const STACKLESS: [Sysno; 6] = [
    Sysno::clone,
    Sysno::clone3,
    Sysno::vfork,
    Sysno::munmap,
    Sysno::mremap,
    Sysno::rt_sigreturn,
];

/// `CLONE_CLEAR_SIGHAND` in the flags, the first word of the arguments.
fn clears_handlers(call: &TrappedSyscall) -> bool {
    const CLEAR_HANDLERS: u64 = 1 << 32;
    user::read(call.args[0].cast_unsigned()).is_some_and(|[flags]| flags & CLEAR_HANDLERS != 0)
}

/// Does what `rt_sigaction(2)` does for the handler that the program believes to have for this signal.
fn change_own_action(shared: &Shared, call: &TrappedSyscall) -> i64 {
    let [_, new, old, size, ..] = call.args;
    let fault = -(Errno::EFAULT as i64);
    if size != 8 {
        return -(Errno::EINVAL as i64);
    }
    let given: Option<masks::Action> = match new {
        0 => None,
        new => match user::read(new.cast_unsigned()) {
            None => return fault,
            given => given,
        },
    };
    let before = shared.own_action.each_ref().map(|word| word.load(Relaxed));
    // A vfork child has handlers of its own, and shares this memory.
    let elsewhere = shared.alive.load(Relaxed) != 0 && user::process().cast_unsigned() != shared.process;
    if let Some([handler, flags, restorer, mask]) = given
        && !elsewhere
    {
        let given = [handler, flags, restorer, mask & !masks::UNBLOCKABLE];
        for (word, value) in shared.own_action.iter().zip(given) {
            word.store(value, Relaxed);
        }
    }
    // SAFETY: the kernel would write the same.
    if old != 0 && unsafe { user::write(old.cast_unsigned(), before) }.is_none() {
        return fault;
    }
    0
}

/// Gives a signal that is not of our filter to the program's handler, or does what the kernel would (P10).
///
/// # Safety
///
/// The arguments must be a handler's.
unsafe fn deliver_foreign(shared: &Shared, signal: i32, info: *mut Info, context: *mut Context) {
    let [handler, flags, ..] = shared.own_action.each_ref().map(|word| word.load(Relaxed));
    match handler as usize {
        libc::SIG_IGN => {}
        libc::SIG_DFL => {
            let default: masks::Action = [0; 4];
            // SAFETY: the process is to die of this signal, which it does as soon as this handler lets it.
            unsafe {
                let _ = syscall4(
                    libc::SYS_rt_sigaction,
                    signal.into(),
                    pointer(&raw const default),
                    0,
                    8,
                );
                let process = syscall0(libc::SYS_getpid).unwrap_or(0);
                let _ = syscall3(libc::SYS_tgkill, process, thread_id().into(), signal.into());
            }
        }
        handler if flags as i32 & libc::SA_SIGINFO != 0 => {
            // SAFETY: the program has given this for a handler with three arguments.
            let handler: extern "C" fn(i32, *mut c_void, *mut c_void) =
                unsafe { std::mem::transmute(handler) };
            handler(signal, info.cast(), context.cast());
        }
        handler => {
            // SAFETY: the program has given this for a handler with one argument.
            let handler: extern "C" fn(i32) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}

pub(super) fn thread_id() -> u32 {
    // SAFETY: asks for a number.
    unsafe { syscall0(libc::SYS_gettid) }.map_or(0, |thread| thread as u32)
}

fn record(shared: &Shared, thread: u32, site: u64, call: TrappedSyscall, verdict: Verdict) {
    let Some(ring) = shared.ring_of(thread) else {
        return;
    };
    let quiet = is_quiet(shared, thread, &call);
    let mut number = 0;
    let pushed = ring.push(thread, |position| {
        number = position;
        Record {
            // SAFETY: every x86-64 CPU has it.
            time: unsafe { std::arch::x86_64::_rdtsc() },
            site,
            thread,
            quiet,
            what: What::Call(call, verdict),
        }
    });
    if !pushed || !quiet || number & (shared.patience - 1) == 0 {
        shared.drain.ring();
    }
}

/// Tells whether a call is one by which the consumer itself sleeps and wakes: told of each, it would never come to rest
/// (P36).
fn is_quiet(shared: &Shared, thread: u32, call: &TrappedSyscall) -> bool {
    let sleeps = match call.sysno() {
        Some(Sysno::futex | Sysno::epoll_wait | Sysno::epoll_pwait | Sysno::epoll_pwait2) => true,
        // An eventfd's number has eight bytes.
        Some(Sysno::read | Sysno::write) => call.args[2] == 8,
        _ => false,
    };
    sleeps && shared.quiet.contains(thread)
}
