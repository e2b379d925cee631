//! What a process that traces itself by SIGSYS finds unchanged: its registers, stacks, threads, restarts and libraries.
//!
//! Numbers such as P13 name the ways to get it wrong; each test says which it is about. P25, a shadow stack, is not run: it
//! takes a CPU and a kernel with CET for programs, and a C library that turns it on. The gates go back by `jmp` and never
//! by `ret` to an address that they put there themselves, which is what such a stack would refuse.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks)] // Assembly and signal handlers throughout.

#[path = "../support/mod.rs"]
mod support;

mod libraries;
mod probe;
mod registers;
mod restarts;
mod single_step;
mod stacks;
mod storm;
mod threads;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use asm_tracer::sigsys::{Builder, Event, Tracer};
use asm_tracer::{Sysno, TrappedSyscall};
use nix::libc;

/// Runs a test in a process of its own, which dies of SIGALRM if it takes unreasonably long.
fn isolated(test: &str, body: impl FnOnce()) {
    support::in_process_of_its_own(test, || {
        limit_this_process();
        body();
    });
}

fn limit_this_process() {
    // SAFETY: it sets a timer.
    unsafe { libc::alarm(2 * support::BOUND.as_secs() as u32) };
}

/// All calls that have a name.
fn every_call() -> Vec<i64> {
    let calls = (0..1024_i64).filter(|number| Sysno::new(*number as usize).is_some());
    calls.collect()
}

/// How often each call was shown to [`counting`] and [`rewriting`].
static SHOWN: [AtomicU64; 1024] = [const { AtomicU64::new(0) }; 1024];

fn shown(call: Sysno) -> u64 {
    SHOWN[call.id() as usize].load(Relaxed)
}

/// A hook that only counts.
fn counting(call: &mut TrappedSyscall) -> Option<i64> {
    if let Some(count) = usize::try_from(call.nr).ok().and_then(|number| SHOWN.get(number)) {
        count.fetch_add(1, Relaxed);
    }
    None
}

/// The last argument of a `getppid` that [`rewriting`] turns into a `getpgid`, and of one that it answers with `ANSWER`.
const REWRITE: u64 = 0x7265_7772_6974_6500;
const RETURN: u64 = 0x7265_7475_726e_0000;
const ANSWER: u64 = 4711;

/// A hook that changes the number and all six arguments of some calls, and the results of others.
fn rewriting(call: &mut TrappedSyscall) -> Option<i64> {
    counting(call);
    if call.sysno() != Some(Sysno::getppid) {
        return None;
    }
    match call.args[5].cast_unsigned() {
        REWRITE => {
            *call = TrappedSyscall {
                nr: Sysno::getpgid.id().into(),
                args: [0, -1, -2, -3, -4, -5],
            };
            None
        }
        RETURN => Some(ANSWER.cast_signed()),
        _ => None,
    }
}

/// A tracer of these calls with [`rewriting`].
fn tracer(calls: &[Sysno]) -> Builder {
    let calls: Vec<i64> = calls.iter().map(|call| call.id().into()).collect();
    Tracer::builder().trap(calls).hook(rewriting)
}

/// How many events there are of a call.
fn count(events: &[Event], call: Sysno) -> usize {
    let of_it = |event: &&Event| matches!(event, Event::Call(made) if made.syscall.sysno() == Some(call));
    events.iter().filter(of_it).count()
}

/// The calling thread, found out by a call that may be traced.
fn thread_id() -> i32 {
    // SAFETY: asks for a number.
    unsafe { libc::gettid() }
}

/// What a thread of this process is blocked in: the call's number and the instruction after it; `None` while it runs.
fn blocked_in(process: u32, thread: i32) -> Option<(i64, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{process}/task/{thread}/syscall")).ok()?;
    let number = text.split_whitespace().next()?.parse().ok()?;
    let place = text.split_whitespace().last()?.strip_prefix("0x")?;
    Some((number, u64::from_str_radix(place, 16).ok()?))
}

/// Waits until a thread of this process is blocked in this call, and tells where it is.
fn until_blocked_in(thread: i32, call: Sysno) -> u64 {
    let mut place = 0;
    support::until_blocking(&format!("thread {thread} is in {call}"), || {
        match blocked_in(std::process::id(), thread) {
            Some((number, at)) if number == i64::from(call.id()) => {
                place = at;
                true
            }
            _ => false,
        }
    });
    place
}

/// Whether an address is in the gates or right after their last instruction.
fn in_gate(address: u64) -> bool {
    unsafe extern "C" {
        fn asm_tracer_gate_start();
        fn asm_tracer_gate_end();
    }
    (asm_tracer_gate_start as *const () as u64..=asm_tracer_gate_end as *const () as u64).contains(&address)
}

/// Sets a handler; `flags` besides SA_SIGINFO.
fn handle(signal: i32, flags: i32, handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::ucontext_t)) {
    // SAFETY: the handlers of these tests are made for signals.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = flags | libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
    }
}

fn register(context: *mut libc::ucontext_t, register: i32) -> u64 {
    // SAFETY: it is what a handler was given.
    unsafe { (&(*context).uc_mcontext.gregs)[register as usize].cast_unsigned() }
}

fn send(thread: i32, signal: i32) {
    // SAFETY: it sends a signal to a thread of this process.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) };
    assert_eq!(sent, 0);
}

/// A pipe's ends, for reading and writing.
fn pipe() -> [i32; 2] {
    let mut ends = [0; 2];
    // SAFETY: the kernel writes two descriptors.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    ends
}

fn write_byte(fd: i32) {
    // SAFETY: it reads one byte.
    assert_eq!(unsafe { libc::write(fd, c"x".as_ptr().cast(), 1) }, 1);
}
