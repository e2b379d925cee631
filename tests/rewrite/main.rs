//! Calls that run with other registers, and what calls returned.

#[path = "../fixtures/mod.rs"]
mod fixtures;
#[path = "../support/mod.rs"]
mod support;

mod blocked;
mod calls;
mod data;
mod dropped;
mod ends;
mod hostile;
mod refused;
mod registers;
mod signals;
mod threads;

use asm_tracer::{Child, Command, Filter, Listener};
use support::target::command;
use support::within;

/// A target under this filter.
fn target(name: &str, body: &str, filter: Filter) -> Command {
    let mut command = command(name, body);
    command.filter(filter);
    command
}

/// Starts a target and tells it so many bytes.
async fn start(command: &mut Command, bytes: usize) -> (Child, Listener) {
    use tokio::io::AsyncWriteExt;
    let (mut child, listener) = within("the start", command.spawn()).await.unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&vec![b'x'; bytes]).await.unwrap();
    (child, listener)
}

/// What the target printed, once it has ended by itself and well.
async fn printed(child: Child, mut listener: Listener) -> String {
    let more = within("the end", listener.next()).await;
    assert!(more.is_none(), "{more:?}");
    let output = within("the output", child.wait_with_output()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Tells whether another process or thread traces this one.
fn is_traced(tid: u32) -> bool {
    support::proc_status(tid, "TracerPid").is_some_and(|tracer| tracer != "0")
}
