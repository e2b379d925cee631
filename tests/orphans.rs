//! A supervised child lives as long as its supervisor's process, whichever thread started it.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use asm_tracer::{Child, Listener, Signal};
use nix::sys::wait::WaitStatus;
use support::target::{adopt_orphans, command, on_each_runtime, orphan_end};
use support::{is_child, rerun, state, within};

/// Makes a call for each byte on the standard input.
const CALLS: &str = "int main(void) { while (told()) check(trap(1, 0, 0, 0) == 5, \"the answer\"); }";

fn dead(pid: u32) -> bool {
    state(pid).is_none_or(|state| "ZX".contains(state))
}

// T29
#[test]
fn a_child_dies_with_its_supervisor() {
    if is_child() {
        on_each_runtime(|| async {
            // Nobody writes to the standard input, and a copy of this end keeps it open beyond this process.
            let mut command = command("calls", CALLS);
            let (child, _listener) = command.stdin(asm_tracer::Stdio::inherit()).spawn().await.unwrap();
            println!("\npid {}", child.id().unwrap());
            std::future::pending::<()>().await;
        });
    }
    adopt_orphans();
    let mut supervisor = rerun("a_child_dies_with_its_supervisor")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let _open = supervisor.stdin.take();
    let mut printed = BufReader::new(supervisor.stdout.take().unwrap()).lines();
    let child: u32 = printed
        .find_map(|line| line.unwrap().strip_prefix("pid ")?.parse().ok())
        .expect("a pid");
    assert!(!dead(child));
    // `SIGKILL`: no destructor runs.
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    let end = orphan_end(child);
    assert!(
        matches!(end, WaitStatus::Signaled(_, Signal::SIGKILL, _)),
        "{end:?}"
    );
}

// T29
#[test]
fn a_child_that_is_not_to_be_killed_outlives_its_supervisor() {
    const NAME: &str = "a_child_that_is_not_to_be_killed_outlives_its_supervisor";
    if is_child() {
        on_each_runtime(|| async {
            let mut command = command(
                "says_enosys",
                "int main(void) { told(); printf(\"%ld\\n\", trap(1, 0, 0, 0)); }",
            );
            command
                .kill_on_drop(false)
                .stdin(asm_tracer::Stdio::inherit())
                .stdout(asm_tracer::Stdio::inherit());
            let (child, _listener) = command.spawn().await.unwrap();
            println!("\npid {}", child.id().unwrap());
            std::future::pending::<()>().await;
        });
    }
    adopt_orphans();
    let mut supervisor = rerun(NAME)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let open = supervisor.stdin.take();
    let mut printed = BufReader::new(supervisor.stdout.take().unwrap());
    let child: u32 = (&mut printed)
        .lines()
        .find_map(|line| line.unwrap().strip_prefix("pid ")?.parse().ok())
        .expect("a pid");
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    assert!(!dead(child));
    drop(open);
    let mut rest = String::new();
    printed.read_to_string(&mut rest).unwrap();
    assert_eq!(rest.trim(), "-38");
    let end = orphan_end(child);
    assert!(matches!(end, WaitStatus::Exited(_, 0)), "{end:?}");
}

/// The child lives and is served.
async fn serves((mut child, mut listener): (Child, Listener)) {
    use tokio::io::AsyncWriteExt;
    child.stdin.as_mut().unwrap().write_all(b"x").await.unwrap();
    let call = within("a call", listener.next()).await.unwrap();
    assert!(call.respond(5).unwrap().is_delivered());
    drop(child.stdin.take());
    assert!(within("the end", listener.next()).await.is_none());
    assert!(child.wait().await.unwrap().success());
}

// T29: `PR_SET_PDEATHSIG` means the thread that made the child, and a thread of a pool retires.
#[test]
fn a_child_outlives_the_thread_that_started_it() {
    on_each_runtime(|| async {
        let runtime = tokio::runtime::Handle::current();
        let start =
            move || std::thread::spawn(move || runtime.block_on(command("calls", CALLS).spawn()).unwrap());
        let thread = tokio::task::spawn_blocking(start).await.unwrap();
        let started = tokio::task::spawn_blocking(|| thread.join().unwrap())
            .await
            .unwrap();
        // The thread has ended by now, and a signal for that would have been sent.
        serves(started).await;
    });
}

// T29
#[test]
fn a_child_outlives_a_retired_thread_of_the_runtime() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder
        .worker_threads(1)
        .enable_all()
        .thread_keep_alive(std::time::Duration::from_millis(1))
        .build()
        .unwrap();
    runtime.block_on(async {
        let handle = tokio::runtime::Handle::current();
        let started = tokio::task::spawn_blocking(move || {
            let spawned = handle.block_on(command("calls", CALLS).spawn()).unwrap();
            (nix::unistd::gettid().as_raw() as u32, spawned)
        });
        let (tid, started) = started.await.unwrap();
        let retired = || !std::path::Path::new(&format!("/proc/self/task/{tid}")).exists();
        support::until("the thread has retired", retired).await;
        serves(started).await;
    });
}
