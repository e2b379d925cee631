//! How verdicts and durations are written.

use std::fmt;
use std::time::Duration;

use crate::sweep::trial::{Change, FileChange, Trial, Verdict};

/// The letter of a verdict: a capital for a finding.
pub(super) fn letter(verdict: Verdict) -> char {
    match verdict {
        Verdict::Crash => 'C',
        Verdict::Hang => 'H',
        Verdict::SilentFailure => 'S',
        Verdict::Leak => 'L',
        Verdict::MuteFailure => 'M',
        Verdict::CleanFailure => 'f',
        Verdict::Same => '=',
        Verdict::NotReached => '-',
    }
}

/// The verdict as a name in a page.
pub(super) fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Crash => "crash",
        Verdict::Hang => "hang",
        Verdict::SilentFailure => "silent",
        Verdict::Leak => "leak",
        Verdict::MuteFailure => "mute",
        Verdict::CleanFailure => "clean",
        Verdict::Same => "same",
        Verdict::NotReached => "unreached",
    }
}

/// What the program did, in a few words.
pub(super) fn meaning(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Crash => "a signal ended it",
        Verdict::Hang => "it did not end before the deadline",
        Verdict::SilentFailure => "it claims success, but its output or files differ",
        Verdict::Leak => "it left a file behind",
        Verdict::MuteFailure => "it failed without a message",
        Verdict::CleanFailure => "it failed with a message",
        Verdict::Same => "it did the same as without the fault",
        Verdict::NotReached => "it did not make the call this time",
    }
}

/// A number and what it is of: `1 call`, `2 calls`.
pub(super) fn number(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

/// How many came to which verdict: `1 crash, 2 leaks`.
pub(super) fn tally(counts: &[(Verdict, usize)]) -> String {
    let each = counts
        .iter()
        .map(|&(verdict, count)| format!("{count} {}", plural(verdict, count)));
    each.collect::<Vec<_>>().join(", ")
}

fn plural(verdict: Verdict, count: usize) -> &'static str {
    match verdict {
        _ if count == 1 => verdict.name(),
        Verdict::Crash => "crashes",
        Verdict::Hang => "hangs",
        Verdict::SilentFailure => "silent failures",
        Verdict::Leak => "leaks",
        Verdict::MuteFailure => "mute failures",
        Verdict::CleanFailure => "clean failures",
        Verdict::Same => "same results",
        Verdict::NotReached => "not reached",
    }
}

/// The last lines of a message, and how many there are before them.
pub(super) fn last_lines(message: &str, most: usize) -> (usize, Vec<&str>) {
    let lines: Vec<_> = message.lines().filter(|line| !line.trim().is_empty()).collect();
    let before = lines.len().saturating_sub(most);
    (before, lines[before..].to_vec())
}

/// What tells most about a trial in one line: where it hangs, what is wrong with a file, or the end of its
/// message; the first 200 characters.
pub(super) fn gist(trial: &Trial) -> Option<String> {
    let message = || {
        last_lines(&trial.message, 1)
            .1
            .first()
            .map(|line| (*line).to_owned())
    };
    let file = || {
        let extra = trial.files.iter().find(|file| file.change == Change::Extra);
        let file = extra
            .filter(|_| trial.verdict == Verdict::Leak)
            .or(trial.files.first());
        file.map(FileChange::to_string)
    };
    let gist = match trial.verdict {
        Verdict::Hang => trial.hung.first().cloned().or_else(message),
        Verdict::SilentFailure | Verdict::Leak => file().or_else(message),
        _ => message().or_else(file),
    };
    gist.map(|gist| gist.chars().take(200).collect())
}

/// What there is to a trial besides its ending: unsteady, with other output.
pub(super) fn remarks(trial: &Trial) -> Vec<&'static str> {
    let output = trial.output_differs.then_some("other output");
    let unsteady = (!trial.steady).then_some("not in every run");
    output.into_iter().chain(unsteady).collect()
}

/// A duration to two or three digits: `0.4 ms`, `12 ms`, `3.4 s`, `2 min 5 s`.
pub(super) struct Rounded(pub(super) Duration);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        match seconds {
            ..0.00995 => write!(f, "{:.1} ms", seconds * 1e3),
            ..0.9995 => write!(f, "{:.0} ms", seconds * 1e3),
            ..59.95 => write!(f, "{seconds:.1} s"),
            _ => write!(f, "{} min {} s", self.0.as_secs() / 60, self.0.as_secs() % 60),
        }
    }
}
