//! Sweeps that are broken off and go on.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use asm_tracer::sweep::{Report, Sweep, Verdict};
use asm_tracer::{Command, Errno, Error, Sysno};

use crate::support::within;
use crate::{begun, command, run};

fn copy() -> Command {
    command("cp", ["/etc/passwd", "copy"])
}

fn sweep(journal: &Path) -> Sweep {
    Sweep::new(copy()).limit(60).journal(journal)
}

fn cases(report: &Report) -> Vec<(String, String)> {
    let trials = report.trials.iter();
    trials
        .map(|trial| (trial.case.to_string(), trial.verdict.to_string()))
        .collect()
}

#[tokio::test]
async fn a_sweep_goes_on_where_it_was_broken_off() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    drop(begun(sweep(&path), 20).await);
    let resumed = within("the rest", async {
        loop {
            // What was dropped may hold the journal for as long as it takes to write a line.
            match sweep(&path).run().await {
                Err(Error::InvalidJournal { .. }) => tokio::task::yield_now().await,
                other => break other.unwrap(),
            }
        }
    })
    .await;
    assert!((20..60).contains(&resumed.resumed), "{}", resumed.resumed);
    assert_eq!(resumed.trials.len(), 60);
    let whole = run(Sweep::new(copy()).limit(60)).await;
    assert_eq!(cases(&resumed), cases(&whole));
    let again = run(sweep(&path)).await;
    assert_eq!((again.resumed, &again.trials), (60, &resumed.trials));
    // More of the same.
    let more = run(Sweep::new(copy()).limit(70).journal(&path)).await;
    assert_eq!((more.resumed, more.trials.len()), (60, 70));
}

#[tokio::test]
async fn a_line_that_was_torn_off_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let whole = run(sweep(&path)).await;
    let journal = std::fs::read(&path).unwrap();
    let header = journal.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for length in [
        0,
        1,
        header / 2,
        header - 1,
        header,
        header + 10,
        journal.len() - 1,
    ] {
        std::fs::write(&path, &journal[..length]).unwrap();
        let resumed = run(sweep(&path)).await;
        assert_eq!(cases(&resumed), cases(&whole), "{length}");
        let lines = std::fs::read_to_string(&path).unwrap();
        assert_eq!(lines.lines().count(), 61, "{length}");
    }
}

#[tokio::test]
async fn another_journal_and_what_is_none_are_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    run(Sweep::new(command("cp", ["/etc/group", "copy"]))
        .limit(1)
        .journal(&path))
    .await;
    let other = std::fs::read(&path).unwrap();
    for contents in [other.as_slice(), b"a letter", b"a letter\n", b"{}\n", b"\xff\xfe"] {
        std::fs::write(&path, contents).unwrap();
        let error = sweep(&path).run().await.unwrap_err();
        assert!(
            matches!(&error, Error::InvalidJournal { path: named, .. } if *named == path),
            "{error:?}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), contents);
    }
    let error = sweep(Path::new("/no/such/directory/journal"))
        .run()
        .await
        .unwrap_err();
    assert!(matches!(error, Error::InvalidJournal { .. }), "{error:?}");
}

#[tokio::test]
async fn two_sweeps_do_not_share_a_journal() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let running = begun(sweep(&path), 0).await;
    let error = sweep(&path).run().await.unwrap_err();
    assert!(matches!(error, Error::InvalidJournal { .. }), "{error:?}");
    assert_eq!(within("the first", running).await.unwrap().trials.len(), 60);
}

/// Who has mended a program wants to know what it does now.
#[tokio::test]
async fn the_journal_of_a_program_that_has_changed_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let script = directory.path().join("script");
    let write = |text| std::fs::write(&script, text).unwrap();
    let in_argument = || command("/bin/bash", [&script]);
    let in_itself = || command::<&str>(&script, []);
    for program in [&in_argument as &dyn Fn() -> Command, &in_itself] {
        write("#!/bin/bash\necho careless >file || true\n");
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        let sweep = || {
            Sweep::new(program())
                .calls(Sysno::write)
                .errors([Errno::ENOSPC])
                .journal(&path)
        };
        let careless = run(sweep()).await;
        assert_eq!(careless.count(Verdict::SilentFailure), 1, "{careless}");
        assert_eq!(run(sweep()).await.resumed, 1);
        write("#!/bin/bash\necho careful >file || exit 1\n");
        let error = within("the refusal", sweep().run()).await.unwrap_err();
        assert!(
            matches!(&error, Error::InvalidJournal { why, .. } if why.contains("script has changed")),
            "{error:?}"
        );
        std::fs::remove_file(&path).unwrap();
        let careful = run(sweep()).await;
        assert_eq!(careful.count(Verdict::CleanFailure), 1, "{careful}");
        std::fs::remove_file(&path).unwrap();
    }
}
