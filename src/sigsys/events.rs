use std::fmt;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::Ordering::{Acquire, Release, SeqCst};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use futures_core::{FusedStream, Stream};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::coop;

use super::event::Event;
use super::record::Record;
use super::ring::Next as NextRecord;
use super::shared::Shared;
use crate::error::{Error, Result};
use crate::notify::Next;
use crate::pidfd::register;
use crate::syscall;

/// The traced calls of this process as a stream, in the order of each thread.
///
/// The runtime that polls it may be traced itself. Calls by which it sleeps and wakes (`futex`, `epoll_wait` and its
/// like, and eventfds) on the threads that this stream was polled on don't wake it: they come with the next event of
/// another kind, or when they are many. So a process that has nothing else to do comes to rest.
///
/// The stream ends once the [`Tracer`](super::Tracer) was dropped and what it had recorded was read, and at once in a
/// process that was forked from the traced one.
pub struct Events {
    /// Given up before the lease, since the next one registers the same descriptor.
    readiness: AsyncFd<Arc<OwnedFd>>,
    consumer: Lease,
    waker: Option<Arc<QuietWaker>>,
    ended: bool,
}

/// The right to read events, of which there is one.
pub(super) struct Lease(&'static Shared);

impl Lease {
    pub(super) fn take(shared: &'static Shared) -> Result<Self> {
        match shared.consumer.taken.swap(true, SeqCst) {
            true => Err(Error::EventsTaken),
            false => Ok(Self(shared)),
        }
    }

    pub(super) fn pop(&self) -> Option<Record> {
        let mut reader = self
            .0
            .consumer
            .reader
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match reader.next(&self.0.outbox) {
            NextRecord::Record(record) => Some(record),
            _ => None,
        }
    }

    fn has_next(&self) -> bool {
        let reader = self
            .0
            .consumer
            .reader
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        reader.has_next(&self.0.outbox)
    }

    fn has_news(&self) -> bool {
        self.has_next() || self.0.finished.load(Acquire)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.consumer.taken.store(false, Release);
    }
}

impl Events {
    pub(super) fn new(shared: &'static Shared) -> Result<Self> {
        let consumer = Lease::take(shared)?;
        // It is there before there is a tracer.
        let event = shared.consumer.event.get().ok_or(Error::NoRuntime)?;
        Ok(Self {
            readiness: register(Arc::clone(event), Interest::READABLE)?,
            consumer,
            waker: None,
            ended: false,
        })
    }

    /// Waits for the next event; `None` once the tracer was dropped and everything was read.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: an event that was not returned is returned by the next `next()`.
    pub fn next(&mut self) -> Next<'_, Self> {
        Next::new(self)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let share = ready!(coop::poll_proceed(cx));
        let shared = self.consumer.0;
        if !shared.is_original() {
            return Poll::Ready(None);
        }
        loop {
            if let Some(record) = self.consumer.pop() {
                share.made_progress();
                return Poll::Ready(Some(record.into()));
            }
            // There is room again.
            shared.drain.ring();
            // In this order: nothing comes after the end.
            if shared.finished.load(Acquire) && !self.consumer.has_next() {
                return Poll::Ready(None);
            }
            shared.consumer.rest();
            if self.consumer.has_news() {
                continue;
            }
            QuietWaker::note_thread(shared);
            let waker = self.waker(cx.waker());
            let mut quiet = Context::from_waker(&waker);
            match self.readiness.poll_read_ready(&mut quiet) {
                Poll::Ready(Ok(mut ready)) => {
                    let _ = syscall::read(ready.get_inner(), &mut [0; 8]);
                    ready.clear_ready();
                }
                // The runtime is shutting down.
                Poll::Ready(Err(_)) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The task's waker, which makes whatever thread it is called on a quiet one first.
    fn waker(&mut self, task: &Waker) -> Waker {
        let present = self.waker.take().filter(|quiet| quiet.task.will_wake(task));
        let quiet = present.unwrap_or_else(|| {
            Arc::new(QuietWaker {
                task: task.clone(),
                shared: self.consumer.0,
            })
        });
        self.waker = Some(Arc::clone(&quiet));
        Waker::from(quiet)
    }
}

struct QuietWaker {
    task: Waker,
    shared: &'static Shared,
}

impl QuietWaker {
    fn note_thread(shared: &Shared) {
        shared.quiet.insert(super::handler::thread_id());
    }
}

impl Wake for QuietWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        Self::note_thread(self.shared);
        self.task.wake_by_ref();
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let event = ready!(self.poll_event(cx));
        self.ended = event.is_none();
        Poll::Ready(event)
    }
}

impl FusedStream for Events {
    fn is_terminated(&self) -> bool {
        self.ended
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
