//! Handlers in tasks of their own, and children with a task each.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use asm_tracer::{Delivery, Stdio, Supervisor};
use futures::future::join_all;

use crate::support::{until, within};
use crate::target::{answer, command, expect_success, serve, spawn, waiting_threads};

#[tokio::test]
async fn thirty_two_children_are_spawned_at_once_and_have_a_task_each() {
    let tasks = (0..32).map(|number| {
        tokio::spawn(async move {
            let (mut child, mut listener) =
                within("a spawn", command(&format!("calls {number} {number}")).spawn())
                    .await
                    .unwrap();
            let serving = tokio::spawn(async move {
                let mut calls = 0;
                while let Some(call) = listener.next().await {
                    assert_eq!((call.args()[1], call.child()), (number, listener.key()));
                    calls += 1;
                    answer(call);
                }
                calls
            });
            assert!(within("an exit", child.wait()).await.unwrap().success());
            assert_eq!(within("the end", serving).await.unwrap(), number);
            child.key()
        })
    });
    let keys: std::collections::HashSet<_> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(keys.len(), 32);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_in_tasks_answer_out_of_order() {
    const THREADS: i64 = 16;
    let mut supervisor = Supervisor::new();
    let child = spawn(&supervisor, &format!("threads {THREADS} 3")).await;
    for _ in 0..3 {
        let mut round = Vec::new();
        for _ in 0..THREADS {
            round.push(within("a call", supervisor.next()).await.unwrap());
        }
        // Each handler waits for the one whose call came after its own.
        let mut after = None;
        let mut handlers = Vec::new();
        for call in round.into_iter().rev() {
            let (done, mine) = tokio::sync::oneshot::channel::<()>();
            let before = after.replace(mine);
            handlers.push(tokio::spawn(async move {
                if let Some(before) = before {
                    before.await.unwrap();
                }
                answer(call);
                let _ = done.send(());
            }));
        }
        for handler in handlers {
            within("a handler", handler).await.unwrap();
        }
    }
    assert_eq!(serve(&mut supervisor).await, 0);
    expect_success(child).await;
}

#[tokio::test]
async fn a_stuck_handler_does_not_hold_up_other_children() {
    let mut supervisor = Supervisor::new();
    let mut command = command("calls 1");
    command.stderr(Stdio::null());
    let stuck = within("a spawn", supervisor.spawn(&mut command)).await.unwrap();
    let other = spawn(&supervisor, "calls 500").await;
    let mut handler = None;
    let mut calls = 0;
    let spawner = supervisor.spawner();
    let serving = tokio::spawn(async move {
        while let Some(call) = supervisor.next().await {
            if call.child() == other.key() {
                calls += 1;
                tokio::spawn(async move { answer(call) });
                if calls == 500 {
                    break;
                }
            } else {
                handler = Some(tokio::spawn(async move {
                    std::future::pending::<()>().await;
                    answer(call);
                }));
            }
        }
        expect_success(other).await;
        let handler = handler.unwrap();
        assert!(!handler.is_finished());
        handler.abort();
        drop(spawner);
        assert!(supervisor.next().await.is_none());
    });
    within("the other child", serving).await.unwrap();
    // The call of the aborted handler was answered for it.
    let status = within("an exit", stuck.wait_with_output()).await.unwrap().status;
    assert_eq!(status.code(), Some(1));
}

#[tokio::test]
async fn a_call_whose_handler_panics_or_is_too_slow_fails_with_enosys() {
    let mut supervisor = Supervisor::new();
    for panics in [true, false] {
        let mut command = command("calls 1");
        command.stderr(Stdio::piped());
        let child = within("a spawn", supervisor.spawn(&mut command)).await.unwrap();
        let call = within("a call", supervisor.next()).await.unwrap();
        if panics {
            let handler = tokio::spawn(async move {
                let _call = call;
                panic!("this is meant to be");
            });
            assert!(handler.await.unwrap_err().is_panic());
        } else {
            let handler = async move {
                let _call = call;
                std::future::pending::<()>().await;
            };
            let late = tokio::time::timeout(Duration::from_millis(1), handler).await;
            assert!(late.is_err());
        }
        assert!(within("the end", supervisor.next()).await.is_none());
        let output = within("an exit", child.wait_with_output()).await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("Function not implemented"), "{said}");
        assert_eq!(output.status.code(), Some(1));
    }
}

// T23
#[tokio::test]
async fn dropping_the_supervisor_kills_children_before_their_calls_can_fail() {
    for round in 0..30 {
        let mut supervisor = Supervisor::new();
        let mut children = Vec::new();
        for _ in 0..2 {
            let child = spawn(&supervisor, "threads 4 1").await;
            let pid = child.id().unwrap();
            until("all threads wait", || waiting_threads(pid) == 4).await;
            children.push(child);
        }
        // In turn: the calls have not been looked at, one is held, all are held.
        let mut held = Vec::new();
        for _ in 0..[0, 1, 8][round % 3] {
            held.push(within("a call", supervisor.next()).await.unwrap());
        }
        drop(supervisor);
        for child in &mut children {
            let status = within("an exit", child.wait()).await.unwrap();
            assert_eq!(status.signal(), Some(9), "round {round}: {status}");
        }
        for call in held {
            assert!(!call.is_pending());
            assert_eq!(call.respond(1).unwrap(), Delivery::Gone);
        }
    }
}

// T23, T50
#[tokio::test]
async fn a_held_call_can_be_answered_after_its_supervisor_is_gone() {
    let mut supervisor = Supervisor::new();
    let mut command = command("calls 2");
    command.kill_on_drop(false).stderr(Stdio::piped());
    let child = within("a spawn", supervisor.spawn(&mut command)).await.unwrap();
    let held = within("a call", supervisor.next()).await.unwrap();
    drop(supervisor);
    assert!(held.is_pending());
    // The listener is closed after this, its last use.
    answer(held);
    let output = within("an exit", child.wait_with_output()).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "call 1 of 0 gave -1 (Function not implemented)\n");
    assert_eq!(output.status.code(), Some(1));
}
