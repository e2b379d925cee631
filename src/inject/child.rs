//! A program that runs under a plan.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::task::JoinHandle;

use super::capture::Capture;
use super::following::Descendants;
use super::outcome::Outcome;
use super::plan::{Shared, not_hit};
use super::record::{Call, Hit, Recorder};
use super::threads::{self, ThreadState};
use crate::error::Result;
use crate::process::Child;

/// A program under a [`FaultPlan`](super::FaultPlan), whose calls a task serves.
///
/// It is the [`Child`] that it holds, with its pipes, [`signal`](Child::signal) and [`wait`](Child::wait). Dropping it kills
/// the program and ends the task, unless the command was told
/// [`kill_on_drop(false)`](crate::Command::kill_on_drop): both live on then, until the runtime ends.
///
/// # Examples
///
/// ```no_run
/// # async fn test() -> asm_tracer::Result<()> {
/// use asm_tracer::inject::{Fault, FaultPlan};
/// use asm_tracer::{Command, Errno, Sysno};
///
/// let plan = FaultPlan::from(Fault::on(Sysno::accept4).error(Errno::EMFILE));
/// plan.disarm();
/// let mut server = plan.spawn(&mut Command::new("./server")).await?;
/// // … a client talks to the server …
/// plan.arm();
/// // … and gets no further now …
/// let hit = server.hit().await?;
/// plan.disarm();
/// // … and does again.
/// let outcome = server.stop().await?;
/// outcome.assert_hit();
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping it kills the program, unless kill_on_drop is off"]
pub struct FaultyChild {
    /// Before the child, which could not tell any more whom it has made.
    descendants: Descendants,
    /// Before the server: the child is killed first, rather than told `ENOSYS`.
    child: Child,
    #[allow(dead_code)] // For its destructor.
    server: Server,
    recorder: Arc<Recorder>,
    shared: Arc<Shared>,
    deadline: Option<Duration>,
    /// How many hits were waited for.
    seen: AtomicUsize,
}

/// The task.
#[derive(Debug)]
struct Server {
    task: JoinHandle<()>,
    /// Whether it ends with the child's handle.
    tied: bool,
    ends_itself: bool,
}

impl Drop for Server {
    fn drop(&mut self) {
        // If descendants are ended, the task ends when all are gone.
        if self.tied && !self.ends_itself {
            self.task.abort();
        }
    }
}

impl FaultyChild {
    pub(super) fn new(
        child: Child,
        task: JoinHandle<()>,
        tied: bool,
        recorder: Arc<Recorder>,
        shared: Arc<Shared>,
        deadline: Option<Duration>,
        descendants: Descendants,
    ) -> Self {
        Self {
            child,
            server: Server {
                task,
                tied,
                ends_itself: descendants.ending().is_some(),
            },
            descendants,
            recorder,
            shared,
            deadline,
            seen: AtomicUsize::new(0),
        }
    }

    /// Switches the faults of the plan on: those of all programs under it.
    pub fn arm(&self) {
        self.shared.set_armed(true);
    }

    /// Switches the faults of the plan off: those of all programs under it.
    pub fn disarm(&self) {
        self.shared.set_armed(false);
    }

    /// Waits until a fault hits a call of this program or of its descendants, and gives each hit once, in order.
    ///
    /// A hit is there before its call is answered.
    ///
    /// # Errors
    ///
    /// [`Error::NotHit`](crate::Error::NotHit) if no process of it is left, or after 4 096 hits, with the last calls in the
    /// message.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a hit that was not returned is returned by the next `hit`.
    pub async fn hit(&self) -> Result<Hit> {
        loop {
            let number = self.seen.load(Ordering::Relaxed);
            let Some(hit) = self.recorder.nth_hit(number).await else {
                return Err(not_hit(Some(&self.recorder)));
            };
            // Unless somebody else has taken it meanwhile.
            let taken = self
                .seen
                .compare_exchange(number, number + 1, Ordering::Relaxed, Ordering::Relaxed);
            if taken.is_ok() {
                return Ok(hit);
            }
        }
    }

    /// The hits so far, the first 4 096.
    pub fn hits(&self) -> Vec<Hit> {
        self.recorder.snapshot().hits
    }

    /// The last of the calls that are trapped, the oldest first.
    pub fn last_calls(&self) -> Vec<Call> {
        self.recorder.snapshot().last
    }

    /// Where the threads of the program and of its descendants are now.
    ///
    /// It reads `/proc` in place. Descendants are found where the kernel lists children there (`CONFIG_PROC_CHILDREN`, which
    /// distributions set), and as long as their parents live.
    pub fn threads(&self) -> Vec<ThreadState> {
        self.child.id().map_or(Vec::new(), threads::of_tree)
    }

    /// Closes the pipe to the standard input, reads the others to their ends, and waits for the end of the program, or kills it
    /// and all of its descendants at the plan's deadline, which counts from here.
    ///
    /// Of each stream the first 16 MiB are kept. Pipes that the caller has taken are the caller's. Descendants that live on
    /// are not waited for once they have closed the pipes; their calls that the plan traps fail with `ENOSYS` then. If the
    /// plan [ends them](super::FaultPlan::end_descendants), they are killed when the program has ended.
    ///
    /// # Errors
    ///
    /// Those of [`Child::wait`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills the program.
    pub async fn outcome(mut self) -> Result<Outcome> {
        drop(self.child.stdin.take());
        let mut stdout = Capture::start(self.child.stdout.take());
        let mut stderr = Capture::start(self.child.stderr.take());
        let child = &mut self.child;
        let ending = self.descendants.ending();
        let end = async {
            if let Some(ending) = ending {
                child.wait().await?;
                ending.end_all();
            }
            stdout.end().await;
            stderr.end().await;
            child.wait().await
        };
        let ended = match self.deadline {
            Some(limit) => tokio::time::timeout(limit, end).await.ok(),
            None => Some(end.await),
        };
        let (status, hung) = match ended {
            Some(status) => (status?, None),
            None => {
                let hung = self.threads();
                (self.end_all().await?, Some(hung))
            }
        };
        let snapshot = self.recorder.snapshot();
        let streams = [stdout.take(), stderr.take()];
        Ok(Outcome::new(status, streams, snapshot, hung, self.recorder.now()))
    }

    /// Kills the program and its descendants, and gives what there was.
    ///
    /// # Errors
    ///
    /// Those of [`Child::kill`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills the program.
    pub async fn stop(mut self) -> Result<Outcome> {
        let mut stdout = Capture::start(self.child.stdout.take());
        let mut stderr = Capture::start(self.child.stderr.take());
        let status = self.end_all().await?;
        // Whoever has the pipes has been killed. One that got away would keep them open.
        let end = async {
            stdout.end().await;
            stderr.end().await;
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), end).await;
        let snapshot = self.recorder.snapshot();
        let streams = [stdout.take(), stderr.take()];
        Ok(Outcome::new(status, streams, snapshot, None, self.recorder.now()))
    }

    /// Kills the whole tree, and waits for the child.
    async fn end_all(&mut self) -> Result<std::process::ExitStatus> {
        if let Some(pid) = self.child.id() {
            // It is not to make more, or to end in its own way for want of the others.
            let _ = self.child.signal(Signal::SIGSTOP);
            threads::kill_descendants(pid);
        }
        if let Some(ending) = self.descendants.ending() {
            ending.kill_all_but(self.child.id());
        }
        self.child.start_kill()?;
        self.child.wait().await
    }
}

impl Deref for FaultyChild {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.child
    }
}

impl DerefMut for FaultyChild {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.child
    }
}
