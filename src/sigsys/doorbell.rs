//! How a sleeper on a futex is woken by signal handlers, and only while it sleeps.
//!
//! The calls go through the stubs, which the filter lets through, so that no wake-up is an event.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use crate::sync::{AtomicU32, fence};

#[derive(Debug)]
pub(super) struct Doorbell {
    sleeping: AtomicU32,
}

impl Doorbell {
    pub(super) fn new() -> Self {
        Self {
            sleeping: AtomicU32::new(0),
        }
    }

    /// Sleeps until it is rung, unless `awake` finds something to do; for no longer than `limit`.
    pub(super) fn sleep(&self, limit: Option<Duration>, awake: impl FnOnce() -> bool) {
        self.sleeping.store(1, SeqCst);
        // What was written before the bell was looked at is seen here, or the bell is rung.
        fence(SeqCst);
        if !awake() {
            wait(&self.sleeping, limit);
        }
        self.sleeping.store(0, Relaxed);
    }

    /// Wakes the sleeper, if there is one, after what it is woken for was written.
    pub(super) fn ring(&self) {
        fence(SeqCst);
        if self.sleeping.load(Relaxed) == 1 && self.sleeping.swap(0, SeqCst) == 1 {
            wake(&self.sleeping);
        }
    }
}

#[cfg(not(asm_tracer_loom))]
#[allow(unsafe_code)]
mod futex {
    use std::time::Duration;

    use crate::sync::AtomicU32;
    use crate::syscall::{pointer, syscall3, syscall4};

    pub(super) fn wait(word: &AtomicU32, limit: Option<Duration>) {
        let limit = limit.map(|limit| libc::timespec {
            tv_sec: limit.as_secs() as i64,
            tv_nsec: limit.subsec_nanos().into(),
        });
        let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        let timeout = limit.as_ref().map_or(0, |limit| pointer(limit));
        // SAFETY: the kernel reads the word and the time.
        let _ = unsafe { syscall4(libc::SYS_futex, pointer(word), operation.into(), 1, timeout) };
    }

    pub(super) fn wake(word: &AtomicU32) {
        let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: the kernel takes the word for a key.
        let _ = unsafe { syscall3(libc::SYS_futex, pointer(word), operation.into(), 1) };
    }
}
#[cfg(not(asm_tracer_loom))]
use futex::{wait, wake};

/// The model's sleeper looks at the word until it changes, as the kernel does.
#[cfg(asm_tracer_loom)]
fn wait(word: &AtomicU32, _limit: Option<Duration>) {
    while word.load(SeqCst) == 1 {
        loom::thread::yield_now();
    }
}

#[cfg(asm_tracer_loom)]
fn wake(_word: &AtomicU32) {}
