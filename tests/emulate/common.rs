//! What the tests share: programs whose opens are all emulated.

use std::process::Output;

use asm_tracer::{Command, Errno, Filter, Notification, Stdio, Supervisor, Sysno, emulate};

use crate::support::within;

/// The calls that open something.
pub(crate) const OPENS: [Sysno; 4] = [Sysno::open, Sysno::openat, Sysno::openat2, Sysno::creat];

/// A filter that traps them.
pub(crate) fn opens() -> Filter {
    Filter::new().trap(OPENS)
}

/// Performs an open in the target's place, whatever it is.
pub(crate) async fn serve(call: Notification) {
    match emulate::Open::read(&call).await {
        Ok(Some(open)) => open.answer(call).await.map(drop).unwrap(),
        Ok(None) => panic!("{call:?}"),
        Err(error) => call.error(error.errno().unwrap_or(Errno::EIO)).map(drop).unwrap(),
    }
}

/// Runs a command with every open emulated, each in a task of its own; gives what it wrote and how many there were.
pub(crate) async fn emulated(command: &mut Command) -> (Output, u64) {
    let mut supervisor = Supervisor::new();
    command
        .filter(opens())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = within("the start", supervisor.spawn(command)).await.unwrap();
    let output = tokio::spawn(child.wait_with_output());
    let mut calls = 0;
    while let Some(call) = within("a call", supervisor.next()).await {
        calls += 1;
        tokio::spawn(serve(call));
    }
    (within("the end", output).await.unwrap().unwrap(), calls)
}

/// Runs the same as it is.
pub(crate) fn alone(command: &mut std::process::Command) -> Output {
    command.stdin(std::process::Stdio::null()).output().unwrap()
}

pub(crate) fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Fails with the lines that differ.
#[track_caller]
pub(crate) fn assert_same(emulated: &str, kernel: &str) {
    let differing: Vec<_> = emulated
        .lines()
        .zip(kernel.lines())
        .filter(|(ours, theirs)| ours != theirs)
        .map(|(ours, theirs)| format!("emulated {ours}\n  kernel {theirs}\n"))
        .collect();
    assert!(
        differing.is_empty(),
        "{} differ:\n{}",
        differing.len(),
        differing.iter().take(40).cloned().collect::<String>()
    );
    assert_eq!(emulated.lines().count(), kernel.lines().count());
}
