//! A look at the target from another thread, as a future.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_core::future::FusedFuture;
use nix::errno::Errno;

use super::lane::{Job, Lane};
use crate::error::{Error, Result};
use crate::workers;

/// The future of a look at a target; see [`Notification::look`](super::Notification::look) and
/// [`Child::look_at`](crate::Child::look_at).
///
/// It needs no runtime, and keeps none from shutting down.
#[must_use = "futures do nothing unless you await or poll them"]
pub struct Look<T> {
    shared: Arc<dyn Shared<T>>,
    /// The process that has the thread; `None` before the first poll.
    started: Option<u32>,
}

impl<T: Send + 'static> Look<T> {
    pub(crate) fn new(lane: Arc<Lane>, look: impl FnOnce() -> Result<T> + Send + 'static) -> Self {
        let stage = Stage::Waiting(look);
        Self {
            shared: Arc::new(Slot {
                lane,
                state: Mutex::new(State { stage, waker: None }),
            }),
            started: None,
        }
    }
}

impl<T> Future for Look<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        if let Poll::Ready(outcome) = self.shared.poll(cx) {
            return Poll::Ready(outcome.unwrap_or_else(|payload| resume_unwind(payload)));
        }
        let here = std::process::id();
        let failed = match self.started.replace(here) {
            None => Arc::clone(&self.shared).start().err(),
            Some(there) if there != here => Some(Error::os(
                "a look of the process that this one was forked from",
                Errno::ECANCELED,
            )),
            Some(_) => None,
        };
        failed.map_or(Poll::Pending, |error| {
            self.shared.give_up();
            Poll::Ready(Err(error))
        })
    }
}

/// So that it can stand in a `futures::select!` as it is.
impl<T> FusedFuture for Look<T> {
    fn is_terminated(&self) -> bool {
        self.shared.is_over()
    }
}

impl<T> Drop for Look<T> {
    fn drop(&mut self) {
        self.shared.give_up();
    }
}

impl<T> fmt::Debug for Look<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Look").finish_non_exhaustive()
    }
}

/// What a look came to, or the panic in which it ended.
type Outcome<T> = Result<Result<T>, Box<dyn Any + Send>>;

/// What the future knows of the look.
trait Shared<T>: Job {
    fn start(self: Arc<Self>) -> Result<()>;
    /// Gives the outcome, once.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<Outcome<T>>;
    fn give_up(&self);
    fn is_over(&self) -> bool;
}

/// What future and thread share.
struct Slot<F, T> {
    lane: Arc<Lane>,
    state: Mutex<State<F, T>>,
}

struct State<F, T> {
    stage: Stage<F, T>,
    waker: Option<Waker>,
}

enum Stage<F, T> {
    Waiting(F),
    Running,
    Done(Outcome<T>),
    /// It was given up, or its outcome was taken.
    Over,
}

impl<F, T> Slot<F, T> {
    fn lock(&self) -> MutexGuard<'_, State<F, T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F, T> Job for Slot<F, T>
where
    F: FnOnce() -> Result<T> + Send + 'static,
    T: Send + 'static,
{
    fn run(&self) -> Option<Waker> {
        let mut state = self.lock();
        let look = match std::mem::replace(&mut state.stage, Stage::Running) {
            Stage::Waiting(look) => look,
            other => {
                state.stage = other;
                return None;
            }
        };
        drop(state);
        // What a panic leaves in a bad state, it leaves to the one who awaits, to whom it goes on.
        let outcome = catch_unwind(AssertUnwindSafe(look));
        let mut state = self.lock();
        let left = match state.stage {
            Stage::Running => {
                state.stage = Stage::Done(outcome);
                None
            }
            _ => Some(outcome),
        };
        let waker = state.waker.take();
        drop(state);
        workers::caught(|| drop(left));
        waker
    }
}

impl<F, T> Shared<T> for Slot<F, T>
where
    F: FnOnce() -> Result<T> + Send + 'static,
    T: Send + 'static,
{
    fn start(self: Arc<Self>) -> Result<()> {
        let lane = Arc::clone(&self.lane);
        lane.submit(self).map_err(|source| Error::Io {
            operation: "starting a thread for a look",
            source,
        })
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Outcome<T>> {
        let mut state = self.lock();
        if let Stage::Done(_) = state.stage
            && let Stage::Done(outcome) = std::mem::replace(&mut state.stage, Stage::Over)
        {
            return Poll::Ready(outcome);
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    fn give_up(&self) {
        let mut state = self.lock();
        let stage = std::mem::replace(&mut state.stage, Stage::Over);
        // A thread that stalls is not to keep the task.
        let waker = state.waker.take();
        drop(state);
        drop(waker);
        if let Stage::Waiting(..) = stage {
            self.lane.withdraw(self);
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.lock().stage, Stage::Over)
    }
}
