//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use asm_tracer::sweep::{Case, Sweep};
use asm_tracer::{Command, Errno, Sysno};
use lexopt::prelude::*;

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
      --unconfined          let runs write wherever you may

What comes of it:
      --json FILE           write it as JSON
      --html FILE           write it as a page
  -q, --quiet               print nothing
  -h, --help                print this help

Each run has a directory of its own, which is removed afterwards, as its working
directory, and HOME and TMPDIR beside it. It can write nowhere else. Relative
paths among the arguments lead there, but not that of the program.

A case is [THREAD:]CALL#NUMBER=ERROR: the call with this number of its kind in
its thread. Threads are named by who made them: 0.2 is the second that the first
one has made. A finding comes with the command line that repeats it.

The exit status is 0 if nothing was found, 1 if something was, 2 if the command
line makes no sense, 125 if sweep itself fails, 126 if the program can't be
executed, and 127 if there is no such program.
";

pub(crate) enum Request {
    Sweep(Box<Options>),
    Help,
}

pub(crate) struct Options {
    pub(crate) sweep: Sweep,
    pub(crate) json: Option<PathBuf>,
    pub(crate) html: Option<PathBuf>,
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
                    repeat += &format!(" --files {}", directory.display());
                    change.push(Box::new(|sweep| sweep.files(directory)));
                }
                Short('i') | Long("stdin") => {
                    let path = PathBuf::from(parser.value()?);
                    let bytes = std::fs::read(&path);
                    let bytes = bytes.map_err(|error| format!("{}: {error}", path.display()))?;
                    repeat += &format!(" --stdin {}", path.display());
                    change.push(Box::new(|sweep| sweep.stdin(bytes)));
                }
                Short('e') | Long("calls") => {
                    let calls = list(&parser.value()?.string()?, "system call", |name| {
                        name.parse::<Sysno>().ok()
                    })?;
                    change.push(Box::new(move |sweep| sweep.calls(calls.as_slice())));
                }
                Short('E') | Long("errors") => {
                    let errors = list(&parser.value()?.string()?, "error", errno)?;
                    change.push(Box::new(|sweep| sweep.errors(errors)));
                }
                Long("only") => {
                    let case = parser.value()?.string()?.parse();
                    cases.push(case.map_err(|error: asm_tracer::Error| error.to_string())?);
                }
                Short('j') | Long("jobs") => {
                    let jobs = parser.value()?.parse()?;
                    change.push(Box::new(move |sweep| sweep.jobs(jobs)));
                }
                Short('n') | Long("limit") => {
                    let limit = parser.value()?.parse()?;
                    change.push(Box::new(move |sweep| sweep.limit(limit)));
                }
                Long("time") => {
                    let time = Duration::from_secs(parser.value()?.parse()?);
                    change.push(Box::new(move |sweep| sweep.time_limit(time)));
                }
                Long("deadline") => {
                    let limit = Duration::from_millis(parser.value()?.parse()?);
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
                    repeat += &format!(" --writable {}", path.display());
                    change.push(Box::new(|sweep| sweep.writable(path)));
                }
                Long("unconfined") => {
                    repeat += " --unconfined";
                    change.push(Box::new(Sweep::unconfined));
                }
                Long("json") => json = Some(parser.value()?.into()),
                Long("html") => html = Some(parser.value()?.into()),
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

/// Names, with commas between them.
fn list<T>(names: &str, what: &str, named: fn(&str) -> Option<T>) -> Result<Vec<T>, String> {
    let one = |name: &str| named(name).ok_or_else(|| format!("there is no {what} `{}`", name.escape_debug()));
    names.split(',').map(one).collect()
}

fn errno(name: &str) -> Option<Errno> {
    let known = (1..4096)
        .map(Errno::from_raw)
        .filter(|errno| *errno != Errno::UnknownErrno);
    known.into_iter().find(|errno| format!("{errno:?}") == name)
}
