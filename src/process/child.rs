use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::process::{ExitStatus, Output};
use std::sync::Arc;
use std::task::Poll;

use nix::sys::signal::Signal;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::task::coop::consume_budget;

use super::exec_report::ExecReport;
use crate::error::{Error, Result};
use crate::memory;
use crate::notify::{ChildKey, Lane, Look};
use crate::pidfd::ChildGuard;

/// A supervised program that was started.
///
/// Dropping it kills the program unless it was started with
/// [`kill_on_drop(false)`](crate::Command::kill_on_drop). It is reaped in any case: there are no zombies.
///
/// The calls of the program must be served, by a loop over its [`Listener`](crate::Listener) or
/// [`Supervisor`](crate::Supervisor), while one waits for it here.
#[must_use = "dropping a child kills it, unless kill_on_drop is off"]
pub struct Child {
    /// The pipe to its standard input, if that is [`Stdio::piped`](crate::Stdio::piped).
    pub stdin: Option<ChildStdin>,
    /// The pipe from its standard output, if that is [`Stdio::piped`](crate::Stdio::piped).
    pub stdout: Option<ChildStdout>,
    /// The pipe from its standard error, if that is [`Stdio::piped`](crate::Stdio::piped).
    pub stderr: Option<ChildStderr>,
    guard: ChildGuard,
    key: ChildKey,
    lane: Arc<Lane>,
    exec_report: ExecReport,
}

impl Child {
    pub(super) fn new(guard: ChildGuard, key: ChildKey, lane: Arc<Lane>, exec_report: ExecReport) -> Self {
        Self {
            stdin: None,
            stdout: None,
            stderr: None,
            guard,
            key,
            lane,
            exec_report,
        }
    }

    /// The process id, or `None` once the child has been reaped: the number may mean another process then.
    ///
    /// It is reaped when it has ended and is waited for, here or by the loop that serves its calls.
    pub fn id(&self) -> Option<u32> {
        let process = self.guard.process.get_ref();
        match process.reaped() {
            true => None,
            false => u32::try_from(process.pid().as_raw()).ok(),
        }
    }

    /// What the notifications of this child and its descendants bear; see
    /// [`Notification::child`](crate::Notification::child).
    pub fn key(&self) -> ChildKey {
        self.key
    }

    /// Waits for the program to end, after closing the pipe to its standard input.
    ///
    /// It can be waited for again, and gives the same status. That counts as work of the task, so that a loop over
    /// `select!` in which this is always ready does not keep the runtime from all else.
    ///
    /// # Errors
    ///
    /// [`Error::Spawn`] if the execution was [trapped](crate::Command::trap_initial_exec) and failed.
    /// [`Error::Reaped`] if other code took the exit status away.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the status is kept, and a later `wait` gives it. The pipe stays closed.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        drop(self.stdin.take());
        loop {
            if let Some(ended) = self.try_wait().transpose() {
                // Who goes on to wait for this beside something else, in a loop, leaves the runtime its turn.
                consume_budget().await;
                return ended;
            }
            let mut ready = (self.guard.process.readable().await).map_err(|source| Error::Io {
                operation: "waiting for the child",
                source,
            })?;
            if self.guard.process.get_ref().try_reap()?.is_none() {
                ready.clear_ready();
            }
        }
    }

    /// Gives the exit status if the program has ended.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Self::wait).
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.guard.process.get_ref().try_reap()?;
        status.map(|status| self.exec_report.judge(status)).transpose()
    }

    /// Kills the program without waiting for its end. One that has ended already is just as good.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the kernel refuses, for example because the program changed its user.
    pub fn start_kill(&mut self) -> Result<()> {
        match self.guard.process.get_ref().signal(libc::SIGKILL) {
            Err(Error::Gone) => Ok(()),
            sent => sent,
        }
    }

    /// Kills the program and waits for its end.
    ///
    /// # Errors
    ///
    /// Those of [`start_kill`](Self::start_kill) and [`wait`](Self::wait).
    ///
    /// # Cancel safety
    ///
    /// The signal is sent at the first poll; the wait is cancel safe.
    pub async fn kill(&mut self) -> Result<()> {
        self.start_kill()?;
        self.wait().await.map(drop)
    }

    /// Sends a signal to the program.
    ///
    /// It can't hit another process that got the same pid, since it goes through the pidfd.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`] if the program has ended, [`Error::Io`] if the kernel refuses.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.guard.process.get_ref().signal(signal as i32)
    }

    /// Closes the pipe to the standard input, then reads the other pipes to their ends and waits for the program.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Self::wait), and [`Error::Io`] if a pipe can't be read.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: what was read is lost, and the child is dropped.
    pub async fn wait_with_output(mut self) -> Result<Output> {
        drop(self.stdin.take());
        let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
        let (stdout, stderr) = both(read_all(stdout), read_all(stderr)).await;
        let status = self.wait().await?;
        Ok(Output {
            status,
            stdout: stdout?,
            stderr: stderr?,
        })
    }

    /// Reads the program's memory at `address` into `buffer`, while it runs, and returns how many bytes there were.
    ///
    /// Nothing keeps the program from changing it meanwhile; a frozen thread's view is
    /// [`Notification::read_memory`](crate::Notification::read_memory). Like that, it stalls for as long as a hostile
    /// program likes, and the runtime with it: [`look_at`](Self::look_at) is for programs that are not trusted.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`] if the program has ended, [`Error::Fault`] if not one byte is readable,
    /// [`Error::NoAccess`] without permission, [`Error::Unsupported`] where the kernel can't.
    pub fn read_memory(&self, address: u64, buffer: &mut [u8]) -> Result<usize> {
        self.guard.process.get_ref().read_memory(address, buffer)
    }

    /// Reads up to `length` bytes of the program's memory on another thread, fewer where readable memory ends.
    ///
    /// Only this look stalls if the program makes its memory stall; it is one of those that
    /// [`Notification::look`](crate::Notification::look) describes, and counts together with the looks at the calls of the
    /// program. A length that comes from the program must be bounded.
    ///
    /// # Errors
    ///
    /// Those of [`read_memory`](Self::read_memory), and [`Error::Io`] if there is no memory for so much, no thread to
    /// be had, or if this process was forked from the one in which the look began.
    ///
    /// # Cancel safety
    ///
    /// A look that is dropped is given up, as [`Notification::look`](crate::Notification::look) says.
    pub fn look_at(&self, address: u64, length: usize) -> Look<Vec<u8>> {
        // A thread that stalls is not to keep the process, which is registered with a runtime.
        let process = Arc::downgrade(&self.guard.process);
        Look::new(Arc::clone(&self.lane), move || {
            memory::read_up_to(address, length, |at, buffer| {
                let alive = || process.upgrade().ok_or(Error::Gone);
                let pid = alive()?.get_ref().pid();
                let read = memory::read(pid, at, buffer);
                alive()?.get_ref().validated(at, read)
            })
        })
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("id", &self.id())
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

async fn read_all(pipe: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    if let Some(mut pipe) = pipe {
        let read = pipe.read_to_end(&mut data).await;
        read.map_err(|source| Error::Io {
            operation: "reading a pipe of the child",
            source,
        })?;
    }
    Ok(data)
}

/// Runs two futures to their ends.
async fn both<A: Future, B: Future>(first: A, second: B) -> (A::Output, B::Output) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut one, mut two) = (None, None);
    poll_fn(|cx| {
        if one.is_none() {
            one = ready_value(first.as_mut().poll(cx));
        }
        if two.is_none() {
            two = ready_value(second.as_mut().poll(cx));
        }
        match (one.take(), two.take()) {
            (Some(one), Some(two)) => Poll::Ready((one, two)),
            (unfinished_one, unfinished_two) => {
                (one, two) = (unfinished_one, unfinished_two);
                Poll::Pending
            }
        }
    })
    .await
}

fn ready_value<T>(poll: Poll<T>) -> Option<T> {
    match poll {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
