//! Looking into the frozen target: from a thread that may stall, or in place.

use std::ffi::CString;
use std::path::PathBuf;
use std::sync::Arc;

use super::sight::Sight;
use super::{Look, Notification, Plain, Source, Target};
use crate::error::Result;
use crate::syscall::RemoteSlice;

/// Reading and writing the target's memory while it is frozen.
///
/// [`look`](Self::look) does so on another thread, and is what a program needs whose targets may be hostile. The others
/// do it in place, at once: each is a single system call for a small object. But a hostile target can make them stall,
/// and the runtime with them, for as long as it likes (see [`look`](Self::look)). [`Target`] says what they mean.
impl Notification {
    /// Looks at the target on another thread: runs `with` there, lent the [`Target`], whose accesses may stall, and gives
    /// what it returns.
    ///
    /// Any number of accesses costs one way there and back, which is what takes the time: some microseconds. It needs
    /// no runtime. Nothing happens before the first poll.
    ///
    /// The call stays with the caller, and can be answered at any time; accesses are
    /// [`Error::Gone`](crate::Error::Gone) from then on.
    ///
    /// # Errors
    ///
    /// Those of the closure, and [`Error::Io`](crate::Error::Io) if there is no thread to be had, or if this process was
    /// forked from the one in which the look began.
    ///
    /// # Panics
    ///
    /// If the closure panics, the panic goes on where the look is awaited. Nobody else is affected.
    ///
    /// # Cancel safety
    ///
    /// A look that is dropped is given up: if it still waits for a thread, the closure is dropped and never runs. If it
    /// has one, the closure runs to its end, and what it returns is dropped there. So a
    /// `tokio::time::timeout(limit, call.look(..))` is enough against memory that stalls; with an answer or a dropped
    /// call after it, the target has gained nothing.
    ///
    /// # Security
    ///
    /// Behind memory there can be a FUSE file or `userfaultfd(2)`, and then whoever accesses it waits until some process
    /// provides the page: as long as that one likes, and beyond the death of the target if it is another one. Only
    /// `SIGKILL` to this process ends the wait earlier, and where a FUSE server reads synchronously not even that: this
    /// process's exit waits for the server, too. Who must be sure of it leaves no way to `/dev/fuse` to the target and
    /// those that it can reach.
    ///
    /// Four threads at a time look at the targets of one listener. Further looks at them wait; those at others don't. A
    /// thread that stalls counts until it stalls no more, whether or not somebody waits for it. So a hostile target and
    /// its descendants cost four threads and none of the time of others. The threads are the library's own: no
    /// runtime waits for them when it shuts down, they have all signals blocked but `SIGSYS`, and they end when there
    /// has been nothing to do for some seconds.
    ///
    /// What has all threads of this process do something waits for one that stalls: `setuid(3)` and its relatives, for
    /// as long as it stalls, and [`sigsys::Tracer`](crate::sigsys::Tracer) until it gives up.
    ///
    /// # Examples
    ///
    /// ```
    /// use asm_tracer::{Errno, Notification};
    /// use std::time::Duration;
    ///
    /// # async fn serve(call: Notification) -> asm_tracer::Result<()> {
    /// let address = call.args()[1] as u64; // openat(2)
    /// let look = call.look(move |target| target.read_path(address));
    /// match tokio::time::timeout(Duration::from_secs(1), look).await {
    ///     Ok(path) => println!("opens {}", path?.display()),
    ///     Err(_stalled) => drop(call.error(Errno::EFAULT)?),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn look<T, F>(&self, with: F) -> Look<T>
    where
        T: Send + 'static,
        F: FnOnce(&Target) -> Result<T> + Send + 'static,
    {
        let target = self.as_target();
        Look::new(Arc::clone(&self.source.lane), move || with(&target))
    }

    /// What a look lends to its closure.
    pub(crate) fn as_target(&self) -> Target {
        Target::new(Arc::downgrade(&self.source), self.thread())
    }

    fn sight(&self) -> Sight<'_, Source> {
        Sight {
            thread: self.thread(),
            validity: &self.source,
        }
    }

    /// In place: [`Target::read_memory`].
    ///
    /// # Errors
    ///
    /// Those of [`Target::read_memory`].
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
        self.sight().read_memory(address, buffer)
    }

    /// In place: [`Target::read_cstr`].
    ///
    /// # Errors
    ///
    /// Those of [`Target::read_cstr`].
    pub fn read_cstr(&self, address: u64, limit: usize) -> Result<CString> {
        self.sight().read_cstr(address, limit)
    }

    /// In place: [`Target::read_path`].
    ///
    /// # Errors
    ///
    /// Those of [`Target::read_path`].
    pub fn read_path(&self, address: u64) -> Result<PathBuf> {
        self.sight().read_path(address)
    }

    /// In place: [`Target::read_value`].
    ///
    /// # Errors
    ///
    /// Those of [`Target::read_value`].
    pub fn read_value<T: Plain>(&self, address: u64) -> Result<T> {
        self.sight().read_value(address)
    }

    /// In place: [`Target::read_iovec`].
    ///
    /// # Errors
    ///
    /// Those of [`Target::read_iovec`].
    pub fn read_iovec(&self, address: u64, count: usize) -> Result<Vec<RemoteSlice>> {
        self.sight().read_iovec(address, count)
    }

    /// In place: [`Target::write_memory`].
    ///
    /// # Errors
    ///
    /// Those of [`Target::write_memory`].
    pub fn write_memory(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.sight().write_memory(address, bytes)
    }
}
