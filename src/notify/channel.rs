//! Receiving from one listener without ever blocking the runtime, and without losing or missing one.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;

use super::inbox::{Drained, Inbox};
use super::linger::Linger;
use super::receive::{apply, receive};
use super::{ChildKey, Lane, Notification, Source, WakeControl};
use crate::error::{Error, Result};
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
    /// What the runtime knows of the source's events; nothing if it doesn't watch it any more.
    events: Option<AsyncFd<Arc<Source>>>,
    runtime: Handle,
    /// The `SYNC_WAKE_UP` flag as it was last set.
    synchronous: Option<bool>,
    linger: Linger,
    ended: bool,
}

impl Channel {
    pub(crate) fn new(source: Source, guard: Option<ChildGuard>) -> Result<Self> {
        let mut channel = Self {
            guard,
            source: Arc::new(source),
            events: None,
            runtime: Handle::try_current().map_err(|_| Error::NoRuntime)?,
            synchronous: None,
            linger: Linger::new(),
            ended: false,
        };
        channel.source.inbox().reserve(QUEUE);
        // If this fails, the parts are dropped in the order of a channel's.
        channel.events = Some(register(Arc::clone(&channel.source), Interest::READABLE)?);
        Ok(channel)
    }

    /// Takes a listener that came from elsewhere.
    pub(crate) fn attach(fd: OwnedFd) -> Result<Self> {
        Self::new(Source::foreign(fd)?, None)
    }

    pub(crate) fn key(&self) -> ChildKey {
        self.source.child
    }

    /// For the looks at the targets of this listener.
    pub(crate) fn lane(&self) -> Arc<Lane> {
        Arc::clone(&self.source.lane)
    }

    pub(crate) fn ended(&self) -> bool {
        self.ended && self.source.inbox().is_empty()
    }

    /// The next call; `None` for good once no task uses the filter any more.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        wake: &WakeControl,
        alone: bool,
    ) -> Poll<Option<Notification>> {
        let source = Arc::clone(&self.source);
        let mut inbox = source.inbox();
        if alone && let Some(notification) = self.linger(&mut inbox) {
            return Poll::Ready(Some(notification));
        }
        loop {
            if !self.ended && inbox.len() < QUEUE {
                let events = self.events.as_ref();
                match events.map_or(Poll::Ready(None), |events| {
                    events.poll_read_ready(cx).map(Result::ok)
                }) {
                    Poll::Ready(Some(mut ready)) => {
                        apply(&source, &mut self.synchronous, wake.synchronous());
                        match inbox.drain(&source, QUEUE) {
                            Drained::Empty => ready.clear_ready(),
                            Drained::Full => {}
                            Drained::Ended => self.ended = true,
                        }
                    }
                    // The runtime is shutting down.
                    Poll::Ready(None) => self.ended = true,
                    Poll::Pending if inbox.is_empty() => {
                        self.linger.yielded();
                        if self.poll_mishap(cx).is_ready() {
                            continue;
                        }
                        inbox.wake_on_arrival(cx);
                        return self.poll_exit(cx);
                    }
                    // The runtime may not have looked for events for a while.
                    Poll::Pending => self.ended = matches!(inbox.drain(&source, QUEUE), Drained::Ended),
                }
            }
            if let Some(notification) = inbox.pop(&source) {
                return Poll::Ready(Some(notification));
            }
            if self.ended {
                return Poll::Ready(None);
            }
        }
    }

    /// Receives the next call on the spot if nothing else can come from this listener and the CPU goes with the call.
    fn linger(&mut self, inbox: &mut Inbox) -> Option<Notification> {
        let source = &self.source;
        // Apart from this channel, its registration and `poll_next`, only calls hold the source.
        let answered = inbox.is_empty() && Arc::strong_count(source) == 3;
        if self.ended || !answered || self.synchronous != Some(true) || !self.linger.wait(source.as_fd()) {
            return None;
        }
        // Whatever goes wrong here goes wrong again where it is dealt with.
        let request = receive(source).ok()??;
        let notification = Notification::new(Arc::clone(source), &request);
        // Another thread's call may wait beside it, which only its receiver protects from signals (T10).
        if let Drained::Ended = inbox.drain(source, QUEUE) {
            self.ended = true;
        }
        Some(notification)
    }

    /// Becomes ready after an event was lost, which has the source registered anew.
    ///
    /// Where a signal comes to the runtime's thread while another thread is in the listener, `epoll_wait(2)` gives a
    /// lone `EPOLLERR` in place of a call (T14), and doesn't repeat it. Tokio takes that for the closing of the other
    /// direction, for good. A new registration begins with a look at what is there.
    fn poll_mishap(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(events) = &self.events {
            let _ = ready!(events.poll_write_ready(cx));
        }
        self.events = None;
        let _entered = self.runtime.enter();
        self.events = register(Arc::clone(&self.source), Interest::READABLE).ok();
        Poll::Ready(())
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

impl Drop for Channel {
    fn drop(&mut self) {
        drop(self.guard.take());
        self.source.close_inbox();
    }
}
