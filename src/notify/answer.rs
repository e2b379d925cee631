//! The answers: each takes the notification by value, so there is exactly one.

use std::fmt;
use std::os::fd::AsFd;

use nix::errno::Errno;

use super::uapi::{self, Response};
use super::{Notification, Source};
use crate::error::Error;

/// Whether an answer reached its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// The target takes the answer.
    Delivered,
    /// The target no longer waited: it died, or a signal took the call back. This is ordinary.
    Gone,
}

impl Delivery {
    /// Tells whether the target takes the answer.
    pub fn is_delivered(self) -> bool {
        self == Self::Delivered
    }
}

/// An answer that was refused, with the notification, which still waits for one.
#[must_use = "dropping it answers the call with ENOSYS"]
pub struct AnswerError {
    /// Why the answer was refused.
    pub error: Error,
    /// The call, still to be answered.
    pub notification: Box<Notification>,
}

impl fmt::Debug for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerError")
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for AnswerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl From<AnswerError> for Error {
    /// Gives up the call, which is answered with `ENOSYS`.
    fn from(refused: AnswerError) -> Self {
        refused.error
    }
}

impl From<AnswerError> for std::io::Error {
    fn from(refused: AnswerError) -> Self {
        refused.error.into()
    }
}

/// What an unanswered call fails with: "this system call does not exist", which no program takes for success.
const UNANSWERED: Errno = Errno::ENOSYS;

impl Notification {
    /// Lets the kernel run the call as the target made it.
    ///
    /// # Errors
    ///
    /// Only if the kernel refuses the `ioctl(2)` itself, for example under a filter of the supervisor's own.
    ///
    /// # Security
    ///
    /// Not a security decision where pointers are involved: see [`Notification`]'s `Security` section.
    ///
    /// # Kernel support
    ///
    /// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`, since Linux 5.5.
    ///
    /// # Examples
    ///
    /// ```
    /// # async fn serve(mut supervisor: asm_tracer::Supervisor) -> asm_tracer::Result<()> {
    /// while let Some(call) = supervisor.next().await {
    ///     println!("{:?}", call.sysno());
    ///     call.continue_syscall()?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn continue_syscall(self) -> Result<Delivery, AnswerError> {
        let response = continuing(self.id);
        self.answer(response)
    }

    /// Makes the call return `value` without running it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidAnswer`] for −4095..=−1, which the target would take for an errno: use [`error`](Self::error).
    /// The notification comes back in the error.
    pub fn respond(self, value: i64) -> Result<Delivery, AnswerError> {
        if (-4095..=-1).contains(&value) {
            let why = "a return value of -4095..=-1 is an errno to the target; use `error(errno)`";
            return Err(self.refuse(Error::InvalidAnswer(why)));
        }
        self.respond_raw(value)
    }

    /// Makes the call fail with `errno` without running it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidAnswer`] for [`Errno::UnknownErrno`], which stands for no error at all. The notification
    /// comes back in the error.
    pub fn error(self, errno: Errno) -> Result<Delivery, AnswerError> {
        // The kernel takes a positive `error` for a return value (T15); 0 would be a success.
        if errno as i32 <= 0 {
            return Err(self.refuse(Error::InvalidAnswer("errno 0 is no error; use `respond(0)`")));
        }
        let response = Response {
            id: self.id,
            value: 0,
            error: -(errno as i32),
            flags: 0,
        };
        self.answer(response)
    }

    /// Puts `value` into the target's result register as it is: −4095..=−1 is an errno to the target.
    pub(crate) fn respond_raw(self, value: i64) -> Result<Delivery, AnswerError> {
        let response = Response {
            id: self.id,
            value,
            error: 0,
            flags: 0,
        };
        self.answer(response)
    }

    pub(super) fn answer(mut self, response: Response) -> Result<Delivery, AnswerError> {
        match deliver(&self.source, response) {
            Ok(delivery) => {
                self.answered = true;
                Ok(delivery)
            }
            Err(errno) => Err(self.refuse(Error::os("answering the call", errno))),
        }
    }

    pub(super) fn refuse(self, error: Error) -> AnswerError {
        AnswerError {
            error,
            notification: Box::new(self),
        }
    }
}

impl Drop for Notification {
    fn drop(&mut self) {
        if !self.answered && !self.source.leave_to_server(self.id) {
            refuse_unanswered(&self.source, self.id);
        }
    }
}

/// Answers a call that nobody answered.
pub(super) fn refuse_unanswered(source: &Source, id: u64) {
    answer_unseen(
        source,
        Response {
            id,
            value: 0,
            error: -(UNANSWERED as i32),
            flags: 0,
        },
    );
}

/// Lets a call run that has been decided about before.
pub(super) fn continue_unseen(source: &Source, id: u64) {
    answer_unseen(source, continuing(id));
}

/// Answers where there is nobody to tell of a failure.
fn answer_unseen(source: &Source, response: Response) {
    // The target can only be left to its supervisor's death or to the closing of the listener.
    if let Err(errno) = deliver(source, response) {
        crate::trace::warning!(%errno, "could not answer a call");
    }
}

fn continuing(id: u64) -> Response {
    Response {
        id,
        value: 0,
        error: 0,
        flags: uapi::FLAG_CONTINUE,
    }
}

pub(super) fn deliver(source: &Source, response: Response) -> Result<Delivery, Errno> {
    match uapi::send(source.as_fd(), response) {
        Ok(()) => Ok(Delivery::Delivered),
        Err(Errno::ENOENT | Errno::EINPROGRESS) => Ok(Delivery::Gone),
        Err(errno) => Err(errno),
    }
}
