//! When the stream ends, and its use as a `Stream`.

use asm_tracer::{Error, Stdio, Supervisor};
use futures::stream::FusedStream;
use futures::{FutureExt, StreamExt};
use tokio::io::AsyncReadExt;

use crate::support::within;
use crate::target::{answer, command, expect_success, serve, spawn};

#[tokio::test]
async fn the_stream_ends_with_its_last_child_and_a_new_one_revives_it() {
    let mut supervisor = Supervisor::new();
    for round in 1..=3 {
        assert!(supervisor.is_terminated());
        assert!(within("the end", supervisor.next()).await.is_none());
        let first = spawn(&supervisor, "calls 10").await;
        let second = spawn(&supervisor, "calls 20").await;
        assert!(!supervisor.is_terminated(), "round {round}");
        assert_eq!(serve(&mut supervisor).await, 30);
        assert!(supervisor.is_terminated());
        expect_success(first).await;
        expect_success(second).await;
    }
}

#[tokio::test]
async fn a_spawner_keeps_the_stream_open() {
    let mut supervisor = Supervisor::new();
    let spawner = supervisor.spawner();
    let second = spawner.clone();
    assert!(!supervisor.is_terminated());
    assert!(supervisor.next().now_or_never().is_none());
    drop(spawner);
    assert!(supervisor.next().now_or_never().is_none());
    let (waits, waiting) = tokio::sync::oneshot::channel();
    let serving = tokio::spawn(async move {
        let mut next = supervisor.next();
        assert!(futures::poll!(&mut next).is_pending());
        waits.send(()).unwrap();
        within("the end", next).await.is_none()
    });
    waiting.await.unwrap();
    // Not every drop happens where a runtime is.
    std::thread::spawn(move || drop(second)).join().unwrap();
    assert!(within("the end", serving).await.unwrap());
}

#[tokio::test]
async fn spawners_start_children_from_other_tasks_while_the_loop_waits() {
    let mut supervisor = Supervisor::new();
    let spawner = supervisor.spawner();
    let starting: Vec<_> = (0..8)
        .map(|_| {
            let spawner = spawner.clone();
            tokio::spawn(async move {
                for _ in 0..4 {
                    let child = within("a spawn", spawner.spawn(&mut command("calls 5"))).await;
                    expect_success(child.unwrap()).await;
                }
            })
        })
        .collect();
    drop(spawner);
    assert_eq!(serve(&mut supervisor).await, 8 * 4 * 5);
    for task in starting {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_spawner_without_its_supervisor_leaves_nothing_behind() {
    let supervisor = Supervisor::new();
    let spawner = supervisor.spawner();
    let (writer, mut reader) = tokio::net::unix::pipe::pipe().unwrap();
    let mut command = command("calls 1");
    command.stdout(Stdio::from(writer.into_blocking_fd().unwrap()));
    drop(supervisor);
    let refused = within("a spawn", spawner.spawn(&mut command)).await;
    assert!(matches!(refused, Err(Error::SupervisorGone)), "{refused:?}");
    // The command has the last copy of the pipe once the child is dead.
    drop(command);
    let mut output = Vec::new();
    within("the end of the child", reader.read_to_end(&mut output))
        .await
        .unwrap();
}

#[tokio::test]
async fn two_supervisors_take_part_in_a_select_until_both_are_complete() {
    let (mut first, mut second) = (Supervisor::new(), Supervisor::new());
    let children = [spawn(&first, "calls 50").await, spawn(&second, "calls 70").await];
    let mut calls = [0, 0];
    let serving = async {
        loop {
            futures::select! {
                call = first.select_next_some() => {
                    assert_eq!(call.child(), children[0].key());
                    calls[0] += 1;
                    answer(call);
                }
                call = second.select_next_some() => {
                    assert_eq!(call.child(), children[1].key());
                    calls[1] += 1;
                    answer(call);
                }
                complete => break,
            }
        }
    };
    within("both", serving).await;
    assert_eq!(calls, [50, 70]);
    for child in children {
        expect_success(child).await;
    }
}

#[tokio::test]
async fn the_inherent_next_takes_part_in_a_select() {
    let mut supervisor = Supervisor::new();
    let mut child = spawn(&supervisor, "calls 20").await;
    let mut calls = 0;
    let mut exit = Box::pin(child.wait().fuse());
    let serving = async {
        loop {
            futures::select! {
                call = supervisor.next() => if let Some(call) = call {
                    calls += 1;
                    answer(call);
                },
                status = exit => assert!(status.unwrap().success()),
                complete => break,
            }
        }
    };
    within("the end of both", serving).await;
    assert_eq!(calls, 20);
}

#[tokio::test]
async fn the_adapters_of_stream_ext_work() {
    let mut supervisor = Supervisor::new();
    let child = spawn(&supervisor, "threads 4 5").await;
    let first: Vec<_> = within("ten calls", supervisor.by_ref().take(4).collect()).await;
    first.into_iter().for_each(answer);
    let rest = supervisor.by_ref().for_each_concurrent(3, |call| async {
        tokio::task::yield_now().await;
        answer(call);
    });
    within("the rest", rest).await;
    assert!(supervisor.is_terminated());
    expect_success(child).await;

    let (mut child, listener) = within("a spawn", command("calls 12").spawn()).await.unwrap();
    let calls = within("the calls", listener.map(answer).count()).await;
    assert_eq!(calls, 12);
    assert!(within("an exit", child.wait()).await.unwrap().success());
}

#[tokio::test]
async fn a_lone_listener_is_terminated_once_its_child_is_gone() {
    let (child, mut listener) = within("a spawn", command("calls 3").spawn()).await.unwrap();
    assert_eq!(listener.key(), child.key());
    assert!(!listener.is_terminated());
    for index in 0..3 {
        let call = within("a call", listener.next()).await.unwrap();
        assert_eq!((call.args()[0], call.child()), (index, child.key()));
        answer(call);
    }
    for _ in 0..3 {
        assert!(within("the end", listener.next()).await.is_none());
        assert!(listener.is_terminated());
    }
    expect_success(child).await;
}
