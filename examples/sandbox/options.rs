//! The command line.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use lexopt::prelude::*;

use crate::policy::{Access, Policy};

pub(crate) const HELP: &str = "\
Runs a program, and all that it starts, with the files that it is given and no others.

Usage: sandbox [OPTIONS] [--] PROGRAM [ARGUMENTS]...

Options:
  -a, --allow PATH        PATH and what is below can be read and changed
  -r, --read-only PATH    PATH and what is below can be read and executed
  -d, --deny PATH         PATH and what is below can't be used, though something above can
      --redirect FROM=TO  where FROM or something below is meant, take TO; if FROM does not
                          exist, only where it is named by its absolute path
      --system            what most programs need, read-only: /usr, /etc without its
                          secrets, and the like; a process's own part of /proc
      --network           the program may connect to other machines
  -v, --verbose           say what is refused
  -h, --help              print this help

What no rule speaks of is denied, and the longest path of a rule counts. Programs
can be executed from read-only trees alone, like from anywhere where others than
the program decide what is there. A rule is about the place where something is,
not about what it is called: a file that has more links has more places.

The descriptors that the program inherits are its to use. The program itself is
started whether a rule permits it or not.

The exit status is that of the program, or 128 and its signal's number. It is 2
if the command line makes no sense, 125 if sandbox itself fails, 126 if the
program can't be executed, and 127 if there is no such program.
";

#[derive(Default)]
pub(crate) struct Options {
    pub(crate) policy: Policy,
    pub(crate) verbose: bool,
    pub(crate) program: OsString,
    pub(crate) arguments: Vec<OsString>,
}

impl Options {
    /// Reads the command line; `None` asks for help.
    pub(crate) fn parse(mut parser: lexopt::Parser) -> Result<Option<Self>, lexopt::Error> {
        let mut options = Self::default();
        let policy = &mut options.policy;
        options.program = loop {
            match parser.next()? {
                Some(Short('a') | Long("allow")) => policy.add(&existing(parser.value()?)?, Access::Write),
                Some(Short('r') | Long("read-only")) => policy.add(&existing(parser.value()?)?, Access::Read),
                Some(Short('d') | Long("deny")) => {
                    let path = absolute(&parser.value()?)?;
                    policy.add(&path.canonicalize().unwrap_or(path), Access::None);
                }
                Some(Long("redirect")) => {
                    let value = parser.value()?;
                    let bytes = value.as_bytes();
                    let middle = bytes.iter().position(|byte| *byte == b'=');
                    let middle = middle.ok_or_else(|| format!("`{}` is not FROM=TO", value.display()))?;
                    let to = OsStr::from_bytes(&bytes[middle + 1..]).to_owned();
                    let from = absolute(OsStr::from_bytes(&bytes[..middle]))?;
                    policy.redirect(from, existing(to)?);
                }
                Some(Long("system")) => policy.add_system(),
                Some(Long("network")) => policy.network = true,
                Some(Short('v') | Long("verbose")) => options.verbose = true,
                Some(Short('h') | Long("help")) => return Ok(None),
                Some(Value(program)) => break program,
                Some(unknown) => return Err(unknown.unexpected()),
                None => return Err("no program to run".into()),
            }
        };
        options.arguments = parser.raw_args()?.collect();
        Ok(Some(options))
    }
}

fn absolute(path: &OsStr) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|error| format!("`{}`: {error}", path.display()))
}

/// Without symlinks, since rules are about where something is.
fn existing(path: OsString) -> Result<PathBuf, String> {
    std::fs::canonicalize(&path).map_err(|error| format!("`{}`: {error}", path.display()))
}
