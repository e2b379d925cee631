//! Waiting for the next call on the spot, where it is about to come anyway.
//!
//! While one call is in flight at a time and the CPU is handed over with it, the next call follows its predecessor's
//! answer within microseconds. The way through the runtime (back to its scheduler, `epoll_wait(2)`, the task's waker,
//! on a multi-thread runtime another thread) costs as much again as the call, or many times as much. So the receiver
//! first waits in `poll(2)` itself. It goes on like that for no longer than a task does that always finds its socket
//! readable, then the runtime has its turn; and it tries less and less often while nothing comes.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

#[derive(Debug)]
pub(crate) struct Linger {
    /// When the runtime had its last turn.
    turn: Option<Instant>,
    /// Calls until the next try.
    skip: u32,
    /// How many calls the next failure makes it skip.
    penalty: u32,
}

/// How long the runtime waits for its turn at most, apart from one `PATIENCE`.
const TURN: Duration = Duration::from_micros(200);
/// How long a call is waited for, to which the kernel adds its timer slack (50 µs unless told otherwise).
const PATIENCE: TimeSpec = TimeSpec::new(0, 100_000);
/// With this many calls between two failures, what they cost disappears.
const MAX_PENALTY: u32 = 4096;

impl Linger {
    pub(crate) fn new() -> Self {
        Self {
            turn: None,
            skip: 0,
            penalty: 1,
        }
    }

    /// Takes note that the runtime has its turn.
    pub(crate) fn yielded(&mut self) {
        self.turn = None;
    }

    /// Waits for a moment, if that is worth it; true if a call is there.
    pub(crate) fn wait(&mut self, listener: BorrowedFd<'_>) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        let now = Instant::now();
        if now.saturating_duration_since(*self.turn.get_or_insert(now)) > TURN {
            return false;
        }
        let mut fds = [PollFd::new(listener, PollFlags::POLLIN)];
        // The end of the filter is no call: a RECV would block then, on kernels before 6.11 for ever (T4).
        let came = ppoll(&mut fds, Some(PATIENCE), None).is_ok()
            && fds[0]
                .revents()
                .is_some_and(|events| events.contains(PollFlags::POLLIN));
        if came {
            self.penalty = 1;
        } else {
            self.skip = self.penalty;
            self.penalty = (2 * self.penalty).min(MAX_PENALTY);
        }
        came
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    /// Whether a pipe's end that says what a listener says passes for a call.
    fn passes_for_a_call(end: impl AsFd) -> bool {
        Linger::new().wait(end.as_fd())
    }

    #[test]
    fn only_what_can_be_received_is_a_call() {
        let (reads, writes) = nix::unistd::pipe().unwrap();
        nix::unistd::write(&writes, b"x").unwrap();
        assert!(passes_for_a_call(&reads));
        let (reads, writes) = nix::unistd::pipe().unwrap();
        drop(writes);
        assert!(!passes_for_a_call(reads), "POLLHUP");
        let (reads, writes) = nix::unistd::pipe().unwrap();
        drop(reads);
        assert!(!passes_for_a_call(writes), "POLLERR");
    }
}
