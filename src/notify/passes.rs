//! Calls that have been decided about and are trapped once more, because the kernel asks the filter again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::answer::continue_unseen;
use super::{Source, borrow, uapi};

/// The calls that run when they come.
#[derive(Debug, Default)]
pub(super) struct Passes {
    /// Whether there are any, for a look that costs nothing.
    any: AtomicBool,
    granted: Mutex<Granted>,
}

#[derive(Debug, Default)]
struct Granted {
    /// By thread.
    calls: HashMap<u32, Pass>,
    /// The numbers of calls that the filter let pass by itself the last time, so that no pass was used; a bit each.
    untrapped: [u64; 8],
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

impl Granted {
    /// The bit of a number, if it has one.
    fn untrapped(&mut self, nr: i32) -> Option<(&mut u64, u64)> {
        let nr = usize::try_from(nr).ok()?;
        Some((self.untrapped.get_mut(nr / 64)?, 1 << (nr % 64)))
    }

    fn set_untrapped(&mut self, nr: i32, untrapped: bool) {
        if let Some((word, bit)) = self.untrapped(nr) {
            *word = if untrapped { *word | bit } else { *word & !bit };
        }
    }
}

impl Passes {
    fn granted(&self) -> MutexGuard<'_, Granted> {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the next call of a thread run when it comes.
    pub(super) fn grant(&self, pass: Pass) {
        let mut granted = self.granted();
        granted.calls.insert(pass.tid, pass);
        self.any.store(true, Ordering::Release);
    }

    /// Takes back the pass of a thread, if it has not been used.
    pub(super) fn revoke(&self, tid: u32) {
        if self.any() {
            let mut granted = self.granted();
            if let Some(pass) = granted.calls.remove(&tid) {
                granted.set_untrapped(pass.nr, true);
            }
            self.any.store(!granted.calls.is_empty(), Ordering::Release);
        }
    }

    /// Tells whether any has not been used.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Tells whether a thread has a pass that has not been used.
    pub(super) fn is_granted(&self, tid: u32) -> bool {
        self.any() && self.granted().calls.contains_key(&tid)
    }

    /// Tells whether such a pass will probably be used, which only goes by the last one.
    pub(super) fn is_expected(&self, nr: i64) -> bool {
        let untrapped = self
            .granted()
            .untrapped(nr as i32)
            .map(|(word, bit)| *word & bit != 0);
        untrapped != Some(true)
    }

    /// Tells whether the call has a pass, and uses it up.
    fn admits(&self, request: &uapi::Request) -> bool {
        // A pass is granted before its thread is let go, so it is seen when its call comes.
        if !self.any() {
            return false;
        }
        // The number means another call to `int 0x80`, as which other threads can have changed the code meanwhile.
        if request.data.arch != uapi::AUDIT_ARCH_X86_64 {
            return false;
        }
        let pass = Pass {
            tid: request.tid,
            nr: request.data.nr,
            args: request.data.args,
            instruction_pointer: request.data.instruction_pointer,
        };
        let mut granted = self.granted();
        let admitted = granted.calls.get(&pass.tid) == Some(&pass);
        if admitted {
            granted.calls.remove(&pass.tid);
            granted.set_untrapped(pass.nr, false);
        }
        self.any.store(!granted.calls.is_empty(), Ordering::Release);
        admitted
    }
}

impl Source {
    /// Gives the call, unless it has been decided about before.
    pub(super) fn let_pass(&self, request: uapi::Request) -> Option<uapi::Request> {
        if self.passes.admits(&request) {
            continue_unseen(self, request.id);
            // It may be waited for elsewhere.
            borrow::call_passed();
            return None;
        }
        Some(request)
    }
}
