use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::deadline::within;
use super::look::{Choice, Looks};
use super::opened::Opened;
use super::queue::Queue;
use super::{Builder, Recorded, Refused};
use crate::notify::{Delivery, Notification};

/// Records the calls that are given to it.
///
/// Clones of it write the same trace, so that several supervisors and tasks can share one. When the last one is dropped,
/// and no call is held that it has begun, what is there is still written, of which nobody waits for the end;
/// [`finish`](Self::finish) does.
#[derive(Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    pub(super) choice: Choice,
    pub(super) look_limit: Duration,
    pub(super) grace: Duration,
    pub(super) spans: bool,
}

/// What the recorder and the calls that are held have in common.
pub(super) struct Shared {
    pub(super) options: Options,
    /// None if nothing is written.
    pub(super) queue: Option<Arc<Queue>>,
    pub(super) looks: Looks,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.close();
        }
    }
}

/// What came of a trace.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "the trace may be incomplete"]
pub struct Finished {
    /// The calls that were written.
    pub written: u64,
    /// The calls that were not: there was no room in the queue, or writing failed. After an error, some of them may be in the
    /// trace nevertheless.
    pub dropped: u64,
    /// Why nothing was written any more, told once. The calls went on without.
    pub error: Option<io::Error>,
}

impl Recorder {
    /// Says what to record, and where to.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(super) fn new(options: Options, queue: Option<Arc<Queue>>) -> Self {
        let looks = Looks::default();
        let shared = Shared {
            options,
            queue,
            looks,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Takes a call, and gives it back to be answered, once there is room for its record and its memory was looked at.
    ///
    /// It waits no longer than the [grace](Builder::grace) and the [limit of a look](Builder::look_limit) together, whatever
    /// the target and the destination of the trace do. Looks are [off the runtime](Notification::look), unless they are to be
    /// [in place](Builder::in_place), where they have no limit.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the call, which then fails with `ENOSYS`, and is recorded as [`Answer::Dropped`](super::Answer::Dropped).
    ///
    /// # Panics
    ///
    /// If the Tokio runtime has no I/O driver (`enable_io`).
    ///
    /// # Examples
    ///
    /// ```
    /// use asm_tracer::record::Recorder;
    /// use asm_tracer::{Errno, Supervisor, Sysno};
    ///
    /// # async fn serve(mut supervisor: Supervisor, recorder: Recorder) -> asm_tracer::Result<()> {
    /// while let Some(call) = supervisor.next().await {
    ///     let call = recorder.begin(call).await;
    ///     match call.sysno() {
    ///         Some(Sysno::connect) => call.error(Errno::ENETUNREACH)?,
    ///         _ => call.continue_syscall()?,
    ///     };
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn begin(&self, call: Notification) -> impl Future<Output = Recorded> + Send + use<> {
        // Not when it is first polled, so that each call is in the trace.
        let record = Opened::new(Arc::clone(&self.shared), &call);
        let mut held = Recorded { call, record };
        async move {
            let Recorded { call, record } = &mut held;
            record.take_place().await;
            record.look(call).await;
            held
        }
    }

    /// Records a call and lets it run.
    ///
    /// # Errors
    ///
    /// Those of [`Notification::continue_syscall`].
    ///
    /// # Cancel safety
    ///
    /// As for [`begin`](Self::begin).
    ///
    /// # Examples
    ///
    /// ```
    /// # use asm_tracer::record::Recorder;
    /// # async fn serve(mut supervisor: asm_tracer::Supervisor, recorder: Recorder) -> asm_tracer::Result<()> {
    /// while let Some(call) = supervisor.next().await {
    ///     recorder.pass(call).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn pass(&self, call: Notification) -> Result<Delivery, Refused> {
        self.begin(call).await.continue_syscall()
    }

    /// How many calls were written so far. Those are not counted that the writer may still hold back.
    pub fn written(&self) -> u64 {
        self.shared.queue.as_ref().map_or(0, |queue| queue.sums().written)
    }

    /// How many calls are missing in the trace so far.
    pub fn dropped(&self) -> u64 {
        self.shared.queue.as_ref().map_or(0, |queue| queue.sums().dropped)
    }

    /// Writes what is there, and ends the trace.
    ///
    /// It takes as long as the destination does; see [`finish_within`](Self::finish_within). Calls that are answered
    /// afterwards, through clones or by whoever holds one, are counted as dropped.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the trace ends, whether or not somebody waits for it.
    pub async fn finish(self) -> Finished {
        if let Some(queue) = &self.shared.queue {
            queue.close();
            queue.over().await;
        }
        self.finished()
    }

    /// The same, for no longer than this: what has not been written by then is counted as dropped, and the
    /// error is [`TimedOut`](io::ErrorKind::TimedOut).
    ///
    /// The thread that writes ends when the destination lets go of it.
    ///
    /// # Cancel safety
    ///
    /// As for [`finish`](Self::finish).
    pub async fn finish_within(self, limit: Duration) -> Finished {
        if let Some(queue) = &self.shared.queue {
            queue.close();
            let late = match within(limit, queue.over()).await {
                Ok(Some(())) => None,
                Ok(None) => Some(io::ErrorKind::TimedOut.into()),
                Err(error) => Some(error.into()),
            };
            if late.is_some() {
                queue.end(late);
            }
        }
        self.finished()
    }

    fn finished(self) -> Finished {
        let queue = self.shared.queue.as_ref();
        let sums = queue.map(|queue| queue.sums()).unwrap_or_default();
        Finished {
            written: sums.written,
            dropped: sums.dropped,
            error: queue.and_then(|queue| queue.take_error()),
        }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("options", &self.shared.options)
            .field("written", &self.written())
            .field("dropped", &self.dropped())
            .finish_non_exhaustive()
    }
}
