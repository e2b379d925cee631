use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use syscalls::Sysno;

use super::opened::Opened;
use super::{Answer, RecordedRewrite, Refused};
use crate::notify::{AnswerError, Delivery, InstallFd, Notification, Observed, TrappedSyscall};

/// A call that is being held and recorded.
///
/// It is to be used like the [`Notification`] that it is: it has its methods, and is answered once. The answer ends the
/// record. Dropped unanswered, the call fails with `ENOSYS`, and the record says so.
#[must_use = "a call that is dropped fails with ENOSYS"]
pub struct Recorded {
    // In this order: the call is answered before its record is finished.
    pub(super) call: Notification,
    pub(super) record: Opened,
}

impl Deref for Recorded {
    type Target = Notification;

    fn deref(&self) -> &Notification {
        &self.call
    }
}

/// The answers of a [`Notification`], each of which is recorded.
impl Recorded {
    /// [`Notification::continue_syscall`].
    ///
    /// # Errors
    ///
    /// Those of the method, with the call.
    pub fn continue_syscall(self) -> Result<Delivery, Refused> {
        self.answer(Answer::Continued, Notification::continue_syscall)
    }

    /// [`Notification::respond`].
    ///
    /// # Errors
    ///
    /// Those of the method, with the call.
    pub fn respond(self, value: i64) -> Result<Delivery, Refused> {
        self.answer(Answer::Returned(value), |call| call.respond(value))
    }

    /// [`Notification::error`].
    ///
    /// # Errors
    ///
    /// Those of the method, with the call.
    pub fn error(self, errno: Errno) -> Result<Delivery, Refused> {
        self.answer(Answer::Failed(errno), |call| call.error(errno))
    }

    /// [`Notification::respond_with_fd`].
    ///
    /// # Errors
    ///
    /// Those of the method, with the call.
    pub fn respond_with_fd(self, fd: impl AsFd, options: InstallFd) -> Result<Delivery, Refused> {
        self.answer(Answer::Descriptor, |call| call.respond_with_fd(fd, options))
    }

    /// [`Notification::interrupt`].
    ///
    /// # Errors
    ///
    /// Those of the method, with the call.
    pub fn interrupt(self) -> Result<Delivery, Refused> {
        self.answer(Answer::Interrupted, Notification::interrupt)
    }

    /// [`Notification::continue_with`].
    pub fn continue_with(self, args: [i64; 6]) -> RecordedRewrite {
        let Self { call, record } = self;
        let wanted = TrappedSyscall { nr: call.nr(), args };
        RecordedRewrite::new(call.continue_with(args), wanted, record)
    }

    /// [`Notification::continue_as`].
    pub fn continue_as(self, sysno: Sysno, args: [i64; 6]) -> RecordedRewrite {
        let Self { call, record } = self;
        let nr = i64::from(sysno.id());
        RecordedRewrite::new(call.continue_as(sysno, args), TrappedSyscall { nr, args }, record)
    }

    /// [`Notification::continue_and_observe`], of which the result is recorded too.
    ///
    /// While the call runs, which may take long, its record has no place in the queue. It takes one when the call has
    /// returned, for which it waits as others do.
    ///
    /// # Errors
    ///
    /// Those of the method, with the call.
    ///
    /// # Cancel safety
    ///
    /// That of [`Observe`](crate::Observe). The record says that the call was dropped.
    pub async fn continue_and_observe(self) -> Result<Observed, Refused> {
        let Self { call, record } = self;
        super::rewrite::observe(call.continue_and_observe(), Answer::Continued, record).await
    }

    /// Has other code answer: an emulation of [`emulate`](crate::emulate), a
    /// [blocking call that is served](Notification::serve_blocking), a function of one's own.
    ///
    /// How it did is not known here, so that the record says [`Answer::Elsewhere`], or [`Answer::Gone`].
    ///
    /// # Errors
    ///
    /// Those of the closure, with the call.
    ///
    /// # Cancel safety
    ///
    /// That of the closure's future. The record says that the call was dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// use asm_tracer::emulate::Open;
    ///
    /// # async fn handle(call: asm_tracer::record::Recorded) -> asm_tracer::Result<()> {
    /// match Open::read(&call).await? {
    ///     Some(open) => call.answer_with(|call| open.answer(call)).await?,
    ///     None => call.continue_syscall()?,
    /// };
    /// # Ok(())
    /// # }
    /// ```
    pub async fn answer_with<F>(self, with: impl FnOnce(Notification) -> F) -> Result<Delivery, Refused>
    where
        F: Future<Output = Result<Delivery, AnswerError>>,
    {
        let Self { call, record } = self;
        let outcome = with(call).await;
        let held = record.held();
        answered(outcome, held, Answer::Elsewhere, record)
    }

    /// The span of the call, to be entered or to be the parent of others. It is disabled without
    /// [`Builder::spans`](super::Builder::spans).
    #[cfg(feature = "tracing")]
    pub fn span(&self) -> &tracing::Span {
        &self.record.span.0
    }

    fn answer(
        self,
        answer: Answer,
        with: impl FnOnce(Notification) -> Result<Delivery, AnswerError>,
    ) -> Result<Delivery, Refused> {
        let Self { call, record } = self;
        // The answer itself may hand the CPU over to the target.
        let held = record.held();
        answered(with(call), held, answer, record)
    }
}

pub(super) fn answered(
    outcome: Result<Delivery, AnswerError>,
    held: Duration,
    answer: Answer,
    record: Opened,
) -> Result<Delivery, Refused> {
    match outcome {
        Ok(delivery) => {
            let answer = if delivery.is_delivered() {
                answer
            } else {
                Answer::Gone
            };
            record.finish(held, answer);
            Ok(delivery)
        }
        Err(refused) => Err(Refused::new(refused, record)),
    }
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recorded").field(&self.call).finish()
    }
}
