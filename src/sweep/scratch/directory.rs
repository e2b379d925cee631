//! Directories and what is in them by descriptor and name, so that no link leads elsewhere.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::dir::{Dir, Entry};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open, openat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};

/// So many directories inside of each other are gone through, each with a descriptor.
pub(super) const DEEPEST: usize = 64;

/// So many files are kept track of.
pub(super) const MOST_FILES: usize = 100_000;

/// Opens a directory to read what is in it.
pub(super) fn directory(at: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

/// Takes hold of a file of whatever kind without opening it.
pub(super) fn handle(at: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

/// Opens the regular file of a handle for reading. Nobody can have put another one in its place.
pub(super) fn reopen(handle: &OwnedFd) -> Result<OwnedFd, Errno> {
    // Without waiting for a process that has a lease on it.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    open(own(handle).as_str(), flags, Mode::empty())
}

/// Changes the permissions of a file that is no link.
pub(super) fn set_permissions(at: impl AsFd, name: &CStr, mode: Mode) -> Result<(), Errno> {
    let handle = handle(at, name)?;
    fchmodat(
        AT_FDCWD,
        own(&handle).as_str(),
        mode,
        FchmodatFlags::FollowSymlink,
    )
}

/// The link of this process to what it has open, which leads to that very file.
fn own(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Reads a directory from its beginning, up to `limit` of those entries that `wanted` is true for.
pub(super) fn entries(
    directory: &mut Dir,
    limit: usize,
    mut wanted: impl FnMut(&CStr) -> bool,
) -> Result<Vec<Entry>, Errno> {
    let others = |name: &CStr| name != c"." && name != c"..";
    directory
        .iter()
        .filter(|entry| match entry {
            Ok(entry) => others(entry.file_name()) && wanted(entry.file_name()),
            Err(_) => true,
        })
        .take(limit)
        .collect()
}

/// The names in a directory, up to `limit`.
pub(super) fn names(directory: OwnedFd, limit: usize) -> Result<(Dir, Vec<CString>), Errno> {
    let mut directory = Dir::from_fd(directory)?;
    let entries = entries(&mut directory, limit, |_| true)?;
    let names = entries.iter().map(|entry| entry.file_name().to_owned()).collect();
    Ok((directory, names))
}
