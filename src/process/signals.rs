//! Masks and dispositions, through the stubs: usable in a child that shares our memory, and for all signals, those
//! too that the C library keeps to itself.
#![allow(unsafe_code)]

use syscalls::Sysno;

use crate::syscall::{SyscallError, pointer, syscall4};

/// Blocks every signal of this thread, those of the C library too, which may send one to all threads at once: its
/// handler in the child would act on memory that is ours.
pub(super) struct Blocked {
    before: u64,
}

impl Blocked {
    pub(super) fn new() -> Self {
        Self {
            // A trapped call of a thread that blocks this one kills the process, and nobody else sends it.
            before: set_mask(!(1 << (libc::SIGSYS - 1))),
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        set_mask(self.before);
    }
}

/// What this thread blocks.
pub(super) fn mask() -> u64 {
    change_mask(libc::SIG_BLOCK, 0)
}

/// Sets what this thread blocks, and gives what it did before.
pub(super) fn set_mask(mask: u64) -> u64 {
    change_mask(libc::SIG_SETMASK, mask)
}

fn change_mask(how: i32, mask: u64) -> u64 {
    let mut before = 0_u64;
    let (new, old) = (pointer(&raw const mask), pointer(&raw mut before));
    let number = Sysno::rt_sigprocmask.id().into();
    // SAFETY: both sets are eight bytes long. The mask of this thread is nobody else's business. It can't fail.
    let _ = unsafe { syscall4(number, how.into(), new, old, MASK_SIZE) };
    before
}

/// The kernel's `struct sigaction`.
#[repr(C)]
struct Disposition {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

const SIGNALS: i32 = 64;
const MASK_SIZE: i64 = 8;

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
