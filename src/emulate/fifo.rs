//! Opening a FIFO, which waits for somebody to open its other end.

use std::future::{Future, poll_fn};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::Notify;

use super::answer::Hurry;
use super::opened::Opened;
use super::resolve::Node;
use super::{errno, sys};
use crate::bound::{Bound, Length};
use crate::workers;

/// Whether opening this with these flags waits for another process.
pub(super) fn waits(node: &Node, flags: i32) -> bool {
    let one_way = flags & libc::O_ACCMODE != libc::O_RDWR;
    node.is_fifo() && one_way && flags & (libc::O_NONBLOCK | libc::O_PATH) == 0
}

/// Opens it on a thread that may wait for as long as it takes. Dropping the future abandons the wait, as `wait` can.
pub(super) async fn open(bound: &Bound, node: Arc<Node>, flags: i32, wait: &Wait) -> Result<Opened, Errno> {
    let opening = Arc::new(Opening {
        node,
        flags,
        stage: AtomicU8::new(IDLE),
        given_up: Notify::new(),
    });
    wait.begin(Arc::clone(&opening));
    let abandon = Abandon(Arc::clone(&opening));
    let thread = Arc::clone(&opening);
    let opened = bound.run(Length::Waiting, move || {
        thread.open().map(|fd| Opened::new(fd, false))
    });
    let (mut opened, mut given_up) = (pin!(opened), pin!(opening.given_up.notified()));
    let opened = poll_fn(|cx| match opened.as_mut().poll(cx) {
        Poll::Ready(opened) => Poll::Ready(opened.unwrap_or_else(|error| Err(errno(&error)))),
        Poll::Pending => given_up.as_mut().poll(cx).map(|()| Err(Errno::EINTR)),
    });
    let opened = opened.await;
    drop(abandon);
    opened
}

const IDLE: u8 = 0;
/// The thread is in the kernel, or about to be.
const OPENING: u8 = 1;
/// Nobody wants to wait any more, and a second thread is to open the other end.
const ABANDONED: u8 = 2;
/// It is about to do so, or has.
const RELEASING: u8 = 6;
/// The thread is out of the kernel, and wants to know who opened the other end.
const WOKEN: u8 = 3;
/// The second thread has closed the other end, or there is none.
const ALONE: u8 = 4;
/// Also that it is not to begin any more.
const OVER: u8 = 5;

/// How long a thread is given to go into the kernel, or to come out of it.
const PAUSE: Duration = Duration::from_micros(50);

/// How often the other end may refuse to be opened.
const REFUSALS: u32 = 100;

/// An open that waits, or is about to.
struct Opening {
    node: Arc<Node>,
    flags: i32,
    stage: AtomicU8,
    /// Tells that the thread can't be released.
    given_up: Notify,
}

impl Opening {
    fn open(&self) -> Result<OwnedFd, Errno> {
        if !self.advance(IDLE, OPENING) {
            return Err(Errno::EINTR);
        }
        let opened = sys::open_again(self.node.as_fd(), self.flags, 0);
        // Nobody of ours has opened the other end.
        if self.advance(OPENING, OVER) || self.advance(ABANDONED, OVER) {
            return opened;
        }
        self.advance(RELEASING, WOKEN);
        while self.stage.load(Ordering::Acquire) == WOKEN {
            std::thread::sleep(PAUSE);
        }
        // Somebody else may have come at the same time, and is not to find nobody here.
        let opened = opened.and_then(|fd| has_partner(fd.as_fd()).then_some(fd).ok_or(Errno::EINTR));
        self.stage.store(OVER, Ordering::Release);
        opened
    }

    /// Ends the wait.
    fn abandon(self: &Arc<Self>) -> Hurry {
        if self.advance(IDLE, OVER) {
            return Hurry::Drop;
        }
        if !self.advance(OPENING, ABANDONED) {
            return Hurry::Ends;
        }
        let opening = Arc::clone(self);
        let released = workers::run(Box::new(move |_| {
            opening.release();
        }));
        if released.is_err() {
            // Then the thread goes on until a process opens the other end.
            self.advance(ABANDONED, ALONE);
            return Hurry::Drop;
        }
        Hurry::Ends
    }

    /// Opens the other end for the moment that lets the waiting thread go on.
    ///
    /// Nothing else does, short of a signal with a handler, and this program's signals are its own. Whoever waits at the
    /// same end is let go on as well, and may find nobody at the other one.
    fn release(&self) {
        let other = match self.flags & libc::O_ACCMODE {
            libc::O_RDONLY => libc::O_WRONLY,
            _ => libc::O_RDONLY,
        };
        if !self.advance(ABANDONED, RELEASING) {
            return;
        }
        let mut refusals = 0;
        while self.stage.load(Ordering::Acquire) == RELEASING && refusals < REFUSALS {
            let opened = sys::open_again(self.node.as_fd(), other | libc::O_NONBLOCK, 0);
            // `ENXIO`: the thread is not in the kernel yet.
            refusals += u32::from(opened.as_ref().is_err_and(|errno| *errno != Errno::ENXIO));
            std::thread::sleep(PAUSE);
            drop(opened);
        }
        if self.advance(RELEASING, ALONE) {
            // This process may not open that end. The thread waits for one who may.
            self.given_up.notify_one();
        }
        self.advance(WOKEN, ALONE);
    }

    fn advance(&self, from: u8, to: u8) -> bool {
        let advanced = (self.stage).compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        advanced.is_ok()
    }
}

/// Whether somebody has the other end of an open FIFO.
fn has_partner(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    let nobody = PollFlags::POLLHUP | PollFlags::POLLERR;
    let polled = poll(&mut fds, PollTimeout::ZERO);
    let events = fds[0].revents().unwrap_or(PollFlags::empty());
    polled.is_ok() && (events.contains(PollFlags::POLLIN) || !events.intersects(nobody))
}

struct Abandon(Arc<Opening>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// The wait of a call, for those who want to end it.
#[derive(Default)]
pub(super) struct Wait(Mutex<Option<Arc<Opening>>>);

impl Wait {
    fn begin(&self, opening: Arc<Opening>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(opening);
    }

    /// Ends the wait, if there is one.
    pub(super) fn abandon(&self) -> Hurry {
        let opening = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        opening.as_ref().map_or(Hurry::None, Opening::abandon)
    }
}
