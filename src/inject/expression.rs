//! The expressions of `strace -e inject=`.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use syscalls::Sysno;

use super::effect::Answer;
use super::fault::Fault;
use super::occurrence::Occurrences;
use super::sets;

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

/// A part of the expression, which knows its place.
#[derive(Debug, Clone, Copy)]
struct Part<'a> {
    text: &'a str,
    start: usize,
}

struct Wrong {
    message: String,
    place: Range<usize>,
}

type Parsed<T> = Result<T, Wrong>;

impl<'a> Part<'a> {
    fn wrong<T>(self, message: impl Into<String>) -> Parsed<T> {
        Err(Wrong {
            message: message.into(),
            place: self.start..self.start + self.text.len(),
        })
    }

    /// All but the first `n` bytes, which are ASCII.
    fn skip(self, n: usize) -> Self {
        Self {
            text: &self.text[n..],
            start: self.start + n,
        }
    }

    fn strip(self, prefix: &str) -> Option<Self> {
        self.text.starts_with(prefix).then(|| self.skip(prefix.len()))
    }

    fn split_once(self, separator: &str) -> Option<(Self, Self)> {
        let at = self.text.find(separator)?;
        let head = Self {
            text: &self.text[..at],
            start: self.start,
        };
        Some((head, self.skip(at + separator.len())))
    }

    fn split(self, separator: char) -> impl Iterator<Item = Self> {
        let mut rest = Some(self);
        std::iter::from_fn(move || {
            let part = rest?;
            let mut buffer = [0; 4];
            match part.split_once(separator.encode_utf8(&mut buffer)) {
                Some((head, tail)) => {
                    rest = Some(tail);
                    Some(head)
                }
                None => rest.take(),
            }
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
            "error" => fault.effect.answer = Some(Answer::Return(-errno(value)?)),
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

/// Names, numbers and sets, of which `!` means all others.
fn call_set(set: Part<'_>) -> Parsed<Vec<i64>> {
    let (list, inverted) = match set.strip("!") {
        Some(list) => (list, true),
        None => (set, false),
    };
    if list.text.is_empty() {
        return list.wrong("a system call is missing");
    }
    let mut numbers = Vec::new();
    for item in list.split(',').filter(|item| !item.text.is_empty()) {
        match item.text {
            "all" => numbers.extend(Sysno::iter().map(number)),
            "none" => {}
            _ => numbers.extend(calls(item)?),
        }
    }
    if inverted {
        numbers = Sysno::iter()
            .map(number)
            .filter(|call| !numbers.contains(call))
            .collect();
    }
    Ok(numbers)
}

fn calls(item: Part<'_>) -> Parsed<Vec<i64>> {
    let (name, optional) = match item.strip("?") {
        Some(name) => (name, true),
        None => (item, false),
    };
    if name.text.starts_with('/') {
        return item.wrong("regular expressions are not supported; name the calls");
    }
    // The ABI that is meant. Calls of the others run as they are.
    let (name, abi) = match name.split_once("@") {
        Some((name, abi)) => (name, Some(abi)),
        None => (name, None),
    };
    match abi.map(|abi| (abi, abi.text)) {
        None | Some((_, "64")) => {}
        Some((_, "32" | "x32")) => return Ok(Vec::new()),
        Some((abi, _)) => return abi.wrong("there are the ABIs `64`, `32` and `x32`"),
    }
    let set = match name.strip("%") {
        Some(class) => sets::named(class.text),
        None => sets::bare(name.text),
    };
    if let Some(set) = set {
        return Ok(set.iter().copied().map(number).collect());
    }
    if let Ok(call) = name.text.parse::<Sysno>() {
        return Ok(vec![number(call)]);
    }
    let known = name.text.parse().ok().and_then(Sysno::new);
    match known {
        Some(call) => Ok(vec![number(call)]),
        None if optional => Ok(Vec::new()),
        None => name.wrong(unknown(
            "system call or set of calls",
            name.text,
            Sysno::iter().map(|call| call.name()),
        )),
    }
}

fn number(call: Sysno) -> i64 {
    call.id().into()
}

fn pure_call(name: Part<'_>) -> Parsed<()> {
    // It has no effect, and its result is replaced: there is nothing to run.
    let call = name.text.parse::<Sysno>();
    match call.is_ok_and(|call| sets::PURE.contains(&call)) {
        true => Ok(()),
        false => {
            name.wrong("only calls without effects can run in place: those of `%pure`, such as `getpid`")
        }
    }
}

fn errno(value: Part<'_>) -> Parsed<i64> {
    // Those of the kernel alone have no place in nix.
    let kernel = ["ERESTARTSYS", "ERESTARTNOINTR", "ERESTARTNOHAND"]
        .into_iter()
        .zip(512..);
    let named = (1..=133)
        .map(|number| (Errno::from_raw(number), i64::from(number)))
        .filter(|(errno, _)| *errno != Errno::UnknownErrno)
        .map(|(errno, number)| (format!("{errno:?}"), number))
        .chain(kernel.map(|(name, number)| (name.to_owned(), number)))
        .chain(
            [("EWOULDBLOCK", 11), ("EDEADLOCK", 35), ("ENOTSUP", 95)].map(|(name, n)| (name.to_owned(), n)),
        );
    let named: Vec<_> = named.collect();
    let is_name = |(name, _): &&(String, i64)| name.eq_ignore_ascii_case(value.text);
    if let Some((_, number)) = named.iter().find(is_name) {
        return Ok(*number);
    }
    match integer(value.text) {
        Some(number @ 1..=4095) => Ok(number as i64),
        Some(_) => value.wrong("an errno is between 1 and 4095"),
        None => value.wrong(unknown(
            "errno",
            value.text,
            named.iter().map(|(name, _)| name.as_str()),
        )),
    }
}

fn return_value(value: Part<'_>) -> Parsed<i64> {
    let magnitude = value.text.strip_prefix('-');
    match (integer(magnitude.unwrap_or(value.text)), magnitude.is_some()) {
        (Some(number), false) => Ok(number.cast_signed()),
        (Some(number), true) => Ok(number.cast_signed().wrapping_neg()),
        (None, _) => value.wrong("a return value is a number"),
    }
}

fn signal(value: Part<'_>) -> Parsed<i32> {
    let upper = value.text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    // What the C library calls the first real-time signal is 34; to the kernel, as to strace, it is 32.
    let real_time = match name.strip_prefix("RT_") {
        Some(offset) => offset.parse().ok().map(|offset: i32| offset.saturating_add(32)),
        None => (name == "RTMIN").then_some(32),
    };
    let named = Signal::iterator().find(|signal| signal.as_str().strip_prefix("SIG") == Some(name));
    let number = named
        .map(|signal| signal as i32)
        .or(real_time)
        .or_else(|| integer(value.text).and_then(|number| i32::try_from(number).ok()));
    match number {
        Some(number @ 1..=64) => Ok(number),
        Some(_) => value.wrong("a signal is between 1 and 64"),
        None => value.wrong(unknown(
            "signal",
            value.text,
            Signal::iterator().map(Signal::as_str),
        )),
    }
}

/// A decimal number, of microseconds unless it has a unit.
fn delay(value: Part<'_>) -> Parsed<Duration> {
    let text = value.text;
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    // `1e3` is a number, too.
    let (number, unit) = match text[digits.len()..].to_owned() {
        unit if ["s", "ms", "us", "ns", ""].contains(&unit.as_str()) => (digits, unit),
        _ => {
            return value
                .wrong("a delay is a number with `s`, `ms`, `us` or `ns`, and of microseconds without");
        }
    };
    let seconds = match unit.as_str() {
        "s" => 1.0,
        "ms" => 1e-3,
        "ns" => 1e-9,
        _ => 1e-6,
    };
    let plain = number.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let parsed = number.parse::<f64>().ok().filter(|_| plain);
    match parsed.and_then(|number| Duration::try_from_secs_f64(number * seconds).ok()) {
        Some(delay) => Ok(delay),
        None => value.wrong("a delay is a number with `s`, `ms`, `us` or `ns`, and of microseconds without"),
    }
}

/// `first[..last][+[step]]`
fn occurrences(value: Part<'_>) -> Parsed<Occurrences> {
    let (range, step) = match value.split_once("+") {
        Some((range, step)) => (range, Some(step)),
        None => (value, None),
    };
    let (first, last) = match range.split_once("..") {
        Some((first, last)) => (first, Some(last)),
        None => (range, None),
    };
    let from = count(first, 65535)?;
    let mut occurrences = Occurrences::nth(from);
    if let Some(last) = last {
        let to = count(last, 65534)?;
        if to < from {
            return last.wrong("the last occurrence is before the first");
        }
        occurrences = occurrences.until(to);
    }
    Ok(match step {
        None => occurrences,
        Some(Part { text: "", .. }) => occurrences.every(1),
        Some(step) => occurrences.every(count(step, 65535)?),
    })
}

fn count(value: Part<'_>, limit: u64) -> Parsed<u64> {
    match value.text.trim_start().parse::<u64>() {
        Ok(number) if (1..=limit).contains(&number) => Ok(number),
        _ => value.wrong(format!("this is a number between 1 and {limit}")),
    }
}

/// A number as C writes it.
fn integer(text: &str) -> Option<u64> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    // Which Rust would take.
    if digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

/// There is no such thing, but perhaps one that is spelled much like it.
fn unknown<'a>(what: &str, given: &str, names: impl Iterator<Item = &'a str>) -> String {
    let lower = given.to_ascii_lowercase();
    let near = names
        .map(|name| (distance(&lower, &name.to_ascii_lowercase()), name))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= 2 && given.len() > 2);
    let hint = near.map_or(String::new(), |(_, name)| format!("; did you mean `{name}`?"));
    format!("there is no {what} `{}`{hint}", given.escape_debug())
}

/// How many letters must be inserted, removed or replaced to make one word of the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    if from.len().abs_diff(to.len()) > 2 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}
