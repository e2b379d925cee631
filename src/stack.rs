//! Stacks for children that share our memory.
#![allow(unsafe_code)]

use nix::errno::Errno;

/// The stack of a child that shares our memory, with a guard page below it.
#[derive(Debug)]
pub(crate) struct Stack {
    base: *mut libc::c_void,
}

const PAGE: usize = 4096;
const SIZE: usize = 64 * 1024;

impl Stack {
    pub(crate) fn new() -> Result<Self, Errno> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: makes a mapping of its own, at an address that the kernel chooses.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), PAGE + SIZE, access, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let stack = Self { base };
        // SAFETY: the first page of the mapping above, which nobody uses yet.
        Errno::result(unsafe { libc::mprotect(base, PAGE, libc::PROT_NONE) })?;
        Ok(stack)
    }

    /// The end of the stack, from which it grows down; page-aligned.
    pub(crate) fn top(&self) -> *mut u8 {
        self.base.cast::<u8>().wrapping_add(PAGE + SIZE)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and its owner keeps it until the child has left it.
        unsafe { libc::munmap(self.base, PAGE + SIZE) };
    }
}
