//! The wake-up policy beside always on and always off, over children and the work that they do between calls.
#![allow(missing_docs)] // Criterion's macros write a function without.

mod support;

use std::time::{Duration, Instant};

use asm_tracer::{Supervisor, WakeUp};
use criterion::{Criterion, criterion_group, criterion_main};
use support::paired::paired;
use support::target::{ANSWER, Target};
use tokio::runtime::{Builder, Runtime};

/// Each policy has children of its own, which stand still while another one is measured.
struct Bench {
    supervisor: Supervisor,
    _targets: Vec<Target>,
}

impl Bench {
    fn new(runtime: &Runtime, policy: WakeUp, children: usize, work: Duration) -> Self {
        let targets: Vec<_> = (0..children).map(|_| Target::start(work)).collect();
        let mut supervisor = Supervisor::new();
        supervisor.set_wake_up(policy);
        runtime.block_on(async {
            for target in &targets {
                supervisor.attach(target.duplicate()).unwrap();
            }
        });
        Self {
            supervisor,
            _targets: targets,
        }
    }

    fn serve(&mut self, runtime: &Runtime, calls: u64) -> Duration {
        runtime.block_on(async {
            let start = Instant::now();
            for _ in 0..calls {
                self.supervisor.next().await.unwrap().respond(ANSWER).unwrap();
            }
            start.elapsed()
        })
    }
}

fn wake_up(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wake_up");
    group
        .sample_size(12)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4));
    let runtime = Builder::new_current_thread().enable_io().build().unwrap();
    for children in [1, 2, 8, 32] {
        for work in [0, 5, 50].map(Duration::from_micros) {
            let bench = |policy| Bench::new(&runtime, policy, children, work);
            let mut on = bench(WakeUp::Synchronous);
            let mut off = bench(WakeUp::Asynchronous);
            let mut adaptive = bench(WakeUp::Adaptive);
            // The better of the two, in every pair.
            let better = |calls| on.serve(&runtime, calls).min(off.serve(&runtime, calls));
            let name = format!("{children} children, {} µs of work", work.as_micros());
            paired(&mut group, &name, better, |calls| adaptive.serve(&runtime, calls));
        }
    }
    group.finish();
}

criterion_group!(benches, wake_up);
criterion_main!(benches);
