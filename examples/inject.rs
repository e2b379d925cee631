//! Runs a program with faults injected into its system calls, and says what came of it.
//!
//! ```text
//! cargo run --example inject -- -e write:error=ENOSPC:when=1 -- cp Cargo.toml /tmp/copy
//! ```
//!
//! `inject --help` tells the rest.

use std::error::Error as _;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use asm_tracer::inject::{FaultPlan, Outcome, ParseFaultError};
use asm_tracer::{Command, Errno, Error, SpawnStep};
use lexopt::prelude::*;

const HELP: &str = "\
Runs a program with faults injected into its system calls and those of its descendants.

Usage: inject [OPTIONS] [--] PROGRAM [ARGUMENTS]...

Options:
  -e, --inject EXPRESSION  a fault, as `strace -e inject=` takes it; several compose
  -a, --all                record all calls, not only those that faults are about
  -q, --quiet              say nothing
      --seed N             the seed of faults with a probability [default: 0]
      --timeout MS         kill the program after so many milliseconds
  -h, --help               print this help

EXPRESSION is
  [?]CALL,...[:error=ERRNO|:retval=VALUE][:signal=SIGNAL][:delay_enter=DELAY]
  [:delay_exit=DELAY][:when=FIRST[..LAST][+[STEP]]]

What has hit is told on the standard error when the program has ended.

The exit status is that of the program, or 128 and its signal's number.
It is 124 after a timeout, 125 if inject itself fails, 126 if the program can't
be executed, and 127 if there is no such program.
";

struct Options {
    plan: FaultPlan,
    quiet: bool,
    program: OsString,
    arguments: Vec<OsString>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => match run(&options).await {
            Ok(outcome) => {
                if !options.quiet {
                    say(&outcome);
                }
                code(&outcome).into()
            }
            Err(error) => {
                let (code, cause) = explain(&error);
                say(&format!("{}: {cause}", options.program.display()));
                code.into()
            }
        },
        Ok(None) => {
            let _ = io::stdout().write_all(HELP.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&format!("{error}\nTry `inject --help`."));
            ExitCode::from(125)
        }
    }
}

/// The program's own streams stay its own.
async fn run(options: &Options) -> asm_tracer::Result<Outcome> {
    let mut command = Command::new(&options.program);
    command.args(&options.arguments);
    options.plan.spawn(&mut command).await?.outcome().await
}

/// Reads the command line; `None` asks for help.
fn parse(mut parser: lexopt::Parser) -> Result<Option<Options>, lexopt::Error> {
    let mut plan = FaultPlan::new().no_deadline();
    let mut quiet = false;
    let program = loop {
        match parser.next()? {
            Some(Short('e') | Long("inject")) => {
                let expression = parser.value()?.string()?;
                let fault = plan.with_expression(&expression);
                plan = fault.map_err(|error: ParseFaultError| error.to_string())?;
            }
            Some(Short('a') | Long("all")) => plan = plan.watch_all(),
            Some(Short('q') | Long("quiet")) => quiet = true,
            Some(Long("seed")) => plan = plan.seed(parser.value()?.parse()?),
            Some(Long("timeout")) => {
                plan = plan.deadline(Duration::from_millis(parser.value()?.parse()?));
            }
            Some(Short('h') | Long("help")) => return Ok(None),
            Some(Value(program)) => break program,
            Some(unknown) => return Err(unknown.unexpected()),
            None => return Err("no program to run".into()),
        }
    };
    let arguments = parser.raw_args()?.collect();
    Ok(Some(Options {
        plan,
        quiet,
        program,
        arguments,
    }))
}

fn code(outcome: &Outcome) -> u8 {
    let status: ExitStatus = outcome.status();
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    match outcome.hung() {
        Some(_) => 124,
        None => code.and_then(|code| u8::try_from(code).ok()).unwrap_or(125),
    }
}

/// Why the program did not run, and the exit status of `env(1)` for it.
fn explain(error: &Error) -> (u8, String) {
    match error {
        Error::Spawn {
            step: SpawnStep::Exec,
            source,
        } => (
            if *source == Errno::ENOENT { 127 } else { 126 },
            source.desc().into(),
        ),
        error => {
            let cause = error.source().map(|cause| format!(": {cause}"));
            (125, format!("{error}{}", cause.unwrap_or_default()))
        }
    }
}

/// Not `eprintln!`, which panics when nobody reads it.
fn say(what: &impl Display) {
    let _ = writeln!(io::stderr(), "inject: {what}");
}
