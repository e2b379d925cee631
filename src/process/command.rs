use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::environment::Environment;
use super::{Child, Stdio, spawn};
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::kernel::KernelSupport;
use crate::notify::Listener;

/// A closure that each child runs in its own copy of the memory, so that it is never contended.
#[derive(Clone)]
pub(super) struct PreExec(Arc<Mutex<dyn FnMut() -> io::Result<()> + Send + Sync>>);

impl PreExec {
    pub(super) fn run(&self) -> Result<(), i32> {
        let mut run = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        run().map_err(|error| {
            error
                .raw_os_error()
                .filter(|errno| *errno > 0)
                .unwrap_or(libc::EINVAL)
        })
    }
}

/// A program to be started under a filter.
///
/// The methods mirror those of `tokio::process::Command` and mean the same, except that `kill_on_drop` is on unless
/// told otherwise: without its supervisor, a supervised program only gets `ENOSYS`.
///
/// The child is a `clone(2)` that shares the memory until it executes the program, as with `posix_spawn(3)`, so that
/// the cost doesn't grow with the supervisor. [`pre_exec`](Self::pre_exec), [`uid`](Self::uid), [`gid`](Self::gid) and
/// [`trap_initial_exec`](Self::trap_initial_exec) need memory of their own and take a `fork(2)`, which does.
///
/// All children are cloned by one thread that never ends, so that its end can't be taken for that of the process. But
/// for the signal mask, what belongs to a thread (capabilities, scheduling, namespaces, a filter) they have from the
/// thread that was the first to spawn one.
///
/// It can be spawned any number of times. A clone has what it was told so far, and shares the descriptors among it.
///
/// # Examples
///
/// ```
/// use asm_tracer::{Command, Errno, Filter, Stdio, Supervisor, Sysno};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> asm_tracer::Result<()> {
/// let mut supervisor = Supervisor::new();
/// let mut command = Command::new("cat");
/// command.arg("/etc/passwd").stderr(Stdio::null()).filter(Filter::new().trap(Sysno::openat));
/// let mut child = supervisor.spawn(&mut command).await?;
///
/// while let Some(call) = supervisor.next().await {
///     match call.read_path(call.args()[1] as u64)?.starts_with("/etc/passwd") {
///         true => call.error(Errno::EACCES)?,
///         false => call.continue_syscall()?,
///     };
/// }
/// assert_eq!(child.wait().await?.code(), Some(1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Command {
    pub(super) program: OsString,
    pub(super) arg0: Option<OsString>,
    pub(super) args: Vec<OsString>,
    pub(super) environment: Environment,
    pub(super) directory: Option<PathBuf>,
    pub(super) stdio: [Stdio; 3],
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) process_group: Option<i32>,
    pub(super) pre_exec: Vec<PreExec>,
    pub(super) kill_on_drop: bool,
    pub(super) filter: Filter,
    pub(super) trap_initial_exec: bool,
    pub(super) wait_killable: Option<bool>,
    pub(super) no_new_privs: bool,
    pub(super) landlock: Option<Arc<OwnedFd>>,
}

impl Command {
    /// Prepares to start a program, which is looked up in the child's `PATH` unless it contains a slash.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            arg0: None,
            args: Vec::new(),
            environment: Environment::default(),
            directory: None,
            stdio: [Stdio::inherit(), Stdio::inherit(), Stdio::inherit()],
            uid: None,
            gid: None,
            process_group: None,
            pre_exec: Vec::new(),
            kill_on_drop: true,
            filter: Filter::new(),
            trap_initial_exec: false,
            wait_killable: None,
            no_new_privs: true,
            landlock: None,
        }
    }

    /// Sets the filter, which says what becomes a [`Notification`](crate::Notification). None is trapped by default.
    pub fn filter(&mut self, filter: Filter) -> &mut Self {
        self.filter = filter;
        self
    }

    /// Adds an argument.
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args(&mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets the zeroth argument, which is the program as it was given otherwise.
    pub fn arg0(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.arg0 = Some(arg.as_ref().to_owned());
        self
    }

    /// The program as it was given.
    pub fn get_program(&self) -> &OsStr {
        &self.program
    }

    /// The arguments as they were given.
    pub fn get_args(&self) -> impl ExactSizeIterator<Item = &OsStr> {
        self.args.iter().map(OsString::as_os_str)
    }

    /// Sets an environment variable.
    pub fn env(&mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.environment.set(key.as_ref(), value.as_ref());
        self
    }

    /// Sets environment variables.
    pub fn envs<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        &mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> &mut Self {
        for (key, value) in variables {
            self.env(key, value);
        }
        self
    }

    /// Removes an environment variable, or keeps it from being inherited.
    pub fn env_remove(&mut self, key: impl AsRef<OsStr>) -> &mut Self {
        self.environment.remove(key.as_ref());
        self
    }

    /// Removes all environment variables, and inherits none.
    pub fn env_clear(&mut self) -> &mut Self {
        self.environment.clear();
        self
    }

    /// Sets the working directory. A relative program path is relative to it.
    pub fn current_dir(&mut self, directory: impl AsRef<Path>) -> &mut Self {
        self.directory = Some(directory.as_ref().to_owned());
        self
    }

    /// Sets the standard input; inherited by default.
    pub fn stdin(&mut self, stream: impl Into<Stdio>) -> &mut Self {
        self.stdio[0] = stream.into();
        self
    }

    /// Sets the standard output; inherited by default.
    pub fn stdout(&mut self, stream: impl Into<Stdio>) -> &mut Self {
        self.stdio[1] = stream.into();
        self
    }

    /// Sets the standard error; inherited by default.
    pub fn stderr(&mut self, stream: impl Into<Stdio>) -> &mut Self {
        self.stdio[2] = stream.into();
        self
    }

    /// Sets the user id. This drops the supplementary groups where the supervisor may do so (`CAP_SETGID`).
    ///
    /// The child is then made with `fork(2)`: changing the user clears the dumpable flag of the memory.
    pub fn uid(&mut self, id: u32) -> &mut Self {
        self.uid = Some(id);
        self
    }

    /// Sets the group id. The child is then made with `fork(2)`, as for [`uid`](Self::uid).
    pub fn gid(&mut self, id: u32) -> &mut Self {
        self.gid = Some(id);
        self
    }

    /// Sets the process group; 0 makes a new one, led by the child.
    pub fn process_group(&mut self, group: i32) -> &mut Self {
        self.process_group = Some(group);
        self
    }

    /// Adds a closure that the child runs before it installs the filter. The child is then made with `fork(2)`.
    ///
    /// It runs after everything else that the command asks for. Signal handlers are gone by then, and the mask is
    /// that of the thread that spawns; the closure may change both.
    ///
    /// # Safety
    ///
    /// It runs in a forked copy of one thread of this process: it must only do what is async-signal-safe
    /// (`signal-safety(7)`): no lock, and no memory or other state that another thread may have been changing.
    #[allow(unsafe_code)] // The caller owes something; nothing here is unsafe.
    pub unsafe fn pre_exec(
        &mut self,
        run: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    ) -> &mut Self {
        self.pre_exec.push(PreExec(Arc::new(Mutex::new(run))));
        self
    }

    /// Decides whether the child is killed when its [`Child`], its [`Listener`] or its
    /// [`Supervisor`](crate::Supervisor) is dropped, and when this process dies. On by default.
    ///
    /// The death of this process is signalled by `PR_SET_PDEATHSIG` (`prctl(2)`), which ends with the execution of
    /// a set-uid program. It concerns the child alone, not its descendants.
    pub fn kill_on_drop(&mut self, kill: bool) -> &mut Self {
        self.kill_on_drop = kill;
        self
    }

    /// Decides whether the `execve` that starts the program is subject to the filter. Off by default.
    ///
    /// The child is then made with `fork(2)`, as for [`uid`](Self::uid): what is written to its memory before its execution
    /// is answered is not to be this process's.
    ///
    /// If it is, spawning returns before it has happened, and an execution that fails is reported by
    /// [`Child::wait`] and [`Child::try_wait`].
    pub fn trap_initial_exec(&mut self, trap: bool) -> &mut Self {
        self.trap_initial_exec = trap;
        self
    }

    /// Decides whether only fatal signals interrupt a call that was received. By default wherever the kernel can.
    ///
    /// Otherwise, any signal with a handler takes a waiting call back: it fails with `EINTR`, or is made again and
    /// trapped again, so that a handler with side effects has them twice. With it, a stopped or signalled target
    /// waits in state D until its call is answered. On kernels before 6.18 (and 6.12.53) a call can be made again
    /// even so, if the signal comes right after the answer (commit `cce436aafc2a`): handle "at least once".
    ///
    /// No kernel protects a call that was not received *yet*, which takes some microseconds and longer behind slow
    /// handlers. A handler installed without `SA_RESTART` makes it fail with `EINTR` then, even `close(2)`, `pipe(2)`
    /// or `fork(2)`, which never do so by themselves and which few programs repeat. `dash` is such a program: leave
    /// out of its filter what need not be trapped.
    ///
    /// # Kernel support
    ///
    /// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`, since Linux 5.19. Asking for it on an older kernel makes spawning
    /// fail with [`Error::Unsupported`](crate::Error::Unsupported).
    pub fn wait_killable(&mut self, killable: bool) -> &mut Self {
        self.wait_killable = Some(killable);
        self
    }

    /// Decides whether `no_new_privs` is set, so that set-uid programs gain nothing (`PR_SET_NO_NEW_PRIVS`).
    /// On by default.
    ///
    /// Without it, only a supervisor with `CAP_SYS_ADMIN` may install a filter; for others spawning fails with
    /// [`Error::FilterDenied`](crate::Error::FilterDenied).
    pub fn no_new_privs(&mut self, set: bool) -> &mut Self {
        self.no_new_privs = set;
        self
    }

    /// Has the child restrict itself by this Landlock ruleset, so that the program and whatever it starts are confined
    /// by it, for good.
    ///
    /// The ruleset is what `landlock_create_ruleset(2)` made, for instance by the crate `landlock`. It is kept, so that
    /// the command can be spawned again; a later one takes its place. The program does not have the descriptor.
    ///
    /// The child does so once all else but the filter is in place: its directory, streams and
    /// [`pre_exec`](Self::pre_exec) closures are not confined. The execution of the program is, so a ruleset that handles
    /// the right to execute or to read files must grant it for the program, its interpreter and its libraries, or spawning
    /// fails at [`SpawnStep::Exec`](crate::SpawnStep::Exec) with `EACCES`. What is answered in the program's place, such
    /// as by [`emulate`](crate::emulate), is done by this process and not confined.
    ///
    /// If it fails, so does spawning, with [`SpawnStep::RestrictAccess`](crate::SpawnStep::RestrictAccess): with `EBADFD`
    /// if the descriptor is something else, `EPERM` without [`no_new_privs`](Self::no_new_privs) and `CAP_SYS_ADMIN`,
    /// `E2BIG` if the child is under 16 rulesets already.
    ///
    /// # Kernel support
    ///
    /// `landlock_restrict_self(2)`, since Linux 5.13, where it is among the security modules that were chosen at the boot
    /// (`landlock(7)`); otherwise spawning fails with [`Error::Unsupported`](crate::Error::Unsupported). Which rights a
    /// ruleset can handle depends on the kernel's Landlock ABI.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::os::fd::OwnedFd;
    ///
    /// use asm_tracer::{Command, Stdio, Supervisor};
    /// use landlock::{ABI, AccessFs, Ruleset, RulesetAttr};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // Nothing may be written, created or removed.
    /// let ruleset = Ruleset::default().handle_access(AccessFs::from_write(ABI::V1))?.create()?;
    /// let Some(ruleset) = Option::<OwnedFd>::from(ruleset) else {
    ///     return Ok(()); // This kernel has no Landlock.
    /// };
    /// let mut supervisor = Supervisor::new();
    /// let mut command = Command::new("touch");
    /// command.arg("/tmp/touched").stderr(Stdio::null()).landlock(ruleset);
    /// let mut child = supervisor.spawn(&mut command).await?;
    /// while let Some(call) = supervisor.next().await {
    ///     call.continue_syscall()?;
    /// }
    /// assert!(!child.wait().await?.success());
    /// # Ok(())
    /// # }
    /// ```
    pub fn landlock(&mut self, ruleset: impl Into<OwnedFd>) -> &mut Self {
        self.landlock = Some(Arc::new(ruleset.into()));
        self
    }

    /// Starts the program and gives the child and the listener for its calls, for a task of its own.
    ///
    /// The calls must be served for the program to get on. [`Supervisor::spawn`](crate::Supervisor::spawn) serves
    /// many children in one loop.
    ///
    /// Other code of this process that forks without executing anything keeps what is open at that moment, and can
    /// so keep a start from ending until it closes it or exits.
    ///
    /// # Errors
    ///
    /// Whatever kept the program from running, by the step that failed: [`Error::Spawn`](crate::Error::Spawn) with
    /// [`SpawnStep::Exec`](crate::SpawnStep::Exec) and `ENOENT` for a missing program; see [`Error`](crate::Error)
    /// for the others. Nothing is left behind.
    ///
    /// # Panics
    ///
    /// If the Tokio runtime has no I/O driver (`enable_io`).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills and reaps what it had started.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> asm_tracer::Result<()> {
    /// use asm_tracer::{Command, Filter, Sysno};
    ///
    /// let (mut child, mut listener) =
    ///     Command::new("true").filter(Filter::new().trap(Sysno::brk)).spawn().await?;
    /// tokio::spawn(async move {
    ///     while let Some(call) = listener.next().await {
    ///         let _ = call.continue_syscall();
    ///     }
    /// });
    /// assert!(child.wait().await?.success());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn spawn(&mut self) -> Result<(Child, Listener)> {
        spawn::spawn(self).await
    }

    /// Starts the program under this filter in place of its own, of which it must have none.
    pub(crate) async fn spawn_under(&mut self, filter: Filter) -> Result<(Child, Listener)> {
        if self.filter != Filter::new() {
            let why = "the command has a filter of its own, which the plan would replace";
            return Err(Error::InvalidPlan(why.into()));
        }
        let under = Under(self);
        under.0.filter = filter;
        spawn::spawn(under.0).await
    }

    /// Has the standard streams that are inherited be these, and gives which they are.
    pub(crate) fn replace_inherited(&mut self, streams: [Stdio; 3]) -> [bool; 3] {
        let mut replaced = [false; 3];
        for ((stream, new), replaced) in self.stdio.iter_mut().zip(streams).zip(&mut replaced) {
            if stream.is_inherited() {
                *stream = new;
                *replaced = true;
            }
        }
        replaced
    }

    pub(crate) fn restore_inherited(&mut self, replaced: [bool; 3]) {
        for (stream, replaced) in self.stdio.iter_mut().zip(replaced) {
            if replaced {
                *stream = Stdio::inherit();
            }
        }
    }

    /// Whether its calls, once received, are interrupted by fatal signals only.
    pub(crate) fn waits_killably(&self) -> bool {
        self.wait_killable.unwrap_or(KernelSupport::get().wait_killable)
    }

    pub(crate) fn kills_on_drop(&self) -> bool {
        self.kill_on_drop
    }
}

/// A command for the time of one start, which is left as it was even if the start is given up.
struct Under<'a>(&'a mut Command);

impl Drop for Under<'_> {
    fn drop(&mut self) {
        self.0.filter = Filter::new();
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("program", &self.program)
            .field("args", &self.args)
            .field("directory", &self.directory)
            .field("filter", &self.filter)
            .finish_non_exhaustive()
    }
}
