//! Finds crashes and hangs by spoiling a few system calls of a program in each of many runs.
//!
//! ```text
//! cargo run --release --example fuzz -- --runs 50 -- sh -c 'ls / | sort'
//! ```
//!
//! `fuzz --help` tells the rest.

#[path = "../common/mod.rs"]
mod common;

mod calls;
mod family;
mod mutation;
mod options;
mod process;
mod random;
mod run;

use std::process::ExitCode;

use common::{Failure, finish, print};
use options::{HELP, Options, Request};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let outcome = match Request::parse(lexopt::Parser::from_env()) {
        Ok(Request::Fuzz(options)) => fuzz(absolute(options)).await,
        Ok(Request::List) => print(&list()),
        Ok(Request::Help) => print(HELP),
        Err(error) => Err(Failure::usage("fuzz", error)),
    };
    finish("fuzz", outcome)
}

async fn fuzz(options: Options) -> Result<u8, Failure> {
    let mut findings = Vec::new();
    for number in 0..options.runs {
        let seed = options.seed.wrapping_add(number);
        let found = run::run(&options, seed).await?;
        let outcome = found.as_ref().map_or("nothing found", |finding| &finding.what);
        print(&format!("run {}, seed {seed}: {outcome}\n", number + 1))?;
        findings.extend(found.map(|finding| (seed, finding)));
    }
    print(&format!(
        "\n{} findings in {} runs\n",
        findings.len(),
        options.runs
    ))?;
    for (seed, finding) in &findings {
        print(&format!("\n{}\n", finding.what))?;
        for detail in &finding.details {
            print(&format!("    {detail}\n"))?;
        }
        print(&format!("    again: {}\n", options.repeat(*seed)))?;
    }
    Ok(u8::from(!findings.is_empty()))
}

/// The program is not started where it was asked for, but in a scratch directory.
fn absolute(mut options: Options) -> Options {
    let is_path = options.program.as_encoded_bytes().contains(&b'/');
    if let Ok(path) = std::path::absolute(&options.program)
        && is_path
    {
        options.program = path.into();
    }
    options
}

fn list() -> String {
    let names = calls::ALL.iter().map(|profile| format!("{}\n", profile.sysno));
    names.collect()
}
