//! Waiting for children.
#![allow(unsafe_code)]

use std::mem::zeroed;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use super::flags::flags;
use super::{Processes, SyscallError, pointer, syscall4};

flags! {
    /// What a wait is for; see `wait4(2)`.
    ///
    /// # Examples
    ///
    /// ```
    /// use asm_tracer::syscall::WaitOptions;
    ///
    /// let options = WaitOptions::NOHANG | WaitOptions::ALL;
    /// assert_eq!(format!("{options:?}"), "WaitOptions(NOHANG | ALL)");
    /// ```
    pub struct WaitOptions {
        /// Returns at once if there is nothing to report.
        #[doc(alias = "WNOHANG")]
        NOHANG = libc::WNOHANG;
        /// Reports children that have stopped, too. Those that are traced are always reported.
        #[doc(alias = "WUNTRACED")]
        UNTRACED = libc::WUNTRACED;
        /// Reports children that `SIGCONT` has continued, too.
        #[doc(alias = "WCONTINUED")]
        CONTINUED = libc::WCONTINUED;
        /// Children of either kind, those that report their end by `SIGCHLD` and others.
        #[doc(alias = "__WALL")]
        ALL = libc::__WALL;
        /// Only children that report their end by another signal than `SIGCHLD`, or by none.
        #[doc(alias = "__WCLONE")]
        CLONE = libc::__WCLONE;
        /// Only children of this thread.
        #[doc(alias = "__WNOTHREAD")]
        OWN_THREAD = libc::__WNOTHREAD;
    }
}

/// A child's change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waited {
    /// The child's pid; for a tracer, the tid of one of its threads.
    pub pid: i32,
    /// How it ended or, as [`ExitStatusExt`] tells, that it stopped or continues.
    ///
    /// A `ptrace(2)` event is `status.into_raw() >> 16`.
    pub status: ExitStatus,
    /// What the child has used, and those of its descendants that have been waited for.
    pub usage: ResourceUsage,
}

/// What a process has used of the machine; see `getrusage(2)`.
#[doc(alias = "rusage")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ResourceUsage {
    /// The time spent in the program, in whole microseconds.
    pub user: Duration,
    /// The time spent in the kernel for it, in whole microseconds.
    pub system: Duration,
    /// The most memory that was resident at once, in bytes: of one process, the largest.
    pub max_resident: u64,
    /// Page faults that took no input or output.
    pub minor_faults: u64,
    /// Page faults that did.
    pub major_faults: u64,
    /// How often it waited for something.
    pub voluntary_switches: u64,
    /// How often it had to make room for others.
    pub involuntary_switches: u64,
}

/// Waits until a child changes its state, and reaps it if it has ended; see `wait4(2)`.
///
/// It is `None` with [`NOHANG`](WaitOptions::NOHANG) if there is nothing to report. Whoever owns a child that is reaped
/// here, such as [`std::process::Child`], will not learn of its end; [`Processes::All`] is for a process that owns all
/// of its children.
///
/// # Errors
///
/// `ECHILD` if there is no such child, or `SIGCHLD` is ignored and all have ended; `EINVAL` for refused [`Processes`].
/// A signal whose handler was installed without `SA_RESTART` ends the wait with `EINTR`, which is not retried here.
///
/// # Examples
///
/// ```
/// use asm_tracer::syscall::{self, WaitOptions};
///
/// # #[expect(clippy::zombie_processes)]
/// let child = std::process::Command::new("true").spawn()?;
/// let ended = syscall::wait4(child.id() as i32, WaitOptions::empty())?.expect("it waits for the end");
/// assert!(ended.status.success() && ended.usage.max_resident > 0);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn wait4(which: impl Into<Processes>, options: WaitOptions) -> Result<Option<Waited>, SyscallError> {
    let which = which.into().argument()?;
    let mut status = 0_i32;
    // SAFETY: integers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { zeroed() };
    let (status_at, usage_at) = (pointer(&raw mut status), pointer(&raw mut usage));
    // SAFETY: the kernel writes one status and one usage.
    let pid = unsafe { syscall4(libc::SYS_wait4, which, status_at, options.bits().into(), usage_at) }?;
    Ok((pid != 0).then(|| Waited {
        pid: pid as i32,
        status: ExitStatus::from_raw(status),
        usage: ResourceUsage::new(&usage),
    }))
}

impl ResourceUsage {
    fn new(usage: &libc::rusage) -> Self {
        Self {
            user: duration(usage.ru_utime),
            system: duration(usage.ru_stime),
            // The kernel counts in KiB.
            max_resident: usage.ru_maxrss.cast_unsigned().saturating_mul(1024),
            minor_faults: usage.ru_minflt.cast_unsigned(),
            major_faults: usage.ru_majflt.cast_unsigned(),
            voluntary_switches: usage.ru_nvcsw.cast_unsigned(),
            involuntary_switches: usage.ru_nivcsw.cast_unsigned(),
        }
    }
}

/// Plain addition could panic, which this module never does.
fn duration(time: libc::timeval) -> Duration {
    let seconds = Duration::from_secs(time.tv_sec.unsigned_abs());
    seconds.saturating_add(Duration::from_micros(time.tv_usec.unsigned_abs()))
}
