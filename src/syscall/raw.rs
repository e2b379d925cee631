//! The stubs of `asm/`: assembled by `build.rs`, or from the generated text where NASM is not installed.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ops::RangeInclusive;

#[cfg(not(asm_tracer_nasm))]
std::arch::global_asm!(include_str!("../../asm/generated/syscall.s"), options(raw));
#[cfg(not(asm_tracer_nasm))]
std::arch::global_asm!(include_str!("../../asm/generated/clone.s"), options(raw));

/// Declares a stub and its documentation, with an expression and its value as the example.
macro_rules! stub {
    ($stub:ident $name:ident($($argument:ident),*): $count:literal, $call:literal == $value:literal) => {
        unsafe extern "C" {
            #[link_name = stringify!($stub)]
            #[doc = concat!("Makes a system call with ", $count, " and returns what the kernel returned.")]
            ///
            /// An errno comes as −4095..=−1.
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
            #[doc = concat!("let returned = unsafe { ", stringify!($name), $call, " };")]
            #[doc = concat!("assert_eq!(returned, ", $value, ");")]
            /// # let _ = Errno::EBADF;
            /// ```
            pub fn $name(nr: i64, $($argument: i64),*) -> i64;
        }
    };
}

stub!(asm_tracer_syscall0 raw_syscall0(): "no argument",
    "(Sysno::getpid as i64)" == "i64::from(std::process::id())");
stub!(asm_tracer_syscall1 raw_syscall1(a): "1 argument",
    "(Sysno::close as i64, -1)" == "-(Errno::EBADF as i64)");
stub!(asm_tracer_syscall2 raw_syscall2(a, b): "2 arguments",
    "(Sysno::kill as i64, std::process::id().into(), 0)" == "0");
stub!(asm_tracer_syscall3 raw_syscall3(a, b, c): "3 arguments",
    "(Sysno::write as i64, -1, 0, 0)" == "-(Errno::EBADF as i64)");
stub!(asm_tracer_syscall4 raw_syscall4(a, b, c, d): "4 arguments",
    "(Sysno::pread64 as i64, -1, 0, 0, 0)" == "-(Errno::EBADF as i64)");
stub!(asm_tracer_syscall5 raw_syscall5(a, b, c, d, e): "5 arguments",
    "(Sysno::prctl as i64, -1, 0, 0, 0, 0)" == "-(Errno::EINVAL as i64)");
stub!(asm_tracer_syscall6 raw_syscall6(a, b, c, d, e, f): "6 arguments",
    "(Sysno::copy_file_range as i64, -1, 0, -1, 0, 0, 0)" == "-(Errno::EBADF as i64)");

unsafe extern "C" {
    /// Makes a child that begins in `entry(argument)` on a stack of its own; gives its pid, or an errno as
    /// −4095..=−1.
    ///
    /// # Safety
    ///
    /// `stack_top` must be the 16-byte aligned end of memory that only the child uses, `pidfd` valid for writing, and
    /// `entry` fit for whatever the flags make the child share.
    #[link_name = "asm_tracer_clone"]
    pub(crate) fn clone(
        flags: usize,
        stack_top: *mut u8,
        pidfd: *mut i32,
        entry: extern "C" fn(*mut c_void) -> !,
        argument: *mut c_void,
    ) -> i64;
}

unsafe extern "C" {
    fn asm_tracer_syscall_end();
    fn asm_tracer_clone_end();
}

/// The addresses after the instructions of the stubs, which a filter can tell from those of the rest of the program.
pub(crate) fn places() -> [RangeInclusive<u64>; 2] {
    let first = raw_syscall0 as *const ();
    let clone = clone as *const ();
    let end = |function: unsafe extern "C" fn()| function as usize as u64;
    [
        first.addr() as u64 + 1..=end(asm_tracer_syscall_end),
        clone.addr() as u64 + 1..=end(asm_tracer_clone_end),
    ]
}
