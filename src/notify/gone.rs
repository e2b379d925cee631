//! Learning that nobody waits for the answer any more.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::Notification;
use super::watch::Watch;
use crate::error::{Error, Result};

/// The future of the target's going; see [`Notification::gone`].
#[derive(Debug)]
#[must_use = "futures do nothing unless you await or poll them"]
pub struct Gone<'a> {
    call: &'a Notification,
    /// From the first poll on.
    watch: Option<Watch>,
}

impl Notification {
    /// Waits until the target no longer waits for the answer: it died, or a signal took the call back.
    ///
    /// For a handler that takes its time, to give up what nobody wants any more:
    /// [`is_pending`](Self::is_pending) says the same of the moment.
    ///
    /// A death is told at once. That a signal took the call back (which does not happen to calls of children started
    /// with [`wait_killable`](crate::Command::wait_killable)) the kernel tells nobody, so that is looked for, first after
    /// a millisecond, then less and less often, in the end every 20 ms. While it waits it holds two descriptors.
    ///
    /// # Errors
    ///
    /// [`Error::NoRuntime`] outside of a Tokio runtime, [`Error::Io`] if this process has no descriptor left.
    ///
    /// # Panics
    ///
    /// If the Tokio runtime has no I/O driver (`enable_io`).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    ///
    /// # Kernel support
    ///
    /// Before Linux 6.9, which has `PIDFD_THREAD`, the death of a thread that does not lead its process is looked for
    /// as well.
    ///
    /// # Examples
    ///
    /// ```
    /// # use asm_tracer::{Notification, Result};
    /// # async fn fetch() -> i64 { 0 }
    /// # async fn handle(call: Notification) -> Result<()> {
    /// let fetched = tokio::select! {
    ///     fetched = fetch() => fetched,
    ///     gone = call.gone() => return gone,
    /// };
    /// call.respond(fetched)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn gone(&self) -> Gone<'_> {
        Gone {
            call: self,
            watch: None,
        }
    }
}

impl Future for Gone<'_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let call = self.call;
        loop {
            match &mut self.watch {
                Some(watch) => ready!(watch.poll_turn(cx))?,
                none => *none = Some(Watch::new(call)?),
            }
            match call.check_pending() {
                Err(Error::Gone) => return Poll::Ready(Ok(())),
                pending => pending?,
            }
        }
    }
}
