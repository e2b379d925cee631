//! Connecting a socket on which calls wait, without waiting in one.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, ready};
use std::time::Duration;

use nix::errno::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Connect, errno};
use crate::error::Error;
use crate::notify::Timer;
use crate::pidfd::register;

/// How long until it is looked at again what no event tells of, first and in the end.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

impl Connect {
    /// Does what the kernel does for this socket, waiting where it waits.
    pub(super) async fn connect(&self, address: Arc<Vec<u8>>) -> Result<(), Errno> {
        let mut limit: Option<Timer> = None;
        let mut pause = PAUSES.0;
        let mut told = false;
        loop {
            let begun = self.begin(&address).await?;
            if begun.waits && limit.is_none() {
                let send_timeout = self.socket.send_timeout()?;
                limit = send_timeout.map(Timer::new).transpose().map_err(no_timer)?;
            }
            self.waiting.store(true, Ordering::Relaxed);
            let waited = match begun.outcome {
                outcome if !begun.waits => return outcome,
                // The second is what the kernel says of what the first has begun.
                Err(Errno::EINPROGRESS | Errno::EALREADY) if !told => {
                    told = true;
                    until(self.writable(), limit.as_mut()).await
                }
                // The backlog of a Unix socket is full, of which no event tells; or the event was a false alarm.
                Err(Errno::EAGAIN) if self.is_unix() => until(rests(&mut pause), limit.as_mut()).await,
                Err(Errno::EINPROGRESS | Errno::EALREADY) => {
                    told = false;
                    until(rests(&mut pause), limit.as_mut()).await
                }
                outcome => return outcome,
            };
            self.waiting.store(false, Ordering::Relaxed);
            match waited? {
                Waited::Event => {}
                Waited::TimedOut => return Err(timed_out(begun.outcome)),
            }
        }
    }

    fn is_unix(&self) -> bool {
        self.socket.domain() == Ok(libc::AF_UNIX)
    }

    /// Begins to connect, or asks how far it has come.
    async fn begin(&self, address: &Arc<Vec<u8>>) -> Result<Begun, Errno> {
        let (socket, address) = (Arc::clone(&self.socket), Arc::clone(address));
        let bound = Arc::clone(&self.bound);
        self.off_runtime(move || {
            // Two at a time would take each other's flag for the target's.
            let _one = bound.one_at_a_time();
            let waits = socket.is_blocking()?;
            if waits {
                socket.set_blocking(false)?;
            }
            let outcome = socket.connect(&address);
            if waits {
                socket.set_blocking(true)?;
            }
            Ok(Begun { outcome, waits })
        })
        .await
    }

    async fn writable(&self) -> Result<(), Errno> {
        let registered = register(Arc::clone(&self.socket), Interest::WRITABLE).map_err(no_timer)?;
        AsyncFd::writable(&registered)
            .await
            .map(drop)
            .map_err(|error| errno(&error))
    }
}

/// What came of an attempt that does not wait.
struct Begun {
    outcome: Result<(), Errno>,
    /// Whether the target's own would have waited.
    waits: bool,
}

/// Lets some time go by, more each time.
async fn rests(pause: &mut Duration) -> Result<(), Errno> {
    let mut timer = Timer::new(*pause).map_err(no_timer)?;
    *pause = (2 * *pause).min(PAUSES.1);
    let rung = std::future::poll_fn(|cx| timer.poll_rung(cx, PAUSES.1));
    rung.await.map_err(no_timer)
}

enum Waited {
    Event,
    TimedOut,
}

/// Waits for an event, for no longer than the target's socket is to wait.
async fn until(
    event: impl Future<Output = Result<(), Errno>>,
    mut limit: Option<&mut Timer>,
) -> Result<Waited, Errno> {
    let mut event = std::pin::pin!(event);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(happened) = event.as_mut().poll(cx) {
            return Poll::Ready(happened.map(|()| Waited::Event));
        }
        let Some(limit) = &mut limit else {
            return Poll::Pending;
        };
        let rung = ready!(limit.poll_rung(cx, PAUSES.1));
        Poll::Ready(rung.map(|()| Waited::TimedOut).map_err(no_timer))
    })
    .await
}

/// What the kernel says when `SO_SNDTIMEO` is over.
fn timed_out(begun: Result<(), Errno>) -> Errno {
    match begun {
        Err(Errno::EALREADY) => Errno::EINPROGRESS,
        Err(errno) => errno,
        Ok(()) => Errno::EINPROGRESS,
    }
}

fn no_timer(error: Error) -> Errno {
    error.errno().unwrap_or(Errno::EIO)
}
