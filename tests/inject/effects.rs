//! What faults do to calls.

use asm_tracer::inject::Fault;
use asm_tracer::{Errno, Signal, Sysno};

use crate::{compiled, run, run_plan, stderr, stdout};

/// Writes 100 bytes to a pipe and tells what the calls returned and what came through.
const WRITES: &str = r#"
#include <sys/uio.h>
int main(void) {
    int ends[2];
    char data[100], got[100];
    check(pipe(ends) == 0, "pipe");
    memset(data, 'x', sizeof data);
    errno = 0;
    long written = write(ends[1], data, sizeof data);
    int error = errno;
    struct iovec parts[3] = { { data, 4 }, { data, 0 }, { data, 50 } };
    long vectored = writev(ends[1], parts, 3);
    close(ends[1]);
    long n, total = 0;
    while ((n = read(ends[0], got, sizeof got)) > 0) total += n;
    printf("%ld %d %ld %ld\n", written, written < 0 ? error : 0, vectored, total);
}
"#;

/// Of the first write only: the output is another.
fn first(call: Sysno) -> Fault {
    Fault::on(call).nth(1)
}

async fn written(fault: Fault) -> String {
    let outcome = run(fault, &mut compiled("writes", WRITES)).await;
    outcome.assert_success().assert_hit();
    stdout(&outcome).trim_end().to_owned()
}

#[tokio::test]
async fn calls_fail_succeed_and_fall_short() {
    assert_eq!(
        written(first(Sysno::write).error(Errno::ENOSPC)).await,
        "-1 28 54 54"
    );
    // A success that was none.
    assert_eq!(written(first(Sysno::write).returns(100)).await, "100 0 54 54");
    assert_eq!(written(first(Sysno::write).returns(-5)).await, "-1 5 54 54");
    // Real ones.
    assert_eq!(written(first(Sysno::write).short(7)).await, "7 0 54 61");
    assert_eq!(written(first(Sysno::write).short(1000)).await, "100 0 54 154");
    assert_eq!(written(first(Sysno::write).argument(2, 9)).await, "9 0 54 63");
}

#[tokio::test]
async fn an_array_of_buffers_is_shortened_where_it_ends() {
    assert_eq!(written(first(Sysno::writev).short(3)).await, "100 0 3 103");
    assert_eq!(written(first(Sysno::writev).short(10)).await, "100 0 10 110");
    assert_eq!(written(first(Sysno::writev).short(0)).await, "100 0 0 100");
}

#[tokio::test]
async fn a_short_read_is_a_real_one_and_all_is_read_in_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "0123456789".repeat(10)).unwrap();
    let fault = Fault::on(Sysno::read).path(&file).short(7);
    let outcome = run(fault, asm_tracer::Command::new("cat").arg(&file)).await;
    // Fifteen with data, and the end.
    outcome.assert_success().assert_hits(16).assert_hit();
    assert_eq!(stdout(&outcome), "0123456789".repeat(10));
}

#[tokio::test]
async fn a_signal_comes_with_the_call() {
    const COUNTS: &str = r#"
int main(void) {
    handle_signal(SIGUSR1, SA_RESTART);
    for (int i = 0; i < 5; i++) trap(0, 0, 0, 0);
    printf("%d\n", handled);
}
"#;
    for killable in [true, false] {
        let fault = Fault::on(Sysno::getppid).every(2).signal(Signal::SIGUSR1);
        let mut command = compiled("counts_signals", COUNTS);
        let outcome = run(fault, command.wait_killable(killable)).await;
        outcome.assert_success().assert_hits(2);
        assert_eq!(stdout(&outcome), "2\n");
    }
}

#[tokio::test]
async fn several_faults_compose() {
    const TELLS: &str = r#"
int main(void) {
    handle_signal(SIGUSR1, SA_RESTART);
    handle_signal(SIGUSR2, SA_RESTART);
    for (int i = 0; i < 6; i++) {
        int failed = trap(0, 0, 0, 0) < 0;
        printf("%d/%d ", failed, handled);
    }
}
"#;
    let call = || Fault::on(Sysno::getppid);
    let plan = [
        call().every(2).error(Errno::EPERM),
        call().every(3).error(Errno::EIO).signal(Signal::SIGUSR1),
        call().starting_at(5).until(5).signal(Signal::SIGUSR2),
    ];
    let outcome = run_plan(&plan.into_iter().collect(), &mut compiled("tells_signals", TELLS)).await;
    outcome.assert_success().assert_hits(5);
    assert_eq!(stdout(&outcome), "0/0 1/0 1/1 1/1 0/2 1/3 ");
    let hits: Vec<_> = outcome.hits().iter().map(|hit| hit.faults().to_vec()).collect();
    // The calls 2, 3, 4, 5 and 6.
    assert_eq!(hits, [vec![0], vec![1], vec![0], vec![2], vec![0, 1]]);
    // The first answer counts.
    let last = outcome.hits().last().unwrap().to_string();
    assert!(last.contains("EPERM") && last.contains("SIGUSR1"), "{last}");
}

#[tokio::test]
async fn a_program_that_a_fault_kills_says_so() {
    let outcome = run(
        Fault::on(Sysno::write).signal(Signal::SIGKILL),
        &mut crate::shell("echo hello"),
    )
    .await;
    outcome.assert_failure().assert_hits(1);
    assert_eq!((stdout(&outcome), stderr(&outcome)), ("", ""));
}

#[tokio::test]
async fn what_takes_a_borrowed_thread_runs_without_where_another_has_it() {
    const TRACED: &str = r#"
#include <sys/ptrace.h>
int main(void) {
    pid_t child = fork();
    if (child == 0) {
        check(!ptrace(PTRACE_TRACEME, 0, 0, 0), "TRACEME");
        _exit(trap(1, 0, 0, 0) < 0);
    }
    int status;
    check(waitpid(child, &status, 0) == child, "waitpid");
    return status;
}
"#;
    let call = || Fault::on(Sysno::getppid);
    let hour = std::time::Duration::from_secs(3600);
    for fault in [call().argument(0, 2), call().delay_after(hour)] {
        let outcome = run(fault, &mut compiled("traced_child", TRACED)).await;
        outcome.assert_success().assert_hits(1);
        let why = outcome.hits()[0].failed().unwrap();
        assert!(why.contains("traces the target already"), "{why}");
        let assertion = std::panic::AssertUnwindSafe(|| _ = outcome.assert_hit());
        assert!(std::panic::catch_unwind(assertion).is_err());
    }
}
