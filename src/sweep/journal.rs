//! The trials of a sweep on disk, so that one that was broken off goes on where it was.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::stamp::Stamp;
use super::trial::Trial;
use crate::error::{Error, Result};

/// The first line: of which sweep it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    /// The version of the format.
    pub(super) version: u32,
    pub(super) command: Vec<String>,
    pub(super) files: Option<PathBuf>,
    pub(super) stdin: Option<Vec<u8>>,
    pub(super) confined: bool,
    pub(super) writable: Vec<PathBuf>,
    pub(super) online: bool,
    /// Of what is run.
    pub(super) stamps: BTreeMap<String, Stamp>,
}

impl Header {
    /// Why what is in a journal with this other header says nothing about this sweep.
    fn difference(&self, other: &Self) -> Option<String> {
        let unstamped = |header: &Self| Self {
            stamps: BTreeMap::new(),
            ..header.clone()
        };
        if unstamped(self) != unstamped(other) {
            return Some("it is that of another sweep".into());
        }
        let mut paths = self.stamps.keys().chain(other.stamps.keys());
        let changed = paths.find(|path| self.stamps.get(*path) != other.stamps.get(*path))?;
        Some(format!("{changed} has changed since it was begun"))
    }
}

/// A line for each trial, in the order in which they ended.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    /// Nobody else's as long as the sweep runs.
    file: Flock<File>,
    /// How long it is.
    whole: u64,
}

impl Journal {
    /// Opens the journal of a sweep, or begins it, and gives the trials that are in it.
    ///
    /// A last line that was not written to its end is overwritten.
    pub(super) fn open(path: &Path, header: &Header) -> Result<(Self, Vec<Trial>)> {
        let failed = failed(path);
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        let locked = Flock::lock(file.map_err(&failed)?, FlockArg::LockExclusiveNonblock);
        let mut file = locked.map_err(|(_, errno)| failed(errno.into()))?;
        let mut trials = Vec::new();
        let mut whole = 0;
        let mut lines = BufReader::new(&*file);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let read = lines.read_until(b'\n', &mut line).map_err(&failed)?;
            if !line.ends_with(b"\n") {
                if number == 1 && !json(path, header)?.starts_with(&line) {
                    return Err(invalid(path, "it is no journal".into()));
                }
                break;
            }
            let unreadable = |error| invalid(path, format!("line {number}: {error}"));
            match number {
                1 => {
                    let begun: Header = serde_json::from_slice(&line).map_err(unreadable)?;
                    if let Some(why) = header.difference(&begun) {
                        return Err(invalid(path, why));
                    }
                }
                _ => trials.push(serde_json::from_slice(&line).map_err(unreadable)?),
            }
            whole += read as u64;
        }
        file.set_len(whole).map_err(&failed)?;
        file.seek(SeekFrom::End(0)).map_err(&failed)?;
        let mut journal = Self {
            path: path.to_owned(),
            file,
            whole,
        };
        if whole == 0 {
            journal.append(header)?;
        }
        Ok((journal, trials))
    }

    pub(super) fn append(&mut self, entry: &impl Serialize) -> Result<()> {
        // In one piece: what is torn off is the end of the file.
        let line = json(&self.path, entry)?;
        if let Err(error) = self.file.write_all(&line) {
            // Others may still have something to write, which is not to stand behind half a line.
            let back = self.file.set_len(self.whole);
            let back = back.and_then(|()| self.file.seek(SeekFrom::End(0)));
            back.map_err(failed(&self.path))?;
            return Err(failed(&self.path)(error));
        }
        self.whole += line.len() as u64;
        Ok(())
    }
}

fn json(path: &Path, entry: &impl Serialize) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(entry).map_err(|error| invalid(path, error.to_string()))?;
    line.push(b'\n');
    Ok(line)
}

fn invalid(path: &Path, why: String) -> Error {
    Error::InvalidJournal {
        path: path.to_owned(),
        why,
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Error {
    |error| invalid(path, error.to_string())
}
