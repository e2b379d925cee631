//! No child holds up another.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use asm_tracer::{Supervisor, WakeUp};

use crate::support::{until, within};
use crate::target::{answer, serve, spawn, waiting_threads};

const POLICIES: [WakeUp; 3] = [WakeUp::Adaptive, WakeUp::Synchronous, WakeUp::Asynchronous];

#[tokio::test]
async fn children_with_pending_calls_are_served_in_turn() {
    const CHILDREN: usize = 8;
    const THREADS: usize = 4;
    let mut supervisor = Supervisor::new();
    let mut children = Vec::new();
    for _ in 0..CHILDREN {
        let child = spawn(&supervisor, "threads 4 1").await;
        let pid = child.id().unwrap();
        until("all threads wait", || waiting_threads(pid) == THREADS).await;
        children.push(child);
    }
    // The runtime looks for events, so that it knows of the last child's calls too.
    tokio::task::yield_now().await;
    // Nothing is answered, so every call that comes had been pending from the start.
    let mut held = Vec::new();
    for _ in 0..THREADS {
        let mut round = HashSet::new();
        for _ in 0..CHILDREN {
            let call = within("a call", supervisor.next()).await.unwrap();
            assert!(
                round.insert(call.child()),
                "{} was served twice before others",
                call.child()
            );
            held.push(call);
        }
    }
    held.into_iter().for_each(answer);
    assert_eq!(serve(&mut supervisor).await, 0);
}

/// Children that make calls without a pause.
#[derive(Clone, Copy)]
struct Busy {
    children: usize,
    threads: usize,
}

/// How many calls of busy children are received while one of a lone child waits, at most.
async fn most_calls_between(busy: Busy, policy: WakeUp) -> usize {
    const CALLS: usize = 30;
    let mut supervisor = Supervisor::new();
    supervisor.set_wake_up(policy);
    let mut others = Vec::new();
    for _ in 0..busy.children {
        let child = spawn(&supervisor, &format!("threads {} -1", busy.threads)).await;
        let pid = child.id().unwrap();
        until("all threads wait", || waiting_threads(pid) == busy.threads).await;
        others.push(child);
    }
    let lone = spawn(&supervisor, &format!("calls {CALLS}")).await;
    let pid = lone.id().unwrap();
    let (mut calls, mut between, mut most) = (0, 0, 0);
    while calls < CALLS {
        let call = within("a call", supervisor.next()).await.unwrap();
        if call.child() == lone.key() {
            calls += 1;
            most = most.max(between);
            between = 0;
        } else if between > 0 || waiting_threads(pid) == 1 {
            // The lone child is known to wait now, so the scheduler has no part in the count.
            between += 1;
        }
        // As long as it takes the other threads to make their next calls.
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(50) {
            std::hint::spin_loop();
        }
        answer(call);
    }
    most
}

/// A task's share of the runtime's time is 128 operations; then the runtime looks for events, of which the lone
/// child's is one, and it is served after one call of each other child.
async fn check(busy: Busy) {
    for policy in POLICIES {
        let most = most_calls_between(busy, policy).await;
        assert!(
            most <= 128 + 2 * (busy.children + 1),
            "{policy:?}: {most} calls came in between"
        );
    }
}

#[tokio::test]
async fn a_busy_child_does_not_hold_up_another() {
    let (children, threads) = (1, 1);
    check(Busy { children, threads }).await;
}

#[tokio::test]
async fn a_full_queue_does_not_hold_up_another_child() {
    let (children, threads) = (1, 200);
    check(Busy { children, threads }).await;
}

#[tokio::test]
async fn full_queues_do_not_hold_up_another_child_in_a_spawned_task() {
    let (children, threads) = (4, 100);
    tokio::spawn(check(Busy { children, threads })).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_queues_do_not_hold_up_another_child_for_ever_on_many_workers() {
    let (children, threads) = (2, 100);
    // Another worker may be the one that looks for events, and nothing bounds when it gets a CPU.
    let most = most_calls_between(Busy { children, threads }, WakeUp::Adaptive);
    tokio::spawn(most).await.unwrap();
}

#[tokio::test]
async fn full_queues_do_not_hold_up_the_tasks_of_the_runtime() {
    let mut supervisor = Supervisor::new();
    let mut children = Vec::new();
    for _ in 0..4 {
        let child = spawn(&supervisor, "threads 64 1").await;
        let pid = child.id().unwrap();
        until("all threads wait", || waiting_threads(pid) == 64).await;
        children.push(child);
    }
    let ticks = Arc::new(AtomicUsize::new(0));
    let ticking = Arc::clone(&ticks);
    tokio::spawn(async move {
        loop {
            ticking.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let (mut since, mut last) = (0, 0);
    let mut calls = 0;
    while let Some(call) = supervisor.next().await {
        let now = ticks.load(Ordering::Relaxed);
        since = if now == last { since + 1 } else { 0 };
        last = now;
        assert!(since <= 128, "{since} calls without a turn for the other task");
        calls += 1;
        answer(call);
    }
    assert_eq!(calls, 4 * 64);
}
