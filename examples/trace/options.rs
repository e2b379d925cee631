//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use asm_tracer::filter::Action;
use asm_tracer::{Filter, Sysno};
use lexopt::prelude::*;

pub(crate) const HELP: &str = "\
Runs a program and prints its system calls and those of all of its descendants.

Usage: trace [OPTIONS] PROGRAM [ARGUMENTS]...

Options:
  -e, --calls NAME,...  hold and print only these calls, by name or number
  -s, --strings N       show at most N bytes of a string [default: 128]
  -o, --output FILE     write to FILE instead of the standard error
  -c, --count           print no calls, but at the end how many there were of each
      --json            print a JSON object a line
  -h, --help            print this help

Each line says who made the call, its arguments, how it was answered, and how
long it was held. A call is printed when it is made, so there is no result.

The exit status is that of the program, or 128 and its signal's number.
It is 125 if trace itself fails or its output is lost, 126 if the program can't
be executed, and 127 if there is no such program.
";

pub(crate) struct Options {
    filter: Filter,
    /// How many bytes of a string are shown.
    pub(crate) limit: usize,
    /// `None` is the standard error.
    pub(crate) output: Option<PathBuf>,
    pub(crate) count: bool,
    pub(crate) json: bool,
    pub(crate) program: OsString,
    pub(crate) arguments: Vec<OsString>,
}

impl Options {
    /// Reads the command line; `None` asks for help.
    pub(crate) fn parse(mut parser: lexopt::Parser) -> Result<Option<Self>, lexopt::Error> {
        let mut calls = Vec::new();
        let (mut limit, mut output, mut count, mut json) = (128, None, false, false);
        let program = loop {
            match parser.next()? {
                Some(Short('e') | Long("calls")) => {
                    let list = parser.value()?.string()?;
                    for name in list.split(',') {
                        calls.push(number(name)?);
                    }
                }
                Some(Short('s') | Long("strings")) => limit = parser.value()?.parse::<u32>()? as usize,
                Some(Short('o') | Long("output")) => output = Some(parser.value()?.into()),
                Some(Short('c') | Long("count")) => count = true,
                Some(Long("json")) => json = true,
                Some(Short('h') | Long("help")) => return Ok(None),
                Some(Value(program)) => break program,
                Some(unknown) => return Err(unknown.unexpected()),
                None => return Err("no program to run".into()),
            }
        };
        let arguments = parser.raw_args()?.collect();
        Ok(Some(Self {
            filter: filter(calls),
            limit,
            output,
            count,
            json,
            program,
            arguments,
        }))
    }

    pub(crate) fn filter(&self) -> Filter {
        self.filter.clone()
    }
}

/// Programs of 32 bits run as well; their calls have other numbers, so that nobody can have asked for them by name.
fn filter(calls: Vec<i64>) -> Filter {
    if calls.is_empty() {
        Filter::trap_all().foreign_abi(Action::Trap)
    } else {
        Filter::new().trap(calls).foreign_abi(Action::Allow)
    }
}

/// The number of a call that is given by its name or as a number.
fn number(name: &str) -> Result<i64, String> {
    if let Ok(sysno) = name.parse::<Sysno>() {
        return Ok(sysno.id().into());
    }
    if let Ok(number) = name.parse::<u16>() {
        return Ok(number.into());
    }
    let nearest = Sysno::iter().min_by_key(|known| distance(name, known.name()));
    let hint = match nearest.filter(|known| distance(name, known.name()) <= 2) {
        Some(known) => format!("; did you mean `{known}`?"),
        None => String::new(),
    };
    Err(format!("there is no system call `{}`{hint}", name.escape_debug()))
}

/// How many letters must be inserted, removed or replaced to make one word of the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
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
