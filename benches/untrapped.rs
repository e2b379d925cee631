//! A call that the filter lets pass: under 400 rules, beside a filter of one instruction and no filter at all.
#![allow(unsafe_code)]
#![allow(missing_docs)] // Criterion's macros write a function without.

mod support;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use asm_tracer::{Errno, Filter};
use criterion::{Criterion, criterion_group, criterion_main};
use support::paired::paired;

/// A thread under a filter, which makes calls when asked to.
struct Caller {
    ask: Sender<u64>,
    took: Receiver<Duration>,
}

impl Caller {
    fn new(filter: Option<Filter>) -> Self {
        let (ask, asked) = channel();
        let (answer, took) = channel();
        std::thread::spawn(move || {
            if let Some(filter) = filter {
                filter.install().unwrap();
            }
            for calls in asked {
                let start = Instant::now();
                for _ in 0..calls {
                    // SAFETY: asks for a number.
                    unsafe { libc::syscall(libc::SYS_getppid) };
                }
                answer.send(start.elapsed()).unwrap();
            }
        });
        Self { ask, took }
    }

    fn call(&self, calls: u64) -> Duration {
        self.ask.send(calls).unwrap();
        self.took.recv().unwrap()
    }
}

fn untrapped(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("untrapped");
    group.sample_size(30);
    let none = Caller::new(None);
    // The library's own filter of no rules is already three comparisons; this is one instruction.
    let allow_all = allow_all();
    let rules = Filter::new().errno((1000..1400).collect::<Vec<i64>>(), Errno::EPERM);
    let rules = Caller::new(Some(rules));
    paired(
        &mut group,
        "allow-all over no filter",
        |n| none.call(n),
        |n| allow_all.call(n),
    );
    paired(
        &mut group,
        "400 rules over allow-all",
        |n| allow_all.call(n),
        |n| rules.call(n),
    );
    group.finish();
}

/// A thread under a program of the one instruction "allow".
fn allow_all() -> Caller {
    let caller = std::thread::spawn(|| {
        let mut allow = libc::sock_filter {
            code: 0x06,
            jt: 0,
            jf: 0,
            k: libc::SECCOMP_RET_ALLOW,
        };
        let program = libc::sock_fprog {
            len: 1,
            filter: &raw mut allow,
        };
        // SAFETY: a flag of this thread, and a program that is alive. The caller's thread inherits the filter.
        unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            let set = libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &raw const program,
            );
            assert_eq!(set, 0);
        }
        Caller::new(None)
    });
    caller.join().unwrap()
}

criterion_group!(benches, untrapped);
criterion_main!(benches);
