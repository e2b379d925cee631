//! What becomes of a call that a fault hits.

use std::fmt;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;

/// All that one fault does to a call, or several that hit the same one.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Effect {
    pub(super) delay_before: Duration,
    /// Their numbers, in the order in which they are sent.
    pub(super) signals: Vec<i32>,
    pub(super) answer: Option<Answer>,
    pub(super) delay_after: Duration,
}

/// How the call is answered, if it does not simply run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It does not run, and this is what the kernel is said to have returned.
    Return(i64),
    /// It does not run, and fails with this number.
    Error(u16),
    /// It runs with at most so many bytes.
    Short(usize),
    /// It runs with other arguments.
    /// By their indices, from 0.
    Arguments(Vec<(usize, i64)>),
}

impl Effect {
    pub(super) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Adds what another fault does to the same call. Delays add up, all signals are sent, and the first answer counts.
    pub(super) fn compose(&mut self, other: &Self) {
        self.delay_before = self.delay_before.saturating_add(other.delay_before);
        self.delay_after = self.delay_after.saturating_add(other.delay_after);
        self.signals.extend(&other.signals);
        if self.answer.is_none() {
            self.answer.clone_from(&other.answer);
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.delay_before.is_zero() {
            parts.push(format!("delayed by {:?}", self.delay_before));
        }
        for signal in &self.signals {
            match Signal::try_from(*signal) {
                Ok(signal) => parts.push(format!("with {signal}")),
                Err(_) => parts.push(format!("with signal {signal}")),
            }
        }
        match &self.answer {
            Some(Answer::Return(value @ -4095..=-1)) => parts.push(failed(-value as i32)),
            Some(Answer::Return(value)) => parts.push(format!("returned {value} without running")),
            Some(Answer::Error(number)) => parts.push(failed((*number).into())),
            Some(Answer::Short(length)) => parts.push(format!("shortened to {length} bytes")),
            Some(Answer::Arguments(arguments)) => {
                let shown = arguments
                    .iter()
                    .map(|(index, value)| format!("with argument {index} = {value}"));
                parts.extend(shown);
            }
            None => {}
        }
        if !self.delay_after.is_zero() {
            parts.push(format!("held back for {:?}", self.delay_after));
        }
        f.write_str(&parts.join(", "))
    }
}

fn failed(number: i32) -> String {
    match Errno::from_raw(number) {
        Errno::UnknownErrno => format!("failed with errno {number}"),
        errno => format!("failed with {errno:?}"),
    }
}
