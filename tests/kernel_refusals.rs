//! What can't be done without, made to fail by a filter of our own: a typed error, and nothing left behind.

mod support;

use std::os::fd::OwnedFd;

use asm_tracer::filter::{arg, int_arg};
use asm_tracer::{
    Action, Command, Errno, Error, Filter, KernelSupport, Listener, SpawnStep, Stdio, Supervisor, Sysno,
};
use nix::sys::wait::{WaitPidFlag, waitpid};
use support::{in_process_of_its_own, rerun, until, within};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

/// Runs `body` in a process in which `refusing` was installed before anything else, and sees that it leaves neither a
/// descriptor nor a child.
fn where_refused(test: &str, refusing: Filter, body: impl AsyncFnOnce()) {
    in_process_of_its_own(test, || {
        refusing.install().unwrap();
        runtime().block_on(async {
            let before = support::open_descriptors();
            body().await;
            until("every descriptor is closed", || {
                support::open_descriptors() == before
            })
            .await;
            until("no child is left", || {
                waitpid(None, Some(WaitPidFlag::WNOHANG)) == Err(Errno::ECHILD)
            })
            .await;
        });
    });
}

/// What spawning says, with and without a memory of its own for the child.
async fn spawn_errors() -> [Error; 2] {
    let mut command = Command::new("true");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let shared = command.spawn().await.unwrap_err();
    let forked = command
        .gid(nix::unistd::getgid().as_raw())
        .spawn()
        .await
        .unwrap_err();
    [shared, forked]
}

async fn is_unsupported(version: &str) {
    for error in spawn_errors().await {
        assert!(
            matches!(error, Error::Unsupported { since, .. } if since == version),
            "{error:?}"
        );
        assert_eq!(error.errno(), Some(Errno::ENOSYS));
    }
}

fn refusal(calls: Sysno, errno: Errno) -> Filter {
    Filter::new().errno(calls, errno)
}

async fn has_no_listener() {
    assert!(!KernelSupport::get().listener);
    is_unsupported("5.9").await;
    let error = Listener::attach(OwnedFd::from(std::io::pipe().unwrap().0)).unwrap_err();
    assert!(
        matches!(error, Error::Unsupported { since: "5.9", .. }),
        "{error:?}"
    );
}

#[test]
fn a_kernel_without_listeners_is_unsupported() {
    let flag = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let filter = Filter::new().rule(
        Sysno::seccomp,
        [arg(1).masked_eq(flag, flag)],
        Action::Errno(Errno::EINVAL),
    );
    where_refused(
        "a_kernel_without_listeners_is_unsupported",
        filter,
        has_no_listener,
    );
}

#[test]
fn a_kernel_without_seccomp_is_unsupported() {
    let filter = refusal(Sysno::seccomp, Errno::ENOSYS);
    where_refused("a_kernel_without_seccomp_is_unsupported", filter, has_no_listener);
}

#[test]
fn a_container_that_forbids_seccomp_is_unsupported() {
    let filter = refusal(Sysno::seccomp, Errno::EPERM);
    where_refused(
        "a_container_that_forbids_seccomp_is_unsupported",
        filter,
        has_no_listener,
    );
}

// seccomp_get_notif_sizes
#[test]
fn a_kernel_that_does_not_tell_its_sizes_is_unsupported() {
    let operation = [int_arg(0).eq(libc::SECCOMP_GET_NOTIF_SIZES as i32)];
    let filter = Filter::new().rule(Sysno::seccomp, operation, Action::Errno(Errno::EINVAL));
    where_refused(
        "a_kernel_that_does_not_tell_its_sizes_is_unsupported",
        filter,
        has_no_listener,
    );
}

async fn has_no_pidfd() {
    assert!(!KernelSupport::get().pidfd);
    assert!(KernelSupport::get().listener);
    is_unsupported("5.4").await;
}

#[test]
fn a_kernel_without_pidfds_is_unsupported() {
    let filter = refusal(Sysno::pidfd_open, Errno::ENOSYS);
    where_refused("a_kernel_without_pidfds_is_unsupported", filter, has_no_pidfd);
}

#[test]
fn a_kernel_that_does_not_signal_by_pidfd_is_unsupported() {
    let filter = refusal(Sysno::pidfd_send_signal, Errno::EPERM);
    where_refused(
        "a_kernel_that_does_not_signal_by_pidfd_is_unsupported",
        filter,
        has_no_pidfd,
    );
}

#[test]
fn a_kernel_that_does_not_wait_by_pidfd_is_unsupported() {
    let by_pidfd = [int_arg(0).eq(libc::P_PIDFD as i32)];
    let filter = Filter::new().rule(Sysno::waitid, by_pidfd, Action::Errno(Errno::EINVAL));
    where_refused(
        "a_kernel_that_does_not_wait_by_pidfd_is_unsupported",
        filter,
        has_no_pidfd,
    );
}

#[test]
fn a_refused_clone_is_an_error_of_its_step() {
    let process = [arg(0).masked_eq(libc::CLONE_THREAD as u64, 0)];
    let filter = Filter::new().rule(Sysno::clone, process, Action::Errno(Errno::EINVAL));
    where_refused("a_refused_clone_is_an_error_of_its_step", filter, async || {
        for error in spawn_errors().await {
            assert!(
                matches!(
                    error,
                    Error::Spawn {
                        step: SpawnStep::Clone,
                        source: Errno::EINVAL
                    }
                ),
                "{error:?}"
            );
        }
    });
}

#[test]
fn a_process_that_gets_no_thread_is_out_of_memory() {
    let filter = Filter::new().errno([Sysno::clone, Sysno::clone3], Errno::EAGAIN);
    where_refused(
        "a_process_that_gets_no_thread_is_out_of_memory",
        filter,
        async || {
            for error in spawn_errors().await {
                assert!(
                    matches!(
                        error,
                        Error::OutOfMemory {
                            step: SpawnStep::StartLauncher,
                            source: Errno::EAGAIN
                        }
                    ),
                    "{error:?}"
                );
            }
        },
    );
}

/// This test program again as the child of a supervisor that traps a call it doesn't make.
fn rerun_supervised(test: &str) -> Command {
    let again = rerun(test);
    let mut command = Command::new(again.get_program());
    command
        .args(again.get_args())
        .env("SUPERVISED", KernelSupport::get().sync_wake_up.to_string());
    for (name, value) in again.get_envs() {
        command.env(name, value.unwrap());
    }
    command.filter(Filter::new().trap(1000)).kill_on_drop(false);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

// T30, user_notification_basic
#[test]
fn a_listener_within_a_listener_is_refused_until_the_first_is_closed() {
    let test = "a_listener_within_a_listener_is_refused_until_the_first_is_closed";
    if std::env::var_os("SUPERVISED").is_some() {
        return runtime().block_on(supervised());
    }
    // In a process of its own, where no other test's child may hold a copy of the listener for a moment.
    in_process_of_its_own(test, || {
        runtime().block_on(async {
            let supervisor = Supervisor::new();
            let mut child = supervisor.spawn(&mut rerun_supervised(test)).await.unwrap();
            let mut output = BufReader::new(child.stdout.take().unwrap());
            let mut line = String::new();
            while !line.ends_with("refused\n") {
                let read = within("the refusal", output.read_line(&mut line)).await.unwrap();
                assert_ne!(read, 0, "{line}");
            }
            drop(supervisor);
            let mut input = child.stdin.take().unwrap();
            input.write_all(b"go on\n").await.unwrap();
            let mut rest = String::new();
            within("the end", output.read_to_string(&mut rest)).await.unwrap();
            let status = within("the exit", child.wait()).await.unwrap();
            assert!(status.success() && rest.contains("1 passed"), "{line}{rest}");
        });
    });
}

/// What the supervised process sees.
async fn supervised() {
    let supervisor = Supervisor::new();
    let before = support::open_descriptors();
    for _ in 0..3 {
        let error = supervisor.spawn(&mut Command::new("true")).await.unwrap_err();
        assert!(matches!(error, Error::NestedListener), "{error:?}");
        assert_eq!(error.errno(), Some(Errno::EBUSY));
    }
    assert!(KernelSupport::get().listener);
    until("every descriptor is closed", || {
        support::open_descriptors() == before
    })
    .await;
    println!("refused");
    std::io::stdin().read_line(&mut String::new()).unwrap();

    let mut supervisor = supervisor;
    let mut command = Command::new("sh");
    command.args(["-c", "exit 7"]).filter(Filter::trap_all());
    let mut child = supervisor.spawn(&mut command).await.unwrap();
    let mut calls = 0;
    while let Some(call) = within("a call", supervisor.next()).await {
        call.continue_syscall().unwrap();
        calls += 1;
    }
    assert!(calls > 10, "{calls}");
    assert_eq!(within("the exit", child.wait()).await.unwrap().code(), Some(7));
    // What could not be tried before was tried then.
    let sync_wake_up = KernelSupport::get().sync_wake_up;
    assert_eq!(std::env::var("SUPERVISED").unwrap(), sync_wake_up.to_string());
}
