use std::ffi::CString;
use std::path::PathBuf;
use std::sync::Weak;

use super::sight::Sight;
use super::{FrozenThread, Plain, Source};
use crate::error::Result;
use crate::syscall::RemoteSlice;

/// A frozen thread as one looks into its memory: what [`Notification::look`](crate::Notification::look) lends to its
/// closure.
///
/// It can't answer the call. It keeps neither the call waiting nor the listener open: once the call was answered, or
/// the listener has been closed, each access is [`Error::Gone`](crate::Error::Gone).
///
/// Each access is valid only if the thread still waits afterwards, which is checked after it; otherwise it is
/// [`Error::Gone`](crate::Error::Gone) and never the data of another process that got the same pid. They honour the page
/// protection of the target, as the kernel itself does for the call.
///
/// They need the right to trace the target: the same uid and a dumpable target (which executing a set-uid program
/// ends), or `CAP_SYS_PTRACE`; a Yama or LSM policy or a container may demand more. Otherwise they give
/// [`Error::NoAccess`](crate::Error::NoAccess), or [`Error::Unsupported`](crate::Error::Unsupported) without
/// [`KernelSupport::process_memory`](crate::KernelSupport::process_memory), while the call stays answerable. Never
/// take that for a reason to let the call through.
#[derive(Debug, Clone)]
pub struct Target {
    /// Not the listener itself, which a thread that stalls would keep open.
    source: Weak<Source>,
    thread: FrozenThread,
}

impl Target {
    pub(super) fn new(source: Weak<Source>, thread: FrozenThread) -> Self {
        Self { source, thread }
    }

    fn sight(&self) -> Sight<'_, Weak<Source>> {
        Sight {
            thread: self.thread,
            validity: &self.source,
        }
    }

    /// Reads memory at `address` into `buffer`, and returns how many bytes there were.
    ///
    /// That is fewer than the buffer holds only where readable memory ends.
    ///
    /// # Errors
    ///
    /// [`Error::Fault`](crate::Error::Fault) if not one byte is readable, [`Error::NoAccess`](crate::Error::NoAccess),
    /// [`Error::Gone`](crate::Error::Gone), [`Error::UnknownPid`](crate::Error::UnknownPid).
    ///
    /// # Examples
    ///
    /// ```
    /// # async fn look(call: &asm_tracer::Notification) -> asm_tracer::Result<()> {
    /// let [_fd, address, length, ..] = call.args();
    /// let mut data = vec![0; (length as usize).min(4096)];
    /// let data = call
    ///     .look(move |target| {
    ///         let n = target.read_memory(address as u64, &mut data)?;
    ///         data.truncate(n);
    ///         Ok(data)
    ///     })
    ///     .await?;
    /// println!("writes {:?}", String::from_utf8_lossy(&data));
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_memory(&self, address: u64, buffer: &mut [u8]) -> Result<usize> {
        self.sight().read_memory(address, buffer)
    }

    /// Reads the string at `address`, without its terminating zero; it must be shorter than `limit` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`](crate::Error::TooLong) if there is no zero within `limit` bytes, and those of
    /// [`read_memory`](Self::read_memory), where the address is that of the first unreadable byte.
    pub fn read_cstr(&self, address: u64, limit: usize) -> Result<CString> {
        self.sight().read_cstr(address, limit)
    }

    /// Reads the path at `address`: bytes, which need not be UTF-8, exactly as the target wrote them.
    ///
    /// A relative path is relative to a directory of the target, not of this process.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`](crate::Error::TooLong) if it is longer than the kernel's 4 096 bytes, and those of
    /// [`read_memory`](Self::read_memory).
    pub fn read_path(&self, address: u64) -> Result<PathBuf> {
        self.sight().read_path(address)
    }

    /// Reads a plain value, such as an integer or a `#[repr(C)]` struct.
    ///
    /// # Errors
    ///
    /// [`Error::Fault`](crate::Error::Fault) if it is not readable to its end, and those of
    /// [`read_memory`](Self::read_memory).
    ///
    /// # Examples
    ///
    /// ```
    /// # async fn look(call: &asm_tracer::Notification) -> asm_tracer::Result<()> {
    /// let address = call.args()[0] as u64;
    /// let [seconds, nanoseconds]: [i64; 2] = call.look(move |target| target.read_value(address)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_value<T: Plain>(&self, address: u64) -> Result<T> {
        self.sight().read_value(address)
    }

    /// Reads an array of `struct iovec`, the buffers of a vectored call such as `writev(2)`.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`](crate::Error::TooLong) for more than the 1 024 entries that the kernel takes, and those of
    /// [`read_value`](Self::read_value).
    pub fn read_iovec(&self, address: u64, count: usize) -> Result<Vec<RemoteSlice>> {
        self.sight().read_iovec(address, count)
    }

    /// Writes `bytes` to the target's memory at `address`.
    ///
    /// # Errors
    ///
    /// [`Error::Fault`](crate::Error::Fault) with the first address that can't be written, where the bytes before it may
    /// have been; [`Error::NoAccess`](crate::Error::NoAccess) also for a target that has the memory of this very
    /// process, which only its own code may change: a thread of it, or a child that shares it until it executes, as
    /// `posix_spawn(3)` makes one; and those of [`read_memory`](Self::read_memory). After
    /// [`Error::Gone`](crate::Error::Gone) the bytes may have been written too: a signal can take the call back at any
    /// moment, and its handler then sees them (`seccomp_unotify(2)`).
    pub fn write_memory(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.sight().write_memory(address, bytes)
    }
}
