//! The program's memory, by addresses that it gave: a bad one is `EFAULT` and not a fault (P42).
#![allow(unsafe_code)]

use std::io::{IoSlice, IoSliceMut};

use crate::syscall::{RemoteSlice, process_vm_readv, process_vm_writev, syscall0};

/// This process, asked for each time: a vfork child shares everything but that (P40).
pub(super) fn process() -> i32 {
    // SAFETY: asks for a number.
    unsafe { syscall0(libc::SYS_getpid) }.map_or(0, |pid| pid as i32)
}

/// Reads words.
pub(super) fn read<const N: usize>(address: u64) -> Option<[u64; N]> {
    let mut words = [[0_u8; 8]; N];
    let remote = RemoteSlice {
        address,
        len: 8 * N as u64,
    };
    let read = process_vm_readv(
        process(),
        &mut [IoSliceMut::new(words.as_flattened_mut())],
        &[remote],
    );
    (read == Ok(8 * N)).then(|| words.map(u64::from_ne_bytes))
}

/// Writes words.
///
/// # Safety
///
/// It must be what the kernel would do for the program's call.
pub(super) unsafe fn write<const N: usize>(address: u64, words: [u64; N]) -> Option<()> {
    let words = words.map(u64::to_ne_bytes);
    let remote = RemoteSlice {
        address,
        len: 8 * N as u64,
    };
    // SAFETY: the caller's.
    let written = unsafe { process_vm_writev(process(), &[IoSlice::new(words.as_flattened())], &[remote]) };
    (written == Ok(8 * N)).then_some(())
}
