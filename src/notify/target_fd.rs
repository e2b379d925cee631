//! Duplicates of the target's descriptors.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd::Pid;

use super::Notification;
use crate::error::{Error, Result};
use crate::pidfd;

impl Notification {
    /// Duplicates a descriptor of the calling thread, given by its number there, such as an argument of the call.
    ///
    /// The duplicate has close-on-exec set and shares the open file with the target, offset and `O_NONBLOCK` included.
    ///
    /// # Errors
    ///
    /// [`Error::BadFd`] if the target has nothing open there, [`Error::NoAccess`] without the right to trace the
    /// target (or in a container that forbids `pidfd_getfd(2)`), [`Error::Gone`] if it no longer waits,
    /// [`Error::UnknownPid`], and [`Error::Unsupported`] where the kernel can't. The call stays answerable.
    ///
    /// # Security
    ///
    /// It is the target's file: whatever is done with it, closing it included, can take as long as a hostile target likes, for
    /// example behind FUSE; and another thread may have changed what the number means since the call was made. An
    /// `O_NONBLOCK` that this process sets, the target can clear.
    ///
    /// # Kernel support
    ///
    /// Since Linux 5.6. Before 6.9, which has `PIDFD_THREAD`, a thread that does not lead its process is served
    /// through the one that does, and only if `kcmp(2)` tells that they share their descriptors; otherwise it is
    /// [`Error::Unsupported`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use asm_tracer::Notification;
    /// # fn look(call: Notification) -> std::io::Result<()> {
    /// // What is the target about to write to?
    /// let file = std::fs::File::from(call.target_fd(call.args()[0] as i32)?);
    /// println!("{:?}", file.metadata()?);
    /// call.continue_syscall()?;
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "pidfd_getfd")]
    pub fn target_fd(&self, number: i32) -> Result<OwnedFd> {
        let tid = self.target()?;
        let taken = match pidfd::open_thread(tid) {
            Err(Errno::EINVAL) => self.without_thread_pidfd(tid, number),
            Ok(pidfd) => take(&pidfd, number),
            Err(errno) => Err(opening(errno)),
        };
        // Before that, it may have been the descriptor of another thread with the same tid.
        self.check_pending()?;
        taken
    }

    /// The same before Linux 6.9, where a pidfd is always that of a process.
    fn without_thread_pidfd(&self, tid: Pid, number: i32) -> Result<OwnedFd> {
        match pidfd::open(tid) {
            Ok(leader) => return take(&leader, number),
            // What a thread that does not lead its process gives, before and since 6.9 (T8).
            Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => return Err(opening(errno)),
        }
        let pid = Pid::from_raw(self.pid()?);
        let taken = take(&pidfd::open(pid).map_err(opening)?, number);
        // Afterwards: tables that are one have been one, since nothing joins them; the frozen thread can't leave
        // its own, but the leader can.
        match pidfd::share_descriptors(tid, pid) {
            Ok(true) => taken,
            Err(Errno::EPERM) => Err(Error::NoAccess),
            Err(Errno::ESRCH) => Err(Error::Gone),
            Ok(false) | Err(_) => Err(Error::Unsupported {
                feature: "the descriptors of a thread that may have its own (PIDFD_THREAD)",
                since: "6.9",
            }),
        }
    }
}

fn take(pidfd: impl AsFd, number: i32) -> Result<OwnedFd> {
    pidfd::get_fd(pidfd.as_fd(), number).map_err(|errno| match errno {
        Errno::EBADF => Error::BadFd { number },
        Errno::EPERM => Error::NoAccess,
        Errno::ESRCH => Error::Gone,
        Errno::ENOSYS => Error::Unsupported {
            feature: "duplicating a target's descriptors (pidfd_getfd)",
            since: "5.6",
        },
        errno => Error::os("duplicating the target's descriptor", errno),
    })
}

fn opening(errno: Errno) -> Error {
    match errno {
        Errno::ESRCH => Error::Gone,
        Errno::EPERM => Error::NoAccess,
        Errno::ENOSYS => Error::Unsupported {
            feature: "pidfds (pidfd_open)",
            since: "5.3",
        },
        errno => Error::os("opening a pidfd of the target", errno),
    }
}
