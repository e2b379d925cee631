//! What can go wrong, named by what the caller was doing.

use std::fmt;
use std::io;

use nix::errno::Errno;

/// The result of an operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and at which step.
///
/// A target that dies while it is being looked at is [`Error::Gone`]; one that died before its answer
/// arrived is no error at all but [`Delivery::Gone`](crate::Delivery::Gone).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A step of starting the program failed. A missing program is `step: Exec` with `ENOENT`.
    #[error("could not start the program: {step} failed")]
    Spawn {
        /// The step that failed.
        step: SpawnStep,
        /// Why the kernel refused it.
        #[source]
        source: Errno,
    },
    /// The child died before it ran the program, and before it could say why.
    #[error("the child died before it could run the program ({status})")]
    DiedAtStart {
        /// How it died.
        status: std::process::ExitStatus,
    },
    /// The kernel allows one listener for a process and its ancestors, and there is one already (`EBUSY`).
    ///
    /// This happens under another supervisor: some container managers, WSL, or a supervisor of this crate.
    /// The filter can be installed once that listener is closed.
    #[error(
        "a seccomp listener already supervises this process (a container manager, WSL or another supervisor); \
         the kernel allows only one: run outside of it, or close it first"
    )]
    NestedListener,
    /// This process traces itself already, or did: a filter can't be taken off.
    #[error("this process traces its own system calls already, or did so once; that can't be changed")]
    AlreadyTracing,
    /// The program has a handler for `SIGSYS` already.
    #[error("another part of this program handles SIGSYS; only one can")]
    SigsysTaken,
    /// Threads block `SIGSYS`, and would be killed with the process by their first trapped call.
    #[error(
        "threads {threads:?} of this process block SIGSYS; unblock it there, or trace the calling thread only"
    )]
    SigsysBlocked {
        /// Their ids.
        threads: Vec<i32>,
    },
    /// The capacity of a ring is not a power of two up to 2^20.
    #[error("a ring's capacity must be a power of two and at most 1048576; it can't be {0}")]
    InvalidCapacity(usize),
    /// The events of this process have another reader at present.
    #[error("the events of this process are being read already")]
    EventsTaken,
    /// The filter can't be applied to all threads, because one of them has a filter that the calling one has not (`ESRCH`).
    #[error(
        "a thread of this process has a filter of its own, so that this one can't be applied to all of them; \
         apply it before there are threads"
    )]
    DifferentFilters,
    /// The kernel refused to install the filter (`EACCES`).
    #[error(
        "no permission to install a filter without no_new_privs; \
         leave `no_new_privs` on, or give the supervisor CAP_SYS_ADMIN"
    )]
    FilterDenied,
    /// The running kernel lacks a feature that can't be done without, or a container forbids it.
    #[error(
        "the kernel does not offer {feature}, which came with Linux {since} and which containers may forbid"
    )]
    Unsupported {
        /// What is missing.
        feature: &'static str,
        /// The first release that has it.
        since: &'static str,
    },
    /// The filter compiles to more instructions than the kernel takes (4 096).
    #[error(
        "the filter needs {instructions} instructions and the kernel takes {limit}; \
         use fewer rules with argument conditions"
    )]
    FilterTooLarge {
        /// What the filter would need.
        instructions: usize,
        /// What the kernel takes.
        limit: usize,
    },
    /// A rule of the filter can't be expressed or could never match.
    #[error("invalid filter: {0}")]
    InvalidFilter(String),
    /// The command can't be turned into a program start.
    #[error("invalid command: {0}")]
    InvalidCommand(&'static str),
    /// The supervising process or the system has no descriptor left (`EMFILE`, `ENFILE`).
    #[error("out of file descriptors at {step}; close some or raise RLIMIT_NOFILE, then try again")]
    OutOfDescriptors {
        /// The step that needed one.
        step: SpawnStep,
        /// Which limit was hit: `EMFILE` that of the process, `ENFILE` that of the system.
        #[source]
        source: Errno,
    },
    /// The kernel has no memory, or no process slot, left for this (`ENOMEM`, `EAGAIN`).
    #[error("out of memory or processes at {step}; raise RLIMIT_NPROC, RLIMIT_AS or the cgroup's limits")]
    OutOfMemory {
        /// The step that needed it.
        step: SpawnStep,
        /// `ENOMEM` for memory, `EAGAIN` for processes.
        #[source]
        source: Errno,
    },
    /// The target is gone: it died, or a signal took the call back.
    #[error("the target is gone: it died, or a signal took its call back")]
    Gone,
    /// The target has no memory at this address, or not with this permission (`EFAULT`).
    #[error("the target's memory at {address:#x} is not accessible")]
    Fault {
        /// The address in the target.
        address: u64,
    },
    /// The kernel, or a container's filter, does not let this process access the target's memory or descriptors
    /// (`EPERM`).
    #[error(
        "no permission to look into the target; it needs the same uid and a dumpable target, or CAP_SYS_PTRACE, \
         and a container that permits process_vm_readv(2) and pidfd_getfd(2)"
    )]
    NoAccess,
    /// The target can't take the descriptor.
    ///
    /// `EMFILE`: it has as many as its `RLIMIT_NOFILE` permits. `EBADF`: the number to replace is negative or not below that
    /// limit. `EBUSY`: another thread of it is just opening something under that number.
    #[error("could not install the descriptor in the target")]
    InstallFd {
        /// The number that was to be replaced, if it was not for the kernel to choose.
        number: Option<i32>,
        /// Why the kernel refused it.
        #[source]
        source: Errno,
    },
    /// The target has nothing open under this number (`EBADF`).
    #[error("the target has no descriptor {number}")]
    BadFd {
        /// The number in the target.
        number: i32,
    },
    /// Another process traces the target already, such as a debugger or strace; the kernel allows one.
    #[error("process {tracer} traces the target already, and only one can")]
    AlreadyTraced {
        /// Its pid.
        tracer: i32,
    },
    /// The kernel does not let this process trace the target (`EPERM`).
    #[error(
        "no permission to trace the target; it needs the same uid and a dumpable target, or CAP_SYS_PTRACE, \
         with Yama a descendant of this process, and it can't be a thread of this very process"
    )]
    TracingDenied,
    /// What happens to this call can't be changed or observed.
    #[error("this call can't be borrowed: {0}")]
    NotBorrowable(&'static str),
    /// The arguments of the call are such that it fails, whatever is decided about it.
    #[error("the call's arguments are invalid")]
    InvalidCall {
        /// What the kernel would answer.
        #[source]
        source: Errno,
    },
    /// The string in the target does not end within the limit, or the array is longer.
    #[error("what is at {address:#x} is longer than {limit} bytes")]
    TooLong {
        /// The address in the target.
        address: u64,
        /// The limit in bytes.
        limit: usize,
    },
    /// The target lives in a pid namespace that this process can't see into, so it has no pid here.
    #[error("the target has no pid in this process's pid namespace")]
    UnknownPid,
    /// The answer means something else to the kernel than it says.
    #[error("invalid answer: {0}")]
    InvalidAnswer(&'static str),
    /// The descriptor is not a seccomp listener.
    #[error("the descriptor is not a seccomp listener")]
    NotAListener,
    /// Other code of this process reaped the child, so that its exit status is lost.
    #[error("the child was reaped by other code of this process (a waitpid(-1), or SIGCHLD ignored)")]
    Reaped,
    /// The hook panicked. The call that it was looking at failed with `ENOSYS`, and it was called again for the next ones.
    #[error("the hook panicked: {message}")]
    HookPanicked {
        /// What it said when it panicked first.
        message: String,
        /// How the child ended; `None` for the users of a listener that came from elsewhere.
        status: Option<std::process::ExitStatus>,
    },
    /// A fault can't be meant as it is said.
    #[error("invalid fault plan: {0}")]
    InvalidPlan(String),
    /// There is no such case of a sweep.
    #[error("invalid case `{case}`: {why}")]
    InvalidCase {
        /// What was said.
        case: String,
        /// What is wrong with it.
        why: String,
    },
    /// A program can't be swept.
    #[error("the program can't be swept: {0}")]
    NotSweepable(String),
    /// The journal of a sweep is not one of this sweep, or can't be read.
    #[error("the journal {}: {why}", path.display())]
    InvalidJournal {
        /// Which file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No fault has hit before the program ended.
    #[error("no further fault has hit before the program's end; {last_calls}")]
    NotHit {
        /// What the program did last, of what was trapped.
        last_calls: String,
    },
    /// The supervisor that this spawner belongs to was dropped.
    #[error("the supervisor was dropped")]
    SupervisorGone,
    /// There is no Tokio runtime with I/O enabled here.
    #[error("this must run inside a Tokio runtime with I/O enabled")]
    NoRuntime,
    /// An operation that should not fail did.
    #[error("{operation} failed")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn os(operation: &'static str, errno: Errno) -> Self {
        Self::Io {
            operation,
            source: errno.into(),
        }
    }

    /// Gives a failed step of a start the variant that says what to do about it.
    pub(crate) fn spawn(step: SpawnStep, source: Errno) -> Self {
        match (step, source) {
            (SpawnStep::InstallFilter, Errno::EBUSY) => Self::NestedListener,
            (SpawnStep::InstallFilter, Errno::EACCES) => Self::FilterDenied,
            (SpawnStep::RestrictAccess, Errno::ENOSYS | Errno::EOPNOTSUPP) => Self::Unsupported {
                feature: "Landlock",
                since: "5.13",
            },
            (_, Errno::EMFILE | Errno::ENFILE) => Self::OutOfDescriptors { step, source },
            (_, Errno::ENOMEM | Errno::EAGAIN) => Self::OutOfMemory { step, source },
            _ => Self::Spawn { step, source },
        }
    }

    /// The kernel's error number behind this error, where there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Spawn { source, .. }
            | Self::OutOfDescriptors { source, .. }
            | Self::OutOfMemory { source, .. }
            | Self::InstallFd { source, .. }
            | Self::InvalidCall { source } => Some(*source),
            Self::BadFd { .. } => Some(Errno::EBADF),
            Self::NestedListener => Some(Errno::EBUSY),
            Self::FilterDenied => Some(Errno::EACCES),
            Self::Gone | Self::DifferentFilters => Some(Errno::ESRCH),
            Self::Fault { .. } => Some(Errno::EFAULT),
            Self::NoAccess | Self::AlreadyTraced { .. } | Self::TracingDenied => Some(Errno::EPERM),
            Self::TooLong { .. } => Some(Errno::ENAMETOOLONG),
            Self::Reaped => Some(Errno::ECHILD),
            Self::Unsupported { .. } => Some(Errno::ENOSYS),
            Self::FilterTooLarge { .. }
            | Self::InvalidFilter(_)
            | Self::InvalidCommand(_)
            | Self::InvalidPlan(_)
            | Self::InvalidCase { .. }
            | Self::InvalidJournal { .. }
            | Self::InvalidAnswer(_)
            | Self::NotBorrowable(_)
            | Self::InvalidCapacity(_)
            | Self::NotAListener => Some(Errno::EINVAL),
            Self::AlreadyTracing | Self::SigsysTaken | Self::EventsTaken => Some(Errno::EBUSY),
            Self::Io { source, .. } => source.raw_os_error().map(Errno::from_raw),
            Self::DiedAtStart { .. }
            | Self::HookPanicked { .. }
            | Self::NotHit { .. }
            | Self::NotSweepable(_)
            | Self::SigsysBlocked { .. }
            | Self::UnknownPid
            | Self::SupervisorGone
            | Self::NoRuntime => None,
        }
    }
}

impl From<Error> for io::Error {
    /// Keeps the kernel's reason as the [`kind`](io::Error::kind) and the whole error as the inner one.
    fn from(error: Error) -> Self {
        let kind = error.errno().map_or(io::ErrorKind::Other, |errno| {
            io::Error::from_raw_os_error(errno as i32).kind()
        });
        io::Error::new(kind, error)
    }
}

/// A step of starting a program, in the order in which they happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u32)]
pub enum SpawnStep {
    /// Starting the thread that serves the child's calls ([`blocking`](crate::blocking)).
    StartServer,
    /// Opening `/dev/null`, the pipes and the socket over which the listener arrives.
    Prepare,
    /// Starting the thread from which children are cloned.
    StartLauncher,
    /// Making the child process.
    Clone,
    /// Resetting the child's signal handlers.
    ResetSignals,
    /// Giving the child its standard streams.
    RedirectStdio,
    /// Changing the supplementary groups or the group.
    SetGid,
    /// Changing the user.
    SetUid,
    /// Changing the working directory.
    ChangeDirectory,
    /// Moving the child to its process group.
    SetProcessGroup,
    /// Running a `pre_exec` closure.
    PreExec,
    /// Asking for a signal when the supervisor dies.
    SetParentDeathSignal,
    /// Setting `no_new_privs`.
    SetNoNewPrivs,
    /// Restricting the child's access by Landlock.
    RestrictAccess,
    /// Installing the filter.
    InstallFilter,
    /// Sending the listener to the supervisor.
    HandOver,
    /// Receiving the listener and registering it with the runtime.
    Receive,
    /// Executing the program.
    Exec,
}

impl SpawnStep {
    const ALL: [Self; 18] = [
        Self::StartServer,
        Self::Prepare,
        Self::StartLauncher,
        Self::Clone,
        Self::ResetSignals,
        Self::RedirectStdio,
        Self::SetGid,
        Self::SetUid,
        Self::ChangeDirectory,
        Self::SetProcessGroup,
        Self::PreExec,
        Self::SetParentDeathSignal,
        Self::SetNoNewPrivs,
        Self::RestrictAccess,
        Self::InstallFilter,
        Self::HandOver,
        Self::Receive,
        Self::Exec,
    ];

    /// The step with this number, as the child reports it.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|step| *step as u32 == number)
    }
}

impl fmt::Display for SpawnStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StartServer => "starting the thread that serves the calls",
            Self::Prepare => "preparing the child's descriptors",
            Self::StartLauncher => "starting the launcher thread",
            Self::Clone => "cloning the child",
            Self::ResetSignals => "resetting the signal handlers",
            Self::RedirectStdio => "redirecting the standard streams",
            Self::SetGid => "changing the group",
            Self::SetUid => "changing the user",
            Self::ChangeDirectory => "changing the working directory",
            Self::SetProcessGroup => "setting the process group",
            Self::PreExec => "a pre_exec closure",
            Self::SetParentDeathSignal => "setting the parent death signal",
            Self::SetNoNewPrivs => "setting no_new_privs",
            Self::RestrictAccess => "restricting its access",
            Self::InstallFilter => "installing the filter",
            Self::HandOver => "sending the listener",
            Self::Receive => "receiving the listener",
            Self::Exec => "executing the program",
        })
    }
}
