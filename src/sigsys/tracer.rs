use std::fmt;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::time::{Duration, Instant};

use syscalls::Sysno;

use super::event::Event;
use super::events::{Events, Lease};
use super::install::Plan;
use super::shared::{Hook, Shared};
use crate::error::{Error, Result};
use crate::filter::{Action, Filter, Syscalls, Threads};

/// How this process is to trace itself; see the [module](crate::sigsys).
///
/// # Examples
///
/// ```
/// use asm_tracer::filter::{Threads, int_arg};
/// use asm_tracer::sigsys::Tracer;
/// use asm_tracer::{Action, Errno, Filter, Sysno, TrappedSyscall};
///
/// /// Reads at most 16 bytes at once, and lets nobody remove a directory.
/// fn hook(call: &mut TrappedSyscall) -> Option<i64> {
///     match call.sysno() {
///         Some(Sysno::read) => {
///             call.args[2] = call.args[2].min(16);
///             None
///         }
///         _ => Some(-(Errno::EROFS as i64)),
///     }
/// }
///
/// # std::thread::spawn(|| {
/// let filter = Filter::new()
///     .trap_if(Sysno::read, [int_arg(0).ge(3)])
///     .trap(Sysno::rmdir)
///     .foreign_abi(Action::Allow);
/// let builder = Tracer::builder().filter(filter).hook(hook).capacity(1 << 12);
/// let tracer = builder.threads(Threads::Calling).results(true).install()?;
/// assert!(std::fs::remove_dir("/tmp").is_err());
/// assert_eq!(tracer.statistics().attempts, 1);
/// # Ok::<_, asm_tracer::Error>(())
/// # }).join().unwrap()?;
/// # Ok::<(), asm_tracer::Error>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct Builder {
    plan: Plan,
}

impl Builder {
    /// Traces these calls.
    pub fn trap(mut self, calls: impl Syscalls) -> Self {
        self.plan.filter = self.plan.filter.trap(calls);
        self
    }

    /// Sets the filter, in place of what was set before: what it traps is traced, also where conditions on arguments say
    /// so; its other actions are the kernel's.
    ///
    /// Calls through the i386 and x32 ABIs, which are let through where only [`trap`](Self::trap) is used, are up to its
    /// [`foreign_abi`](Filter::foreign_abi): they kill the process unless that says otherwise.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.plan.filter = filter;
        self
    }

    /// Sets the hook, which each traced call is shown to.
    pub fn hook(mut self, hook: Hook) -> Self {
        self.plan.hook = Some(hook);
        self
    }

    /// Sets how many calls may wait to be collected, a power of two up to 2^20; 4096 unless told otherwise. What comes beyond is
    /// lost, and counted.
    pub fn capacity(mut self, calls: usize) -> Self {
        self.plan.capacity = calls;
        self
    }

    /// Sets which threads are traced; the calling one unless told otherwise.
    ///
    /// With [`Threads::All`], each thread is sent the signal and applies the filter itself, once it lets that through. Calls
    /// that this interrupts are restarted, but for those that never are (`epoll_wait(2)`, `nanosleep(2)` and others of
    /// `signal(7)`), which fail with `EINTR` once.
    pub fn threads(mut self, threads: Threads) -> Self {
        self.plan.threads = threads;
        self
    }

    /// Decides whether `execve(2)` and `execveat(2)` run. By default they fail with `EPERM`: the filter survives an
    /// execution and its handler doesn't, so that the first trapped call of the new program kills it, and those that set
    /// signal masks and handlers are always trapped.
    pub fn allow_exec(mut self, allow: bool) -> Self {
        self.plan.allow_exec = allow;
        self
    }

    /// Decides whether the results of calls are recorded as well, as [`Event::Returned`]. Off by default.
    ///
    /// They come some milliseconds later, or with the next call; for them, a thread of this library looks a hundred times a
    /// second. There are none of calls that never return
    /// (`exit_group`, an execution), that the hook gave a result, and of those that leave or take away the stack: `clone`,
    /// `clone3`, `vfork`, `munmap`, `mremap`. Nor is there one where a handler of the program jumps away.
    pub fn results(mut self, record: bool) -> Self {
        self.plan.results = record;
        self
    }

    /// Decides whether the handler runs on the alternate stack of a thread that has one (`sigaltstack(2)`). Off by default.
    ///
    /// It takes some four kilobytes and what the hook needs. That is for programs whose stacks are smaller than their
    /// alternate ones: those that Rust's threads have are of eight kilobytes, on which a panic of the hook finds no room.
    pub fn alternate_stack(mut self, use_it: bool) -> Self {
        self.plan.alternate_stack = use_it;
        self
    }

    /// Installs the handler and the filter.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidFilter`] if nothing is traced, a number has no name, or calls through other ABIs are to be traced, [`Error::InvalidCapacity`],
    /// [`Error::AlreadyTracing`] if this process was made to trace itself before, [`Error::SigsysTaken`] if it has a
    /// handler for `SIGSYS`, [`Error::SigsysBlocked`] if all threads are to be traced and one blocks that signal,
    /// [`Error::Unsupported`] on a kernel that lacks a feature, [`Error::Io`] if it refuses. Nothing is installed then, except where a thread begins to block the signal in the
    /// middle of it: those that have the filter keep it, and their calls run.
    pub fn install(self) -> Result<Tracer> {
        let filter = &self.plan.filter;
        if !filter.has(Action::Trap) {
            return Err(Error::InvalidFilter("no call is traced".into()));
        }
        if filter.on_foreign_abi() == Action::Trap {
            // Their numbers mean other calls, and the handler makes those of x86-64 (P11).
            let why = "calls through other ABIs can't be traced; allow, refuse or kill them";
            return Err(Error::InvalidFilter(why.into()));
        }
        if let Some(number) = filter.numbers().find(|number| !is_known(*number)) {
            let why = format!("{number} is not the number of a known x86-64 system call");
            return Err(Error::InvalidFilter(why));
        }
        self.plan.install().map(|shared| Tracer { shared })
    }
}

fn is_known(number: i64) -> bool {
    usize::try_from(number).is_ok_and(|number| Sysno::new(number).is_some())
}

/// The tracing of this process.
///
/// Dropping it ends the recording and the hook; a call that is being made at that moment may still be recorded and not be
/// told of. The filter can't be taken off: calls that it traps still come to the
/// handler, which lets them run.
///
/// # Examples
///
/// ```
/// use asm_tracer::sigsys::{Event, Tracer};
/// use asm_tracer::Sysno;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # if std::env::var_os("TRACED_EXAMPLE").is_none() { return Ok(()) }
/// let tracer = Tracer::builder().trap([Sysno::openat, Sysno::futex]).install()?;
/// let mut events = tracer.events()?;
/// tokio::fs::read("/etc/hostname").await?;
/// drop(tracer);
/// while let Some(event) = events.next().await {
///     println!("{event:?}");
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping it ends the tracing"]
pub struct Tracer {
    shared: &'static Shared,
}

/// How long [`Tracer::drain`] waits for calls that are being recorded.
const PATIENCE: Duration = Duration::from_secs(1);

impl Tracer {
    /// Says how this process is to trace itself.
    pub fn builder() -> Builder {
        Builder {
            plan: Plan {
                filter: Filter::new().foreign_abi(Action::Allow),
                hook: None,
                capacity: 4096,
                threads: Threads::Calling,
                allow_exec: false,
                results: false,
                alternate_stack: false,
            },
        }
    }

    /// Gives the traced calls as a stream. There can be one at a time; what it does not read, the next one finds.
    ///
    /// # Errors
    ///
    /// [`Error::EventsTaken`] while there is another, [`Error::NoRuntime`] outside of a Tokio runtime.
    ///
    /// # Panics
    ///
    /// If the Tokio runtime has no I/O driver (`enable_io`).
    pub fn events(&self) -> Result<Events> {
        Events::new(self.shared)
    }

    /// Takes all events of calls that were made before, without a runtime. In a forked process there are none: those that
    /// were not read yet are its parent's.
    ///
    /// # Errors
    ///
    /// [`Error::EventsTaken`] while there is a stream of them.
    pub fn drain(&self) -> Result<Vec<Event>> {
        // Another thread may have been reading when the process forked, and is not here to finish.
        if !self.shared.is_original() {
            return Ok(Vec::new());
        }
        let consumer = Lease::take(self.shared)?;
        let (wanted, start) = (self.shared.attempts(), Instant::now());
        let mut events = Vec::new();
        loop {
            while let Some(record) = consumer.pop() {
                events.push(record.into());
            }
            self.shared.drain.ring();
            if self.shared.settled.load(Acquire) >= wanted || start.elapsed() > PATIENCE {
                break;
            }
            let settled = || self.shared.settled.load(Acquire) >= wanted;
            self.shared
                .consumer
                .bell
                .sleep(Some(Duration::from_millis(1)), settled);
        }
        while let Some(record) = consumer.pop() {
            events.push(record.into());
        }
        Ok(events)
    }

    /// The counts so far.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            attempts: self.shared.attempts(),
            dropped: self.shared.dropped(),
            settled: self.shared.settled.load(Relaxed),
            refused_rewrites: self.shared.refused_rewrites.load(Relaxed),
            full_tables: self.shared.full_tables.load(Relaxed),
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.shared.recording.store(false, SeqCst);
        self.shared.drain.ring();
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.statistics().fmt(f)
    }
}

/// What was traced so far, in calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// To be recorded.
    pub attempts: u64,
    /// Of these, lost for want of room.
    pub dropped: u64,
    /// Of the attempts, collected or known to be lost; the others are in flight.
    pub settled: u64,
    /// Refused because the hook changed a call whose registers can't be put back.
    pub refused_rewrites: u64,
    /// Made from more places than the gate has entries for, which is slower, or fails for those that need one.
    pub full_tables: u64,
}
