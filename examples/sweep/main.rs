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
mod options;

use std::path::Path;
use std::process::ExitCode;

use asm_tracer::sweep::Report;

use bar::Bar;
use common::{Failure, finish, print};
use options::{HELP, Options, Request};

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
    let bar = Bar::new();
    let sweep = options.sweep.on_progress(bar.watcher());
    let report = tokio::select! {
        report = sweep.run() => report,
        // What was running is killed, and its directories are removed, as the future is dropped.
        _ = tokio::signal::ctrl_c() => return Err(Failure::new("interrupted")),
    };
    bar.clear();
    let report = report.map_err(|error| Failure::not_started(&program, &error))?;
    for (path, text) in [
        (&options.json, Report::to_json(&report)),
        (&options.html, Ok(report.to_html())),
    ] {
        if let Some(path) = path {
            save(path, &text.map_err(|error| Failure::new(error.to_string()))?)?;
        }
    }
    if !options.quiet {
        print(&format!("{report}\n"))?;
    }
    Ok(u8::from(!report.findings().is_empty()))
}

fn save(path: &Path, text: &str) -> Result<(), Failure> {
    let saved = std::fs::write(path, text);
    saved.map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}
