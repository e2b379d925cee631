//! System calls without the C library: no `errno`, no thread-local storage, no cancellation point.
//!
//! They are usable where the C library is not: in a child that shares its parent's memory, in a signal handler, and
//! around a filter that traps what the C library does on the side. There are three levels:
//!
//! - typed calls such as [`open`], [`wait4`] or [`ptrace`], which are safe unless they change this process's memory;
//! - [`syscall0`] to [`syscall6`], for any call, which tell results from errors;
//! - [`raw_syscall0`] to [`raw_syscall6`], which return what the kernel returned. They take the numbers of a
//!   [`TrappedSyscall`](crate::TrappedSyscall) as they are.
//!
//! # Signal handlers
//!
//! Everything here, formatting a [`SyscallError`] included, is async-signal-safe by construction: it allocates nothing,
//! takes no lock, uses no thread-local storage and never panics. What is around it must be so too. In particular, an
//! [`OwnedFd`](std::os::fd::OwnedFd) or a [`File`](std::fs::File) that is dropped is closed by the C library, which
//! writes `errno`; [`close`] does not. Allocating, `println!`, [`std::io::Error::last_os_error`], the environment,
//! locks, and whatever may panic, such as a failing `assert!`, belong outside of a handler.
//!
//! # Interrupted calls
//!
//! No call is tried again after `EINTR`, so that a signal can end a wait. [`open`], [`read`], [`write()`] and [`wait4`]
//! return it where the handler was installed without `SA_RESTART`. [`close`] may return it and has closed the
//! descriptor. The other typed calls never do.
//!
//! # Examples
//!
//! ```
//! use asm_tracer::{Errno, Sysno, syscall};
//!
//! // SAFETY: asking for the process id touches no memory; there is no descriptor -1 that anybody could rely on.
//! let (pid, closed) = unsafe {
//!     (syscall::syscall0(Sysno::getpid as i64), syscall::syscall1(Sysno::close as i64, -1))
//! };
//! assert_eq!(pid, Ok(std::process::id().into()));
//! assert_eq!(closed.unwrap_err().errno(), Errno::EBADF);
//! ```

pub(crate) mod arguments;
mod checked;
mod error;
mod files;
mod flags;
mod mapping;
mod prctl;
mod process_memory;
mod processes;
mod ptrace;
pub(crate) mod raw;
mod registers;
mod signal_number;
#[cfg(test)]
mod tests;
mod wait;

pub(crate) use checked::pointer;
pub use checked::{syscall0, syscall1, syscall2, syscall3, syscall4, syscall5, syscall6};
pub use error::SyscallError;
pub use files::{Mode, OpenFlags, close, open, read, write};
pub use mapping::{MapFlags, Protection, mmap, mmap_fixed, munmap};
pub use prctl::{Prctl, Ptracer, prctl};
pub use process_memory::{RemoteSlice, process_vm_readv, process_vm_writev};
pub use processes::{Processes, kill};
pub use ptrace::{PtraceOptions, PtraceRequest, ptrace};
pub use raw::{
    raw_syscall0, raw_syscall1, raw_syscall2, raw_syscall3, raw_syscall4, raw_syscall5, raw_syscall6,
};
pub use registers::Registers;
pub use signal_number::SignalNumber;
pub use wait::{ResourceUsage, WaitOptions, Waited, wait4};
