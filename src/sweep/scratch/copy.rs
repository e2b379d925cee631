//! Copying the files that a program is to find.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{
    FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstat, fstatat, futimens, mkdirat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Whence, ftruncate, lseek, mkfifoat, symlinkat};

use super::directory::{DEEPEST, directory, names, set_permissions};
use crate::error::{Error, Result};

/// Copies what is in a directory, but for `except`: directories, regular files, links and FIFOs, with their permissions
/// and the times of their last change. Owners and extended attributes are not kept, and hard links become files of their own.
pub(super) fn copy(from: &Path, to: OwnedFd, except: &FileStat, most: usize) -> Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let source = open(from, flags, Mode::empty()).map_err(|errno| failed(from, errno))?;
    let mut left = most;
    let first = Frame::open(source, to, from.to_owned(), &mut left)?;
    let mut frames = vec![first];
    while let Some(frame) = frames.last_mut() {
        let Some(name) = frame.names.pop() else {
            frame.finish()?;
            frames.pop();
            continue;
        };
        let path = frame.path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
        let Some((source, to)) = frame.copy(&name, except).map_err(|errno| failed(&path, errno))? else {
            continue;
        };
        if frames.len() == DEEPEST {
            let path = path.display();
            let why = format!("{path} is inside of more than {DEEPEST} directories that would be copied");
            return Err(Error::NotSweepable(why));
        }
        frames.push(Frame::open(source, to, path, &mut left)?);
    }
    Ok(())
}

fn failed(path: &Path, errno: Errno) -> Error {
    match errno {
        Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM => Error::os("copying the files of a run", errno),
        errno => Error::NotSweepable(format!("{} can't be copied: {}", path.display(), errno.desc())),
    }
}

/// A directory that is being copied.
struct Frame {
    from: Dir,
    to: OwnedFd,
    /// What is still to be copied.
    names: Vec<CString>,
    path: PathBuf,
}

impl Frame {
    fn open(from: OwnedFd, to: OwnedFd, path: PathBuf, left: &mut usize) -> Result<Self> {
        let (from, names) = names(from, *left + 1).map_err(|errno| failed(&path, errno))?;
        let Some(rest) = left.checked_sub(names.len()) else {
            let why = "there are more files to be copied than a run may have";
            return Err(Error::NotSweepable(why.into()));
        };
        *left = rest;
        Ok(Self {
            from,
            to,
            names,
            path,
        })
    }

    /// Copies what has this name, unless it is a directory, which is made and opened, as is its source.
    fn copy(&self, name: &CStr, except: &FileStat) -> Result<Option<(OwnedFd, OwnedFd)>, Errno> {
        let (from, to) = (&self.from, &self.to);
        let status = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        match kind(&status) {
            // Where the copy itself is made.
            SFlag::S_IFDIR if (status.st_dev, status.st_ino) == (except.st_dev, except.st_ino) => {}
            SFlag::S_IFDIR => {
                mkdirat(to, name, Mode::S_IRWXU)?;
                return Ok(Some((directory(from, name)?, directory(to, name)?)));
            }
            SFlag::S_IFREG => copy_file(from, to, name)?,
            SFlag::S_IFLNK => {
                symlinkat(readlinkat(from, name)?.as_os_str(), to, name)?;
                set_time(to, name, &status)?;
            }
            SFlag::S_IFIFO => {
                mkfifoat(to, name, Mode::S_IRUSR)?;
                set_permissions(to, name, mode(&status))?;
                set_time(to, name, &status)?;
            }
            // Sockets and devices mean nothing without whoever serves them.
            _ => {}
        }
        Ok(None)
    }

    /// Once it is full, since that takes permissions and changes the time.
    fn finish(&self) -> Result<()> {
        let finish = || {
            let status = fstat(&self.from)?;
            fchmod(&self.to, mode(&status))?;
            futimens(&self.to, &TimeSpec::UTIME_OMIT, &changed(&status))
        };
        finish().map_err(|errno| failed(&self.path, errno))
    }
}

pub(super) fn kind(status: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT
}

fn mode(status: &FileStat) -> Mode {
    Mode::from_bits_truncate(status.st_mode)
}

/// When the contents were changed last.
fn changed(status: &FileStat) -> TimeSpec {
    TimeSpec::new(status.st_mtime, status.st_mtime_nsec)
}

fn set_time(at: impl AsFd, name: &CStr, status: &FileStat) -> Result<(), Errno> {
    let flags = UtimensatFlags::NoFollowSymlink;
    utimensat(at, name, &TimeSpec::UTIME_OMIT, &changed(status), flags)
}

fn copy_file(from: &Dir, to: &OwnedFd, name: &CStr) -> Result<(), Errno> {
    let read = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let source = openat(from, name, read, Mode::empty())?;
    let status = fstat(&source)?;
    if kind(&status) != SFlag::S_IFREG {
        return Err(Errno::ESTALE);
    }
    let write = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let copy = openat(to, name, write, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let copy = copy_data(source, copy, status.st_size)?;
    fchmod(&copy, mode(&status))?;
    futimens(&copy, &TimeSpec::UTIME_OMIT, &changed(&status))
}

/// Copies what is not a hole, since a file may be longer than any disk.
fn copy_data(source: OwnedFd, copy: OwnedFd, length: i64) -> Result<OwnedFd, Errno> {
    ftruncate(&copy, length)?;
    let (mut source, mut copy) = (File::from(source), File::from(copy));
    let mut at = 0;
    while at < length {
        let start = match lseek(&source, at, Whence::SeekData) {
            Ok(start) if start < length => start,
            Ok(_) | Err(Errno::ENXIO) => break,
            Err(errno) => return Err(errno),
        };
        at = lseek(&source, start, Whence::SeekHole)?.min(length);
        lseek(&source, start, Whence::SeekSet)?;
        lseek(&copy, start, Whence::SeekSet)?;
        let mut part = source.by_ref().take(at.abs_diff(start));
        std::io::copy(&mut part, &mut copy)
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    }
    Ok(copy.into())
}
