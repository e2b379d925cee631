use std::fmt;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::{FusedStream, Stream};

use super::{Channel, ChildKey, Next, Notification, WakeControl, WakeUp};
use crate::error::Result;

/// One listener: the calls that one filter traps, in the order in which they were trapped.
///
/// It is for a task of its own per child, together with [`Command::spawn`](crate::Command::spawn), and for
/// listeners that others made ([`Listener::attach`]). A [`Supervisor`](crate::Supervisor) serves many.
///
/// Receiving never blocks the runtime. The stream ends when the last process that uses the filter has exited:
/// descendants inherit it, so a daemon that the child leaves behind goes on being served.
///
/// Dropping it closes the listener, after which trapped calls fail with `ENOSYS`; the child that came with it is
/// killed first unless it was started with [`kill_on_drop(false)`](crate::Command::kill_on_drop).
///
/// # Kernel support
///
/// Since Linux 5.9, the first with an end-of-filter event; see `seccomp_unotify(2)`.
pub struct Listener {
    channel: Channel,
    wake: WakeControl,
}

impl Listener {
    pub(crate) fn new(channel: Channel) -> Self {
        Self {
            channel,
            wake: WakeControl::new(),
        }
    }

    pub(crate) fn into_channel(self) -> Channel {
        self.channel
    }

    /// Serves a listener that came from elsewhere, such as one that a container runtime sent.
    ///
    /// It must be the only receiver on it.
    ///
    /// # Errors
    ///
    /// [`Error::NotAListener`](crate::Error::NotAListener) if the descriptor is something else,
    /// [`Error::NoRuntime`](crate::Error::NoRuntime) outside of a Tokio runtime,
    /// [`Error::Unsupported`](crate::Error::Unsupported) on a kernel before 5.9.
    ///
    /// # Panics
    ///
    /// If the Tokio runtime has no I/O driver (`enable_io`).
    pub fn attach(fd: OwnedFd) -> Result<Self> {
        Channel::attach(fd).map(Self::new)
    }

    /// The key that this listener's notifications bear.
    pub fn key(&self) -> ChildKey {
        self.channel.key()
    }

    /// Chooses how the kernel wakes receiver and targets; [`WakeUp::Adaptive`] unless told otherwise.
    pub fn set_wake_up(&mut self, policy: WakeUp) {
        self.wake.set_mode(policy);
    }

    /// Waits for the next trapped call; `None` once no process uses the filter any more.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a call that was received and not returned is returned by the next `next()`.
    pub fn next(&mut self) -> Next<'_, Self> {
        Next::new(self)
    }
}

impl Stream for Listener {
    type Item = Notification;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Notification>> {
        let Self { channel, wake } = &mut *self;
        let next = channel.poll_next(cx, wake, true);
        if matches!(next, Poll::Ready(Some(_))) {
            wake.received(1);
        }
        next
    }
}

impl FusedStream for Listener {
    fn is_terminated(&self) -> bool {
        self.channel.ended()
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("key", &self.key())
            .finish_non_exhaustive()
    }
}
