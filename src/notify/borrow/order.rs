//! What is wanted of a borrowed thread, and what comes of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::notify::{AnswerError, Notification, TrappedSyscall};
use crate::workers;

/// A call that is to be let run on other terms than `CONTINUE` has.
#[derive(Debug)]
pub(in crate::notify) struct Order {
    pub(in crate::notify) call: Notification,
    pub(in crate::notify) wish: Wish,
    pub(in crate::notify) reply: Arc<Reply>,
}

/// How a call is to be let run.
#[derive(Debug)]
pub(in crate::notify) struct Wish {
    /// The call as it was trapped.
    pub(in crate::notify) trapped: TrappedSyscall,
    /// The address after it.
    pub(in crate::notify) instruction_pointer: u64,
    /// The call as it is to run.
    pub(in crate::notify) wanted: TrappedSyscall,
    /// What arguments are to point to.
    pub(in crate::notify) data: Vec<Data>,
    /// Whether its result is asked for.
    pub(in crate::notify) observe: bool,
}

/// Bytes that exist in the target while the call runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::notify) struct Data {
    /// Which argument is their address.
    pub(in crate::notify) argument: usize,
    pub(in crate::notify) bytes: Box<[u8]>,
}

impl Wish {
    /// Whether the thread has to be given its registers back.
    pub(in crate::notify) fn rewrites(&self) -> bool {
        self.wanted != self.trapped || !self.data.is_empty()
    }
}

/// What came of an order.
#[derive(Debug)]
pub(in crate::notify) enum Outcome {
    /// Nothing has happened to the target, which still waits for an answer.
    Refused(AnswerError),
    /// The call runs.
    LetRun,
    /// The call is over, with this value in the result register.
    Returned(i64),
    /// A signal ended the call, and the kernel may make it again.
    Interrupted,
    /// The target died, or a signal took the call back before it ran.
    Gone,
}

/// Where the outcome is waited for.
#[derive(Debug, Default)]
pub(in crate::notify) struct Reply {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Nobody waits for the outcome.
    abandoned: bool,
    /// There was an outcome.
    settled: bool,
    outcome: Option<Outcome>,
    waker: Option<Waker>,
}

impl Reply {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note that nobody waits for the outcome; true if there is none yet.
    pub(in crate::notify) fn abandon(&self) -> bool {
        let mut state = self.state();
        state.abandoned = true;
        state.waker = None;
        !state.settled
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.state().abandoned
    }

    /// Says what came of it; the first time counts.
    pub(super) fn settle(&self, outcome: Outcome) {
        let mut state = self.state();
        if !state.settled {
            state.settled = true;
            state.outcome = Some(outcome);
            let waker = state.waker.take();
            drop(state);
            // Somebody else's code, which may panic.
            workers::wake(waker);
        }
    }

    pub(in crate::notify) fn poll(&self, cx: &Context<'_>) -> Poll<Outcome> {
        let mut state = self.state();
        if let Some(outcome) = state.outcome.take() {
            return Poll::Ready(outcome);
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}
