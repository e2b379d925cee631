//! Supervision without a runtime: a thread per child receives its calls, asks a hook, and answers in place.
//!
//! [`spawn_traced`] is the one-liner. [`Tracer`] is the builder behind it, which starts any [`Command`]
//! and gives the hook the [`Notification`](crate::Notification) itself if it wants one. The [`TracedChild`] can be
//! shared between threads.
//!
//! The thread answers at the speed of the kernel: nothing but the hook happens between the call and its answer. It ends
//! when no process uses the filter any more; the descendants of a child that has ended are served on, by the
//! same hook. A hook that blocks freezes its own child and those of its descendants that make a trapped call, and
//! nobody else. A hook that panics does not freeze anybody: the call fails with `ENOSYS`, the thread serves on, and
//! [`TracedChild::wait`] reports it.
//!
//! A hook may use all of this itself, and its own child, too; but a child whose call it looks at does not end, so that it
//! must not wait for it.
//!
//! # Security
//!
//! Letting a call run after a look at the target's memory is not a security decision, as for
//! [`Notification`](crate::Notification#security).

mod child;
mod log;
mod serve;
mod tracer;

pub use child::TracedChild;
pub use tracer::Tracer;

use std::ffi::OsStr;

use crate::error::Result;
use crate::filter::Filter;
use crate::notify::TrappedSyscall;
use crate::process::Command;

/// Starts a program whose calls of these numbers go through a hook.
///
/// `path` is the program, looked up in `PATH` unless it contains a slash. `argv` is all that the program gets as its
/// arguments, the zeroth included, as for `execve(2)`; if it is empty, that is `path`.
///
/// For each trapped call of the program and its descendants, the hook returns what the call is to return instead of
/// running (`-4095..=-1` is an errno to the program), or `None` to let it run. It runs on a thread of its own, one call
/// at a time. Without a hook every call runs. In any case the calls are kept for
/// [`drain_syscalls`](TracedChild::drain_syscalls).
///
/// # Errors
///
/// Whatever kept the program from running, as for [`Command::spawn`](crate::Command::spawn). Nothing is left behind.
///
/// # Examples
///
/// ```
/// use asm_tracer::{Sysno, TrappedSyscall};
///
/// // Whatever `echo` writes is gone, and it never knows.
/// let swallow = |call: &TrappedSyscall| Some(call.args[2]);
/// let numbers = [Sysno::write.id().into()];
/// let child = asm_tracer::blocking::spawn_traced("/bin/echo", &["echo", "hello"], &numbers, Some(swallow))?;
/// assert_eq!(child.wait()?, 0);
/// assert_eq!(child.drain_syscalls().len(), 1);
/// # Ok::<(), asm_tracer::Error>(())
/// ```
///
/// A plain function is a hook as well, and so is none at all:
///
/// ```
/// use asm_tracer::blocking::spawn_traced;
/// use asm_tracer::{Errno, Sysno, TrappedSyscall};
///
/// fn refuse(_call: &TrappedSyscall) -> Option<i64> {
///     Some(-i64::from(Errno::EROFS as i32))
/// }
///
/// let child = spawn_traced("mkdir", &["mkdir", "/tmp/never"], &[Sysno::mkdir.id().into()], Some(refuse))?;
/// assert_eq!(child.wait()?, 1 << 8);
///
/// let nothing = None::<fn(&TrappedSyscall) -> Option<i64>>;
/// let child = spawn_traced("true", &["true"], &[Sysno::exit_group.id().into()], nothing)?;
/// assert_eq!(child.wait()?, 0);
/// # Ok::<(), asm_tracer::Error>(())
/// ```
pub fn spawn_traced(
    path: impl AsRef<OsStr>,
    argv: &[impl AsRef<OsStr>],
    syscalls: &[i64],
    hook: Option<impl FnMut(&TrappedSyscall) -> Option<i64> + Send + 'static>,
) -> Result<TracedChild> {
    let mut command = Command::new(path);
    if let Some((zeroth, args)) = argv.split_first() {
        command.arg0(zeroth).args(args);
    }
    command.filter(Filter::new().trap(syscalls));
    hook.map_or_else(Tracer::without_hook, Tracer::new)
        .spawn(&mut command)
}
