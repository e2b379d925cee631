//! What stands behind the `=` of an option.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::part::{Parsed, Part, unknown};
use crate::errno::errnos;
use crate::inject::occurrence::Occurrences;

pub(super) fn errno(value: Part<'_>) -> Parsed<u16> {
    // Those of the kernel alone have no place in nix.
    let kernel = ["ERESTARTSYS", "ERESTARTNOINTR", "ERESTARTNOHAND"]
        .into_iter()
        .zip(512_u16..);
    let named = errnos()
        .map(|(name, errno)| (name, u16::try_from(errno as i32).unwrap_or_default()))
        .chain(kernel.map(|(name, number)| (name.to_owned(), number)))
        .chain(
            [("EWOULDBLOCK", 11), ("EDEADLOCK", 35), ("ENOTSUP", 95)].map(|(name, n)| (name.to_owned(), n)),
        );
    let named: Vec<_> = named.collect();
    let is_name = |(name, _): &&(String, u16)| name.eq_ignore_ascii_case(value.text);
    if let Some((_, number)) = named.iter().find(is_name) {
        return Ok(*number);
    }
    match integer(value.text) {
        Some(number @ 1..=4095) => Ok(number as u16),
        Some(_) => value.wrong("an errno is between 1 and 4095"),
        None => value.wrong(unknown(
            "errno",
            value.text,
            named.iter().map(|(name, _)| name.as_str()),
        )),
    }
}

pub(super) fn return_value(value: Part<'_>) -> Parsed<i64> {
    let magnitude = value.text.strip_prefix('-');
    match (integer(magnitude.unwrap_or(value.text)), magnitude.is_some()) {
        (Some(number), false) => Ok(number.cast_signed()),
        (Some(number), true) => Ok(number.cast_signed().wrapping_neg()),
        (None, _) => value.wrong("a return value is a number"),
    }
}

pub(super) fn signal(value: Part<'_>) -> Parsed<i32> {
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
pub(super) fn delay(value: Part<'_>) -> Parsed<Duration> {
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
pub(super) fn occurrences(value: Part<'_>) -> Parsed<Occurrences> {
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
