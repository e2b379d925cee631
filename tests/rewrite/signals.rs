//! Signals to the target: they come first, and no call is lost or made twice without the program's knowledge.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use asm_tracer::{Filter, Observed, Signal, Sysno};
use nix::sys::signal::kill;
use tokio::io::AsyncWriteExt;

use crate::dropped::blocked;
use crate::support::target::{filter, on_each_runtime, waits_in};
use crate::support::{until, within};
use crate::{is_traced, printed, start, target};

/// Makes calls under a timer, whose handler runs all the time, until it has seen enough of both.
const STORM: &str = r#"
    #include <sys/time.h>
    int main(int argc, char **argv) {
        handle_signal(SIGALRM, atoi(argv[1]) ? SA_RESTART : 0);
        told();
        struct itimerval often = { { 0, 300 }, { 0, 300 } }, never = { };
        check(!setitimer(ITIMER_REAL, &often, NULL), "setitimer");
        long interrupted = 0;
        for (long i = 0; i < 2000 || handled < 200; i++) {
            long a = 1, b = i, result;
            __asm__ volatile("syscall" : "=a"(result), "+D"(a), "+S"(b) : "a"((long)SYS_getppid) : "rcx", "r11", "memory");
            check(a == 1 && b == i, "the registers");
            if (result == -EINTR) { interrupted++; continue; }
            if (result != getpid()) { printf("%ld", result); exit(1); }
        }
        check(!setitimer(ITIMER_REAL, &never, NULL), "setitimer");
        /* A call that was received is only given up where nothing protects it. */
        check(!interrupted || !atoi(argv[1]), "an interrupted call that was to be made again");
        printf("done");
    }
"#;

#[test]
fn a_storm_of_handled_signals() {
    for killable in [true, false] {
        for (restart, data) in [("0", false), ("1", false), ("0", true), ("1", true)] {
            on_each_runtime(|| async move {
                let mut command = target("storm", STORM, filter());
                let (child, mut listener) = start(command.arg(restart).wait_killable(killable), 1).await;
                let mut results = [0; 3];
                while let Some(call) = within("a call", listener.next()).await {
                    let another = call.continue_as(Sysno::getpid, [7; 6]);
                    let another = if data { another.data(3, "data") } else { another };
                    match within("the result", another.observe()).await {
                        Ok(Observed::Returned(_)) => results[0] += 1,
                        Ok(Observed::Interrupted) => results[1] += 1,
                        Ok(Observed::Gone) => results[2] += 1,
                        // A signal took it back before it was taken hold of.
                        Err(refused) => {
                            assert!(matches!(refused.error, asm_tracer::Error::Gone), "{refused:?}")
                        }
                        other => panic!("{other:?}"),
                    }
                }
                assert_eq!(printed(child, listener).await, "done", "{results:?}");
            });
        }
    }
}

#[test]
fn stops_and_continuations() {
    const BODY: &str = r#"
        int main(void) {
            told();
            for (int i = 0; i < 1500; i++) {
                long a = 1, result;
                __asm__ volatile("syscall" : "=a"(result), "+D"(a) : "a"((long)SYS_getppid) : "rcx", "r11", "memory");
                check(a == 1 && result == getpid(), "the result");
            }
            printf("done");
        }
    "#;
    for killable in [true, false] {
        for data in [false, true] {
            on_each_runtime(|| async move {
                let mut command = target("stopped", BODY, filter());
                let (child, mut listener) = start(command.wait_killable(killable), 1).await;
                let pid = nix::unistd::Pid::from_raw(child.id().unwrap() as i32);
                let over = Arc::new(AtomicBool::new(false));
                let signals = std::thread::spawn({
                    let over = Arc::clone(&over);
                    move || {
                        while !over.load(Ordering::Relaxed) {
                            let _ = kill(pid, Signal::SIGSTOP);
                            std::thread::yield_now();
                            let _ = kill(pid, Signal::SIGCONT);
                            std::thread::sleep(Duration::from_micros(200));
                        }
                    }
                });
                while let Some(call) = within("a call", listener.next()).await {
                    let another = call.continue_as(Sysno::getpid, [7; 6]);
                    let another = if data { another.data(3, "data") } else { another };
                    match within("the result", another.observe()).await {
                        Ok(_) => {}
                        Err(refused) => {
                            assert!(matches!(refused.error, asm_tracer::Error::Gone), "{refused:?}")
                        }
                    }
                }
                over.store(true, Ordering::Relaxed);
                signals.join().unwrap();
                assert_eq!(printed(child, listener).await, "done");
            });
        }
    }
}

/// A signal while an observed call blocks.
#[test]
fn a_signal_interrupts_a_call_that_blocks() {
    const BODY: &str = r#"
        int main(int argc, char **argv) {
            char byte;
            handle_signal(SIGUSR1, atoi(argv[1]) ? SA_RESTART : 0);
            ssize_t n = syscall(SYS_read, 0, &byte, 1);
            printf("%d %d", n == 1 ? byte : -errno, handled);
        }
    "#;
    for rewritten in [false, true] {
        for (restart, expected) in [("0", "-4 1"), ("1", "120 1")] {
            on_each_runtime(|| async move {
                let filter = Filter::new().trap_if(Sysno::read, [asm_tracer::filter::arg(2).eq(1)]);
                let mut command = target("blocked_and_signalled", BODY, filter);
                let (mut child, mut listener) =
                    within("the start", command.arg(restart).spawn()).await.unwrap();
                let pid = child.id().unwrap();
                let call = within("a call", listener.next()).await.unwrap();
                let [fd, buffer, length, ..] = call.args();
                let observed = match rewritten {
                    true => call
                        .continue_with([fd, buffer, length, 9, 9, 9])
                        .data(4, "data")
                        .observe(),
                    false => call.continue_and_observe(),
                };
                let observed = tokio::spawn(observed);
                until("it reads", || {
                    waits_in(pid, Sysno::read) && is_traced(pid) && crate::support::state(pid) == Some('S')
                })
                .await;
                child.signal(Signal::SIGUSR1).unwrap();
                let observed = within("the result", observed).await.unwrap().unwrap();
                // It may not have been in its call yet.
                assert!(
                    matches!(observed, Observed::Interrupted | Observed::Gone),
                    "{observed:?}"
                );
                if restart == "1" {
                    let again = within("the call again", listener.next()).await.unwrap();
                    assert_eq!(again.args()[..3], [fd, buffer, length]);
                    child.stdin.take().unwrap().write_all(b"x").await.unwrap();
                    let observed = within("the result", again.continue_and_observe()).await.unwrap();
                    assert_eq!(observed, Observed::Returned(1));
                }
                assert_eq!(printed(child, listener).await, expected);
            });
        }
    }
}

/// A call that changes the mask has done so, although signals are blocked around it.
#[test]
fn a_changed_mask_is_kept() {
    const MASKS: &str = r#"
        int main(void) {
            sigset_t mask;
            syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, NULL, 8, 5);
            check(!syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, 8, 0), "sigprocmask");
            printf("%d %d", sigismember(&mask, SIGUSR1), sigismember(&mask, SIGUSR2));
        }
    "#;
    on_each_runtime(|| async {
        let filter = Filter::new().trap_if(Sysno::rt_sigprocmask, [asm_tracer::filter::arg(4).eq(5)]);
        let mut command = target("masks", MASKS, filter);
        let (child, mut listener) = within("the start", command.spawn()).await.unwrap();
        let call = within("a call", listener.next()).await.unwrap();
        let usr1: u64 = 1 << (Signal::SIGUSR1 as i32 - 1);
        let blocked = call
            .continue_with([0, 0, 0, 8, 0, 0])
            .data(1, usr1.to_ne_bytes())
            .observe();
        assert_eq!(
            within("the result", blocked).await.unwrap(),
            Observed::Returned(0)
        );
        assert_eq!(printed(child, listener).await, "1 0");
    });
}

/// A call with a mask of its own, which lets a signal in that is blocked otherwise: its handler runs.
#[test]
fn a_signal_that_only_the_call_lets_in() {
    const SUSPENDS: &str = r#"
        #include <poll.h>
        int main(void) {
            handle_signal(SIGUSR1, 0);
            sigset_t mask;
            sigemptyset(&mask);
            sigaddset(&mask, SIGUSR1);
            check(!sigprocmask(SIG_BLOCK, &mask, NULL), "sigprocmask");
            unsigned long none = 0;
            struct timespec time = { .tv_sec = 1000 };
            long result = syscall(SYS_ppoll, NULL, 0, &time, &none, 8);
            check(result == -1 && errno == EINTR && handled == 1, "the handler");
            check(!sigprocmask(SIG_BLOCK, NULL, &mask) && sigismember(&mask, SIGUSR1), "the mask");
            printf("%d", handled);
        }
    "#;
    for data in [false, true] {
        on_each_runtime(|| async move {
            let mut command = target("suspends", SUSPENDS, Filter::new().trap(Sysno::ppoll));
            let (child, mut listener) = within("the start", command.spawn()).await.unwrap();
            let call = within("a call", listener.next()).await.unwrap();
            let args = call.args();
            let rewritten = call.continue_with(args);
            let rewritten = if data {
                rewritten.data(5, "data")
            } else {
                rewritten
            };
            let pid = child.id().unwrap();
            let observed = blocked(&child, rewritten.observe(), Sysno::ppoll).await;
            kill(nix::unistd::Pid::from_raw(pid as i32), Signal::SIGUSR1).unwrap();
            assert_eq!(
                within("the result", observed).await.unwrap(),
                Observed::Interrupted
            );
            assert_eq!(printed(child, listener).await, "1");
        });
    }
}
