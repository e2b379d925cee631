//! Symlinks, and what is no text in them.

use std::ffi::CStr;

use nix::errno::Errno;

use super::node::Node;
use super::{Origin, own_process};
use crate::emulate::sys;

/// The kernel's `MAXSYMLINKS`.
const LIMIT: u32 = 40;
/// The inode number of the root directory of a procfs.
pub(super) const PROC_ROOT: u64 = 1;
/// A mount with this flag has symlinks that nobody follows.
const ST_NOSYMFOLLOW: i64 = 0x2000;

/// How many symlinks a walk has followed.
pub(super) struct Links(u32);

impl Links {
    pub(super) fn new() -> Self {
        Self(0)
    }

    pub(super) fn count(&mut self) -> Result<(), Errno> {
        if self.0 == LIMIT {
            return Err(Errno::ELOOP);
        }
        self.0 += 1;
        Ok(())
    }
}

/// Where a symlink leads.
pub(super) enum Follow {
    /// Along another path, which begins in the link's directory, or in the root.
    Text(Vec<u8>),
    /// To an object, whatever its names are.
    Jump(Node),
}

impl Follow {
    pub(super) fn new(origin: &Origin, parent: &Node, link: &Node, name: &CStr) -> Result<Self, Errno> {
        let (file_system, flags) = link.file_system()?;
        if flags & ST_NOSYMFOLLOW != 0 {
            return Err(Errno::ELOOP);
        }
        if file_system != libc::PROC_SUPER_MAGIC {
            return link.text().map(Self::Text);
        }
        let in_root = is_proc_root(parent, link);
        match name.to_bytes() {
            // The kernel would follow them to this process.
            b"self" if in_root => return origin.own_directory(parent, false).map(Self::Text),
            b"thread-self" if in_root => return origin.own_directory(parent, true).map(Self::Text),
            _ => {}
        }
        let magic = match sys::is_magic_link(parent.as_fd(), name) {
            // Only a container forbids openat2(2) to a kernel that has listeners. The others are all in the root.
            Err(_) => !in_root,
            Ok(magic) => magic,
        };
        if !magic {
            return link.text().map(Self::Text);
        }
        if own_process::owns(parent)? {
            return Err(Errno::EACCES);
        }
        parent.jump(name).map(Self::Jump)
    }
}

/// Whether something is in the root directory of a procfs.
fn is_proc_root(parent: &Node, child: &Node) -> bool {
    parent.identity.inode == PROC_ROOT && parent.identity.same_device(&child.identity)
}

use std::os::fd::AsFd;
