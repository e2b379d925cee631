//! Starts in a supervisor that is out of processes, memory or the runtime's means: each gets an error that says so,
//! nothing is left, and once there is room again the next start works.
#![allow(unsafe_code)]

mod support;

use std::fs::File;
use std::os::fd::AsRawFd;

use asm_tracer::filter::int_arg;
use asm_tracer::{Action, Command, Errno, Error, Filter, SpawnStep, Stdio, Sysno};
use nix::libc;
use support::limit::Lowered;
use support::start::{Leftovers, Way, assert_a_start_works, current_thread, leaving_nothing, run};
use support::{in_process_of_its_own, within};

/// Each registration with the runtime fails in turn, wherever in the start it is.
#[test]
fn a_registration_that_fails_leaves_nothing_behind() {
    let test = "a_registration_that_fails_leaves_nothing_behind";
    leaving_nothing(test, async |before| {
        for way in Way::BOTH {
            for kill_on_drop in [true, false] {
                let mut failures = 0;
                let lowest = File::open("/dev/null").unwrap().as_raw_fd();
                for number in lowest..lowest + 20 {
                    // The filter is for a thread that ends with the attempt; the launcher has none.
                    let attempt = std::thread::spawn(move || {
                        let mut command = Command::new("/bin/sleep");
                        command
                            .arg("1000")
                            .stdin(Stdio::piped())
                            .stdout(Stdio::piped())
                            .kill_on_drop(kill_on_drop);
                        way.apply(&mut command);
                        let runtime = current_thread();
                        let full = [int_arg(1).eq(libc::EPOLL_CTL_ADD), int_arg(2).eq(number)];
                        Filter::new()
                            .rule(Sysno::epoll_ctl, full, Action::Errno(Errno::ENOSPC))
                            .install()
                            .unwrap();
                        runtime.block_on(async {
                            match within("the start", command.spawn()).await {
                                Ok((mut child, _listener)) => child.kill().await.map(|()| false).unwrap(),
                                Err(error) => {
                                    assert!(matches!(error, Error::Io { .. }), "{error:?}");
                                    assert_eq!(error.errno(), Some(Errno::ENOSPC), "{error:?}");
                                    true
                                }
                            }
                        })
                    });
                    failures += u32::from(attempt.join().unwrap());
                    before
                        .assert_soon_none(&format!("descriptor {number} could not be registered"))
                        .await;
                }
                // Two pipes, the socket, the pidfd, the listener.
                assert_eq!(failures, 5, "{way:?}");
            }
        }
    });
}

#[test]
fn a_user_without_processes_left_gets_an_error_that_says_so() {
    let test = "a_user_without_processes_left_gets_an_error_that_says_so";
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: only root can become a user who has no processes");
    }
    in_process_of_its_own(test, || {
        // A user that nobody else is.
        let uid = 0x4000_0000 + std::process::id();
        nix::unistd::setuid(uid.into()).unwrap();
        // SAFETY: makes /proc/self readable again.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
        current_thread().block_on(async {
            let before = Leftovers::now();
            let refused = async |step: SpawnStep| {
                let lowered = Lowered::to(libc::RLIMIT_NPROC, 0);
                let error = within("the error", Command::new("/bin/true").spawn())
                    .await
                    .unwrap_err();
                drop(lowered);
                match &error {
                    Error::OutOfMemory { step: at, source } => {
                        assert_eq!((*at, *source), (step, Errno::EAGAIN))
                    }
                    other => panic!("{other:?}"),
                }
                assert!(error.to_string().contains("raise RLIMIT_NPROC"), "{error}");
                before.assert_none("no processes");
            };
            // The very first start, which needs the launcher.
            refused(SpawnStep::StartLauncher).await;
            assert_a_start_works().await;
            before.assert_none("a start that worked");
            refused(SpawnStep::Clone).await;
            assert_a_start_works().await;
            let mut command = Command::new("/bin/true");
            Way::Forked.apply(&mut command);
            let lowered = Lowered::to(libc::RLIMIT_NPROC, 0);
            let error = within("the error", command.spawn()).await.unwrap_err();
            drop(lowered);
            assert_eq!(error.errno(), Some(Errno::EAGAIN), "{error:?}");
            assert!(run(&mut command).await.unwrap().status.success());
            before.assert_soon_none("everything").await;

            // There is no thread for the reaping either. The next start makes up for it.
            let dropped = Command::new("/bin/true")
                .filter(Filter::trap_all())
                .spawn()
                .await
                .unwrap();
            let lowered = Lowered::to(libc::RLIMIT_NPROC, 0);
            drop(dropped);
            drop(lowered);
            let mut other = Command::new("/nowhere/at/all");
            assert!(within("the error", other.spawn()).await.is_err());
            before.assert_soon_none("a child that was dropped").await;
        });
    });
}

#[test]
fn a_process_without_memory_left_gets_an_error_that_says_so() {
    let test = "a_process_without_memory_left_gets_an_error_that_says_so";
    in_process_of_its_own(test, || {
        current_thread().block_on(async {
            // Room on the heap for what is small, which Rust programs can't do without.
            let room: Vec<Vec<u8>> = (0..256).map(|_| vec![0; 4096]).collect();
            let last = vec![0_u8; 4096];
            drop(room);
            let refused = async |way: Way, step: SpawnStep| {
                let mut command = Command::new("/bin/true");
                way.apply(&mut command);
                let lowered = Lowered::to(libc::RLIMIT_AS, address_space());
                let error = within("the error", command.spawn()).await.unwrap_err();
                drop(lowered);
                match &error {
                    Error::OutOfMemory { step: at, .. } => assert_eq!(*at, step, "{error:?}"),
                    other => panic!("{other:?}"),
                }
                assert!(error.to_string().contains("RLIMIT_AS"), "{error}");
            };
            // The very first starts: no launcher, and no stack for a child that needs one of its own.
            refused(Way::Forked, SpawnStep::StartLauncher).await;
            refused(Way::Shared, SpawnStep::Prepare).await;
            assert_a_start_works().await;
            let before = Leftovers::now();
            for _ in 0..3 {
                refused(Way::Shared, SpawnStep::Prepare).await;
                before.assert_none("no memory");
                assert_a_start_works().await;
            }
            drop(last);
        });
    });
}

/// What this process has mapped, in bytes.
fn address_space() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
}
