//! One supervised call: received and answered in place, beside the blocking loop on the raw ioctls.
#![allow(missing_docs)] // Criterion's macros write a function without.

mod support;

use std::time::{Duration, Instant};

use asm_tracer::{Listener, Supervisor};
use criterion::{Criterion, criterion_group, criterion_main};
use support::floor;
use support::paired::paired;
use support::target::{ANSWER, Target};
use tokio::runtime::{Builder, Runtime};

fn answer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("answer");
    group.sample_size(30);
    let floor_target = Target::start(Duration::ZERO);
    floor::set_sync_wake_up(&floor_target, true);
    let mut floor = |calls| floor::serve(&floor_target, calls);

    let current_thread = Builder::new_current_thread().enable_io().build().unwrap();
    let multi_thread = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_io()
        .build()
        .unwrap();
    for (name, runtime) in [
        ("current_thread", &current_thread),
        ("multi_thread", &multi_thread),
    ] {
        let target = Target::start(Duration::ZERO);
        let mut listener = runtime.block_on(async { Listener::attach(target.duplicate()).unwrap() });
        let subject = |calls| listener_in_place(runtime, &mut listener, calls);
        paired(&mut group, &format!("listener on {name}"), &mut floor, subject);
    }
    let target = Target::start(Duration::ZERO);
    let mut supervisor = Supervisor::new();
    current_thread.block_on(async { supervisor.attach(target.duplicate()).unwrap() });
    let subject = |calls| supervisor_in_place(&current_thread, &mut supervisor, calls);
    paired(&mut group, "supervisor on current_thread", &mut floor, subject);
    group.finish();
}

fn listener_in_place(runtime: &Runtime, listener: &mut Listener, calls: u64) -> Duration {
    runtime.block_on(async {
        let start = Instant::now();
        for _ in 0..calls {
            listener.next().await.unwrap().respond(ANSWER).unwrap();
        }
        start.elapsed()
    })
}

fn supervisor_in_place(runtime: &Runtime, supervisor: &mut Supervisor, calls: u64) -> Duration {
    runtime.block_on(async {
        let start = Instant::now();
        for _ in 0..calls {
            supervisor.next().await.unwrap().respond(ANSWER).unwrap();
        }
        start.elapsed()
    })
}

criterion_group!(benches, answer);
criterion_main!(benches);
