//! The answers that the kernel does not have: other arguments, another call, and what a call really returned.

use std::future::{Future, IntoFuture};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use nix::errno::Errno;
use syscalls::Sysno;

use super::borrow::{self, Data, Order, Outcome, Reply, Wish};
use super::{AnswerError, Arch, Delivery, Notification, TrappedSyscall};
use crate::error::Error;

/// Answers by which the call runs in another way than the target made it, or is watched to its end.
///
/// The kernel only lets a call run as it is, or not at all. So the thread is borrowed by `ptrace(2)` for the time of its
/// call: it makes the call again, with other registers, and gets its own back at the end, where its result can be read.
/// To the program it looks as if nothing had happened; only `/proc/PID/status` shows a tracer meanwhile. It works after an
/// execution, which no code in the target would survive, and for each thread of many.
///
/// It takes some tens of microseconds instead of some. A thread of the library's own does it for all targets, and no thread
/// waits for a call that blocks.
///
/// # What works
///
/// All calls of the 64-bit ABI but these: `rt_sigreturn` can't be borrowed, since it has no result and takes all registers
/// from elsewhere; `clone`, `clone3`, `fork` and `vfork` can be observed and not rewritten, in neither direction, since the
/// new thread starts with a copy of the registers. An execution that succeeds replaces the registers: it has returned 0. A
/// call that never returns (`exit`, `exit_group`, a death) gives [`Observed::Gone`]. All else is [`Error::NotBorrowable`].
///
/// A thread that is traced already gives [`Error::AlreadyTraced`], one that may not be traced [`Error::TracingDenied`]: an
/// unprivileged supervisor can trace what it may look into, with Yama's `ptrace_scope` at 1 only its own descendants. The
/// call is then unanswered still, and comes back in the error.
///
/// # Those who wait for the target
///
/// The stops of a borrowed child of this process are seen by `waitpid(2)` and `waitid(2)` in all of its threads, and taken for
/// its end by who does not look at what they say. [`Child`](crate::Child) and
/// [`TracedChild`](crate::blocking::TracedChild) do look; code that waits by itself for a child whose listener was attached
/// must do so as well, or pass `__WNOTHREAD`.
///
/// # Signals
///
/// A signal to the target comes first, as it does for any call. If it comes before the call runs, the answer is
/// [`Delivery::Gone`] ([`Observed::Gone`]); if it interrupts the call, the result is [`Observed::Interrupted`]. Where the
/// kernel makes the call again afterwards, that is the call as the program made it: a new notification.
///
/// # Security
///
/// A call that runs, whatever its registers are, reads its memory when it runs: see [`Notification`]'s `Security` section. That
/// is true of the data of [`Rewrite::data`] as well, which other threads of the target can find and change. The filter is asked
/// once more; a call that it traps again is let through, one that it refuses or kills is refused or kills.
///
/// In the kernel, a thread can't be taken hold of while another one of its process executes a program, and that one waits for
/// the threads that are borrowed already. A target in which both wait for each other would keep all others from being
/// borrowed; it is killed after a second.
///
/// # Kernel support
///
/// `PTRACE_SEIZE`, since Linux 3.4; registers that are changed at the entry of a call are seen by the filter since Linux 4.8.
/// See `ptrace(2)`.
impl Notification {
    /// Lets the kernel run the call with these argument registers.
    ///
    /// The future is done once the call runs, not when it returns.
    ///
    /// # Examples
    ///
    /// ```
    /// # async fn shorten(call: asm_tracer::Notification) -> asm_tracer::Result<()> {
    /// // At most one byte is written at a time, and the program is told so.
    /// let [fd, buffer, length, ..] = call.args();
    /// call.continue_with([fd, buffer, length.min(1), 0, 0, 0]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn continue_with(self, args: [i64; 6]) -> Rewrite {
        let nr = self.nr();
        self.rewrite(TrappedSyscall { nr, args })
    }

    /// Lets the kernel run another call in its place, whose result the program takes for that of its own.
    ///
    /// # Examples
    ///
    /// ```
    /// # async fn redirect(call: asm_tracer::Notification) -> asm_tracer::Result<()> {
    /// // Where the program wants to be elsewhere, it stays and is told that it worked.
    /// call.continue_as(asm_tracer::Sysno::getuid, [0; 6]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn continue_as(self, sysno: Sysno, args: [i64; 6]) -> Rewrite {
        let nr = i64::from(sysno.id());
        self.rewrite(TrappedSyscall { nr, args })
    }

    /// Lets the kernel run the call as the target made it, and gives what it returned.
    ///
    /// # Examples
    ///
    /// ```
    /// # async fn watch(call: asm_tracer::Notification) -> asm_tracer::Result<()> {
    /// let name = call.sysno();
    /// let observed = call.continue_and_observe().await?;
    /// println!("{name:?} = {observed:?}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn continue_and_observe(self) -> Observe {
        let call = *self.syscall();
        self.rewrite(call).observe()
    }

    fn rewrite(self, wanted: TrappedSyscall) -> Rewrite {
        Rewrite {
            call: self,
            wanted,
            data: Vec::new(),
        }
    }
}

/// A call to be run in another way, by [`Notification::continue_with`] or [`Notification::continue_as`].
///
/// It is awaited, or waited for with [`wait`](Self::wait); [`observe`](Self::observe) waits for the result as well. Dropped
/// before, the call fails with `ENOSYS`.
#[must_use = "nothing happens until it is awaited; dropped, the call fails with ENOSYS"]
#[derive(Debug)]
pub struct Rewrite {
    call: Notification,
    wanted: TrappedSyscall,
    data: Vec<Data>,
}

impl Rewrite {
    /// Has the argument with this index, from 0, point to a copy of these bytes in the target.
    ///
    /// The program's own memory is not touched: the thread makes a mapping before the call and removes it afterwards, which
    /// about triples the time that it takes. (Where a signal ends a call with a signal mask of its own, such as `ppoll(2)`, the
    /// mapping stays.) It can be written to, so it also serves a call that wants room. Where the
    /// target can't make the mapping, the call fails with the error of its `mmap(2)`; where its filters let neither that nor
    /// `munmap(2)` pass, it fares as they say.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidAnswer`] at the end, for an index over 5 or more than 16 MiB.
    ///
    /// # Examples
    ///
    /// ```
    /// # async fn redirect(call: asm_tracer::Notification) -> asm_tracer::Result<()> {
    /// // The second argument of openat(2) is the path, however long the one in the program is.
    /// let args = call.args();
    /// call.continue_with(args).data(1, b"/etc/hostname\0").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn data(mut self, argument: usize, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref().into();
        self.data.push(Data { argument, bytes });
        self
    }

    /// Waits for the result as well.
    pub fn observe(self) -> Observe {
        Observe(Borrowed::new(self, true))
    }

    /// Blocks this thread until the call runs, for a program without a runtime.
    ///
    /// # Errors
    ///
    /// Those of the future.
    pub fn wait(self) -> Result<Delivery, AnswerError> {
        block_on(self.into_future())
    }
}

impl IntoFuture for Rewrite {
    type Output = Result<Delivery, AnswerError>;
    type IntoFuture = Continued;

    fn into_future(self) -> Continued {
        Continued(Borrowed::new(self, false))
    }
}

/// What a call came to that was let run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Observed {
    /// It returned this value. −4095..=−1 is an errno: see [`result`](Self::result).
    Returned(i64),
    /// A signal interrupted it. The program sees `EINTR`, or never knows, because the kernel makes the call again, which
    /// comes as a new notification.
    Interrupted,
    /// It did not return: the thread has ended, or a signal took the call back before it ran.
    Gone,
}

impl Observed {
    /// The result as the program's C library sees it; `None` if there is none.
    ///
    /// # Examples
    ///
    /// ```
    /// use asm_tracer::{Errno, Observed};
    ///
    /// assert_eq!(Observed::Returned(3).result(), Some(Ok(3)));
    /// assert_eq!(Observed::Returned(-2).result(), Some(Err(Errno::ENOENT)));
    /// assert_eq!(Observed::Interrupted.result(), None);
    /// ```
    pub fn result(self) -> Option<Result<i64, Errno>> {
        match self {
            Self::Returned(value @ -4095..=-1) => Some(Err(Errno::from_raw(-value as i32))),
            Self::Returned(value) => Some(Ok(value)),
            Self::Interrupted | Self::Gone => None,
        }
    }
}

/// The future of a call that is let run in another way.
///
/// # Errors
///
/// Those that the [methods](Notification#impl-Notification-2) name, all with the call, which still waits.
///
/// # Cancel safety
///
/// Before it is first polled, and until the target is taken hold of, dropping it answers the call with `ENOSYS`. From then
/// on, until the call runs, dropping it takes the call back: it comes again as a new notification.
#[must_use = "futures do nothing unless you await or poll them"]
#[derive(Debug)]
pub struct Continued(Borrowed);

impl Future for Continued {
    type Output = Result<Delivery, AnswerError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let delivery = |outcome| match outcome {
            Outcome::Gone => Delivery::Gone,
            _ => Delivery::Delivered,
        };
        self.0.poll(cx).map_ok(delivery)
    }
}

/// The future of what a call returns.
///
/// # Errors
///
/// Those that the [methods](Notification#impl-Notification-2) name, all with the call, which still waits.
///
/// # Cancel safety
///
/// Before it is first polled, and until the target is taken hold of, dropping it answers the call with `ENOSYS`. From then
/// on, dropping it lets go of the thread: a call that runs as the program made it goes on as if nobody had looked (one that
/// blocks is restarted, with its timeout from the beginning); one with other registers or data is interrupted, and comes
/// again as a new notification.
#[must_use = "futures do nothing unless you await or poll them"]
#[derive(Debug)]
pub struct Observe(Borrowed);

impl Observe {
    /// Blocks this thread until the call has returned, for a program without a runtime.
    ///
    /// # Errors
    ///
    /// Those of the future.
    pub fn wait(self) -> Result<Observed, AnswerError> {
        block_on(self)
    }
}

impl Future for Observe {
    type Output = Result<Observed, AnswerError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let observed = |outcome| match outcome {
            Outcome::Returned(value) => Observed::Returned(value),
            Outcome::Interrupted => Observed::Interrupted,
            _ => Observed::Gone,
        };
        self.0.poll(cx).map_ok(observed)
    }
}

/// A call that the borrower has, or is about to get.
#[derive(Debug)]
struct Borrowed {
    /// Until it is first polled.
    order: Option<Order>,
    reply: Arc<Reply>,
}

impl Borrowed {
    fn new(rewrite: Rewrite, observe: bool) -> Self {
        let Rewrite { call, wanted, data } = rewrite;
        let reply = Arc::<Reply>::default();
        let wish = Wish {
            trapped: *call.syscall(),
            instruction_pointer: call.instruction_pointer(),
            wanted,
            data,
            observe,
        };
        Self {
            reply: Arc::clone(&reply),
            order: Some(Order { call, wish, reply }),
        }
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<Outcome, AnswerError>> {
        if let Some(order) = self.order.take() {
            if let Err(error) = check(order.call.arch(), &order.wish) {
                return Poll::Ready(Err(order.call.refuse(error)));
            }
            borrow::submit(order);
        }
        self.reply.poll(cx).map(|outcome| match outcome {
            Outcome::Refused(refused) => Err(refused),
            outcome => Ok(outcome),
        })
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        // An order that was never left is answered as it is dropped.
        if self.order.is_none() && self.reply.abandon() {
            borrow::abandon(Arc::clone(&self.reply));
        }
    }
}

/// How many bytes can be given to a call.
const MAX_DATA: usize = 16 << 20;

fn check(arch: Arch, wish: &Wish) -> Result<(), Error> {
    let either = |numbers: &[i64]| numbers.contains(&wish.trapped.nr) || numbers.contains(&wish.wanted.nr);
    let refused = if arch != Arch::X86_64 {
        "it was not made through the 64-bit ABI"
    } else if either(&[libc::SYS_rt_sigreturn]) {
        "rt_sigreturn has no result, and takes all registers from elsewhere"
    } else if wish.rewrites() && either(&[libc::SYS_clone, libc::SYS_clone3, libc::SYS_fork, libc::SYS_vfork])
    {
        "the new thread would start with the other registers"
    } else {
        let mut size = 0_usize;
        for data in &wish.data {
            size = size.saturating_add(data.bytes.len());
            if data.argument > 5 {
                return Err(Error::InvalidAnswer("a call has the arguments 0 to 5"));
            }
        }
        return match size > MAX_DATA {
            true => Err(Error::InvalidAnswer("data of more than 16 MiB for one call")),
            false => Ok(()),
        };
    };
    Err(Error::NotBorrowable(refused))
}

/// Blocks this thread until the future is done.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        std::thread::park();
    }
}
