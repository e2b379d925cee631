//! What comes back in the register, and what is no call.

use asm_tracer::inject::{Fault, FaultPlan};
use asm_tracer::{Command, Errno, Signal, Sysno};

use crate::{compiled, run, run_plan, stdout};

/// Prints what each of so many calls gives, and how many signals came, for which it waits if there is a second argument:
/// where one would take the call back, it comes after the answer.
const PRINTS: &str = r#"
int main(int argc, char **argv) {
    handle_signal(SIGUSR1, SA_RESTART);
    for (int i = 0; i < atoi(argv[1]); i++) printf("%ld\n", trap(0, 0, 0, 0));
    while (argc > 2 && !handled) usleep(100);
    printf("%d\n", handled);
}
"#;

async fn printed(plan: &FaultPlan, calls: usize, protected: bool) -> Vec<i64> {
    let mut command = compiled("prints_registers", PRINTS);
    command.arg(calls.to_string()).wait_killable(protected);
    run_printing(plan, calls, &mut command).await
}

async fn run_printing(plan: &FaultPlan, calls: usize, command: &mut Command) -> Vec<i64> {
    let outcome = run_plan(plan, command).await;
    outcome.assert_success().assert_hits(calls as u64).assert_hit();
    stdout(&outcome)
        .lines()
        .map(|line| line.parse().unwrap())
        .collect()
}

// T15: the kernel takes an error above 0 for a result, and one of its own numbers for what it is.
#[tokio::test]
async fn every_error_and_every_result_comes_back_as_it_was_said() {
    let errors = (1..4096)
        .map(Errno::from_raw)
        .filter(|errno| *errno != Errno::UnknownErrno);
    let errors: Vec<_> = errors.collect();
    let values = [0, 1, 42, -1, -13, -512, -4095, -4096, 4095, i64::MAX, i64::MIN];
    for protected in [true, false] {
        let call = |place: usize| Fault::on(Sysno::getppid).nth(place as u64 + 1);
        let faults = errors
            .iter()
            .enumerate()
            .map(|(place, errno)| call(place).error(*errno));
        let mut expected: Vec<_> = errors.iter().map(|errno| -(*errno as i64)).collect();
        expected.push(0);
        assert!(errors.len() > 130);
        assert_eq!(
            printed(&faults.collect(), errors.len(), protected).await,
            expected
        );

        let faults = values
            .iter()
            .enumerate()
            .map(|(place, value)| call(place).returns(*value));
        let got = printed(&faults.collect(), values.len(), protected).await;
        assert_eq!(got[..values.len()], values);

        // Not one of those numbers that have the kernel make the call again.
        let fault = Fault::on(Sysno::getppid)
            .error(Errno::EINTR)
            .signal(Signal::SIGUSR1);
        let mut command = compiled("prints_registers", PRINTS);
        command.args(["1", "and a signal"]).wait_killable(protected);
        assert_eq!(run_printing(&fault.into(), 1, &mut command).await, [-4, 1]);
    }
}

// T15: it would be a success.
#[tokio::test]
async fn an_error_that_is_none_is_no_success() {
    let plan = FaultPlan::from(Fault::on(Sysno::getppid).error(Errno::UnknownErrno));
    let mut command = compiled("prints_registers", PRINTS);
    match plan.run(command.arg("1")).await {
        Err(error) => assert!(matches!(error, asm_tracer::Error::InvalidPlan(_)), "{error:?}"),
        Ok(outcome) => panic!("{outcome}"),
    }
}

// T38: what the vDSO answers is no call, what a ring does is not seen, and programs do without a ring.
#[tokio::test]
async fn what_is_no_call_is_not_hit_and_rings_can_be_refused() {
    const AROUND: &str = r#"
#include <time.h>
int main(void) {
    struct timespec now;
    long parameters[32] = { 0 };
    int through_vdso = clock_gettime(CLOCK_MONOTONIC, &now);
    int called = syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now) < 0 ? errno : 0;
    int ring = syscall(SYS_io_uring_setup, 1, parameters) < 0 ? errno : 0;
    printf("%d %s %s", through_vdso, strerrorname_np(called), strerrorname_np(ring));
}
"#;
    for protected in [true, false] {
        let plan = FaultPlan::new()
            .with(Fault::on(Sysno::clock_gettime).error(Errno::EINVAL))
            .with(Fault::on(Sysno::io_uring_setup).error(Errno::ENOSYS));
        let mut command = compiled("around_calls", AROUND);
        let outcome = run_plan(&plan, command.wait_killable(protected)).await;
        outcome.assert_success();
        let seen = stdout(&outcome);
        // A machine whose clock the vDSO can't read makes a call of both.
        if seen.starts_with("-1 ") {
            println!("skipped: there is no clock in the vDSO here");
        } else {
            assert_eq!(seen, "0 EINVAL ENOSYS");
            outcome.assert_hits(2);
        }
    }
}

// T7: the id in a notification is that of a thread, which a signal is for, and no other of its process.
#[tokio::test]
async fn the_signal_of_a_fault_is_for_the_thread_that_made_the_call() {
    const THREADS: &str = r#"
static volatile pid_t handler;
static void note(int signal) { (void)signal; handler = gettid(); }
static void *call(void *unused) {
    trap(0, 0, 0, 0);
    /* Where a signal would take the call back, it comes after the answer. */
    while (!handler) usleep(100);
    return (void *)(long)gettid();
}
int main(void) {
    struct sigaction action = { .sa_handler = note, .sa_flags = SA_RESTART };
    check(!sigaction(SIGUSR1, &action, NULL), "sigaction");
    for (int i = 0; i < 10; i++) {
        pthread_t thread;
        void *tid;
        handler = 0;
        check(!pthread_create(&thread, NULL, call, NULL), "pthread_create");
        pthread_join(thread, &tid);
        if (handler != (pid_t)(long)tid) return 1;
    }
    return 0;
}
"#;
    for protected in [true, false] {
        for fault in [
            Fault::on(Sysno::getppid).signal(Signal::SIGUSR1),
            Fault::on(Sysno::getppid)
                .signal(Signal::SIGUSR1)
                .error(Errno::EPERM),
        ] {
            let mut command = compiled("threads_and_signals", THREADS);
            let outcome = run(fault, command.wait_killable(protected)).await;
            outcome.assert_success().assert_hits(10).assert_hit();
        }
    }
}
