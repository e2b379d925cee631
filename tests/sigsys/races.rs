//! Threads that start while all of them become traced.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

use asm_tracer::filter::Threads;
use asm_tracer::sigsys::Tracer;
use asm_tracer::{Error, Sysno};

use crate::common::{ANSWER, again, answer, assert_traced, call, output_of};
use crate::support::{assert_passed, is_child};

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
