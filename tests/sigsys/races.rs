//! Threads that start while all of them become traced.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

use asm_tracer::filter::Threads;
use asm_tracer::sigsys::Tracer;
use asm_tracer::{Error, Sysno};
use nix::libc;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use crate::common::{
    ANSWER, SIGSYS_BIT, again, alone, answer, assert_traced, at, at_mut, call, error, kernel_action,
    output_of, set_mask,
};
use crate::support::{assert_passed, is_child, proc_status, state, until_blocking};

/// The body of a test in twenty processes of their own, one after the other.
fn twenty_times(test: &str, body: impl FnOnce()) {
    if is_child() {
        return body();
    }
    for _ in 0..20 {
        assert_passed(&output_of(&mut again(test)));
    }
}

fn install() -> Result<Tracer, Error> {
    let builder = Tracer::builder().trap([Sysno::getppid, Sysno::rseq, Sysno::set_robust_list]);
    builder.hook(answer).threads(Threads::All).install()
}

// P7
#[test]
fn threads_that_were_just_started_become_traced() {
    twenty_times("races::threads_that_were_just_started_become_traced", || {
        let traced = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let traced = Arc::clone(&traced);
                std::thread::spawn(move || {
                    while !traced.load(SeqCst) {
                        std::thread::yield_now();
                    }
                    call(Sysno::getppid, &[])
                })
            })
            .collect();
        let _tracer = install().unwrap();
        traced.store(true, SeqCst);
        for thread in threads {
            assert_eq!(thread.join().unwrap(), ANSWER);
        }
    });
}

// P7
#[test]
fn threads_that_others_start_meanwhile_do_not_die() {
    twenty_times("races::threads_that_others_start_meanwhile_do_not_die", || {
        let stop = Arc::new(AtomicBool::new(false));
        let starters: Vec<_> = (0..2)
            .map(|_| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || {
                    while !stop.load(SeqCst) {
                        std::thread::spawn(|| call(Sysno::getppid, &[])).join().unwrap();
                    }
                })
            })
            .collect();
        match install() {
            Ok(_tracer) => assert_traced(),
            Err(Error::SigsysBlocked { threads }) => assert!(!threads.is_empty()),
            Err(other) => panic!("{other:?}"),
        }
        stop.store(true, SeqCst);
        for starter in starters {
            starter.join().unwrap();
        }
    });
}

/// Has so many threads that sleep in a call become traced, and lets each make a traced call afterwards.
fn sleepers_become_traced(number: usize) {
    let (reader, writer) = std::io::pipe().unwrap();
    let reader = Arc::new(reader);
    let threads: Vec<_> = (0..number)
        .map(|_| {
            let reader = Arc::clone(&reader);
            let thread = std::thread::Builder::new().stack_size(32 << 10);
            let sleeper = move || {
                assert_eq!((&*reader).read(&mut [0]).unwrap(), 0);
                call(Sysno::getppid, &[])
            };
            thread.spawn(sleeper).unwrap()
        })
        .collect();
    let _tracer = install().unwrap();
    drop(writer);
    for thread in threads {
        assert_eq!(thread.join().unwrap(), ANSWER);
    }
}

// Each is sent the signal until it has the filter, and one that is sent too often arrives when all have it.
#[test]
fn hundreds_of_sleeping_threads_become_traced() {
    twenty_times("races::hundreds_of_sleeping_threads_become_traced", || {
        sleepers_become_traced(400);
    });
}

#[test]
fn thousands_of_sleeping_threads_become_traced() {
    alone(|| sleepers_become_traced(5_000));
}

// P5, P7: the mask that such a thread sleeps with is not the one that it has.
#[test]
fn a_thread_that_opens_its_mask_while_it_sleeps_becomes_traced() {
    alone(|| {
        let (reader, writer) = std::io::pipe().unwrap();
        let (sender, thread_id) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            // SAFETY: asks for a number.
            sender.send(unsafe { libc::gettid() } as u32).unwrap();
            set_mask(u64::MAX);
            let open = 0_u64;
            let mut what = libc::pollfd {
                fd: reader.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            let sleep = [at_mut(&mut what), 1, 0, at(&open), 8];
            while call(Sysno::ppoll, &sleep) == error(libc::EINTR) {}
            call(Sysno::getppid, &[])
        });
        let tid = thread_id.recv().unwrap();
        until_blocking("it sleeps with an open mask", || {
            proc_status(tid, "SigBlk").unwrap() == "0000000000000000" && state(tid) == Some('S')
        });
        let _tracer = install().unwrap();
        drop(writer);
        assert_eq!(thread.join().unwrap(), ANSWER);
    });
}

// P7: what it was sent comes when nobody waits for it any more.
#[test]
fn a_thread_that_begins_to_block_sigsys_meanwhile_does_not_die_later() {
    alone(|| {
        let (sender, thread_id) = std::sync::mpsc::channel();
        let (over, is_over) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            // SAFETY: asks for a number.
            sender.send(unsafe { libc::gettid() }).unwrap();
            // Once it is traced, it does not see the handler.
            while kernel_action(libc::SIGSYS)[0] == 0 && call(Sysno::getppid, &[]) != ANSWER {}
            set_mask(SIGSYS_BIT);
            let _: Result<(), _> = is_over.recv();
            set_mask(0);
            call(Sysno::getppid, &[])
        });
        let tid = thread_id.recv().unwrap();
        match install() {
            Ok(_tracer) => println!("the thread was too late, and is traced"),
            Err(Error::SigsysBlocked { threads }) => assert_eq!(threads, [tid]),
            Err(other) => panic!("{other:?}"),
        }
        drop(over);
        assert!(thread.join().unwrap() > 0);
        assert!(call(Sysno::getppid, &[]) > 0);
    });
}

#[test]
fn a_process_whose_first_thread_has_ended_becomes_traced() {
    alone(|| {
        // SAFETY: the child's one thread starts another one and ends.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                std::thread::spawn(|| {
                    let process = std::process::id();
                    until_blocking("the first thread has ended", || state(process) == Some('Z'));
                    let installed = install();
                    let traced = installed.is_ok() && call(Sysno::getppid, &[]) == ANSWER;
                    // SAFETY: ends the process.
                    unsafe { libc::_exit(if traced { 7 } else { 1 }) };
                });
                call(Sysno::exit, &[0]);
            }
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 7));
            }
        }
    });
}
