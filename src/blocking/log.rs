use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

use crate::error::{Error, Result, SpawnStep};
use crate::notify::{FrozenThread, TrappedSyscall};

/// What the serving thread tells the owner of the child.
#[derive(Debug)]
pub(super) struct Log(Mutex<State>);

#[derive(Debug)]
struct State {
    /// The last calls, up to the capacity.
    calls: VecDeque<TrappedSyscall>,
    capacity: usize,
    dropped: u64,
    /// The thread whose call the hook is looking at.
    frozen: Option<FrozenThread>,
    /// What the hook said when it panicked first.
    panic: Option<String>,
}

impl Log {
    /// Keeps so many calls at most. Their memory is reserved at once, so that serving a call allocates nothing.
    pub(super) fn new(capacity: usize) -> Result<Self> {
        let mut calls = VecDeque::new();
        let reserved = calls.try_reserve_exact(capacity);
        reserved.map_err(|_| Error::spawn(SpawnStep::StartServer, Errno::ENOMEM))?;
        Ok(Self(Mutex::new(State {
            calls,
            capacity,
            dropped: 0,
            frozen: None,
            panic: None,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a call that the hook is about to look at.
    pub(super) fn begin(&self, call: TrappedSyscall, thread: FrozenThread) {
        let mut state = self.state();
        state.frozen = Some(thread);
        if state.calls.len() == state.capacity {
            state.dropped += 1;
            if state.calls.pop_front().is_none() {
                return;
            }
        }
        state.calls.push_back(call);
    }

    /// Takes note that the hook is done with it.
    pub(super) fn end(&self) {
        self.state().frozen = None;
    }

    pub(super) fn frozen(&self) -> Option<FrozenThread> {
        self.state().frozen
    }

    /// Takes note that the hook panicked, and is done with its call.
    pub(super) fn panicked(&self, message: String) {
        let mut state = self.state();
        state.frozen = None;
        state.panic.get_or_insert(message);
    }

    pub(super) fn panic(&self) -> Option<String> {
        self.state().panic.clone()
    }

    /// The calls since the last time, the oldest first.
    pub(super) fn drain(&self) -> Vec<TrappedSyscall> {
        self.state().calls.drain(..).collect()
    }

    /// How many calls there was no room for.
    pub(super) fn dropped(&self) -> u64 {
        self.state().dropped
    }
}
