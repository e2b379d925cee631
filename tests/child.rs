//! The handle of a running program: waiting, killing, and what its end leaves behind.

mod support;

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use asm_tracer::{Child, Command, Errno, Error, Filter, Listener, Signal, Stdio, Supervisor, Sysno};
use support::start::{Way, current_thread, leaving_nothing, serve};
use support::{in_process_of_its_own, state, until, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A program that runs until it is killed and says when it has begun.
fn sleeper(way: Way) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "echo ready; exec sleep 1000"])
        .stdout(Stdio::piped());
    way.apply(&mut command);
    command
}

/// Starts a sleeper and waits for its word.
async fn ready(command: &mut Command) -> (Child, Listener) {
    let (mut child, listener) = within("the start", command.spawn()).await.unwrap();
    let mut word = [0; 6];
    let stdout = child.stdout.as_mut().unwrap();
    within("its word", stdout.read_exact(&mut word)).await.unwrap();
    (child, listener)
}

#[tokio::test]
async fn the_exit_status_is_kept() {
    for way in Way::BOTH {
        for (script, code, signal) in [
            ("exit 0", Some(0), None),
            ("exit 255", Some(255), None),
            ("kill -TERM $$", None, Some(15)),
            ("ulimit -c 0; kill -SEGV $$", None, Some(11)),
        ] {
            let mut command = Command::new("sh");
            way.apply(command.args(["-c", script]));
            let (mut child, listener) = command.spawn().await.unwrap();
            let expected = (code, signal);
            let status = within("the end", child.wait()).await.unwrap();
            assert_eq!((status.code(), status.signal()), expected);
            // Again, and with the listener, which reaps too.
            assert_eq!(serve(listener).await, 0);
            assert_eq!(within("the end again", child.wait()).await.unwrap(), status);
            assert_eq!(child.try_wait().unwrap(), Some(status));
        }
    }
}

#[tokio::test]
async fn the_id_is_the_process_until_it_has_been_waited_for() {
    for way in Way::BOTH {
        let (mut child, listener) = ready(&mut sleeper(way)).await;
        let pid = child.id().unwrap();
        assert!(state(pid).is_some());
        assert_eq!(child.id(), Some(pid));
        assert!(child.try_wait().unwrap().is_none());
        assert!(format!("{child:?}").contains(&pid.to_string()));
        child.kill().await.unwrap();
        assert_eq!(child.id(), None);
        assert_eq!(state(pid), None);
        drop(listener);
    }
}

#[tokio::test]
async fn a_signal_goes_to_the_program_until_it_has_ended() {
    for way in Way::BOTH {
        let (mut child, _listener) = ready(&mut sleeper(way)).await;
        let pid = child.id().unwrap();
        child.signal(Signal::SIGSTOP).unwrap();
        until("it has stopped", || state(pid) == Some('T')).await;
        child.signal(Signal::SIGCONT).unwrap();
        until("it goes on", || state(pid) != Some('T')).await;
        assert!(child.try_wait().unwrap().is_none());
        child.signal(Signal::SIGTERM).unwrap();
        let status = within("the end", child.wait()).await.unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGTERM as i32));
        assert!(matches!(child.signal(Signal::SIGTERM), Err(Error::Gone)));
        // To kill what has ended is just as good.
        child.start_kill().unwrap();
        child.kill().await.unwrap();
        assert_eq!(child.wait().await.unwrap(), status);
    }
}

#[tokio::test]
async fn a_frozen_program_can_be_killed() {
    for way in Way::BOTH {
        let mut command = Command::new("true");
        way.apply(command.filter(Filter::trap_all()));
        let (mut child, mut listener) = command.spawn().await.unwrap();
        let call = within("a call", listener.next()).await.unwrap();
        child.start_kill().unwrap();
        let status = within("the end", child.wait()).await.unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32));
        assert!(!call.is_pending());
        assert!(within("the end", listener.next()).await.is_none());
    }
}

#[tokio::test]
async fn waiting_can_be_given_up_and_taken_up_again() {
    let (mut child, _listener) = ready(&mut sleeper(Way::Shared)).await;
    for _ in 0..100 {
        let waited = tokio::time::timeout(Duration::from_micros(100), child.wait()).await;
        assert!(waited.is_err());
    }
    child.start_kill().unwrap();
    let status = within("the end", child.wait()).await.unwrap();
    assert_eq!(status.signal(), Some(Signal::SIGKILL as i32));
}

/// On one thread: what is always ready must not keep it from all else.
#[tokio::test]
async fn a_child_that_has_ended_may_be_waited_for_in_a_loop() {
    let (mut child, listener) = Command::new("true").spawn().await.unwrap();
    assert_eq!(serve(listener).await, 0);
    let other = tokio::spawn(async {});
    for _ in 0..1000 {
        assert!(child.wait().await.unwrap().success());
    }
    assert!(other.is_finished());
}

#[tokio::test]
async fn the_memory_of_a_program_is_read_while_it_lives() {
    let mut command = Command::new("cat");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let (mut child, _listener) = command.spawn().await.unwrap();
    // Once it copies, it executes nothing any more that would replace its memory.
    child.stdin.as_mut().unwrap().write_all(b"x").await.unwrap();
    let stdout = child.stdout.as_mut().unwrap();
    within("its copy", stdout.read_exact(&mut [0])).await.unwrap();
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", child.id().unwrap())).unwrap();
    let start = u64::from_str_radix(maps.split('-').next().unwrap(), 16).unwrap();
    let mut magic = [0; 4];
    assert_eq!(child.read_memory(start, &mut magic).unwrap(), 4);
    assert_eq!(&magic, b"\x7fELF");
    let fault = child.read_memory(0, &mut magic);
    assert!(matches!(fault, Err(Error::Fault { address: 0 })), "{fault:?}");
    child.kill().await.unwrap();
    let gone = child.read_memory(start, &mut magic);
    assert!(matches!(gone, Err(Error::Gone)), "{gone:?}");
}

#[test]
fn a_dropped_child_is_killed_and_reaped() {
    leaving_nothing("a_dropped_child_is_killed_and_reaped", async |before| {
        for way in Way::BOTH {
            let (child, mut listener) = ready(&mut sleeper(way)).await;
            drop(child);
            assert!(within("the end", listener.next()).await.is_none());
            drop(listener);
            before.assert_soon_none("a dropped child").await;

            let (mut child, listener) = ready(&mut sleeper(way)).await;
            drop(listener);
            let status = within("the end", child.wait()).await.unwrap();
            assert_eq!(status.signal(), Some(Signal::SIGKILL as i32));
            drop(child);
            before.assert_none("a dropped listener");

            // Both at once, and so nobody of this runtime's tasks reaps it.
            drop(ready(&mut sleeper(way)).await);
            before.assert_soon_none("both were dropped").await;
        }
    });
}

#[test]
fn a_supervisor_that_is_dropped_kills_all_of_its_children() {
    let test = "a_supervisor_that_is_dropped_kills_all_of_its_children";
    leaving_nothing(test, async |before| {
        let supervisor = Supervisor::new();
        let mut children = Vec::new();
        for way in [Way::BOTH, Way::BOTH].concat() {
            children.push(supervisor.spawn(&mut sleeper(way)).await.unwrap());
        }
        drop(supervisor);
        for mut child in children {
            let status = within("the end", child.wait()).await.unwrap();
            assert_eq!(status.signal(), Some(Signal::SIGKILL as i32));
        }
        before.assert_none("a dropped supervisor");
    });
}

#[test]
fn a_child_that_may_outlive_its_handle_is_supervised_until_its_listener_goes() {
    let test = "a_child_that_may_outlive_its_handle_is_supervised_until_its_listener_goes";
    leaving_nothing(test, async |before| {
        for way in Way::BOTH {
            let script = "echo ready; read go; umask 022; umask 077; echo $?; exec sleep 1000";
            let mut command = Command::new("/bin/sh");
            command
                .args(["-c", script])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(false)
                .filter(Filter::new().trap(Sysno::umask));
            way.apply(&mut command);
            let (mut child, mut listener) = ready(&mut command).await;
            let (pid, stdin, mut stdout) = (
                child.id().unwrap(),
                child.stdin.take(),
                child.stdout.take().unwrap(),
            );
            drop(child);
            drop(stdin);
            let call = within("its call", listener.next()).await.unwrap();
            assert_eq!(call.sysno(), Some(Sysno::umask));
            assert!(call.error(Errno::EPERM).unwrap().is_delivered());
            // The second is without a supervisor: it fails, and the program goes on.
            drop(listener);
            let mut word = [0; 2];
            within("its word", stdout.read_exact(&mut word)).await.unwrap();
            assert!(state(pid).is_some());
            // It is reaped although nobody waits for it.
            let pid = nix::unistd::Pid::from_raw(pid as i32);
            nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
            drop(stdout);
            before.assert_soon_none("it has ended").await;
        }
    });
}

#[tokio::test]
async fn the_output_ends_with_the_last_process_that_writes_it() {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec 3<&0; (read until_closed <&3; echo late) & echo early"])
        .stdin(std::os::fd::OwnedFd::from(reader))
        .stdout(Stdio::piped());
    let (mut child, listener) = command.spawn().await.unwrap();
    until("the child has ended", || child.try_wait().unwrap().is_some()).await;
    drop(writer);
    let output = within("all output", child.wait_with_output()).await.unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout, b"early\nlate\n");
    assert_eq!(serve(listener).await, 0);
}

#[test]
fn a_child_that_other_code_reaps_is_an_error() {
    let test = "a_child_that_other_code_reaps_is_an_error";
    in_process_of_its_own(test, || {
        current_thread().block_on(async {
            for way in Way::BOTH {
                let mut command = Command::new("true");
                way.apply(&mut command);
                // The listener would reap it as well.
                command.kill_on_drop(false);
                let (mut child, listener) = command.spawn().await.unwrap();
                drop(listener);
                let pid = nix::unistd::Pid::from_raw(child.id().unwrap() as i32);
                nix::sys::wait::waitpid(pid, None).unwrap();
                let error = within("the error", child.wait()).await.unwrap_err();
                assert!(matches!(error, Error::Reaped), "{error:?}");
            }
        });
    });
}
