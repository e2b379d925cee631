//! The expressions of `strace -e inject=`.

mod calls;
mod part;
mod values;

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use nix::errno::Errno;

use self::calls::{call_set, pure_call};
use self::part::{Parsed, Part};
use self::values::{delay, errno, occurrences, return_value, signal};
use super::effect::Answer;
use super::fault::Fault;
use crate::error::Error;

/// What is wrong with an expression, and where.
///
/// It shows the place:
///
/// ```text
/// there is no errno `ENOSPACE`; did you mean `ENOSPC`?
///   write:error=ENOSPACE:when=3+2
///               ^^^^^^^^
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ParseFaultError {
    message: String,
    expression: String,
    place: Range<usize>,
}

impl ParseFaultError {
    /// What is wrong, without the place.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Which bytes of the expression it is about. Where something is missing, the range is empty.
    pub fn place(&self) -> Range<usize> {
        self.place.clone()
    }
}

impl fmt::Display for ParseFaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |text: &str| text.chars().count();
        let before = width(&self.expression[..self.place.start]);
        let marks = width(&self.expression[self.place.clone()]).max(1);
        // What comes from outside is shown on one line.
        let shown: String = self
            .expression
            .chars()
            .map(|c| if c.is_control() { '\u{fffd}' } else { c })
            .collect();
        write!(f, "{}\n  {shown}\n  {:before$}{:^<marks$}", self.message, "", "")
    }
}

/// The same, for tests that unwrap.
impl fmt::Debug for ParseFaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ParseFaultError {}

impl From<ParseFaultError> for Error {
    fn from(error: ParseFaultError) -> Self {
        Self::InvalidPlan(error.to_string())
    }
}

impl FromStr for Fault {
    type Err = ParseFaultError;

    fn from_str(expression: &str) -> Result<Self, ParseFaultError> {
        parse(expression).map_err(|wrong| ParseFaultError {
            message: wrong.message,
            expression: expression.to_owned(),
            place: wrong.place,
        })
    }
}

fn parse(expression: &str) -> Parsed<Fault> {
    let whole = Part {
        text: expression,
        start: 0,
    };
    let (whole, fault_only) = match (whole.strip("inject="), whole.strip("fault=")) {
        (Some(rest), _) => (rest, false),
        (None, Some(rest)) => (rest, true),
        (None, None) => (whole, false),
    };
    let mut parts = whole.split(':');
    let calls = parts.next().unwrap_or(whole);
    let mut fault = Fault::on(call_set(calls)?);
    let mut seen: Vec<&str> = Vec::new();
    for part in parts.filter(|part| !part.text.is_empty()) {
        let Some((name, value)) = part.split_once("=") else {
            return part.wrong(format!("`{}` has no value; {OPTIONS}", part.text.escape_debug()));
        };
        if fault_only && !["error", "when"].contains(&name.text) {
            return name.wrong("`fault=` takes `error=` and `when=` only; `inject=` takes the others");
        }
        // Of several `when=`, strace takes the last.
        if name.text != "when" && seen.contains(&name.text) {
            return part.wrong(format!("`{}=` is said twice", name.text));
        }
        seen.push(name.text);
        match name.text {
            "error" | "retval" if seen.contains(&"error") && seen.contains(&"retval") => {
                return part.wrong("`error=` and `retval=` exclude each other");
            }
            "error" => fault.effect.answer = Some(Answer::Error(errno(value)?)),
            "retval" => fault.effect.answer = Some(Answer::Return(return_value(value)?)),
            "signal" => fault.effect.signals = vec![signal(value)?],
            "delay_enter" => fault.effect.delay_before = delay(value)?,
            "delay_exit" => fault.effect.delay_after = delay(value)?,
            "when" => fault.occurrences = occurrences(value)?,
            "syscall" => pure_call(value)?,
            "poke_enter" | "poke_exit" => {
                return part.wrong(format!(
                    "`{}=` is not supported: no memory is overwritten",
                    name.text
                ));
            }
            other => return name.wrong(format!("`{}` is no option; {OPTIONS}", other.escape_debug())),
        }
    }
    if fault_only && fault.effect.answer.is_none() {
        fault = fault.error(Errno::ENOSYS);
    }
    // `syscall=` and `when=` alone do nothing.
    if !EFFECTS.iter().any(|effect| seen.contains(effect)) && !fault_only {
        let end = Part {
            text: "",
            start: expression.len(),
        };
        return end.wrong(format!(
            "an effect is missing: {}",
            EFFECTS.map(|name| format!("`{name}=`")).join(", ")
        ));
    }
    Ok(fault)
}

const EFFECTS: [&str; 5] = ["error", "retval", "signal", "delay_enter", "delay_exit"];
const OPTIONS: &str =
    "there are `error=`, `retval=`, `signal=`, `syscall=`, `delay_enter=`, `delay_exit=` and `when=`";
