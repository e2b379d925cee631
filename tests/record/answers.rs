//! Each answer as it is recorded.

use std::path::Path;
use std::time::Duration;

use asm_tracer::emulate::Open;
use asm_tracer::record::{Answer, Recorded};
use asm_tracer::{Command, Delivery, Errno, Error, Filter, InstallFd, Observed, Stdio, Supervisor, Sysno};

use crate::support::target::{command, on_each_runtime};
use crate::support::within;
use crate::{builder, finished, python, reader, to_channel};

/// Serves one call, and gives the answer that is recorded, what was observed, and what the program printed.
async fn one(
    mut command: Command,
    filter: Filter,
    wanted: &str,
    serve: impl AsyncFnOnce(Recorded),
) -> (Answer, Option<Observed>, Vec<u8>) {
    let (recorder, trace) = to_channel(builder());
    let mut supervisor = Supervisor::new();
    command.filter(filter).stdout(Stdio::piped());
    let child = supervisor.spawn(&mut command).await.unwrap();
    let output = tokio::spawn(child.wait_with_output());
    let mut serve = Some(serve);
    while let Some(call) = within("a call", supervisor.next()).await {
        let call = within("the record", recorder.begin(call)).await;
        let path = call.read_path(call.args()[1] as u64);
        if path.is_ok_and(|path| path.ends_with(wanted)) && serve.is_some() {
            within("the answer", serve.take().unwrap()(call)).await;
        } else {
            call.continue_syscall().unwrap();
        }
    }
    let output = within("the output", output).await.unwrap().unwrap();
    let mut records = finished(recorder, trace).await;
    records.retain(|record| record.paths().any(|path| path.ends_with(wanted)));
    let [record] = &records[..] else {
        panic!("{records:?}")
    };
    assert_eq!(record.observed.is_some(), record.ran.is_some());
    (record.answer, record.observed, output.stdout)
}

/// A program that prints what its call returned.
fn prints() -> Command {
    python("import ctypes; print(ctypes.CDLL(None).openat(-100, b'/nowhere/file', 0), end='')")
}

async fn answered(serve: impl AsyncFnOnce(Recorded)) -> (Answer, Option<Observed>, String) {
    let filter = Filter::new().trap(Sysno::openat);
    let (answer, observed, printed) = one(prints(), filter, "nowhere/file", serve).await;
    (answer, observed, String::from_utf8(printed).unwrap())
}

#[tokio::test]
async fn plain_answers() {
    let (answer, ..) =
        answered(async |call| assert!(call.error(Errno::EMFILE).unwrap().is_delivered())).await;
    assert_eq!(answer, Answer::Failed(Errno::EMFILE));
    let (answer, _, printed) = answered(async |call| assert!(call.respond(77).unwrap().is_delivered())).await;
    assert_eq!((answer, &*printed), (Answer::Returned(77), "77"));
    let (answer, _, printed) =
        answered(async |call| assert!(call.continue_syscall().unwrap().is_delivered())).await;
    assert_eq!((answer, &*printed), (Answer::Continued, "-1"));
    let (answer, _, printed) = answered(async |call| drop(call)).await;
    assert_eq!((answer, &*printed), (Answer::Dropped, "-1"));
    let (answer, _, printed) = answered(async |call| assert!(call.interrupt().unwrap().is_delivered())).await;
    assert_eq!((answer, &*printed), (Answer::Interrupted, "-1"));
    let give = async |call: Recorded| {
        let file = std::fs::File::open("/etc/passwd").unwrap();
        let given = call.respond_with_fd(&file, InstallFd::new()).unwrap();
        assert_eq!(given, Delivery::Delivered);
    };
    let (answer, _, printed) = answered(give).await;
    assert_eq!((answer, &*printed), (Answer::Descriptor, "3"));
}

#[tokio::test]
async fn answers_that_let_the_call_run_in_another_way() {
    let (answer, observed, printed) = answered(async |call| {
        assert_eq!(
            call.continue_and_observe().await.unwrap(),
            Observed::Returned(-(Errno::ENOENT as i64))
        );
    })
    .await;
    assert_eq!((answer, &*printed), (Answer::Continued, "-1"));
    assert_eq!(observed.unwrap().result(), Some(Err(Errno::ENOENT)));

    let (answer, observed, printed) = answered(async |call| {
        let args = call.args();
        let rewritten = call.continue_with(args).data(1, b"/etc/passwd\0").observe();
        assert_eq!(rewritten.await.unwrap(), Observed::Returned(3));
    })
    .await;
    assert!(matches!(answer, Answer::Rewritten { nr: 257, .. }), "{answer:?}");
    assert_eq!((observed, &*printed), (Some(Observed::Returned(3)), "3"));

    let (answer, observed, _) = answered(async |call| {
        let as_other = call.continue_as(Sysno::getpid, [1, 2, 3, 4, 5, 6]);
        as_other.await.unwrap();
    })
    .await;
    let nr = Sysno::getpid as i64;
    let args = [1, 2, 3, 4, 5, 6];
    assert_eq!((answer, observed), (Answer::Rewritten { nr, args }, None));

    let (answer, _, printed) = answered(async |call| {
        let open = Open::read(&call).await.unwrap().unwrap();
        let open = open.with_path("/etc/passwd");
        call.answer_with(|call| open.answer(call)).await.unwrap();
    })
    .await;
    assert_eq!((answer, &*printed), (Answer::Elsewhere, "3"));
}

#[tokio::test]
async fn a_refused_answer_leaves_the_call_and_its_record_open() {
    let (answer, _, printed) = answered(async |call| {
        let refused = call.respond(-1).unwrap_err();
        assert!(matches!(refused.error, Error::InvalidAnswer(_)));
        let call = refused.call;
        assert_eq!(call.sysno(), Some(Sysno::openat));
        let args = call.args();
        let refused = call.continue_with(args).data(6, b"x").await.unwrap_err();
        refused.call.respond(5).unwrap();
    })
    .await;
    assert_eq!((answer, &*printed), (Answer::Returned(5), "5"));
    let given_up = async |call: Recorded| {
        let error: Error = call.respond(-1).unwrap_err().into();
        assert!(matches!(error, Error::InvalidAnswer(_)));
    };
    assert_eq!(answered(given_up).await.0, Answer::Dropped);
}

/// With a bare listener.
#[test]
fn calls_of_a_target_that_dies_are_gone() {
    on_each_runtime(async || {
        let (recorder, trace) = to_channel(builder());
        let mut command = command("dies", "int main(void) { for (;;) trap(1, 2, 3, 4); }");
        let (mut child, mut listener) = command.spawn().await.unwrap();
        let call = within("a call", listener.next()).await.unwrap();
        let held = within("the record", recorder.begin(call)).await;
        within("the death", child.kill()).await.unwrap();
        within("its end", held.gone()).await.unwrap();
        assert_eq!(held.continue_syscall().unwrap(), Delivery::Gone);
        assert!(within("the end", listener.next()).await.is_none());
        let records = finished(recorder, trace).await;
        let [record] = &records[..] else {
            panic!("{records:?}")
        };
        assert_eq!(record.answer, Answer::Gone);
        assert_eq!(record.args[..4], [1, 2, 3, 4]);
        assert_eq!((record.sysno(), record.memory.len()), (Some(Sysno::getppid), 0));
    });
}

/// Neither a runtime's clock nor several threads are needed.
#[test]
fn a_runtime_without_a_clock_does() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_io().build().unwrap();
    runtime.block_on(async {
        let (recorder, trace) = to_channel(builder().queue(1));
        let mut supervisor = Supervisor::new();
        let mut command = Command::new("cat");
        command.arg("/etc/passwd").stdout(Stdio::null());
        command.filter(Filter::new().trap(Sysno::openat));
        let mut child = supervisor.spawn(&mut command).await.unwrap();
        while let Some(call) = supervisor.next().await {
            recorder.pass(call).await.unwrap();
        }
        assert!(child.wait().await.unwrap().success());
        let finished = recorder.finish_within(Duration::from_secs(60)).await;
        let lines = trace.iter().count() as u64;
        assert!(finished.written > 0 && lines > finished.written);
    });
}

#[tokio::test]
async fn a_call_that_is_dropped_before_it_was_looked_at_is_recorded_as_that() {
    let (recorder, trace) = to_channel(builder());
    let mut supervisor = Supervisor::new();
    let mut command = reader();
    let mut child = supervisor.spawn(&mut command).await.unwrap();
    let mut count = 0;
    while let Some(call) = within("a call", supervisor.next()).await {
        let asked = call.read_path(call.args()[1] as u64).unwrap();
        count += 1;
        if asked == Path::new("/etc/passwd") {
            drop(recorder.begin(call));
        } else {
            recorder.pass(call).await.unwrap();
        }
    }
    assert!(!child.wait().await.unwrap().success());
    let records = finished(recorder, trace).await;
    assert_eq!(records.len(), count);
    let dropped: Vec<_> = records
        .iter()
        .filter(|record| record.answer == Answer::Dropped)
        .map(|record| record.memory.len())
        .collect();
    assert_eq!(dropped, [0]);
}
