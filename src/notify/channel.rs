//! Receiving from one listener without ever blocking the runtime, and without losing or missing one.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;

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
    /// The process that the listener came with, if this library started it.
    ///
    /// The first to be dropped: what the closing of the listener and the dropped calls make of a target (T23), a
    /// dead one doesn't see.
    guard: Option<ChildGuard>,
    source: Arc<Source>,
    /// The source at the runtime; `None` if it could not be registered anew.
    readiness: Option<AsyncFd<Arc<Source>>>,
    runtime: Handle,
    queue: VecDeque<Notification>,
    /// The `SYNC_WAKE_UP` flag as it was last set.
    synchronous: Option<bool>,
    ended: bool,
}

impl Channel {
    pub(crate) fn new(source: Source, guard: Option<ChildGuard>) -> Result<Self> {
        let source = Arc::new(source);
        Ok(Self {
            guard,
            readiness: Some(register(Arc::clone(&source), Interest::READABLE)?),
            // There is one, or the line above has failed.
            runtime: Handle::try_current().map_err(|_| Error::NoRuntime)?,
            source,
            queue: VecDeque::with_capacity(QUEUE),
            synchronous: None,
            ended: false,
        })
    }

    /// Takes a listener that came from elsewhere, after a look at whether it is one.
    pub(crate) fn attach(fd: OwnedFd) -> Result<Self> {
        KernelSupport::get().require()?;
        match uapi::id_is_valid(fd.as_fd(), 0) {
            Ok(()) | Err(Errno::ENOENT) => Self::new(Source::new(fd), None),
            Err(_) => Err(Error::NotAListener),
        }
    }

    pub(crate) fn key(&self) -> ChildKey {
        self.source.child
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
                let Some(readiness) = &self.readiness else {
                    self.ended = true;
                    continue;
                };
                // Pending is not yet the answer: there may be calls in the queue.
                match readiness.poll_read_ready(cx) {
                    Poll::Ready(Ok(mut ready)) => {
                        apply(&self.source, &mut self.synchronous, wake.synchronous());
                        match drain(&self.source, &mut self.queue) {
                            Drained::Empty => ready.clear_ready(),
                            Drained::Full => {}
                            Drained::Ended => self.ended = true,
                        }
                    }
                    // The runtime is shutting down.
                    Poll::Ready(Err(_)) => self.ended = true,
                    Poll::Pending if matches!(readiness.poll_write_ready(cx), Poll::Ready(Ok(_))) => {
                        self.register_anew();
                        continue;
                    }
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

    /// Has the runtime look at the listener again after an event that was only an error.
    ///
    /// Its `epoll(7)` asks the listener as `poll(2)` does, and a signal makes an error of the answer (T14). The edge is
    /// used up then, and what it stood for would wait for ever. Such an event lets the runtime take the listener for
    /// closed to writing, of which nothing else gives notice and which it never forgets.
    fn register_anew(&mut self) {
        let _runtime = self.runtime.enter();
        // The descriptor can't be registered twice.
        self.readiness = None;
        self.readiness = register(Arc::clone(&self.source), Interest::READABLE).ok();
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
        let events = fds[0].revents().unwrap_or(PollFlags::empty());
        if !events.contains(PollFlags::POLLIN) {
            // A signal to us is an error here, not `EINTR`: the kernel takes the listener's lock interruptibly (T14).
            if events.contains(PollFlags::POLLERR) {
                continue;
            }
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
