//! Destinations that are slow, stall, fail or panic.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use asm_tracer::record::{Answer, Builder, Finished, Line, Recorder};
use asm_tracer::{Child, Listener};
use futures::FutureExt;
use tokio::io::AsyncWriteExt;

use crate::support::target::{command, next, succeeded};
use crate::support::{until, within};
use crate::{builder, finished, to_channel};

/// Makes a call for each byte, and says which one it is.
const COUNTS: &str = "int main(void) { for (long i = 0; told(); i++) trap(i, 0, 0, 0); return 0; }";

async fn counting() -> (Child, Listener) {
    within("the start", command("counts", COUNTS).spawn())
        .await
        .unwrap()
}

/// Has it make so many calls, and lets them run.
async fn calls(count: usize, child: &mut Child, listener: &mut Listener, recorder: &Recorder) {
    let stdin = child.stdin.as_mut().unwrap();
    stdin.write_all(&vec![b'x'; count]).await.unwrap();
    for _ in 0..count {
        recorder.pass(next(listener).await).await.unwrap();
    }
}

async fn ends(mut child: Child, listener: Listener) {
    drop(child.stdin.take());
    succeeded(child, listener).await;
}

/// Stalls at its first line until it is told to go on.
fn stalling(builder: Builder) -> (Recorder, Sender<()>, Receiver<Line>) {
    let (go_on, told) = channel();
    let (lines, trace) = channel();
    let mut stalls = true;
    let recorder = builder.to(move |line| {
        if std::mem::take(&mut stalls) {
            let _ = told.recv();
        }
        lines.send(line).map_err(io::Error::other)
    });
    (recorder.unwrap(), go_on, trace)
}

/// Fails unless the trace has each of so many calls, or says that it is missing right where it is.
fn assert_whole(trace: impl IntoIterator<Item = Line>, calls: u64) -> (u64, Vec<u64>) {
    let (mut at, mut written, mut gaps) = (0, 0, Vec::new());
    let mut ended = false;
    for line in trace {
        assert!(!ended);
        match line {
            Line::Call(record) => {
                assert_eq!((record.args[0] as u64, record.answer), (at, Answer::Continued));
                (at, written) = (at + 1, written + 1);
            }
            Line::Dropped(gap) => {
                assert!(gap.calls > 0);
                at += gap.calls;
                gaps.push(gap.calls);
            }
            Line::End(sums) => {
                ended = true;
                assert_eq!((sums.written, sums.dropped), (written, gaps.iter().sum()));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(ended && at == calls, "{at} of {calls}");
    (written, gaps)
}

#[tokio::test]
async fn a_destination_that_stalls_costs_records_and_no_time() {
    let grace = Duration::from_millis(300);
    let (recorder, go_on, trace) = stalling(builder().queue(4).grace(grace));
    let (mut child, mut listener) = counting().await;
    let start = Instant::now();
    calls(200, &mut child, &mut listener, &recorder).await;
    // As many graces are a minute.
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let dropped = recorder.dropped();
    assert!((150..200).contains(&dropped), "{dropped}");

    // What comes when it goes on again comes after the gap.
    go_on.send(()).unwrap();
    until("the queue is empty", || recorder.written() == 200 - dropped).await;
    calls(1, &mut child, &mut listener, &recorder).await;
    until("one more is written", || recorder.written() == 201 - dropped).await;
    ends(child, listener).await;
    let finished = within("the trace", recorder.finish()).await;
    assert_eq!((finished.written, finished.dropped), (201 - dropped, dropped));
    let (written, gaps) = assert_whole(trace, 201);
    assert_eq!(written, finished.written);
    assert!(!gaps.is_empty());
}

#[tokio::test]
async fn a_trace_is_given_up_if_its_destination_stalls_for_ever() {
    let (recorder, go_on, trace) = stalling(builder().queue(10).grace(Duration::ZERO));
    let (mut child, mut listener) = counting().await;
    calls(50, &mut child, &mut listener, &recorder).await;
    ends(child, listener).await;
    let clone = recorder.clone();
    let finished = within("the end", recorder.finish_within(Duration::from_millis(50))).await;
    assert_eq!(finished.error.unwrap().kind(), io::ErrorKind::TimedOut);
    assert_eq!((finished.written, finished.dropped), (0, 50));
    // Others are told as well, without waiting.
    let again = within("the end", clone.finish()).await;
    assert_eq!(
        (again.written, again.dropped, again.error.is_none()),
        (0, 50, true)
    );
    // The thread ends when it is let go.
    drop(go_on);
    assert!(trace.iter().count() <= 1);
}

/// Once the writer gets on, it is waited for again.
#[tokio::test]
async fn a_destination_that_has_stalled_has_its_grace_again_when_it_gets_on() {
    let grace = Duration::from_millis(50);
    let ((begins, begun), (go_on, told)) = (channel(), channel::<()>());
    let recorder = builder().queue(1).grace(grace).to(move |line| {
        if let Line::Call(_) = line {
            let _ = begins.send(());
            let _ = told.recv();
        }
        Ok(())
    });
    let recorder = recorder.unwrap();
    let (mut child, mut listener) = counting().await;
    for written in [2, 4] {
        // One that is being written, one that waits, and one for which there is no room.
        calls(1, &mut child, &mut listener, &recorder).await;
        until("it is being written", || begun.try_recv().is_ok()).await;
        calls(1, &mut child, &mut listener, &recorder).await;
        let (start, dropped) = (Instant::now(), recorder.dropped());
        calls(1, &mut child, &mut listener, &recorder).await;
        assert_eq!(recorder.dropped(), dropped + 1);
        assert!(start.elapsed() >= grace);
        go_on.send(()).unwrap();
        until("the next one is being written", || begun.try_recv().is_ok()).await;
        go_on.send(()).unwrap();
        until("both are written", || recorder.written() == written).await;
    }
    drop(go_on);
    ends(child, listener).await;
    let finished = within("the trace", recorder.finish()).await;
    assert_eq!((finished.written, finished.dropped), (4, 2));
}

#[tokio::test]
async fn a_recorder_that_is_dropped_leaves_a_whole_trace() {
    let (recorder, go_on, trace) = stalling(builder().grace(Duration::MAX).look_limit(Duration::MAX));
    let (mut child, mut listener) = counting().await;
    calls(9, &mut child, &mut listener, &recorder).await;
    child.stdin.as_mut().unwrap().write_all(b"x").await.unwrap();
    let held = recorder.begin(next(&mut listener).await).await;
    drop(recorder);
    go_on.send(()).unwrap();
    // As long as a call is held, the trace goes on.
    held.continue_syscall().unwrap();
    ends(child, listener).await;
    let lines = tokio::task::spawn_blocking(move || trace.iter().collect::<Vec<_>>());
    let lines = within("the end of the trace", lines).await.unwrap();
    assert_eq!(assert_whole(lines, 10), (10, vec![]));
}

#[tokio::test]
async fn a_slow_destination_slows_the_program_and_loses_nothing() {
    let (lines, trace) = channel();
    let recorder = builder().queue(1).grace(Duration::from_secs(50)).to(move |line| {
        std::thread::sleep(Duration::from_millis(1));
        lines.send(line).map_err(io::Error::other)
    });
    let recorder = recorder.unwrap();
    let (mut child, mut listener) = counting().await;
    calls(100, &mut child, &mut listener, &recorder).await;
    ends(child, listener).await;
    let finished = within("the trace", recorder.finish()).await;
    assert_eq!((finished.written, finished.dropped), (100, 0));
    assert_eq!(assert_whole(trace, 100), (100, vec![]));
}

#[tokio::test]
async fn a_destination_that_fails_is_told_once_and_the_program_goes_on() {
    for panics in [false, true] {
        let mut lines = 0;
        let recorder = builder().to(move |_| {
            lines += 1;
            match lines {
                3 if panics => panic!("the destination, on purpose"),
                3 => Err(io::ErrorKind::StorageFull.into()),
                4.. => panic!("used after its failure"),
                _ => Ok(()),
            }
        });
        let recorder = recorder.unwrap();
        let (mut child, mut listener) = counting().await;
        calls(20, &mut child, &mut listener, &recorder).await;
        ends(child, listener).await;
        let other = recorder.clone();
        let Finished {
            written,
            dropped,
            error,
            ..
        } = within("the end", recorder.finish()).await;
        assert_eq!((written, dropped), (2, 18));
        let kind = if panics {
            io::ErrorKind::Other
        } else {
            io::ErrorKind::StorageFull
        };
        assert_eq!(error.unwrap().kind(), kind);
        let other = within("the end", other.finish()).await;
        assert_eq!(
            (other.written, other.dropped, other.error.is_none()),
            (2, 18, true)
        );
    }
}

#[tokio::test]
async fn calls_that_are_held_have_their_places_and_may_be_answered_after_the_end() {
    let (recorder, trace) = to_channel(builder().queue(2).grace(Duration::from_secs(50)));
    let (mut children, mut held) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let (mut child, mut listener) = counting().await;
        child.stdin.as_mut().unwrap().write_all(b"xx").await.unwrap();
        held.push(recorder.begin(next(&mut listener).await).await);
        children.push((child, listener));
    }
    // There is no room for a third, which waits and is dropped meanwhile.
    let (child, mut listener) = {
        let (mut child, listener) = counting().await;
        child.stdin.as_mut().unwrap().write_all(b"x").await.unwrap();
        (child, listener)
    };
    let third = next(&mut listener).await;
    assert!(recorder.begin(third).now_or_never().is_none());
    ends(child, listener).await;
    assert_eq!((recorder.written(), recorder.dropped()), (0, 1));

    held.pop().unwrap().continue_syscall().unwrap();
    let (child, mut listener) = children.pop().unwrap();
    recorder.pass(next(&mut listener).await).await.unwrap();
    ends(child, listener).await;
    let clone = recorder.clone();
    let finished = within("the end", recorder.finish()).await;
    assert_eq!((finished.written, finished.dropped), (2, 1));

    held.pop().unwrap().continue_syscall().unwrap();
    let (child, mut listener) = children.pop().unwrap();
    within("an answer", clone.pass(next(&mut listener).await))
        .await
        .unwrap();
    ends(child, listener).await;
    assert_eq!((clone.written(), clone.dropped()), (2, 3));
    assert_eq!(trace.iter().count(), 4);
}

#[tokio::test]
async fn a_call_that_is_watched_leaves_its_place_to_others() {
    // One that blocks, in a trace with a single place.
    let (recorder, trace) = to_channel(builder().queue(1).grace(Duration::from_secs(50)));
    let reads = "int main(void) { int fds[2]; check(!pipe(fds), \"pipe\"); pthread_t thread;
        extern void *write_to(void *); check(!pthread_create(&thread, 0, write_to, &fds[1]), \"thread\");
        char byte; check(read(fds[0], &byte, 1) == 1, \"read\"); return 0; }
        void *write_to(void *end) { trap(1, 0, 0, 0); check(write(*(int *)end, \"x\", 1) == 1, \"write\"); return 0; }";
    let mut command = command("reads_a_pipe", reads);
    let own_pipe = asm_tracer::filter::arg(2).eq(1);
    let filter = crate::support::target::filter();
    command.filter(filter.trap_if(asm_tracer::Sysno::read, [own_pipe]));
    let (child, mut listener) = within("the start", command.spawn()).await.unwrap();
    let (mut watched, mut other) = (None, None);
    for _ in 0..2 {
        let call = next(&mut listener).await;
        match call.sysno() {
            Some(asm_tracer::Sysno::read) => watched = Some(call),
            _ => other = Some(call),
        }
    }
    let recording = recorder.clone();
    let watched = recorder.begin(watched.unwrap()).await;
    let watching = tokio::spawn(watched.continue_and_observe());
    within("the other one", recording.pass(other.unwrap()))
        .await
        .unwrap();
    let observed = within("the result", watching).await.unwrap().unwrap();
    assert_eq!(observed, asm_tracer::Observed::Returned(1));
    succeeded(child, listener).await;
    drop(recording);
    let records = finished(recorder, trace).await;
    let [first, last] = &records[..] else {
        panic!("{records:?}")
    };
    assert_eq!((first.args[0], last.observed), (1, Some(observed)));
    assert!(last.ran > Some(Duration::ZERO));
}

/// Many tasks, children and threads at once, and less room than calls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_is_written_or_counted_however_many_there_are_at_once() {
    const THREADS: &str = "
        static void *calls(void *of) { (void)of; for (int i = 0; i < 50; i++) trap(i, 0, 0, 0); return 0; }
        int main(void) {
            pthread_t threads[4];
            for (int i = 0; i < 4; i++) check(!pthread_create(&threads[i], 0, calls, 0), \"thread\");
            for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
            return 0;
        }";
    let (recorder, trace) = to_channel(builder().queue(3).grace(Duration::from_micros(50)));
    let mut supervisor = asm_tracer::Supervisor::new();
    let mut children = Vec::new();
    for _ in 0..4 {
        let child = supervisor.spawn(&mut command("threads", THREADS)).await.unwrap();
        children.push(child);
    }
    let mut tasks = tokio::task::JoinSet::new();
    while let Some(call) = within("a call", supervisor.next()).await {
        let recorder = recorder.clone();
        tasks.spawn(async move { recorder.pass(call).await.unwrap() });
    }
    within("the answers", tasks.join_all()).await;
    for mut child in children {
        assert!(within("the end", child.wait()).await.unwrap().success());
    }
    let finished = within("the trace", recorder.finish()).await;
    assert_eq!(finished.written + finished.dropped, 4 * 4 * 50);
    let (mut written, mut dropped) = (0, 0);
    for line in trace {
        match line {
            Line::Call(_) => written += 1,
            Line::Dropped(gap) => dropped += gap.calls,
            Line::End(sums) => assert_eq!((sums.written, sums.dropped), (written, dropped)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((written, dropped), (finished.written, finished.dropped));
}
