//! The command line.

use std::ffi::{OsStr, OsString};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use asm_tracer::emulate::Address;
use lexopt::prelude::*;

pub(crate) const HELP: &str = "\
Runs a program that gets other files and other servers than it asks for.

Usage: redirect [OPTIONS] [--] PROGRAM [ARGUMENTS]...

Options:
  -f, --file FROM=TO     where FROM is opened, open TO
  -c, --connect FROM=TO  where a socket is to be connected to FROM, connect it to TO:
                         HOST:PORT or unix:PATH, both of the same kind
  -v, --verbose          say what is redirected
  -h, --help             print this help

This is a convenience and no sandbox: a program can find its way around it.

The exit status is that of the program, or 128 and its signal's number. It is 2
if the command line makes no sense, 125 if redirect itself fails, 126 if the
program can't be executed, and 127 if there is no such program.
";

#[derive(Default)]
pub(crate) struct Options {
    pub(crate) redirections: Redirections,
    pub(crate) program: OsString,
    pub(crate) arguments: Vec<OsString>,
}

#[derive(Default)]
pub(crate) struct Redirections {
    files: Vec<(PathBuf, PathBuf)>,
    addresses: Vec<(Address, Address)>,
    pub(crate) verbose: bool,
}

impl Redirections {
    /// What to open in place of this.
    pub(crate) fn file(&self, path: &Path) -> Option<&Path> {
        let found = self.files.iter().find(|(from, _)| from == path);
        found.map(|(_, to)| to.as_path())
    }

    /// Where to connect to in place of this.
    pub(crate) fn address(&self, address: &Address) -> Option<&Address> {
        let found = self.addresses.iter().find(|(from, _)| from == address);
        found.map(|(_, to)| to)
    }
}

impl Options {
    /// Reads the command line; `None` asks for help.
    pub(crate) fn parse(mut parser: lexopt::Parser) -> Result<Option<Self>, lexopt::Error> {
        let mut options = Self::default();
        let redirections = &mut options.redirections;
        options.program = loop {
            match parser.next()? {
                Some(Short('f') | Long("file")) => {
                    let (from, to) = pair(parser.value()?)?;
                    let (from, to) = (absolute(&from)?, absolute(&to)?);
                    // By each of its names, if it has more.
                    let real = from.canonicalize().ok().map(|real| (real, to.clone()));
                    redirections.files.push((from, to));
                    redirections.files.extend(real);
                }
                Some(Short('c') | Long("connect")) => {
                    let (from, to) = pair(parser.value()?)?;
                    redirections.addresses.extend(connections(&from, &to)?);
                }
                Some(Short('v') | Long("verbose")) => redirections.verbose = true,
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

fn pair(value: OsString) -> Result<(OsString, OsString), String> {
    let bytes = value.as_bytes();
    let middle = bytes.iter().position(|byte| *byte == b'=');
    let middle = middle.ok_or_else(|| format!("`{}` is not FROM=TO", value.display()))?;
    let part = |bytes| OsStr::from_bytes(bytes).to_owned();
    Ok((part(&bytes[..middle]), part(&bytes[middle + 1..])))
}

fn absolute(path: &OsStr) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|error| format!("`{}`: {error}", path.display()))
}

/// All that a redirection means: a host may have more than one address.
fn connections(from: &OsStr, to: &OsStr) -> Result<Vec<(Address, Address)>, String> {
    let path = |end: &OsStr| {
        let path = end.as_bytes().strip_prefix(b"unix:")?;
        Some(OsStr::from_bytes(path).to_owned())
    };
    match (path(from), path(to)) {
        (Some(from), Some(to)) => {
            let to = Address::UnixPath(absolute(&to)?);
            Ok(vec![(Address::UnixPath(from.into()), to)])
        }
        (None, None) => {
            let (from, to) = (resolve(from)?, resolve(to)?);
            let pairs = from.iter().filter_map(|from| {
                // A socket is of one family, but one of IPv6 reaches IPv4, too.
                let same = to.iter().find(|to| to.is_ipv4() == from.is_ipv4());
                let mapped = to.iter().find_map(|to| match (from, to) {
                    (SocketAddr::V6(_), SocketAddr::V4(to)) => {
                        Some((to.ip().to_ipv6_mapped(), to.port()).into())
                    }
                    _ => None,
                });
                let to = same.copied().or(mapped)?;
                Some((Address::from(*from), Address::from(to)))
            });
            match pairs.collect::<Vec<_>>() {
                none if none.is_empty() => Err("a socket of IPv4 can't be connected to IPv6".into()),
                pairs => Ok(pairs),
            }
        }
        _ => Err("a socket of one kind can't be connected to one of the other".into()),
    }
}

fn resolve(end: &OsStr) -> Result<Vec<SocketAddr>, String> {
    let fail = |why: &dyn std::fmt::Display| format!("`{}`: {why}", end.display());
    let text = end.to_str().ok_or_else(|| fail(&"not HOST:PORT"))?;
    let addresses = text.to_socket_addrs().map_err(|error| fail(&error))?;
    Ok(addresses.collect())
}
