//! Why the kernel refused a call.

use std::num::NonZero;
use std::{fmt, io};

use nix::errno::Errno;

/// The largest errno. What is below −4095 is a result, such as an address.
const MAX_ERRNO: u16 = 4095;

/// The error number that the kernel returned instead of a result.
///
/// It is kept as it came, whether it has a name or not.
///
/// # Examples
///
/// ```
/// use asm_tracer::Errno;
/// use asm_tracer::syscall::{self, OpenFlags, Mode};
///
/// let error = syscall::open(c"/nonexistent", OpenFlags::READ_ONLY, Mode::new(0)).unwrap_err();
/// assert_eq!(error.errno(), Errno::ENOENT);
/// assert_eq!(error.to_string(), "ENOENT: No such file or directory");
/// assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::NotFound);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SyscallError(NonZero<u16>);

impl SyscallError {
    /// Where this library refuses an argument itself, because the kernel would take it for something else.
    pub(super) const INVALID_ARGUMENT: Self = Self(NonZero::new(libc::EINVAL as u16).unwrap());

    /// Where a result is no descriptor.
    pub(super) const BAD_DESCRIPTOR: Self = Self(NonZero::new(libc::EBADF as u16).unwrap());

    /// Tells a result from an error.
    #[inline]
    pub(super) fn check(returned: i64) -> Result<i64, Self> {
        match u16::try_from(returned.wrapping_neg()).ok().and_then(NonZero::new) {
            Some(errno) if errno.get() <= MAX_ERRNO => Err(Self(errno)),
            _ => Ok(returned),
        }
    }

    /// The error number by its name; [`Errno::UnknownErrno`] if it has none.
    ///
    /// # Examples
    ///
    /// ```
    /// use asm_tracer::{Errno, syscall};
    ///
    /// let refused = syscall::kill(i32::MAX, syscall::SignalNumber::NONE);
    /// assert_eq!(refused.unwrap_err().errno(), Errno::ESRCH);
    /// ```
    pub const fn errno(self) -> Errno {
        Errno::from_raw(self.raw_os_error())
    }

    /// The error number itself, 1 to 4095.
    ///
    /// # Examples
    ///
    /// ```
    /// use asm_tracer::{Errno, syscall};
    ///
    /// let refused = syscall::kill(i32::MAX, syscall::SignalNumber::NONE);
    /// assert_eq!(refused.unwrap_err().raw_os_error(), Errno::ESRCH as i32);
    /// ```
    pub const fn raw_os_error(self) -> i32 {
        self.0.get() as i32
    }
}

impl fmt::Display for SyscallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errno() {
            Errno::UnknownErrno => write!(f, "errno {}", self.0),
            errno => errno.fmt(f),
        }
    }
}

impl fmt::Debug for SyscallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errno() {
            Errno::UnknownErrno => write!(f, "SyscallError({})", self.0),
            errno => write!(f, "SyscallError({errno:?})"),
        }
    }
}

impl std::error::Error for SyscallError {}

impl From<SyscallError> for Errno {
    fn from(error: SyscallError) -> Self {
        error.errno()
    }
}

impl From<SyscallError> for io::Error {
    fn from(error: SyscallError) -> Self {
        Self::from_raw_os_error(error.raw_os_error())
    }
}

const _: () = assert!(size_of::<Result<(), SyscallError>>() == 2);
