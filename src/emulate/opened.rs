//! What was opened, until somebody has it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::sys;
use crate::bound::{Bound, Length};
use crate::workers;

/// File systems that do nothing to speak of when a descriptor is closed. What is mounted over others may have any below.
const LOCAL: [i64; 8] = [
    libc::EXT4_SUPER_MAGIC,
    libc::XFS_SUPER_MAGIC,
    libc::BTRFS_SUPER_MAGIC,
    libc::TMPFS_MAGIC,
    libc::PROC_SUPER_MAGIC,
    libc::SYSFS_MAGIC,
    libc::CGROUP2_SUPER_MAGIC,
    // Pipes.
    0x5049_5045,
];

/// A descriptor that is closed where that can take as long as it likes: FUSE, for one, asks its server each time.
pub(super) struct Opened {
    fd: Option<OwnedFd>,
    quick_to_close: bool,
}

impl Opened {
    /// Takes what was just opened, on a thread that may stall. `device`: its driver may do anything.
    pub(super) fn new(fd: OwnedFd, device: bool) -> Self {
        let file_system = sys::file_system(fd.as_fd());
        let local = file_system.is_ok_and(|(kind, _)| LOCAL.contains(&kind));
        Self {
            fd: Some(fd),
            quick_to_close: local && !device,
        }
    }

    /// One that somebody else has opened.
    pub(super) fn unknown(fd: OwnedFd) -> Self {
        Self {
            fd: Some(fd),
            quick_to_close: false,
        }
    }

    /// One that is there for its name alone.
    pub(super) fn path_only(fd: OwnedFd) -> Self {
        Self {
            fd: Some(fd),
            quick_to_close: true,
        }
    }

    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Closes it, and waits for that, but not on the runtime.
    pub(super) async fn close(mut self, bound: &Bound) {
        let fd = self.fd.take();
        if self.quick_to_close {
            drop(fd);
        } else {
            // Without a thread, it has been closed here.
            let _ = bound.run(Length::Short, move || drop(fd)).await;
        }
    }

    pub(super) fn into_fd(mut self) -> Option<OwnedFd> {
        self.fd.take()
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(fd) = self.fd.take().filter(|_| !self.quick_to_close) {
            let _ = workers::run(Box::new(move |_| {
                drop(fd);
            }));
        }
    }
}
