//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use asm_tracer::Command;
use asm_tracer::sweep::{Case, Sweep};
use lexopt::prelude::*;

use crate::names;
use crate::saved::Saved;
use crate::words::quoted;

pub(crate) const HELP: &str = "\
Makes every system call of a program fail with every error that its manual page
lists, one in each run, and says what the program makes of it.

Usage: sweep [OPTIONS] [--] PROGRAM [ARGUMENTS]...

What is swept:
  -f, --files DIRECTORY     begin each run with a copy of what is in here
  -i, --stdin FILE          what each run reads [default: nothing]
  -e, --calls CALL,...      let only these calls fail [default: all]
  -E, --errors ERROR,...    with these errors only [default: all]
      --only CASE           run this case; several can be given

How:
  -j, --jobs N              run so many at a time [default: twice the CPUs]
  -n, --limit N             run at most N cases [default: 10000]
      --time SECONDS        begin no more after so long [default: 3600]
      --deadline MS         take a run that lasts longer for a hang
      --journal FILE        keep what is done here, and resume it
      --scratch DIRECTORY   make the scratch directories here
  -w, --writable PATH       let runs write to this as well
      --online              let runs reach other machines
      --unconfined          let runs write and reach whatever you may

What comes of it:
      --json FILE           write it as JSON
      --html FILE           write it as a page
  -q, --quiet               print nothing
  -h, --help                print this help

Each run has a directory of its own, which is removed afterwards, as its working
directory, and HOME and TMPDIR beside it. It can write nowhere else, and reach
no other machine. Relative paths among the arguments lead there, but not that of
the program.

A case is [THREAD:]CALL#NUMBER=ERROR: the call with this number of its kind in
its thread. Threads are named by who made them: 0.2 is the second that the first
one has made. A finding comes with the command line that repeats it.

The exit status is 0 if nothing was found, 1 if something was, 2 if the command
line makes no sense, 125 if sweep itself fails, 126 if the program can't be
executed, and 127 if there is no such program. A signal that ends it early gives
128 and its number; nothing is left behind then.
";

pub(crate) enum Request {
    Sweep(Box<Options>),
    Help,
}

pub(crate) struct Options {
    pub(crate) sweep: Sweep,
    pub(crate) json: Option<Saved>,
    pub(crate) html: Option<Saved>,
    pub(crate) quiet: bool,
    pub(crate) program: OsString,
}

impl Request {
    pub(crate) fn parse(mut parser: lexopt::Parser) -> Result<Self, lexopt::Error> {
        let mut change: Vec<Box<dyn FnOnce(Sweep) -> Sweep>> = Vec::new();
        let (mut json, mut html, mut quiet) = (None, None, false);
        let (mut cases, mut repeat) = (Vec::<Case>::new(), String::from("sweep"));
        let program = loop {
            let Some(option) = parser.next()? else {
                return Err("no program to run".into());
            };
            match option {
                Short('f') | Long("files") => {
                    let directory = PathBuf::from(parser.value()?);
                    repeat += &format!(" --files {}", quoted(&directory));
                    change.push(Box::new(|sweep| sweep.files(directory)));
                }
                Short('i') | Long("stdin") => {
                    let path = PathBuf::from(parser.value()?);
                    let bytes = std::fs::read(&path);
                    let bytes = bytes.map_err(|error| format!("{}: {error}", path.display()))?;
                    repeat += &format!(" --stdin {}", quoted(&path));
                    change.push(Box::new(|sweep| sweep.stdin(bytes)));
                }
                Short('e') | Long("calls") => {
                    let calls = names::calls(&parser.value()?.string()?)?;
                    change.push(Box::new(move |sweep| sweep.calls(calls.as_slice())));
                }
                Short('E') | Long("errors") => {
                    let errors = names::errors(&parser.value()?.string()?)?;
                    change.push(Box::new(|sweep| sweep.errors(errors)));
                }
                Long("only") => {
                    let case = parser.value()?.string()?.parse();
                    cases.push(case.map_err(|error: asm_tracer::Error| error.to_string())?);
                }
                Short('j') | Long("jobs") => {
                    let jobs = number(&mut parser, "--jobs")?;
                    change.push(Box::new(move |sweep| sweep.jobs(jobs)));
                }
                Short('n') | Long("limit") => {
                    let limit = number(&mut parser, "--limit")?;
                    change.push(Box::new(move |sweep| sweep.limit(limit)));
                }
                Long("time") => {
                    let time = Duration::from_secs(number(&mut parser, "--time")?);
                    change.push(Box::new(move |sweep| sweep.time_limit(time)));
                }
                Long("deadline") => {
                    let limit = Duration::from_millis(number(&mut parser, "--deadline")?);
                    repeat += &format!(" --deadline {}", limit.as_millis());
                    change.push(Box::new(move |sweep| sweep.deadline(limit)));
                }
                Long("journal") => {
                    let path = parser.value()?;
                    change.push(Box::new(|sweep| sweep.journal(path)));
                }
                Long("scratch") => {
                    let directory = parser.value()?;
                    change.push(Box::new(|sweep| sweep.scratch(directory)));
                }
                Short('w') | Long("writable") => {
                    let path = PathBuf::from(parser.value()?);
                    repeat += &format!(" --writable {}", quoted(&path));
                    change.push(Box::new(|sweep| sweep.writable(path)));
                }
                Long("online") => {
                    repeat += " --online";
                    change.push(Box::new(Sweep::online));
                }
                Long("unconfined") => {
                    repeat += " --unconfined";
                    change.push(Box::new(Sweep::unconfined));
                }
                Long("json") => json = Some(Saved::open(parser.value()?.into())?),
                Long("html") => html = Some(Saved::open(parser.value()?.into())?),
                Short('q') | Long("quiet") => quiet = true,
                Short('h') | Long("help") => return Ok(Self::Help),
                Value(program) => break program,
                unknown => return Err(unknown.unexpected()),
            }
        };
        let mut command = Command::new(&program);
        command.args(parser.raw_args()?);
        let mut sweep = Sweep::new(command).repeat_with(repeat + " --only");
        if !cases.is_empty() {
            sweep = sweep.only(cases);
        }
        Ok(Self::Sweep(Box::new(Options {
            sweep: change.into_iter().fold(sweep, |sweep, change| change(sweep)),
            json,
            html,
            quiet,
            program,
        })))
    }
}

/// The number that an option takes.
fn number<T>(parser: &mut lexopt::Parser, option: &str) -> Result<T, String>
where
    T: FromStr<Err: std::fmt::Display>,
{
    let value = parser.value().map_err(|error| error.to_string())?;
    let text = value.to_string_lossy();
    let number = text.parse();
    number.map_err(|error| format!("{option} `{}`: {error}", text.escape_debug()))
}
