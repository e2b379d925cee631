//! A `next()` that is dropped loses nothing.

use std::time::Duration;

use asm_tracer::Supervisor;

use crate::support::{until, within};
use crate::target::{answer, command, expect_success, spawn, waiting_threads};

const CALLS: i64 = 2000;

#[tokio::test]
async fn next_loses_nothing_when_a_ticker_wins() {
    let mut supervisor = Supervisor::new();
    let child = spawn(&supervisor, &format!("calls {CALLS}")).await;
    let (mut calls, mut cancelled) = (0, 0);
    let serving = async {
        loop {
            let call = tokio::select! {
                biased;
                call = supervisor.next() => call,
                () = std::future::ready(()) => {
                    cancelled += 1;
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            let Some(call) = call else { break };
            assert_eq!(call.args()[0], calls);
            calls += 1;
            // The only thread waits, so these can't but be cancelled.
            for _ in 0..2 {
                tokio::select! {
                    biased;
                    other = supervisor.next() => panic!("{other:?}"),
                    () = std::future::ready(()) => cancelled += 1,
                }
            }
            answer(call);
        }
    };
    within("all calls", serving).await;
    assert_eq!(calls, CALLS);
    assert!(cancelled >= 2 * CALLS, "{cancelled}");
    expect_success(child).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn next_loses_nothing_when_a_timeout_wins() {
    let mut supervisor = Supervisor::new();
    let children = [
        spawn(&supervisor, "threads 4 250").await,
        spawn(&supervisor, "threads 4 250").await,
    ];
    let mut seen = std::collections::HashSet::new();
    let serving = async {
        for nanos in (0..20_000).step_by(7).cycle() {
            match tokio::time::timeout(Duration::from_nanos(nanos), supervisor.next()).await {
                Err(_) => {}
                Ok(None) => break,
                Ok(Some(call)) => {
                    let [index, who, ..] = call.args();
                    assert!(seen.insert((call.child(), who, index)), "{call:?} came twice");
                    answer(call);
                }
            }
        }
    };
    within("all calls", serving).await;
    assert_eq!(seen.len(), 2 * 4 * 250);
    for child in children {
        expect_success(child).await;
    }
}

#[tokio::test]
async fn the_next_of_a_lone_listener_loses_nothing_either() {
    let (child, mut listener) = within("a spawn", command("threads 8 100").spawn()).await.unwrap();
    let pid = child.id().unwrap();
    until("all threads wait", || waiting_threads(pid) == 8).await;
    let mut calls = 0;
    let serving = async {
        loop {
            tokio::select! {
                call = listener.next() => match call {
                    Some(call) => {
                        calls += 1;
                        answer(call);
                    }
                    None => break,
                },
                () = tokio::task::yield_now() => {}
            }
        }
    };
    within("all calls", serving).await;
    assert_eq!(calls, 800);
    expect_success(child).await;
}

#[tokio::test]
async fn calls_that_were_received_and_not_returned_come_later() {
    let mut supervisor = Supervisor::new();
    let child = spawn(&supervisor, "threads 40 1").await;
    let pid = child.id().unwrap();
    until("all threads wait", || waiting_threads(pid) == 40).await;
    // The first look takes all of them off the kernel's list.
    let first = within("a call", supervisor.next()).await.unwrap();
    drop(supervisor.next());
    answer(first);
    assert_eq!(crate::target::serve(&mut supervisor).await, 39);
    expect_success(child).await;
}
