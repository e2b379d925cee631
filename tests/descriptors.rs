//! Who holds a listener: the supervisor alone (T24). Once a listener is closed, its calls fail with `ENOSYS`; if
//! another process held it too, they would wait for ever.

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use asm_tracer::{Child, Command, Errno, Error, Filter, Listener, SpawnStep, Sysno};
use futures::future::join_all;
use support::target::{command, frozen, on_each_runtime, waits_in};
use support::{in_process_of_its_own, state, until, within};

/// Exits with success if its call fails with `ENOSYS`.
const EXPECTS_ENOSYS: &str = "int main(void) { return trap(1, 0, 0, 0) != -ENOSYS; }";

/// What the descriptors of a process lead to.
fn descriptors(pid: u32) -> Vec<PathBuf> {
    let directory = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    // One may be closed by another test meanwhile.
    let links = directory.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.collect()
}

/// Tells a listener by the name that the kernel gives it.
fn is_listener(path: &PathBuf) -> bool {
    path == Path::new("anon_inode:seccomp notify")
}

/// The descriptors of this process that are meant for every program that it starts.
fn inherited() -> BTreeSet<i32> {
    let numbers = std::fs::read_dir("/proc/self/fd").unwrap();
    let numbers = numbers.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let closed_on_exec = |number: &i32| {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        flags.is_none_or(|octal| u32::from_str_radix(octal.trim(), 8).unwrap() & 0o2_000_000 != 0)
    };
    numbers.filter(|number| !closed_on_exec(number)).collect()
}

fn numbers(pid: u32) -> BTreeSet<i32> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let number =
        |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().to_str()?.parse().ok();
    entries.filter_map(number).collect()
}

/// A child that is frozen in its call.
async fn frozen_child(kill_on_drop: bool) -> (Child, Listener) {
    let mut command = command("expects_enosys", EXPECTS_ENOSYS);
    let (child, listener) = command.kill_on_drop(kill_on_drop).spawn().await.unwrap();
    frozen(child.id().unwrap()).await;
    (child, listener)
}

// T24
#[test]
fn a_child_has_its_three_streams_and_what_is_inherited() {
    in_process_of_its_own("a_child_has_its_three_streams_and_what_is_inherited", || {
        let mut expected = inherited();
        expected.extend([0, 1, 2]);
        on_each_runtime(|| async {
            // Whatever the library opens for itself is open from now on; it watches a child that nobody waits for.
            let mut left = command("waits", "int main(void) { return told(); }");
            let (mut left, _) = left.kill_on_drop(false).spawn().await.unwrap();
            let (left_pid, left_stdin) = (left.id().unwrap(), left.stdin.take());
            drop(left);
            let (mut other, _other_listener) = frozen_child(true).await;
            let (mut child, _listener) = frozen_child(true).await;
            let pid = child.id().unwrap();
            assert_eq!(numbers(pid), expected, "{:?}", descriptors(pid));
            assert!(!descriptors(pid).iter().any(is_listener));
            // That is the right name.
            let ours = descriptors(std::process::id());
            assert_eq!(
                ours.iter().filter(|path| is_listener(path)).count(),
                2,
                "{ours:?}"
            );
            drop(left_stdin);
            until("the child that was left is reaped", || state(left_pid).is_none()).await;
            child.kill().await.unwrap();
            other.kill().await.unwrap();
        });
    });
}

// T24
#[test]
fn a_child_that_waits_for_its_execution_does_not_hold_its_own_listener() {
    on_each_runtime(|| async {
        let mut command = Command::new("true");
        command
            .filter(Filter::new().trap(Sysno::execve))
            .trap_initial_exec(true)
            .kill_on_drop(false);
        let (mut child, listener) = command.spawn().await.unwrap();
        let pid = child.id().unwrap();
        until("the execution is trapped", || waits_in(pid, Sysno::execve)).await;
        // Nobody answers; the closing of the listener must.
        drop(listener);
        match within("the exit", child.wait()).await {
            Err(Error::Spawn { step, source }) => {
                assert_eq!((step, source), (SpawnStep::Exec, Errno::ENOSYS))
            }
            other => panic!("{other:?}"),
        }
    });
}

// T24
#[test]
fn children_that_start_at_the_same_time_do_not_hold_each_others_listeners() {
    on_each_runtime(|| async {
        let over = Arc::new(AtomicBool::new(false));
        // Code of the supervisor's that starts programs its own way.
        let others = tokio::task::spawn_blocking({
            let over = Arc::clone(&over);
            move || {
                while !over.load(Ordering::Relaxed) {
                    let mut ls = std::process::Command::new("ls");
                    let listing = ls.args(["-l", "/proc/self/fd"]).output().unwrap();
                    let listing = String::from_utf8(listing.stdout).unwrap();
                    assert!(!listing.contains("seccomp"), "{listing}");
                }
            }
        });
        let children = join_all((0..40).map(|_| frozen_child(false))).await;
        over.store(true, Ordering::Relaxed);
        others.await.unwrap();
        for (child, _) in &children {
            let theirs = descriptors(child.id().unwrap());
            assert!(!theirs.iter().any(is_listener), "{theirs:?}");
        }
        for (mut child, listener) in children {
            drop(listener);
            assert!(within("the exit", child.wait()).await.unwrap().success());
        }
    });
}
