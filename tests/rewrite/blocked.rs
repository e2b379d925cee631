//! Calls that block: nobody waits for them on a thread, and what they return comes in the end.

use std::future::{Future, IntoFuture};

use asm_tracer::{Filter, Observed, Sysno};
use tokio::io::AsyncWriteExt;

use crate::support::target::{on_each_runtime, threads, waits_in};
use crate::support::{open_descriptors, until, within};
use crate::{is_traced, printed, target};

/// So many threads read a byte each.
const READERS: &str = r#"
    static void *run(void *unused) {
        char byte;
        check(read(0, &byte, 1) == 1 && byte == 'x', "a byte");
        return unused;
    }
    int main(int argc, char **argv) {
        static pthread_t threads[300];
        int count = atoi(argv[1]);
        for (int i = 0; i < count; i++) check(!pthread_create(&threads[i], NULL, run, NULL), "a thread");
        for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
        printf("done");
    }
"#;

fn own_threads() -> usize {
    threads(std::process::id()).len()
}

#[test]
fn three_hundred_blocked_calls_take_no_thread_each() {
    for rewritten in [false, true] {
        on_each_runtime(|| async move {
            let mut command = target(
                "readers",
                READERS,
                Filter::new().trap_if(Sysno::read, [asm_tracer::filter::arg(2).eq(1)]),
            );
            let (mut child, mut listener) = within("the start", command.arg("300").spawn()).await.unwrap();
            let before = own_threads();
            let mut results = tokio::task::JoinSet::new();
            for _ in 0..300 {
                let call = within("a call", listener.next()).await.unwrap();
                let [fd, buffer, length, ..] = call.args();
                match rewritten {
                    true => results.spawn(call.continue_with([fd, buffer, length, 7, 7, 7]).observe()),
                    false => results.spawn(call.continue_and_observe()),
                };
            }
            let pid = child.id().unwrap();
            let reading = || {
                threads(pid)
                    .iter()
                    .filter(|tid| waits_in(**tid, Sysno::read))
                    .count()
            };
            until("all of them read", || reading() == 300).await;
            let traced = || threads(pid).iter().filter(|tid| is_traced(**tid)).count();
            until("all of them are traced", || traced() == 300).await;
            // One borrows, and it has one child.
            assert!(
                own_threads() <= before + 10,
                "{} threads, {before} before",
                own_threads()
            );
            assert!(open_descriptors() < 400, "{} descriptors", open_descriptors());
            let mut stdin = child.stdin.take().unwrap();
            stdin.write_all(&[b'x'; 300]).await.unwrap();
            while let Some(result) = within("a result", results.join_next()).await {
                assert_eq!(result.unwrap().unwrap(), Observed::Returned(1));
            }
            assert_eq!(printed(child, listener).await, "done");
        });
    }
}

/// The loop goes on while a call that was rewritten blocks; afterwards nothing is attached.
#[test]
fn a_rewritten_call_that_blocks_is_left_alone() {
    on_each_runtime(|| async {
        let mut command = target(
            "readers",
            READERS,
            Filter::new().trap_if(Sysno::read, [asm_tracer::filter::arg(2).eq(1)]),
        );
        let (mut child, mut listener) = within("the start", command.arg("2").spawn()).await.unwrap();
        for _ in 0..2 {
            let call = within("a call", listener.next()).await.unwrap();
            let [fd, buffer, length, ..] = call.args();
            let rewritten = call.continue_with([fd, buffer, length, 7, 7, 7]).into_future();
            assert!(within("the rewriting", rewritten).await.unwrap().is_delivered());
        }
        child.stdin.take().unwrap().write_all(b"xx").await.unwrap();
        assert_eq!(printed(child, listener).await, "done");
    });
}

/// While the borrower waits for a call that blocks, others come and go.
#[test]
fn others_are_served_while_one_blocks() {
    const BODY: &str = r#"
        static void *run(void *unused) {
            for (int i = 0; i < 200; i++) check(trap(1, 2, 3, 4) == getpid(), "the result");
            check(write(1, "others", 6) == 6, "write");
            return unused;
        }
        int main(void) {
            pthread_t thread;
            char byte;
            check(!pthread_create(&thread, NULL, run, NULL), "a thread");
            check(read(0, &byte, 1) == 1, "a byte");
            pthread_join(thread, NULL);
        }
    "#;
    on_each_runtime(|| async {
        let one_byte = [asm_tracer::filter::arg(2).eq(1)];
        let filter = Filter::new().trap(Sysno::getppid).trap_if(Sysno::read, one_byte);
        let (mut child, mut listener) = within("the start", target("one_blocks", BODY, filter).spawn())
            .await
            .unwrap();
        let mut blocked = None;
        for _ in 0..201 {
            let call = within("a call", listener.next()).await.unwrap();
            match call.sysno() {
                Some(Sysno::read) => blocked = Some(tokio::spawn(call.continue_and_observe())),
                _ => {
                    let another = call
                        .continue_as(Sysno::getpid, [0; 6])
                        .data(3, "data")
                        .into_future();
                    assert!(within("the rewriting", another).await.unwrap().is_delivered());
                }
            }
        }
        child.stdin.take().unwrap().write_all(b"x").await.unwrap();
        let observed = within("the result", blocked.unwrap()).await.unwrap().unwrap();
        assert_eq!(observed, Observed::Returned(1));
        assert_eq!(printed(child, listener).await, "others");
    });
}

/// A waker is somebody else's code.
#[test]
fn a_waker_that_panics_keeps_nobody_from_his_result() {
    struct Panics;
    impl std::task::Wake for Panics {
        fn wake(self: std::sync::Arc<Self>) {
            panic!("a waker of the test");
        }
    }
    on_each_runtime(|| async {
        let body = "int main(void) { check(trap(0, 0, 0, 0) == getpid() && trap(0, 0, 0, 0) == getpid(), \"the result\"); }";
        let mut command = target("twice", body, crate::support::target::filter());
        let (child, mut listener) = within("the start", command.spawn()).await.unwrap();
        let call = within("a call", listener.next()).await.unwrap();
        let mut first = call.continue_as(Sysno::getpid, [0; 6]).into_future();
        let waker = std::task::Waker::from(std::sync::Arc::new(Panics));
        let polled = Future::poll(
            std::pin::Pin::new(&mut first),
            &mut std::task::Context::from_waker(&waker),
        );
        assert!(polled.is_pending());
        let call = within("a call", listener.next()).await.unwrap();
        let second = call.continue_as(Sysno::getpid, [0; 6]).into_future();
        assert!(within("the rewriting", second).await.unwrap().is_delivered());
        assert!(within("the first one", first).await.unwrap().is_delivered());
        assert_eq!(printed(child, listener).await, "");
    });
}
