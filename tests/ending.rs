//! The end of a stream: when it comes, that it comes once, and what is left behind.
#![allow(unsafe_code)] // To read the clock that counts this process's CPU time.

mod support;

use std::path::Path;
use std::time::Duration;

use asm_tracer::{Child, Listener, Signal, Supervisor};
use futures::stream::FusedStream;
use nix::libc;
use nix::sys::wait::WaitStatus;
use support::target::{adopt_orphans, command, frozen_threads, on_each_runtime, orphan_end};
use support::{in_process_of_its_own, state, until, within};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// Leaves a daemon behind that makes a call for each byte on the standard input; prints the daemon's pid.
const DAEMON: &str = r#"
int main(void) {
    pid_t middle = fork();
    if (middle == 0) {
        if (fork() == 0) {
            setsid();
            printf("%d\n", getpid());
            fflush(stdout);
            while (told()) check(trap(1, 0, 0, 0) == 5, "the answer");
            return 0;
        }
        return 0;
    }
    check(waitpid(middle, NULL, 0) == middle, "waitpid");
}
"#;

/// Exits once its standard input ends.
const WAITS: &str = "int main(void) { return told(); }";

/// The stream says that it has ended, and goes on saying so.
async fn ended(listener: &mut Listener) {
    let end = within("the end", listener.next()).await;
    assert!(end.is_none(), "{end:?}");
    for _ in 0..3 {
        assert!(listener.is_terminated());
        assert!(within("the end again", listener.next()).await.is_none());
    }
}

/// Polls the stream until the condition holds; it must neither end nor give a call.
async fn open_until(listener: &mut Listener, what: &str, holds: impl FnMut() -> bool) {
    tokio::select! {
        next = listener.next() => panic!("{next:?}"),
        () = until(what, holds) => {}
    }
    assert!(!listener.is_terminated());
}

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

// T4, T5, user_notification_filter_empty, user_ioctl_notification_filter_empty
#[test]
fn the_stream_ends_when_the_child_exits_and_nobody_waits_for_it() {
    on_each_runtime(|| async {
        let (mut child, mut listener) = command("waits", WAITS).spawn().await.unwrap();
        let mut supervisor = Supervisor::new();
        let mut second = supervisor.spawn(&mut command("waits", WAITS)).await.unwrap();
        // One stream is being waited for at the time, the other is not.
        let waiting = tokio::spawn(async move {
            ended(&mut listener).await;
        });
        tokio::select! {
            biased;
            next = supervisor.next() => panic!("{next:?}"),
            () = tokio::task::yield_now() => {}
        }
        assert!(!supervisor.is_terminated());
        drop((child.stdin.take(), second.stdin.take()));
        within("the end", waiting).await.unwrap();
        for _ in 0..3 {
            assert!(within("the end", supervisor.next()).await.is_none());
            assert!(supervisor.is_terminated());
        }
        assert!(child.wait().await.unwrap().success());
        assert!(second.wait().await.unwrap().success());
    });
}

// T5: before Linux 6.11 the kernel reports the end of a filter only once its last user has been reaped. So the stream
// reaps its child; here it has to while the filter still has another user and the hang-up can't be what woke it.
// T6, sysbox-fs
#[test]
fn a_daemon_is_served_after_its_parent_was_reaped_by_the_stream() {
    adopt_orphans();
    on_each_runtime(|| async {
        let (mut child, mut listener) = command("daemon", DAEMON).spawn().await.unwrap();
        let pid = child.id().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        open_until(&mut listener, "the stream has reaped the child", || !exists(pid)).await;
        let mut line = String::new();
        within("the daemon's pid", stdout.read_line(&mut line))
            .await
            .unwrap();
        let daemon: u32 = line.trim().parse().unwrap();
        assert_ne!(daemon, pid);
        for _ in 0..3 {
            stdin.write_all(b"x").await.unwrap();
            let call = within("the daemon's call", listener.next()).await.unwrap();
            assert_eq!(call.pid().unwrap() as u32, daemon);
            assert_eq!(call.child(), child.key());
            assert!(call.respond(5).unwrap().is_delivered());
        }
        // What the stream reaped is still there for those who wait.
        assert!(within("the status", child.wait()).await.unwrap().success());
        drop(stdin);
        ended(&mut listener).await;
        assert!(matches!(orphan_end(daemon), WaitStatus::Exited(_, 0)));
    });
}

// T6, user_notification_filter_empty_threaded
#[test]
fn the_last_thread_of_the_last_process_ends_the_stream() {
    const THREADS: &str = r#"
        static void *run(void *wanted) {
            int byte = told();
            check(trap(byte, 0, 0, 0) == byte, "the answer");
            return NULL;
        }
        int main(void) {
            for (int i = 0; i < 3; i++)
                if (fork() == 0) break;
            for (int i = 0; i < 2; i++) {
                pthread_t thread;
                check(!pthread_create(&thread, NULL, run, NULL), "pthread_create");
            }
            pthread_exit(NULL);
        }
    "#;
    adopt_orphans();
    on_each_runtime(|| async {
        let (mut child, mut listener) = command("empty_threaded", THREADS).spawn().await.unwrap();
        let pid = child.id().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        open_until(&mut listener, "the first thread is gone", || {
            state(pid) == Some('Z')
        })
        .await;
        // Four processes of two threads, the first of each of which is gone.
        let mut processes = std::collections::HashSet::new();
        for byte in 1..=8_u8 {
            assert!(!listener.is_terminated());
            stdin.write_all(&[byte]).await.unwrap();
            let call = within("a call", listener.next()).await.unwrap();
            assert_eq!(call.args()[0], i64::from(byte));
            assert_ne!(call.tid().unwrap(), call.pid().unwrap());
            processes.insert(call.pid().unwrap() as u32);
            assert!(call.respond(byte.into()).unwrap().is_delivered());
        }
        ended(&mut listener).await;
        assert!(child.wait().await.unwrap().success());
        assert!(processes.remove(&pid));
        assert_eq!(processes.len(), 3);
        for process in processes {
            assert!(matches!(orphan_end(process), WaitStatus::Exited(_, 0)));
        }
    });
}

fn cpu_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec.
    let read = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(read, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Waits for a second on a supervisor that has nothing to do, which must take next to no time of any CPU.
async fn idles(supervisor: &mut Supervisor, what: &str) {
    let before = cpu_time();
    tokio::select! {
        next = supervisor.next() => panic!("{what}: {next:?}"),
        () = tokio::time::sleep(Duration::from_secs(1)) => {}
    }
    let taken = cpu_time() - before;
    assert!(taken < Duration::from_millis(250), "{what}: {taken:?}");
}

// T4
#[test]
fn a_supervisor_whose_children_have_ended_takes_no_cpu_time() {
    in_process_of_its_own("a_supervisor_whose_children_have_ended_takes_no_cpu_time", || {
        adopt_orphans();
        on_each_runtime(|| async {
            let mut supervisor = Supervisor::new();
            // It keeps the stream open without a child.
            let spawner = supervisor.spawner();
            let mut exits = supervisor.spawn(&mut command("waits", WAITS)).await.unwrap();
            drop(exits.stdin.take());
            let mut leaves = supervisor.spawn(&mut command("daemon", DAEMON)).await.unwrap();
            let parent = leaves.id().unwrap();
            let gone = async {
                assert!(exits.wait().await.unwrap().success());
                until("the daemon's parent is reaped", || !exists(parent)).await;
            };
            tokio::select! {
                next = supervisor.next() => panic!("{next:?}"),
                () = within("the exits", gone) => {}
            }
            idles(&mut supervisor, "with a daemon").await;
            drop(leaves.stdin.take());
            let (mut stdout, mut pid) = (leaves.stdout.take().unwrap(), Vec::new());
            tokio::select! {
                next = supervisor.next() => panic!("{next:?}"),
                read = stdout.read_to_end(&mut pid) => assert!(read.is_ok()),
            }
            orphan_end(String::from_utf8(pid).unwrap().trim().parse().unwrap());
            idles(&mut supervisor, "with nobody").await;
            drop(spawner);
            assert!(within("the end", supervisor.next()).await.is_none());
        });
    });
}

/// What the child had printed when it ended, which must have been by `SIGKILL`.
async fn killed(child: Child) -> Vec<u8> {
    use std::os::unix::process::ExitStatusExt;
    let output = within("the child's end", child.wait_with_output()).await.unwrap();
    assert_eq!(output.status.signal(), Some(Signal::SIGKILL as i32), "{output:?}");
    output.stdout
}

/// As many threads as `argv[1]` say what their calls returned.
const SAYS: &str = r#"
static void *run(void *unused) {
    long result = trap(1, 0, 0, 0);
    dprintf(1, "%ld\n", result);
    dprintf(1, "%ld\n", trap(1, 0, 0, 0));
    return NULL;
}
int main(int argc, char **argv) {
    pthread_t thread[64];
    int count = atoi(argv[1]);
    for (int i = 0; i < count; i++) check(!pthread_create(&thread[i], NULL, run, NULL), "pthread_create");
    for (int i = 0; i < count; i++) pthread_join(thread[i], NULL);
}
"#;

// T23: `ENOSYS` is what the kernel gives calls whose listener is closed; nobody lives to see it.
#[test]
fn dropping_the_stream_kills_the_child_before_any_call_fails() {
    on_each_runtime(|| async {
        for received in [true, false].repeat(10) {
            let (child, mut listener) = command("says", SAYS).arg("4").spawn().await.unwrap();
            frozen_threads(child.id().unwrap(), 4).await;
            if received {
                let call = within("a call", listener.next()).await.unwrap();
                drop(listener);
                // The child is dead, not answered.
                assert_eq!(killed(child).await, b"");
                drop(call);
            } else {
                drop(listener);
                assert_eq!(killed(child).await, b"");
            }
        }
    });
}

// T23
#[test]
fn dropping_the_supervisor_kills_every_child_before_any_call_fails() {
    on_each_runtime(|| async {
        let supervisor = Supervisor::new();
        let mut children = Vec::new();
        for _ in 0..5 {
            let child = supervisor.spawn(command("says", SAYS).arg("4")).await.unwrap();
            frozen_threads(child.id().unwrap(), 4).await;
            children.push(child);
        }
        drop(supervisor);
        for child in children {
            assert_eq!(killed(child).await, b"");
        }
    });
}

// T23, T24, user_notification_closed_listener: if any process had a copy of the listener, this would hang.
#[test]
fn a_child_that_is_not_to_be_killed_gets_enosys_once_its_listener_is_closed() {
    on_each_runtime(|| async {
        let mut command = command("says", SAYS);
        let (child, listener) = command.arg("3").kill_on_drop(false).spawn().await.unwrap();
        frozen_threads(child.id().unwrap(), 3).await;
        drop(listener);
        let output = within("the output", child.wait_with_output()).await.unwrap();
        assert!(output.status.success(), "{output:?}");
        // The pending calls and later ones alike.
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "-38\n".repeat(6));
    });
}
