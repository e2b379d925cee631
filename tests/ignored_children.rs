//! A process that ignores `SIGCHLD`: the kernel reaps its children, and nobody learns how they ended.
#![allow(unsafe_code)]

mod support;

use asm_tracer::{Command, Errno, Error, SpawnStep};
use nix::libc;
use nix::sys::signal::{SigHandler, Signal, signal};
use support::start::{Way, assert_a_start_works, leaving_nothing, run};
use support::within;

#[test]
fn a_process_that_ignores_its_children_learns_nothing_of_their_ends() {
    let test = "a_process_that_ignores_its_children_learns_nothing_of_their_ends";
    leaving_nothing(test, async |before| {
        // SAFETY: no handler is involved.
        let before_that = unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn).unwrap() };
        for way in Way::BOTH {
            let mut command = Command::new("true");
            way.apply(&mut command);
            let error = run(&mut command).await.unwrap_err();
            assert!(matches!(error, Error::Reaped), "{error:?}");
            assert!(error.to_string().contains("SIGCHLD ignored"), "{error}");

            // What kept the program from running is known all the same.
            let mut command = Command::new("/nowhere/at/all");
            way.apply(&mut command);
            let error = within("the error", command.spawn()).await.unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::Spawn {
                        step: SpawnStep::Exec,
                        source: Errno::ENOENT
                    }
                ),
                "{error:?}"
            );
        }
        before.assert_none("ignored children");
        // SAFETY: as above.
        unsafe { signal(Signal::SIGCHLD, before_that).unwrap() };
        assert_a_start_works().await;
    });
}

/// The same for a fork that has ended before it can be taken hold of: its pid may be another process's then.
#[test]
fn a_fork_that_ends_at_once_and_is_ignored_has_said_why() {
    let test = "a_fork_that_ends_at_once_and_is_ignored_has_said_why";
    leaving_nothing(test, async |before| {
        yield_to_children(launcher());
        // SAFETY: no handler is involved.
        unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn).unwrap() };
        for _ in 0..20 {
            let mut command = Command::new("/nowhere/at/all");
            Way::Forked.apply(&mut command);
            let error = within("the error", command.spawn()).await.unwrap_err();
            assert_eq!(error.errno(), Some(Errno::ENOENT), "{error:?}");
            before.assert_none("a fork that failed");
            let mut command = Command::new("true");
            Way::Forked.apply(&mut command);
            let error = run(&mut command).await.unwrap_err();
            assert!(matches!(error, Error::Reaped), "{error:?}");
        }
    });
}

/// The thread that makes the children.
fn launcher() -> i32 {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|task| task.unwrap().path())
        .find(|task| {
            std::fs::read_to_string(task.join("comm"))
                .unwrap()
                .starts_with("asm_tracer-lau")
        })
        .and_then(|task| task.file_name()?.to_str()?.parse().ok())
        .unwrap()
}

/// Has a thread run only while its children, on the same CPU, have nothing to do.
fn yield_to_children(tid: i32) {
    // SAFETY: reads and writes a set of CPUs and a priority.
    unsafe {
        let mut cpus: libc::cpu_set_t = std::mem::zeroed();
        let size = size_of_val(&cpus);
        assert_eq!(libc::sched_getaffinity(0, size, &raw mut cpus), 0);
        let first = (0..libc::CPU_SETSIZE as usize).find(|cpu| libc::CPU_ISSET(*cpu, &cpus));
        libc::CPU_ZERO(&mut cpus);
        libc::CPU_SET(first.unwrap(), &mut cpus);
        assert_eq!(libc::sched_setaffinity(tid, size, &raw const cpus), 0);
        let lowest = libc::sched_param { sched_priority: 0 };
        let policy = libc::SCHED_IDLE | libc::SCHED_RESET_ON_FORK;
        assert_eq!(libc::sched_setscheduler(tid, policy, &raw const lowest), 0);
    }
}
