//! Real programs.

use asm_tracer::Errno;
use asm_tracer::sweep::{Report, Sweep, Verdict};

use crate::{command, run, shell};

/// All but what nobody can do anything about: errors of memory in the dynamic loader.
fn check(report: &Report, least: usize) {
    assert!(report.trials.len() >= least, "{report}");
    assert_eq!(report.count(Verdict::NotReached), 0, "{report}");
    assert!(
        report.count(Verdict::Same) > 0 && report.count(Verdict::CleanFailure) > 0,
        "{report}"
    );
    assert_eq!(report.baseline.unstable_calls, 0, "{report}");
    assert!(report.baseline.volatile.is_empty(), "{report}");
}

#[tokio::test]
async fn cp() {
    let report = run(Sweep::new(command("cp", ["/etc/passwd", "copy"])).limit(400)).await;
    check(&report, 400);
    assert_eq!(
        report.count(Verdict::SilentFailure) + report.count(Verdict::Hang),
        0,
        "{report}"
    );
}

#[tokio::test]
async fn tar() {
    let files = tempfile::tempdir().unwrap();
    for name in ["one", "two"] {
        std::fs::write(files.path().join(name), name).unwrap();
    }
    let tar = command("tar", ["--mtime=@0", "-cf", "archive.tar", "one", "two"]);
    check(&run(Sweep::new(tar).files(files.path()).limit(300)).await, 300);
}

#[tokio::test]
async fn git() {
    let script = "git init -q . && echo x >file && git add file && git -c user.name=a -c user.email=b commit -qm message";
    let mut command = shell(script);
    for name in ["GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"] {
        command.env(name, "2000-01-01T00:00:00Z");
    }
    command.env("GIT_CONFIG_NOSYSTEM", "1");
    let report = run(Sweep::new(command).errors([Errno::EIO, Errno::ENOSPC]).limit(60)).await;
    assert_eq!(report.trials.len(), 60, "{report}");
    // The times and inodes of files.
    assert_eq!(report.baseline.volatile, [".git/index"], "{report}");
    assert!(report.baseline.threads > 2, "{report}");
    assert!(report.count(Verdict::CleanFailure) > 10, "{report}");
}

#[tokio::test]
async fn a_pipeline() {
    let report = run(Sweep::new(shell("ls /etc | sort -r | head -n 3"))
        .errors([Errno::EIO])
        .limit(60))
    .await;
    assert_eq!(report.baseline.threads, 4, "{report}");
    assert!(
        report.trials.iter().any(|trial| trial.case.lineage() == "0.2"),
        "{report}"
    );
}
