//! Waiting on the spot for the next call of a lone listener: what else goes on meanwhile.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use asm_tracer::{Child, Listener, Sysno};
use nix::sys::signal::Signal;
use support::target::{command, frozen_threads, killable, on_each_runtime, threads, waits_in};
use support::{BOUND, until, within};
use tokio::io::{AsyncBufReadExt, BufReader};

/// Makes a call every `argv[1]` microseconds, counted from the answer, until it is answered with 0.
const PACED: &str = r#"
#include <time.h>
static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}
int main(int argc, char **argv) {
    long pause = atol(argv[1]);
    while (trap(1, 0, 0, 0) != 0) {
        if (pause >= 1000)
            usleep(pause);
        else
            for (long long end = now() + pause * 1000; now() < end; ) { }
    }
}
"#;

async fn paced(pause: u32) -> (Child, Listener) {
    let mut command = command("paced", PACED);
    command.arg(pause.to_string()).spawn().await.unwrap()
}

/// Serves a target until `over`, and ends it; gives how many calls there were.
async fn serve(mut listener: Listener, mut child: Child, over: Arc<AtomicBool>) -> usize {
    let mut calls = 0;
    while let Some(call) = within("a call", listener.next()).await {
        calls += 1;
        let more = !over.load(Ordering::Relaxed);
        assert!(call.respond(more.into()).unwrap().is_delivered());
    }
    assert!(within("an exit", child.wait()).await.unwrap().success());
    calls
}

/// What the machine itself delays a thread by, from another process's work: the test's own share is what is left.
fn cpu_delay() -> Duration {
    // Nanoseconds on a CPU, nanoseconds ready to run and without one, turns.
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let waited = statistics.split_whitespace().nth(1);
    Duration::from_nanos(waited.and_then(|number| number.parse().ok()).unwrap_or(0))
}

/// The longest time between two turns of a task on the same runtime of one thread.
async fn longest_gap(turns: impl AsyncFn(), over: Arc<AtomicBool>) -> Duration {
    let start = Instant::now();
    let (mut longest, mut last, mut delayed) = (Duration::ZERO, start, cpu_delay());
    while start.elapsed() < Duration::from_millis(600) {
        turns().await;
        let (now, delay) = (Instant::now(), cpu_delay());
        longest = longest.max((now - last).saturating_sub(delay - delayed));
        (last, delayed) = (now, delay);
    }
    over.store(true, Ordering::Relaxed);
    longest
}

/// Serves targets of these paces, each in a task of its own, beside a task that takes turns.
async fn gap_beside(paces: &[u32], turns: impl AsyncFn()) -> (Duration, Vec<usize>) {
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for pace in paces {
        let (child, listener) = paced(*pace).await;
        tasks.push(tokio::spawn(serve(listener, child, Arc::clone(&over))));
    }
    let longest = longest_gap(turns, over).await;
    let mut calls = Vec::new();
    for task in tasks {
        calls.push(task.await.unwrap());
    }
    (longest, calls)
}

const PACES: [&[u32]; 5] = [&[0], &[60], &[10_000], &[0, 0], &[0, 60, 60, 10_000]];

#[tokio::test]
async fn a_timer_is_never_held_up_for_long() {
    for paces in PACES {
        let tick = async || tokio::time::sleep(Duration::from_millis(1)).await;
        let (longest, calls) = gap_beside(paces, tick).await;
        assert!(
            longest < Duration::from_millis(100),
            "{paces:?}: {longest:?}, {calls:?}"
        );
    }
}

#[tokio::test]
async fn a_task_that_always_has_something_to_do_is_never_held_up_for_long() {
    for paces in PACES {
        let (longest, calls) = gap_beside(paces, async || tokio::task::yield_now().await).await;
        assert!(
            longest < Duration::from_millis(100),
            "{paces:?}: {longest:?}, {calls:?}"
        );
    }
}

#[tokio::test]
async fn busy_listeners_in_tasks_of_their_own_all_get_on() {
    let (_, calls) = gap_beside(&[0, 0, 0], async || {
        tokio::time::sleep(Duration::from_millis(1)).await
    })
    .await;
    let (least, most) = (calls.iter().min().unwrap(), calls.iter().max().unwrap());
    assert!(*least >= 100 && least * 20 >= *most, "{calls:?}");
}

/// Answers calls that come one at a time, so that the listener has begun to wait on the spot.
async fn warmed(pause: u32) -> (Child, Listener) {
    let (child, mut listener) = paced(pause).await;
    for _ in 0..200 {
        let call = within("a call", listener.next()).await.unwrap();
        assert!(call.respond(1).unwrap().is_delivered());
    }
    (child, listener)
}

// T4, T5
#[test]
fn the_stream_ends_promptly_after_a_wait_on_the_spot() {
    on_each_runtime(|| async {
        for _ in 0..20 {
            let (mut child, mut listener) = warmed(0).await;
            let last = within("a call", listener.next()).await.unwrap();
            assert!(last.respond(0).unwrap().is_delivered());
            let end = tokio::time::timeout(BOUND, listener.next()).await;
            assert!(end.expect("the end").is_none());
            // For good.
            assert!(within("the end again", listener.next()).await.is_none());
            assert!(within("an exit", child.wait()).await.unwrap().success());
        }
    });
}

#[test]
fn a_death_ends_the_stream_after_a_wait_on_the_spot() {
    on_each_runtime(|| async {
        for _ in 0..20 {
            let (mut child, mut listener) = warmed(0).await;
            child.start_kill().unwrap();
            while let Some(call) = within("the end", listener.next()).await {
                let _ = call.respond(1).unwrap();
            }
            assert!(!within("an exit", child.wait()).await.unwrap().success());
        }
    });
}

#[test]
fn a_call_that_another_thread_answers_is_followed_by_the_next_one() {
    on_each_runtime(|| async {
        let (mut child, mut listener) = warmed(0).await;
        let (hand, taken) = std::sync::mpsc::channel::<(asm_tracer::Notification, i64)>();
        let answering = std::thread::spawn(move || {
            for (call, value) in taken {
                assert!(call.respond(value).unwrap().is_delivered());
            }
        });
        for left in (0..500).rev() {
            let call = within("a call", listener.next()).await.unwrap();
            hand.send((call, left)).unwrap();
        }
        assert!(within("the end", listener.next()).await.is_none());
        assert!(within("an exit", child.wait()).await.unwrap().success());
        drop(hand);
        answering.join().unwrap();
    });
}

#[test]
fn no_call_is_lost_when_next_is_dropped() {
    /// Numbers its calls, each of which must be answered with its number.
    const NUMBERED: &str = r#"
int main(void) {
    for (long i = 1; i <= 3000; i++) {
        if (i % 100 == 0)
            usleep(2000);
        check(trap(i, 0, 0, 0) == i, "the answer");
    }
}
"#;
    on_each_runtime(|| async {
        let (mut child, mut listener) = command("numbered", NUMBERED).spawn().await.unwrap();
        let (mut expected, mut dropped) = (1, 0);
        loop {
            // The other branch wins wherever there is nothing yet.
            let call = tokio::select! {
                biased;
                call = listener.next() => call,
                () = tokio::task::yield_now() => { dropped += 1; continue; }
            };
            let Some(call) = call else { break };
            assert_eq!(call.args()[0], expected);
            assert!(call.respond(expected).unwrap().is_delivered());
            expected += 1;
        }
        assert_eq!(expected, 3001);
        assert!(dropped > 0);
        assert!(within("an exit", child.wait()).await.unwrap().success());
    });
}

/// The main thread makes a call; then, told to, it and a second thread make one each. A signal without `SA_RESTART`
/// must not end the second thread's with `EINTR`.
const TWO: &str = r#"
static void *second(void *unused) {
    printf("%d\n", (int)syscall(SYS_gettid));
    fflush(stdout);
    check(trap(2, 0, 0, 0) == 1, "the second thread's answer");
    return NULL;
}
int main(void) {
    handle_signal(SIGUSR1, 0);
    sigset_t block;
    sigemptyset(&block);
    sigaddset(&block, SIGUSR1);
    check(trap(0, 0, 0, 0) == 1, "the first answer");
    pthread_t thread;
    check(!pthread_create(&thread, NULL, second, NULL), "pthread_create");
    // The signal is for the other one.
    pthread_sigmask(SIG_BLOCK, &block, NULL);
    check(trap(1, 0, 0, 0) == 1, "the first thread's answer");
    pthread_join(thread, NULL);
}
"#;

// T10
#[test]
fn a_call_that_waits_beside_another_is_received_with_it() {
    if !killable() {
        return;
    }
    on_each_runtime(|| async {
        let (mut child, mut listener) = command("two", TWO).spawn().await.unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = within("a call", listener.next()).await.unwrap();
        assert!(first.respond(1).unwrap().is_delivered());
        let second: u32 = within("a line", output.next_line())
            .await
            .unwrap()
            .unwrap()
            .parse()
            .unwrap();
        let pid = child.id().unwrap();
        frozen_threads(pid, 2).await;
        // One is handed out; the other one is received with it, and safe from signals.
        let held = within("a call", listener.next()).await.unwrap();
        child.signal(Signal::SIGUSR1).unwrap();
        until("the signal has come", || support::state(second) == Some('D')).await;
        assert!(threads(pid).contains(&second) && waits_in(second, Sysno::getppid));
        let other = within("a call", listener.next()).await.unwrap();
        assert!(other.respond(1).unwrap().is_delivered());
        assert!(held.respond(1).unwrap().is_delivered());
        assert!(within("the end", listener.next()).await.is_none());
        assert!(within("an exit", child.wait()).await.unwrap().success());
    });
}
