//! From a [`Command`] to a running program, with nothing left behind wherever it stops.
//!
//! The order is the same whether a task of a runtime waits for the child or a thread does; [`Wait`] is the difference.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::Command;
use super::exec_report::ExecReport;
use super::handover::{self, Word};
use super::launcher::{self, Started};
use super::plan::Plan;
use super::stdio::{ChildEnd, raised};
use crate::error::{Error, Result, SpawnStep};
use crate::pidfd::{self, Process};

/// What a start needs, opened before there is a child.
pub(super) struct Prepared {
    pub(super) plan: Box<Plan>,
    /// What the child gets, to be closed here once it has it.
    pub(super) child_ends: Vec<ChildEnd>,
    /// What the child speaks over.
    pub(super) socket: Arc<OwnedFd>,
    /// Our ends of the pipes to its standard streams.
    pub(super) pipes: [Option<OwnedFd>; 3],
}

impl Prepared {
    pub(super) fn new(command: &Command) -> Result<Self> {
        let failed = |errno| Error::spawn(SpawnStep::Prepare, errno);
        let open = |number: usize| command.stdio[number].open(number).map_err(failed);
        let streams = [open(0)?, open(1)?, open(2)?];
        let child = streams
            .each_ref()
            .map(|stream| stream.child.as_ref().map(ChildEnd::number));
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
            .and_then(|(ours, theirs)| Ok((ours, raised(theirs)?)))
            .map_err(failed)?;
        let plan = Plan::new(command, child, &theirs)?;
        let mut child_ends = vec![ChildEnd::Owned(theirs)];
        let pipes = streams.map(|stream| {
            child_ends.extend(stream.child);
            stream.ours
        });
        Ok(Self {
            plan,
            child_ends,
            socket: Arc::new(ours),
            pipes,
        })
    }
}

/// What there is to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A word of the child, or its end.
    Word,
    /// Its end.
    End,
}

/// How a start waits: as a task of a runtime, or by blocking its thread.
pub(super) trait Wait {
    fn process(&self) -> &Process;
    fn socket(&self) -> &Arc<OwnedFd>;
    /// Looks now and whenever the event may have happened, until there is something to see.
    async fn until<T>(&self, event: Event, look: impl FnMut() -> Option<T>) -> Result<T>;
}

/// A child on its way to its program. Dropping it kills the child.
pub(super) struct Start<W> {
    started: Started,
    wait: W,
}

impl<W: Wait> Start<W> {
    pub(super) fn new(started: Started, wait: W) -> Self {
        Self { started, wait }
    }

    /// The first thing that the child has to say.
    pub(super) async fn listener(&mut self) -> Result<OwnedFd> {
        match word(&self.wait).await {
            Ok(Word::Listener(listener)) => Ok(listener),
            other => Err(self.failure(other).await),
        }
    }

    /// The last thing, after which it runs its program; unless the execution waits for an answer.
    pub(super) async fn execution(mut self, trapped: bool) -> Result<ExecReport> {
        if trapped {
            // It has a copy of the plan.
            drop(self.started.take_plan());
            return Ok(ExecReport::expected(Arc::clone(self.wait.socket())));
        }
        match word(&self.wait).await {
            // A child that was killed before its exec looks the same from here, and is found by waiting for it.
            Ok(Word::End) => drop(self.started.take_plan()),
            other => return Err(self.failure(other).await),
        }
        Ok(ExecReport::succeeded())
    }

    /// Why there is no program, once the child is dead.
    async fn failure(&mut self, word: Result<Word>) -> Error {
        if word.is_err() {
            // It has more to do, as far as it knows.
            pidfd::kill(self.started.pidfd.as_fd());
        }
        let process = self.wait.process();
        let ended = self.wait.until(Event::End, || process.try_reap().transpose());
        let status = ended.await.and_then(|status| status);
        if !matches!(status, Err(Error::Io { .. })) {
            // It is dead, and uses nothing of ours any more.
            drop(self.started.take_plan());
        }
        match (word, status) {
            (Err(error), _) => error,
            (Ok(Word::Failed(step, errno)), _) => Error::spawn(step, errno),
            (_, Ok(status)) => Error::DiedAtStart { status },
            (_, Err(error)) => error,
        }
    }
}

/// Waits for the next word of the child, or its end.
async fn word(wait: &impl Wait) -> Result<Word> {
    let (process, socket) = (wait.process(), wait.socket());
    let word = wait.until(Event::Word, || {
        // The end first: what the child had said before it is in the socket then.
        let ended = process.ended();
        match handover::receive(socket.as_fd()) {
            // Another process may hold a copy of the child's end.
            Err(Errno::EAGAIN) if ended => Some(Ok(Word::End)),
            Err(Errno::EAGAIN) => None,
            word => Some(word),
        }
    });
    word.await?
        .map_err(|errno| Error::spawn(SpawnStep::Receive, errno))
}

/// The child that the launcher's reply is about; `None` is no reply.
pub(super) fn cloned(reply: Option<Result<Started>>, socket: BorrowedFd<'_>) -> Result<Started> {
    match reply.unwrap_or_else(|| Err(launcher::lost())) {
        // What is left of it is what it said.
        Err(Error::Reaped) => Err(last_failure(socket).unwrap_or(Error::Reaped)),
        started => started,
    }
}

/// Why a child that could not be taken hold of is gone: the step at which it failed, if it said so.
fn last_failure(socket: BorrowedFd<'_>) -> Option<Error> {
    loop {
        match handover::receive(socket) {
            Ok(Word::Listener(_)) => {}
            Ok(Word::Failed(step, errno)) => return Some(Error::spawn(step, errno)),
            Ok(Word::End) | Err(_) => return None,
        }
    }
}
