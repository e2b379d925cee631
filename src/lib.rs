#![doc = include_str!("../README.md")]
// A hostile target must not be able to stop its supervisor. Tests and examples may.
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[cfg(not(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64")))]
compile_error!("asm_tracer supports 64-bit x86-64 Linux only");

pub mod blocking;
mod bound;
pub mod emulate;
mod errno;
mod error;
pub mod filter;
pub mod inject;
mod kernel;
mod lineage;
mod memory;
mod notify;
mod per_process;
mod pidfd;
mod process;
mod reaper;
pub mod record;
mod signal_mask;
pub mod sigsys;
mod stack;
mod supervisor;
#[cfg(feature = "sweep")]
pub mod sweep;
mod sync;
pub mod syscall;
mod trace;
mod workers;

pub use error::{Error, Result, SpawnStep};
pub use filter::{Action, Filter, install_filter, install_filter_with_notifs};
pub use kernel::KernelSupport;
pub use lineage::{Creation, Lineage};
pub use nix::errno::Errno;
pub use nix::sys::signal::Signal;
pub use notify::{
    AnswerError, Arch, ChildKey, Continued, Delivery, Gone, InstallFd, Interrupted, Interruption, Listener,
    Look, Next, Notification, Observe, Observed, Plain, Rewrite, Target, TargetFd, TrappedSyscall, WakeUp,
};
pub use process::{Child, Command, Stdio};
pub use supervisor::{Spawner, Supervisor};
pub use syscall::{RemoteSlice, SignalNumber};
pub use syscalls::Sysno;
