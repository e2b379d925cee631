//! Traces of real programs and of hostile ones, to destinations that are slow, stall or fail.

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod destinations;
mod hostile;
#[cfg(feature = "serde")]
mod json;
mod programs;
#[cfg(feature = "tracing")]
mod spans;

use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use asm_tracer::record::{Builder, Finished, Line, Record, Recorder};
use asm_tracer::{Command, Filter, Stdio, Supervisor};
use support::within;

/// A recorder whose looks have the time that a busy machine takes.
fn builder() -> Builder {
    Recorder::builder().look_limit(Duration::from_secs(50))
}

/// Reads on threads of the library's own, and in place.
const EITHER_WAY: [bool; 2] = [false, true];

/// Has lines sent here.
fn to_channel(builder: Builder) -> (Recorder, Receiver<Line>) {
    let (lines, trace) = channel();
    let recorder = builder.to(move |line| lines.send(line).map_err(io::Error::other));
    (recorder.unwrap(), trace)
}

/// Runs a program to its end, with all calls that are trapped let through.
async fn pass_all(recorder: &Recorder, command: &mut Command, filter: Filter) {
    let mut supervisor = Supervisor::new();
    command.filter(filter).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = within("the start", supervisor.spawn(command)).await.unwrap();
    while let Some(call) = within("a call", supervisor.next()).await {
        within("the answer", recorder.pass(call)).await.unwrap();
    }
    within("the end", child.wait()).await.unwrap();
}

/// What was recorded of a program, of which nothing is missing.
async fn records_of(builder: Builder, command: &mut Command, filter: Filter) -> Vec<Record> {
    let (recorder, trace) = to_channel(builder);
    pass_all(&recorder, command, filter).await;
    finished(recorder, trace).await
}

/// The records of a trace of which nothing is missing.
async fn finished(recorder: Recorder, trace: Receiver<Line>) -> Vec<Record> {
    let Finished {
        written,
        dropped,
        error,
        ..
    } = within("the trace", recorder.finish()).await;
    assert!(error.is_none() && dropped == 0, "{error:?}, {dropped} dropped");
    let mut lines: Vec<_> = trace.iter().collect();
    match lines.pop() {
        Some(Line::End(sums)) => assert_eq!((sums.written, sums.dropped), (written, 0)),
        other => panic!("{other:?}"),
    }
    let records: Vec<_> = lines.into_iter().map(record).collect();
    assert_eq!(records.len() as u64, written);
    records
}

fn record(line: Line) -> Record {
    match line {
        Line::Call(record) => *record,
        other => panic!("{other:?}"),
    }
}

/// Reads a file, and shows nothing. Its opens are trapped.
fn reader() -> Command {
    let mut command = Command::new("cat");
    command
        .arg("/etc/passwd")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .filter(Filter::new().trap(asm_tracer::Sysno::openat));
    command
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).env("LC_ALL", "C");
    command
}

fn python(script: &str) -> Command {
    let mut command = Command::new(support::python());
    command.args(["-S", "-c", script]);
    command
}
