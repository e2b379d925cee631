//! What the threads of a process share, and a forked copy of it begins anew.
//!
//! The threads of the parent are not there, and what another one of them had locked at that moment stays locked for ever. So the
//! copy doesn't touch its parent's: it makes its own. The parent's is leaked there, and not freed under whoever uses it.
#![allow(unsafe_code)]

use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

pub(crate) struct PerProcess<T> {
    current: AtomicPtr<Own<T>>,
}

struct Own<T> {
    pid: u32,
    value: T,
}

impl<T: Default + Send + Sync + 'static> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self {
            current: AtomicPtr::new(null_mut()),
        }
    }

    /// This process's own.
    pub(crate) fn get(&self) -> &'static T {
        let pid = std::process::id();
        let mut current = self.current.load(Ordering::Acquire);
        loop {
            // SAFETY: what is stored here was leaked, and is never changed but through its own means of sharing.
            if let Some(own) = unsafe { current.as_ref() }
                && own.pid == pid
            {
                return &own.value;
            }
            let value = T::default();
            let new = Box::into_raw(Box::new(Own { pid, value }));
            match self
                .current
                .compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => current = new,
                Err(other) => {
                    // SAFETY: it was made here, and nobody has seen it.
                    drop(unsafe { Box::from_raw(new) });
                    current = other;
                }
            }
        }
    }
}
