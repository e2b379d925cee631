//! When to look at a frozen thread again: at its death, of which there is an event, and at growing intervals, since
//! there is none for what signals do to it.

use std::os::fd::OwnedFd;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Notification;
use super::timer::Timer;
use crate::error::Result;
use crate::pidfd;

const FIRST: Duration = Duration::from_millis(1);
const LAST: Duration = Duration::from_millis(20);

/// Ready whenever it is time for another look.
#[derive(Debug)]
pub(super) struct Watch {
    /// The thread, or the process that it leads; nothing if there is no event of its death, which the next look finds
    /// then.
    death: Option<AsyncFd<OwnedFd>>,
    timer: Timer,
    interval: Duration,
}

impl Watch {
    /// The tid may mean another thread by now, so a look must follow.
    pub(super) fn new(call: &Notification) -> Result<Self> {
        Ok(Self {
            timer: Timer::new(FIRST)?,
            death: call.target().ok().and_then(death_of),
            interval: FIRST,
        })
    }

    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let died = (self.death.as_ref()).is_some_and(|death| death.poll_read_ready(cx).is_ready());
        if died {
            self.death = None;
            return Poll::Ready(Ok(()));
        }
        let next = (2 * self.interval).min(LAST);
        let rung = self.timer.poll_rung(cx, next);
        if rung.is_ready() {
            self.interval = next;
        }
        rung
    }
}

/// A pidfd that becomes readable at the thread's death. Before Linux 6.9 there is none for a thread that does not lead its
/// process.
fn death_of(tid: Pid) -> Option<AsyncFd<OwnedFd>> {
    let pidfd = pidfd::open_thread(tid).or_else(|_| pidfd::open(tid)).ok()?;
    pidfd::register(pidfd, Interest::READABLE).ok()
}
