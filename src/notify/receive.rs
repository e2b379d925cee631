//! What the ways to receive have in common: looking at a listener, and taking a call from it.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Source, uapi};

/// What a listener has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Idle,
    /// A call waits. It may be taken back before it is received (T3).
    Call,
    /// Nobody uses the filter any more.
    Ended,
}

impl State {
    /// The meaning of what `poll(2)` says; `None` if it has to be asked again.
    pub(super) fn of(events: Option<PollFlags>) -> Option<Self> {
        let events = events.unwrap_or(PollFlags::empty());
        if events == PollFlags::POLLERR {
            // A signal came to us while another thread was in the listener (T14). It says nothing about the calls.
            None
        } else if events.contains(PollFlags::POLLIN) {
            Some(Self::Call)
        } else if events.is_empty() {
            Some(Self::Idle)
        } else {
            Some(Self::Ended)
        }
    }

    pub(super) fn now(source: &Source) -> Result<Self, Errno> {
        loop {
            let mut fds = [PollFd::new(source.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::ZERO) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno),
            }
            if let Some(state) = Self::of(fds[0].revents()) {
                return Ok(state);
            }
        }
    }
}

/// Takes the oldest call, if there still is one and it is nobody's in particular. Blocks while none has come (T1).
pub(super) fn receive(source: &Source) -> Result<Option<uapi::Request>, Errno> {
    match uapi::receive(source.as_fd()) {
        Ok(request) => Ok(source.let_pass(request)),
        // The target died or was interrupted in between (T3), or a signal came to us (T4).
        Err(Errno::ENOENT | Errno::EINTR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Takes note that nobody can serve this listener. Closing it, and killing the child that came with it, is the closed
/// default.
pub(super) fn failed(operation: &str, errno: Errno) {
    crate::trace::warning!(%errno, "{operation} from a listener failed");
    let _ = operation;
}

/// Has the kernel wake this listener's users as wanted, unless it does so already.
pub(super) fn apply(source: &Source, applied: &mut Option<bool>, wanted: bool) {
    if *applied != Some(wanted) {
        // A kernel without the flag is served all the same; `KernelSupport` tells.
        let _ = uapi::set_sync_wake_up(source.as_fd(), wanted);
        *applied = Some(wanted);
    }
}
