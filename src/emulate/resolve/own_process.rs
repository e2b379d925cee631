//! What `/proc` has of this very process.
//!
//! The kernel lets everybody into their own memory and descriptors there. But a target that asks for those of its
//! supervisor would be let in by nobody else: opening them for it is not lending it this process's rights but this process.

use std::ffi::CString;
use std::os::fd::AsFd;

use nix::errno::Errno;

use super::links::PROC_ROOT;
use super::node::{Node, component};
use super::origin::Status;
use crate::emulate::sys;

/// What everybody may read about every process, as `ps(1)` does.
const PUBLIC: [&[u8]; 14] = [
    b"cgroup",
    b"cmdline",
    b"comm",
    b"cpuset",
    b"limits",
    b"loginuid",
    b"oom_score",
    b"oom_score_adj",
    b"sched",
    b"schedstat",
    b"sessionid",
    b"stat",
    b"statm",
    b"status",
];
/// The deepest directory is `/proc/PID/task/TID/net/x/y/z`.
const DEPTH: u32 = 16;

/// Whether something is part of this process and nobody else's to have.
///
/// What can't be placed is: a file of a procfs that is mounted elsewhere on its own, or that is reached through somebody's
/// descriptor and is not found here by the path that it has.
pub(in crate::emulate) fn is_withheld(
    node: &Node,
    place: Option<(&Node, &[u8])>,
    writing: bool,
) -> Result<bool, Errno> {
    let (file_system, _) = node.file_system()?;
    if file_system != libc::PROC_SUPER_MAGIC {
        return Ok(false);
    }
    let place = place.filter(|(parent, _)| parent.identity.mount == node.identity.mount);
    if node.is_directory() {
        // Its directory and that of its threads are for everybody to list.
        let listed = has_status(node) || place.is_some_and(|(_, name)| name == b"task");
        return Ok(!listed && owns(node)?);
    }
    match place {
        Some((parent, name)) => Ok((writing || !PUBLIC.contains(&name)) && owns(parent)?),
        None => match located(node) {
            Some((parent, name)) => Ok((writing || !PUBLIC.contains(&&*name)) && owns(&parent)?),
            None => Ok(true),
        },
    }
}

/// The directory and the name of a file, by its path.
fn located(node: &Node) -> Option<(Node, Vec<u8>)> {
    let path = node.path().ok()?;
    let slash = path.iter().rposition(|byte| *byte == b'/')?;
    let (directory, name) = (&path[..slash], &path[slash + 1..]);
    let directory = sys::open(&component(directory).ok()?, libc::O_PATH | libc::O_DIRECTORY).ok()?;
    let parent = Node::new(directory).ok()?;
    let found = parent.child(&component(name).ok()?, false).ok()?;
    (found.identity == node.identity).then(|| (parent, name.to_vec()))
}

fn has_status(directory: &Node) -> bool {
    sys::open_at(directory.as_fd(), c"status", libc::O_PATH, 0).is_ok()
}

/// Whether a directory of a procfs is in that of this process. One of which that can't be said is, to be safe.
pub(super) fn owns(directory: &Node) -> Result<bool, Errno> {
    let mut below: Option<Node> = None;
    let mut parent = sys::open_at(directory.as_fd(), c".", libc::O_PATH, 0).and_then(Node::new)?;
    for _ in 0..DEPTH {
        if parent.file_system()?.0 != libc::PROC_SUPER_MAGIC {
            // A part of a procfs that is mounted elsewhere on its own.
            return Ok(true);
        }
        if parent.identity.inode == PROC_ROOT {
            return below.map_or(Ok(false), |top| is_ours(&parent, &top));
        }
        let above = parent.child(c"..", false)?;
        below = Some(std::mem::replace(&mut parent, above));
    }
    Ok(true)
}

/// Whether a directory in the root of a procfs is that of this process or of one of its threads.
fn is_ours(root: &Node, top: &Node) -> Result<bool, Errno> {
    // As this procfs numbers it, if at all.
    let Ok(own) = sys::read_link(root.as_fd(), &CString::from(c"self")) else {
        return Ok(false);
    };
    match sys::open_at(top.as_fd(), c"status", libc::O_RDONLY, 0) {
        Ok(status) => {
            let status = Status::read(status)?;
            Ok(status.field("Tgid")?.as_bytes() == own)
        }
        // Not the directory of a process.
        Err(Errno::ENOENT) => Ok(false),
        // Of a process that is gone.
        Err(Errno::ESRCH) => Ok(false),
        Err(errno) => Err(errno),
    }
}
