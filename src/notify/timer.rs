//! Being woken after a while, without the runtime's own clock, which may be off.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::errno::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{Error, Result};
use crate::pidfd::register;

/// A `timerfd_create(2)` that rings once each time it is set.
#[derive(Debug)]
pub(crate) struct Timer {
    fd: AsyncFd<OwnedFd>,
}

impl Timer {
    /// Makes one that rings after `delay`.
    pub(crate) fn new(delay: Duration) -> Result<Self> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: no memory is involved.
        let fd = Errno::result(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) });
        let fd = fd.map_err(|errno| Error::os("making a timer", errno))?;
        // SAFETY: the kernel just made this descriptor for us.
        let fd = register(unsafe { OwnedFd::from_raw_fd(fd) }, Interest::READABLE)?;
        let timer = Self { fd };
        timer.set(delay)?;
        Ok(timer)
    }

    /// Becomes ready when it has rung, and has it ring again after `delay`.
    pub(crate) fn poll_rung(&mut self, cx: &mut Context<'_>, delay: Duration) -> Poll<Result<()>> {
        let rung = ready!(self.fd.poll_read_ready(cx));
        let mut rung = rung.map_err(|source| Error::Io {
            operation: "waiting for a timer",
            source,
        })?;
        rung.clear_ready();
        // Which also takes back that it has rung, so that nothing needs reading.
        Poll::Ready(self.set(delay))
    }

    fn set(&self, delay: Duration) -> Result<()> {
        let never = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let value = libc::itimerspec {
            it_interval: never,
            it_value: libc::timespec {
                tv_sec: delay.as_secs() as libc::time_t,
                tv_nsec: delay.subsec_nanos().into(),
            },
        };
        // SAFETY: the kernel reads one struct.
        let set =
            unsafe { libc::timerfd_settime(self.fd.as_raw_fd(), 0, &raw const value, std::ptr::null_mut()) };
        Errno::result(set)
            .map(drop)
            .map_err(|errno| Error::os("setting a timer", errno))
    }
}
