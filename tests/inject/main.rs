//! Fault plans: faults that hit programs as they were told to.

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod creations;
mod deadlines;
mod delays;
mod effects;
mod expressions;
mod hostile;
mod interrupted;
mod lineage;
mod oracle;
mod outside;
mod plans;
mod refused;
mod selection;

use asm_tracer::Command;
use asm_tracer::inject::{Fault, FaultPlan, Outcome};
use support::within;

/// Runs a command under one fault.
async fn run(fault: Fault, command: &mut Command) -> Outcome {
    run_plan(&FaultPlan::from(fault), command).await
}

async fn run_plan(plan: &FaultPlan, command: &mut Command) -> Outcome {
    within("the outcome", plan.run(command)).await.unwrap()
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).env("LC_ALL", "C");
    command
}

/// A program in C, after the prelude of `support::target`.
fn compiled(name: &str, body: &str) -> Command {
    Command::new(support::target::program(name, body))
}

fn stdout(outcome: &Outcome) -> &str {
    std::str::from_utf8(outcome.stdout()).unwrap()
}

fn stderr(outcome: &Outcome) -> &str {
    std::str::from_utf8(outcome.stderr()).unwrap()
}
