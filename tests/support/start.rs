//! What the tests of starting programs share: both ways to make a child, and what a start may leave behind.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use asm_tracer::{Child, Command, Listener, Result};
use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, waitid};

use super::{BOUND, in_process_of_its_own, until, within};

/// How the library makes the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// A clone that shares the memory.
    Shared,
    /// A fork.
    Forked,
}

impl Way {
    pub(crate) const BOTH: [Self; 2] = [Self::Shared, Self::Forked];

    /// Makes the command take this way.
    pub(crate) fn apply(self, command: &mut Command) {
        if self == Self::Forked {
            // SAFETY: it does nothing.
            unsafe { command.pre_exec(|| Ok(())) };
        }
    }
}

/// Lets every call run until no process uses the filter any more; gives how many calls there were.
pub(crate) async fn serve(mut listener: Listener) -> usize {
    let mut calls = 0;
    while let Some(call) = within("a call, or the end", listener.next()).await {
        call.continue_syscall().unwrap();
        calls += 1;
    }
    calls
}

/// Serves the calls of a child until it has ended, and gives what it wrote.
pub(crate) async fn finish(child: Child, listener: Listener) -> Result<Output> {
    let (output, _) = within(
        "the program's end",
        futures::future::join(child.wait_with_output(), serve(listener)),
    )
    .await;
    output
}

/// Starts a program that does nothing, and sees it succeed.
pub(crate) async fn assert_a_start_works() {
    let output = run(&mut Command::new("/bin/true")).await.unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Starts a program, lets all of its calls run, and gives what it wrote.
pub(crate) async fn run(command: &mut Command) -> Result<Output> {
    let (child, listener) = within("the start", command.spawn()).await?;
    finish(child, listener).await
}

/// A runtime on this thread.
pub(crate) fn current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Runs `body` in a process and a runtime of its own, where only what it does itself can be left behind, and fails if
/// anything is. `test` is the name of the test that calls this.
pub(crate) fn leaving_nothing(test: &str, body: impl AsyncFnOnce(&Leftovers)) {
    in_process_of_its_own(test, || {
        current_thread().block_on(async {
            // What stays for good: the launcher, what the kernel was found to offer.
            assert!(run(&mut Command::new("true")).await.unwrap().status.success());
            let before = Leftovers::now();
            body(&before).await;
            before.assert_soon_none("everything").await;
        });
    });
}

/// Writes a file that can be executed.
///
/// Another process holds it open for writing: a child that this process makes meanwhile would inherit the descriptor
/// and keep the file busy (`ETXTBSY`).
pub(crate) fn executable(directory: &Path, name: &str, contents: &[u8]) -> PathBuf {
    let path = directory.join(name);
    let mut shell = std::process::Command::new("/bin/sh")
        .args(["-c", "cat > \"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(&path)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    shell.stdin.take().unwrap().write_all(contents).unwrap();
    assert!(shell.wait().unwrap().success());
    path
}

/// Whether this process has a child, alive or not yet reaped.
///
/// It is about the whole process, so it is for a test that has one of its own.
pub(crate) fn has_children() -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    match waitid(Id::All, flags) {
        Ok(_) => true,
        Err(Errno::ECHILD) => false,
        Err(errno) => panic!("waitid: {errno}"),
    }
}

/// What a start could leave behind, to be compared with later. For a test that has a process of its own.
#[derive(Debug)]
pub(crate) struct Leftovers {
    descriptors: BTreeMap<String, String>,
    mappings: usize,
}

impl Leftovers {
    pub(crate) fn now() -> Self {
        assert!(!has_children());
        Self {
            descriptors: descriptors(),
            mappings: stacks(),
        }
    }

    /// Fails if there are other descriptors, children or stacks of children than there were before.
    pub(crate) fn assert_none(&self, after: &str) {
        assert!(!has_children(), "a child is left after {after}");
        assert_eq!(descriptors(), self.descriptors, "after {after}");
        assert_eq!(stacks(), self.mappings, "the children's stacks after {after}");
    }

    /// The same for what the reaper's thread cleans up in its own time.
    pub(crate) async fn assert_soon_none(&self, after: &str) {
        let start = Instant::now();
        while !self.none() {
            if start.elapsed() > BOUND {
                self.assert_none(after);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The same without a runtime.
    pub(crate) fn assert_soon_none_blocking(&self, after: &str) {
        let start = Instant::now();
        while !self.none() {
            if start.elapsed() > BOUND {
                self.assert_none(after);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until no child is left, whether or not there are descriptors to look at the rest with.
    pub(crate) async fn assert_soon_reaped(&self, after: &str) {
        until(&format!("no child is left after {after}"), || !has_children()).await;
    }

    /// The children come last: while a start is under way that was given up, the look at the descriptors can miss its
    /// sockets, which are closed meanwhile, and its pidfd, which gets a number that was looked at before. But then
    /// there is a child.
    fn none(&self) -> bool {
        descriptors() == self.descriptors && stacks() == self.mappings && !has_children()
    }
}

/// The open descriptors of this process, and what they lead to.
pub(crate) fn descriptors() -> BTreeMap<String, String> {
    let mut open = BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let path = entry.unwrap().path();
        // The directory itself is closed again.
        if let Ok(target) = std::fs::read_link(&path) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let target = target.to_string_lossy().into_owned();
            if !target.ends_with("/fd") {
                open.insert(name, target);
            }
        }
    }
    open
}

/// How many stacks of children there are: 64 KiB for which no memory is reserved, above a guard page.
fn stacks() -> usize {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut regions: Vec<(u64, bool)> = Vec::new();
    for line in maps.lines() {
        if let Some(size) = line.strip_prefix("Size:") {
            regions.push((size.trim_end_matches("kB").trim().parse().unwrap(), false));
        } else if let Some(flags) = line.strip_prefix("VmFlags:") {
            regions.last_mut().unwrap().1 = flags.split_whitespace().any(|flag| flag == "nr");
        }
    }
    regions
        .windows(2)
        .filter(|pair| pair == &[(4, true), (64, true)])
        .count()
}
