//! A program of which every call is recorded, beside the same supervised without a record, and by strace.
//!
//! It looks for files that are not there, so that each of the calls has a path. What is written goes to `/dev/null`.

mod support;

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use asm_tracer::record::{Builder, Recorder};
use asm_tracer::{Filter, Supervisor, Sysno};
use support::paired::median;
use tokio::runtime::{self, Runtime};

const CALLS: usize = 20_000;
const PROGRAM: [&str; 3] = [
    "bash",
    "-c",
    "for ((i = 0; i < 20000; i++)); do [ -e /no/such/file ]; done; true",
];

type Subject = fn(&Runtime) -> Duration;

/// The first is what the others are compared with.
const SUBJECTS: [(&str, Subject); 6] = [
    ("supervised", |runtime| supervised(runtime, None)),
    ("recorded without paths", |runtime| {
        supervised(runtime, Some(Recorder::builder().paths(false)))
    }),
    ("recorded with paths", |runtime| {
        supervised(runtime, Some(Recorder::builder()))
    }),
    ("recorded with paths, read in place", |runtime| {
        supervised(runtime, Some(Recorder::builder().in_place(true)))
    }),
    ("strace", |_| strace(&[])),
    ("strace --seccomp-bpf", |_| strace(&["-f", "--seccomp-bpf"])),
];

fn main() {
    let once = std::env::args().any(|argument| argument == "--test");
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let alone = median((0..5).map(|_| run(&PROGRAM).as_secs_f64()));
    let mut times = SUBJECTS.map(|_| Vec::new());
    for _ in 0..if once { 1 } else { 9 } {
        for ((_, subject), times) in SUBJECTS.iter().zip(&mut times) {
            times.push(subject(&runtime).as_secs_f64() - alone);
        }
    }
    for ((name, _), own) in SUBJECTS.iter().zip(&times) {
        let ratios = own.iter().zip(&times[0]).map(|(own, floor)| own / floor);
        println!(
            "RATIO {name} / supervised: {:.2} ({:.1} µs a call more than untraced; medians of {} pairs)",
            median(ratios),
            median(own.iter().copied()) * 1e6 / CALLS as f64,
            own.len()
        );
    }
}

fn supervised(runtime: &Runtime, recorder: Option<Builder>) -> Duration {
    let null = File::options().write(true).open("/dev/null").unwrap();
    let recorder = recorder.map(|builder| builder.to_json(null).unwrap());
    runtime.block_on(async {
        let mut supervisor = Supervisor::new();
        let mut command = asm_tracer::Command::new(PROGRAM[0]);
        command.args(&PROGRAM[1..]);
        command.filter(Filter::new().trap(Sysno::newfstatat));
        let start = Instant::now();
        let mut child = supervisor.spawn(&mut command).await.unwrap();
        while let Some(call) = supervisor.next().await {
            match &recorder {
                Some(recorder) => recorder.pass(call).await.unwrap(),
                None => call.continue_syscall().unwrap(),
            };
        }
        assert!(child.wait().await.unwrap().success());
        let took = start.elapsed();
        if let Some(recorder) = recorder {
            let finished = recorder.finish().await;
            assert!(
                finished.written as usize >= CALLS && finished.dropped == 0,
                "{finished:?}"
            );
        }
        took
    })
}

fn strace(options: &[&str]) -> Duration {
    let words = ["strace", "-o", "/dev/null", "-e", "trace=newfstatat"];
    run(&[&words, options, &PROGRAM].concat())
}

fn run(words: &[&str]) -> Duration {
    let start = Instant::now();
    let mut command = Command::new(words[0]);
    assert!(
        command
            .args(&words[1..])
            .stdin(Stdio::null())
            .status()
            .unwrap()
            .success()
    );
    start.elapsed()
}
