//! `sweep` on programs that make of a failure what they are told to.

mod broken_off;
mod command_line;
mod repeated;
mod shown;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Output;

use tokio::process::Command;

use crate::support::target;
use crate::{example, finish, text};

/// Each of its calls of `flock` takes another way when it fails, and none of them is made by the C library. The third makes
/// it write less than it should.
const PLANTED: &str = r#"
#include <sys/file.h>
int main(void) {
    if (flock(0, LOCK_SH)) abort();
    if (flock(0, LOCK_SH)) for (;;) pause();
    if (flock(0, LOCK_SH)) return 0;
    if (flock(0, LOCK_SH)) { perror("flock"); return 3; }
    puts("done");
    return 0;
}
"#;

fn planted() -> PathBuf {
    target::program("example_sweep_planted", PLANTED)
}

/// A directory for a test, with one for what `sweep` makes in it, and the example told to use it.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("scratch")).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn command<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Command {
        let mut command = example("sweep");
        command
            .args(["--scratch".as_ref(), self.path("scratch").as_os_str()])
            .args(arguments)
            .current_dir(self.directory.path())
            .env("LC_ALL", "C");
        command
    }

    /// Runs it to its end, which leaves no scratch directory.
    async fn sweep<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Output {
        let output = finish(&mut self.command(arguments)).await;
        self.assert_nothing_is_left();
        output
    }

    fn assert_nothing_is_left(&self) {
        let left = std::fs::read_dir(self.path("scratch")).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// The arguments, and the planted program after them.
fn on_planted(arguments: &[&str]) -> Vec<std::ffi::OsString> {
    let mut all: Vec<_> = arguments.iter().map(Into::into).collect();
    all.push(planted().into());
    all
}

/// Those processes that are in this directory or below it, or in one that was.
fn processes_in(directory: &Path) -> Vec<PathBuf> {
    let processes = std::fs::read_dir("/proc").unwrap();
    let processes = processes.map(|entry| entry.unwrap().path());
    let there = |process: &PathBuf| {
        let there = std::fs::read_link(process.join("cwd"));
        there.is_ok_and(|there| there.starts_with(directory))
    };
    processes.filter(there).collect()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn stdout(output: &Output) -> &str {
    text(&output.stdout)
}

fn stderr(output: &Output) -> &str {
    text(&output.stderr)
}
