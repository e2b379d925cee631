//! Many children in one loop.

use std::collections::HashMap;

use asm_tracer::{ChildKey, Supervisor};

use crate::support::within;
use crate::target::{answer, expect_success, serve, spawn};

#[tokio::test]
async fn fifty_children_are_served_in_one_loop() {
    let mut supervisor = Supervisor::new();
    let mut children = Vec::new();
    for _ in 0..50 {
        children.push(spawn(&supervisor, "calls 100").await);
    }
    let mut next: HashMap<ChildKey, i64> = HashMap::new();
    while let Some(call) = within("a call", supervisor.next()).await {
        // The calls of a thread come in its order, each once.
        let index = next.entry(call.child()).or_default();
        assert_eq!(call.args()[0], *index);
        *index += 1;
        answer(call);
    }
    assert_eq!(next.len(), children.len());
    for child in children {
        assert_eq!(next[&child.key()], 100);
        expect_success(child).await;
    }
}

// T2
#[tokio::test]
async fn sixty_four_threads_that_trap_before_the_first_look_are_all_served() {
    let mut supervisor = Supervisor::new();
    let child = spawn(&supervisor, "threads 64 20").await;
    let pid = child.id().unwrap();
    crate::support::until("all threads wait", || crate::target::waiting_threads(pid) == 64).await;
    assert_eq!(serve(&mut supervisor).await, 64 * 20);
    expect_success(child).await;
}

#[tokio::test]
async fn keys_are_never_used_again() {
    let mut supervisor = Supervisor::new();
    let mut keys = std::collections::HashSet::new();
    for _ in 0..20 {
        let child = spawn(&supervisor, "calls 1").await;
        assert!(keys.insert(child.key()));
        while let Some(call) = within("a call", supervisor.next()).await {
            assert_eq!(call.child(), child.key());
            answer(call);
        }
        expect_success(child).await;
    }
}

#[tokio::test]
async fn children_come_and_go_while_others_run() {
    let mut supervisor = Supervisor::new();
    let spawner = supervisor.spawner();
    let starting = tokio::spawn(async move {
        let mut keys = Vec::new();
        for round in 0..30 {
            let mut command = crate::target::command(&format!("calls {round}"));
            let child = within("a spawn", spawner.spawn(&mut command)).await.unwrap();
            keys.push((child.key(), round));
            // Every third is waited for; the others run on meanwhile.
            if round % 3 == 0 {
                expect_success(child).await;
            } else {
                tokio::spawn(expect_success(child));
            }
        }
        keys
    });
    let mut calls: HashMap<ChildKey, usize> = HashMap::new();
    while let Some(call) = within("a call", supervisor.next()).await {
        *calls.entry(call.child()).or_default() += 1;
        answer(call);
    }
    for (key, expected) in starting.await.unwrap() {
        assert_eq!(calls.get(&key).copied().unwrap_or(0), expected);
    }
}
