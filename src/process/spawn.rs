//! From a [`Command`] to a running program, with nothing left behind wherever it stops.

use std::future::poll_fn;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};

use super::handover::{self, Word};
use super::launcher::{Started, launch};
use super::plan::Plan;
use super::stdio::{ChildEnd, Stream, raised};
use super::{Child, Command};
use crate::error::{Error, Result, SpawnStep};
use crate::notify::{Channel, Listener, Source};
use crate::pidfd::{self, ChildGuard, Process, register};
use crate::reaper::{self, Orphan};

pub(super) async fn spawn(command: &mut Command) -> Result<(Child, Listener)> {
    let (prepared, plan, child_ends) = prepare(command)?;
    match launch(plan, child_ends).await {
        Ok(started) => prepared.finish(started, command).await,
        // What is left of it is what it said.
        Err(Error::Reaped) => Err(prepared.last_failure().unwrap_or(Error::Reaped)),
        Err(error) => Err(error),
    }
}

/// What this side of the start holds while the child is on its way.
struct Prepared {
    socket: AsyncFd<Arc<OwnedFd>>,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
}

/// Opens and registers everything, so that what can fail fails before there is a child.
fn prepare(command: &Command) -> Result<(Prepared, Box<Plan>, Vec<ChildEnd>)> {
    let failed = |errno| Error::spawn(SpawnStep::Prepare, errno);
    let open = |number: usize| command.stdio[number].open(number).map_err(failed);
    let streams = [open(0)?, open(1)?, open(2)?];
    let child = streams
        .each_ref()
        .map(|stream| stream.child.as_ref().map(ChildEnd::number));
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .and_then(|(ours, theirs)| Ok((ours, raised(theirs)?)))
    .map_err(failed)?;
    let plan = Plan::new(command, child, &theirs)?;
    let [stdin, stdout, stderr] = streams;
    let mut child_ends = vec![ChildEnd::Owned(theirs)];
    let mut split = |stream: Stream| {
        child_ends.extend(stream.child);
        stream.ours
    };
    let (stdin, stdout, stderr) = (split(stdin), split(stdout), split(stderr));
    let prepared = Prepared {
        socket: register(Arc::new(ours), Interest::READABLE)?,
        stdin: piped(stdin, |fd| ChildStdin::from_std(fd.into()))?,
        stdout: piped(stdout, |fd| ChildStdout::from_std(fd.into()))?,
        stderr: piped(stderr, |fd| ChildStderr::from_std(fd.into()))?,
    };
    Ok((prepared, plan, child_ends))
}

fn piped<T>(fd: Option<OwnedFd>, register: impl FnOnce(OwnedFd) -> std::io::Result<T>) -> Result<Option<T>> {
    fd.map(register).transpose().map_err(|source| Error::Io {
        operation: "registering a pipe",
        source,
    })
}

impl Prepared {
    /// Follows the child until it runs its program or has failed.
    async fn finish(self, started: Started, command: &Command) -> Result<(Child, Listener)> {
        let process = register(
            Process::new(started.pid, Arc::clone(&started.pidfd)),
            Interest::READABLE,
        )?;
        let listener = match self.word(&process).await {
            Ok(Word::Listener(listener)) => listener,
            other => return Err(self.failure(other, started, &process).await),
        };
        let process = Arc::new(process);
        let guard = || ChildGuard {
            process: Arc::clone(&process),
            kill_on_drop: command.kill_on_drop,
        };
        // Before the program runs: a failure still ends the child, whatever is to happen to it later.
        let channel = Channel::new(Source::new(listener), Some(guard()))?;
        let socket = Arc::clone(self.socket.get_ref());
        let exec_report = if command.trap_initial_exec {
            // The plan is in use until the exec, which waits for its answer.
            if let Some(plan) = started.into_plan() {
                reaper::adopt(Orphan::memory(Arc::clone(&socket), plan));
            }
            Some(socket)
        } else {
            match self.word(&process).await {
                // A child that was killed before its exec looks the same from here, and is found by `wait`.
                Ok(Word::End) => drop(started.into_plan()),
                other => return Err(self.failure(other, started, &process).await),
            }
            None
        };
        let mut child = Child::new(guard(), channel.key(), exec_report);
        (child.stdin, child.stdout, child.stderr) = (self.stdin, self.stdout, self.stderr);
        Ok((child, Listener::new(channel)))
    }

    /// The step at which a child failed that is gone already, if it failed at one.
    fn last_failure(&self) -> Option<Error> {
        loop {
            match handover::receive(self.socket.get_ref().as_fd()) {
                Ok(Word::Listener(_)) => {}
                Ok(Word::Failed(step, errno)) => return Some(Error::spawn(step, errno)),
                Ok(Word::End) | Err(_) => return None,
            }
        }
    }

    /// Waits for the next word of the child, or its death.
    async fn word(&self, process: &AsyncFd<Process>) -> Result<Word> {
        poll_fn(|cx| self.poll_word(process, cx))
            .await
            .map_err(|errno| Error::spawn(SpawnStep::Receive, errno))
    }

    fn poll_word(&self, process: &AsyncFd<Process>, cx: &mut Context<'_>) -> Poll<Result<Word, Errno>> {
        loop {
            // The death first: what the child had said before it is in the socket then.
            let died = process.poll_read_ready(cx).is_ready();
            match handover::receive(self.socket.get_ref().as_fd()) {
                // Another process may hold a copy of the child's end.
                Err(Errno::EAGAIN) if died => return Poll::Ready(Ok(Word::End)),
                Err(Errno::EAGAIN) => {}
                word => return Poll::Ready(word),
            }
            match self.socket.poll_read_ready(cx) {
                Poll::Ready(Ok(mut ready)) => ready.clear_ready(),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Errno::ECANCELED)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Why there is no program, once the child is dead.
    async fn failure(&self, word: Result<Word>, started: Started, process: &AsyncFd<Process>) -> Error {
        if word.is_err() {
            // It has more to do, as far as it knows.
            pidfd::kill(started.pidfd.as_fd());
        }
        let status = loop {
            match process.get_ref().try_reap() {
                Ok(Some(status)) => break Ok(status),
                Err(error) => break Err(error),
                Ok(None) => {}
            }
            match process.readable().await {
                Ok(mut ready) if matches!(process.get_ref().try_reap(), Ok(None)) => ready.clear_ready(),
                Ok(_) => {}
                Err(source) => {
                    break Err(Error::Io {
                        operation: "waiting for the child",
                        source,
                    });
                }
            }
        };
        if !matches!(status, Err(Error::Io { .. })) {
            // It is dead, and uses nothing of ours any more.
            drop(started.into_plan());
        }
        match (word, status) {
            (Err(error), _) => error,
            (Ok(Word::Failed(step, errno)), _) => Error::spawn(step, errno),
            (_, Ok(status)) => Error::DiedAtStart { status },
            (_, Err(error)) => error,
        }
    }
}

/// The exec's failure, if the child has reported one.
pub(super) fn exec_failure(socket: &OwnedFd) -> Option<Errno> {
    match handover::receive(socket.as_fd()) {
        Ok(Word::Failed(_, errno)) => Some(errno),
        _ => None,
    }
}
