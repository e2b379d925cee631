//! Starts in a supervisor that is out of descriptors: each gets an error that says so, nothing is left, and once there
//! is room again the next start works.
#![allow(unsafe_code)]

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;

use asm_tracer::{Command, Errno, Error, Filter, KernelSupport, SpawnStep, Stdio};
use nix::libc;
use support::limit::Lowered;
use support::start::{Way, assert_a_start_works, current_thread, descriptors, leaving_nothing, run};
use support::{in_process_of_its_own, until, within};

/// Leaves so many descriptors free, until the two are dropped.
fn free_descriptors(count: u64) -> (Vec<File>, Lowered) {
    // Every number below the limit is taken, so that the limit alone counts.
    let mut fillers = Vec::new();
    let highest = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .max();
    let limit: i32 = highest.unwrap_or(2) + 1;
    loop {
        let filler = File::open("/dev/null").unwrap();
        if filler.as_raw_fd() >= limit {
            break;
        }
        fillers.push(filler);
    }
    (fillers, Lowered::to(libc::RLIMIT_NOFILE, limit as u64 + count))
}

fn assert_out_of_descriptors(error: &Error, what: &str) -> SpawnStep {
    let Error::OutOfDescriptors { step, source } = error else {
        panic!("{what}: {error:?}");
    };
    assert_eq!(*source, Errno::EMFILE, "{what}");
    let text = error.to_string();
    assert!(text.contains("close some or raise RLIMIT_NOFILE"), "{text}");
    *step
}

#[test]
fn a_start_needs_few_descriptors_and_says_when_there_are_none() {
    let test = "a_start_needs_few_descriptors_and_says_when_there_are_none";
    leaving_nothing(test, async |before| {
        for way in Way::BOTH {
            for piped in [false, true] {
                for trap_initial_exec in [false, true] {
                    let mut steps = Vec::new();
                    for free in 0_u64.. {
                        let mut command = Command::new("/bin/true");
                        if piped {
                            command
                                .stdin(Stdio::piped())
                                .stdout(Stdio::null())
                                .stderr(Stdio::piped());
                        }
                        way.apply(command.trap_initial_exec(trap_initial_exec));
                        // What the one before still had open would be free later.
                        before.assert_soon_none("the one before").await;
                        let limit = free_descriptors(free);
                        let started = within("the start", command.spawn()).await;
                        drop(limit);
                        let what =
                            format!("{free} free, {way:?}, piped {piped}, trapped {trap_initial_exec}");
                        match started {
                            Ok((child, listener)) => {
                                let output = support::start::finish(child, listener).await.unwrap();
                                assert!(output.status.success(), "{what}");
                                break;
                            }
                            Err(error) => {
                                steps.push(assert_out_of_descriptors(&error, &what));
                                before.assert_none(&what);
                            }
                        }
                        assert!(run(&mut command).await.unwrap().status.success(), "{what}");
                    }
                    // The socket's two ends, and the pidfd; the listener comes when the child's end is closed.
                    let pipes = if piped { 5 } else { 0 };
                    let mut expected = vec![SpawnStep::Prepare; pipes + 2];
                    expected.push(SpawnStep::Clone);
                    assert_eq!(
                        steps, expected,
                        "{way:?}, piped {piped}, trapped {trap_initial_exec}"
                    );
                }
            }
        }
    });
}

#[test]
fn the_first_start_of_a_process_may_be_out_of_descriptors() {
    let test = "the_first_start_of_a_process_may_be_out_of_descriptors";
    in_process_of_its_own(test, || {
        current_thread().block_on(async {
            for free in 0..3 {
                let limit = free_descriptors(free);
                let error = within("the error", Command::new("/bin/true").spawn())
                    .await
                    .unwrap_err();
                drop(limit);
                assert_out_of_descriptors(&error, &format!("{free} free"));
            }
            // What the kernel offers was not misjudged meanwhile.
            assert_a_start_works().await;
            let kernel = *KernelSupport::get();
            let fresh = support::rerun("print_what_the_kernel_offers").output().unwrap();
            let fresh = String::from_utf8(fresh.stdout).unwrap();
            assert!(fresh.contains(&format!("<{kernel}>")), "{kernel} and not {fresh}");
        });
    });
}

/// What [`the_first_start_of_a_process_may_be_out_of_descriptors`] compares with.
#[test]
fn print_what_the_kernel_offers() {
    println!("<{}>", KernelSupport::get());
}

/// The listener arrives when this process has no number for it, because the child itself sees to that.
#[test]
fn a_listener_that_can_not_be_received_leaves_nothing_behind() {
    let test = "a_listener_that_can_not_be_received_leaves_nothing_behind";
    leaving_nothing(test, async |before| {
        for _ in 0..10 {
            let restored = Lowered::to(libc::RLIMIT_NOFILE, 1 << 10);
            let none = libc::rlimit {
                rlim_cur: 3,
                ..restored.before
            };
            let supervisor = std::process::id() as libc::pid_t;
            let (reader, writer) = std::io::pipe().unwrap();
            let lower = move || {
                (&reader).read_exact(&mut [0])?;
                // SAFETY: reads one struct.
                let lowered = unsafe {
                    libc::prlimit(
                        supervisor,
                        libc::RLIMIT_NOFILE,
                        &raw const none,
                        std::ptr::null_mut(),
                    )
                };
                Errno::result(lowered).map(drop).map_err(std::io::Error::from)
            };
            let mut command = Command::new("/bin/true");
            // SAFETY: the closure makes system calls.
            unsafe { command.pre_exec(lower) };
            // The start has its pidfd before the child goes on.
            let go = async {
                until("there is a pidfd", || {
                    descriptors().values().any(|target| target.contains("pidfd"))
                })
                .await;
                (&writer).write_all(&[0]).unwrap();
            };
            let (started, ()) = within("the error", futures::future::join(command.spawn(), go)).await;
            drop((restored, command, writer));
            let step = assert_out_of_descriptors(&started.unwrap_err(), "no number for the listener");
            assert_eq!(step, SpawnStep::Receive);
            before.assert_none("a listener that could not be received");
            assert_a_start_works().await;
        }
    });
}

/// A start that is given up when there is no descriptor for the bell of the thread that reaps.
#[test]
fn a_start_that_is_dropped_without_free_descriptors_leaves_nothing_behind() {
    let test = "a_start_that_is_dropped_without_free_descriptors_leaves_nothing_behind";
    leaving_nothing(test, async |before| {
        for way in Way::BOTH {
            let mut command = Command::new("/bin/true");
            way.apply(command.filter(Filter::trap_all()));
            let (child, listener) = command.spawn().await.unwrap();
            // Nor does closing some make one free.
            let limit = Lowered::to(libc::RLIMIT_NOFILE, 3);
            drop((child, listener));
            // Nothing else happens that would remind the library of it.
            before.assert_soon_reaped("a child that was dropped").await;
            drop(limit);
            before.assert_soon_none("a child that was dropped").await;
        }
    });
}
