//! Nothing is left: of targets that die, of the thread that borrows, in a forked copy of this process.

use std::future::IntoFuture;

use asm_tracer::{Delivery, Observed, Signal, Sysno};
use nix::sys::wait::{WaitPidFlag, waitpid};

use crate::support::target::{filter, on_each_runtime, thread_runs, threads};
use crate::support::{in_process_of_its_own, open_descriptors, until, within};
use crate::{start, target};

const CALLS: &str = "int main(void) { told(); for (;;) trap(1, 2, 3, 4); }";

/// Whether a thread of this process borrows.
pub(crate) fn borrower_runs() -> bool {
    thread_runs("asm_tracer-borr")
}

/// The children of this process, of whatever kind.
fn children() -> Vec<u32> {
    let tasks = threads(std::process::id()).into_iter();
    let of = |tid| std::fs::read_to_string(format!("/proc/self/task/{tid}/children")).unwrap_or_default();
    let text = tasks.map(of).collect::<String>();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

#[test]
fn targets_are_killed_at_any_moment() {
    in_process_of_its_own("ends::targets_are_killed_at_any_moment", || {
        let before = std::cell::Cell::new(0);
        on_each_runtime(|| async {
            for round in 0..100_u32 {
                let (child, mut listener) = start(&mut target("calls_for_ever", CALLS, filter()), 1).await;
                let mut left = round % 7;
                let mut observed = 0;
                while let Some(call) = within("a call", listener.next()).await {
                    if left == 0 {
                        // Twice, which leaves a tracer no stop to see.
                        child.signal(Signal::SIGKILL).unwrap();
                        let _ = child.signal(Signal::SIGKILL);
                    }
                    left = left.wrapping_sub(1);
                    let another = call.continue_as(Sysno::getpid, [0; 6]);
                    let another = if round % 3 == 0 {
                        another.data(1, "data")
                    } else {
                        another
                    };
                    match within("the result", another.observe()).await {
                        Ok(Observed::Returned(_)) => observed += 1,
                        Ok(Observed::Gone | Observed::Interrupted) => {}
                        Err(refused) if matches!(refused.error, asm_tracer::Error::Gone) => {}
                        other => panic!("{other:?}"),
                    }
                }
                assert!(observed >= round % 7, "{observed} of {}", round % 7);
                let status = within("the end", child.wait_with_output()).await.unwrap().status;
                assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
            }
            until("the borrower has ended", || !borrower_runs()).await;
            // The first time, what the process and its runtimes keep for good is there.
            let most = before.replace(open_descriptors());
            until("it has left nothing", || most == 0 || open_descriptors() <= most).await;
        });
        assert_eq!(children(), [0_u32; 0]);
        assert_eq!(
            waitpid(None, Some(WaitPidFlag::__WALL)).unwrap_err(),
            nix::errno::Errno::ECHILD
        );
    });
}

#[test]
fn a_call_of_a_dead_target_is_gone() {
    on_each_runtime(|| async {
        let (child, mut listener) = start(&mut target("calls_for_ever", CALLS, filter()), 1).await;
        let call = within("a call", listener.next()).await.unwrap();
        child.signal(Signal::SIGKILL).unwrap();
        until("it is dead", || !call.is_pending()).await;
        match within("the answer", call.continue_with([0; 6]).into_future()).await {
            Ok(delivery) => assert_eq!(delivery, Delivery::Gone),
            Err(refused) => assert!(matches!(refused.error, asm_tracer::Error::Gone), "{refused:?}"),
        }
    });
}

#[test]
fn the_child_that_waits_for_descriptors_may_be_killed() {
    in_process_of_its_own("ends::the_child_that_waits_for_descriptors_may_be_killed", || {
        on_each_runtime(|| async {
            let (child, mut listener) = start(&mut target("calls_for_ever", CALLS, filter()), 1).await;
            let target = child.id().unwrap();
            for _ in 0..50 {
                let call = within("a call", listener.next()).await.unwrap();
                let another = call.continue_as(Sysno::getpid, [0; 6]).into_future();
                assert_eq!(
                    within("the rewriting", another).await.unwrap(),
                    Delivery::Delivered
                );
                let bells = children().into_iter().filter(|pid| *pid != target);
                for bell in bells {
                    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(bell as i32), Signal::SIGKILL);
                }
            }
        });
    });
}

#[test]
fn a_forked_copy_borrows_by_itself() {
    in_process_of_its_own("ends::a_forked_copy_borrows_by_itself", || {
        let borrow = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let (child, mut listener) = start(&mut target("calls_for_ever", CALLS, filter()), 1).await;
                let call = within("a call", listener.next()).await.unwrap();
                let another = call.continue_as(Sysno::getpid, [0; 6]).observe();
                let observed = within("the result", another).await.unwrap();
                assert_eq!(observed, Observed::Returned(child.id().unwrap().into()));
            });
        };
        borrow();
        assert!(borrower_runs());
        #[allow(unsafe_code)]
        // SAFETY: no other thread of this process holds a lock that the child needs: they wait.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(borrow)).is_ok();
                std::process::exit(if passed { 0 } else { 1 });
            }
            nix::unistd::ForkResult::Parent { child } => {
                let status = waitpid(child, None).unwrap();
                assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0));
            }
        }
        borrow();
    });
}
