//! Fails every call of a program with every error that it documents, one in each run, and says what the program makes of it.
//!
//! ```text
//! cargo run --release --features sweep --example sweep -- cp /etc/passwd copy
//! ```
//!
//! `sweep --help` tells the rest.

#[path = "../common/mod.rs"]
mod common;

mod bar;
mod names;
mod options;
mod saved;
mod stop;
mod words;

use std::process::ExitCode;

use asm_tracer::sweep::Report;

use bar::Bar;
use common::{Failure, finish, print, say};
use options::{HELP, Options, Request};
use stop::Stop;

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Request::parse(lexopt::Parser::from_env()) {
        Ok(Request::Sweep(options)) => sweep(*options).await,
        Ok(Request::Help) => print(HELP),
        Err(error) => Err(Failure::usage("sweep", error)),
    };
    finish("sweep", outcome)
}

async fn sweep(options: Options) -> Result<u8, Failure> {
    let program = options.program.clone();
    let stop = Stop::catch().map_err(|error| Failure::new(format!("handling signals: {error}")));
    let mut stop = stop?;
    let bar = Bar::new();
    let sweep = options.sweep.on_progress(bar.watcher());
    let ended = tokio::select! {
        report = sweep.run() => Ok(report),
        // What was running is killed, and its directories are removed, as the future is dropped.
        signal = stop.signal() => Err(signal),
    };
    bar.clear();
    let report = match ended {
        Ok(report) => report.map_err(|error| Failure::not_started(&program, &error))?,
        Err(signal) => {
            say("sweep: interrupted");
            return Ok(128 + signal);
        }
    };
    // Before the files, of which one may turn out to be on a full disk.
    let printed = match options.quiet {
        true => Ok(0),
        false => print(&format!("{report}\n")),
    };
    if let Some(file) = options.json {
        let text = Report::to_json(&report).map_err(|error| Failure::new(error.to_string()))?;
        file.write(&(text + "\n"))?;
    }
    if let Some(file) = options.html {
        file.write(&report.to_html())?;
    }
    printed?;
    Ok(u8::from(!report.findings().is_empty()))
}
