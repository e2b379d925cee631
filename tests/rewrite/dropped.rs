//! Futures that are dropped: the target runs on, and nothing stays attached.

use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::task::{Context, Waker};

use asm_tracer::{Child, Errno, Filter, Listener, Observed, Sysno};
use tokio::io::AsyncWriteExt;

use crate::support::target::{on_each_runtime, waits_in};
use crate::support::{until, within};
use crate::{is_traced, printed, start, target};

const READS: &str = r#"
    int main(void) {
        char byte;
        ssize_t n = syscall(SYS_read, 0, &byte, 1, 4, 5, 6);
        printf("%ld", n < 0 ? -errno : (long)byte);
    }
"#;

fn one_byte() -> Filter {
    Filter::new().trap_if(Sysno::read, [asm_tracer::filter::arg(2).eq(1)])
}

/// Polls a future until its call is made, and gives it back.
pub(crate) async fn blocked<F: Future + Unpin>(child: &Child, mut future: F, call: Sysno) -> F {
    let pid = child.id().unwrap();
    let borrowed = async {
        until("the call blocks, and is traced", || {
            waits_in(pid, call) && is_traced(pid)
        })
        .await;
        // It may have been in the trap still.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        _ = &mut future => panic!("it returned"),
        () = borrowed => future,
    }
}

#[test]
fn an_observed_call_goes_on_as_if_nobody_had_looked() {
    for killable in [true, false] {
        on_each_runtime(|| async move {
            let mut command = target("reads", READS, one_byte());
            let (mut child, mut listener) = within("the start", command.wait_killable(killable).spawn())
                .await
                .unwrap();
            let call = within("a call", listener.next()).await.unwrap();
            let pid = child.id().unwrap();
            drop(blocked(&child, call.continue_and_observe(), Sysno::read).await);
            until("nothing is attached", || !is_traced(pid)).await;
            until("it reads", || waits_in(pid, Sysno::read)).await;
            child.stdin.take().unwrap().write_all(b"x").await.unwrap();
            assert_eq!(printed(child, listener).await, "120");
        });
    }
}

#[test]
fn a_rewritten_call_comes_again() {
    for killable in [true, false] {
        for data in [false, true] {
            on_each_runtime(|| async move {
                let mut command = target("reads", READS, one_byte());
                let (child, mut listener) = within("the start", command.wait_killable(killable).spawn())
                    .await
                    .unwrap();
                let call = within("a call", listener.next()).await.unwrap();
                let args = call.args();
                let mut other = args;
                other[3] = 77;
                let rewritten = call.continue_with(other);
                let rewritten = if data {
                    rewritten.data(5, "data")
                } else {
                    rewritten
                };
                drop(blocked(&child, rewritten.observe(), Sysno::read).await);
                let again = within("the call again", listener.next()).await.unwrap();
                assert_eq!((again.sysno(), again.args()), (Some(Sysno::read), args));
                assert!(!is_traced(child.id().unwrap()));
                again.error(Errno::EXDEV).unwrap();
                assert_eq!(printed(child, listener).await, "-18");
            });
        }
    }
}

/// Calls that no kernel makes again after a signal, or that go on with another call.
#[test]
fn calls_that_are_hard_to_restart_go_on() {
    const WAITS: &str = r#"
        #include <poll.h>
        #include <sys/epoll.h>
        #include <time.h>
        int main(int argc, char **argv) {
            struct pollfd fds = { .fd = 0, .events = POLLIN };
            struct epoll_event event = { .events = EPOLLIN };
            int set = epoll_create1(0);
            check(!epoll_ctl(set, EPOLL_CTL_ADD, 0, &event), "epoll_ctl");
            struct timespec time = { .tv_sec = 1000 };
            long result = !strcmp(argv[1], "poll") ? syscall(SYS_poll, &fds, 1, 1000000)
                : !strcmp(argv[1], "epoll_wait") ? syscall(SYS_epoll_wait, set, &event, 1, 1000000)
                : syscall(SYS_ppoll, &fds, 1, &time, NULL, 8);
            printf("%ld", result < 0 ? -errno : result);
        }
    "#;
    for sysno in [Sysno::poll, Sysno::epoll_wait, Sysno::ppoll] {
        on_each_runtime(|| async move {
            let filter = Filter::new().trap([sysno, Sysno::restart_syscall]);
            let mut command = target("waits", WAITS, filter);
            let (mut child, mut listener) = within("the start", command.arg(sysno.name()).spawn())
                .await
                .unwrap();
            let call = within("a call", listener.next()).await.unwrap();
            let pid = child.id().unwrap();
            drop(blocked(&child, call.continue_and_observe(), sysno).await);
            until("nothing is attached", || !is_traced(pid)).await;
            until("it waits", || {
                waits_in(pid, sysno) || waits_in(pid, Sysno::restart_syscall)
            })
            .await;
            child.stdin.take().unwrap().write_all(b"x").await.unwrap();
            assert_eq!(printed(child, listener).await, "1");
        });
    }
}

#[test]
fn before_anything_has_happened_it_is_the_default_answer() {
    on_each_runtime(|| async {
        let body = "int main(void) { while (told()) { printf(\"%ld \", trap(1, 2, 3, 4)); } }";
        let mut command = target("prints_all", body, crate::support::target::filter());
        let (child, mut listener) = start(&mut command, 3).await;
        drop(
            within("a call", listener.next())
                .await
                .unwrap()
                .continue_with([0; 6]),
        );
        drop(
            within("a call", listener.next())
                .await
                .unwrap()
                .continue_with([0; 6])
                .into_future(),
        );
        drop(
            within("a call", listener.next())
                .await
                .unwrap()
                .continue_and_observe(),
        );
        assert_eq!(printed(child, listener).await, "-38 -38 -38 ");
    });
}

/// Dropped at any moment, whatever the borrower is doing: each call is answered once, or comes again.
#[test]
fn dropped_at_any_moment() {
    const CALLS: u64 = 3000;
    let body = "int main(void) { long parent = syscall(SYS_getppid, 0); while (told()) {
        long a = 1, b = 2, result;
        __asm__ volatile(\"syscall\" : \"=a\"(result), \"+D\"(a), \"+S\"(b) : \"a\"((long)SYS_getppid) : \"rcx\", \"r11\", \"memory\");
        check(a == 1 && b == 2, \"the registers\");
        if (!(result == parent || result == getpid() || result == -ENOSYS || result == 5)) { fprintf(stderr, \"result %ld\", result); exit(1); }
    } }";
    for killable in [true, false] {
        on_each_runtime(|| async move {
            let mut command = target(
                "answered_or_again",
                body,
                Filter::new().trap_if(Sysno::getppid, [asm_tracer::filter::arg(0).eq(1)]),
            );
            let (child, mut listener) = start(command.wait_killable(killable), CALLS as usize).await;
            let mut number: u64 = 0;
            while let Some(call) = within("a call", listener.next()).await {
                number = number
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                let spins = (number >> 33) % 4000;
                let mut observed = pin!(match number >> 62 {
                    0 => call.continue_and_observe(),
                    1 => call.continue_as(Sysno::getpid, [0; 6]).observe(),
                    2 => call.continue_with([7; 6]).data(2, "data").observe(),
                    _ => {
                        call.respond(5).unwrap();
                        continue;
                    }
                });
                let mut cx = Context::from_waker(Waker::noop());
                let _ = observed.as_mut().poll(&mut cx);
                for _ in 0..spins {
                    std::hint::spin_loop();
                }
            }
            assert_eq!(printed_end(child, listener).await, "");
        });
    }
}

async fn printed_end(child: Child, listener: Listener) -> String {
    printed(child, listener).await
}

/// The supervisor goes while a call is observed: the target finds nobody, and nothing hangs.
#[test]
fn without_a_supervisor() {
    for kill in [true, false] {
        on_each_runtime(|| async move {
            const BODY: &str = r#"
                static void *run(void *unused) {
                    while (syscall(SYS_getuid) != -1 || errno != ENOSYS) usleep(1000);
                    check(write(1, "nobody", 6) == 6, "write");
                    return unused;
                }
                int main(void) {
                    pthread_t thread;
                    char byte;
                    check(!pthread_create(&thread, NULL, run, NULL), "a thread");
                    /* It may have been in the trap still. */
                    int refused = syscall(SYS_read, 0, &byte, 1) == -1 && errno == ENOSYS;
                    pthread_join(thread, NULL);
                    check(refused || byte == 'x', "the byte");
                }
            "#;
            let filter = one_byte().trap(Sysno::getuid);
            let mut command = target("nobody", BODY, filter);
            let (mut child, mut listener) = within("the start", command.kill_on_drop(kill).spawn())
                .await
                .unwrap();
            let mut observed = None;
            while observed.is_none() {
                let call = within("a call", listener.next()).await.unwrap();
                match call.sysno() {
                    Some(Sysno::read) => observed = Some(call.continue_and_observe()),
                    _ => drop(call.respond(1)),
                }
            }
            let observed = tokio::spawn(observed.unwrap());
            let pid = child.id().unwrap();
            // Whoever receives lets the call pass.
            let serve = async {
                while let Some(call) = listener.next().await {
                    let _ = call.respond(1);
                }
            };
            tokio::select! {
                () = serve => panic!("the end"),
                () = until("it reads", || waits_in(pid, Sysno::read) && is_traced(pid)) => {}
            }
            drop(listener);
            if !kill {
                let mut output = child.stdout.take().unwrap();
                let mut text = [0; 6];
                within(
                    "the other thread",
                    tokio::io::AsyncReadExt::read_exact(&mut output, &mut text),
                )
                .await
                .unwrap();
                let _ = child.stdin.take().unwrap().write_all(b"x").await;
                assert!(within("the end", child.wait()).await.unwrap().success());
            }
            let observed = within("the result", observed).await.unwrap().unwrap();
            assert!(
                matches!(
                    observed,
                    Observed::Gone | Observed::Returned(1 | -38) | Observed::Interrupted
                ),
                "{observed:?}"
            );
        });
    }
}
