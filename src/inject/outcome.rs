//! What became of a program.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use super::record::{Call, Hit, Snapshot, list};
use super::threads::ThreadState;

/// How a program under a [`FaultPlan`](super::FaultPlan) ended, what it wrote, what was injected, and what it did then.
///
/// Displayed, it tells all of it. The assertions panic with that text, and give the outcome back, so that several can be
/// written in a row.
#[derive(Debug, Clone)]
pub struct Outcome {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    record: Snapshot,
    hung: Option<Vec<ThreadState>>,
    duration: Duration,
}

/// How much of a stream is shown.
const SHOWN: usize = 2048;

impl Outcome {
    pub(super) fn new(
        status: ExitStatus,
        [stdout, stderr]: [Vec<u8>; 2],
        record: Snapshot,
        hung: Option<Vec<ThreadState>>,
        duration: Duration,
    ) -> Self {
        Self {
            status,
            stdout,
            stderr,
            record,
            hung,
            duration,
        }
    }

    /// How the program ended; killed by `SIGKILL` if it had to be.
    pub fn status(&self) -> ExitStatus {
        self.status
    }

    /// What it wrote to its standard output, if that was captured.
    pub fn stdout(&self) -> &[u8] {
        &self.stdout
    }

    /// What it wrote to its standard error, if that was captured.
    pub fn stderr(&self) -> &[u8] {
        &self.stderr
    }

    /// The calls that faults have hit, in order: the first 4 096.
    pub fn hits(&self) -> &[Hit] {
        &self.record.hits
    }

    /// How many calls faults have hit.
    pub fn hit_count(&self) -> u64 {
        self.record.total
    }

    /// The last of the calls that were trapped, the oldest first; see [`FaultPlan::watch`](super::FaultPlan::watch).
    pub fn last_calls(&self) -> &[Call] {
        &self.record.last
    }

    /// Where every thread of the program and of its descendants was at the deadline; `None` if the program ended before.
    pub fn hung(&self) -> Option<&[ThreadState]> {
        self.hung.as_deref()
    }

    /// How long it ran.
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// Asserts that the program ended by itself with status 0.
    ///
    /// # Panics
    ///
    /// If it did not, with what there is to know.
    #[track_caller]
    pub fn assert_success(&self) -> &Self {
        self.assert(
            self.hung.is_none() && self.status.success(),
            "the program succeeds",
        )
    }

    /// Asserts that the program ended by itself and failed: with another status, or by a signal.
    ///
    /// # Panics
    ///
    /// If it did not, with what there is to know.
    #[track_caller]
    pub fn assert_failure(&self) -> &Self {
        self.assert(
            self.hung.is_none() && !self.status.success(),
            "the program fails by itself",
        )
    }

    /// Asserts that the program exited with this status.
    ///
    /// # Panics
    ///
    /// If it did not, with what there is to know.
    #[track_caller]
    pub fn assert_code(&self, code: i32) -> &Self {
        self.assert(
            self.status.code() == Some(code),
            &format!("the program exits with {code}"),
        )
    }

    /// Asserts that the program ended before the deadline.
    ///
    /// # Panics
    ///
    /// If it did not, with what there is to know.
    #[track_caller]
    pub fn assert_ended(&self) -> &Self {
        self.assert(self.hung.is_none(), "the program ends before the deadline")
    }

    /// Asserts that faults have hit, and each of them could be injected.
    ///
    /// # Panics
    ///
    /// If none has or one could not, with what there is to know.
    #[track_caller]
    pub fn assert_hit(&self) -> &Self {
        let injected = self.record.hits.iter().all(|hit| hit.failed().is_none());
        self.assert(self.record.total > 0 && injected, "a fault hits")
    }

    /// Asserts that faults have hit so many calls.
    ///
    /// # Panics
    ///
    /// If it were more or fewer, with what there is to know.
    #[track_caller]
    pub fn assert_hits(&self, count: u64) -> &Self {
        self.assert(self.record.total == count, &format!("faults hit {count} calls"))
    }

    /// What the other assertions do, for a condition of the caller's.
    ///
    /// # Panics
    ///
    /// If it does not hold, with `what` was expected and what there is to know.
    #[track_caller]
    #[allow(clippy::panic)] // Which is what an assertion is for.
    pub fn assert(&self, holds: bool, what: &str) -> &Self {
        if !holds {
            panic!("expected that {what}, but:\n{self}");
        }
        self
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = self.duration;
        match (&self.hung, self.status.signal()) {
            (Some(_), _) => write!(f, "the program was killed at its deadline, after {after:.3?}")?,
            (None, Some(_)) => write!(f, "the program died after {after:.3?}: {}", self.status)?,
            (None, None) => write!(f, "the program ended after {after:.3?}: {}", self.status)?,
        }
        if let Some(threads) = &self.hung {
            f.write_str("\nits threads were:")?;
            for thread in threads {
                write!(f, "\n  {thread}")?;
            }
        }
        match self.record.total {
            0 => f.write_str("\nno fault has hit")?,
            1 => f.write_str("\na fault has hit 1 call:")?,
            total => write!(f, "\nfaults have hit {total} calls:")?,
        }
        for hit in self.record.hits.iter().take(32) {
            write!(f, "\n  {hit}")?;
            for call in hit.followed_by().iter().take(3) {
                write!(f, "\n    then {call}")?;
            }
        }
        if self.record.total > 32 {
            f.write_str("\n  …")?;
        }
        if !self.record.last.is_empty() {
            let shown = self.record.last.len().saturating_sub(16);
            write!(f, "\nits last calls were:{}", list(&self.record.last[shown..]))?;
        }
        for (name, stream) in [("output", &self.stdout), ("errors", &self.stderr)] {
            if !stream.is_empty() {
                let shown = String::from_utf8_lossy(&stream[stream.len().saturating_sub(SHOWN)..]);
                write!(f, "\nits {name}:\n{}", shown.trim_end())?;
            }
        }
        Ok(())
    }
}
