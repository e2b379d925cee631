//! Delays, before a call and after it.

use std::time::{Duration, Instant};

use asm_tracer::inject::{Fault, FaultPlan};
use asm_tracer::{Errno, Stdio, Sysno};

use crate::support::{state, until, within};
use crate::{compiled, run, run_plan, shell, stdout};

/// Tells for how many milliseconds each of three calls took.
const TIMES: &str = r#"
#include <time.h>
static long now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000 + t.tv_nsec / 1000000; }
int main(void) {
    for (int i = 0; i < 3; i++) {
        long start = now();
        long parent = trap(0, 0, 0, 0);
        printf("%ld %d\n", now() - start, parent == getppid() || parent < 0);
    }
}
"#;

async fn times(fault: Fault, killable: bool) -> Vec<u64> {
    let mut command = compiled("times_calls", TIMES);
    let outcome = run(fault, command.wait_killable(killable)).await;
    outcome.assert_success().assert_hit().assert_hits(1);
    let lines = stdout(&outcome)
        .lines()
        .map(|line| line.strip_suffix(" 1").expect("the right result"));
    lines.map(|line| line.parse().unwrap()).collect()
}

// The program's own `getppid` is each second call. Signals that come meanwhile are in `interrupted.rs` (T9, T12).
#[tokio::test]
async fn calls_wait_before_and_after_they_run() {
    let delay = Duration::from_millis(200);
    let call = || Fault::on(Sysno::getppid).nth(3);
    for fault in [
        call().delay_before(delay),
        call().delay_after(delay),
        call().delay_before(delay / 2).delay_after(delay / 2),
        call().delay_after(delay).error(Errno::EPERM),
    ] {
        for killable in [true, false] {
            let times = times(fault.clone(), killable).await;
            assert!(times.len() == 3 && times[1] >= 199, "{fault:?}: {times:?}");
        }
    }
}

#[tokio::test]
async fn what_is_held_back_has_happened() {
    let directory = tempfile::tempdir().unwrap();
    let made = directory.path().join("made");
    let fault = Fault::on([Sysno::mkdir, Sysno::mkdirat]).delay_after(Duration::from_secs(3600));
    let plan = FaultPlan::from(fault);
    let mut command = shell("exec mkdir made");
    command.current_dir(directory.path()).stderr(Stdio::null());
    let child = within("the start", plan.spawn(&mut command)).await.unwrap();
    let hit = within("the hit", child.hit()).await.unwrap();
    until("the directory is there", || made.exists()).await;
    let pid = child.id().unwrap();
    until("the thread is held", || state(pid) == Some('t')).await;
    assert!(hit.to_string().contains("held back for 3600s"), "{hit}");
    // Neither the hour nor the tracer keeps it.
    let start = Instant::now();
    let outcome = within("its end", child.stop()).await.unwrap();
    assert!(!outcome.status().success() && start.elapsed() < Duration::from_secs(50));
}

#[tokio::test]
async fn a_call_that_blocks_is_held_back_once_it_returns() {
    let fault = Fault::on(Sysno::read)
        .fd(0)
        .nth(1)
        .delay_after(Duration::from_millis(100));
    let mut command = shell("read -r line; echo $line");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let plan = FaultPlan::from(fault);
    let mut child = within("the start", plan.spawn(&mut command)).await.unwrap();
    within("the hit", child.hit()).await.unwrap();
    use tokio::io::AsyncWriteExt;
    child.stdin.as_mut().unwrap().write_all(b"hello\n").await.unwrap();
    let outcome = within("the end", child.outcome()).await.unwrap();
    outcome.assert_success().assert_hit();
    assert_eq!(stdout(&outcome), "hello\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_threads_are_held_at_a_time() {
    const THREADS: &str = r#"
static void *call(void *ignored) { (void)ignored; return (void *)(long)(trap(0, 0, 0, 0) > 0); }
int main(void) {
    pthread_t threads[40];
    long sum = 0;
    for (int i = 0; i < 40; i++) check(!pthread_create(&threads[i], NULL, call, NULL), "thread");
    for (int i = 0; i < 40; i++) { void *result; pthread_join(threads[i], &result); sum += (long)result; }
    printf("%ld", sum);
}
"#;
    let plan = FaultPlan::from(Fault::on(Sysno::getppid).delay_after(Duration::from_millis(50)));
    let outcome = run_plan(&plan, &mut compiled("forty_threads", THREADS)).await;
    outcome.assert_success().assert_hits(40).assert_hit();
    assert_eq!(stdout(&outcome), "40");
}
