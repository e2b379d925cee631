//! One call of a process that traces itself, beside the least that a handler for SIGSYS can do.
//!
//! Each is measured in a process of its own, which is this program again.
#![allow(missing_docs)] // Criterion's macros write a function without.
#![allow(unsafe_code)]

#[path = "../support/mod.rs"]
mod support;

mod bare;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use asm_tracer::sigsys::Tracer;
use asm_tracer::{Sysno, TrappedSyscall};
use criterion::{Criterion, criterion_group};
use support::paired::paired;

/// Tells this program what to be measured as.
const ROLE: &str = "ASM_TRACER_BENCH_ROLE";
/// Tells it how many threads are to make the calls while another one reads the events; 0 if it is the first one, and nobody reads.
const THREADS: &str = "ASM_TRACER_BENCH_THREADS";

/// A process that makes as many calls as it is told, and says how long they took.
struct Subject {
    child: Child,
    orders: ChildStdin,
    results: BufReader<ChildStdout>,
    /// How many calls there was no room for in the last measurement.
    lost: u64,
}

impl Subject {
    fn start(role: &str) -> Self {
        Self::start_with(role, 0)
    }

    fn start_with(role: &str, threads: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(ROLE, role)
            .env(THREADS, threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (orders, results) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self {
            child,
            orders,
            results: BufReader::new(results),
            lost: 0,
        }
    }

    fn measure(&mut self, calls: u64) -> Duration {
        writeln!(self.orders, "{calls}").unwrap();
        let mut line = String::new();
        self.results.read_line(&mut line).unwrap();
        let (took, lost) = line.trim().split_once(' ').unwrap();
        self.lost = lost.parse().unwrap();
        Duration::from_nanos(took.parse().unwrap())
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn synthetic(_: &mut TrappedSyscall) -> Option<i64> {
    Some(42)
}

fn look(call: &mut TrappedSyscall) -> Option<i64> {
    (call.args[5] == 4711).then_some(42)
}

fn rewrite(call: &mut TrappedSyscall) -> Option<i64> {
    call.args[5] = 7;
    None
}

/// Takes on a role, and gives the call to be made over and over.
fn prepare(role: &str) -> (i64, Option<Tracer>) {
    let trapped = Sysno::getppid;
    let tracer = Tracer::builder().trap(trapped).capacity(1 << 14);
    let installed = match role {
        "bare synthetic" => {
            bare::install(bare::synthetic);
            None
        }
        "bare gate" => {
            bare::install(bare::gate);
            None
        }
        "allow all" => {
            asm_tracer::Filter::new().install().unwrap();
            return (Sysno::getpgrp.id().into(), None);
        }
        "untrapped" => return (Sysno::getpgrp.id().into(), Some(tracer.install().unwrap())),
        "dropped" => {
            drop(tracer.install().unwrap());
            None
        }
        "ring" => Some(tracer.install().unwrap()),
        "hook" => Some(tracer.hook(look).install().unwrap()),
        "synthetic" => Some(tracer.hook(synthetic).install().unwrap()),
        "rewrite" => Some(tracer.hook(rewrite).install().unwrap()),
        "results" => Some(tracer.hook(look).results(true).install().unwrap()),
        other => panic!("{other}"),
    };
    (trapped.id().into(), installed)
}

fn be(role: &str) {
    // Not through the crate's own stubs, which no filter of its own traps.
    // SAFETY: asks for a number.
    let call = |number: i64| unsafe { libc::syscall(number, 1, 2, 3, 4, 5, 6) };
    let (number, tracer) = prepare(role);
    let threads: u64 = std::env::var(THREADS).unwrap().parse().unwrap();
    let dropped = || tracer.as_ref().map_or(0, |tracer| tracer.statistics().dropped);
    for line in std::io::stdin().lines() {
        let calls: u64 = line.unwrap().parse().unwrap();
        let make = || {
            for _ in 0..calls {
                call(number);
            }
        };
        let before = dropped();
        let took = match threads {
            0 => timed(make),
            _ => together(threads, make, || {
                if let Some(tracer) = &tracer {
                    tracer.drain().unwrap();
                }
                std::thread::sleep(Duration::from_millis(1));
            }),
        };
        let lost = dropped() - before;
        if let Some(tracer) = &tracer {
            // So that there is room for the next sample; the losses of this one are none of its cost.
            tracer.drain().unwrap();
        }
        println!("{} {lost}", took.as_nanos());
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// From when all threads are there until the last one is done.
fn together(threads: u64, work: impl Fn() + Sync, read: impl Fn() + Sync) -> Duration {
    let (barrier, done) = (Barrier::new(threads as usize + 1), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                read();
            }
        });
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    work();
                })
            })
            .collect();
        let took = timed(|| {
            barrier.wait();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        done.store(true, Ordering::Relaxed);
        took
    })
}

fn sigsys(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sigsys");
    group.sample_size(30);
    for (name, floor, subject) in [
        ("a value of the hook's, recorded", "bare synthetic", "synthetic"),
        ("the real call, tracer dropped", "bare gate", "dropped"),
        ("the real call, recorded", "bare gate", "ring"),
        ("the real call, hook and recorded", "bare gate", "hook"),
        ("a rewritten call, recorded", "bare gate", "rewrite"),
        ("the real call, hook, and result recorded", "bare gate", "results"),
        ("an untrapped call", "allow all", "untrapped"),
    ] {
        let (mut floor, mut subject) = (Subject::start(floor), Subject::start(subject));
        paired(
            &mut group,
            name,
            |calls| floor.measure(calls),
            |calls| subject.measure(calls),
        );
    }
    group.finish();
}

/// Many threads at once: calls in a second, with and without the ring, and how many of the recorded calls it had no room for.
fn producers(_: &mut Criterion) {
    const EACH: u64 = 100_000;
    for threads in [1, 2, 8] {
        for role in ["bare gate", "ring"] {
            let mut subject = Subject::start_with(role, threads);
            subject.measure(EACH / 10);
            let took = subject.measure(EACH);
            let rate = (threads * EACH) as f64 / took.as_secs_f64();
            let lost = subject.lost as f64 / (threads * EACH) as f64 * 100.0;
            println!("sigsys/{threads} producers, {role}: {rate:.0} calls/s, {lost:.1} % lost");
        }
    }
}

criterion_group!(benches, sigsys, producers);

fn main() {
    if let Ok(role) = std::env::var(ROLE) {
        return be(&role);
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
