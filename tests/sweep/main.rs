//! Sweeps: programs of which every call fails once, in every way that it documents.
#![cfg(feature = "sweep")]

#[path = "../support/mod.rs"]
mod support;

mod confined;
mod journal;
mod limits;
mod lineages;
mod programs;
mod strace;
mod unstable;
mod verdicts;

use std::ffi::OsStr;
use std::pin::Pin;

use asm_tracer::Command;
use asm_tracer::sweep::{Report, Sweep, Trial};
use support::within;

async fn run(sweep: Sweep) -> Report {
    within("the sweep", sweep.run()).await.unwrap()
}

/// Runs a sweep until so many cases are done, and gives the rest.
async fn begun(sweep: Sweep, done: usize) -> Pin<Box<dyn Future<Output = asm_tracer::Result<Report>>>> {
    let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
    let sweep = sweep.on_progress(move |progress| _ = send.send(progress.done));
    let mut running = Box::pin(sweep.run());
    tokio::select! {
        report = &mut running => panic!("{report:?}"),
        () = async { while receive.recv().await.unwrap() < done {} } => running,
    }
}

fn command<I: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = I>) -> Command {
    let mut command = Command::new(program);
    command.args(args).env("LC_ALL", "C");
    command
}

/// Not dash, whose forks fail if the end of a child interrupts them before they are received.
fn shell(script: &str) -> Command {
    command("/bin/bash", ["-c", script])
}

fn trial<'a>(report: &'a Report, case: &str) -> &'a Trial {
    let case = case.parse().unwrap();
    let found = report.trials.iter().find(|trial| trial.case == case);
    found.unwrap_or_else(|| panic!("{case} is not there:\n{report}"))
}
