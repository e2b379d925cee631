//! Looking at what a run has left. The run may go on meanwhile, and may have been out to deceive.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::readlinkat;
use nix::sys::stat::{FileStat, SFlag, fstat};

use super::contents::Contents;
use super::copy::kind;
use super::directory::{DEEPEST, MOST_FILES, directory, handle, names, reopen};
use super::snapshot::{Data, Entry};
use crate::error::{Error, Result};

/// How much is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) files: usize,
    /// The bytes in files, of each of which only the first count.
    pub(super) data: u64,
    /// The bytes of names.
    pub(super) names: usize,
}

impl Bounds {
    pub(super) const USUAL: Self = Self {
        files: MOST_FILES,
        data: 1 << 30,
        names: 64 << 20,
    };
}

/// Where a program finds itself, its home and its temporary files, and what they are called here.
pub(super) const PLACES: [(&CStr, &str); 3] = [(c"work", "."), (c"home", "$HOME"), (c"tmp", "$TMPDIR")];

/// What was found, and which bound there is more beyond.
pub(super) type Found = (BTreeMap<String, Entry>, Option<String>);

/// Finds out what is in the directory of a run, whose path it is.
pub(super) fn walk(root: &OwnedFd, path: &Path, bounds: &Bounds) -> Result<Found> {
    let mut walk = Walk {
        contents: Contents::new(path.as_os_str().as_bytes()),
        found: BTreeMap::new(),
        names: 0,
        files: 0,
        beyond: None,
        bounds,
    };
    let Some(root) = walk.usable(directory(root, c"."))? else {
        walk.take_down("..".into(), Entry::UNREACHABLE);
        return Ok((walk.found, None));
    };
    let mut frames: Vec<_> = walk.open(root, Place::Root)?.into_iter().collect();
    loop {
        let is_deepest = frames.len() == DEEPEST;
        let Some(frame) = frames.last_mut() else {
            return Ok((walk.found, walk.beyond));
        };
        if walk.is_full() {
            return Ok((walk.found, walk.beyond));
        }
        let Some(name) = frame.names.pop() else {
            frames.pop();
            continue;
        };
        let (key, inner) = frame.place.of(&name);
        if let Some(below) = walk.look(&frame.directory, &name, key, is_deepest)? {
            frames.extend(walk.open(below, inner)?);
        }
    }
}

/// What the names in a directory are shown as.
enum Place {
    /// Those of a run.
    Root,
    /// Those in the working directory.
    Work,
    /// Those that follow this path.
    Below(String),
}

impl Place {
    /// The whole name, and the place of what is in there.
    fn of(&self, name: &CStr) -> (String, Self) {
        let shown = shown(name.to_bytes());
        let special = PLACES.into_iter().find(|(place, _)| *place == name);
        let path = match (self, special) {
            (Self::Root, Some((_, "."))) => return (".".to_owned(), Self::Work),
            (Self::Root, Some((_, shown))) => shown.to_owned(),
            (Self::Root, None) => format!("../{shown}"),
            // It would be taken for the other one.
            (Self::Work, _) if PLACES.iter().any(|(_, place)| *place == shown) => format!("./{shown}"),
            (Self::Work, _) => shown,
            (Self::Below(path), _) => format!("{path}/{shown}"),
        };
        (path.clone(), Self::Below(path))
    }
}

/// A name as text. No two names are shown alike, and none can control a terminal.
fn shown(name: &[u8]) -> String {
    let mut shown = String::with_capacity(name.len());
    let escaped = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("\\x{byte:02x}"))
            .collect::<String>()
    };
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => shown.push_str("\\\\"),
                _ if character.is_control() => {
                    shown.push_str(&escaped(character.encode_utf8(&mut [0; 4]).as_bytes()));
                }
                _ => shown.push(character),
            }
        }
        shown.push_str(&escaped(chunk.invalid()));
    }
    shown
}

/// A directory that is being looked through.
struct Frame {
    directory: Dir,
    names: Vec<CString>,
    place: Place,
}

struct Walk<'a> {
    contents: Contents<'a>,
    found: BTreeMap<String, Entry>,
    /// How many bytes of names are kept.
    names: usize,
    files: usize,
    /// The bound that does not let all be seen.
    beyond: Option<String>,
    bounds: &'a Bounds,
}

impl Walk<'_> {
    /// Reads a directory, if it can still be read; what changes in it meanwhile is there or not.
    fn open(&mut self, directory: OwnedFd, place: Place) -> Result<Option<Frame>> {
        let left = self.bounds.files - self.files;
        let Some((directory, mut names)) = self.usable(names(directory, left + 1))? else {
            return Ok(None);
        };
        if names.len() > left {
            names.truncate(left);
            self.beyond = Some(format!("{} files", self.bounds.files));
        }
        self.files += names.len();
        Ok(Some(Frame {
            directory,
            names,
            place,
        }))
    }

    /// Takes down what has this name, if it is still there; gives the directory if it is one to go through.
    fn look(&mut self, at: impl AsFd, name: &CStr, key: String, is_deepest: bool) -> Result<Option<OwnedFd>> {
        let handle = match handle(at, name) {
            Err(Errno::EACCES) => {
                self.take_down(key, Entry::UNREACHABLE);
                return Ok(None);
            }
            handle => self.usable(handle)?,
        };
        let Some(handle) = handle else { return Ok(None) };
        let status = fstat(&handle).map_err(failed)?;
        let mut below = None;
        let data = match kind(&status) {
            SFlag::S_IFREG => self.file(&handle, &status)?,
            SFlag::S_IFLNK => match self.usable(readlinkat(&handle, c""))? {
                Some(target) => self.data(target.as_bytes(), target.len() as u64),
                None => Data::Unreadable,
            },
            SFlag::S_IFDIR if is_deepest => Data::TooDeep,
            SFlag::S_IFDIR => {
                below = self.usable(directory(&handle, c"."))?;
                if below.is_some() {
                    Data::None
                } else {
                    Data::Unreadable
                }
            }
            _ => Data::None,
        };
        self.take_down(key, Entry::new(&status, data));
        Ok(below)
    }

    fn file(&mut self, handle: &OwnedFd, status: &FileStat) -> Result<Data> {
        let file = match reopen(handle) {
            // The file is there as long as the handle is, so it is the way to it that is not.
            Err(Errno::ENOENT) => return Err(failed(Errno::ENOENT)),
            file => self.usable(file)?,
        };
        Ok(match file {
            Some(file) => self.data(File::from(file), status.st_size.unsigned_abs()),
            None => Data::Unreadable,
        })
    }

    fn data(&mut self, contents: impl std::io::Read, length: u64) -> Data {
        let hash = self.contents.hash(contents);
        hash.map_or(Data::Unreadable, |hash| Data::Known { length, hash })
    }

    fn take_down(&mut self, key: String, entry: Entry) {
        let Bounds { data, names, .. } = *self.bounds;
        self.names += key.len();
        if self.names > names {
            self.beyond = Some(format!("{names} bytes of names of files"));
        }
        if self.contents.read > data {
            self.beyond = Some(format!("{data} bytes in files"));
        }
        self.found.insert(key, entry);
    }

    /// Whether no more may be taken down.
    fn is_full(&self) -> bool {
        self.names > self.bounds.names || self.contents.read > self.bounds.data
    }

    /// Tells what this process is short of from what the run has made of its files.
    fn usable<T>(&self, outcome: Result<T, Errno>) -> Result<Option<T>> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)) => Err(failed(errno)),
            Err(_) => Ok(None),
        }
    }
}

fn failed(errno: Errno) -> Error {
    Error::os("looking at the files of a run", errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_apart_and_plain() {
        let names: [&[u8]; 9] = [
            b"\xff",
            b"\\xff",
            b"\\\\xff",
            "\u{fffd}".as_bytes(),
            b"\xc2\x80",
            b"\xc2",
            b"\x1b[31m",
            b"a\nb",
            b"a\\nb",
        ];
        let all = names.map(shown);
        for (index, name) in all.iter().enumerate() {
            assert!(!all[..index].contains(name), "{name}");
            assert!(!name.contains(char::is_control), "{name}");
        }
        assert_eq!(shown("grün ☃".as_bytes()), "grün ☃");
        assert_eq!(shown(b"a\xffb"), "a\\xffb");
    }

    #[test]
    fn a_name_is_not_taken_for_a_place() {
        let key = |place: &Place, name| place.of(name).0;
        assert_eq!(key(&Place::Root, c"work"), ".");
        assert_eq!(key(&Place::Root, c"home"), "$HOME");
        assert_eq!(key(&Place::Root, c"other"), "../other");
        assert_eq!(key(&Place::Work, c"$HOME"), "./$HOME");
        assert_eq!(key(&Place::Work, c"work"), "work");
        assert_eq!(key(&Place::Root.of(c"tmp").1, c"x"), "$TMPDIR/x");
        assert_eq!(key(&Place::Work.of(c"$HOME").1, c"x"), "./$HOME/x");
    }
}
