//! The result of a sweep as a value.

mod escape;
mod html;
mod legend;
mod matrix;
mod text;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::escape::shell_word;
use super::trial::{Ending, Trial, Verdict, millis};

/// What a [`Sweep`](super::Sweep) has found out.
///
/// Displayed, it is a matrix of calls and errors and a list of findings; [`to_json`](Self::to_json) and
/// [`to_html`](Self::to_html) are for other programs and for a browser.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// What the program does without a fault.
    pub baseline: Baseline,
    /// The runs, in the order of their cases, whichever ended first.
    pub trials: Vec<Trial>,
    /// How many cases were left out.
    pub left_out: LeftOut,
    /// How long this sweep took, in milliseconds; not that of those that it has resumed.
    #[serde(rename = "elapsed_ms", with = "millis")]
    pub elapsed: Duration,
    /// How many of the trials were taken from the journal.
    pub resumed: usize,
    /// The words before a case and the command that repeat it: `sweep --only`.
    pub repeat_with: String,
}

/// What a program does without a fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Baseline {
    /// How it ends.
    pub ending: Ending,
    /// How long it ran, in milliseconds: the median of the undisturbed runs.
    #[serde(rename = "duration_ms", with = "millis")]
    pub duration: Duration,
    /// How many calls it makes in all of its threads.
    pub calls: u64,
    /// How many threads and processes it has.
    pub threads: u64,
    /// How many of the calls it does not make in every run; they are not swept.
    pub unstable_calls: u64,
    /// What is different in each run, and therefore not compared: `output`, or the path of a file.
    pub volatile: Vec<String>,
}

/// How many cases were not run, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LeftOut {
    /// There were more than the sweep's limit.
    pub by_limit: u64,
    /// The time was up.
    pub by_time: u64,
}

impl LeftOut {
    /// Why cases were left out, and how many.
    pub(super) fn reasons(self) -> impl Iterator<Item = (&'static str, u64)> {
        let reasons = [
            ("beyond the limit", self.by_limit),
            ("the time was up", self.by_time),
        ];
        reasons.into_iter().filter(|(_, count)| *count > 0)
    }
}

impl Report {
    /// The trials that came to something that a program should not come to, the worst first.
    pub fn findings(&self) -> Vec<&Trial> {
        let findings = self.trials.iter().filter(|trial| trial.verdict.is_finding());
        let mut findings: Vec<_> = findings.collect();
        findings.sort_by_key(|trial| trial.rank());
        findings
    }

    /// How many trials came to a verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.trials
            .iter()
            .filter(|trial| trial.verdict == verdict)
            .count()
    }

    /// The command line that repeats a trial.
    pub fn repeat(&self, trial: &Trial) -> String {
        let mut words = vec![
            self.repeat_with.clone(),
            shell_word(&trial.case.to_string()),
            "--".into(),
        ];
        words.extend(self.command.iter().map(|word| shell_word(word)));
        words.join(" ")
    }

    /// That of `strace(1)` which does the same to the program, if it can. It does not run in a scratch directory.
    pub fn strace(&self, trial: &Trial) -> Option<String> {
        let expression = trial.case.strace()?;
        let mut words = vec!["strace".into(), "-e".into(), expression];
        words.extend(self.command.iter().map(|word| shell_word(word)));
        Some(words.join(" "))
    }

    /// The program and its arguments as a shell takes them.
    pub(super) fn command_line(&self) -> String {
        let words: Vec<_> = self.command.iter().map(|word| shell_word(word)).collect();
        words.join(" ")
    }

    /// As JSON, with the names of the fields of this type.
    ///
    /// # Errors
    ///
    /// None that are known: every report has a form in JSON.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }
}
