//! Signals to processes, and the numbers that mean one or many of them.
#![allow(unsafe_code)]

use super::{SignalNumber, SyscallError, syscall2};

/// Which processes are meant.
///
/// The kernel takes one number for all of these, in which 0, −1 and other negative numbers have a meaning. Here a
/// number is a process or a group, and one that is not positive is refused with `EINVAL`; so is the group 1, which the
/// kernel would take for everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Processes {
    /// The process with this pid.
    One(i32),
    /// The processes of the group with this id.
    Group(i32),
    /// The processes of the group that the caller belongs to.
    OwnGroup,
    /// Whomever the caller may signal, but for itself and the first process; or any child.
    All,
}

impl Processes {
    /// The kernel's number for them.
    pub(super) fn argument(self) -> Result<i64, SyscallError> {
        match self {
            Self::One(pid) if pid > 0 => Ok(pid.into()),
            Self::Group(group) if group > 1 => Ok(-i64::from(group)),
            Self::One(_) | Self::Group(_) => Err(SyscallError::INVALID_ARGUMENT),
            Self::OwnGroup => Ok(0),
            Self::All => Ok(-1),
        }
    }
}

impl From<i32> for Processes {
    /// The one process with this pid.
    fn from(pid: i32) -> Self {
        Self::One(pid)
    }
}

/// Sends a signal, or with [`SignalNumber::NONE`] finds out whether one could be sent; see `kill(2)`.
///
/// To more than one process it is a success if at least one could be signalled. A pid may be another process's by now,
/// unless it is that of a child that nobody has waited for.
///
/// # Errors
///
/// `ESRCH` if there is no such process, `EPERM` if none of them may be signalled, `EINVAL` for an unknown signal or
/// refused [`Processes`]. Never `EINTR`.
///
/// # Examples
///
/// ```
/// use std::os::unix::process::ExitStatusExt;
///
/// use asm_tracer::{Signal, syscall};
///
/// let mut child = std::process::Command::new("sleep").arg("1000").spawn()?;
/// syscall::kill(child.id() as i32, Signal::SIGTERM)?;
/// assert_eq!(child.wait()?.signal(), Some(Signal::SIGTERM as i32));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn kill(target: impl Into<Processes>, signal: impl Into<SignalNumber>) -> Result<(), SyscallError> {
    let (target, signal) = (target.into().argument()?, signal.into().as_raw());
    // SAFETY: no memory is involved.
    unsafe { syscall2(libc::SYS_kill, target, signal.into()) }.map(drop)
}
