//! Looking into the frozen target.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use nix::errno::Errno;

use super::plain::{Plain, filled};
use super::{FrozenThread, Notification, Source};
use crate::error::{Error, Result};
use crate::memory;
use crate::syscall::RemoteSlice;

/// The kernel's `PATH_MAX`: the longest path in bytes, with its terminating zero.
const PATH_MAX: usize = 4096;
/// The kernel's `UIO_MAXIOV`: the most entries that a vectored call takes.
const IOV_MAX: usize = 1024;

/// Reading and writing the target's memory while it is frozen.
///
/// Each is valid only if the target still waits afterwards, which is checked after the access; otherwise it is
/// [`Error::Gone`] and never the data of another process that got the same pid. They honour the page protection
/// of the target, as the kernel itself does for the call.
///
/// A hostile target can make the access stall for as long as it likes, with memory behind a FUSE file or
/// `userfaultfd(2)`. A service that must not stall reads in `tokio::task::spawn_blocking`, into which the
/// notification can be moved.
///
/// They need the right to trace the target: the same uid and a dumpable target (which executing a set-uid program
/// ends), or `CAP_SYS_PTRACE`; a Yama or LSM policy or a container may demand more. Otherwise they give
/// [`Error::NoAccess`], or [`Error::Unsupported`] without
/// [`KernelSupport::process_memory`](crate::KernelSupport::process_memory), while the call stays answerable. Never
/// take that for a reason to let the call through.
impl Notification {
    /// Reads memory at `address` into `buffer`, and returns how many bytes there were.
    ///
    /// That is fewer than the buffer holds only where readable memory ends.
    ///
    /// # Errors
    ///
    /// [`Error::Fault`] if not one byte is readable, [`Error::NoAccess`], [`Error::Gone`], [`Error::UnknownPid`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn look(call: &asm_tracer::Notification) -> asm_tracer::Result<()> {
    /// let [_fd, address, length, ..] = call.args();
    /// let mut data = vec![0; (length as usize).min(4096)];
    /// let n = call.read_memory(address as u64, &mut data)?;
    /// println!("writes {:?}", String::from_utf8_lossy(&data[..n]));
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_memory(&self, address: u64, buffer: &mut [u8]) -> Result<usize> {
        self.thread().read_memory(&self.source, address, buffer)
    }

    /// Reads the string at `address`, without its terminating zero; it must be shorter than `limit` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`] if there is no zero within `limit` bytes, and those of
    /// [`read_memory`](Self::read_memory), where the address is that of the first unreadable byte.
    pub fn read_cstr(&self, address: u64, limit: usize) -> Result<CString> {
        let mut string = Vec::new();
        while string.len() < limit {
            let start = string.len();
            // Up to a page's end: most strings end before it, and the next page may not be there.
            let at = address.wrapping_add(start as u64);
            let chunk = (4096 - (at % 4096) as usize).min(limit - start);
            string.resize(start + chunk, 0);
            let n = self.read_memory(at, &mut string[start..])?;
            string.truncate(start + n);
            if let Some(end) = string[start..].iter().position(|byte| *byte == 0) {
                string.truncate(start + end);
                // The zeros are all behind; this can't fail.
                return CString::new(string).map_err(|_| Error::Fault { address });
            }
        }
        Err(Error::TooLong { address, limit })
    }

    /// Reads the path at `address`: bytes, which need not be UTF-8, exactly as the target wrote them.
    ///
    /// A relative path is relative to a directory of the target, not of this process.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`] if it is longer than the kernel's 4 096 bytes, and those of
    /// [`read_memory`](Self::read_memory).
    pub fn read_path(&self, address: u64) -> Result<PathBuf> {
        let path = self.read_cstr(address, PATH_MAX)?;
        Ok(PathBuf::from(OsString::from_vec(path.into_bytes())))
    }

    /// Reads a plain value, such as an integer or a `#[repr(C)]` struct.
    ///
    /// # Errors
    ///
    /// [`Error::Fault`] if it is not readable to its end, and those of [`read_memory`](Self::read_memory).
    ///
    /// # Examples
    ///
    /// ```
    /// # fn look(call: &asm_tracer::Notification) -> asm_tracer::Result<()> {
    /// let [seconds, nanoseconds]: [i64; 2] = call.read_value(call.args()[0] as u64)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_value<T: Plain>(&self, address: u64) -> Result<T> {
        filled(|bytes| self.read_exact(address, bytes))
    }

    /// Reads an array of `struct iovec`, the buffers of a vectored call such as `writev(2)`.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`] for more than the 1 024 entries that the kernel takes, and those of
    /// [`read_value`](Self::read_value).
    pub fn read_iovec(&self, address: u64, count: usize) -> Result<Vec<RemoteSlice>> {
        if count > IOV_MAX {
            return Err(Error::TooLong {
                address,
                limit: IOV_MAX * size_of::<[u64; 2]>(),
            });
        }
        let mut bytes = vec![0; count * size_of::<[u64; 2]>()];
        self.read_exact(address, &mut bytes)?;
        let (words, _) = bytes.as_chunks::<8>();
        let (entries, _) = words.as_chunks::<2>();
        let entry = |[address, len]: &[[u8; 8]; 2]| RemoteSlice {
            address: u64::from_ne_bytes(*address),
            len: u64::from_ne_bytes(*len),
        };
        Ok(entries.iter().map(entry).collect())
    }

    /// Writes `bytes` to the target's memory at `address`.
    ///
    /// # Errors
    ///
    /// [`Error::Fault`] with the first address that can't be written, where the bytes before it may have been;
    /// [`Error::NoAccess`] also for a target that has the memory of this very process, which only its own code may change:
    /// a thread of it, or a child that shares it until it executes, as `posix_spawn(3)` makes one; and those of
    /// [`read_memory`](Self::read_memory). After [`Error::Gone`] the bytes may have been written too: a signal can take the
    /// call back at any moment, and its handler then sees them (`seccomp_unotify(2)`).
    pub fn write_memory(&self, address: u64, bytes: &[u8]) -> Result<()> {
        let pid = self.target()?;
        self.check_pending()?;
        let mut done = 0;
        while done < bytes.len() {
            let at = address.wrapping_add(done as u64);
            let written = memory::write(pid, at, &bytes[done..]);
            done += self.thread().validated(&self.source, at, written)?;
        }
        Ok(())
    }

    fn read_exact(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            done += self.read_memory(address.wrapping_add(done as u64), &mut bytes[done..])?;
        }
        Ok(())
    }
}

impl FrozenThread {
    pub(crate) fn read_memory(self, source: &Source, address: u64, buffer: &mut [u8]) -> Result<usize> {
        let read = memory::read(self.target()?, address, buffer);
        self.validated(source, address, read)
    }

    /// The outcome of an access, now that it is known whether it met the frozen thread.
    fn validated(self, source: &Source, address: u64, outcome: Result<usize, Errno>) -> Result<usize> {
        source.check_pending(self.id)?;
        outcome.map_err(|errno| memory::error(errno, address))
    }
}
