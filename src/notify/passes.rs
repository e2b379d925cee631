//! Calls that have been decided about and are trapped once more, because the kernel asks the filter again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::answer::continue_unseen;
use super::{Source, uapi};

/// The calls that run when they come.
#[derive(Debug, Default)]
pub(super) struct Passes {
    /// Whether there are any, for a look that costs nothing.
    any: AtomicBool,
    calls: Mutex<Vec<Pass>>,
}

/// The next call of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pass {
    pub(super) tid: u32,
    pub(super) nr: i32,
    pub(super) args: [u64; 6],
    /// The address after the call.
    pub(super) instruction_pointer: u64,
}

impl Passes {
    fn calls(&self) -> MutexGuard<'_, Vec<Pass>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a call run when it comes.
    pub(super) fn grant(&self, pass: Pass) {
        let mut calls = self.calls();
        calls.retain(|granted| granted.tid != pass.tid);
        calls.push(pass);
        self.any.store(true, Ordering::Release);
    }

    /// Takes back the pass of a thread, if it has not been used.
    pub(super) fn revoke(&self, tid: u32) {
        self.remove(|granted| granted.tid == tid);
    }

    /// Tells whether any has not been used.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Tells whether a thread has a pass that has not been used.
    pub(super) fn is_granted(&self, tid: u32) -> bool {
        self.calls().iter().any(|granted| granted.tid == tid)
    }

    fn remove(&self, which: impl Fn(&Pass) -> bool) -> bool {
        let mut calls = self.calls();
        let before = calls.len();
        calls.retain(|granted| !which(granted));
        self.any.store(!calls.is_empty(), Ordering::Release);
        calls.len() < before
    }

    /// Tells whether the call has a pass, and uses it up.
    fn admits(&self, request: &uapi::Request) -> bool {
        let pass = Pass {
            tid: request.tid,
            nr: request.data.nr,
            args: request.data.args,
            instruction_pointer: request.data.instruction_pointer,
        };
        // A pass is granted before its thread is let go, so it is seen when its call comes.
        self.any() && self.remove(|granted| *granted == pass)
    }
}

impl Source {
    /// Gives the call, unless it has been decided about before.
    pub(super) fn let_pass(&self, request: uapi::Request) -> Option<uapi::Request> {
        if self.passes.admits(&request) {
            continue_unseen(self, request.id);
            return None;
        }
        Some(request)
    }
}
