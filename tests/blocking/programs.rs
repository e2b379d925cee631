//! The four programs, with what they print caught.

use std::sync::mpsc::channel;

use asm_tracer::blocking::{Tracer, spawn_traced};
use asm_tracer::{Errno, Filter, Sysno, TrappedSyscall};

use crate::{NO_HOOK, number, program, received};

const BAD_DESCRIPTOR: i64 = -(Errno::EBADF as i64);

#[test]
fn a_write_is_answered_with_its_own_length() {
    let mut echo = program("/bin/echo", &["hello"]);
    echo.filter(Filter::new().trap(Sysno::write));
    let child = Tracer::new(|call| Some(call.args[2])).spawn(&mut echo).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.stdout, output.stderr), (vec![], vec![]));
    assert_eq!(child.wait().unwrap(), 0);
    let calls = child.drain_syscalls();
    assert_eq!(calls.len(), 1, "{calls:?}");
    assert_eq!((calls[0].nr, calls[0].sysno()), (1, Some(Sysno::write)));
    assert_eq!((calls[0].args[0], calls[0].args[2]), (1, 6));
    assert!(child.drain_syscalls().is_empty());
    assert_eq!(child.dropped_syscalls(), 0);
}

#[test]
fn the_hook_waits_while_another_thread_reads_what_the_frozen_child_writes() {
    let (calls, call) = channel();
    let (go_on, told) = channel();
    let mut echo = program("/bin/echo", &["hello"]);
    echo.filter(Filter::new().trap(Sysno::write));
    let hook = move |call: &TrappedSyscall| {
        calls.send((call.args[1] as u64, call.args[2] as usize)).unwrap();
        told.recv().unwrap()
    };
    let child = Tracer::new(hook).spawn(&mut echo).unwrap();
    let (address, length) = received("the call", &call);
    assert_eq!(child.read_memory(address, length).unwrap(), b"hello\n");
    assert_eq!(child.try_wait().unwrap(), None);
    go_on.send(None).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"hello\n");
    assert!(output.status.success());
}

#[test]
fn standard_output_is_a_bad_descriptor() {
    let mut echo = program("/bin/echo", &["hello"]);
    echo.env("LC_ALL", "C").filter(Filter::new().trap(Sysno::write));
    let child = Tracer::new(|call| (call.args[0] == 1).then_some(BAD_DESCRIPTOR))
        .spawn(&mut echo)
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "/bin/echo: write error: Bad file descriptor\n"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn it_is_one_for_what_the_program_forks_and_executes_too() {
    let script = "/bin/echo one; (/bin/echo two; exec /bin/echo three); echo four; /bin/echo told >&2";
    let mut shell = program("/bin/bash", &["-c", script]);
    shell.env("LC_ALL", "C").filter(Filter::new().trap(Sysno::write));
    let child = Tracer::new(|call| (call.args[0] == 1).then_some(BAD_DESCRIPTOR))
        .spawn(&mut shell)
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors.matches("Bad file descriptor").count(), 5, "{errors}");
    // Its standard output is the shell's standard error, and by number the same bad descriptor.
    assert!(!errors.contains("told\n"), "{errors}");
    let refused = child
        .drain_syscalls()
        .iter()
        .filter(|call| call.args[0] == 1)
        .count();
    assert_eq!(refused, 5);
}

#[test]
fn the_one_liner_takes_plain_functions_closures_and_none() {
    fn refuse(_: &TrappedSyscall) -> Option<i64> {
        Some(-i64::from(Errno::EROFS as i32))
    }
    let directory = tempfile::tempdir().unwrap();
    let new = directory.path().join("new");
    let argv = ["mkdir", new.to_str().unwrap()];
    let calls = [number(Sysno::mkdir), number(Sysno::mkdirat)];

    let mut seen = 0;
    let (counts, count) = channel();
    let counting = move |_: &TrappedSyscall| {
        seen += 1;
        counts.send(seen).unwrap();
        Some(0)
    };
    let child = spawn_traced("/bin/mkdir", &argv, &calls, Some(counting)).unwrap();
    assert_eq!(child.wait().unwrap(), 0);
    assert!(!new.exists());
    assert_eq!(received("the count", &count), 1);

    // Found in the PATH, and told on its standard error, which is that of this test.
    let child = spawn_traced("mkdir", &argv, &calls, Some(refuse)).unwrap();
    assert_eq!(child.wait().unwrap(), 1 << 8);
    assert!(!new.exists());

    let child = spawn_traced("/bin/mkdir", &argv, &calls, NO_HOOK).unwrap();
    assert_eq!(child.wait().unwrap(), 0);
    assert!(new.exists());
    assert_eq!(child.drain_syscalls().len(), 1);

    // The zeroth argument is the caller's.
    let child = spawn_traced("/bin/sh", &["-sh", "-c", "[ $0 = x ]", "x"], &[], NO_HOOK).unwrap();
    assert_eq!(child.wait().unwrap(), 0);
    let child = spawn_traced("/bin/true", &[] as &[&str], &[], NO_HOOK).unwrap();
    assert_eq!(child.wait().unwrap(), 0);
}
