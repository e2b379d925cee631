//! What a child starts is supervised with it.

use std::collections::{HashMap, HashSet};

use asm_tracer::{Child, Filter, Stdio, Supervisor, Sysno};

use crate::support::within;
use crate::target::{answer, command, expect_success, spawn};

#[tokio::test]
async fn every_kind_of_descendant_bears_the_key_of_its_child() {
    let mut supervisor = Supervisor::new();
    let children = [spawn(&supervisor, "tree").await, spawn(&supervisor, "tree").await];
    let mut seen: HashMap<_, HashMap<i64, (i32, i32)>> = HashMap::new();
    while let Some(call) = within("a call", supervisor.next()).await {
        let ids = (call.pid().unwrap(), call.tid().unwrap());
        let of_child = seen.entry(call.child()).or_default();
        assert!(of_child.insert(call.args()[1], ids).is_none());
        answer(call);
    }
    assert_eq!(seen.len(), 2);
    for child in children {
        let seen = &seen[&child.key()];
        let own = child.id().unwrap() as i32;
        // Who is who: thread 0, fork 1, vfork 2, posix_spawn 3, clone3 4, and the program itself 5.
        let who: HashSet<_> = seen.keys().copied().collect();
        assert_eq!(who, HashSet::from([0, 1, 2, 3, 4, 5]));
        assert_eq!(seen[&5], (own, own));
        assert_eq!(seen[&0].0, own);
        assert_ne!(seen[&0].1, own, "a thread has an id of its own (T7)");
        for process in 1..=4 {
            let (pid, tid) = seen[&process];
            assert!(pid == tid && pid != own, "{process}: {pid} {tid} {own}");
        }
        expect_success(child).await;
    }
}

// T6
#[tokio::test]
async fn a_daemon_is_supervised_after_its_ancestors_are_gone() {
    let mut supervisor = Supervisor::new();
    let (end_of_input, input) = input();
    let mut command = command("daemon");
    command.stdin(input);
    let mut child = within("a spawn", supervisor.spawn(&mut command)).await.unwrap();
    drop(command);
    let key = child.key();
    let pid = child.id().unwrap() as i32;
    let waiting = tokio::spawn(async move {
        // Nothing ends the stream by now, nor is there a call before the child has been reaped.
        let status = within("an exit", child.wait()).await.unwrap();
        assert!(status.success(), "{status}");
        drop(end_of_input);
        child
    });
    let mut daemon = HashSet::new();
    for index in 0..3 {
        let call = within("a call", supervisor.next()).await.expect("not the end");
        assert!(waiting.is_finished());
        assert_eq!((call.child(), &call.args()[..2]), (key, &[index, 9][..]));
        daemon.insert(call.pid().unwrap());
        answer(call);
    }
    assert!(daemon.len() == 1 && !daemon.contains(&pid), "{daemon:?} {pid}");
    assert!(within("the end", supervisor.next()).await.is_none());
    drop::<Child>(waiting.await.unwrap());
}

fn input() -> (std::io::PipeWriter, Stdio) {
    let (reader, writer) = std::io::pipe().unwrap();
    (writer, Stdio::from(std::os::fd::OwnedFd::from(reader)))
}

// T45
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vfork_and_exec_are_trapped_with_concurrent_handlers() {
    const ROUNDS: usize = 20;
    const CHILDREN: usize = 3;
    let mut supervisor = Supervisor::new();
    let mut children = Vec::new();
    for _ in 0..CHILDREN {
        let mut command = command(&format!("vforks {ROUNDS}"));
        let calls = [
            Sysno::getppid,
            Sysno::execve,
            Sysno::vfork,
            Sysno::clone,
            Sysno::clone3,
            Sysno::wait4,
            Sysno::exit_group,
        ];
        command.filter(Filter::new().trap(calls));
        children.push(within("a spawn", supervisor.spawn(&mut command)).await.unwrap());
    }
    let (mut executions, mut handlers) = (0, Vec::new());
    while let Some(call) = within("a call", supervisor.next()).await {
        executions += usize::from(call.sysno() == Some(Sysno::execve));
        handlers.push(tokio::spawn(async move {
            match call.sysno() {
                Some(Sysno::getppid) => answer(call),
                Some(Sysno::execve) => {
                    // The caller shares the memory of a parent that can't run until it has executed.
                    let parent = parent(call.pid().unwrap());
                    crate::support::until("the parent waits", || crate::support::state(parent) == Some('D'))
                        .await;
                    let path = call.read_path(call.args()[0] as u64).unwrap();
                    assert_eq!(path.to_str(), Some("/proc/self/exe"));
                    assert!(call.continue_syscall().unwrap().is_delivered());
                }
                _ => assert!(call.continue_syscall().unwrap().is_delivered()),
            }
        }));
    }
    for handler in handlers {
        within("a handler", handler).await.unwrap();
    }
    assert_eq!(executions, CHILDREN * ROUNDS * 2);
    for child in children {
        expect_success(child).await;
    }
}

fn parent(pid: i32) -> u32 {
    let parent = crate::support::proc_status(pid as u32, "PPid").unwrap();
    parent.parse().unwrap()
}
