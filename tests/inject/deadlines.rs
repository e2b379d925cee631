//! Programs that hang.

use std::time::Duration;

use asm_tracer::inject::{Fault, FaultPlan};
use asm_tracer::{Errno, Stdio, Sysno};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tokio::io::AsyncBufReadExt;

use crate::support::{until, within};
use crate::{compiled, run_plan, shell};

const HANGS: &str = r#"
static void *sleeps(void *ignored) { (void)ignored; prctl(PR_SET_NAME, "sleeper"); for (;;) pause(); return NULL; }
static void *waits(void *ignored) { (void)ignored; prctl(PR_SET_NAME, "waiter"); trap(1, 2, 3, 4); return NULL; }
int main(void) {
    pthread_t thread;
    check(!pthread_create(&thread, NULL, sleeps, NULL), "thread");
    check(!pthread_create(&thread, NULL, waits, NULL), "thread");
    puts("hangs");
    fflush(stdout);
    if (fork() == 0) for (;;) pause();
    pthread_join(thread, NULL);
}
"#;

#[tokio::test]
async fn the_outcome_says_where_each_thread_hung() {
    let fault = Fault::on(Sysno::getppid).delay_before(Duration::from_secs(3600));
    let plan = FaultPlan::from(fault).deadline(Duration::from_millis(1500));
    let outcome = run_plan(&plan, &mut compiled("hangs", HANGS)).await;
    outcome.assert(outcome.hung().is_some(), "it hangs");
    assert_eq!(outcome.stdout(), b"hangs\n");
    let threads = outcome.hung().unwrap();
    assert_eq!(threads.len(), 4, "{outcome}");
    let call = |name: &str| {
        let thread = threads.iter().find(|thread| thread.name() == name);
        thread
            .unwrap_or_else(|| panic!("no {name}: {outcome}"))
            .syscall()
            .unwrap()
    };
    assert_eq!(call("sleeper").sysno(), Some(Sysno::pause));
    let waiter = call("waiter");
    assert_eq!(
        (waiter.sysno(), &waiter.args[..4]),
        (Some(Sysno::getppid), &[1, 2, 3, 4][..])
    );
    // The child has been killed as well.
    let other = threads
        .iter()
        .find(|thread| thread.pid() != threads[0].pid())
        .unwrap();
    until("the child is gone", || {
        kill(Pid::from_raw(other.pid()), None).is_err()
    })
    .await;
    let text = outcome.to_string();
    for part in ["killed at its deadline", "(sleeper): S in pause(", "(waiter): "] {
        assert!(text.contains(part), "{text}");
    }
    let assertion = std::panic::AssertUnwindSafe(|| _ = outcome.assert_ended());
    assert!(std::panic::catch_unwind(assertion).is_err());
}

#[tokio::test]
async fn a_program_that_is_stopped_gives_its_outcome() {
    let plan = FaultPlan::from(Fault::on(Sysno::write).fd(2).error(Errno::EIO));
    let mut command = shell("sleep 1000 & echo $!; ls /nonexistent; wait");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = within("the start", plan.spawn(&mut command)).await.unwrap();
    within("the hit", child.hit()).await.unwrap();
    let mut lines = tokio::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let sleeper: i32 = within("a line", lines.next_line())
        .await
        .unwrap()
        .unwrap()
        .parse()
        .unwrap();
    assert!(!child.threads().is_empty());
    let outcome = within("the stop", child.stop()).await.unwrap();
    outcome.assert_failure().assert_hit();
    until("the sleeper is gone", || {
        kill(Pid::from_raw(sleeper), None).is_err()
    })
    .await;
}
