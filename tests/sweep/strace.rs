//! `strace(1)` does to a program what the sweep has done.

use asm_tracer::sweep::{Ending, Sweep};

use crate::{command, run};

#[tokio::test]
async fn strace_comes_to_the_same() {
    if std::process::Command::new("strace").arg("-V").output().is_err() {
        return eprintln!("skipped: there is no strace");
    }
    let report = run(Sweep::new(command("cp", ["/etc/passwd", "copy"])).limit(1200)).await;
    let sample: Vec<_> = report
        .trials
        .iter()
        .filter(|trial| trial.steady)
        .step_by(13)
        .collect();
    assert!(sample.len() > 30, "{report}");
    for trial in sample {
        let line = report.strace(trial).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut shell = std::process::Command::new("/bin/sh");
        shell.args(["-c", &line.replacen("strace", "exec strace -o trace", 1)]);
        let shell = shell
            .env("LC_ALL", "C")
            .current_dir(directory.path())
            .output()
            .unwrap();
        let ending = match trial.ending {
            // strace dies as the program did.
            Ending::Signaled(signal) => (None, Some(signal)),
            Ending::Exited(code) => (Some(code), None),
            Ending::Hung => panic!("cp hangs: {trial:?}"),
        };
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(
            (shell.status.code(), shell.status.signal()),
            ending,
            "{line}: {trial:?}"
        );
        let message = String::from_utf8_lossy(&shell.stderr);
        assert_eq!(message, trial.message, "{line}");
        let trace = std::fs::read_to_string(directory.path().join("trace")).unwrap();
        assert!(trace.contains("(INJECTED)"), "{line}: {trace}");
    }
}
