//! The examples as their users run them: on real programs, and on hostile ones.

mod support;

#[path = "examples/blocking.rs"]
mod blocking;
#[path = "examples/escapes.rs"]
mod escapes;
#[path = "examples/fuzz.rs"]
mod fuzz;
#[path = "examples/hostile.rs"]
mod hostile;
#[path = "examples/inject.rs"]
mod inject;
#[path = "examples/lines.rs"]
mod lines;
#[path = "examples/others.rs"]
mod others;
#[path = "examples/output.rs"]
mod output;
#[path = "examples/programs.rs"]
mod programs;
#[path = "examples/redirect.rs"]
mod redirect;
#[path = "examples/sandbox.rs"]
mod sandbox;
#[path = "examples/signals.rs"]
mod signals;
#[cfg(feature = "sweep")]
#[path = "examples/sweep/mod.rs"]
mod sweep;
#[path = "examples/tracing_itself.rs"]
mod tracing_itself;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Output;

use tokio::process::Command;

/// An example, which `cargo test` builds next to this test program.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().with_file_name("examples").join(name);
    assert!(
        path.exists(),
        "{} is not built; `cargo test` does it, and `cargo build --examples`",
        path.display()
    );
    let mut command = Command::new(path);
    command.kill_on_drop(true);
    command
}

/// `trace` with these arguments.
fn trace<I: AsRef<OsStr>>(arguments: impl IntoIterator<Item = I>) -> Command {
    let mut command = example("trace");
    command.args(arguments);
    command
}

/// Runs a command to its end, with nothing to read.
async fn finish(command: &mut Command) -> Output {
    let what = format!("the end of {:?}", command.as_std());
    support::within(&what, command.stdin(std::process::Stdio::null()).output())
        .await
        .unwrap()
}

/// A directory with a file in it, which says `hello`.
fn file() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "hello\n").unwrap();
    (directory, file)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
