//! What the larger examples share: failing with a message, and passing an exit status on.
#![allow(dead_code)] // Each example uses a part of it.

use std::error::Error as _;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};

use asm_tracer::{Errno, Error, SpawnStep};

/// Why there is no exit status of the program's to be passed on. From 125 on, the codes are those of `env(1)`.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// What was asked for makes no sense.
    pub(crate) fn usage(example: &str, error: impl std::fmt::Display) -> Self {
        Self {
            code: 2,
            message: format!("{error}\nTry `{example} --help`."),
        }
    }

    /// The example itself can't go on.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            code: 125,
            message: message.into(),
        }
    }

    /// The program could not be started.
    pub(crate) fn not_started(program: &OsStr, error: &Error) -> Self {
        let Error::Spawn {
            step: SpawnStep::Exec,
            source,
        } = error
        else {
            return Self::new(describe(error));
        };
        Self {
            code: if *source == Errno::ENOENT { 127 } else { 126 },
            message: format!("{}: {}", program.display(), source.desc()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(describe(&error))
    }
}

/// Ends the example as it has come out.
pub(crate) fn finish(example: &str, outcome: Result<u8, Failure>) -> ExitCode {
    match outcome {
        Ok(code) => code.into(),
        Err(Failure { code, message }) => {
            say(&format!("{example}: {message}"));
            code.into()
        }
    }
}

/// Writes a line to the standard error; not with `eprintln!`, which panics when nobody reads it.
pub(crate) fn say(line: &str) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

pub(crate) fn print(text: &str) -> Result<u8, Failure> {
    let printed = io::stdout().write_all(text.as_bytes());
    printed.map_err(|error| Failure::new(format!("writing to the standard output: {error}")))?;
    Ok(0)
}

/// The program's exit status as a shell reports it.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(125)
}

/// The error and its causes.
pub(crate) fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
