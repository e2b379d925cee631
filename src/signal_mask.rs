//! What a thread blocks, through the stubs: usable in a child that shares our memory, and for all signals, those too
//! that the C library keeps to itself.
#![allow(unsafe_code)]

use syscalls::Sysno;

use crate::syscall::{pointer, syscall4};

/// Blocks every signal of this thread, those of the C library too, which may send one to all threads at once.
pub(crate) struct Blocked {
    before: u64,
}

impl Blocked {
    pub(crate) fn new() -> Self {
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
pub(crate) fn mask() -> u64 {
    change_mask(libc::SIG_BLOCK, 0)
}

/// Sets what this thread blocks, and gives what it did before.
pub(crate) fn set_mask(mask: u64) -> u64 {
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

/// What the kernel calls `sizeof(sigset_t)`.
pub(crate) const MASK_SIZE: i64 = 8;
