//! Tracing of this very process: its own system calls, trapped by `SIGSYS`.
//!
//! [`Tracer::builder`] says which calls are traced, on which threads, and with which [`Hook`]; [`Tracer::events`] is what
//! happens as a stream. [`enable_tracing`] and [`drain_trapped_syscalls`] are the short form without a runtime.
//!
//! A traced call raises `SIGSYS` (`SECCOMP_RET_TRAP`). The handler writes it down in a ring, asks the hook, and sends the
//! thread to a place that the filter lets through, where the call is made outside of the handler: with the thread's own
//! stack, signal mask and alternate stack, so that forks, restarts and jumps out of signal handlers are what they always
//! are. Such a call costs about a microsecond more. Calls that are not traced cost nothing more.
//!
//! # Executing programs
//!
//! **By default, a process that traces itself can't execute programs: `execve(2)` and `execveat(2)` fail with `EPERM`**, also in the
//! children of `std::process::Command`, which reports it. The filter survives an execution and the handler doesn't, so that the
//! new program would die of `SIGSYS` at its first traced call, with nobody to tell why.
//! [`allow_exec`](Builder::allow_exec) lets them through nevertheless; since calls that set signal masks and handlers are always
//! trapped, that is for programs that do neither. A [`Command`](crate::Command) of this library is
//! no way around: its child dies, or its program does.
//!
//! # What is traced besides
//!
//! Calls that set a signal mask or a handler are always trapped, so that `SIGSYS` is never blocked: the next traced call would
//! kill the process. The program sees masks without that signal, and a handler of its own for it, which it can install once this
//! process is traced, gets those that come from elsewhere. `clone3(2)` with `CLONE_CLEAR_SIGHAND` fails with `EINVAL`, as on
//! a kernel before 5.5. `exit(2)`, which ends a thread, is never traced.
//!
//! Calls that this library makes itself are not traced, nor are those through [`syscall`](crate::syscall). The vDSO (`clock_gettime`
//! and its like) and the operations of an `io_uring` make no system calls that could be. Calls through the i386 ABI are let
//! through unless a [filter](Builder::filter) says otherwise, but for those that set signal masks and handlers, which fail with
//! `ENOSYS`.
//!
//! A forked process is not recorded and has no hook, and its calls run. A child that shares the memory until it executes is
//! traced as a thread is.
//!
//! # Limits
//!
//! A call can be made from 2 048 places of the program the fast way, and from any number of others a little slower; `clone`,
//! `clone3`, `vfork`, `munmap` and `mremap` fail with `EAGAIN` from more. These can't be rewritten either, which is refused with
//! `EOPNOTSUPP` and counted.
//!
//! A handler takes some four kilobytes of the thread's stack, and what the hook needs.
//!
//! # Kernel support
//!
//! `SECCOMP_RET_TRAP` since Linux 3.5, `MADV_WIPEONFORK` since 4.14. Tracing sets `no_new_privs`, can't be undone, and can't
//! be had twice: a filter can't be taken off. A [`Tracer`] that is dropped ends the recording and the hook, and calls still come to
//! the handler, which lets them run.
//!
//! # Examples
//!
//! ```
//! use asm_tracer::sigsys::{Event, Tracer};
//! use asm_tracer::Sysno;
//!
//! # std::thread::spawn(|| {
//! let tracer = Tracer::builder().trap(Sysno::openat).install()?;
//! let text = std::fs::read("/etc/hostname");
//! for event in tracer.drain()? {
//!     if let Event::Call(call) = event {
//!         println!("{:?} by thread {}: {:?}", call.syscall.sysno(), call.thread, call.decision);
//!     }
//! }
//! # Ok::<_, asm_tracer::Error>(())
//! # }).join().unwrap()?;
//! # Ok::<(), asm_tracer::Error>(())
//! ```

mod context;
mod doorbell;
mod drain;
mod event;
mod events;
mod frame;
mod gate;
mod handler;
mod install;
mod masks;
#[cfg(all(test, asm_tracer_loom))]
mod models;
mod record;
mod ring;
mod shared;
mod spread;
mod stacks;
mod threads;
mod tracer;
mod user;

use std::sync::{Mutex, PoisonError};

pub use event::{Call, Decision, Event, Returned};
pub use events::Events;
pub use shared::Hook;
pub use tracer::{Builder, Statistics, Tracer};

use crate::error::Result;
use crate::notify::TrappedSyscall;

/// The tracer of [`enable_tracing`].
static TRACER: Mutex<Option<Tracer>> = Mutex::new(None);

/// Traces these calls of the calling thread and of what it starts from now on, for as long as the process lives.
///
/// # Errors
///
/// Those of [`Builder::install`].
///
/// # Examples
///
/// ```
/// use asm_tracer::sigsys::{drain_trapped_syscalls, enable_tracing};
/// use asm_tracer::{Sysno, TrappedSyscall};
///
/// /// In signal context: it only looks at numbers.
/// fn hook(call: &mut TrappedSyscall) -> Option<i64> {
///     (call.sysno() == Some(Sysno::getppid)).then_some(4711)
/// }
///
/// # std::thread::spawn(|| {
/// enable_tracing(&[Sysno::getppid.id().into()], Some(hook))?;
/// assert_eq!(std::os::unix::process::parent_id(), 4711);
/// assert_eq!(drain_trapped_syscalls().len(), 1);
/// # Ok::<_, asm_tracer::Error>(())
/// # }).join().unwrap()?;
/// # Ok::<(), asm_tracer::Error>(())
/// ```
pub fn enable_tracing(syscalls: &[i64], hook: Option<Hook>) -> Result<()> {
    let mut builder = Tracer::builder().trap(syscalls);
    if let Some(hook) = hook {
        builder = builder.hook(hook);
    }
    let tracer = builder.install()?;
    *TRACER.lock().unwrap_or_else(PoisonError::into_inner) = Some(tracer);
    Ok(())
}

/// Takes the traced calls since the last time, in the order in which each thread made them.
///
/// It is empty unless [`enable_tracing`] succeeded.
pub fn drain_trapped_syscalls() -> Vec<TrappedSyscall> {
    let tracer = TRACER.lock().unwrap_or_else(PoisonError::into_inner);
    let events = tracer
        .as_ref()
        .and_then(|tracer| tracer.drain().ok())
        .unwrap_or_default();
    let calls = events.into_iter().filter_map(|event| match event {
        Event::Call(call) => Some(call.syscall),
        Event::Returned(_) | Event::Lost(_) => None,
    });
    calls.collect()
}
