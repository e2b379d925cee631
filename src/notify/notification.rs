use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::unistd::Pid;
use syscalls::Sysno;

use super::{Source, uapi};
use crate::bound::Bound;
use crate::error::{Error, Result};
use crate::pidfd;

/// Says which supervised tree a notification came from: the child and all of its descendants share one key.
///
/// Keys are unique for the life of this process, unlike pids and unlike the kernel's notification ids, which
/// are numbered anew for each listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChildKey(u64);

impl ChildKey {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ChildKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The calling convention through which a system call was made; it decides what its number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Arch {
    /// A 64-bit call; the only one whose number [`Sysno`] names.
    X86_64,
    /// A 32-bit call (`int 0x80` or a 32-bit program): other numbers, and arguments of 32 bits.
    I386,
    /// A 64-bit call with 32-bit pointers, marked by bit 30 of the number.
    X32,
    /// Anything else, by its `AUDIT_ARCH` value.
    Other(u32),
}

impl Arch {
    fn of(audit_arch: u32, nr: i32) -> Self {
        match audit_arch {
            uapi::AUDIT_ARCH_X86_64 if (0x4000_0000..=0x7fff_ffff).contains(&nr) => Self::X32,
            uapi::AUDIT_ARCH_X86_64 => Self::X86_64,
            uapi::AUDIT_ARCH_I386 => Self::I386,
            other => Self::Other(other),
        }
    }
}

/// A system call as the target made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TrappedSyscall {
    /// The number. A hostile target may use any value that fits an `i32`.
    pub nr: i64,
    /// The six argument registers as they are; C's `int` arguments may have anything in their upper half. Of an
    /// [`Arch::I386`] call they are the lower halves, since that is what the kernel takes.
    pub args: [i64; 6],
}

impl TrappedSyscall {
    /// The call's name, or `None` if x86-64 Linux has no call of that number.
    ///
    /// The number alone does not say through which ABI the call came; [`Notification::sysno`] knows.
    pub fn sysno(&self) -> Option<Sysno> {
        usize::try_from(self.nr).ok().and_then(Sysno::new)
    }
}

/// Which thread waits for an answer, and to which call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrozenThread {
    tid: u32,
    pub(super) id: u64,
}

impl FrozenThread {
    /// The thread as this process numbers it.
    pub(super) fn target(self) -> Result<Pid> {
        let tid = i32::try_from(self.tid).ok().filter(|tid| *tid > 0);
        tid.map(Pid::from_raw).ok_or(Error::UnknownPid)
    }
}

/// One frozen thread: a trapped system call that waits for its answer.
///
/// It is answered once, by value: [`continue_syscall`](Self::continue_syscall), [`respond`](Self::respond),
/// [`respond_with_fd`](Self::respond_with_fd) or [`error`](Self::error). A notification that is dropped unanswered (a panic, an aborted task, a timeout) makes
/// the call fail with `ENOSYS`; it is never let through. So `tokio::time::timeout(limit, handle(call))` is a
/// complete deadline for a handler.
///
/// It holds the listener open, may be sent to other tasks and threads, and may outlive the
/// [`Supervisor`](crate::Supervisor) or [`Listener`](crate::Listener) that gave it.
///
/// # Security
///
/// The thread is frozen, its process is not: other threads, and processes that share the memory, can change what
/// a pointer argument points to between the look at it and the kernel's own reading. So
/// [`continue_syscall`](Self::continue_syscall) after an inspection of *memory* is not a security decision.
/// Register values ([`args`](Self::args)) can't change.
///
/// # Kernel support
///
/// Since Linux 5.9; see `seccomp_unotify(2)`.
#[must_use = "a notification that is dropped makes the call fail with ENOSYS"]
pub struct Notification {
    pub(super) source: Arc<Source>,
    pub(super) id: u64,
    tid: u32,
    audit_arch: u32,
    instruction_pointer: u64,
    call: TrappedSyscall,
    pub(super) answered: bool,
}

impl Notification {
    pub(super) fn new(source: Arc<Source>, request: &uapi::Request) -> Self {
        // A 64-bit program may put anything into the upper halves before an `int 0x80`, and the kernel reports them;
        // but it runs the call with the lower ones (T32).
        let taken = match request.data.arch {
            uapi::AUDIT_ARCH_I386 => u64::from(u32::MAX),
            _ => u64::MAX,
        };
        Self {
            source,
            id: request.id,
            tid: request.tid,
            audit_arch: request.data.arch,
            instruction_pointer: request.data.instruction_pointer,
            call: TrappedSyscall {
                nr: request.data.nr.into(),
                args: request.data.args.map(|register| (register & taken) as i64),
            },
            answered: false,
        }
    }

    /// The call's number and arguments.
    pub fn syscall(&self) -> &TrappedSyscall {
        &self.call
    }

    /// The call's name; `None` if x86-64 Linux has no such call, or the call was made through another ABI.
    pub fn sysno(&self) -> Option<Sysno> {
        match self.arch() {
            Arch::X86_64 => self.call.sysno(),
            _ => None,
        }
    }

    /// The call's number, to be read together with [`arch`](Self::arch).
    pub fn nr(&self) -> i64 {
        self.call.nr
    }

    /// The six argument registers.
    pub fn args(&self) -> [i64; 6] {
        self.call.args
    }

    /// The ABI through which the call was made.
    ///
    /// Anything but [`Arch::X86_64`] arrives only if [`Filter::foreign_abi`](crate::Filter::foreign_abi) traps it.
    pub fn arch(&self) -> Arch {
        Arch::of(self.audit_arch, self.call.nr as i32)
    }

    /// The address of the instruction after the call, in the target.
    pub fn instruction_pointer(&self) -> u64 {
        self.instruction_pointer
    }

    /// The supervised tree that the call came from; compare with [`Child::key`](crate::Child::key).
    pub fn child(&self) -> ChildKey {
        self.source.child
    }

    /// The calling *thread*, as this process numbers it; `None` if it lives in a pid namespace that this process
    /// can't see into.
    pub fn tid(&self) -> Option<i32> {
        self.thread().target().ok().map(Pid::as_raw)
    }

    /// The calling *process*. A thread that does not lead it is looked up in `/proc`.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownPid`] if the target's pid namespace can't be seen from here, [`Error::Gone`] if the target
    /// no longer waits, [`Error::Io`] if `/proc` is not there.
    pub fn pid(&self) -> Result<i32> {
        let tid = self.target()?;
        if pidfd::leads_process(tid) {
            self.check_pending()?;
            return Ok(tid.as_raw());
        }
        let status = std::fs::read_to_string(format!("/proc/{tid}/status"));
        // What was found out is about the frozen thread only if it is frozen still: tids are used again.
        self.check_pending()?;
        let status = status.map_err(|source| Error::Io {
            operation: "reading /proc",
            source,
        })?;
        let pid = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
        pid.and_then(|pid| pid.trim().parse().ok()).ok_or(Error::Gone)
    }

    /// Tells whether the target still waits for the answer.
    ///
    /// It stops waiting when it dies, and when a signal takes the call back (`seccomp_unotify(2)`); an interrupted
    /// call that is restarted comes as a new notification. `true` may be outdated as soon as it is returned.
    pub fn is_pending(&self) -> bool {
        self.check_pending().is_ok()
    }

    pub(super) fn check_pending(&self) -> Result<()> {
        self.source.check_pending(self.id)
    }

    pub(super) fn target(&self) -> Result<Pid> {
        self.thread().target()
    }

    /// The threads for what is done in the target's place.
    pub(crate) fn bound(&self) -> Arc<Bound> {
        Arc::clone(&self.source.bound)
    }

    pub(crate) fn thread(&self) -> FrozenThread {
        FrozenThread {
            tid: self.tid,
            id: self.id,
        }
    }
}

impl fmt::Debug for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notification")
            .field("child", &self.source.child)
            .field("tid", &self.tid)
            .field("arch", &self.arch())
            .field("sysno", &self.sysno())
            .field("syscall", &self.call)
            .finish_non_exhaustive()
    }
}
