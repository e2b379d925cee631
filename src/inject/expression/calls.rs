//! Which calls an expression is about.

use syscalls::Sysno;

use super::part::{Parsed, Part, unknown};
use crate::inject::sets;

/// Names, numbers and sets, of which `!` means all others.
pub(super) fn call_set(set: Part<'_>) -> Parsed<Vec<i64>> {
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

pub(super) fn pure_call(name: Part<'_>) -> Parsed<()> {
    // It has no effect, and its result is replaced: there is nothing to run.
    let call = name.text.parse::<Sysno>();
    match call.is_ok_and(|call| sets::PURE.contains(&call)) {
        true => Ok(()),
        false => {
            name.wrong("only calls without effects can run in place: those of `%pure`, such as `getpid`")
        }
    }
}
