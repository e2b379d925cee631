//! Waiting for no longer than a while, on any runtime of Tokio's: its own clock may be off.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::error::Result;
use crate::notify::Timer;

/// The timer takes no more than the kernel's clock does.
const LONGEST: Duration = Duration::from_secs(1 << 31);

/// Drives this for so long; `None` if it was not done then.
///
/// # Errors
///
/// If there is no timer to be had, and it was not done at once.
pub(super) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Result<Option<T>> {
    let limit = limit.min(LONGEST);
    let mut work = pin!(work);
    let mut timer = None;
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(Some(done)));
        }
        if limit.is_zero() {
            return Poll::Ready(Ok(None));
        }
        let timer = match &mut timer {
            Some(timer) => timer,
            none => none.insert(Timer::new(limit)?),
        };
        timer.poll_rung(cx, limit).map_ok(|()| None)
    })
    .await
}
