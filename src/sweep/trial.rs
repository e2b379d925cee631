//! What came of one run.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::case::Case;
use crate::inject::Outcome;

/// What a program made of a call that failed.
///
/// In the order of what one would rather know first. [`is_finding`](Self::is_finding) tells which of them a program should
/// not come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// A signal ended it.
    Crash,
    /// It did not end before the deadline.
    Hang,
    /// It claims the success it has without the fault, but its output or its files are others.
    SilentFailure,
    /// A file is left that is there neither before it nor after a run without the fault.
    Leak,
    /// It says by its status that it failed, and nothing about why.
    MuteFailure,
    /// It says by its status that it failed, and has a message.
    CleanFailure,
    /// It did the same as without the fault, if with more or less to say on its standard error.
    Same,
    /// It did not come to make the call: it does not do the same each time.
    NotReached,
}

impl Verdict {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::Crash,
        Self::Hang,
        Self::SilentFailure,
        Self::Leak,
        Self::MuteFailure,
        Self::CleanFailure,
        Self::Same,
        Self::NotReached,
    ];

    /// Tells whether it is one that a program should not come to: a crash, a hang, a silent or mute failure, a leak.
    pub fn is_finding(self) -> bool {
        self <= Self::MuteFailure
    }

    /// In words: `silent failure`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Hang => "hang",
            Self::SilentFailure => "silent failure",
            Self::Leak => "leak",
            Self::MuteFailure => "mute failure",
            Self::CleanFailure => "clean failure",
            Self::Same => "same result",
            Self::NotReached => "not reached",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
    /// It was killed at the deadline.
    Hung,
}

impl Ending {
    pub(super) fn of(outcome: &Outcome) -> Self {
        match outcome.hung() {
            Some(_) => Self::Hung,
            None => Self::of_status(outcome.status()),
        }
    }

    fn of_status(status: ExitStatus) -> Self {
        match status.code() {
            Some(code) => Self::Exited(code),
            None => Self::Signaled(status.signal().unwrap_or(0)),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Exited(code) => write!(f, "exit status {code}"),
            Self::Signaled(number) => match Signal::try_from(number) {
                Ok(signal) => write!(f, "{signal}"),
                Err(_) => write!(f, "signal {number}"),
            },
            Self::Hung => f.write_str("killed at the deadline"),
        }
    }
}

/// How a file of a run differs from that of a run without a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    /// Relative to the working directory, or `$HOME/…` or `$TMPDIR/…`.
    pub path: String,
    /// What is different.
    pub change: Change,
}

/// What is different about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Change {
    /// It is not there.
    Missing,
    /// It should not be there.
    Extra,
    /// It is of another kind: a directory, a link, ….
    Kind,
    /// Its contents, or where it leads as a link.
    Contents,
    /// Its permissions.
    Permissions,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "is missing",
            Self::Extra => "is left over",
            Self::Kind => "is of another kind",
            Self::Contents => "has other contents",
            Self::Permissions => "has other permissions",
        })
    }
}

impl fmt::Display for FileChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path, self.change)
    }
}

/// One run of a [`Sweep`](super::Sweep), and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Trial {
    /// Which call failed, and how.
    pub case: Case,
    /// What the program made of it.
    pub verdict: Verdict,
    /// Whether a second run came to the same verdict. Only those with a finding are run twice; others are taken as they are.
    pub steady: bool,
    /// How the program ended.
    pub ending: Ending,
    /// Whether its standard output was another.
    pub output_differs: bool,
    /// What it wrote to its standard error, the first 2 KiB.
    pub message: String,
    /// The file that the call was about, if it was about one.
    pub file: Option<String>,
    /// The files that differ, the first 32.
    pub files: Vec<FileChange>,
    /// Where its threads were at the deadline, the first 32.
    pub hung: Vec<String>,
    /// How long it ran, in milliseconds.
    #[serde(rename = "duration_ms", with = "millis")]
    pub duration: Duration,
}

impl Trial {
    /// Less for what one would rather know first.
    pub(super) fn rank(&self) -> (Verdict, bool) {
        (self.verdict, !self.steady)
    }
}

/// What is told of a duration: as much as is written down.
pub(super) fn micros(duration: Duration) -> Duration {
    Duration::from_micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

/// Durations as milliseconds, to the microsecond.
pub(super) mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e3)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let millis = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(millis / 1e3).map_err(serde::de::Error::custom)
    }
}
