//! The stubs of `asm/`: assembled by `build.rs`, or from the generated text where NASM is not installed.
#![allow(unsafe_code)]

use std::ffi::c_void;

#[cfg(not(asm_tracer_nasm))]
std::arch::global_asm!(include_str!("../../asm/generated/syscall.s"), options(raw));
#[cfg(not(asm_tracer_nasm))]
std::arch::global_asm!(include_str!("../../asm/generated/clone.s"), options(raw));

/// Declares a stub and its documentation.
macro_rules! stub {
    ($stub:ident $name:ident($($argument:ident),*): $count:literal) => {
        unsafe extern "C" {
            #[link_name = stringify!($stub)]
            #[doc = concat!("Makes a system call with ", $count, " arguments; an errno comes as −4095..=−1.")]
            ///
            /// # Safety
            ///
            /// The kernel must do nothing to the memory of this process that breaks what other code relies on.
            pub fn $name(number: usize, $($argument: usize),*) -> isize;
        }
    };
}

stub!(asm_tracer_syscall0 syscall0(): "0");
stub!(asm_tracer_syscall1 syscall1(a): "1");
stub!(asm_tracer_syscall2 syscall2(a, b): "2");
stub!(asm_tracer_syscall3 syscall3(a, b, c): "3");
stub!(asm_tracer_syscall4 syscall4(a, b, c, d): "4");
stub!(asm_tracer_syscall5 syscall5(a, b, c, d, e): "5");
stub!(asm_tracer_syscall6 syscall6(a, b, c, d, e, f): "6");

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
    ) -> isize;
}
