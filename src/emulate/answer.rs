//! Ending an emulated call.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use nix::errno::Errno;

use super::opened::Opened;
use crate::bound::Bound;
use crate::error::{Error, Result};
use crate::kernel::KernelSupport;
use crate::notify::{AnswerError, Delivery, InstallFd, Interruption, Notification};

/// How the emulation ended.
pub(super) enum End<T> {
    Done(T),
    Interrupted(Interruption),
}

impl<T> End<T> {
    pub(super) fn map<U>(self, with: impl FnOnce(T) -> U) -> End<U> {
        match self {
            Self::Done(done) => End::Done(with(done)),
            Self::Interrupted(interruption) => End::Interrupted(interruption),
        }
    }
}

/// What a signal does to work that is under way.
pub(super) enum Hurry {
    /// Nothing: the work is not one that the kernel would interrupt, or has not come to that.
    None,
    /// The work comes to an end by itself: with `EINTR`, or with what it had come to already.
    Ends,
    /// There is nothing in it yet to wait for.
    Drop,
}

/// Does the work until a signal interrupts it, or the target is gone.
pub(super) async fn unless_interrupted<T>(
    call: &Notification,
    work: impl Future<Output = Result<T, Errno>>,
    hurry: impl Fn() -> Hurry,
) -> Result<End<Result<T, Errno>>> {
    let mut work = pin!(work);
    loop {
        let mut interrupted = call.interrupted();
        let end = poll_fn(|cx| {
            if let Poll::Ready(result) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(End::Done(result)));
            }
            Pin::new(&mut interrupted).poll(cx).map_ok(End::Interrupted)
        });
        let interruption = match end.await? {
            End::Interrupted(interruption) => interruption,
            done => return Ok(done),
        };
        match hurry() {
            Hurry::Ends => {
                return Ok(match work.await {
                    Err(Errno::EINTR) => End::Interrupted(interruption),
                    done => End::Done(done),
                });
            }
            // It has to wait until the work is done, as it would if the kernel did it.
            Hurry::None if interruption == Interruption::Signal => {}
            Hurry::None | Hurry::Drop => return Ok(End::Interrupted(interruption)),
        }
    }
}

/// Answers with a descriptor or an errno.
pub(super) async fn with_fd(
    call: Notification,
    bound: &Bound,
    end: Result<End<Result<Opened, Errno>>>,
    install: InstallFd,
) -> Result<Delivery, AnswerError> {
    match end {
        Ok(End::Done(Ok(opened))) => hand_over(call, bound, opened, install).await,
        end => with_value(call, end.map(|end| end.map(|done| done.map(|_| 0)))),
    }
}

/// Gives the target a descriptor so that it is the only one who has it.
///
/// As long as this process has it as well, the target would notice: the file can't be executed if it was opened to be
/// written, its locks stay, a FIFO has two ends. So it is closed before the target goes on, which takes two steps. Where
/// a signal can take the call back in between, leaving a descriptor that nobody knows, it is done in one.
pub(super) async fn hand_over(
    call: Notification,
    bound: &Bound,
    opened: Opened,
    install: InstallFd,
) -> Result<Delivery, AnswerError> {
    let Some(fd) = opened.as_fd() else {
        return call.error(Errno::EBADF);
    };
    if !KernelSupport::get().wait_killable {
        return match call.respond_with_fd(fd, install) {
            Err(AnswerError {
                error: Error::InstallFd { source, .. },
                notification,
            }) => notification.error(source),
            answered => answered,
        };
    }
    match call.install_fd(fd, install) {
        Ok(number) => {
            opened.close(bound).await;
            call.respond(number.as_raw().into())
        }
        Err(Error::InstallFd { source, .. }) => call.error(source),
        // Nobody hears it.
        Err(Error::Gone) => call.error(Errno::EINTR),
        Err(error) => Err(AnswerError {
            error,
            notification: Box::new(call),
        }),
    }
}

/// Answers with a value or an errno.
pub(super) fn with_value(
    call: Notification,
    end: Result<End<Result<i64, Errno>>>,
) -> Result<Delivery, AnswerError> {
    match end {
        Ok(End::Done(Ok(value))) => call.respond(value),
        Ok(End::Done(Err(errno))) => call.error(errno),
        Ok(End::Interrupted(Interruption::Signal)) => call.interrupt(),
        Ok(End::Interrupted(_)) => {
            // Nobody hears it.
            call.error(Errno::EINTR)
        }
        Err(error) => Err(AnswerError {
            error,
            notification: Box::new(call),
        }),
    }
}
