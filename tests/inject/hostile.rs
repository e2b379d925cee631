//! Programs that would keep a test from going on, and what is left of all of them.

use std::time::Duration;

use asm_tracer::inject::{Fault, FaultPlan};
use asm_tracer::{Errno, Sysno};

use crate::support::start::leaving_nothing;
use crate::support::within;
use crate::{compiled, run_plan, shell, stdout};

/// Two threads make calls, whose names another memory stands behind, while a third makes calls that have none.
const STALLS: &str = r#"
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
static void *opens(void *name) { return (void *)syscall(SYS_openat, AT_FDCWD, name, O_RDONLY); }
int main(void) {
    int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
    if (fd < 0) { puts("skipped: no permission for userfaultfd(2)"); return 0; }
    struct uffdio_api api = { .api = UFFD_API };
    check(!ioctl(fd, UFFDIO_API, &api), "UFFDIO_API");
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register range = { .range = { (unsigned long)page, 4096 }, .mode = UFFDIO_REGISTER_MODE_MISSING };
    check(!ioctl(fd, UFFDIO_REGISTER, &range), "UFFDIO_REGISTER");
    pthread_t thread;
    for (int i = 0; i < 8; i++) check(!pthread_create(&thread, NULL, opens, page), "thread");
    for (int i = 0; i < 1000; i++) check(trap(0, 0, 0, 0) < 0, "the fault");
    puts("done");
    fflush(stdout);
    syscall(SYS_exit_group, 0);
}
"#;

#[tokio::test]
async fn names_that_stall_hold_up_nobody_else() {
    let plan = FaultPlan::new()
        .with(Fault::on(Sysno::openat).path("/nonexistent").error(Errno::EIO))
        .with(Fault::on(Sysno::getppid).error(Errno::EPERM));
    let outcome = run_plan(&plan, &mut compiled("stalls_names", STALLS)).await;
    outcome.assert_success();
    if stdout(&outcome).starts_with("skipped") {
        assert!(std::env::var_os("ASM_TRACER_SKIP_NOTHING").is_none(), "{outcome}");
        return println!("{}", stdout(&outcome));
    }
    outcome.assert_hits(1000);
}

// Each way in which a plan can be left.
#[test]
fn nothing_is_left() {
    leaving_nothing("hostile::nothing_is_left", async |_| {
        let hour = Duration::from_secs(3600);
        let plan = FaultPlan::from(Fault::on(Sysno::write).error(Errno::EIO));
        run_plan(&plan, &mut shell("echo hello")).await.assert_failure();

        let held = || Fault::on(Sysno::getppid).delay_after(hour);
        let delayed = || Fault::on(Sysno::getppid).delay_before(hour);
        const CALLS: &str = "int main(void) { trap(0, 0, 0, 0); }";
        for fault in [held(), delayed()] {
            let plan = FaultPlan::from(fault).deadline(Duration::from_millis(100));
            // To the deadline.
            let outcome = run_plan(&plan, &mut compiled("calls_once", CALLS)).await;
            assert!(outcome.hung().is_some(), "{outcome}");
            // Dropped, and stopped.
            let child = within("the start", plan.spawn(&mut compiled("calls_once", CALLS)))
                .await
                .unwrap();
            within("the hit", child.hit()).await.unwrap();
            drop(child);
            let child = within("the start", plan.spawn(&mut compiled("calls_once", CALLS)))
                .await
                .unwrap();
            within("the hit", child.hit()).await.unwrap();
            within("the stop", child.stop()).await.unwrap();
            // Given up at any point.
            for polls in 0..30 {
                let mut command = compiled("calls_once", CALLS);
                let run = std::pin::pin!(plan.run(&mut command));
                tokio::select! {
                    biased;
                    _ = run => {}
                    () = async { for _ in 0..polls { tokio::task::yield_now().await } } => {}
                }
            }
        }
    });
}

// A delay waits, is over, or the call runs when the kill comes.
#[test]
fn a_kill_at_any_moment_leaves_nothing() {
    leaving_nothing("hostile::a_kill_at_any_moment_leaves_nothing", async |_| {
        const LOOPS: &str = "int main(void) { for (;;) trap(0, 0, 0, 0); }";
        let call = || Fault::on(Sysno::getppid);
        let short = Duration::from_millis(1);
        for protected in [true, false] {
            for fault in [call().delay_before(short), call().delay_after(short)] {
                let plan = FaultPlan::from(fault);
                for moment in 0..25 {
                    let mut command = compiled("calls_for_ever", LOOPS);
                    let child = plan.spawn(command.wait_killable(protected));
                    let child = within("the start", child).await.unwrap();
                    for _ in 0..moment / 5 {
                        within("a hit", child.hit()).await.unwrap();
                    }
                    for _ in 0..moment % 5 {
                        tokio::task::yield_now().await;
                    }
                    child.signal(asm_tracer::Signal::SIGKILL).unwrap();
                    let outcome = within("the end", child.outcome()).await.unwrap();
                    outcome.assert_failure().assert_ended();
                }
            }
        }
    });
}
