//! Many listeners as one stream, served in turn.

#[cfg(all(test, asm_tracer_loom))]
mod models;
mod ready;
mod spawner;

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use futures_core::{FusedStream, Stream};
use tokio::task::coop;

use crate::error::Result;
use crate::notify::{Channel, ChildKey, Next, Notification, WakeControl, WakeUp};
use crate::process::{Child, Command};
use ready::{Ready, SlotWaker};
pub use spawner::Spawner;

/// Any number of supervised children, and their calls as one stream.
///
/// ```
/// # async fn serve() -> asm_tracer::Result<()> {
/// use asm_tracer::{Command, Filter, Supervisor, Sysno};
///
/// let mut supervisor = Supervisor::new();
/// let mut command = Command::new("ls");
/// let child = supervisor.spawn(command.filter(Filter::new().trap(Sysno::openat))).await?;
/// while let Some(call) = supervisor.next().await {
///     call.continue_syscall()?;
/// }
/// # Ok(())
/// # }
/// ```
///
/// Children are served in turn, one call each, however many calls some of them make. The loop may answer in place, or
/// send the [`Notification`]s to other tasks; the calls of other threads and children wait meanwhile only for what the
/// loop itself does between two `next()`.
///
/// The stream ends when no process uses any of the filters any more and there is no [`Spawner`] that could start
/// another; a child that is started or attached later revives it.
///
/// Dropping the supervisor closes its listeners, which kills the children first unless they were started with
/// [`kill_on_drop(false)`](Command::kill_on_drop).
pub struct Supervisor {
    ready: Arc<Ready>,
    /// By slot; a slot is used again after its listener has ended.
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    /// Slots in the order in which they are to be served.
    turn: VecDeque<usize>,
    arrivals: Vec<Channel>,
    wake: WakeControl,
}

struct Slot {
    channel: Channel,
    queued: Arc<SlotWaker>,
    /// The same as a waker.
    waker: Waker,
}

impl Supervisor {
    /// Makes a supervisor of no children yet.
    pub fn new() -> Self {
        Self {
            ready: Arc::default(),
            slots: Vec::new(),
            free: Vec::new(),
            turn: VecDeque::new(),
            arrivals: Vec::new(),
            wake: WakeControl::new(),
        }
    }

    /// Chooses how the kernel wakes the supervisor and its targets; [`WakeUp::Adaptive`] unless told otherwise.
    pub fn set_wake_up(&mut self, policy: WakeUp) {
        self.wake.set_mode(policy);
    }

    /// Starts a program and supervises it and all of its descendants.
    ///
    /// It returns once the program runs, or the step that failed, for every filter. The program's first call waits
    /// for [`next`](Self::next) then.
    ///
    /// # Errors
    ///
    /// Those of [`Command::spawn`].
    ///
    /// # Panics
    ///
    /// If the Tokio runtime has no I/O driver (`enable_io`).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills and reaps what it had started.
    pub async fn spawn(&self, command: &mut Command) -> Result<Child> {
        spawner::spawn(&self.ready, command).await
    }

    /// Supervises the users of a listener that came from elsewhere, such as one that a container runtime sent.
    ///
    /// # Errors
    ///
    /// Those of [`Listener::attach`](crate::Listener::attach).
    pub fn attach(&self, listener: OwnedFd) -> Result<ChildKey> {
        spawner::attach(&self.ready, listener)
    }

    /// Gives a handle that starts and attaches children from other tasks, while the loop waits in
    /// [`next`](Self::next).
    pub fn spawner(&self) -> Spawner {
        Spawner::new(Arc::clone(&self.ready))
    }

    /// Waits for the next trapped call of any child; `None` once there is neither a child nor a [`Spawner`] left.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a call that was received and not returned is returned by the next `next()`.
    pub fn next(&mut self) -> Next<'_, Self> {
        Next::new(self)
    }

    fn admit(&mut self, channel: Channel) {
        let index = self.free.pop().unwrap_or(self.slots.len());
        let queued = Arc::new(SlotWaker::new(Arc::clone(&self.ready), index));
        queued.enqueue();
        self.turn.push_back(index);
        let slot = Some(Slot {
            channel,
            waker: Waker::from(Arc::clone(&queued)),
            queued,
        });
        match self.slots.get_mut(index) {
            Some(vacant) => *vacant = slot,
            None => self.slots.push(slot),
        }
    }

    /// The next call of the child in this slot; forgets the child when it has ended.
    fn poll_slot(&mut self, index: usize) -> Option<Notification> {
        let alone = self.children() == 1;
        let slot = self.slots.get_mut(index)?.as_mut()?;
        slot.queued.dequeue();
        let mut cx = Context::from_waker(&slot.waker);
        match slot.channel.poll_next(&mut cx, &self.wake, alone) {
            Poll::Ready(Some(notification)) => {
                // To the end of the queue: it may have more, and the others come first.
                if slot.queued.enqueue() {
                    self.turn.push_back(index);
                }
                Some(notification)
            }
            Poll::Ready(None) => {
                self.slots[index] = None;
                self.free.push(index);
                None
            }
            Poll::Pending => None,
        }
    }

    fn children(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl Stream for Supervisor {
    type Item = Notification;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Notification>> {
        let this = &mut *self;
        loop {
            this.ready.collect(&mut this.turn, &mut this.arrivals);
            while let Some(channel) = this.arrivals.pop() {
                this.admit(channel);
            }
            // Out of its share of the runtime's time, the task is woken once the runtime has looked for events. Woken
            // any earlier, it could go on with the calls it knows of while other children and tasks starve.
            drop(ready!(coop::poll_proceed(cx)));
            if let Some(index) = this.turn.pop_front() {
                if let Some(notification) = this.poll_slot(index) {
                    this.wake.received(this.children());
                    // The calls that wait in a queue count as well.
                    if let Poll::Ready(share) = coop::poll_proceed(cx) {
                        share.made_progress();
                    }
                    return Poll::Ready(Some(notification));
                }
            } else if this.ready.rest(cx.waker()) {
                return match this.children() == 0 && !this.ready.expects_more() {
                    true => Poll::Ready(None),
                    false => Poll::Pending,
                };
            }
        }
    }
}

impl FusedStream for Supervisor {
    fn is_terminated(&self) -> bool {
        self.children() == 0 && !self.ready.expects_more()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.ready.close();
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("children", &self.children())
            .finish_non_exhaustive()
    }
}
