//! The command line.

use std::ffi::OsString;
use std::time::Duration;

use asm_tracer::Sysno;
use lexopt::prelude::*;

use crate::calls::{self, Profile};

pub(crate) const HELP: &str = "\
Runs a program again and again, and spoils a few of its system calls each time.

Usage: fuzz [OPTIONS] [--] PROGRAM [ARGUMENTS]...

Options:
  -n, --runs N          run it N times [default: 100]
  -s, --seed S          the seed of the first run; the next ones count up [default: 0]
  -r, --rate P          spoil this part of the calls, from 0 to 1 [default: 0.02]
  -t, --timeout MS      take a run that lasts longer for a hang [default: 10000]
  -e, --calls NAME,...  spoil only these calls [default: all that fuzz knows]
  -v, --verbose         show what is spoiled and what the program says
  -l, --list            list the calls that fuzz knows
  -h, --help            print this help

A call fails with an error that it can give, is made with other arguments (a
shorter read, for one), or returns a value at the edge of what it can return.
Which, depends on nothing but the seed, the thread, and how many calls of this
kind it has made before, so that a seed repeats what it has found.

Each run has an empty scratch directory as its working directory, and nothing to
read on its standard input. A crash is a death by a signal that fuzz has not
sent; of processes that the program has started, by one that faults cause.

The exit status is 0 if nothing was found, 1 if something was, 2 if the command
line makes no sense, 125 if fuzz itself fails, 126 if the program can't be
executed, and 127 if there is no such program.
";

pub(crate) enum Request {
    Fuzz(Options),
    List,
    Help,
}

pub(crate) struct Options {
    pub(crate) runs: u64,
    pub(crate) seed: u64,
    pub(crate) rate: f64,
    pub(crate) timeout: Duration,
    /// As they were named; empty for all.
    names: Option<String>,
    pub(crate) calls: Vec<&'static Profile>,
    pub(crate) verbose: bool,
    pub(crate) program: OsString,
    pub(crate) arguments: Vec<OsString>,
}

impl Request {
    pub(crate) fn parse(mut parser: lexopt::Parser) -> Result<Self, lexopt::Error> {
        let (mut runs, mut seed, mut rate, mut timeout) = (100, 0, 0.02, 10_000);
        let (mut names, mut calls, mut verbose) = (None, calls::ALL.iter().collect(), false);
        let program = loop {
            match parser.next()? {
                Some(Short('n') | Long("runs")) => runs = parser.value()?.parse()?,
                Some(Short('s') | Long("seed")) => seed = parser.value()?.parse()?,
                Some(Short('r') | Long("rate")) => rate = parser.value()?.parse_with(parse_rate)?,
                Some(Short('t') | Long("timeout")) => timeout = parser.value()?.parse()?,
                Some(Short('e') | Long("calls")) => {
                    let list = parser.value()?.string()?;
                    calls = list.split(',').map(profile).collect::<Result<_, _>>()?;
                    names = Some(list);
                }
                Some(Short('v') | Long("verbose")) => verbose = true,
                Some(Short('l') | Long("list")) => return Ok(Self::List),
                Some(Short('h') | Long("help")) => return Ok(Self::Help),
                Some(Value(program)) => break program,
                Some(unknown) => return Err(unknown.unexpected()),
                None => return Err("no program to run".into()),
            }
        };
        Ok(Self::Fuzz(Options {
            runs,
            seed,
            rate,
            timeout: Duration::from_millis(timeout),
            names,
            calls,
            verbose,
            program,
            arguments: parser.raw_args()?.collect(),
        }))
    }
}

fn parse_rate(rate: &str) -> Result<f64, String> {
    let parsed = rate.parse().ok().filter(|rate| (0.0..=1.0).contains(rate));
    parsed.ok_or_else(|| "a rate is a number from 0 to 1".into())
}

/// Only what is known to be harmless can be chosen.
fn profile(name: &str) -> Result<&'static Profile, String> {
    let sysno: Sysno = name
        .parse()
        .map_err(|()| format!("there is no system call `{}`", name.escape_debug()))?;
    calls::profile(sysno)
        .ok_or_else(|| format!("`{name}` is none of the calls that are spoiled; `fuzz --list` has them"))
}

impl Options {
    /// The command line that repeats the run with this seed.
    pub(crate) fn repeat(&self, seed: u64) -> String {
        let mut words = vec![
            "fuzz".into(),
            format!("--runs 1 --seed {seed} --rate {}", self.rate),
            format!("--timeout {}", self.timeout.as_millis()),
        ];
        words.extend(self.names.iter().map(|names| format!("-e {names}")));
        words.push("--".into());
        let program = std::iter::once(&self.program).chain(&self.arguments);
        words.extend(program.map(|word| quoted(&word.to_string_lossy())));
        words.join(" ")
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || "/._-+=:,@%".contains(char);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}
