//! The stubs with results and errors told apart.
#![allow(unsafe_code)]

use super::error::SyscallError;
use super::raw::*;

/// Declares a checked call and its documentation, with the arguments of the example and its result.
macro_rules! checked {
    ($name:ident($($argument:ident),*) by $raw:ident: $count:literal, $call:literal == $value:literal) => {
        #[doc = concat!("Makes a system call with ", $count, " and tells its result from an error.")]
        ///
        /// Only −4095..=−1 is an error; any other negative value, such as an address, is a result.
        ///
        /// # Errors
        ///
        /// Whatever the kernel returns.
        ///
        /// # Safety
        ///
        /// The kernel must do nothing to the memory of this process that breaks what other code relies on.
        ///
        /// # Examples
        ///
        /// ```
        /// use asm_tracer::{Errno, Sysno};
        #[doc = concat!("use asm_tracer::syscall::", stringify!($name), ";")]
        ///
        /// // SAFETY: it touches no memory.
        #[doc = concat!("let result = unsafe { ", stringify!($name), $call, " };")]
        #[doc = concat!("assert_eq!(result.map_err(|error| error.errno()), ", $value, ");")]
        /// # let _ = Errno::EBADF;
        /// ```
        #[inline]
        pub unsafe fn $name(nr: i64, $($argument: i64),*) -> Result<i64, SyscallError> {
            // SAFETY: the caller answers for what the kernel does.
            SyscallError::check(unsafe { $raw(nr, $($argument),*) })
        }
    };
}

checked!(syscall0() by raw_syscall0: "no argument",
    "(Sysno::getpid as i64)" == "Ok(std::process::id().into())");
checked!(syscall1(a) by raw_syscall1: "1 argument",
    "(Sysno::close as i64, -1)" == "Err(Errno::EBADF)");
checked!(syscall2(a, b) by raw_syscall2: "2 arguments",
    "(Sysno::kill as i64, std::process::id().into(), 0)" == "Ok(0)");
checked!(syscall3(a, b, c) by raw_syscall3: "3 arguments",
    "(Sysno::write as i64, -1, 0, 0)" == "Err(Errno::EBADF)");
checked!(syscall4(a, b, c, d) by raw_syscall4: "4 arguments",
    "(Sysno::pread64 as i64, -1, 0, 0, 0)" == "Err(Errno::EBADF)");
checked!(syscall5(a, b, c, d, e) by raw_syscall5: "5 arguments",
    "(Sysno::prctl as i64, -1, 0, 0, 0, 0)" == "Err(Errno::EINVAL)");
checked!(syscall6(a, b, c, d, e, f) by raw_syscall6: "6 arguments",
    "(Sysno::copy_file_range as i64, -1, 0, -1, 0, 0, 0)" == "Err(Errno::EBADF)");

/// A pointer as an argument. It is exposed: the compiler must know that the kernel may write through it.
#[inline]
pub(crate) fn pointer<T>(pointer: *const T) -> i64 {
    pointer.expose_provenance() as i64
}
