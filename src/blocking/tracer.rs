use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{self, channel};

use nix::errno::Errno;

use super::TracedChild;
use super::log::Log;
use super::serve::{Hook, serve};
use crate::error::{Error, Result, SpawnStep};
use crate::notify::{Notification, Receiver, Source, TrappedSyscall, WakeUp};
use crate::process::{Command, spawn_blocking};

/// How the calls of a child are served on a thread.
///
/// # Examples
///
/// A hook that looks at the program's memory and answers with all that a [`Notification`] offers:
///
/// ```
/// use asm_tracer::blocking::Tracer;
/// use asm_tracer::{Command, Errno, Filter, Notification, Stdio, Sysno};
///
/// let tracer = Tracer::with_notifications(|call: Notification| {
///     let answer = match call.read_path(call.args()[1] as u64) {
///         Ok(path) if path.starts_with("/etc/passwd") => call.error(Errno::EACCES),
///         _ => call.continue_syscall(),
///     };
///     // A call that is refused an answer, or that went away, is nothing that could be mended here.
///     drop(answer);
/// });
/// let mut command = Command::new("cat");
/// command.arg("/etc/passwd").stderr(Stdio::null()).filter(Filter::new().trap(Sysno::openat));
/// assert_eq!(tracer.spawn(&mut command)?.wait()?, 1 << 8);
/// # Ok::<(), asm_tracer::Error>(())
/// ```
#[must_use]
pub struct Tracer {
    hook: Hook,
    log: usize,
    wake_up: WakeUp,
}

/// So many calls take about a megabyte.
const LOG: usize = 16 * 1024;

impl Tracer {
    /// Serves calls with a hook that returns what the call is to return instead of running (`-4095..=-1` is an errno to
    /// the target), or `None` to let it run.
    pub fn new(hook: impl FnMut(&TrappedSyscall) -> Option<i64> + Send + 'static) -> Self {
        Self::with(Hook::Result(Box::new(hook)))
    }

    /// Serves calls with a hook that answers them itself, then or later, here or elsewhere.
    ///
    /// A notification that it drops fails with `ENOSYS`; one that a panic drops does so when the hook is done, even if the
    /// hook catches the panic.
    pub fn with_notifications(hook: impl FnMut(Notification) + Send + 'static) -> Self {
        Self::with(Hook::Answer(Box::new(hook)))
    }

    fn with(hook: Hook) -> Self {
        Self {
            hook,
            log: LOG,
            wake_up: WakeUp::default(),
        }
    }

    /// Lets every call run, after it has been recorded.
    pub fn without_hook() -> Self {
        Self::new(|_| None)
    }

    /// Sets how many calls [`drain_syscalls`](TracedChild::drain_syscalls) finds at most, of 56 bytes each; 16 384
    /// unless told otherwise. The last ones are kept. With 0 nothing is recorded.
    pub fn record(mut self, calls: usize) -> Self {
        self.log = calls;
        self
    }

    /// Chooses how the kernel wakes the thread and its targets; [`WakeUp::Adaptive`] unless told otherwise.
    pub fn wake_up(mut self, policy: WakeUp) -> Self {
        self.wake_up = policy;
        self
    }

    /// Starts a program and the thread that serves its calls. It returns once the program runs.
    ///
    /// # Errors
    ///
    /// Those of [`Command::spawn`](crate::Command::spawn), and the same for the thread and the memory of the calls that
    /// are [recorded](Self::record) ([`SpawnStep::StartServer`]). Nothing is left behind.
    pub fn spawn(self, command: &mut Command) -> Result<TracedChild> {
        let log = Arc::new(Log::new(self.log)?);
        let (sender, receiver) = channel();
        // Before there is a child, since it may fail.
        start_server(receiver, Arc::clone(&log), self.hook)?;
        let running = spawn_blocking(command, |listener, guard| {
            let source = Arc::new(Source::new(listener));
            let weak = Arc::downgrade(&source);
            // The thread is there as long as this sender.
            let _ = sender.send(Receiver::new(source, Some(guard), self.wake_up));
            weak
        })?;
        Ok(TracedChild::new(running, log))
    }

    /// Serves a listener that came from elsewhere, such as that of
    /// [`install_filter_with_notifs`](crate::install_filter_with_notifs), on this thread. It returns once no process
    /// uses the filter any more.
    ///
    /// It must be the only receiver on it. Nothing is recorded.
    ///
    /// # Errors
    ///
    /// [`Error::NotAListener`] if the descriptor is something else, [`Error::Unsupported`] on a kernel before 5.9,
    /// [`Error::HookPanicked`] at the end if the hook did.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    ///
    /// use asm_tracer::blocking::Tracer;
    /// use asm_tracer::{Sysno, TrappedSyscall, install_filter_with_notifs};
    ///
    /// let (sender, listener) = channel();
    /// let plugin = std::thread::spawn(move || {
    ///     let listener = install_filter_with_notifs(&[Sysno::getppid.id().into()])?;
    ///     sender.send(listener).unwrap();
    ///     Ok::<_, asm_tracer::Error>(std::os::unix::process::parent_id())
    /// });
    /// Tracer::new(|_: &TrappedSyscall| Some(4711)).serve(listener.recv().unwrap())?;
    /// assert_eq!(plugin.join().unwrap()?, 4711);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn serve(self, listener: OwnedFd) -> Result<()> {
        let source = Arc::new(Source::foreign(listener)?);
        let log = Log::new(0)?;
        serve(Receiver::new(source, None, self.wake_up), &log, self.hook);
        match log.panic() {
            Some(message) => Err(Error::HookPanicked {
                message,
                status: None,
            }),
            None => Ok(()),
        }
    }
}

fn start_server(receiver: mpsc::Receiver<Receiver>, log: Arc<Log>, hook: Hook) -> Result<()> {
    let thread = std::thread::Builder::new().name("asm_tracer-hook".into());
    let started = thread.spawn(move || {
        // There is none if the child could not be started.
        if let Ok(receiver) = receiver.recv() {
            serve(receiver, &log, hook);
        }
    });
    started.map(drop).map_err(|error| {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EAGAIN as i32));
        Error::spawn(SpawnStep::StartServer, errno)
    })
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer")
            .field("record", &self.log)
            .field("wake_up", &self.wake_up)
            .finish_non_exhaustive()
    }
}
