//! A sweep of `cp`, beside the same runs by `strace -e inject`, and beside `cp` alone.
//!
//! All run as many at a time, each in a directory of its own in memory, so that no disk is measured. strace compares nothing and does not know which cases there are: it
//! is given those of the sweep, which runs those with a finding twice.

mod support;

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use asm_tracer::sweep::{Report, Sweep};
use support::paired::median;
use tokio::runtime::{Builder, Runtime};

const PROGRAM: [&str; 3] = ["cp", "/etc/passwd", "copy"];
const RUNS: usize = 500;
const SCRATCH: &str = "/dev/shm";

type Prefix = fn(String) -> Vec<String>;

/// What is run in place of the sweep's runs: what stands before the program, for the expression of a case.
const OTHERS: [(&str, Prefix); 3] = [
    ("cp alone", |_| Vec::new()),
    ("strace", |expression| strace(&[], expression)),
    ("strace -f --seccomp-bpf", |expression| {
        strace(&["-f", "--seccomp-bpf"], expression)
    }),
];

fn main() {
    let once = std::env::args().any(|argument| argument == "--test");
    let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
    let jobs = 2 * std::thread::available_parallelism().unwrap().get();
    let mut sweeps = Vec::new();
    let mut others = OTHERS.map(|_| Vec::new());
    for _ in 0..if once { 1 } else { 9 } {
        let start = Instant::now();
        let report = sweep(&runtime, jobs);
        sweeps.push(start.elapsed().as_secs_f64());
        for ((_, prefix), times) in OTHERS.iter().zip(&mut others) {
            times.push(run_each(&report, jobs, *prefix).as_secs_f64());
        }
    }
    println!(
        "a sweep of {RUNS} cases: {:.0} runs a second",
        RUNS as f64 / median(sweeps.iter().copied())
    );
    for ((name, _), times) in OTHERS.iter().zip(&others) {
        let ratios = times.iter().zip(&sweeps).map(|(other, sweep)| other / sweep);
        println!(
            "RATIO {name} / sweep: {:.2} ({:.0} runs a second; medians of {} pairs)",
            median(ratios),
            RUNS as f64 / median(times.iter().copied()),
            times.len()
        );
    }
}

fn sweep(runtime: &Runtime, jobs: usize) -> Report {
    let mut command = asm_tracer::Command::new(PROGRAM[0]);
    command.args(&PROGRAM[1..]);
    let report = runtime.block_on(Sweep::new(command).scratch(SCRATCH).limit(RUNS).jobs(jobs).run());
    let report = report.unwrap();
    assert_eq!(report.trials.len(), RUNS);
    report
}

fn strace(options: &[&str], expression: String) -> Vec<String> {
    let options = ["strace", "-o", "/dev/null"].iter().chain(options);
    let words = options.map(|word| (*word).to_owned());
    // Only the call that is meant is traced, as in the sweep.
    let call = expression
        .strip_prefix("inject=")
        .and_then(|rest| rest.split(':').next());
    let call = format!("trace={}", call.unwrap());
    words
        .chain(["-e".into(), call, "-e".into(), expression])
        .collect()
}

/// Runs the program for each case, with as many at a time.
fn run_each(report: &Report, jobs: usize, prefix: Prefix) -> Duration {
    let scratch = tempfile::tempdir_in(SCRATCH).unwrap();
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(trial) = report.trials.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let directory = tempfile::tempdir_in(&scratch).unwrap();
                    let mut words = prefix(trial.case.strace().unwrap());
                    words.extend(PROGRAM.map(str::to_owned));
                    let mut command = Command::new(&words[0]);
                    command.args(&words[1..]).current_dir(&directory);
                    command.stdin(Stdio::null()).output().unwrap();
                }
            });
        }
    });
    start.elapsed()
}
