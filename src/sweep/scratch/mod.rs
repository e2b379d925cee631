//! The directory that a run has for itself.

mod confine;
mod contents;
mod copy;
mod directory;
mod remove;
mod similar;
mod snapshot;
#[cfg(test)]
mod tests;
mod walk;

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use tempfile::TempDir;

pub(in crate::sweep) use self::confine::ruleset;
use self::contents::find;
use self::copy::copy;
use self::directory::{MOST_FILES, directory};
pub(in crate::sweep) use self::snapshot::Snapshot;
use self::walk::{Bounds, PLACES, walk};
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
    /// Removes the parent once nothing is in there.
    #[allow(dead_code)] // For its destructor.
    keeper: Option<Arc<TempDir>>,
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
            keeper: None,
        };
        scratch.fill(files)?;
        Ok(scratch)
    }

    /// Has the parent outlive this, wherever it is dropped.
    pub(super) fn kept_in(mut self, parent: Arc<TempDir>) -> Self {
        self.keeper = Some(parent);
        self
    }

    fn fill(&self, files: Option<&Path>) -> Result<()> {
        for (name, _) in PLACES {
            mkdirat(&self.directory, name, ALL_MAY_LOOK).map_err(failed)?;
        }
        if let Some(files) = files {
            let work = directory(&self.directory, c"work").map_err(failed)?;
            copy(files, work, &fstat(&self.parent).map_err(failed)?, MOST_FILES)?;
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

    /// What a program has written, with another path for the directory's, which is the same in each run.
    pub(super) fn anonymous(&self, bytes: &[u8]) -> Vec<u8> {
        let path = self.root.as_os_str().as_bytes();
        let mut rest = bytes;
        let mut anonymous = Vec::with_capacity(bytes.len());
        while let Some(at) = find(rest, path) {
            let (before, from) = rest.split_at(at);
            anonymous.extend_from_slice(before);
            anonymous.extend_from_slice(ANYWHERE);
            rest = from.get(path.len()..).unwrap_or_default();
        }
        anonymous.extend_from_slice(rest);
        anonymous
    }

    /// Finds out what files there are, up to [a bound](Snapshot::beyond). It blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if this process is out of descriptors or memory, or has
    /// no `/proc`.
    pub(super) fn snapshot(&self) -> Result<Snapshot> {
        Ok(Snapshot::new(walk(&self.directory, &self.root, &Bounds::USUAL)?))
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

/// What is shown of a directory that had another name in each run.
const ANYWHERE: &[u8] = b"/scratch";
/// Less what the umask takes away.
const ALL_MAY_LOOK: Mode = Mode::from_bits_truncate(0o755);

fn failed(errno: Errno) -> Error {
    Error::os("making a scratch directory", errno)
}
