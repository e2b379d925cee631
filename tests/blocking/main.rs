//! Supervision without a runtime, on real programs and on targets of our own.

#[path = "../support/mod.rs"]
mod support;

mod child;
mod ends;
mod hook;
mod inside;
mod many;
mod older_kernel;
mod programs;
mod storms;

use std::sync::mpsc::{Receiver, RecvTimeoutError};

use asm_tracer::blocking::{TracedChild, Tracer};
use asm_tracer::{Command, Stdio, Sysno, TrappedSyscall};
use support::{BOUND, until_blocking};

fn number(sysno: Sysno) -> i64 {
    sysno.id().into()
}

/// No hook, as a type.
const NO_HOOK: Option<fn(&TrappedSyscall) -> Option<i64>> = None;

/// What a hook sends, within reason.
#[track_caller]
fn received<T>(what: &str, receiver: &Receiver<T>) -> T {
    receiver
        .recv_timeout(BOUND)
        .unwrap_or_else(|error| panic!("still waiting for {what}: {error}"))
}

/// Waits until a hook and all that it has captured are gone, and with them the thread's work.
#[track_caller]
fn until_dropped<T: std::fmt::Debug>(hook: &Receiver<T>) {
    assert_eq!(
        hook.recv_timeout(BOUND).unwrap_err(),
        RecvTimeoutError::Disconnected
    );
}

/// A target of our own, under the filter for `trap` and with pipes to its standard input and output.
fn start(tracer: Tracer, name: &str, body: &str) -> TracedChild {
    tracer.spawn(&mut support::target::command(name, body)).unwrap()
}

/// A real program with its output piped.
fn program(path: &str, args: &[&str]) -> Command {
    let mut command = Command::new(path);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}
