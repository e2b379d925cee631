//! The same command given to `tokio::process` and to this library, both ways and with all or nothing trapped.
#![allow(unused_macros, unused_imports)] // As `dead_code` for the whole.

use std::os::unix::process::ExitStatusExt;
use std::process::Output;

use asm_tracer::{Command, Filter};

use super::start::{Way, run};
use super::within;

/// What came of a start: what the program wrote and how it ended, or the errno for which it could not be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ran {
        code: Option<i32>,
        signal: Option<i32>,
        stdout: String,
        stderr: String,
    },
    Failed(i32),
}

impl Outcome {
    /// What the program wrote; bytes that are no text are escaped, and so are zeros.
    #[track_caller]
    pub(crate) fn stdout(&self) -> &str {
        match self {
            Self::Ran {
                code: Some(0),
                stdout,
                ..
            } => stdout,
            other => panic!("{other:?}"),
        }
    }

    /// The errno for which there was no program.
    #[track_caller]
    pub(crate) fn errno(&self) -> i32 {
        match self {
            Self::Failed(errno) => *errno,
            ran => panic!("{ran:?}"),
        }
    }

    fn of(output: Output) -> Self {
        Self::Ran {
            code: output.status.code(),
            signal: output.status.signal(),
            stdout: escaped(&output.stdout),
            stderr: escaped(&output.stderr),
        }
    }
}

fn escaped(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) => text.replace('\0', "\\0"),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

/// How the library is to run the command.
pub(crate) fn variants() -> impl Iterator<Item = (Way, Filter)> {
    let filters = || [Filter::new(), Filter::trap_all()];
    Way::BOTH
        .into_iter()
        .flat_map(move |way| filters().map(|filter| (way, filter)))
}

pub(crate) async fn of_tokio(mut command: tokio::process::Command) -> Outcome {
    match command.spawn() {
        Ok(child) => Outcome::of(within("tokio's child", child.wait_with_output()).await.unwrap()),
        Err(error) => Outcome::Failed(error.raw_os_error().unwrap()),
    }
}

pub(crate) async fn of_library(mut command: Command) -> Outcome {
    match run(&mut command).await {
        Ok(output) => Outcome::of(output),
        Err(error) => Outcome::Failed(error.errno().unwrap_or_else(|| panic!("{error:?}")) as i32),
    }
}

/// Starts a program with both libraries, fails unless they agree, and gives the outcome.
///
/// `Stdio` in the configuration means that of the library at hand. Output and errors are piped unless it says otherwise.
macro_rules! side_by_side {
    ($program:expr) => {
        side_by_side!($program, |_command| {})
    };
    ($program:expr, |$command:ident| $configure:block) => {{
        use $crate::support::side_by_side::{of_library, of_tokio, variants};
        let theirs = {
            use std::process::Stdio;
            let mut command = tokio::process::Command::new($program);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            {
                let $command = &mut command;
                $configure
            }
            of_tokio(command).await
        };
        for (way, filter) in variants() {
            use asm_tracer::Stdio;
            let mut command = asm_tracer::Command::new($program);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            {
                let $command = &mut command;
                $configure
            }
            let what = format!("{way:?} of {command:?}");
            way.apply(command.filter(filter));
            assert_eq!(of_library(command).await, theirs, "{what}");
        }
        theirs
    }};
}
pub(crate) use side_by_side;
