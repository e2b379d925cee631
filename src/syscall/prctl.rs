//! Properties of this thread and this process.
#![allow(unsafe_code)]

use std::ffi::CStr;

use super::{SignalNumber, SyscallError, pointer, syscall5};

/// A property that is set or asked for; see `prctl(2)`.
///
/// The answer is the result of [`prctl`], or is stored where the variant says.
#[derive(Debug)]
#[non_exhaustive]
pub enum Prctl<'a> {
    /// Has this thread's programs gain no privileges any more, such as by set-uid, since Linux 3.5. Not to be undone.
    #[doc(alias = "PR_SET_NO_NEW_PRIVS")]
    SetNoNewPrivs,
    /// Gives 1 if that is so, else 0.
    #[doc(alias = "PR_GET_NO_NEW_PRIVS")]
    GetNoNewPrivs,
    /// Whether this process may leave a core dump, and be traced without privileges.
    #[doc(alias = "PR_SET_DUMPABLE")]
    SetDumpable(bool),
    /// Gives 1 if that is so, 2 if only for root, else 0.
    #[doc(alias = "PR_GET_DUMPABLE")]
    GetDumpable,
    /// The signal that this process gets when the *thread* that made it ends. A set-uid execution clears it.
    #[doc(alias = "PR_SET_PDEATHSIG")]
    SetParentDeathSignal(SignalNumber),
    /// Stores the number of that signal, 0 for none.
    #[doc(alias = "PR_GET_PDEATHSIG")]
    GetParentDeathSignal(&'a mut i32),
    /// The name of this thread, of which the kernel keeps 15 bytes.
    #[doc(alias = "PR_SET_NAME")]
    SetName(&'a CStr),
    /// Stores the name of this thread, which a zero ends.
    #[doc(alias = "PR_GET_NAME")]
    GetName(&'a mut [u8; 16]),
    /// Whether orphaned descendants become children of this process, since Linux 3.4.
    #[doc(alias = "PR_SET_CHILD_SUBREAPER")]
    SetChildSubreaper(bool),
    /// Stores 1 if that is so, else 0.
    #[doc(alias = "PR_GET_CHILD_SUBREAPER")]
    GetChildSubreaper(&'a mut i32),
    /// By how many nanoseconds this thread's timers may be late; 0 for its default.
    #[doc(alias = "PR_SET_TIMERSLACK")]
    SetTimerSlack(u64),
    /// Gives that number, which is 0 for a real-time thread.
    #[doc(alias = "PR_GET_TIMERSLACK")]
    GetTimerSlack,
    /// Who besides its ancestors may trace this process where the Yama LSM restricts that; without Yama it is `EINVAL`.
    #[doc(alias = "PR_SET_PTRACER")]
    SetPtracer(Ptracer),
}

/// Who may trace this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ptracer {
    /// Nobody but its ancestors.
    None,
    /// Whoever has the permissions otherwise.
    #[doc(alias = "PR_SET_PTRACER_ANY")]
    Any,
    /// The process with this pid, and its descendants. One that is not positive is refused with `EINVAL`.
    Pid(i32),
}

impl Ptracer {
    /// The kernel's number for them.
    fn argument(self) -> Result<i64, SyscallError> {
        match self {
            Self::None => Ok(0),
            Self::Any => Ok(-1),
            Self::Pid(pid) if pid > 0 => Ok(pid.into()),
            Self::Pid(_) => Err(SyscallError::INVALID_ARGUMENT),
        }
    }
}

/// Sets or gets a property of this thread or process, and returns what the kernel answers; see `prctl(2)`.
///
/// The kernel demands zeros where it takes no argument, and gets them.
///
/// # Errors
///
/// `EINVAL` if the kernel does not know the property or the value. None of these is ever `EINTR`.
///
/// # Examples
///
/// ```
/// use asm_tracer::syscall::{self, Prctl, SyscallError};
///
/// # std::thread::spawn(|| {
/// syscall::prctl(Prctl::SetName(c"worker"))?;
/// let mut name = [0; 16];
/// syscall::prctl(Prctl::GetName(&mut name))?;
/// assert!(name.starts_with(b"worker\0"));
///
/// syscall::prctl(Prctl::SetNoNewPrivs)?;
/// assert_eq!(syscall::prctl(Prctl::GetNoNewPrivs)?, 1);
/// # Ok::<(), SyscallError>(())
/// # }).join().unwrap()?;
/// # Ok::<(), SyscallError>(())
/// ```
pub fn prctl(request: Prctl<'_>) -> Result<i64, SyscallError> {
    let (option, argument): (i32, i64) = match request {
        Prctl::SetNoNewPrivs => (libc::PR_SET_NO_NEW_PRIVS, 1),
        Prctl::GetNoNewPrivs => (libc::PR_GET_NO_NEW_PRIVS, 0),
        Prctl::SetDumpable(dumpable) => (libc::PR_SET_DUMPABLE, dumpable.into()),
        Prctl::GetDumpable => (libc::PR_GET_DUMPABLE, 0),
        Prctl::SetParentDeathSignal(signal) => (libc::PR_SET_PDEATHSIG, signal.as_raw().into()),
        Prctl::GetParentDeathSignal(signal) => (libc::PR_GET_PDEATHSIG, pointer(&raw mut *signal)),
        Prctl::SetName(name) => (libc::PR_SET_NAME, pointer(name.as_ptr())),
        Prctl::GetName(name) => (libc::PR_GET_NAME, pointer(&raw mut *name)),
        Prctl::SetChildSubreaper(subreaper) => (libc::PR_SET_CHILD_SUBREAPER, subreaper.into()),
        Prctl::GetChildSubreaper(subreaper) => (libc::PR_GET_CHILD_SUBREAPER, pointer(&raw mut *subreaper)),
        Prctl::SetTimerSlack(nanoseconds) => (libc::PR_SET_TIMERSLACK, nanoseconds.cast_signed()),
        Prctl::GetTimerSlack => (libc::PR_GET_TIMERSLACK, 0),
        Prctl::SetPtracer(ptracer) => (libc::PR_SET_PTRACER, ptracer.argument()?),
    };
    // SAFETY: the kernel reads a string that ends, or writes one number or sixteen bytes, to which the request holds a
    // reference.
    unsafe { syscall5(libc::SYS_prctl, option.into(), argument, 0, 0, 0) }
}
