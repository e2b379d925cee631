//! What the tests share: bounds, conditions, fixtures, processes of their own.
#![allow(dead_code, unused_imports, unused_macros)] // Each test file is a crate of its own and uses a part of it.

pub(crate) mod limit;
pub(crate) mod side_by_side;
pub(crate) mod stalling;
pub(crate) mod start;

use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long something may take that takes milliseconds on an idle machine.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// Waits for `future`, and fails with what was being waited for if it takes unreasonably long.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(BOUND, future).await {
        Ok(value) => value,
        Err(_) => panic!("still waiting for {what} after {BOUND:?}"),
    }
}

/// Waits until a condition holds that sends no event.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < BOUND,
            "still waiting until {what} after {BOUND:?}"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The same without a runtime.
pub(crate) fn until_blocking(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < BOUND,
            "still waiting until {what} after {BOUND:?}"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A field of `/proc/PID/status`; `None` if the process is gone.
pub(crate) fn proc_status(pid: u32, field: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// The scheduler's state of a thread, such as `S` or `D`; `None` if it is gone.
pub(crate) fn state(tid: u32) -> Option<char> {
    proc_status(tid, "State")?.chars().next()
}

/// The interpreter itself: `python3` may be a script that finds it.
pub(crate) fn python() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        let find = ["-c", "import sys; print(sys.executable)"];
        let output = Command::new("python3").args(find).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    })
}

/// How many descriptors this process has open.
pub(crate) fn open_descriptors() -> usize {
    // One of them is the directory itself.
    std::fs::read_dir("/proc/self/fd").unwrap().count() - 1
}

/// Compiles a C program, once for all tests that want the same one.
///
/// A Rust installation links with `cc`, so there is one.
pub(crate) fn c_program(name: &str, source: &str) -> PathBuf {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    source.hash(&mut hasher);
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = directory.join(format!("{name}-{:016x}", hasher.finish()));
    if !program.exists() {
        // Under a name of this thread's own first, so that nobody ever sees half a program.
        let mine = directory.join(format!(
            "{name}-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let mut compiler = Command::new("cc")
            .args(["-O1", "-pthread", "-Wall", "-x", "c", "-", "-o"])
            .arg(&mine)
            .stdin(Stdio::piped())
            .spawn()
            .expect("a C compiler");
        compiler
            .stdin
            .take()
            .unwrap()
            .write_all(source.as_bytes())
            .unwrap();
        assert!(compiler.wait().unwrap().success(), "{name} does not compile");
        std::fs::rename(&mine, &program).unwrap();
    }
    program
}

const CHILD: &str = "ASM_TRACER_TEST_CHILD";

/// Tells whether this is the process that [`in_process_of_its_own`] started.
pub(crate) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs `body` in a process of its own, for what can't be undone; `test` is the name of the test that calls this.
pub(crate) fn in_process_of_its_own(test: &str, body: impl FnOnce()) {
    if is_child() {
        return body();
    }
    let output = rerun(test).output().unwrap();
    assert_passed(&output);
}

/// This test program again, for one test, as the child.
pub(crate) fn rerun(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1");
    command
}

/// Fails with what the child printed unless its one test passed.
pub(crate) fn assert_passed(output: &Output) {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{:?}\n{text}",
        output.status
    );
}

pub(crate) mod foreign;
pub(crate) mod target;
