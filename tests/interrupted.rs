//! The kernel takes a listener's lock interruptibly, so that each operation fails now and then when signals come.
//!
//! That takes luck to see. Here every operation fails as it would then, and only its repetition is real: a filter
//! of this process turns the calls into `SIGSYS`, whose handler decides.
#![allow(unsafe_code)]

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use asm_tracer::blocking::Tracer;
use asm_tracer::syscall::{raw_syscall3, raw_syscall4};
use asm_tracer::{Listener, WakeUp};
use nix::errno::Errno;
use nix::libc;
use support::foreign::Foreign;
use support::target::{command, on_each_runtime};
use support::{in_process_of_its_own, within};
use tokio::io::AsyncWriteExt;

/// The requests of `ioctl(2)` on a listener, as `linux/seccomp.h` numbers them.
const RECEIVE: i64 = 0xc050_2100;
const SEND: i64 = 0xc018_2101;
const ID_VALID: i64 = 0x4008_2102;
const SET_FLAGS: i64 = 0x4008_2104;

/// What is interrupted, and how often it was tried.
static TRIED: [(i64, AtomicUsize); 5] = [
    (RECEIVE, AtomicUsize::new(0)),
    (SEND, AtomicUsize::new(0)),
    (ID_VALID, AtomicUsize::new(0)),
    (SET_FLAGS, AtomicUsize::new(0)),
    (POLL, AtomicUsize::new(0)),
];

const EPOLL_WAIT: i64 = libc::SYS_epoll_wait;
const POLL: i64 = libc::SYS_poll;

/// The kernel ignores the upper half of an `int` argument; the filter doesn't, and lets these pass.
const REAL: i64 = 1 << 32;

fn operation(request: i64) -> Option<&'static AtomicUsize> {
    let found = TRIED.iter().find(|(present, _)| *present == request);
    found.map(|(_, tried)| tried)
}

/// The next event of the runtime's is to be an error.
static BLIND: AtomicBool = AtomicBool::new(false);

/// What an interrupted look at a listener makes of the event that the runtime waits for.
fn epoll([epoll, events, count, timeout]: [i64; 4]) -> i64 {
    // SAFETY: the very call that the runtime made.
    let found = unsafe { raw_syscall4(libc::SYS_epoll_wait, epoll, events, count | REAL, timeout) };
    for index in 0..usize::try_from(found).unwrap_or(0) {
        // SAFETY: the kernel has just written as many events.
        let event = unsafe { &mut *(events as *mut libc::epoll_event).add(index) };
        // The runtime's own descriptors have the tokens 0 and 1.
        if event.events & libc::EPOLLIN as u32 != 0 && event.u64 > 1 && BLIND.swap(false, Ordering::Relaxed) {
            event.events = libc::EPOLLERR as u32;
        }
    }
    found
}

/// Fails, or makes the call in earnest. Async-signal-safe: atomics and a raw system call.
fn decide(number: i64, [a, b, c]: [i64; 3]) -> i64 {
    let polls = number == POLL;
    let tried = match polls {
        // What the library asks a listener is one descriptor, at once.
        true if (b, c) != (1, 0) => None,
        true => operation(POLL),
        false => operation(b),
    };
    let turn = tried.map_or(0, |tried| tried.fetch_add(1, Ordering::Relaxed));
    match turn % 3 {
        _ if tried.is_none() => {}
        0 if polls => {
            let fd = a as *mut libc::pollfd;
            // SAFETY: the library passes one valid entry. This is what an interrupted poll(2) of a listener says.
            unsafe { (*fd).revents = libc::POLLERR };
            return 1;
        }
        0 => return -(Errno::EINTR as i64),
        // The target was interrupted between poll(2) and the receipt (T3).
        1 if b == RECEIVE => return -(Errno::ENOENT as i64),
        _ => {}
    }
    // SAFETY: the very call that the library made.
    unsafe { raw_syscall3(number, a, b | REAL, c) }
}

extern "C" fn on_sigsys(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes the context of the interrupted thread.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let register = |index: i32| registers[index as usize];
    let [a, b, c, d] = [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX, libc::REG_R10].map(register);
    let result = match register(libc::REG_RAX) {
        EPOLL_WAIT => epoll([a, b, c, d]),
        number => decide(number, [a, b, c]),
    };
    registers[libc::REG_RAX as usize] = result;
}

/// From here on the calls of this thread, and of those that it starts, come to the handler.
fn interrupt() {
    // SAFETY: all fields are integers or pointers, for which zero is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_sigsys as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: the handler only does what is async-signal-safe.
    let set = unsafe { libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) };
    assert_eq!(set, 0);

    let load = |offset: u32| libc::sock_filter {
        code: 0x20,
        jt: 0,
        jf: 0,
        k: offset,
    };
    let equal = |value: u32, jt: u8, jf: u8| libc::sock_filter {
        code: 0x15,
        jt,
        jf,
        k: value,
    };
    let give = |action: u32| libc::sock_filter {
        code: 0x06,
        jt: 0,
        jf: 0,
        k: action,
    };
    // `struct seccomp_data`: the number is at 0, the upper halves of the second and third argument at 28 and 36.
    let mut filter = [
        load(0),
        equal(libc::SYS_poll as u32, 3, 0),
        equal(libc::SYS_ioctl as u32, 2, 0),
        equal(libc::SYS_epoll_wait as u32, 3, 0),
        give(libc::SECCOMP_RET_ALLOW),
        load(28),
        equal(0, 3, 2),
        load(36),
        equal(0, 1, 0),
        give(libc::SECCOMP_RET_ALLOW),
        give(libc::SECCOMP_RET_TRAP),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: a flag of this thread, and a program that is alive.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, 0_usize);
        assert_eq!(
            libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program),
            0
        );
    }
}

/// Makes calls, each of which is to be answered with seven times its argument.
const MULTIPLIES: &str = r#"
int main(void) {
    for (long i = 0; i < 200; i++) check(trap(i, 0, 0, 0) == 7 * i, "the answer");
}
"#;

// T14
#[test]
fn interrupted_operations_lose_neither_calls_nor_answers() {
    const FOREIGN: &str = r#"
        int main(void) {
            send_listener(new_listener(0));
            check(trap(1, 0, 0, 0) == 5, "the answer");
        }
    "#;
    in_process_of_its_own("interrupted_operations_lose_neither_calls_nor_answers", || {
        // A compiler would not survive the filter.
        drop((
            command("interrupted", MULTIPLIES),
            Foreign::start("interrupted_foreign", FOREIGN),
        ));
        interrupt();
        on_each_runtime(|| async {
            let (mut child, mut listener) = command("interrupted", MULTIPLIES).spawn().await.unwrap();
            let before = || TRIED.each_ref().map(|(_, tried)| tried.load(Ordering::Relaxed));
            let start = before();
            for number in 0..200 {
                let policy = if number % 2 == 0 {
                    WakeUp::Synchronous
                } else {
                    WakeUp::Asynchronous
                };
                listener.set_wake_up(policy);
                let call = within("a call", listener.next()).await.expect("the stream ended");
                assert_eq!(call.args()[0], number);
                assert!(call.is_pending());
                assert_eq!(call.pid().unwrap() as u32, child.id().unwrap());
                assert!(call.respond(7 * number).unwrap().is_delivered());
            }
            assert!(within("the end", listener.next()).await.is_none());
            assert!(child.wait().await.unwrap().success());
            // All of them were tried so often that each failed many times.
            for (index, tried) in before().into_iter().enumerate() {
                assert!(tried - start[index] > 200, "{:#x}: {tried}", TRIED[index].0);
            }
            // The first look at a foreign listener, three times in a row.
            for _ in 0..3 {
                let (mut target, listener) = Foreign::start("interrupted_foreign", FOREIGN);
                let mut listener = Listener::attach(listener).unwrap();
                let call = within("a call", listener.next()).await.expect("the stream ended");
                assert!(call.respond(5).unwrap().is_delivered());
                assert!(within("the end", listener.next()).await.is_none());
                assert!(target.wait().success());
            }
        });
    });
}

// T3, T14
#[test]
fn a_thread_that_is_interrupted_loses_neither_calls_nor_answers() {
    in_process_of_its_own(
        "a_thread_that_is_interrupted_loses_neither_calls_nor_answers",
        || {
            drop(command("interrupted", MULTIPLIES));
            interrupt();
            let tracer = Tracer::with_notifications(|call| {
                assert!(call.is_pending());
                let answer = 7 * call.args()[0];
                assert!(call.respond(answer).unwrap().is_delivered());
            });
            let child = tracer.spawn(&mut command("interrupted", MULTIPLIES)).unwrap();
            assert_eq!(child.wait().unwrap(), 0);
            assert_eq!(child.drain_syscalls().len(), 200);
            for (request, tried) in &TRIED[..3] {
                let tried = tried.load(Ordering::Relaxed);
                assert!(tried > 200, "{request:#x}: {tried}");
            }
        },
    );
}

// T14: the edge for a call is used up by an event that says nothing of it.
#[test]
fn an_interrupted_wait_for_events_misses_no_call() {
    const CALLS: &str = "int main(void) { while (told()) check(trap(1, 0, 0, 0) == 5, \"the answer\"); }";
    in_process_of_its_own("an_interrupted_wait_for_events_misses_no_call", || {
        drop(command("told_calls", CALLS));
        interrupt();
        on_each_runtime(|| async {
            let mut command = command("told_calls", CALLS);
            let (mut child, mut listener) = within("the start", command.spawn()).await.unwrap();
            let mut stdin = child.stdin.take().unwrap();
            for _ in 0..100 {
                // It waits for an event.
                tokio::select! {
                    biased;
                    next = listener.next() => panic!("{next:?}"),
                    () = tokio::task::yield_now() => {}
                }
                BLIND.store(true, Ordering::Relaxed);
                within("the pipe", stdin.write_all(b"x")).await.unwrap();
                let call = within("a call", listener.next()).await.expect("the stream ended");
                assert!(!BLIND.load(Ordering::Relaxed), "no event came");
                assert!(call.respond(5).unwrap().is_delivered());
            }
            drop(stdin);
            assert!(within("the end", listener.next()).await.is_none());
            assert!(child.wait().await.unwrap().success());
        });
    });
}
