//! The thread that writes.
//!
//! One of its own, since it waits for as long as the destination likes: the runtime does not wait for it when it shuts down.

use std::io;
use std::sync::Arc;

use nix::sys::signal::{SigmaskHow, pthread_sigmask};

use super::Line;
use super::queue::{Queue, Task};
use crate::error::{Error, Result};
use crate::reaper::all_but_sigsys;
use crate::workers;

/// Where a trace goes.
pub(super) trait Sink: Send + 'static {
    /// How many calls are written at most before they are flushed.
    const BATCH: u64;

    fn write(&mut self, line: Line) -> io::Result<()>;
    fn flush(&mut self) -> io::Result<()>;
}

/// A sink that is the user's code.
pub(super) struct Closure<F>(pub(super) F);

impl<F: FnMut(Line) -> io::Result<()> + Send + 'static> Sink for Closure<F> {
    const BATCH: u64 = 1;

    fn write(&mut self, line: Line) -> io::Result<()> {
        self.0(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts it. It ends when the queue is closed and empty, or the sink fails.
pub(super) fn start(queue: Arc<Queue>, sink: impl Sink) -> Result<()> {
    let thread = std::thread::Builder::new().name("asm_tracer-rec".into());
    let started = thread.spawn(move || {
        // The program's handlers have no business here, and a pipe that nobody reads is an error and no signal.
        let _ = pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&all_but_sigsys()), None);
        serve(&queue, sink);
    });
    started.map(drop).map_err(|source| Error::Io {
        operation: "starting the thread that writes a trace",
        source,
    })
}

fn serve(queue: &Queue, mut sink: impl Sink) {
    let written = workers::caught(|| write(queue, &mut sink));
    let written = written.unwrap_or_else(|| Err(io::Error::other("the destination of the trace panicked")));
    let error = written.err();
    if let Some(error) = &error {
        crate::trace::warning!(%error, "could not write the trace of calls");
    }
    // Before the end is told: a file is closed then.
    workers::caught(|| drop(sink));
    queue.end(error);
}

fn write<S: Sink>(queue: &Queue, sink: &mut S) -> io::Result<()> {
    loop {
        match queue.next(S::BATCH) {
            Task::Write(gap, record) => {
                if let Some(gap) = gap {
                    sink.write(Line::Dropped(gap))?;
                }
                sink.write(Line::Call(record))?;
            }
            Task::Flush => {
                sink.flush()?;
                queue.flushed();
            }
            Task::End(gap, sums) => {
                if let Some(gap) = gap {
                    sink.write(Line::Dropped(gap))?;
                }
                sink.write(Line::End(sums))?;
                return sink.flush();
            }
            Task::Stop => return Ok(()),
        }
    }
}
