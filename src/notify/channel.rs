//! Receiving from one listener without ever blocking the runtime, and without losing or missing one.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{ChildKey, Notification, Source, WakeControl, uapi};
use crate::error::{Error, Result};
use crate::kernel::KernelSupport;
use crate::pidfd::{ChildGuard, register};

/// How many received calls wait here for their turn at most.
///
/// Calls are received as early as possible, because only then does `WAIT_KILLABLE_RECV` protect them from
/// `EINTR` (T10); the bound keeps the memory of a supervisor in check.
const QUEUE: usize = 64;

/// One listener as the source of its notifications. It is the only receiver on that listener (T49).
#[derive(Debug)]
pub(crate) struct Channel {
    source: AsyncFd<Arc<Source>>,
    /// The process that the listener came with, if this library started it.
    guard: Option<ChildGuard>,
    queue: VecDeque<Notification>,
    /// The `SYNC_WAKE_UP` flag as it was last set.
    synchronous: Option<bool>,
    ended: bool,
}

impl Channel {
    pub(crate) fn new(source: Source, guard: Option<ChildGuard>) -> Result<Self> {
        let source = register(Arc::new(source), Interest::READABLE)?;
        Ok(Self {
            source,
            guard,
            queue: VecDeque::with_capacity(QUEUE),
            synchronous: None,
            ended: false,
        })
    }

    /// Takes a listener that came from elsewhere, after a look at whether it is one.
    pub(crate) fn attach(fd: OwnedFd) -> Result<Self> {
        KernelSupport::require()?;
        match uapi::id_is_valid(fd.as_fd(), 0) {
            Ok(()) | Err(Errno::ENOENT) => Self::new(Source::new(fd), None),
            Err(_) => Err(Error::NotAListener),
        }
    }

    pub(crate) fn key(&self) -> ChildKey {
        self.source.get_ref().child
    }

    pub(crate) fn ended(&self) -> bool {
        self.ended && self.queue.is_empty()
    }

    /// The next call; `None` for good once no task uses the filter any more.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        wake: &WakeControl,
    ) -> Poll<Option<Notification>> {
        loop {
            if !self.ended && self.queue.len() < QUEUE {
                // Pending is not yet the answer: there may be calls in the queue.
                match self.source.poll_read_ready(cx) {
                    Poll::Ready(Ok(mut ready)) => {
                        apply(ready.get_inner(), &mut self.synchronous, wake.synchronous());
                        match drain(ready.get_inner(), &mut self.queue) {
                            Drained::Empty => ready.clear_ready(),
                            Drained::Full => {}
                            Drained::Ended => self.ended = true,
                        }
                    }
                    // The runtime is shutting down.
                    Poll::Ready(Err(_)) => self.ended = true,
                    Poll::Pending if self.queue.is_empty() => return self.poll_exit(cx),
                    Poll::Pending => {}
                }
            }
            if let Some(notification) = self.queue.pop_front() {
                return Poll::Ready(Some(notification));
            }
            if self.ended {
                return Poll::Ready(None);
            }
        }
    }

    /// Reaps the child when it exits, without which kernels before 6.11 do not report the end of the filter (T5).
    fn poll_exit(&mut self, cx: &mut Context<'_>) -> Poll<Option<Notification>> {
        if let Some(guard) = &mut self.guard {
            ready!(guard.poll_reap(cx));
        }
        // The hang-up, which follows at once or when the last descendant exits, wakes through the listener.
        Poll::Pending
    }
}

enum Drained {
    Empty,
    Full,
    Ended,
}

/// Receives what waits. A RECV is only tried after `poll(2)` said that it won't block (T1); the readiness is only
/// cleared after it said that nothing is left, because one edge may stand for many calls (T2).
fn drain(source: &Arc<Source>, queue: &mut VecDeque<Notification>) -> Drained {
    while queue.len() < QUEUE {
        let mut fds = [PollFd::new(source.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(0) => return Drained::Empty,
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(errno) => return failed("polling", errno),
        }
        if !fds[0]
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLIN))
        {
            return Drained::Ended;
        }
        match uapi::receive(source.as_fd()) {
            Ok(request) => queue.push_back(Notification::new(Arc::clone(source), &request)),
            // The target died or was interrupted in between (T3), or a signal came to us (T4).
            Err(Errno::ENOENT | Errno::EINTR) => {}
            Err(errno) => return failed("receiving", errno),
        }
    }
    Drained::Full
}

/// Nobody can serve this listener. Closing it, and killing the child that came with it, is the closed default.
fn failed(operation: &str, errno: Errno) -> Drained {
    crate::trace::warning!(%errno, "{operation} from a listener failed");
    let _ = operation;
    Drained::Ended
}

fn apply(source: &Source, applied: &mut Option<bool>, wanted: bool) {
    if *applied != Some(wanted) {
        // A kernel without the flag is served all the same; `KernelSupport` tells.
        let _ = uapi::set_sync_wake_up(source.as_fd(), wanted);
        *applied = Some(wanted);
    }
}
