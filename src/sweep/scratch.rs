//! The directory that a run has for itself.

#[cfg(test)]
mod tests;

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::copy::copy;
use super::directory::directory;
use super::remove;
use super::snapshot::Snapshot;
use super::walk::{PLACES, walk};
use crate::error::{Error, Result};

/// The directory of one run, with one to work in, a home and one for temporary files. Dropping it removes it, which blocks.
#[derive(Debug)]
pub(super) struct Scratch {
    root: PathBuf,
    work: PathBuf,
    home: PathBuf,
    tmp: PathBuf,
    /// The root, wherever it is moved to.
    directory: OwnedFd,
    parent: OwnedFd,
    name: CString,
}

impl Scratch {
    /// Makes the directory with this number in `parent`, where each has a path of the same length. `files` are copied to
    /// where the run works.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a directory can't be made, [`Error::NotSweepable`] if the files can't be copied or are too many.
    pub(super) fn make(parent: &Path, number: u64, files: Option<&Path>) -> Result<Self> {
        // The path as the program will be told it by the kernel.
        let path = parent.canonicalize().map_err(|source| Error::Io {
            operation: "looking up the scratch directories",
            source,
        })?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let parent = open(&path, flags, Mode::empty()).map_err(failed)?;
        let name = format!("{number:08}");
        let root = path.join(&name);
        let name = CString::new(name).map_err(|_| failed(Errno::EINVAL))?;
        mkdirat(&parent, name.as_c_str(), ALL_MAY_LOOK).map_err(failed)?;
        let directory = directory(&parent, &name).map_err(|errno| {
            // It is empty and nobody's.
            let _ = unlinkat(&parent, name.as_c_str(), UnlinkatFlags::RemoveDir);
            failed(errno)
        })?;
        let scratch = Self {
            work: root.join("work"),
            home: root.join("home"),
            tmp: root.join("tmp"),
            root,
            directory,
            parent,
            name,
        };
        scratch.fill(files)?;
        Ok(scratch)
    }

    fn fill(&self, files: Option<&Path>) -> Result<()> {
        for (name, _) in PLACES {
            mkdirat(&self.directory, name, ALL_MAY_LOOK).map_err(failed)?;
        }
        if let Some(files) = files {
            let work = directory(&self.directory, c"work").map_err(failed)?;
            copy(files, work, &fstat(&self.parent).map_err(failed)?)?;
        }
        Ok(())
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn work(&self) -> &Path {
        &self.work
    }

    pub(super) fn home(&self) -> &Path {
        &self.home
    }

    pub(super) fn tmp(&self) -> &Path {
        &self.tmp
    }

    /// Finds out what files there are. It blocks.
    ///
    /// # Errors
    ///
    /// [`Error::NotSweepable`] if there are too many; [`Error::Io`] if this process is out of descriptors or memory, or has
    /// no `/proc`.
    pub(super) fn snapshot(&self) -> Result<Snapshot> {
        Ok(Snapshot::new(walk(&self.directory, &self.root)?))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let emptied = remove::empty(&self.directory);
        let removed = unlinkat(&self.parent, self.name.as_c_str(), UnlinkatFlags::RemoveDir);
        if let Err(errno) = emptied.and(removed) {
            crate::trace::warning!(%errno, "could not remove a scratch directory");
        }
    }
}

/// Less what the umask takes away.
const ALL_MAY_LOOK: Mode = Mode::from_bits_truncate(0o755);

fn failed(errno: Errno) -> Error {
    Error::os("making a scratch directory", errno)
}
