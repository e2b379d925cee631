//! Runs a program with the files that it is given and no others.
//!
//! ```text
//! cargo run --release --example sandbox -- --system --allow /tmp/work -- sh -c 'echo hello >/tmp/work/file; cat ~/.ssh/*'
//! ```
//!
//! `sandbox --help` tells the rest.
//!
//! Nothing that another thread, or another process, could change meanwhile is decided on. What a call says is read from the
//! target's memory once. What it means is held by descriptors, looked at, and used by these: opens and connections are
//! emulated, changes are made here, attributes are read here and written to the target. Each call that is let through says
//! why that does no harm (`serve`). Calls that nobody has thought of do not exist (`filter`).

#[path = "../common/mod.rs"]
mod common;

mod change;
mod execute;
mod filter;
mod look;
mod options;
mod policy;
mod serve;
mod signal;

use std::process::ExitCode;
use std::sync::Arc;

use asm_tracer::{Command, Supervisor};
use nix::sys::stat::{Mode, umask};

use common::{Failure, describe, exit_code, finish, print, say};
use options::{HELP, Options};
use serve::Sandbox;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let outcome = match Options::parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => run(options).await,
        Ok(None) => print(HELP),
        Err(error) => Err(Failure::usage("sandbox", error)),
    };
    finish("sandbox", outcome)
}

async fn run(options: Options) -> Result<u8, Failure> {
    let mut command = Command::new(&options.program);
    command
        .args(&options.arguments)
        .filter(filter::filter(options.policy.network));
    let mut supervisor = Supervisor::new();
    let child = supervisor.spawn(&mut command).await;
    let mut child = child.map_err(|error| Failure::not_started(&options.program, &error))?;
    // What is made for the program gets the permissions that its own leaves.
    umask(Mode::empty());
    let sandbox = Arc::new(Sandbox {
        policy: options.policy,
        verbose: options.verbose,
    });
    while let Some(call) = supervisor.next().await {
        let sandbox = Arc::clone(&sandbox);
        // A task for each: a call that takes its time, for whatever reason, keeps nobody else waiting.
        tokio::spawn(async move {
            if let Err(refused) = sandbox.serve(call).await {
                // The call fails with ENOSYS now.
                say(&format!("sandbox: {}", describe(&refused.error)));
            }
        });
    }
    Ok(exit_code(child.wait().await?))
}
