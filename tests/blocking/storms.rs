//! Signals and deaths while hooks are at work.
#![allow(unsafe_code)] // To send signals to a thread of this process.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use asm_tracer::blocking::Tracer;
use asm_tracer::{Error, Notification, Signal};
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, sigaction};

use crate::support::in_process_of_its_own;
use crate::{received, start, until_dropped};

static HANDLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn handle(_: i32) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

/// With and without `SA_RESTART`, while the thread waits for calls, which come now and then, and while it answers.
#[test]
fn signals_to_the_thread_that_serves_lose_nothing() {
    const CALLS: &str = r#"
        int main(void) {
            for (long i = 0; i < 2000; i++) {
                check(trap(i, 0, 0, 0) == 1000 + i, "the answer");
                if (i % 20 == 0) usleep(500);
            }
        }
    "#;
    in_process_of_its_own("storms::signals_to_the_thread_that_serves_lose_nothing", || {
        for flags in [SaFlags::empty(), SaFlags::SA_RESTART] {
            let action = SigAction::new(SigHandler::Handler(handle), flags, SigSet::empty());
            // SAFETY: the handler touches an atomic.
            unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
            HANDLED.store(0, Ordering::Relaxed);
            let (threads, thread) = channel();
            let mut threads = Some(threads);
            let tracer = Tracer::new(move |call| {
                if let Some(threads) = threads.take() {
                    threads.send(nix::unistd::gettid().as_raw()).unwrap();
                }
                Some(1000 + call.args[0])
            });
            let child = start(tracer, "answered_calls", CALLS);
            let server = received("the thread", &thread);
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        // SAFETY: signals one thread of this process, whose handler is safe. It may have ended.
                        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), server, libc::SIGUSR1) };
                        std::thread::sleep(Duration::from_micros(20));
                    }
                });
                let status = child.wait();
                over.store(true, Ordering::Relaxed);
                assert_eq!(status.unwrap(), 0);
            });
            assert_eq!(child.drain_syscalls().len(), 2000);
            let handled = HANDLED.load(Ordering::Relaxed);
            assert!(handled > 100, "{handled}");
        }
    });
}

/// A tree that makes calls for ever, and is killed at any moment.
#[test]
fn children_are_killed_while_hooks_answer() {
    const FOR_EVER: &str = r#"
        static void *run(void *unused) {
            for (;;) trap(1, 0, 0, 0);
            return NULL;
        }
        int main(void) {
            pthread_t thread;
            check(!pthread_create(&thread, NULL, run, NULL), "pthread_create");
            run(NULL);
        }
    "#;
    // Each hook keeps the sender for as long as it is there.
    let tracers: [fn(Sender<()>) -> Tracer; 3] = [
        |gone| {
            Tracer::new(move |call| {
                let _ = &gone;
                Some(call.args[0])
            })
        },
        |gone| {
            Tracer::new(move |_| {
                let _ = &gone;
                None
            })
        },
        |gone| {
            Tracer::with_notifications(move |call: Notification| {
                let _ = &gone;
                let read = call.read_value::<u64>(call.args()[0] as u64);
                assert!(matches!(read, Err(Error::Fault { .. } | Error::Gone)), "{read:?}");
            })
        },
    ];
    std::thread::scope(|scope| {
        for tracer in tracers {
            scope.spawn(move || {
                for round in 0..50 {
                    let (gone, hook) = channel();
                    let child = start(tracer(gone), "for_ever", FOR_EVER);
                    std::thread::sleep(Duration::from_micros(37 * round));
                    child.kill(Signal::SIGKILL).unwrap();
                    assert_eq!(child.wait().unwrap(), Signal::SIGKILL as i32);
                    until_dropped(&hook);
                }
            });
        }
    });
}
