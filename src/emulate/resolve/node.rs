//! One object on a walk: a descriptor that stays the object's, whatever happens to its names.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use crate::emulate::sys;

/// How a component is opened: to stand for the object, whatever it is. Nothing happens to it.
const HANDLE: i32 = libc::O_PATH | libc::O_NOFOLLOW;

const AUTOMOUNT: u64 = libc::STATX_ATTR_AUTOMOUNT as u64;

/// Tells objects, as they are seen through a mount, apart.
///
/// Inode numbers are used again; the time of birth is not, where the file system has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: (u32, u32),
    pub(super) inode: u64,
    pub(super) mount: u64,
    born: (i64, u32),
}

impl Identity {
    pub(super) fn same_device(&self, other: &Self) -> bool {
        self.device == other.device
    }
}

/// An object by an `O_PATH` descriptor.
#[derive(Debug)]
pub(in crate::emulate) struct Node {
    fd: OwnedFd,
    pub(super) identity: Identity,
    mode: u32,
    /// Its owner as this process's user namespace numbers it.
    pub(super) owner: u32,
    /// The number of the device that it is.
    pub(in crate::emulate) device: (u32, u32),
}

impl Node {
    pub(in crate::emulate) fn new(fd: OwnedFd) -> Result<Self, Errno> {
        Self::described(fd).map(|(node, _)| node)
    }

    fn described(fd: OwnedFd) -> Result<(Self, u64), Errno> {
        let stat = sys::stat(fd.as_fd())?;
        let node = Self {
            fd,
            identity: Identity {
                device: (stat.stx_dev_major, stat.stx_dev_minor),
                inode: stat.stx_ino,
                mount: stat.stx_mnt_id,
                born: (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec),
            },
            mode: stat.stx_mode.into(),
            owner: stat.stx_uid,
            device: (stat.stx_rdev_major, stat.stx_rdev_minor),
        };
        Ok((node, stat.stx_attributes))
    }

    /// What a directory has under a name, without following it if it is a symlink.
    ///
    /// `mounting` has an automount point mount what belongs there, as every use does that is more than a name.
    pub(super) fn child(&self, name: &CStr, mounting: bool) -> Result<Self, Errno> {
        let fd = sys::open_at(self.as_fd(), name, HANDLE, 0)?;
        let (node, attributes) = Self::described(fd)?;
        if mounting && attributes & AUTOMOUNT != 0 {
            return Self::new(sys::open_at(self.as_fd(), name, HANDLE | libc::O_DIRECTORY, 0)?);
        }
        Ok(node)
    }

    /// What a magic link leads to.
    pub(super) fn jump(&self, name: &CStr) -> Result<Self, Errno> {
        Self::new(sys::open_at(self.as_fd(), name, libc::O_PATH, 0)?)
    }

    fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    pub(in crate::emulate) fn is_directory(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }

    pub(in crate::emulate) fn is_symlink(&self) -> bool {
        self.kind() == libc::S_IFLNK
    }

    pub(in crate::emulate) fn is_fifo(&self) -> bool {
        self.kind() == libc::S_IFIFO
    }

    pub(in crate::emulate) fn is_character_device(&self) -> bool {
        self.kind() == libc::S_IFCHR
    }

    pub(in crate::emulate) fn is_device(&self) -> bool {
        matches!(self.kind(), libc::S_IFCHR | libc::S_IFBLK)
    }

    /// Whether others may write to it and only owners rename and remove what is in it, as in `/tmp`.
    pub(super) fn is_sticky(&self, writable_by: u32) -> bool {
        self.mode & libc::S_ISVTX != 0 && self.mode & writable_by != 0
    }

    pub(super) fn is_regular(&self) -> bool {
        self.kind() == libc::S_IFREG
    }

    /// The text of a symlink.
    pub(super) fn text(&self) -> Result<Vec<u8>, Errno> {
        sys::read_link(self.as_fd(), c"")
    }

    pub(super) fn file_system(&self) -> Result<(i64, i64), Errno> {
        sys::file_system(self.as_fd())
    }

    /// The path that the object has at this moment, as this process sees it.
    pub(in crate::emulate) fn path(&self) -> Result<Vec<u8>, Errno> {
        sys::read_absolute_link(&sys::own_link(self.as_fd()))
    }
}

impl AsFd for Node {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A component as the kernel takes it. Components come from C strings, and have no zeros.
pub(super) fn component(name: &[u8]) -> Result<CString, Errno> {
    CString::new(name).map_err(|_| Errno::EINVAL)
}
