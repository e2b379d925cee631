//! A descriptor for a target, and a duplicate of one of its own, beside a plain answer on the raw ioctls.
#![allow(missing_docs)] // Criterion's macros write a function without.

mod support;

use std::fs::File;
use std::time::{Duration, Instant};

use asm_tracer::{InstallFd, Listener, Notification};
use criterion::{Criterion, criterion_group, criterion_main};
use support::floor;
use support::paired::paired;
use support::target::{ANSWER, Target};
use tokio::runtime::{Builder, Runtime};

fn descriptors(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("descriptors");
    group.sample_size(30);
    let floor_target = Target::start(Duration::ZERO);
    floor::set_sync_wake_up(&floor_target, true);
    let mut floor = |calls| floor::serve(&floor_target, calls);
    let runtime = Builder::new_current_thread().enable_io().build().unwrap();
    let null = File::open("/dev/null").unwrap();

    let answers: [(&str, &dyn Fn(Notification)); 4] = [
        ("respond", &|call| {
            call.respond(ANSWER).unwrap();
        }),
        // The target takes this number alone for an answer, and shares the table of this process.
        ("respond_with_fd", &|call| {
            let options = InstallFd::new().replace(ANSWER as i32);
            call.respond_with_fd(&null, options).unwrap();
        }),
        ("install_fd, then respond", &|call| {
            call.install_fd(&null, InstallFd::new().replace(ANSWER as i32))
                .unwrap();
            call.respond(ANSWER).unwrap();
        }),
        ("target_fd, then respond", &|call| {
            call.target_fd(0).unwrap();
            call.respond(ANSWER).unwrap();
        }),
    ];
    for (name, answer) in answers {
        let target = Target::start(Duration::ZERO);
        let mut listener = runtime.block_on(async { Listener::attach(target.duplicate()).unwrap() });
        let subject = |calls| serve(&runtime, &mut listener, calls, answer);
        paired(&mut group, name, &mut floor, subject);
    }
    group.finish();
}

fn serve(runtime: &Runtime, listener: &mut Listener, calls: u64, answer: impl Fn(Notification)) -> Duration {
    runtime.block_on(async {
        let start = Instant::now();
        for _ in 0..calls {
            answer(listener.next().await.unwrap());
        }
        start.elapsed()
    })
}

criterion_group!(benches, descriptors);
criterion_main!(benches);
