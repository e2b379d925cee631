//! One call answered by a hook on a thread, beside the blocking loop on the raw ioctls.
#![allow(missing_docs)] // Criterion's macros write a function without.

mod support;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use asm_tracer::blocking::{TracedChild, Tracer};
use asm_tracer::{Command, Filter, Notification, Sysno, TrappedSyscall};
use criterion::{Criterion, criterion_group};
use support::floor;
use support::paired::paired;
use support::target::{ANSWER, Target, call_for_ever};

/// Tells this program to be the target.
const TARGET: &str = "ASM_TRACER_BENCH_TARGET";

/// Counts calls off, and freezes the target between the samples.
struct Stopwatch {
    samples: Receiver<u64>,
    results: Sender<Duration>,
    start: Option<Instant>,
    left: u64,
}

impl Stopwatch {
    fn new() -> (Self, impl FnMut(u64) -> Duration) {
        let ((sample, samples), (results, result)) = (channel(), channel());
        let stopwatch = Self {
            samples,
            results,
            start: None,
            left: 0,
        };
        let measure = move |calls| {
            sample.send(calls).unwrap();
            result.recv().unwrap()
        };
        (stopwatch, measure)
    }

    fn count(&mut self) {
        if self.left == 0 {
            if let Some(start) = self.start {
                self.results.send(start.elapsed()).unwrap();
            }
            // Once nobody measures any more, the child is about to be killed.
            self.left = self.samples.recv().unwrap_or(u64::MAX);
            self.start = Some(Instant::now());
        }
        self.left -= 1;
    }
}

fn start(tracer: Tracer) -> TracedChild {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(TARGET, "1");
    command.filter(Filter::new().trap(Sysno::getppid));
    tracer.spawn(&mut command).unwrap()
}

fn blocking(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("blocking");
    group.sample_size(30);
    let floor_target = Target::start(Duration::ZERO);
    floor::set_sync_wake_up(&floor_target, true);
    let mut floor = |calls| floor::serve(&floor_target, calls);

    let (mut stopwatch, measure) = Stopwatch::new();
    let child = start(Tracer::new(move |_: &TrappedSyscall| {
        stopwatch.count();
        Some(ANSWER)
    }));
    paired(&mut group, "hook that gives a value", &mut floor, measure);
    drop(child);

    let (mut stopwatch, measure) = Stopwatch::new();
    let child = start(Tracer::with_notifications(move |call: Notification| {
        stopwatch.count();
        call.respond(ANSWER).unwrap();
    }));
    paired(&mut group, "hook that gets the notification", &mut floor, measure);
    drop(child);
    group.finish();
}

criterion_group!(benches, blocking);

fn main() {
    if std::env::var_os(TARGET).is_some() {
        call_for_ever(Duration::ZERO);
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
