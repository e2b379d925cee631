//! Removing what a run has left, whatever it is.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::renameat;
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::directory::{DEEPEST, directory, entries, set_permissions};

/// So often it is begun anew, since a process that is just dying may still make files.
const ROUNDS: usize = 16;

/// So many names of a directory are read at a time.
const BATCH: usize = 1024;

/// Removes all that is in a directory, without following a link out of it.
///
/// What is deeper than there are descriptors for is moved up first; permissions that are in the way are changed.
pub(super) fn empty(root: &OwnedFd) -> Result<(), Errno> {
    let mut outcome = Ok(());
    for _ in 0..ROUNDS {
        outcome = round(root.as_fd());
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// A directory that is being emptied.
struct Frame {
    directory: Dir,
    name: CString,
    /// What is to be looked at.
    batch: Vec<(CString, bool)>,
    /// Whether there may be something beyond that.
    more: bool,
    /// What could not be removed.
    stuck: BTreeSet<CString>,
}

impl Frame {
    fn open(at: impl AsFd, name: &CStr) -> Result<Self, Errno> {
        let opened = match directory(&at, name) {
            Err(Errno::EACCES) => {
                set_permissions(&at, name, Mode::S_IRWXU)?;
                directory(&at, name)?
            }
            opened => opened?,
        };
        // If it can't be changed, it may be good enough as it is.
        let _ = fchmod(&opened, Mode::S_IRWXU);
        Ok(Self {
            directory: Dir::from_fd(opened)?,
            name: name.to_owned(),
            batch: Vec::new(),
            more: true,
            stuck: BTreeSet::new(),
        })
    }

    /// Removes what can be removed, up to a directory that is not empty.
    fn next_full(&mut self) -> Result<Option<CString>, Errno> {
        loop {
            while let Some((name, is_directory)) = self.batch.pop() {
                match remove(&self.directory, &name, is_directory) {
                    Ok(()) | Err(Errno::ENOENT) => {}
                    Err(Errno::ENOTEMPTY | Errno::EEXIST) => return Ok(Some(name)),
                    Err(_) => drop(self.stuck.insert(name)),
                }
            }
            if !self.more {
                return Ok(None);
            }
            let stuck = &self.stuck;
            let entries = entries(&mut self.directory, BATCH, |name| !stuck.contains(name))?;
            self.more = entries.len() == BATCH;
            let known = |entry: &nix::dir::Entry| entry.file_type() == Some(Type::Directory);
            self.batch = entries
                .iter()
                .map(|entry| (entry.file_name().to_owned(), known(entry)))
                .collect();
        }
    }
}

fn remove(at: &Dir, name: &CStr, is_directory: bool) -> Result<(), Errno> {
    if !is_directory {
        match unlinkat(at, name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR) => {}
            removed => return removed,
        }
    }
    match unlinkat(at, name, UnlinkatFlags::RemoveDir) {
        // It has been replaced.
        Err(Errno::ENOTDIR) => unlinkat(at, name, UnlinkatFlags::NoRemoveDir),
        removed => removed,
    }
}

/// Removes what can be removed, once.
fn round(root: BorrowedFd<'_>) -> Result<(), Errno> {
    // The directory is ours, but its permissions are what the run made of them.
    let _ = fchmod(root, Mode::S_IRWXU);
    let mut frames = vec![Frame::open(root, c".")?];
    let mut outcome = Ok(());
    let mut moved = 0_u64;
    loop {
        let is_deepest = frames.len() == DEEPEST;
        let Some(frame) = frames.last_mut() else {
            return outcome;
        };
        match frame.next_full() {
            Ok(Some(name)) if !is_deepest => match Frame::open(&frame.directory, &name) {
                Ok(below) => frames.push(below),
                // It is gone, or no directory any more: the next round sees to it.
                Err(errno) => {
                    outcome = Err(errno);
                    frame.stuck.insert(name);
                }
            },
            Ok(Some(name)) => {
                // To move it to another directory takes permissions for it.
                let _ = set_permissions(&frame.directory, &name, Mode::S_IRWXU);
                let up = format!("deep-{moved}");
                moved += 1;
                match renameat(&frame.directory, name.as_c_str(), root, up.as_str()) {
                    Ok(()) => frames.first_mut().into_iter().for_each(|top| top.more = true),
                    Err(errno) => {
                        outcome = Err(errno);
                        frame.stuck.insert(name);
                    }
                }
            }
            emptied => {
                let stuck = emptied
                    .err()
                    .or((!frame.stuck.is_empty()).then_some(Errno::ENOTEMPTY));
                outcome = stuck.map_or(outcome, Err);
                let done = frames.pop();
                if let (Some(done), Some(above)) = (done, frames.last_mut())
                    && let Err(errno) = remove(&above.directory, &done.name, true)
                    && errno != Errno::ENOENT
                {
                    outcome = Err(errno);
                    above.stuck.insert(done.name);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    /// As a run can have them between one call and the next.
    #[test]
    fn a_link_in_the_place_of_a_directory_is_not_emptied() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("kept"), "").unwrap();
        symlink(outside.path(), root.path().join("link")).unwrap();
        let mode = || fs::metadata(outside.path()).unwrap().mode();
        let before = mode();
        let at = Dir::from_fd(File::open(root.path()).unwrap().into()).unwrap();
        assert_eq!(Frame::open(&at, c"link").map(drop), Err(Errno::ENOTDIR));
        assert!(set_permissions(&at, c"link", Mode::empty()).is_err());
        assert_eq!(remove(&at, c"link", true), Ok(()));
        assert_eq!(mode(), before);
        assert!(outside.path().join("kept").exists());
    }
}
