//! Masks and dispositions, through the stubs: usable in a child that shares our memory, and for all signals, those
//! too that the C library keeps to itself.
#![allow(unsafe_code)]

use syscalls::Sysno;

use crate::signal_mask::MASK_SIZE;
pub(super) use crate::signal_mask::{Blocked, mask, set_mask};
use crate::syscall::{SyscallError, pointer, syscall4};

/// The kernel's `struct sigaction`.
#[repr(C)]
struct Disposition {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

const SIGNALS: i32 = 64;

/// Resets handlers, which lead into memory that the program won't have. What is ignored stays ignored, except for
/// `SIGPIPE`, which Rust programs ignore and others don't expect to be (as `std::process` does).
pub(super) fn reset() -> Result<(), SyscallError> {
    let default = Disposition {
        handler: libc::SIG_DFL,
        flags: 0,
        restorer: 0,
        mask: 0,
    };
    for signal in 1..=SIGNALS {
        let mut present = Disposition {
            handler: 0,
            ..default
        };
        change_disposition(signal, std::ptr::null(), &raw mut present)?;
        let ignored = present.handler == libc::SIG_IGN && signal != libc::SIGPIPE;
        if present.handler != libc::SIG_DFL && !ignored {
            change_disposition(signal, &raw const default, std::ptr::null_mut())?;
        }
    }
    Ok(())
}

fn change_disposition(
    signal: i32,
    new: *const Disposition,
    old: *mut Disposition,
) -> Result<(), SyscallError> {
    let number = Sysno::rt_sigaction.id().into();
    // SAFETY: both pointers are null or lead to a whole disposition.
    unsafe { syscall4(number, signal.into(), pointer(new), pointer(old), MASK_SIZE) }.map(drop)
}

const _: () = assert!(size_of::<Disposition>() == 32);
