//! Many children in one loop.

use std::collections::HashMap;

use asm_tracer::{ChildKey, KernelSupport, Supervisor, Sysno};
use futures::FutureExt;

use crate::support::{state, until, until_blocking, within};
use crate::target::{answer, expect_success, serve, spawn, waiting_threads};

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
    until("all threads wait", || waiting_threads(pid) == 64).await;
    assert_eq!(serve(&mut supervisor).await, 64 * 20);
    expect_success(child).await;
}

// T10
#[tokio::test]
async fn a_call_that_is_made_while_others_are_handled_is_received_with_the_next_one() {
    if !KernelSupport::get().wait_killable {
        return eprintln!("skipped: this kernel has no WAIT_KILLABLE_RECV");
    }
    let mut supervisor = Supervisor::new();
    let child = spawn(&supervisor, "threads 3 2").await;
    let pid = child.id().unwrap();
    until("all threads wait", || waiting_threads(pid) == 3).await;
    let first = within("a call", supervisor.next()).await.unwrap();
    let tid = first.tid().unwrap();
    answer(first);
    // The runtime doesn't learn of the second call of this thread, because it is not given the time.
    let second = format!("{} 0x1 ", Sysno::getppid.id());
    until_blocking("the thread waits again", || {
        std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall"))
            .is_ok_and(|call| call.starts_with(&second))
    });
    let other = supervisor.next().now_or_never().unwrap().unwrap();
    assert_ne!(other.tid(), Some(tid));
    interrupt(pid, tid);
    until("only a fatal signal can interrupt the call", || {
        state(tid as u32) == Some('D')
    })
    .await;
    answer(other);
    assert_eq!(serve(&mut supervisor).await, 4);
    expect_success(child).await;
}

/// Sends a thread a signal that has a handler without `SA_RESTART`.
fn interrupt(pid: u32, tid: i32) {
    // SAFETY: sends a signal to a thread of a child that has not been waited for.
    #[allow(unsafe_code)]
    let sent = unsafe { nix::libc::syscall(nix::libc::SYS_tgkill, pid, tid, nix::libc::SIGUSR1) };
    assert_eq!(sent, 0);
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
