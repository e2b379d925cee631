//! Signals that come while a fault is at work.

use std::time::Duration;

use asm_tracer::inject::{Fault, FaultPlan, FaultyChild};
use asm_tracer::{Command, Errno, Signal, Stdio, Sysno};
use tokio::io::AsyncWriteExt;

use crate::support::target::killable;
use crate::support::{state, until, within};
use crate::{compiled, run, stdout};

const HOUR: Duration = Duration::from_secs(3600);

/// Whether a received call waits for its answer whatever signal comes: yes, where the kernel has that, and no.
fn both_ways() -> impl Iterator<Item = bool> {
    [false, true].into_iter().filter(|way| !way || killable())
}

async fn start(fault: Fault, command: &mut Command) -> FaultyChild {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    within("the start", FaultPlan::from(fault).spawn(command))
        .await
        .unwrap()
}

/// Waits until a fault has hit, which is after the call was received.
async fn hit(child: &FaultyChild) {
    within("the hit", child.hit()).await.unwrap();
}

/// What a program has printed that has ended well, and how many hits there were.
async fn printed(child: FaultyChild) -> (String, u64) {
    let outcome = within("the outcome", child.outcome()).await.unwrap();
    outcome.assert_success();
    (stdout(&outcome).to_owned(), outcome.hit_count())
}

/// Makes calls while another thread sends the caller 300 signals.
const STORM: &str = r#"
static pthread_t caller;
static volatile int over;
static void *storm(void *unused) {
    for (int i = 0; i < 300; i++) { pthread_kill(caller, SIGUSR1); usleep(100); }
    over = 1;
    return NULL;
}
int main(void) {
    handle_signal(SIGUSR1, SA_RESTART);
    caller = pthread_self();
    pthread_t thread;
    check(!pthread_create(&thread, NULL, storm, NULL), "pthread_create");
    long i;
    for (i = 0; i < 300 || !over; i++) {
        long result = trap(i, 0, 0, 0);
        if (result != -EPERM) { printf("call %ld gave %ld\n", i, result); exit(1); }
    }
    pthread_join(thread, NULL);
    printf("%ld", i);
}
"#;

// T9: without protection, a call is hit again each time that a signal has taken it back. T11: with it, once. T14: an answer
// to one that was taken back is no failure.
#[tokio::test]
async fn in_a_storm_of_signals_each_call_has_its_answer_after_its_delay() {
    for protected in both_ways() {
        let fault = Fault::on(Sysno::getppid).delay_before(Duration::from_micros(300));
        let mut command = compiled("storm_of_delays", STORM);
        let outcome = run(fault.error(Errno::EPERM), command.wait_killable(protected)).await;
        outcome.assert_success().assert_hit();
        let made: u64 = stdout(&outcome).parse().unwrap();
        let hits = outcome.hit_count();
        outcome.assert(hits >= made, "each call is hit");
        // Before commit `cce436aafc2a` (6.18), the kernel makes a call again if a signal comes right after the answer.
        let repeats = hits - made;
        if protected && repeats > 0 {
            println!("{repeats} of {made} calls came again; kernels before 6.18 do that");
            outcome.assert(repeats < made / 10, "a received call is not taken back");
        }
        outcome.assert(protected || repeats > 0, "the storm takes calls back");
    }
}

/// Makes one call, with a handler for `SIGUSR1` that has the flags of its argument.
const ONE_CALL: &str = r#"
int main(int argc, char **argv) {
    handle_signal(SIGUSR1, atoi(argv[1]));
    long result = trap(0, 0, 0, 0);
    printf("%s after %d", result > 0 ? "it ran" : strerrorname_np(-result), handled);
}
"#;

fn one_call(flags: i32, protected: bool) -> Command {
    let mut command = compiled("one_call_and_signals", ONE_CALL);
    command.arg(flags.to_string()).wait_killable(protected);
    command
}

// T9: what a signal takes back and the kernel makes again is another occurrence. T10: what is not made again fails with
// `EINTR`, even a call that never does otherwise.
#[tokio::test]
async fn without_protection_a_signal_takes_a_delayed_call_back() {
    for (flags, expected) in [(libc::SA_RESTART, "it ran after 1"), (0, "EINTR after 1")] {
        let fault = Fault::on(Sysno::getppid).nth(1).delay_before(HOUR);
        let child = start(fault.error(Errno::EPERM), &mut one_call(flags, false)).await;
        hit(&child).await;
        child.signal(Signal::SIGUSR1).unwrap();
        assert_eq!(printed(child).await, (expected.into(), 1));
    }
}

// T12: a signal waits for the answer, and does neither take the call back nor get lost.
#[tokio::test]
async fn with_protection_a_signal_waits_for_the_end_of_the_delay() {
    if !killable() {
        return;
    }
    for flags in [libc::SA_RESTART, 0] {
        let fault = Fault::on(Sysno::getppid).nth(1).error(Errno::EPERM);
        let fault = fault.delay_before(Duration::from_millis(500));
        let child = start(fault, &mut one_call(flags, true)).await;
        hit(&child).await;
        let pid = child.id().unwrap();
        child.signal(Signal::SIGUSR1).unwrap();
        until("it waits for nothing but the answer", || state(pid) != Some('S')).await;
        assert_eq!(printed(child).await, ("EPERM after 1".into(), 1));
    }
}

// T12: neither a delay nor a held result keeps a signal that ends a program from doing so.
#[tokio::test]
async fn a_signal_that_ends_the_program_ends_it_in_the_middle_of_a_delay() {
    use std::os::unix::process::ExitStatusExt;
    let call = || Fault::on(Sysno::getppid).nth(1);
    for protected in both_ways() {
        for fault in [
            call().delay_before(HOUR),
            call().delay_after(HOUR).error(Errno::EPERM),
        ] {
            for signal in [Signal::SIGTERM, Signal::SIGUSR2, Signal::SIGKILL] {
                let child = start(fault.clone(), &mut one_call(0, protected)).await;
                hit(&child).await;
                child.signal(signal).unwrap();
                let outcome = within("the end", child.outcome()).await.unwrap();
                assert_eq!(outcome.status().signal(), Some(signal as i32), "{outcome}");
            }
        }
    }
}

/// A call that the kernel makes again and again, because of signals that come until it has ended.
const READ: &str = r#"
static pthread_t reader;
static volatile int over;
static void *storm(void *unused) {
    while (!over) { pthread_kill(reader, SIGUSR1); usleep(500); }
    return NULL;
}
int main(void) {
    int ends[2];
    char byte;
    check(!pipe(ends), "pipe");
    handle_signal(SIGUSR1, SA_RESTART);
    reader = pthread_self();
    pthread_t thread;
    check(!pthread_create(&thread, NULL, storm, NULL), "pthread_create");
    int error = syscall(SYS_readv, ends[0], &(struct iovec){ &byte, 1 }, 1) < 0 ? errno : 0;
    over = 1;
    pthread_join(thread, NULL);
    printf("%s %d", strerrorname_np(error), handled > 1);
}
"#;

// T9, with strace as the oracle.
#[tokio::test]
async fn a_blocking_call_that_is_made_again_is_another_occurrence() {
    let source = format!("#include <sys/uio.h>\n{READ}");
    for protected in both_ways() {
        // And those after it, since a signal may come before the answer.
        let fault = Fault::on(Sysno::readv).starting_at(4).error(Errno::EIO);
        let mut command = compiled("read_again", &source);
        let outcome = run(fault, command.wait_killable(protected)).await;
        outcome.assert_success().assert_hit();
        outcome.assert(!protected || outcome.hit_count() == 1, "one call is hit");
        assert_eq!(stdout(&outcome), "EIO 1");
    }
    let mut strace = tokio::process::Command::new("strace");
    strace
        .args([
            "-f",
            "-o",
            "/dev/null",
            "-e",
            "inject=readv:error=EIO:when=4+",
            "--",
        ])
        .arg(compiled("read_again", &source).get_program())
        .kill_on_drop(true);
    match within("strace", strace.output()).await {
        Ok(output) if output.status.success() => assert_eq!(output.stdout, b"EIO 1"),
        other => println!("skipped: strace does not run here: {other:?}"),
    }
}

/// Once it is told, a second thread makes a call while the first waits in one of its own.
const TWO: &str = r#"
static void *waits(void *unused) { trap(0, 0, 0, 0); return NULL; }
int main(void) {
    handle_signal(SIGUSR1, 0);
    pthread_t thread;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    check(!pthread_create(&thread, NULL, waits, NULL), "pthread_create");
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    check(told(), "the word");
    int result = close(dup2(1, 77));
    printf("%d after %d", result, handled);
    fflush(stdout);
    syscall(SYS_exit_group, 0);
}
"#;

// T10: a call is received while others are delayed, so that no signal makes it fail that has never done so.
#[tokio::test]
async fn a_delay_of_one_thread_does_not_keep_calls_of_others_from_being_received() {
    if !killable() {
        return;
    }
    let plan = FaultPlan::new()
        .with(Fault::on(Sysno::getppid).delay_before(HOUR))
        .with(
            Fault::on(Sysno::close)
                .fd(77)
                .delay_before(Duration::from_millis(300)),
        );
    let mut command = compiled("two_delays", TWO);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .wait_killable(true);
    let mut child = within("the start", plan.spawn(&mut command)).await.unwrap();
    hit(&child).await;
    child.stdin.as_mut().unwrap().write_all(b"!").await.unwrap();
    hit(&child).await;
    child.signal(Signal::SIGUSR1).unwrap();
    assert_eq!(printed(child).await, ("0 after 1".into(), 2));
}
