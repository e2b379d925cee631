//! System calls without the C library: no `errno`, no thread-local storage, no cancellation point.
//!
//! They are usable where the C library is not: in a child that shares its parent's memory, in a signal handler, and
//! around a filter that traps what the C library does on the side.
//!
//! # Examples
//!
//! ```
//! use asm_tracer::{Errno, Sysno, syscall};
//!
//! // SAFETY: asking for the process id touches no memory; there is no descriptor -1 that anybody could rely on.
//! let (pid, closed) = unsafe {
//!     (syscall::syscall0(Sysno::getpid as usize), syscall::syscall1(Sysno::close as usize, usize::MAX))
//! };
//! assert_eq!(pid, std::process::id() as isize);
//! assert_eq!(closed, -(Errno::EBADF as isize));
//! ```

pub(crate) mod raw;
#[cfg(test)]
mod tests;

pub use raw::{syscall0, syscall1, syscall2, syscall3, syscall4, syscall5, syscall6};
