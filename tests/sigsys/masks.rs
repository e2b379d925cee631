//! Whatever carries a mask of signals may have SIGSYS in it, and never gets to block that.

use std::ffi::c_void;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use asm_tracer::sigsys::{Decision, Tracer};
use asm_tracer::{Action, Filter, Sysno, TrappedSyscall};
use nix::libc;

use crate::common::{
    ANSWER, SIGSYS_BIT, alone, answer, assert_traced, at, at_mut, bit, blocked, call, calls_of, error,
    everything, handle, own_status, raise, set_mask, trace_getppid, without_alternate_stack,
};

/// What no mask has.
const NEVER: u64 = bit(libc::SIGKILL) | bit(libc::SIGSTOP) | SIGSYS_BIT;
const FIRST: u64 = bit(libc::SIGUSR1);
const SECOND: u64 = bit(libc::SIGUSR2);

static HANDLED: AtomicUsize = AtomicUsize::new(0);
static OTHERS: AtomicUsize = AtomicUsize::new(0);
/// The mask while the handler ran.
static DURING: AtomicU64 = AtomicU64::new(0);

/// Makes a traced call in a handler.
extern "C" fn note(_: i32) {
    assert_traced();
    let mut mask = 0_u64;
    let how = libc::SIG_BLOCK.into();
    assert_eq!(call(Sysno::rt_sigprocmask, &[how, 0, at_mut(&mut mask), 8]), 0);
    DURING.store(mask, SeqCst);
    HANDLED.fetch_add(1, SeqCst);
}

extern "C" fn other(_: i32) {
    assert_traced();
    OTHERS.fetch_add(1, SeqCst);
}

fn handle_both(mask: u64) {
    handle(libc::SIGUSR1, note as *const () as usize, 0, mask);
    handle(libc::SIGUSR2, other as *const () as usize, 0, 0);
}

// P4
#[test]
fn blocking_every_signal_blocks_all_but_sigsys() {
    alone(|| {
        let _tracer = trace_getppid();
        handle_both(0);
        for _ in 0..3 {
            // SAFETY: sets and reads masks.
            unsafe {
                let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
                assert_eq!(libc::sigfillset(&raw mut all), 0);
                let how = libc::SIG_SETMASK;
                assert_eq!(libc::sigprocmask(how, &raw const all, &raw mut before), 0);
                assert_traced();
                assert_eq!(libc::pthread_sigmask(how, &raw const before, &raw mut all), 0);
                assert_eq!(libc::sigismember(&raw const all, libc::SIGSYS), 0);
                assert_eq!(libc::sigismember(&raw const all, libc::SIGUSR1), 1);
            }
            for how in [libc::SIG_BLOCK, libc::SIG_SETMASK] {
                let mask = u64::MAX;
                assert_eq!(call(Sysno::rt_sigprocmask, &[how.into(), at(&mask), 0, 8]), 0);
                assert_traced();
                assert_eq!(blocked(), !NEVER);
            }
            let handled = OTHERS.load(SeqCst);
            raise(libc::SIGUSR2);
            assert_traced();
            assert_eq!(OTHERS.load(SeqCst), handled);
            set_mask(0);
            assert_eq!(OTHERS.load(SeqCst), handled + 1);
        }
    });
}

/// What a carrier of a mask is called with.
struct Wait {
    mask: u64,
    time: libc::timespec,
}

impl Wait {
    fn new(mask: u64, nanoseconds: i64) -> Self {
        let time = libc::timespec {
            tv_sec: nanoseconds / 1_000_000_000,
            tv_nsec: nanoseconds % 1_000_000_000,
        };
        Self { mask, time }
    }

    fn milliseconds(&self) -> i64 {
        self.time.tv_sec * 1000 + self.time.tv_nsec / 1_000_000
    }
}

struct Carrier {
    name: &'static str,
    /// Waits for something that does not happen.
    wait: fn(&mut Wait) -> i64,
    /// What it gives in the end; `None` if it waits for ever.
    timeout: Option<i64>,
}

fn epoll() -> OwnedFd {
    // SAFETY: the descriptor is new.
    unsafe { OwnedFd::from_raw_fd(libc::epoll_create1(0)) }
}

fn io_pgetevents(wait: &mut Wait) -> i64 {
    let mut context = 0_u64;
    let made = call(Sysno::io_setup, &[1, at_mut(&mut context)]);
    if made != 0 {
        return made;
    }
    let (mut events, described) = ([0_u64; 4], [at(&wait.mask) as u64, 8]);
    let (events, time) = (at_mut(&mut events), at(&wait.time));
    let args = [context as i64, 1, 1, events, time, at(&described)];
    let result = call(Sysno::io_pgetevents, &args);
    assert_eq!(call(Sysno::io_destroy, &[context as i64]), 0);
    result
}

/// A ring without requests.
fn ring() -> Result<OwnedFd, i64> {
    let mut parameters = [0_u64; 15];
    match call(Sysno::io_uring_setup, &[1, at_mut(&mut parameters)]) {
        // SAFETY: the descriptor is new.
        made @ 0.. => Ok(unsafe { OwnedFd::from_raw_fd(made as i32) }),
        failed => Err(failed),
    }
}

fn io_uring_enter(wait: &mut Wait) -> i64 {
    /// `IORING_ENTER_GETEVENTS`.
    const GET_EVENTS: i64 = 1;
    match ring() {
        Ok(ring) => {
            let args = [ring.as_raw_fd().into(), 0, 1, GET_EVENTS, at(&wait.mask), 8];
            call(Sysno::io_uring_enter, &args)
        }
        Err(failed) => failed,
    }
}

fn io_uring_enter_extended(wait: &mut Wait) -> i64 {
    /// With `IORING_ENTER_EXT_ARG`.
    const FLAGS: i64 = 1 | 8;
    match ring() {
        Ok(ring) => {
            let argument = [at(&wait.mask), 8, at(&wait.time)];
            let args = [ring.as_raw_fd().into(), 0, 1, FLAGS, at(&argument), 24];
            call(Sysno::io_uring_enter, &args)
        }
        Err(failed) => failed,
    }
}

const CARRIERS: [Carrier; 8] = [
    Carrier {
        name: "ppoll",
        wait: |wait| {
            let time = at_mut(&mut wait.time);
            call(Sysno::ppoll, &[0, 0, time, at(&wait.mask), 8])
        },
        timeout: Some(0),
    },
    Carrier {
        name: "pselect6",
        wait: |wait| {
            let described = [at(&wait.mask), 8];
            let time = at_mut(&mut wait.time);
            call(Sysno::pselect6, &[0, 0, 0, 0, time, at(&described)])
        },
        timeout: Some(0),
    },
    Carrier {
        name: "epoll_pwait",
        wait: |wait| {
            let (epoll, mut event) = (epoll(), [0_u64; 2]);
            let (epoll, event) = (epoll.as_raw_fd().into(), at_mut(&mut event));
            let args = [epoll, event, 1, wait.milliseconds(), at(&wait.mask), 8];
            call(Sysno::epoll_pwait, &args)
        },
        timeout: Some(0),
    },
    Carrier {
        name: "epoll_pwait2",
        wait: |wait| {
            let (epoll, mut event) = (epoll(), [0_u64; 2]);
            let (epoll, event) = (epoll.as_raw_fd().into(), at_mut(&mut event));
            let args = [epoll, event, 1, at(&wait.time), at(&wait.mask), 8];
            call(Sysno::epoll_pwait2, &args)
        },
        timeout: Some(0),
    },
    Carrier {
        name: "rt_sigsuspend",
        wait: |wait| call(Sysno::rt_sigsuspend, &[at(&wait.mask), 8]),
        timeout: None,
    },
    Carrier {
        name: "io_pgetevents",
        wait: io_pgetevents,
        timeout: Some(0),
    },
    Carrier {
        name: "io_uring_enter",
        wait: io_uring_enter,
        timeout: None,
    },
    Carrier {
        name: "io_uring_enter, extended",
        wait: io_uring_enter_extended,
        timeout: Some(-62),
    },
];

/// A mask during a call: the handler of the one signal that it lets through makes a traced call.
fn carry(carrier: &Carrier) {
    let name = carrier.name;
    let (handled, others) = (HANDLED.load(SeqCst), OTHERS.load(SeqCst));
    set_mask(FIRST | SECOND);
    raise(libc::SIGUSR1);
    raise(libc::SIGUSR2);
    let result = (carrier.wait)(&mut Wait::new(!FIRST, 60_000_000_000));
    if [libc::ENOSYS, libc::EPERM].map(error).contains(&result) {
        println!("skipped: this kernel does not offer {name}");
        set_mask(0);
        return;
    }
    assert_eq!(result, error(libc::EINTR), "{name}");
    assert_eq!(HANDLED.load(SeqCst), handled + 1, "{name}");
    assert_eq!(DURING.load(SeqCst), !NEVER, "{name}");
    assert_eq!(OTHERS.load(SeqCst), others, "{name}");
    assert_traced();
    assert_eq!(blocked(), FIRST | SECOND, "{name}");
    if let Some(timeout) = carrier.timeout {
        // With all of them, nobody wakes it, and they are the others that are blocked for its time.
        set_mask(SECOND);
        let result = (carrier.wait)(&mut Wait::new(u64::MAX, 2_000_000));
        assert_eq!(result, timeout, "{name}");
        assert_eq!(OTHERS.load(SeqCst), others, "{name}");
    }
    set_mask(0);
    assert_eq!(OTHERS.load(SeqCst), others + 1, "{name}");
    assert_traced();
}

// P5
#[test]
fn no_call_blocks_sigsys_for_its_time() {
    alone(|| {
        let _tracer = trace_getppid();
        handle_both(0);
        for carrier in &CARRIERS {
            carry(carrier);
            carry(carrier);
        }
    });
}

// P5
#[test]
fn no_traced_call_blocks_sigsys_for_its_time() {
    alone(|| {
        let builder = Tracer::builder().filter(everything()).hook(answer);
        let _tracer = builder.install().unwrap();
        handle_both(0);
        for carrier in &CARRIERS {
            carry(carrier);
        }
    });
}

// P5
#[test]
fn no_call_blocks_sigsys_for_its_time_without_an_alternate_stack() {
    alone(|| {
        without_alternate_stack();
        let _tracer = trace_getppid();
        handle_both(u64::MAX);
        for carrier in &CARRIERS {
            carry(carrier);
        }
    });
}

// P5
#[test]
fn calls_that_are_logged_do_not_block_sigsys_either() {
    alone(|| {
        let filter = Filter::new()
            .foreign_abi(Action::Allow)
            .trap(Sysno::getppid)
            .log([Sysno::rt_sigprocmask, Sysno::ppoll, Sysno::execve]);
        let _tracer = Tracer::builder().filter(filter).hook(answer).install().unwrap();
        handle_both(0);
        set_mask(u64::MAX);
        assert_traced();
        set_mask(0);
        carry(&CARRIERS[0]);
        let none = [0_usize];
        let path = c"/bin/true".as_ptr() as i64;
        assert_eq!(
            call(Sysno::execve, &[path, at(&none), at(&none)]),
            error(libc::EPERM)
        );
    });
}

/// Traces `getppid` under a filter for everything else, on a thread that does little more.
fn under_a_list_of_what_is_allowed(otherwise: Action) {
    let (sender, receiver) = std::sync::mpsc::channel();
    let (done, end) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        let filter = Filter::new()
            .foreign_abi(Action::Allow)
            .otherwise(otherwise)
            .trap([Sysno::getppid, Sysno::getpgrp])
            .allow([Sysno::rt_sigprocmask, Sysno::futex]);
        let tracer = Tracer::builder().filter(filter).hook(answer).install().unwrap();
        set_mask(u64::MAX);
        let results = [
            call(Sysno::getppid, &[]),
            call(Sysno::getpgrp, &[]),
            call(Sysno::getppid, &[]),
        ];
        sender.send((results, tracer)).unwrap();
        // The end of a thread takes more than this one may do.
        let _: Result<(), _> = end.recv();
    });
    let (results, tracer) = receiver.recv().unwrap();
    // SAFETY: asks for a number.
    let group = unsafe { libc::getpgrp() };
    assert_eq!(results, [ANSWER, group.into(), ANSWER]);
    let calls = calls_of(&tracer);
    assert_eq!(calls.len(), 3);
    assert!(calls.iter().all(|call| call.thread != 0));
    std::mem::forget(done);
}

#[test]
fn what_the_handler_needs_is_not_killed_by_the_filter() {
    alone(|| under_a_list_of_what_is_allowed(Action::Kill));
}

#[test]
fn what_the_handler_needs_is_not_refused_by_the_filter() {
    alone(|| under_a_list_of_what_is_allowed(Action::Errno(asm_tracer::Errno::EXDEV)));
}

/// A handler that blocks everything: another signal waits for its end, and its calls are traced.
fn assert_open_handler() {
    let (handled, others) = (HANDLED.load(SeqCst), OTHERS.load(SeqCst));
    set_mask(FIRST | SECOND);
    raise(libc::SIGUSR1);
    raise(libc::SIGUSR2);
    set_mask(0);
    assert_eq!(HANDLED.load(SeqCst), handled + 1);
    assert_eq!(OTHERS.load(SeqCst), others + 1);
    assert_eq!(DURING.load(SeqCst), !NEVER);
    assert_traced();
}

// P5
#[test]
fn a_handler_from_before_lets_sigsys_through() {
    alone(|| {
        handle_both(u64::MAX);
        let _tracer = trace_getppid();
        assert_open_handler();
        assert_open_handler();
    });
}

// P5
#[test]
fn a_handler_from_afterwards_lets_sigsys_through() {
    alone(|| {
        let _tracer = trace_getppid();
        handle_both(u64::MAX);
        assert_open_handler();
        // Also from the C library's function of old.
        // SAFETY: the handler is one.
        unsafe { libc::signal(libc::SIGUSR1, note as *const () as usize) };
        raise(libc::SIGUSR1);
        assert_traced();
    });
}

/// Returns to a mask that has everything.
extern "C" fn close(_: i32, _: *mut c_void, context: *mut c_void) {
    HANDLED.fetch_add(1, SeqCst);
    assert_traced();
    // SAFETY: the kernel passes it to a handler with SA_SIGINFO; its mask is the first eight bytes of the C library's.
    unsafe {
        let mask = &raw mut (*context.cast::<libc::ucontext_t>()).uc_sigmask;
        mask.cast::<u64>().write(u64::MAX);
    }
}

fn return_to_everything(flags: i32) {
    let _tracer = trace_getppid();
    for round in 1..=3 {
        handle(
            libc::SIGUSR1,
            close as *const () as usize,
            libc::SA_SIGINFO | flags,
            0,
        );
        raise(libc::SIGUSR1);
        assert_traced();
        assert_eq!(HANDLED.load(SeqCst), round);
        assert_eq!(blocked(), !NEVER);
        set_mask(0);
    }
}

// P5
#[test]
fn a_handler_does_not_block_sigsys_by_what_it_returns_to() {
    alone(|| return_to_everything(0));
}

// P5, P22
#[test]
fn a_handler_on_the_alternate_stack_does_not_block_sigsys_by_what_it_returns_to() {
    alone(|| return_to_everything(libc::SA_ONSTACK));
}

// P5
#[test]
fn threads_and_processes_inherit_no_mask_that_blocks_sigsys() {
    alone(|| {
        let tracer = trace_getppid();
        set_mask(u64::MAX);
        let inherited = std::thread::spawn(|| {
            assert_traced();
            blocked()
        });
        // The C library opens its own two for each thread.
        assert_eq!(inherited.join().unwrap() | bit(32) | bit(33), !NEVER);
        // The C library's threads start with everything blocked, and set the mask that they were given then.
        with_mask_of_its_own();
        // SAFETY: the child makes system calls alone.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // It is not traced, so that nobody answers.
            let parent = call(Sysno::getppid, &[]);
            // SAFETY: ends the process.
            unsafe { libc::_exit(if parent == ANSWER { 1 } else { 7 }) };
        }
        let mut status = 0;
        // SAFETY: writes a status.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(
            libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7,
            "{status:#x}"
        );
        assert_eq!(calls_of(&tracer).len(), 2);
    });
}

unsafe extern "C" {
    fn pthread_attr_setsigmask_np(attributes: *mut libc::pthread_attr_t, mask: *const libc::sigset_t) -> i32;
}

extern "C" fn thread(_: *mut c_void) -> *mut c_void {
    assert_traced();
    blocked() as *mut c_void
}

fn with_mask_of_its_own() {
    // SAFETY: the attributes are initialized by the first function that has them.
    unsafe {
        let (mut attributes, mut all, mut id) = (std::mem::zeroed(), std::mem::zeroed(), 0);
        assert_eq!(libc::pthread_attr_init(&raw mut attributes), 0);
        assert_eq!(libc::sigfillset(&raw mut all), 0);
        assert_eq!(pthread_attr_setsigmask_np(&raw mut attributes, &raw const all), 0);
        let none = std::ptr::null_mut();
        assert_eq!(
            libc::pthread_create(&raw mut id, &raw const attributes, thread, none),
            0
        );
        let mut mask = none;
        assert_eq!(libc::pthread_join(id, &raw mut mask), 0);
        assert_eq!(mask as u64 & SIGSYS_BIT, 0);
        assert_ne!(mask as u64 & FIRST, 0);
    }
}

static CONTEXTS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Runs in a context whose mask has everything.
extern "C" fn elsewhere() {
    assert_traced();
    DURING.store(blocked(), SeqCst);
    HANDLED.fetch_add(1, SeqCst);
    let [here, there] = CONTEXTS.each_ref().map(|place| place.load(SeqCst));
    // SAFETY: both are alive while the test waits.
    unsafe { libc::swapcontext(there as *mut _, here as *mut _) };
}

// P5
#[test]
fn a_context_of_the_c_library_does_not_block_sigsys() {
    alone(|| {
        let _tracer = trace_getppid();
        // SAFETY: the contexts and the stack live until both are left.
        unsafe {
            let (mut here, mut there): (libc::ucontext_t, libc::ucontext_t) =
                (std::mem::zeroed(), std::mem::zeroed());
            let mut stack = vec![0_u8; 1 << 20];
            assert_eq!(libc::getcontext(&raw mut there), 0);
            there.uc_stack.ss_sp = stack.as_mut_ptr().cast();
            there.uc_stack.ss_size = stack.len();
            there.uc_link = &raw mut here;
            assert_eq!(libc::sigfillset(&raw mut there.uc_sigmask), 0);
            libc::makecontext(&raw mut there, elsewhere, 0);
            CONTEXTS[0].store((&raw mut here) as u64, SeqCst);
            CONTEXTS[1].store((&raw mut there) as u64, SeqCst);
            assert_eq!(libc::swapcontext(&raw mut here, &raw const there), 0);
        }
        assert_eq!(HANDLED.load(SeqCst), 1);
        assert_eq!(DURING.load(SeqCst) & SIGSYS_BIT, 0);
        assert_ne!(DURING.load(SeqCst) & FIRST, 0);
        assert_traced();
        assert_eq!(blocked(), 0);
    });
}

// P5, P11
#[test]
fn no_call_of_another_abi_blocks_sigsys() {
    alone(|| {
        let _tracer = trace_getppid();
        // Where a pointer of 32 bits leads to.
        // SAFETY: the memory is new; the call reads it.
        unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
            let place = libc::mmap(std::ptr::null_mut(), 4096, access, kind, -1, 0);
            assert_ne!(place, libc::MAP_FAILED);
            place.cast::<u64>().write(u64::MAX);
            let result: i64;
            std::arch::asm!(
                "xchg rbx, {set}",
                "int 0x80",
                "xchg rbx, {set}",
                set = inout(reg) i64::from(libc::SIG_SETMASK) => _,
                inlateout("rax") 175_i64 => result,
                in("rcx") place, in("rdx") 0, in("rsi") 8,
                lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
            );
            // There is no such call for a process that traces itself.
            assert_eq!(result, -i64::from(libc::ENOSYS));
        }
        assert_traced();
    });
}

// P5
#[test]
fn the_thread_that_installs_may_block_sigsys() {
    alone(|| {
        set_mask(SIGSYS_BIT | FIRST);
        let _tracer = trace_getppid();
        assert_traced();
        assert_eq!(blocked(), FIRST);
    });
}

/// Sends signals in the hook, without a call that is traced.
fn raising(call: &mut TrappedSyscall) -> Option<i64> {
    if call.sysno() == Some(Sysno::getpgrp) {
        raise(call.args[0] as i32);
        assert_eq!(HANDLED.load(SeqCst) as i64, call.args[1]);
    }
    answer(call)
}

// P9
#[test]
fn a_signal_during_the_hook_is_handled_after_it() {
    alone(|| {
        let builder = Tracer::builder().trap([Sysno::getppid, Sysno::getpgrp]);
        let tracer = builder.hook(raising).install().unwrap();
        handle_both(0);
        // SAFETY: asks for a number.
        let group = unsafe { libc::getpgid(0) };
        for round in 0..100 {
            let args = [libc::SIGUSR1.into(), round];
            assert_eq!(call(Sysno::getpgrp, &args), i64::from(group));
            assert_eq!(HANDLED.load(SeqCst) as i64, round + 1);
        }
        assert_eq!(calls_of(&tracer).len(), 200);
        assert_eq!(own_status("SigBlk").unwrap(), "0000000000000000");
    });
}

/// Makes a call of its own, which is traced.
fn calling(call: &mut TrappedSyscall) -> Option<i64> {
    match call.sysno() {
        Some(Sysno::getpgrp) => Some(crate::common::call(Sysno::getppid, &[]) + 1_000_000),
        _ => answer(call),
    }
}

fn call_in_the_hook() {
    let parent = call(Sysno::getppid, &[]);
    let builder = Tracer::builder().trap([Sysno::getppid, Sysno::getpgrp]);
    let tracer = builder.hook(calling).install().unwrap();
    for _ in 0..10 {
        // It is not shown to the hook again.
        assert_eq!(call(Sysno::getpgrp, &[]), parent + 1_000_000);
        assert_traced();
    }
    assert_eq!(calls_of(&tracer).len(), 30);
}

// P9
#[test]
fn a_hook_may_make_traced_calls() {
    alone(|| {
        without_alternate_stack();
        call_in_the_hook();
    });
}

// P9, P22
#[test]
#[allow(clippy::redundant_closure)] // The closure has the name of the test.
fn a_hook_may_make_traced_calls_on_the_alternate_stack_of_rust() {
    alone(|| call_in_the_hook());
}

static PARENT: AtomicU64 = AtomicU64::new(0);

extern "C" fn at_once(_: i32) {
    PARENT.store(call(Sysno::getppid, &[]) as u64, SeqCst);
    HANDLED.fetch_add(1, SeqCst);
}

fn faulting(call: &mut TrappedSyscall) -> Option<i64> {
    if call.sysno() == Some(Sysno::getpgrp) {
        raise(libc::SIGSEGV);
        assert_eq!(HANDLED.load(SeqCst), 1);
    }
    answer(call)
}

// P9
#[test]
fn a_fault_during_the_hook_is_handled_in_it() {
    alone(|| {
        without_alternate_stack();
        let parent = call(Sysno::getppid, &[]);
        let builder = Tracer::builder().trap([Sysno::getppid, Sysno::getpgrp]);
        let tracer = builder.hook(faulting).install().unwrap();
        handle(libc::SIGSEGV, at_once as *const () as usize, 0, 0);
        // SAFETY: asks for a number.
        let group = unsafe { libc::getpgid(0) };
        assert_eq!(call(Sysno::getpgrp, &[]), i64::from(group));
        // What the hook does is not shown to the hook.
        assert_eq!(PARENT.load(SeqCst) as i64, parent);
        let calls = calls_of(&tracer);
        let numbers: Vec<_> = calls.iter().map(|call| call.syscall.sysno().unwrap()).collect();
        assert_eq!(numbers, [Sysno::getppid, Sysno::getpgrp]);
        assert!(calls.iter().all(|call| call.decision == Decision::Run));
    });
}
