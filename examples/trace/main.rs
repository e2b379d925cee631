//! Runs any program with all of its system calls trapped, and prints them.
//!
//! ```text
//! cargo run --release --example trace -- -e openat,write cat Cargo.toml
//! ```
//!
//! `trace --help` tells the rest.

mod decode;
mod flags;
mod options;
mod output;
mod quote;
mod record;
mod signals;
mod summary;
mod table;

use std::error::Error as _;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};

use asm_tracer::{Command, Errno, Error, Notification, SpawnStep, Supervisor};

use options::{HELP, Options};
use output::Output;
use record::Held;
use summary::Summary;

/// Why there is no exit status of the program's to be passed on. The codes are those of `env(1)`.
struct Failure {
    code: u8,
    message: String,
}

const FAILED: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let outcome = match Options::parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => trace(&options).await,
        Ok(None) => print(HELP),
        Err(error) => Err(failure(format!("{error}\nTry `trace --help`."))),
    };
    match outcome {
        Ok(code) => code.into(),
        Err(Failure { code, message }) => {
            // Not `eprintln!`, which panics when nobody reads it.
            let _ = writeln!(io::stderr(), "trace: {message}");
            code.into()
        }
    }
}

/// Serves the program and all that it starts until the last of them has ended.
async fn trace(options: &Options) -> Result<u8, Failure> {
    let mut report = Report::new(options)?;
    let mut supervisor = Supervisor::new();
    let mut command = Command::new(&options.program);
    command.args(&options.arguments).filter(options.filter());
    let mut child = supervisor
        .spawn(&mut command)
        .await
        .map_err(|error| not_started(&options.program, &error))?;
    // Not before, because the program has inherited what is blocked.
    let mut signals =
        signals::take().map_err(|error| failure(format!("taking over the signals: {error}")))?;
    loop {
        tokio::select! {
            biased;
            Some(signal) = signals.recv() => if let Err(Error::Gone) = child.signal(signal) {
                // The program has ended. What it left behind need not keep us.
                break;
            },
            call = supervisor.next() => match call {
                Some(call) => report.serve(call),
                None => break,
            },
            // Nobody waits for us: time to show what has gathered.
            () = std::future::ready(()), if report.output.holds_back() => report.output.flush(),
        }
    }
    let status = child.wait().await.map_err(|error| failure(describe(&error)))?;
    report.finish()?;
    Ok(exit_code(status))
}

/// What is to be printed, and where.
struct Report<'a> {
    options: &'a Options,
    output: Output,
    summary: Summary,
}

impl<'a> Report<'a> {
    fn new(options: &'a Options) -> Result<Self, Failure> {
        let output = Output::new(options.output.as_deref());
        Ok(Self {
            options,
            output: output.map_err(|error| unwritable(options, &error))?,
            summary: Summary::default(),
        })
    }

    /// Holds the call for as long as a look takes, and prints what there was to see once it runs.
    fn serve(&mut self, call: Notification) {
        let held = Held::new(call);
        if self.options.count {
            self.summary.add(held.release());
            return;
        }
        let record = held.look(self.options.limit);
        match self.options.json {
            true => self.output.line(&record.json().to_string()),
            false => self.output.line(&record.text()),
        }
    }

    fn finish(mut self) -> Result<(), Failure> {
        if self.options.count {
            let lines = match self.options.json {
                true => self.summary.json(),
                false => self.summary.text(),
            };
            lines.iter().for_each(|line| self.output.line(line));
        }
        self.output
            .finish()
            .map_err(|error| unwritable(self.options, &error))
    }
}

fn print(text: &str) -> Result<u8, Failure> {
    let printed = io::stdout().write_all(text.as_bytes());
    printed.map_err(|error| failure(format!("writing the help: {error}")))?;
    Ok(0)
}

/// The program's exit status as a shell reports it.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED)
}

fn not_started(program: &OsStr, error: &Error) -> Failure {
    match error {
        Error::Spawn {
            step: SpawnStep::Exec,
            source,
        } => Failure {
            code: if *source == Errno::ENOENT {
                NOT_FOUND
            } else {
                NOT_EXECUTABLE
            },
            message: format!("{}: {}", program.display(), source.desc()),
        },
        error => failure(describe(error)),
    }
}

fn unwritable(options: &Options, error: &io::Error) -> Failure {
    let target = options
        .output
        .as_ref()
        .map_or("the standard error".into(), |path| path.display().to_string());
    failure(format!("writing to {target}: {error}"))
}

fn failure(message: String) -> Failure {
    Failure {
        code: FAILED,
        message,
    }
}

/// The error and its causes.
fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
