//! Which children have something, and which are new: what the wakers and spawners of other threads write to.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Wake, Waker};

use crate::error::{Error, Result};
use crate::notify::Channel;
use crate::sync::{AtomicBool, Mutex, MutexGuard};

#[derive(Debug, Default)]
pub(super) struct Ready {
    state: Mutex<State>,
    /// There is something in the state to be collected. Read without the lock, since most looks find nothing.
    dirty: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Slots that were woken, each once.
    woken: Vec<usize>,
    arrivals: Vec<Channel>,
    spawners: usize,
    /// The task that waits in `next()`.
    parent: Option<Waker>,
    closed: bool,
}

impl Ready {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves what has gathered to the supervisor's own lists, which are reused.
    pub(super) fn collect(&self, turn: &mut impl Extend<usize>, arrivals: &mut Vec<Channel>) {
        if self.dirty.load(Ordering::Acquire) {
            let mut state = self.state();
            self.dirty.store(false, Ordering::Relaxed);
            turn.extend(state.woken.drain(..));
            arrivals.append(&mut state.arrivals);
        }
    }

    /// Takes note of who is to be woken; false if there is something to collect already.
    pub(super) fn rest(&self, parent: &Waker) -> bool {
        let mut state = self.state();
        if self.dirty.load(Ordering::Relaxed) {
            return false;
        }
        if !state
            .parent
            .as_ref()
            .is_some_and(|present| present.will_wake(parent))
        {
            state.parent = Some(parent.clone());
        }
        true
    }

    /// Tells whether a child may still come.
    pub(super) fn expects_more(&self) -> bool {
        let state = self.state();
        state.spawners > 0 || !state.arrivals.is_empty()
    }

    /// Hands over a new child. If the supervisor is gone, the child is dropped.
    pub(super) fn arrive(&self, channel: Channel) -> Result<()> {
        let mut state = self.state();
        if state.closed {
            drop(state);
            return Err(Error::SupervisorGone);
        }
        state.arrivals.push(channel);
        self.wake_parent(state);
        Ok(())
    }

    pub(super) fn add_spawner(&self) {
        self.state().spawners += 1;
    }

    pub(super) fn remove_spawner(&self) {
        let mut state = self.state();
        state.spawners -= 1;
        self.wake_parent(state);
    }

    pub(super) fn close(&self) {
        let arrivals = {
            let mut state = self.state();
            state.closed = true;
            std::mem::take(&mut state.arrivals)
        };
        // Outside of the lock: this kills children and wakes others.
        drop(arrivals);
    }

    /// Wakes outside of the lock, which the woken task takes at once.
    fn wake_parent(&self, mut state: MutexGuard<'_, State>) {
        self.dirty.store(true, Ordering::Release);
        let parent = state.parent.take();
        drop(state);
        if let Some(parent) = parent {
            parent.wake();
        }
    }
}

/// The waker of one slot. It is made once per child, so that waking allocates nothing.
pub(super) struct SlotWaker {
    ready: Arc<Ready>,
    slot: usize,
    /// The slot waits for its turn already, so that waking it again has no effect.
    queued: AtomicBool,
}

impl SlotWaker {
    pub(super) fn new(ready: Arc<Ready>, slot: usize) -> Self {
        Self {
            ready,
            slot,
            queued: AtomicBool::new(false),
        }
    }

    /// Says that the slot now waits for its turn; false if it did already.
    pub(super) fn enqueue(&self) -> bool {
        !self.queued.swap(true, Ordering::AcqRel)
    }

    /// Says that it is the slot's turn; a wake-up from now on counts for the next one.
    pub(super) fn dequeue(&self) {
        self.queued.store(false, Ordering::Release);
    }
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.enqueue() {
            let mut state = self.ready.state();
            state.woken.push(self.slot);
            self.ready.wake_parent(state);
        }
    }
}
