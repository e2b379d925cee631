//! A start that blocks its thread, without a runtime.

use std::future::Future;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::task::{Context, Poll, Waker};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Command;
use super::exec_report::ExecReport;
use super::launcher;
use super::start::{Event, Prepared, Start, Wait, cloned};
use crate::error::{Error, Result};
use crate::pidfd::{KillOnDrop, Process};

/// A program that runs, or whose trapped execution waits for its answer.
pub(crate) struct Running<T> {
    pub(crate) guard: KillOnDrop,
    pub(crate) exec_report: ExecReport,
    /// Our ends of the pipes to its standard streams.
    pub(crate) pipes: [Option<OwnedFd>; 3],
    /// What became of the listener.
    pub(crate) served: T,
}

/// Starts a program. `serve` gets its listener before it runs.
pub(crate) fn spawn_blocking<T>(
    command: &mut Command,
    serve: impl FnOnce(OwnedFd, KillOnDrop) -> T,
) -> Result<Running<T>> {
    let prepared = Prepared::new(command)?;
    let (reply, started) = sync_channel(1);
    launcher::launch(prepared.plan, prepared.child_ends, move |started| {
        drop(reply.send(started));
    })?;
    let started = cloned(started.recv().ok(), prepared.socket.as_fd())?;
    let process = Arc::new(Process::new(started.pid, Arc::clone(&started.pidfd)));
    let wait = OnThread {
        socket: prepared.socket,
        process: Arc::clone(&process),
    };
    let mut start = Start::new(started, wait);
    let listener = finish(start.listener())?;
    let guard = || KillOnDrop {
        process: Arc::clone(&process),
        enabled: command.kill_on_drop,
    };
    let served = serve(listener, guard());
    let exec_report = finish(start.execution(command.trap_initial_exec))?;
    Ok(Running {
        guard: guard(),
        exec_report,
        pipes: prepared.pipes,
        served,
    })
}

struct OnThread {
    socket: Arc<OwnedFd>,
    process: Arc<Process>,
}

impl Wait for OnThread {
    fn process(&self) -> &Process {
        &self.process
    }

    fn socket(&self) -> &Arc<OwnedFd> {
        &self.socket
    }

    /// Never pending.
    async fn until<T>(&self, event: Event, mut look: impl FnMut() -> Option<T>) -> Result<T> {
        loop {
            if let Some(seen) = look() {
                return Ok(seen);
            }
            let process = PollFd::new(self.process.as_fd(), PollFlags::POLLIN);
            let waited = match event {
                // The socket of a child that is about to end says so all the time.
                Event::End => poll(&mut [process], PollTimeout::NONE),
                Event::Word => {
                    let socket = PollFd::new(self.socket.as_fd(), PollFlags::POLLIN);
                    poll(&mut [process, socket], PollTimeout::NONE)
                }
            };
            match waited {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::os("waiting for the child", errno)),
            }
        }
    }
}

/// Runs a future whose waits block.
fn finish<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("a wait that blocks is never pending"),
    }
}
