//! The accesses to the memory of a frozen thread.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Weak;

use nix::errno::Errno;

use super::plain::{Plain, filled};
use super::{FrozenThread, Source};
use crate::error::{Error, Result};
use crate::memory;
use crate::syscall::RemoteSlice;

/// The kernel's `PATH_MAX`: the longest path in bytes, with its terminating zero.
const PATH_MAX: usize = 4096;
/// The kernel's `UIO_MAXIOV`: the most entries that a vectored call takes.
const IOV_MAX: usize = 1024;

/// What tells whether a thread is frozen still: a listener, or what is left of one.
pub(super) trait Validity {
    fn check(&self, id: u64) -> Result<()>;
}

impl Validity for Source {
    fn check(&self, id: u64) -> Result<()> {
        self.check_pending(id)
    }
}

impl Validity for Weak<Source> {
    fn check(&self, id: u64) -> Result<()> {
        self.upgrade().ok_or(Error::Gone)?.check_pending(id)
    }
}

/// A frozen thread whose memory is accessed; what the methods mean is said at [`Target`](super::Target).
pub(super) struct Sight<'a, V> {
    pub(super) thread: FrozenThread,
    pub(super) validity: &'a V,
}

impl<V: Validity> Sight<'_, V> {
    pub(super) fn read_memory(&self, address: u64, buffer: &mut [u8]) -> Result<usize> {
        let read = memory::read(self.thread.target()?, address, buffer);
        self.validated(address, read)
    }

    pub(super) fn read_cstr(&self, address: u64, limit: usize) -> Result<CString> {
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

    pub(super) fn read_path(&self, address: u64) -> Result<PathBuf> {
        let path = self.read_cstr(address, PATH_MAX)?;
        Ok(PathBuf::from(OsString::from_vec(path.into_bytes())))
    }

    pub(super) fn read_value<T: Plain>(&self, address: u64) -> Result<T> {
        filled(|bytes| self.read_exact(address, bytes))
    }

    pub(super) fn read_iovec(&self, address: u64, count: usize) -> Result<Vec<RemoteSlice>> {
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

    pub(super) fn write_memory(&self, address: u64, bytes: &[u8]) -> Result<()> {
        let pid = self.thread.target()?;
        self.validity.check(self.thread.id)?;
        let mut done = 0;
        while done < bytes.len() {
            let at = address.wrapping_add(done as u64);
            let written = memory::write(pid, at, &bytes[done..]);
            done += self.validated(at, written)?;
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

    /// The outcome of an access, now that it is known whether it met the frozen thread.
    fn validated(&self, address: u64, outcome: Result<usize, Errno>) -> Result<usize> {
        self.validity.check(self.thread.id)?;
        outcome.map_err(|errno| memory::error(errno, address))
    }
}

impl FrozenThread {
    pub(crate) fn read_memory(self, source: &Source, address: u64, buffer: &mut [u8]) -> Result<usize> {
        let sight = Sight {
            thread: self,
            validity: source,
        };
        sight.read_memory(address, buffer)
    }
}
