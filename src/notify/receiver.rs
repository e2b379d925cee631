//! Receiving on a thread that does nothing else, which blocks in the kernel: the least that a call can cost.

use std::os::fd::AsFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::answer::refuse_unanswered;
use super::receive::{State, apply, failed, receive};
use super::{Notification, Source, WakeControl, WakeUp};
use crate::kernel;
use crate::pidfd::{KillOnDrop, Process};

/// The only receiver on a listener, for a thread of its own.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// The process that the listener came with, if this library started it. The first to be dropped (T23).
    guard: Option<KillOnDrop>,
    /// The same, until it is reaped.
    running: Option<Arc<Process>>,
    source: Arc<Source>,
    wake: WakeControl,
    /// The `SYNC_WAKE_UP` flag as it was last set.
    synchronous: Option<bool>,
}

impl Receiver {
    pub(crate) fn new(source: Arc<Source>, guard: Option<KillOnDrop>, policy: WakeUp) -> Self {
        let mut wake = WakeControl::new();
        wake.set_mode(policy);
        Self {
            running: guard.as_ref().map(|guard| Arc::clone(&guard.process)),
            guard,
            source,
            wake,
            synchronous: None,
        }
    }

    /// Waits for the next call; `None` for good once nobody uses the filter any more.
    pub(crate) fn next(&mut self) -> Option<Notification> {
        let source = Arc::clone(&self.source);
        // For as long as this blocks in RECV, it is the only receiver.
        let mut inbox = source.inbox();
        loop {
            if let Some(call) = inbox.pop(&source) {
                return Some(call);
            }
            apply(&source, &mut self.synchronous, self.wake.synchronous());
            if !kernel::receiving_ends() && self.wait() == State::Ended {
                return None;
            }
            match receive(&source) {
                Ok(Some(request)) => {
                    self.wake.received(1);
                    return Some(Notification::new(Arc::clone(&source), &request));
                }
                Ok(None) if State::now(&source) == Ok(State::Ended) => return None,
                Ok(None) => {}
                Err(errno) => {
                    failed("receiving", errno);
                    return None;
                }
            }
        }
    }

    /// Leaves the calls that a panic on this thread drops to [`answer_unwound`](Self::answer_unwound).
    pub(crate) fn keep_unwound(&self) {
        self.source.keep_unwound();
    }

    /// Answers the calls that a panic on this thread has dropped.
    pub(crate) fn answer_unwound(&self) {
        for id in self.source.take_unwound() {
            refuse_unanswered(&self.source, id);
        }
    }

    /// Waits in `poll(2)`, for kernels where RECV would outlast the filter (T4). There the end of the filter only shows
    /// once its last user was reaped (T5), so the child is.
    fn wait(&mut self) -> State {
        loop {
            let listener = PollFd::new(self.source.as_fd(), PollFlags::POLLIN);
            let mut fds = [listener.clone(), listener];
            let fds = match &self.running {
                Some(process) => {
                    fds[1] = PollFd::new(process.as_fd(), PollFlags::POLLIN);
                    &mut fds[..]
                }
                None => &mut fds[..1],
            };
            match poll(fds, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(errno) => {
                    failed("polling", errno);
                    return State::Ended;
                }
            }
            match State::of(fds[0].revents()) {
                Some(State::Idle) | None => {}
                Some(state) => return state,
            }
            let reaped = |process: &Arc<Process>| !matches!(process.try_reap(), Ok(None));
            if self.running.as_ref().is_some_and(reaped) {
                self.running = None;
            }
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.guard.take());
        self.source.close_inbox();
    }
}
