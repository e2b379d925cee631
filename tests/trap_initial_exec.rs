//! The `execve` that starts the program, subject to the filter itself.
#![allow(unsafe_code)]

mod support;

use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicU64, Ordering};

use asm_tracer::{Child, Command, Errno, Error, Filter, Listener, Notification, SpawnStep, Stdio, Sysno};
use support::start::{Way, executable, finish, leaving_nothing};
use support::{proc_status, state, until, within};

/// A command whose execution is trapped, and nothing else.
fn command(program: &str, way: Way) -> Command {
    let mut command = Command::new(program);
    command
        .filter(Filter::new().trap(Sysno::execve))
        .trap_initial_exec(true);
    way.apply(&mut command);
    command
}

/// Starts a program and gives its execution, which waits for an answer.
async fn pending(command: &mut Command) -> (Child, Listener, Notification) {
    let (child, mut listener) = within("the listener", command.spawn()).await.unwrap();
    let call = within("the execve", listener.next()).await.unwrap();
    assert_eq!(call.sysno(), Some(Sysno::execve));
    assert_eq!(call.tid().unwrap() as u32, child.id().unwrap());
    (child, listener, call)
}

fn exec_error(error: &Error) -> Option<Errno> {
    match error {
        Error::Spawn {
            step: SpawnStep::Exec,
            source,
        } => Some(*source),
        _ => None,
    }
}

// T26
#[tokio::test]
async fn the_program_runs_once_its_execution_is_continued() {
    for way in Way::BOTH {
        let mut command = command("/bin/echo", way);
        command.arg("hello").stdout(Stdio::piped());
        let (mut child, listener, call) = pending(&mut command).await;
        let [path, argv, _, ..] = call.args();
        assert_eq!(call.read_path(path as u64).unwrap().as_os_str(), "/bin/echo");
        let argument = call.read_value::<u64>(argv as u64 + 8).unwrap();
        assert_eq!(call.read_cstr(argument, 100).unwrap().to_bytes(), b"hello");
        assert!(child.try_wait().unwrap().is_none());
        assert!(call.continue_syscall().unwrap().is_delivered());
        let output = finish(child, listener).await.unwrap();
        assert!(output.status.success());
        assert_eq!(output.stdout, b"hello\n");
    }
}

/// What is written to a child that waits for its execution is the child's, and nothing of this process.
#[tokio::test]
async fn writing_to_a_pending_child_leaves_this_process_alone() {
    static HERE: AtomicU64 = AtomicU64::new(4711);
    for way in Way::BOTH {
        let (child, listener, call) = pending(&mut command("/nowhere/at/all", way)).await;
        let address = HERE.as_ptr().addr() as u64;
        call.write_memory(address, &[0; 8]).unwrap();
        assert_eq!(call.read_value::<u64>(address).unwrap(), 0);
        assert_eq!(HERE.load(Ordering::Relaxed), 4711, "{way:?}");
        // It may be made to run another program.
        call.write_memory(call.args()[0] as u64, b"/bin/true\0").unwrap();
        call.continue_syscall().unwrap();
        assert!(finish(child, listener).await.unwrap().status.success());
    }
}

// T25: everything after the hand-over is trapped, but the hand-over is not.
#[tokio::test]
async fn the_execution_is_the_first_call_of_a_filter_that_traps_all() {
    for way in Way::BOTH {
        let mut command = command("/bin/true", way);
        command.filter(Filter::trap_all());
        let (child, listener, call) = pending(&mut command).await;
        call.continue_syscall().unwrap();
        assert!(finish(child, listener).await.unwrap().status.success());
    }
}

#[tokio::test]
async fn each_candidate_in_the_path_is_an_execution_of_its_own() {
    for way in Way::BOTH {
        let mut command = command("true", way);
        command.env("PATH", "/nowhere:/neither:/bin");
        let (mut child, mut listener) = command.spawn().await.unwrap();
        let mut tried = Vec::new();
        while let Some(call) = within("an execve", listener.next()).await {
            tried.push(call.read_path(call.args()[0] as u64).unwrap());
            call.continue_syscall().unwrap();
        }
        assert_eq!(
            tried
                .iter()
                .map(|path| path.to_str().unwrap())
                .collect::<Vec<_>>(),
            ["/nowhere/true", "/neither/true", "/bin/true"]
        );
        assert!(within("the end", child.wait()).await.unwrap().success());
    }
}

#[tokio::test]
async fn an_execution_that_fails_is_reported_by_every_wait() {
    let directory = tempfile::tempdir().unwrap();
    let garbage = executable(directory.path(), "garbage", b"neither this nor that");
    for way in Way::BOTH {
        for (program, errno) in [
            ("/nowhere/at/all", Errno::ENOENT),
            ("/etc/passwd", Errno::EACCES),
            (garbage.to_str().unwrap(), Errno::ENOEXEC),
        ] {
            let (mut child, mut listener, call) = pending(&mut command(program, way)).await;
            call.continue_syscall().unwrap();
            let error = within("the failure", child.wait()).await.unwrap_err();
            assert_eq!(exec_error(&error), Some(errno), "{error:?}");
            for error in [child.try_wait().unwrap_err(), child.wait().await.unwrap_err()] {
                assert_eq!(exec_error(&error), Some(errno), "{error:?}");
            }
            assert_eq!(child.id(), None);
            assert!(within("the end", listener.next()).await.is_none());

            let (mut child, listener, call) = pending(&mut command(program, way)).await;
            call.continue_syscall().unwrap();
            let mut failed = None;
            until("the failure is seen without waiting", || {
                failed = child.try_wait().err();
                failed.is_some()
            })
            .await;
            assert_eq!(exec_error(&failed.unwrap()), Some(errno));
            drop(listener);

            let mut command = command(program, way);
            command.stdout(Stdio::piped());
            let (child, listener, call) = pending(&mut command).await;
            call.continue_syscall().unwrap();
            let error = finish(child, listener).await.unwrap_err();
            assert_eq!(exec_error(&error), Some(errno), "{error:?}");
        }
    }
}

#[tokio::test]
async fn the_answer_to_an_execution_is_its_outcome() {
    for way in Way::BOTH {
        for errno in [Errno::EPERM, Errno::EAGAIN, Errno::EMFILE, Errno::ENOMEM] {
            let (mut child, _listener, call) = pending(&mut command("/bin/true", way)).await;
            call.error(errno).unwrap();
            let error = within("the failure", child.wait()).await.unwrap_err();
            assert_eq!(error.errno(), Some(errno), "{error:?}");
        }
        // Dropped unanswered.
        let (mut child, _listener, call) = pending(&mut command("/bin/true", way)).await;
        drop(call);
        let error = within("the failure", child.wait()).await.unwrap_err();
        assert_eq!(exec_error(&error), Some(Errno::ENOSYS), "{error:?}");
        // A success that isn't one: the old program goes on after its execve, which is a failure of another kind.
        for value in [0, 7] {
            let (mut child, _listener, call) = pending(&mut command("/bin/true", way)).await;
            call.respond(value).unwrap();
            let error = within("the failure", child.wait()).await.unwrap_err();
            assert!(exec_error(&error).is_some(), "{error:?}");
        }
    }
}

#[tokio::test]
async fn a_child_that_is_killed_before_its_execution_ends_by_that_signal() {
    for way in Way::BOTH {
        let (mut child, mut listener, call) = pending(&mut command("/bin/true", way)).await;
        child.start_kill().unwrap();
        let status = within("the end", child.wait()).await.unwrap();
        assert_eq!(status.signal(), Some(nix::libc::SIGKILL));
        assert!(!call.continue_syscall().unwrap().is_delivered());
        assert!(within("the end", listener.next()).await.is_none());

        // The filter kills it.
        let mut command = command("/bin/true", way);
        command.filter(Filter::new().kill(Sysno::execve));
        let (mut child, _listener) = command.spawn().await.unwrap();
        let status = within("the end", child.wait()).await.unwrap();
        assert_eq!(status.signal(), Some(nix::libc::SIGSYS));
    }
}

/// The descriptors of a process that its program will have too.
fn kept_by_the_program(pid: u32) -> Vec<String> {
    let mut kept = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap() {
        let path = entry.unwrap().path();
        // What was open for the reading of the directory is closed again.
        let Ok(info) = std::fs::read_to_string(&path) else {
            continue;
        };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = i32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
        if flags & nix::libc::O_CLOEXEC == 0 {
            kept.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    kept
}

/// The descriptors of a process.
fn descriptors(pid: u32) -> Vec<String> {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}

// T24: what waits for its execution holds no listener, not even its own, and no pipe of another.
#[test]
fn a_pending_child_holds_only_what_its_program_will_have() {
    let test = "a_pending_child_holds_only_what_its_program_will_have";
    leaving_nothing(test, async |_| {
        for way in Way::BOTH {
            let (first, first_listener, first_call) = pending(&mut command("/bin/true", way)).await;
            let (mut reader, writer) = std::io::pipe().unwrap();
            let (second, second_listener, second_call) = pending(&mut command("/bin/true", way)).await;
            let pid = second.id().unwrap();
            let kept = kept_by_the_program(std::process::id());
            assert_eq!(kept_by_the_program(pid), kept, "{way:?}");
            // Only the way to the supervisor comes to that.
            assert_eq!(descriptors(pid).len(), kept.len() + 1, "{way:?}");
            drop(writer);
            std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
            for (child, listener, call) in [
                (first, first_listener, first_call),
                (second, second_listener, second_call),
            ] {
                call.continue_syscall().unwrap();
                assert!(finish(child, listener).await.unwrap().status.success());
            }
        }
    });
}

// T26: the start of one child must not wait for the execution of another, which was cloned while the socket of the
// first was there already.
#[test]
fn pending_children_do_not_hold_up_the_starts_of_others() {
    let test = "pending_children_do_not_hold_up_the_starts_of_others";
    leaving_nothing(test, async |_| {
        // It makes a fork so slow that the other starts are all prepared before it is done.
        let ballast = ballast(64 << 20);
        for _ in 0..10 {
            let mut commands = [
                command("/bin/true", Way::Forked),
                command("/bin/true", Way::Shared),
                command("/bin/true", Way::Forked),
                command("/bin/true", Way::Shared),
            ];
            for plain in [0, 3] {
                // Its first call waits to be served, which begins once all have been started.
                commands[plain]
                    .trap_initial_exec(false)
                    .filter(Filter::trap_all());
            }
            let starts = commands.iter_mut().map(Command::spawn);
            let started = within("all starts", futures::future::join_all(starts)).await;
            let ends = started.into_iter().map(|started| {
                let (child, listener) = started.unwrap();
                finish(child, listener)
            });
            for output in futures::future::join_all(ends).await {
                assert!(output.unwrap().status.success());
            }
        }
        drop(ballast);
    });
}

/// Memory in small pages, each of which a fork has to look at.
fn ballast(size: usize) -> Vec<u8> {
    let mut memory: Vec<u8> = Vec::with_capacity(size);
    let page = memory.as_ptr().addr().next_multiple_of(4096);
    let inside = memory.as_ptr().with_addr(page).cast_mut().cast();
    // SAFETY: a hint about memory that nobody uses yet.
    unsafe { nix::libc::madvise(inside, size - 4096, nix::libc::MADV_NOHUGEPAGE) };
    memory.resize(size, 1);
    memory
}

#[test]
fn a_pending_execution_leaves_nothing_behind_however_it_ends() {
    let test = "a_pending_execution_leaves_nothing_behind_however_it_ends";
    leaving_nothing(test, async |before| {
        for way in Way::BOTH {
            // Only the child is dropped.
            let (child, mut listener, call) = pending(&mut command("/bin/true", way)).await;
            let pid = child.id().unwrap();
            drop(child);
            assert!(within("the end", listener.next()).await.is_none());
            assert!(!call.continue_syscall().unwrap().is_delivered());
            drop(listener);
            before.assert_soon_none("a child was dropped").await;
            assert_eq!(state(pid), None);

            // Only the listener, and the call.
            let (mut child, listener, call) = pending(&mut command("/bin/true", way)).await;
            drop((listener, call));
            let _ = within("the end", child.wait()).await;
            drop(child);
            before.assert_soon_none("a listener was dropped").await;

            // All of it, in one go, after a success and after a failure.
            for program in ["/bin/true", "/nowhere/at/all"] {
                let (mut child, listener, call) = pending(&mut command(program, way)).await;
                call.continue_syscall().unwrap();
                assert_eq!(
                    within("the end", child.wait()).await.is_ok(),
                    program == "/bin/true"
                );
                drop((child, listener));
                before.assert_soon_none(program).await;
            }
        }
    });
}

#[test]
fn a_pending_child_that_may_outlive_its_handle_is_served_until_its_listener_goes() {
    let test = "a_pending_child_that_may_outlive_its_handle_is_served_until_its_listener_goes";
    leaving_nothing(test, async |before| {
        for way in Way::BOTH {
            let mut kept = command("/bin/true", way);
            kept.kill_on_drop(false);
            let (child, mut listener, call) = pending(&mut kept).await;
            let pid = child.id().unwrap();
            drop(child);
            assert!(call.is_pending());
            assert!(call.continue_syscall().unwrap().is_delivered());
            assert!(within("the end", listener.next()).await.is_none());
            drop(listener);
            before.assert_soon_none("it has run").await;
            assert_eq!(proc_status(pid, "State"), None);

            // Its execve fails with ENOSYS, and it exits.
            let (child, listener, call) = pending(&mut kept).await;
            drop((child, listener, call));
            before.assert_soon_none("nobody was left to serve it").await;
        }
    });
}
