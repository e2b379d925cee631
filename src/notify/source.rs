use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, ThreadId};

use nix::errno::Errno;

use super::inbox::Inbox;
use super::lane::Lane;
use super::passes::Passes;
use super::{ChildKey, uapi};
use crate::bound::Bound;
use crate::error::{Error, Result};
use crate::kernel::KernelSupport;

/// The listener's descriptor. Each notification holds it, so that an answer never meets a reused number (T50).
#[derive(Debug)]
pub(crate) struct Source {
    fd: OwnedFd,
    pub(crate) child: ChildKey,
    unwound: OnceLock<Unwound>,
    /// For the looks at its targets.
    pub(super) lane: Arc<Lane>,
    /// For what is done in their place.
    pub(super) bound: Arc<Bound>,
    pub(super) inbox: Mutex<Inbox>,
    /// Nobody serves the calls any more.
    pub(super) closed: AtomicBool,
    pub(super) passes: Passes,
}

/// The calls that were dropped by a panic on the thread that serves them. That thread answers them, once it has taken
/// note of the panic: nobody is to see the answer before.
#[derive(Debug)]
struct Unwound {
    thread: ThreadId,
    /// Whether there are any, for a look that costs nothing.
    any: AtomicBool,
    ids: Mutex<Vec<u64>>,
}

impl Source {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            child: ChildKey::new(),
            unwound: OnceLock::new(),
            lane: Arc::default(),
            bound: Arc::default(),
            inbox: Mutex::default(),
            closed: AtomicBool::new(false),
            passes: Passes::default(),
        }
    }

    /// Takes a descriptor that came from elsewhere, after a look at whether it is a listener.
    pub(crate) fn foreign(fd: OwnedFd) -> Result<Self> {
        KernelSupport::at_start().require_listener()?;
        match uapi::id_is_valid(fd.as_fd(), 0) {
            Ok(()) | Err(Errno::ENOENT) => Ok(Self::new(fd)),
            Err(_) => Err(Error::NotAListener),
        }
    }

    /// Tells whether a call still waits for its answer.
    pub(super) fn check_pending(&self, id: u64) -> Result<()> {
        match uapi::id_is_valid(self.as_fd(), id) {
            Ok(()) => Ok(()),
            Err(Errno::ENOENT) => Err(Error::Gone),
            Err(errno) => Err(Error::os("checking the notification", errno)),
        }
    }

    /// Makes this thread the one that answers what its panics drop, which is in [`take_unwound`](Self::take_unwound).
    pub(super) fn keep_unwound(&self) {
        let _ = self.unwound.set(Unwound {
            thread: thread::current().id(),
            any: AtomicBool::new(false),
            ids: Mutex::default(),
        });
    }

    /// Leaves a dropped call to the thread that serves, if it is that thread that panics.
    pub(super) fn leave_to_server(&self, id: u64) -> bool {
        let Some(unwound) = self.unwound.get() else {
            return false;
        };
        let panics_here = thread::panicking() && thread::current().id() == unwound.thread;
        if panics_here {
            let mut ids = unwound.ids.lock().unwrap_or_else(PoisonError::into_inner);
            ids.push(id);
            unwound.any.store(true, Ordering::Relaxed);
        }
        panics_here
    }

    /// The calls that were left, which wait for their answers.
    pub(super) fn take_unwound(&self) -> Vec<u64> {
        let unwound = self.unwound.get();
        // It is the same thread that leaves them and takes them.
        let Some(unwound) = unwound.filter(|unwound| unwound.any.load(Ordering::Relaxed)) else {
            return Vec::new();
        };
        unwound.any.store(false, Ordering::Relaxed);
        std::mem::take(&mut unwound.ids.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[allow(unsafe_code)]
mod holds_fd {
    // SAFETY: the source owns its descriptor and never replaces it.
    unsafe impl crate::pidfd::HoldsFd for super::Source {}
}
