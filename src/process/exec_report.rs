use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;

use super::handover::{self, Word};
use crate::error::{Error, Result, SpawnStep};

/// Where a trapped execution says that it failed, and what it said.
///
/// An execution that was not trapped has succeeded by the time that there is one of these, and says nothing more.
#[derive(Debug)]
pub(crate) struct ExecReport(Mutex<State>);

#[derive(Debug)]
enum State {
    /// The socket over which the child was started.
    Open(Arc<OwnedFd>),
    Read(Option<Errno>),
}

impl ExecReport {
    pub(super) fn succeeded() -> Self {
        Self(Mutex::new(State::Read(None)))
    }

    pub(super) fn expected(socket: Arc<OwnedFd>) -> Self {
        Self(Mutex::new(State::Open(socket)))
    }

    /// What the end of a child means: its status, unless it never became its program.
    pub(crate) fn judge(&self, status: ExitStatus) -> Result<ExitStatus> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failure = match &*state {
            State::Open(socket) => match handover::receive(socket.as_fd()) {
                Ok(Word::Failed(_, errno)) => Some(errno),
                _ => None,
            },
            State::Read(failure) => *failure,
        };
        *state = State::Read(failure);
        match failure {
            Some(errno) => Err(Error::spawn(SpawnStep::Exec, errno)),
            None => Ok(status),
        }
    }
}
