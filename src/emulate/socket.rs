//! A duplicate of a target's socket.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use crate::bound::{Bound, Length};
use crate::pidfd::HoldsFd;
use crate::workers;

/// It is the target's socket: closing the last descriptor of it can take as long as the target has said (`SO_LINGER`), and so
/// can closing what only should have been a socket. So it is closed on another thread.
#[derive(Debug)]
pub(super) struct Socket(Option<OwnedFd>);

// SAFETY: it owns the descriptor and doesn't replace it until it is dropped.
unsafe impl HoldsFd for Socket {}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(fd) = self.0.take() {
            let _ = workers::run(Box::new(move |_| {
                drop(fd);
            }));
        }
    }
}

impl Socket {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self(Some(fd))
    }

    /// Closes it, and waits for that, but not on the runtime.
    pub(super) async fn close(shared: Arc<Self>, bound: &Bound) {
        // If a thread has it still, that closes it.
        if let Some(mut socket) = Arc::into_inner(shared) {
            let fd = socket.0.take();
            let _ = bound.run(Length::Short, move || drop(fd)).await;
        }
    }

    /// Connects it without waiting, as far as the protocol goes.
    pub(super) fn connect(&self, address: &[u8]) -> Result<(), Errno> {
        let length = address.len() as libc::socklen_t;
        // SAFETY: the kernel reads as many bytes as there are.
        Errno::result(unsafe { libc::connect(self.as_raw_fd(), address.as_ptr().cast(), length) }).map(drop)
    }

    /// Whether calls on it wait. The flag is the open file's, and so the target's too.
    pub(super) fn is_blocking(&self) -> Result<bool, Errno> {
        // SAFETY: no memory is involved.
        let flags = Errno::result(unsafe { libc::fcntl(self.as_raw_fd(), libc::F_GETFL) })?;
        Ok(flags & libc::O_NONBLOCK == 0)
    }

    pub(super) fn set_blocking(&self, blocking: bool) -> Result<(), Errno> {
        let nonblocking = i32::from(!blocking);
        // SAFETY: the kernel reads one integer.
        Errno::result(unsafe { libc::ioctl(self.as_raw_fd(), libc::FIONBIO, &raw const nonblocking) })
            .map(drop)
    }

    /// The address family; `ENOTSOCK` if it is no socket.
    pub(super) fn domain(&self) -> Result<i32, Errno> {
        self.option(libc::SO_DOMAIN, 0_i32)
    }

    /// How long the target's calls that send wait at most, connecting included; `None` for as long as it takes.
    pub(super) fn send_timeout(&self) -> Result<Option<Duration>, Errno> {
        let [seconds, microseconds] = self.option(libc::SO_SNDTIMEO, [0_u64; 2])?;
        let timeout = Duration::from_secs(seconds) + Duration::from_micros(microseconds);
        Ok((!timeout.is_zero()).then_some(timeout))
    }

    fn option<T: Copy>(&self, name: i32, mut value: T) -> Result<T, Errno> {
        let mut length = size_of::<T>() as libc::socklen_t;
        let (fd, target) = (self.as_raw_fd(), (&raw mut value).cast());
        // SAFETY: the kernel writes no more bytes than the integers have.
        Errno::result(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, target, &raw mut length) })?;
        Ok(value)
    }
}
