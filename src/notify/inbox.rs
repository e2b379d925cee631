//! The calls that were received and wait for their turn.
//!
//! A listener has one receiver at a time (T49): whoever holds its inbox. That is who serves the calls, and for moments the
//! borrower, which waits for one call and leaves all others here.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Waker};

use super::answer::refuse_unanswered;
use super::receive::{State, failed, receive};
use super::{Notification, Source, borrow, uapi};
use crate::error::Error;
use crate::workers;

#[derive(Debug, Default)]
pub(super) struct Inbox {
    queue: VecDeque<uapi::Request>,
    /// At how many calls to look which of them still wait.
    crowded: usize,
    /// Who waits for a call that somebody else may receive.
    waker: Option<Waker>,
}

/// So many calls may wait here before those that were taken back are forgotten.
const CROWD: usize = 1024;

pub(super) enum Drained {
    Empty,
    Full,
    Ended,
}

impl Inbox {
    /// With room for so many calls.
    pub(super) fn reserve(&mut self, calls: usize) {
        self.queue.reserve_exact(calls);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn pop(&mut self, source: &Arc<Source>) -> Option<Notification> {
        let request = self.queue.pop_front()?;
        Some(Notification::new(Arc::clone(source), &request))
    }

    /// Has the task woken when somebody else has received a call.
    pub(super) fn wake_on_arrival(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    /// Receives what waits, until there are so many. A RECV is only tried after `poll(2)` said that it won't block (T1),
    /// until `poll(2)` says that nothing is left, because one edge may stand for many calls (T2).
    pub(super) fn drain(&mut self, source: &Source, limit: usize) -> Drained {
        while self.queue.len() < limit {
            match State::now(source) {
                Ok(State::Idle) => return Drained::Empty,
                Ok(State::Call) => {}
                Ok(State::Ended) => return Drained::Ended,
                Err(errno) => {
                    failed("polling", errno);
                    return Drained::Ended;
                }
            }
            if self.queue.len() >= self.crowded.max(CROWD) {
                self.forget_gone(source);
            }
            match receive(source) {
                Ok(request) => self.queue.extend(request),
                Err(errno) => {
                    failed("receiving", errno);
                    return Drained::Ended;
                }
            }
        }
        Drained::Full
    }

    /// Forgets the calls that signals took back: a thread can make any number of them.
    fn forget_gone(&mut self, source: &Source) {
        self.queue
            .retain(|request| !matches!(source.check_pending(request.id), Err(Error::Gone)));
        self.crowded = 2 * self.queue.len();
    }

    fn refuse_all(&mut self, source: &Source) {
        for request in self.queue.drain(..) {
            refuse_unanswered(source, request.id);
        }
    }
}

impl Source {
    /// Makes this the receiver, once no other is.
    pub(super) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Receives in place of whoever serves the calls, unless somebody receives already. What arrives is theirs.
    ///
    /// There is no limit but that a thread waits in one call at a time: what is waited for may be behind all others.
    pub(super) fn receive_for_others(&self) {
        let mut inbox = match self.inbox.try_lock() {
            Ok(inbox) => inbox,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let before = inbox.len();
        inbox.drain(self, usize::MAX);
        if self.is_closed() {
            inbox.refuse_all(self);
        }
        let arrived = inbox.len() > before;
        let waker = inbox.waker.take_if(|_| arrived);
        drop(inbox);
        workers::wake(waker);
    }

    /// Whether nobody serves the calls any more.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Refuses the calls that wait here, and those that will.
    pub(super) fn close_inbox(&self) {
        let mut inbox = self.inbox();
        self.closed.store(true, Ordering::Relaxed);
        inbox.waker = None;
        inbox.refuse_all(self);
        drop(inbox);
        if self.passes.any() {
            borrow::look_around();
        }
    }
}
