//! One of many threads, and of many children.

use std::future::IntoFuture;

use asm_tracer::{Filter, Observed, Supervisor, Sysno};

use crate::support::target::{filter, on_each_runtime};
use crate::support::within;
use crate::{printed, start, target};

const THREADS: &str = r#"
    static void *run(void *unused) {
        for (long i = 0; i < 50; i++) {
            long a = i, b = -i, result;
            __asm__ volatile("syscall" : "=a"(result), "+D"(a), "+S"(b) : "a"((long)SYS_getppid) : "rcx", "r11", "memory");
            check(a == i && b == -i, "the registers");
            check(result == syscall(SYS_gettid), "the result");
        }
        return NULL;
    }
    int main(void) {
        pthread_t threads[64];
        told();
        for (int i = 0; i < 63; i++) check(!pthread_create(&threads[i], NULL, run, NULL), "a thread");
        run(NULL);
        for (int i = 0; i < 63; i++) pthread_join(threads[i], NULL);
        printf("done");
    }
"#;

#[test]
fn sixty_four_threads_at_once() {
    for killable in [true, false] {
        on_each_runtime(|| async move {
            let mut command = target("many_threads", THREADS, filter());
            let (child, mut listener) = start(command.wait_killable(killable), 1).await;
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..64 * 50 {
                let call = within("a call", listener.next()).await.unwrap();
                tasks.spawn(async move {
                    let tid = call.tid().unwrap();
                    let observed = call.continue_as(Sysno::gettid, [7; 6]).observe().await.unwrap();
                    assert_eq!(observed, Observed::Returned(tid.into()));
                });
            }
            while let Some(done) = within("a rewriting", tasks.join_next()).await {
                done.unwrap();
            }
            assert_eq!(printed(child, listener).await, "done");
        });
    }
}

/// In the loop that receives: nobody else receives meanwhile.
#[test]
fn sixty_four_threads_in_turn() {
    on_each_runtime(|| async {
        let mut command = target("many_threads", THREADS, filter());
        let (child, mut listener) = start(&mut command, 1).await;
        for _ in 0..64 * 50 {
            let call = within("a call", listener.next()).await.unwrap();
            let rewritten = call.continue_as(Sysno::gettid, [7; 6]).into_future();
            assert!(within("the rewriting", rewritten).await.unwrap().is_delivered());
        }
        assert_eq!(printed(child, listener).await, "done");
    });
}

#[test]
fn many_children_of_one_supervisor() {
    on_each_runtime(|| async {
        let mut supervisor = Supervisor::new();
        let mut children = Vec::new();
        for _ in 0..10 {
            let mut command = target("many_threads", THREADS, filter());
            let mut child = within("the start", supervisor.spawn(&mut command)).await.unwrap();
            drop(child.stdin.take());
            children.push(child);
        }
        while let Some(call) = within("a call", supervisor.next()).await {
            let rewritten = call.continue_as(Sysno::gettid, [7; 6]).into_future();
            assert!(within("the rewriting", rewritten).await.unwrap().is_delivered());
        }
        for child in children {
            let output = within("the output", child.wait_with_output()).await.unwrap();
            assert!(output.status.success(), "{output:?}");
            assert_eq!(output.stdout, b"done");
        }
    });
}

/// Others wait for the children at the same time, by whom the stops must not be taken for ends.
#[test]
fn those_who_wait_for_the_child_meanwhile_are_not_disturbed() {
    const CALLS: &str = r#"
        int main(void) {
            told();
            for (int i = 0; i < 3000; i++) check(trap(0, 0, 0, 0) == getpid(), "the result");
            return 7;
        }
    "#;
    on_each_runtime(|| async {
        let mut command = target("waited_for", CALLS, filter());
        let (mut child, mut listener) = start(&mut command, 1).await;
        let mut calls = 0;
        loop {
            tokio::select! {
                biased;
                call = within("a call or the end", listener.next()) => {
                    let Some(call) = call else { break };
                    calls += 1;
                    let rewritten = call.continue_as(Sysno::getpid, [0; 6]).into_future();
                    within("the rewriting", rewritten).await.unwrap();
                    if calls < 2999 {
                        assert!(child.try_wait().unwrap().is_none());
                    }
                }
                status = child.wait() => assert_eq!((status.unwrap().code(), calls), (Some(7), 3000)),
            }
        }
        assert_eq!(calls, 3000);
        assert_eq!(within("the end", child.wait()).await.unwrap().code(), Some(7));
    });
    let mut command = target("waited_for", CALLS, filter());
    let tracer = asm_tracer::blocking::Tracer::with_notifications(|call| {
        call.continue_as(Sysno::getpid, [0; 6]).wait().unwrap();
    });
    let child = tracer.spawn(&mut command).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert_eq!(child.wait().unwrap(), 7 << 8));
        }
        drop(child.take_stdin());
    });
}

/// A child of `vfork(2)`, whose parent waits in the kernel.
#[test]
fn a_vfork_child() {
    const VFORKS: &str = r#"
        int main(void) {
            told();
            for (int i = 0; i < 20; i++) {
                volatile long result = 0;
                volatile pid_t self = 0;
                pid_t child = vfork();
                if (child == 0) { self = getpid(); result = trap(1, 2, 3, 4); _exit(0); }
                int status;
                check(waitpid(child, &status, 0) == child && status == 0, "the child");
                check(result == self && self == child, "the result");
            }
            printf("done");
        }
    "#;
    for killable in [true, false] {
        on_each_runtime(|| async move {
            let mut command = target(
                "vforks",
                VFORKS,
                Filter::new().trap([Sysno::getppid, Sysno::vfork]),
            );
            let (child, mut listener) = start(command.wait_killable(killable), 1).await;
            let mut parents = tokio::task::JoinSet::new();
            while let Some(call) = within("a call", listener.next()).await {
                if call.sysno() == Some(Sysno::vfork) {
                    // It returns when the child is gone, which is to be served meanwhile.
                    parents.spawn(call.continue_and_observe());
                    continue;
                }
                let tid = call.tid().unwrap();
                let another = call.continue_as(Sysno::getpid, [0; 6]).data(2, "data").observe();
                let observed = within("the result", another).await.unwrap();
                assert_eq!(observed, Observed::Returned(tid.into()));
            }
            for observed in parents.join_all().await {
                let observed = observed.unwrap();
                assert!(matches!(observed, Observed::Returned(1..)), "{observed:?}");
            }
            assert_eq!(printed(child, listener).await, "done");
        });
    }
}
