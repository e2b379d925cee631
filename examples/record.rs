//! Records the calls of a program, and of its descendants, as JSON lines.
//!
//! ```text
//! cargo run --features serde --example record -- -o trace.jsonl -- ls /
//! ```

#[path = "common/mod.rs"]
mod common;

use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;

use asm_tracer::record::Recorder;
use asm_tracer::{Command, Error, Filter, Supervisor};
use common::Failure;
use lexopt::prelude::*;

const HELP: &str = "\
Records the system calls of a program and its descendants as JSON lines.

Usage: record -o FILE [-s BYTES] [--] PROGRAM [ARGUMENTS]...

Options:
  -o, --output FILE  where the trace goes
  -s, --size BYTES   how much is recorded of what is written and sent [default: 64]
  -h, --help         print this help

The exit status is that of the program, or 128 and its signal's number.
";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let outcome = match parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => record(options).await,
        Ok(None) => common::print(HELP),
        Err(error) => Err(Failure::usage("record", error)),
    };
    common::finish("record", outcome)
}

struct Options {
    output: PathBuf,
    size: usize,
    program: OsString,
    arguments: Vec<OsString>,
}

/// `None` asks for help.
fn parse(mut parser: lexopt::Parser) -> Result<Option<Options>, lexopt::Error> {
    let (mut output, mut size) = (None, 64);
    let program = loop {
        match parser.next()? {
            Some(Short('o') | Long("output")) => output = Some(parser.value()?.into()),
            Some(Short('s') | Long("size")) => size = parser.value()?.parse()?,
            Some(Short('h') | Long("help")) => return Ok(None),
            Some(Value(program)) => break program,
            Some(unknown) => return Err(unknown.unexpected()),
            None => return Err("no program to run".into()),
        }
    };
    Ok(Some(Options {
        output: output.ok_or("no file for the trace")?,
        size,
        program,
        arguments: parser.raw_args()?.collect(),
    }))
}

async fn record(options: Options) -> Result<u8, Failure> {
    let Options {
        output,
        size,
        program,
        arguments,
    } = options;
    let failed = |error| Failure::new(format!("{}: {error}", output.display()));
    let file = File::create(&output).map_err(failed)?;
    let recorder = Recorder::builder().buffers(size).to_json(file)?;

    let mut supervisor = Supervisor::new();
    let mut command = Command::new(&program);
    command.args(arguments).filter(Filter::trap_all());
    let started = supervisor.spawn(&mut command).await;
    let mut child = started.map_err(|error| Failure::not_started(&program, &error))?;
    while let Some(call) = supervisor.next().await {
        recorder.pass(call).await.map_err(Error::from)?;
    }
    let status = child.wait().await?;

    let finished = recorder.finish().await;
    if finished.dropped > 0 {
        common::say(&format!("record: {} calls are missing", finished.dropped));
    }
    match finished.error {
        Some(error) => Err(failed(error)),
        None => Ok(common::exit_code(status)),
    }
}
