use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::look::Choice;
use super::queue::Queue;
use super::recorder::Options;
use super::writer::{self, Closure, Sink};
use super::{Line, Recorder};
use crate::error::Result;
#[cfg(doc)]
use crate::notify::Notification;

/// How many bytes of a buffer are recorded at most.
pub(super) const MAX_BUFFERS: usize = 1 << 20;

/// What a [`Recorder`] records, how long a call may be held for it, and where the trace goes.
///
/// # Examples
///
/// ```
/// use asm_tracer::record::Recorder;
/// use std::time::Duration;
///
/// # fn main() -> asm_tracer::Result<()> {
/// // As values, of which the channel's own bound is another one.
/// let (lines, trace) = std::sync::mpsc::channel();
/// let recorder = Recorder::builder()
///     .buffers(256)
///     .grace(Duration::from_millis(2))
///     .to(move |line| lines.send(line).map_err(std::io::Error::other))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is recorded before one of its `to` methods has made a recorder"]
pub struct Builder {
    options: Options,
    queue: usize,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            options: Options {
                choice: Choice {
                    paths: true,
                    addresses: true,
                    buffers: 0,
                    in_place: false,
                },
                look_limit: Duration::from_millis(100),
                grace: Duration::from_millis(10),
                spans: false,
            },
            queue: 4096,
        }
    }

    /// Whether paths are read. Yes unless told otherwise.
    pub fn paths(mut self, yes: bool) -> Self {
        self.options.choice.paths = yes;
        self
    }

    /// Whether the addresses of sockets are read that `connect`, `bind` and the sending calls are given. Yes unless told
    /// otherwise.
    pub fn addresses(mut self, yes: bool) -> Self {
        self.options.choice.addresses = yes;
        self
    }

    /// How many bytes are read of what a call writes, sends or sets, up to a MiB. None unless told otherwise.
    ///
    /// The [queue](Self::queue) can have as much for each of its records.
    pub fn buffers(mut self, limit: usize) -> Self {
        self.options.choice.buffers = limit.min(MAX_BUFFERS);
        self
    }

    /// Whether memory is read on the thread that serves the calls, and not on another one. No unless told otherwise.
    ///
    /// A call then costs a fraction. It is for programs that are trusted: a hostile one can make a read
    /// [stall](Notification::look) for as long as it likes, which then blocks the runtime, and no
    /// [limit](Self::look_limit) ends it.
    pub fn in_place(mut self, yes: bool) -> Self {
        self.options.choice.in_place = yes;
        self
    }

    /// How many records there is room for, 4 096 unless told otherwise. Each call that is held for an answer takes one.
    pub fn queue(mut self, records: usize) -> Self {
        self.queue = records;
        self
    }

    /// How long a call is held back if there is no room for its record, before that is dropped: 10 ms unless told otherwise.
    ///
    /// Once one has waited in vain, others don't wait until the writer has got on: a destination that is slow slows the
    /// targets by no more than this for each call, one that stalls by no more than this once.
    pub fn grace(mut self, limit: Duration) -> Self {
        self.options.grace = limit;
        self
    }

    /// How long a call is held back for a look at its memory: 100 ms unless told otherwise.
    ///
    /// What was not read by then is [`Missing::Stalled`](super::Missing::Stalled). While a look at a child stalls that was given
    /// up, no others are begun at that child and its descendants.
    pub fn look_limit(mut self, limit: Duration) -> Self {
        self.options.look_limit = limit;
        self
    }

    /// Makes a `tracing` span of each call, and an event of its answer, besides what is written.
    ///
    /// Both have the target `asm_tracer::record` and the level `DEBUG`. The span `call` lasts from the receipt to the answer, with
    /// the fields `name`, `nr`, `tid`, `pid`, `args` and, once they were read, `paths`; see
    /// [`Recorded::span`](super::Recorded::span). The event `answered` is in it, with `answer`, `held_us` and `observed`. The
    /// subscriber runs where calls are answered, and what waits in it holds up the program.
    #[cfg(feature = "tracing")]
    pub fn spans(mut self, yes: bool) -> Self {
        self.options.spans = yes;
        self
    }

    /// Has each line passed to this closure, on a thread of its own.
    ///
    /// It may block. After its first error, or a panic, no further lines are passed to it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) if there is no thread to be had.
    pub fn to(self, sink: impl FnMut(Line) -> io::Result<()> + Send + 'static) -> Result<Recorder> {
        self.start(Closure(sink))
    }

    /// Writes JSON lines, from a thread of its own.
    ///
    /// It may block, so that it need not be asynchronous: a file, a pipe or a socket does as it is, without a buffer. Lines are
    /// written together while they come fast, and a millisecond later when there are no more. After the first error nothing is
    /// written.
    ///
    /// The format is described in the [module](super#the-trace-as-json-lines).
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) if there is no thread to be had.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use asm_tracer::record::Recorder;
    ///
    /// let recorder = Recorder::builder().to_json(std::fs::File::create("trace.jsonl")?)?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "serde")]
    pub fn to_json(self, writer: impl io::Write + Send + 'static) -> Result<Recorder> {
        self.start(super::json::JsonLines::new(writer))
    }

    /// Makes [`spans`](Self::spans) and nothing else: there is no queue, and nothing is dropped.
    #[cfg(feature = "tracing")]
    pub fn to_tracing(self) -> Recorder {
        Recorder::new(self.spans(true).options, None)
    }

    fn start(self, sink: impl Sink) -> Result<Recorder> {
        let queue = Arc::new(Queue::new(self.queue));
        writer::start(Arc::clone(&queue), sink)?;
        Ok(Recorder::new(self.options, Some(queue)))
    }
}
