//! A start as a task of a runtime.

use std::future::poll_fn;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::oneshot;

use super::launcher;
use super::start::{Event, Prepared, Start, Wait, cloned};
use super::{Child, Command};
use crate::error::{Error, Result};
use crate::notify::{Channel, Listener, Source};
use crate::pidfd::{ChildGuard, Process, register};

pub(super) async fn spawn(command: &mut Command) -> Result<(Child, Listener)> {
    let prepared = Prepared::new(command)?;
    // What can fail fails before there is a child.
    let socket = register(prepared.socket, Interest::READABLE)?;
    let [stdin, stdout, stderr] = prepared.pipes;
    let stdin = piped(stdin, |fd| ChildStdin::from_std(fd.into()))?;
    let stdout = piped(stdout, |fd| ChildStdout::from_std(fd.into()))?;
    let stderr = piped(stderr, |fd| ChildStderr::from_std(fd.into()))?;

    let (reply, started) = oneshot::channel();
    // A caller that has gone away has the child killed: it is dropped with the answer.
    launcher::launch(prepared.plan, prepared.child_ends, move |started| {
        drop(reply.send(started));
    })?;
    let started = cloned(started.await.ok(), socket.get_ref().as_fd())?;
    let process = Process::new(started.pid, Arc::clone(&started.pidfd));
    let process = Arc::new(register(process, Interest::READABLE)?);
    let guard = || ChildGuard {
        process: Arc::clone(&process),
        kill_on_drop: command.kill_on_drop,
    };
    let wait = InRuntime {
        socket,
        process: Arc::clone(&process),
    };
    let mut start = Start::new(started, wait);
    let listener = start.listener().await?;
    // Before the program runs: a failure still ends the child, whatever is to happen to it later.
    let channel = Channel::new(Source::new(listener), Some(guard()))?;
    let exec_report = start.execution(command.trap_initial_exec).await?;
    let mut child = Child::new(guard(), channel.key(), channel.lane(), exec_report);
    (child.stdin, child.stdout, child.stderr) = (stdin, stdout, stderr);
    Ok((child, Listener::new(channel)))
}

fn piped<T>(fd: Option<OwnedFd>, register: impl FnOnce(OwnedFd) -> std::io::Result<T>) -> Result<Option<T>> {
    fd.map(register).transpose().map_err(|source| Error::Io {
        operation: "registering a pipe",
        source,
    })
}

struct InRuntime {
    socket: AsyncFd<Arc<OwnedFd>>,
    process: Arc<AsyncFd<Process>>,
}

impl Wait for InRuntime {
    fn process(&self) -> &Process {
        self.process.get_ref()
    }

    fn socket(&self) -> &Arc<OwnedFd> {
        self.socket.get_ref()
    }

    async fn until<T>(&self, event: Event, mut look: impl FnMut() -> Option<T>) -> Result<T> {
        poll_fn(|cx| {
            if let Some(seen) = look() {
                return Poll::Ready(Ok(seen));
            }
            loop {
                let mut polled = poll_look(&self.process, cx, &mut look)?;
                if polled.is_pending() && event == Event::Word {
                    polled = poll_look(&self.socket, cx, &mut look)?;
                }
                if let Some(seen) = ready!(polled) {
                    return Poll::Ready(Ok(seen));
                }
            }
        })
        .await
    }
}

/// Looks once the descriptor is said to be readable, and no more takes it for that if there was nothing to see.
fn poll_look<F: AsRawFd, T>(
    fd: &AsyncFd<F>,
    cx: &mut Context<'_>,
    look: &mut impl FnMut() -> Option<T>,
) -> Result<Poll<Option<T>>> {
    let Poll::Ready(readable) = fd.poll_read_ready(cx) else {
        return Ok(Poll::Pending);
    };
    let mut readable = readable.map_err(|source| Error::Io {
        operation: "waiting for the child",
        source,
    })?;
    let seen = look();
    if seen.is_none() {
        readable.clear_ready();
    }
    Ok(Poll::Ready(seen))
}
