//! How much is run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use asm_tracer::sweep::{Case, Report, Sweep, Trial, documented_errors};
use asm_tracer::{Command, Errno, Error, Signal, Stdio, Sysno};
use nix::libc::RLIMIT_NOFILE;

use crate::support::limit::Lowered;
use crate::support::{in_process_of_its_own, open_descriptors};
use crate::{command, run, shell};

fn copy() -> Command {
    command("cp", ["/etc/passwd", "copy"])
}

#[tokio::test]
async fn every_call_fails_with_every_error_that_it_documents() {
    let calls = [Sysno::openat, Sysno::close, Sysno::newfstatat];
    let report = run(Sweep::new(copy()).calls(calls)).await;
    for call in calls {
        let of_call = || report.trials.iter().filter(|trial| trial.case.sysno() == call);
        let most = of_call().map(|trial| trial.case.occurrence()).max().unwrap();
        for occurrence in 1..=most {
            for errno in documented_errors(call) {
                let case = Case::new("0", call, occurrence, *errno);
                assert_eq!(
                    of_call().filter(|trial| trial.case == case).count(),
                    1,
                    "{case}:\n{report}"
                );
            }
        }
    }
    let calls = report
        .trials
        .iter()
        .map(|trial| (trial.case.sysno(), trial.case.occurrence()));
    assert_eq!(
        calls.collect::<std::collections::HashSet<_>>().len() as u64,
        report.baseline.calls
    );
    assert_eq!((report.left_out.by_limit, report.left_out.by_time), (0, 0));
}

#[tokio::test]
async fn a_limit_leaves_the_later_calls_out_and_says_how_many() {
    let sweep = || Sweep::new(copy()).errors([Errno::EIO, Errno::EACCES]);
    let all = run(sweep()).await;
    let some = run(sweep().limit(10)).await;
    assert_eq!(some.trials.len(), 10);
    assert_eq!(some.left_out.by_limit as usize + 10, all.trials.len());
    assert!(
        some.trials.iter().all(|trial| trial.case.occurrence() == 1),
        "{some}"
    );
    let cases = |report: &asm_tracer::sweep::Report| {
        report
            .trials
            .iter()
            .map(|trial| trial.case.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(cases(&some), cases(&all)[..10]);
}

#[tokio::test]
async fn when_the_time_is_up_no_more_is_begun() {
    let report = run(Sweep::new(copy()).time_limit(Duration::ZERO)).await;
    assert!(
        report.trials.is_empty() && report.left_out.by_time > 100,
        "{report}"
    );
}

#[test]
fn there_are_as_many_runs_at_a_time_as_there_is_room_for() {
    in_process_of_its_own(
        "limits::there_are_as_many_runs_at_a_time_as_there_is_room_for",
        || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let calls = [Sysno::openat, Sysno::read, Sysno::close];
                let files = tempfile::tempdir().unwrap();
                std::fs::create_dir_all(files.path().join("a/b/c/d")).unwrap();
                let sweep = |jobs| {
                    let sweep = Sweep::new(copy()).calls(calls).files(files.path());
                    sweep.limit(100).jobs(jobs)
                };
                let verdicts = |report: Report| {
                    let of = |trial: &Trial| (trial.case.to_string(), trial.verdict, trial.steady);
                    report.trials.iter().map(of).collect::<Vec<_>>()
                };
                let one = verdicts(run(sweep(1)).await);
                let _few = Lowered::to(RLIMIT_NOFILE, open_descriptors() as u64 + 100);
                let refused = futures::future::join_all((0..24).map(|_| sweep(1).limit(1).run())).await;
                let refused = refused
                    .into_iter()
                    .find_map(Result::err)
                    .expect("too many at once");
                assert_eq!(refused.errno(), Some(Errno::EMFILE), "{refused:?}");
                assert_eq!(verdicts(run(sweep(64)).await), one);
            });
        },
    );
}

#[tokio::test]
async fn who_waits_is_told_of_each_case_once() {
    let told = Arc::new(AtomicUsize::new(0));
    let teller = Arc::clone(&told);
    let sweep = Sweep::new(copy()).limit(30).on_progress(move |progress| {
        if progress.last.is_some() {
            assert_eq!(progress.done, teller.fetch_add(1, Ordering::Relaxed) + 1);
            assert_eq!(progress.total, 30);
        }
    });
    let report = run(sweep).await;
    assert_eq!((told.load(Ordering::Relaxed), report.trials.len()), (30, 30));
}

#[tokio::test]
async fn a_sweep_that_can_not_be_meant_is_refused() {
    let refused = async |sweep: Sweep| match sweep.run().await {
        Err(error) => error,
        Ok(report) => panic!("{report}"),
    };
    let mut with_streams = copy();
    with_streams.stdout(Stdio::null());
    let mut elsewhere = copy();
    elsewhere.current_dir("/");
    let mut confined = copy();
    confined.landlock(std::fs::File::open("/dev/null").unwrap());
    for command in [with_streams, elsewhere, confined] {
        let error = refused(Sweep::new(command)).await;
        assert!(matches!(error, Error::InvalidCommand(_)), "{error:?}");
    }
    let mut filtered = copy();
    filtered.filter(asm_tracer::Filter::new().trap(Sysno::read));
    let error = refused(Sweep::new(filtered)).await;
    assert!(matches!(error, Error::InvalidPlan(_)), "{error:?}");
    let error = refused(Sweep::new(Command::new("/no/such/program"))).await;
    assert_eq!(error.errno(), Some(Errno::ENOENT), "{error:?}");
    let error = refused(Sweep::new(copy()).files("/no/such/directory")).await;
    assert!(error.to_string().contains("/no/such/directory"), "{error:?}");
}

#[tokio::test]
async fn a_case_has_one_name_and_names_that_mean_none_are_refused() {
    for name in ["write#3=ENOSPC", "0.1:openat#12=EACCES", "0.2.1:read#1=EIO"] {
        assert_eq!(name.parse::<Case>().unwrap().to_string(), name);
    }
    assert_eq!(
        "write=EIO".parse::<Case>().unwrap(),
        Case::new("0", Sysno::write, 1, Errno::EIO)
    );
    for name in [
        "",
        "write",
        "write#3",
        "write#0=EIO",
        "write#x=EIO",
        "wrote#1=EIO",
        "write#1=ENONE",
        "#1=EIO",
    ] {
        let error = name.parse::<Case>().unwrap_err();
        assert!(matches!(error, Error::InvalidCase { .. }), "{name}: {error:?}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

/// Programs that end by a signal, read, and have files.
#[tokio::test]
async fn each_run_has_the_same_files_and_input() {
    let files = tempfile::tempdir().unwrap();
    std::fs::create_dir(files.path().join("sub")).unwrap();
    std::fs::write(files.path().join("sub/file"), "from the directory\n").unwrap();
    let script = "cat sub/file - >sub/both; rm sub/file; cat sub/both; kill -9 $$";
    let sweep = Sweep::new(shell(script))
        .files(files.path())
        .stdin("from the input\n");
    let report = run(sweep.calls(Sysno::unlinkat).errors([Errno::EACCES])).await;
    assert_eq!(
        report.baseline.ending,
        asm_tracer::sweep::Ending::Signaled(Signal::SIGKILL as i32)
    );
    assert!(files.path().join("sub/file").exists() && !files.path().join("sub/both").exists());
    assert_eq!(report.trials.len(), 1, "{report}");
    assert_eq!(report.trials[0].files[0].path, "sub/file", "{report}");
}
