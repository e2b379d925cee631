//! Python's own tests of processes, threads and signals.

use std::process::{Command, Stdio};

use nix::sys::signal::{SigHandler, Signal, signal};

use crate::program::{Program, assert_success};

const MODULES: [&str; 3] = ["test.test_subprocess", "test.test_threading", "test.test_signal"];

/// Quick ones, whose outcome does not depend on how long something takes.
const TESTS: [&str; 15] = [
    "*RunFuncTestCase.test_call*",
    "*RunFuncTestCase.test_check*zero",
    "*POSIXProcessTestCase.test_*string*",
    "*POSIXProcessTestCase.test_exception_[be]*",
    "*POSIXProcessTestCase.test_preexec",
    "*POSIXProcessTestCase.test_kill",
    "*POSIXProcessTestCase.test_terminate",
    "*POSIXProcessTestCase.test_r*",
    "*PosixTests.test_[gs]*",
    "*PendingSignalsTests.test_sigpending*",
    "*PendingSignalsTests.test_pthread*",
    "*RaiseSignalTest*",
    "*LockTests.test_[alr]*",
    "*BarrierTests.test_[abrw]*",
    "*ThreadTests.test_[aef]*",
];

/// The same in short, for a Python that came without its tests.
const SCRIPT: &str = r#"
import os, signal, subprocess, sys, threading

# First of all: a thread that has been joined may still be there for a moment, and would take the signal.
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
for code in (0, 1, 37):
    print(subprocess.run([sys.executable, "-c", f"exit({code})"]).returncode)
print(subprocess.run(["sh", "-c", "kill -TERM $$"]).returncode)
print(subprocess.run("cat | sort -r", shell=True, input="1\n2\n", capture_output=True, text=True))
try:
    subprocess.run("/nonexistent/program")
except FileNotFoundError as error:
    print(error)

barrier, lock, total = threading.Barrier(16), threading.Lock(), 0
def work(number):
    global total
    for _ in range(20):
        barrier.wait()
        with lock:
            total += number
threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(total)

signal.signal(signal.SIGUSR1, lambda number, frame: print("got", signal.Signals(number).name))
for _ in range(3):
    os.kill(os.getpid(), signal.SIGUSR1)
os.kill(os.getpid(), signal.SIGUSR2)
print(signal.sigpending(), signal.sigwait([signal.SIGUSR2]))
"#;

/// The interpreter itself, not a script that chooses one.
fn interpreter(imports: &str) -> Option<String> {
    let script = format!("import sys\n{imports}\nprint(sys.executable)");
    let mut command = Command::new("python3");
    let output = command
        .args(["-c", &script])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| path.trim().to_owned())
}

/// Without the time that the tests took.
fn without_times(text: &str) -> String {
    let line = |line: &str| match line.split_once(" tests in ") {
        Some((count, _)) => format!("{count} tests\n"),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[tokio::test]
#[allow(unsafe_code)]
async fn python_passes_its_own_tests() {
    // One of them interrupts itself, which whoever runs this in the background may have ignored.
    // SAFETY: no handler is installed.
    unsafe { signal(Signal::SIGINT, SigHandler::SigDfl) }.unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let imports = MODULES.map(|module| format!("import {module}")).join("\n");
    if let Some(python) = interpreter(&imports) {
        let patterns = TESTS.iter().flat_map(|pattern| ["-k", *pattern]);
        let arguments = ["-B", "-m", "unittest", "-v"].into_iter().chain(patterns);
        let mut program = Program::new(&python, arguments.chain(MODULES));
        program.directory = temporary.path();
        let output = program.same(|| (), without_times).await;
        assert_success(&output);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.matches("... ok").count() > 50, "{said}");
    } else {
        eprintln!("skipped: there is no python3 with its own tests (another test runs a script)");
    }
}

#[tokio::test]
async fn python_runs_processes_threads_and_signal_handlers() {
    let Some(python) = interpreter("") else {
        return eprintln!("skipped: there is no python3");
    };
    assert_success(&Program::new(&python, ["-B", "-c", SCRIPT]).same_as_it_is().await);
}
