//! Every kind of runtime, and moves between them.

use asm_tracer::{Supervisor, WakeUp};
use tokio::runtime::{Builder, Runtime};

use crate::support::within;
use crate::target::{answer, expect_success, serve, spawn};

/// Three children with several threads; checks that each call came once.
async fn scenario() {
    let mut supervisor = Supervisor::new();
    let mut children = Vec::new();
    for _ in 0..3 {
        children.push(spawn(&supervisor, "threads 4 25").await);
    }
    assert_eq!(serve(&mut supervisor).await, 3 * 4 * 25);
    for child in children {
        expect_success(child).await;
    }
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn multi_thread(workers: usize) -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn a_current_thread_runtime_will_do() {
    let runtime = current_thread();
    runtime.block_on(scenario());
    runtime.block_on(async { tokio::spawn(scenario()).await.unwrap() });
}

#[test]
fn a_multi_thread_runtime_will_do() {
    for workers in [1, 2, 4] {
        let runtime = multi_thread(workers);
        runtime.block_on(scenario());
        runtime.block_on(async { tokio::spawn(scenario()).await.unwrap() });
    }
}

#[test]
fn a_local_set_will_do() {
    let local = tokio::task::LocalSet::new();
    let task = local.spawn_local(async {
        // Not `Send`, as most of what is in a `LocalSet`.
        let calls = std::rc::Rc::new(std::cell::Cell::new(0));
        let mut supervisor = Supervisor::new();
        let child = spawn(&supervisor, "calls 30").await;
        while let Some(call) = within("a call", supervisor.next()).await {
            let calls = std::rc::Rc::clone(&calls);
            tokio::task::spawn_local(async move {
                calls.set(calls.get() + 1);
                answer(call);
            });
        }
        expect_success(child).await;
        calls.get()
    });
    let runtime = current_thread();
    assert_eq!(runtime.block_on(local.run_until(task)).unwrap(), 30);
}

#[test]
fn another_thread_may_block_on_the_stream() {
    let runtime = multi_thread(1);
    for by_handle in [true, false] {
        let (mut supervisor, child) = runtime.block_on(async {
            let supervisor = Supervisor::new();
            let child = spawn(&supervisor, "calls 100").await;
            (supervisor, child)
        });
        let handle = runtime.handle().clone();
        let serving = std::thread::spawn(move || {
            let mut calls = 0;
            let all = async {
                while let Some(call) = supervisor.next().await {
                    calls += 1;
                    answer(call);
                }
            };
            match by_handle {
                true => handle.block_on(all),
                // No runtime at all on this thread: the events come from the other one.
                false => futures::executor::block_on(all),
            }
            calls
        });
        runtime.block_on(within("an exit", expect_success(child)));
        assert_eq!(serving.join().unwrap(), 100);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supervisor_moves_between_tasks() {
    let mut supervisor = Supervisor::new();
    let child = spawn(&supervisor, "calls 100").await;
    for round in 0..10 {
        let task = tokio::spawn(async move {
            let mut held = None;
            for index in 0..10 {
                // The waker of this task is left behind with the last of these, which is pending.
                if let Some(call) = held.take() {
                    assert!(futures::poll!(supervisor.next()).is_pending());
                    answer(call);
                }
                let call = within("a call", supervisor.next()).await.unwrap();
                assert_eq!(call.args()[0], round * 10 + index);
                held = Some(call);
            }
            assert!(futures::poll!(supervisor.next()).is_pending());
            (supervisor, held.unwrap())
        });
        let call;
        (supervisor, call) = within("a task", task).await.unwrap();
        answer(call);
    }
    assert_eq!(serve(&mut supervisor).await, 0);
    expect_success(child).await;
}

#[tokio::test]
async fn two_supervisors_share_a_runtime() {
    let serve = |arguments: &'static str, expected: usize| async move {
        let mut supervisor = Supervisor::new();
        let children = [
            spawn(&supervisor, arguments).await,
            spawn(&supervisor, arguments).await,
        ];
        let mut calls = 0;
        while let Some(call) = within("a call", supervisor.next()).await {
            assert!(children.iter().any(|child| child.key() == call.child()));
            calls += 1;
            answer(call);
        }
        assert_eq!(calls, expected);
        for child in children {
            expect_success(child).await;
        }
    };
    let first = tokio::spawn(serve("calls 200", 400));
    serve("threads 3 50", 300).await;
    first.await.unwrap();
}

#[tokio::test]
async fn every_wake_up_policy_gives_the_same_results() {
    for policy in [WakeUp::Adaptive, WakeUp::Synchronous, WakeUp::Asynchronous] {
        for (children, calls) in [(1, 1500), (6, 250)] {
            let mut supervisor = Supervisor::new();
            supervisor.set_wake_up(policy);
            let mut started = Vec::new();
            for _ in 0..children {
                started.push(spawn(&supervisor, &format!("calls {calls}")).await);
            }
            assert_eq!(serve(&mut supervisor).await, children * calls, "{policy:?}");
            for child in started {
                expect_success(child).await;
            }
        }
    }
}

#[tokio::test]
async fn the_wake_up_policy_may_change_at_any_time() {
    let mut supervisor = Supervisor::new();
    let child = spawn(&supervisor, "threads 3 200").await;
    let policies = [WakeUp::Synchronous, WakeUp::Asynchronous, WakeUp::Adaptive];
    for policy in policies.into_iter().cycle().take(600) {
        supervisor.set_wake_up(policy);
        answer(within("a call", supervisor.next()).await.unwrap());
    }
    assert_eq!(serve(&mut supervisor).await, 0);
    expect_success(child).await;
}
