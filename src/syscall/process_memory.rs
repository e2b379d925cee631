//! Another process's memory, by pid.
#![allow(unsafe_code)]

use std::io::{IoSlice, IoSliceMut};
use std::mem::offset_of;

use super::{SyscallError, pointer, syscall6};

/// A stretch of another process's memory, as `struct iovec` describes it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RemoteSlice {
    /// Where it begins, in the other process.
    pub address: u64,
    /// Its length in bytes, as the target claims it where it comes from a target.
    pub len: u64,
}

const _: () = {
    use libc::iovec as Kernel;
    assert!(size_of::<RemoteSlice>() == size_of::<Kernel>());
    assert!(align_of::<RemoteSlice>() == align_of::<Kernel>());
    assert!(offset_of!(RemoteSlice, address) == offset_of!(Kernel, iov_base));
    assert!(offset_of!(RemoteSlice, len) == offset_of!(Kernel, iov_len));
};

/// Reads the remote memory, slice after slice, into the local buffers, and returns how many bytes there were; see
/// `process_vm_readv(2)`.
///
/// That is fewer than asked for where readable memory ends, in the middle of a slice too, although the manual page says
/// otherwise. The page protection of the other process is honoured. The kernel takes up to 1 024 slices on each side,
/// and 0x7fff_f000 bytes at once.
///
/// # Errors
///
/// `EFAULT` if not one byte is readable, `ESRCH` if there is no such process, `EPERM` without the right to trace it,
/// `EINVAL` for too many slices or lengths. Never `EINTR`.
///
/// # Kernel support
///
/// Since Linux 3.2, unless it was built without; containers may forbid it (`EPERM`, `ENOSYS`).
///
/// # Examples
///
/// ```
/// use std::io::IoSliceMut;
///
/// use asm_tracer::syscall::{self, RemoteSlice, SyscallError};
///
/// let there = *b"hello";
/// let mut here = [0; 5];
/// let remote = RemoteSlice { address: there.as_ptr().expose_provenance() as u64, len: 5 };
/// let pid = std::process::id() as i32;
/// assert_eq!(syscall::process_vm_readv(pid, &mut [IoSliceMut::new(&mut here)], &[remote])?, 5);
/// assert_eq!(here, there);
/// # Ok::<(), SyscallError>(())
/// ```
pub fn process_vm_readv(
    pid: i32,
    local: &mut [IoSliceMut<'_>],
    remote: &[RemoteSlice],
) -> Result<usize, SyscallError> {
    let (buffers, count) = (pointer(local.as_mut_ptr()), local.len() as i64);
    let (slices, slice_count) = (pointer(remote.as_ptr()), remote.len() as i64);
    let number = libc::SYS_process_vm_readv;
    // SAFETY: the kernel writes within the buffers, whose slices have the layout of an iovec, and only looks at the
    // other process.
    let read = unsafe { syscall6(number, pid.into(), buffers, count, slices, slice_count, 0) };
    read.map(|length| length as usize)
}

/// Writes the local data to the remote memory, slice after slice, and returns how many bytes were written; see
/// `process_vm_writev(2)`.
///
/// What [`process_vm_readv`] says about partial transfers, limits, errors and kernel support holds here, of memory that
/// is writable.
///
/// # Errors
///
/// Those of [`process_vm_readv`].
///
/// # Safety
///
/// The pid must not be of this process or of one that shares its memory, unless the slices are memory that may be
/// written to.
///
/// # Examples
///
/// ```
/// use std::io::IoSlice;
///
/// use asm_tracer::syscall::{self, RemoteSlice, SyscallError};
///
/// let mut there = [0_u8; 5];
/// let remote = RemoteSlice { address: there.as_mut_ptr().expose_provenance() as u64, len: 5 };
/// let pid = std::process::id() as i32;
/// // SAFETY: it is this process, and the slice is a buffer of its own.
/// let written = unsafe { syscall::process_vm_writev(pid, &[IoSlice::new(b"hello")], &[remote]) }?;
/// assert_eq!((written, &there), (5, b"hello"));
/// # Ok::<(), SyscallError>(())
/// ```
pub unsafe fn process_vm_writev(
    pid: i32,
    local: &[IoSlice<'_>],
    remote: &[RemoteSlice],
) -> Result<usize, SyscallError> {
    let (data, count) = (pointer(local.as_ptr()), local.len() as i64);
    let (slices, slice_count) = (pointer(remote.as_ptr()), remote.len() as i64);
    let number = libc::SYS_process_vm_writev;
    // SAFETY: the kernel reads the data, whose slices have the layout of an iovec; the caller answers for what is
    // written to.
    let written = unsafe { syscall6(number, pid.into(), data, count, slices, slice_count, 0) };
    written.map(|length| length as usize)
}
