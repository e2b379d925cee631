//! Programs that a traced process starts, and what can't be undone.

use std::io::ErrorKind;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;

use asm_tracer::filter::Threads;
use asm_tracer::sigsys::{Decision, Tracer};
use asm_tracer::{Errno, Sysno};
use nix::libc;

use crate::common::{
    ANSWER, alone, answer, assert_traced, at, call, calls_of, error, own_status, trace_getppid,
};

/// The executions that were seen, all of which were refused.
fn refused(tracer: &Tracer) -> usize {
    let calls = calls_of(tracer);
    let executions = calls.iter().filter(|call| {
        let number = call.syscall.sysno();
        matches!(number, Some(Sysno::execve | Sysno::execveat))
    });
    let refused = Decision::Refused(Errno::EPERM);
    executions
        .inspect(|call| assert_eq!(call.decision, refused))
        .count()
}

fn start_programs(tracer: &Tracer) {
    let started = Command::new("/bin/true").status().unwrap_err();
    assert_eq!(started.kind(), ErrorKind::PermissionDenied);
    assert_eq!(refused(tracer), 1);
    // By fork, as there is something to be done in the child; it is not traced, and refused all the same.
    let mut command = Command::new("/bin/true");
    // SAFETY: does nothing.
    let forked = unsafe { command.pre_exec(|| Ok(())) }.status().unwrap_err();
    assert_eq!(forked.kind(), ErrorKind::PermissionDenied);
    assert_eq!(refused(tracer), 0);
    // From this process itself.
    assert_eq!(
        Command::new("/bin/true").exec().kind(),
        ErrorKind::PermissionDenied
    );
    let none = [0_usize];
    let path = c"/bin/true".as_ptr() as i64;
    let args = [libc::AT_FDCWD.into(), path, at(&none), at(&none), 0];
    assert_eq!(call(Sysno::execveat, &args), error(libc::EPERM));
    assert_eq!(call(Sysno::execve, &[8, 8, 8]), error(libc::EPERM));
    assert_eq!(refused(tracer), 3);
    assert_traced();
}

// P8
#[test]
fn programs_are_not_started_by_default() {
    alone(|| {
        let tracer = trace_getppid();
        start_programs(&tracer);
    });
}

// P8
#[test]
fn programs_are_not_started_where_that_is_traced() {
    alone(|| {
        let builder = Tracer::builder().trap([Sysno::getppid, Sysno::execve, Sysno::execveat]);
        let tracer = builder.hook(answer).install().unwrap();
        start_programs(&tracer);
    });
}

// P8
#[test]
fn programs_are_not_started_after_the_tracer_is_gone() {
    alone(|| {
        drop(trace_getppid());
        let started = Command::new("/bin/true").status().unwrap_err();
        assert_eq!(started.kind(), ErrorKind::PermissionDenied);
    });
}

// P8
#[test]
fn a_program_that_may_start_dies_of_its_first_trapped_call() {
    alone(|| {
        let builder = Tracer::builder()
            .trap([Sysno::getppid, Sysno::brk])
            .allow_exec(true);
        let tracer = builder.hook(answer).install().unwrap();
        let status = Command::new("/bin/true").status().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGSYS));
        assert_eq!(refused(&tracer), 0);
        assert_traced();
    });
}

// P8
#[test]
fn a_program_that_may_start_dies_of_setting_a_handler() {
    alone(|| {
        // What carries masks is trapped in any case.
        let builder = Tracer::builder().trap(Sysno::getppid).allow_exec(true);
        let _tracer = builder.install().unwrap();
        let status = Command::new("/bin/sh")
            .args(["-c", "trap : USR1"])
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(libc::SIGSYS));
    });
}

// P8
#[test]
fn a_program_that_may_start_runs_as_long_as_it_does_nothing_that_is_trapped() {
    alone(|| {
        let builder = Tracer::builder()
            .trap([Sysno::getppid, Sysno::execve])
            .allow_exec(true);
        let tracer = builder.hook(answer).install().unwrap();
        assert!(Command::new("/bin/true").status().unwrap().success());
        let output = Command::new("/bin/echo").arg("seen").output().unwrap();
        assert_eq!(
            (output.status.code(), output.stdout.as_slice()),
            (Some(0), b"seen\n".as_slice())
        );
        let calls = calls_of(&tracer);
        let executions = calls
            .iter()
            .filter(|call| call.syscall.sysno() == Some(Sysno::execve));
        assert_eq!(
            executions
                .inspect(|call| assert_eq!(call.decision, Decision::Run))
                .count(),
            2
        );
        assert_eq!(call(Sysno::getppid, &[]), ANSWER);
    });
}

// P12
#[test]
fn no_new_privileges_can_be_had() {
    alone(|| {
        assert_eq!(own_status("NoNewPrivs").as_deref(), Some("0"));
        std::thread::spawn(|| {
            drop(trace_getppid());
            assert_eq!(own_status("NoNewPrivs").as_deref(), Some("1"));
            assert_eq!(own_status("Seccomp").as_deref(), Some("2"));
        })
        .join()
        .unwrap();
        // The other threads may.
        assert_eq!(own_status("NoNewPrivs").as_deref(), Some("0"));
        assert_eq!(own_status("Seccomp").as_deref(), Some("0"));
    });
}

// P12
#[test]
fn no_new_privileges_can_be_had_by_any_thread() {
    alone(|| {
        let (ask, asked) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            let _: Result<(), _> = asked.recv();
            [own_status("NoNewPrivs"), own_status("Seccomp")]
        });
        let builder = Tracer::builder().trap(Sysno::getppid).threads(Threads::All);
        let _tracer = builder.install().unwrap();
        drop(ask);
        assert_eq!(other.join().unwrap().map(Option::unwrap), ["1", "2"]);
    });
}
