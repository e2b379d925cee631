//! What `fs.protected_symlinks` and its siblings protect the target from in directories like `/tmp`: names that others
//! planted there.
//!
//! The kernel does that for whom it resolves a path. Here that would be this process, and the way by descriptors goes
//! around it. See `proc_sys_fs(5)`.

use nix::errno::Errno;

use super::Origin;
use super::node::Node;

/// Whether a symlink at the end of a path may be followed.
pub(super) fn check_link(origin: &Origin, parent: &Node, link: &Node) -> Result<(), Errno> {
    let planted = parent.is_sticky(libc::S_IWOTH) && link.owner != parent.owner;
    match planted && setting("protected_symlinks") > 0 && origin.file_owner()? != link.owner {
        true => Err(Errno::EACCES),
        false => Ok(()),
    }
}

/// Whether something that is there already may be opened by a call that would have made it.
pub(in crate::emulate) fn check_existing(origin: &Origin, parent: &Node, node: &Node) -> Result<(), Errno> {
    let group = parent.is_sticky(libc::S_IWGRP);
    let others = parent.is_sticky(libc::S_IWOTH);
    if !(group || others) || node.owner == parent.owner {
        return Ok(());
    }
    let (regular, fifo) = (setting("protected_regular"), setting("protected_fifos"));
    let unprotected = node.is_regular() && regular == 0 || node.is_fifo() && fifo == 0;
    if unprotected || origin.file_owner()? == node.owner {
        return Ok(());
    }
    let in_group = node.is_regular() && regular >= 2 || node.is_fifo() && fifo >= 2;
    match others || in_group {
        true => Err(Errno::EACCES),
        false => Ok(()),
    }
}

/// A setting of the whole system; 0 where the kernel has none.
fn setting(name: &str) -> u8 {
    let text = std::fs::read_to_string(format!("/proc/sys/fs/{name}"));
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
