//! Learning that a signal wants the target back, and ending the call as the kernel would.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use nix::errno::Errno;

use super::signals::Signals;
use super::uapi::Response;
use super::watch::Watch;
use super::{AnswerError, Delivery, Notification};
use crate::error::{Error, Result};

/// Why there is no point in waiting any longer on the target's behalf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Interruption {
    /// The target no longer waits for the answer: it died, or a signal took the call back.
    Gone,
    /// A signal waits until the call is answered.
    Signal,
}

/// The future of an interruption; see [`Notification::interrupted`].
#[derive(Debug)]
#[must_use = "futures do nothing unless you await or poll them"]
pub struct Interrupted<'a> {
    call: &'a Notification,
    /// From the first poll on.
    watch: Option<Watch>,
    /// What waited at the last look for any thread of the process.
    shared: u64,
}

/// Emulating calls that block.
///
/// A supervisor that waits for something in the target's place holds back the target's signals: in a child that was started
/// with [`wait_killable`](crate::Command::wait_killable), as they are by default, a thread whose call was received takes
/// none before the answer, except for those that kill. So the supervisor has to notice that one is there, and to end the
/// call, as the kernel would have ended its own. Without that protection the kernel takes the call back itself, and the target
/// is gone.
///
/// No event says that a signal waits. It is looked for in `/proc`, first after a millisecond, then less and less often, in
/// the end every 20 ms. Each call that is waited for holds two descriptors of this process meanwhile.
///
/// Looked for are signals that the thread does not block, and that it catches, or that would stop or end it. One that
/// was sent to a process of several threads counts once it waits at two looks in a row, because the kernel may have given it to
/// another thread.
///
/// A process stops (`SIGSTOP`, Control-Z) when all of its threads do, so a frozen one has to be answered for that. It is
/// noticed where the signal waits for this thread, or where the thread that leads the process has taken it. Where yet
/// another thread has, the process stops, and `waitpid(2)` says so, only after the next answer. Not noticed either is a
/// mask that the call itself would set, such as that of `ppoll(2)`.
///
/// # Security
///
/// A hostile target can have as many calls waited for as it has threads, unless its supervisor answers those beyond
/// some number at once, or limits the threads.
impl Notification {
    /// Waits until a signal waits for the answer, or the target is gone.
    ///
    /// The call can then be ended with [`interrupt`](Self::interrupt), or with
    /// [`error(Errno::EINTR)`](Self::error) for calls that are never restarted.
    ///
    /// # Errors
    ///
    /// [`Error::NoRuntime`] outside of a Tokio runtime, [`Error::Io`] if this process has no descriptor left or `/proc` is
    /// not there or hides the target, [`Error::UnknownPid`] for a target that can't be seen from here.
    ///
    /// # Panics
    ///
    /// If the Tokio runtime has no I/O driver (`enable_io`).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// # use asm_tracer::{InstallFd, Interruption, Notification, Result};
    /// # async fn accept(call: Notification, listener: tokio::net::TcpListener) -> std::io::Result<()> {
    /// // In the place of the target's own accept(2), with a listener of this process.
    /// tokio::select! {
    ///     accepted = listener.accept() => {
    ///         let connection = accepted?.0.into_std()?;
    ///         // The target shares the flag, and expects to block.
    ///         connection.set_nonblocking(false)?;
    ///         call.respond_with_fd(connection, InstallFd::new())?;
    ///     }
    ///     interruption = call.interrupted() => if interruption? == Interruption::Signal {
    ///         call.interrupt()?;
    ///     },
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn interrupted(&self) -> Interrupted<'_> {
        Interrupted {
            call: self,
            watch: None,
            shared: 0,
        }
    }

    /// Ends the call as the kernel ends a blocking call of its own for a signal (`ERESTARTSYS`).
    ///
    /// If the signal has a handler, that runs, and the call then fails with `EINTR`, or is made again if the handler was
    /// installed with `SA_RESTART`. If the signal stops the target, it stops, and makes the call again when it is continued.
    /// A call that is made again comes as a new notification. `signal(7)` lists the calls that are never restarted, such as
    /// `poll(2)`: end these with [`error(Errno::EINTR)`](Self::error).
    ///
    /// Where it is not certain that a signal waits for this very thread (there is none, or it was sent to a
    /// process of several threads), the call fails with `EINTR`.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownPid`] for a target that can't be seen from here, [`Error::Io`] if `/proc` hides it. The
    /// notification comes back in the error.
    #[doc(alias = "ERESTARTSYS")]
    pub fn interrupt(self) -> Result<Delivery, AnswerError> {
        let error = match self.signals() {
            // Without a signal to handle on its way out, the program would see the number itself (T15).
            Ok(signals) if signals.surely_interrupt() => ERESTARTSYS,
            Ok(_) => Errno::EINTR as i32,
            Err(Error::Gone) => Errno::EINTR as i32,
            Err(error) => return Err(self.refuse(error)),
        };
        let response = Response {
            id: self.id,
            value: 0,
            error: -error,
            flags: 0,
        };
        self.answer(response)
    }

    /// Answers with what `work` gives, which waits for something in the target's place; or with `EINTR` as soon as a
    /// signal waits; or gives up when the target is gone.
    ///
    /// `work` is dropped in the latter two cases. If it is ready at the same time as the signal, its result counts. A target
    /// that a signal stops (`SIGSTOP`, or Control-Z) sees `EINTR` too, once it is continued; the kernel itself would restart
    /// most calls then, as [`serve_restartable`](Self::serve_restartable) does.
    ///
    /// # Errors
    ///
    /// Those of [`interrupted`](Self::interrupted), and of [`respond`](Self::respond) or [`error`](Self::error) for a
    /// result that is no answer. The notification comes back in the error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops `work` and answers the call with `ENOSYS`, as dropping a notification does.
    ///
    /// # Examples
    ///
    /// ```
    /// # use asm_tracer::{Notification, Result};
    /// # use std::time::Duration;
    /// # async fn nanosleep(call: Notification) -> Result<()> {
    /// let [seconds, nanoseconds]: [u64; 2] = call.read_value(call.args()[0] as u64)?;
    /// let duration = Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds);
    /// call.serve_blocking(async {
    ///     tokio::time::sleep(duration).await;
    ///     Ok(0)
    /// })
    /// .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn serve_blocking(
        self,
        work: impl Future<Output = Result<i64, Errno>>,
    ) -> Result<Delivery, AnswerError> {
        let end = self.until_interrupted(work).await;
        self.conclude(end, |call| call.error(Errno::EINTR))
    }

    /// The same for calls that the kernel restarts after a signal whose handler was installed with `SA_RESTART`, or
    /// that has no handler: it is ended by [`interrupt`](Self::interrupt).
    ///
    /// `work` is dropped then, and the call comes as a new notification.
    ///
    /// # Errors
    ///
    /// Those of [`serve_blocking`](Self::serve_blocking).
    ///
    /// # Cancel safety
    ///
    /// That of [`serve_blocking`](Self::serve_blocking).
    pub async fn serve_restartable(
        self,
        work: impl Future<Output = Result<i64, Errno>>,
    ) -> Result<Delivery, AnswerError> {
        let end = self.until_interrupted(work).await;
        self.conclude(end, Self::interrupt)
    }

    async fn until_interrupted<T>(&self, work: impl Future<Output = T>) -> Result<End<T>> {
        let (mut work, mut interrupted) = (pin!(work), self.interrupted());
        poll_fn(|cx| {
            if let Poll::Ready(result) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(End::Done(result)));
            }
            Pin::new(&mut interrupted).poll(cx).map_ok(End::Interrupted)
        })
        .await
    }

    fn conclude(
        mut self,
        end: Result<End<Result<i64, Errno>>>,
        interrupt: impl FnOnce(Self) -> Result<Delivery, AnswerError>,
    ) -> Result<Delivery, AnswerError> {
        match end {
            Ok(End::Done(Ok(value))) => self.respond(value),
            Ok(End::Done(Err(errno))) => self.error(errno),
            Ok(End::Interrupted(Interruption::Signal)) => interrupt(self),
            Ok(End::Interrupted(Interruption::Gone)) => {
                self.answered = true;
                Ok(Delivery::Gone)
            }
            Err(error) => Err(self.refuse(error)),
        }
    }

    /// What waits for the thread at this moment.
    fn signals(&self) -> Result<Signals> {
        let signals = Signals::of(self.target()?);
        // What was read is about the frozen thread only if it is frozen still.
        self.check_pending()?;
        signals
    }
}

enum End<T> {
    Done(T),
    Interrupted(Interruption),
}

/// The kernel's own: it is `EINTR`, or the call is made again, once signals have been handled.
const ERESTARTSYS: i32 = 512;

impl Future for Interrupted<'_> {
    type Output = Result<Interruption>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let call = self.call;
        loop {
            match &mut self.watch {
                Some(watch) => ready!(watch.poll_turn(cx))?,
                none => *none = Some(Watch::new(call)?),
            }
            let signals = match call.signals() {
                Err(Error::Gone) => return Poll::Ready(Ok(Interruption::Gone)),
                signals => signals?,
            };
            if signals.surely_interrupt() || signals.shared() & self.shared != 0 {
                return Poll::Ready(Ok(Interruption::Signal));
            }
            self.shared = signals.shared();
        }
    }
}
