//! Another process's memory, by pid.
//!
//! One `process_vm_readv(2)` goes straight into the caller's buffer. It honours the page protection of the
//! target (T40), and gives what there is before an unreadable page although its manual page says otherwise (T39).
#![allow(unsafe_code)]

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{IoSlice, IoSliceMut};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::error::{Error, Result};
use crate::syscall::{RemoteSlice, SyscallError, process_vm_readv, process_vm_writev};

/// Reads up to `buffer.len()` bytes, fewer where the memory ends.
pub(crate) fn read(pid: Pid, address: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let wanted = buffer.len();
    let remote = [RemoteSlice {
        address,
        len: wanted as u64,
    }];
    let read = process_vm_readv(pid.as_raw(), &mut [IoSliceMut::new(buffer)], &remote);
    progress(read, wanted)
}

/// Writes up to `bytes.len()` bytes, fewer where the writable memory ends.
pub(crate) fn write(pid: Pid, address: u64, bytes: &[u8]) -> Result<usize, Errno> {
    let remote = [RemoteSlice {
        address,
        len: bytes.len() as u64,
    }];
    if is_shared_with(pid) {
        return Err(Errno::EPERM);
    }
    // SAFETY: it is not the memory of this process.
    let written = unsafe { process_vm_writev(pid.as_raw(), &[IoSlice::new(bytes)], &remote) };
    progress(written, bytes.len())
}

/// Whether this memory is that of another process as well: a thread of this one, or a child that shares it until it
/// executes, as those of `posix_spawn(3)` do.
///
/// It is if a number that was just made up is found there, at the same place.
fn is_shared_with(pid: Pid) -> bool {
    let here = AtomicU64::new(RandomState::new().build_hasher().finish());
    let mut there = [0; 8];
    let read = read(pid, here.as_ptr().expose_provenance() as u64, &mut there);
    read == Ok(there.len()) && u64::from_ne_bytes(there) == here.load(Ordering::Relaxed)
}

/// What it means that memory at `address` was not accessed.
pub(crate) fn error(errno: Errno, address: u64) -> Error {
    match errno {
        Errno::EFAULT => Error::Fault { address },
        Errno::EPERM => Error::NoAccess,
        Errno::ESRCH => Error::Gone,
        Errno::ENOSYS => Error::Unsupported {
            feature: "access to other processes' memory (`process_vm_readv` and `process_vm_writev`)",
            since: "3.2",
        },
        errno => Error::os("accessing the target's memory", errno),
    }
}

/// Nothing transferred is a fault, so that a loop over the rest ends.
fn progress(transferred: Result<usize, SyscallError>, wanted: usize) -> Result<usize, Errno> {
    match transferred {
        Ok(0) if wanted > 0 => Err(Errno::EFAULT),
        transferred => Ok(transferred?),
    }
}

/// At most so much is allocated before there is something to put into it.
pub(crate) const CHUNK: usize = 64 * 1024;

/// Reads up to `length` bytes with this, fewer where the memory ends.
pub(crate) fn read_up_to(
    address: u64,
    length: usize,
    read: impl Fn(u64, &mut [u8]) -> Result<usize>,
) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    while data.len() < length {
        let (start, chunk) = (data.len(), CHUNK.min(length - data.len()));
        if data.try_reserve(chunk).is_err() {
            return Err(Error::os("reading memory", Errno::ENOMEM));
        }
        data.resize(start + chunk, 0);
        let read = match read(address.wrapping_add(start as u64), &mut data[start..]) {
            // The end of what is readable, behind what was.
            Err(Error::Fault { .. }) if start > 0 => 0,
            read => read?,
        };
        data.truncate(start + read);
        if read < chunk {
            break;
        }
    }
    Ok(data)
}
