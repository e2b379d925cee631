//! The main path, from spawn to exit.

mod support;

use asm_tracer::{Command, Filter, Stdio, Supervisor};
use support::within;

#[tokio::test]
async fn a_program_runs_with_every_call_trapped() {
    let mut supervisor = Supervisor::new();
    let mut command = Command::new("echo");
    command
        .arg("hello")
        .stdout(Stdio::piped())
        .filter(Filter::trap_all());
    let child = supervisor.spawn(&mut command).await.unwrap();
    let output = tokio::spawn(child.wait_with_output());
    let mut calls = 0;
    while let Some(call) = within("a call", supervisor.next()).await {
        call.continue_syscall().unwrap();
        calls += 1;
    }
    let output = output.await.unwrap().unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout, b"hello\n");
    assert!(calls > 10, "{calls}");
}
