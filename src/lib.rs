//! An async chokepoint between any process and the Linux kernel.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64")))]
compile_error!("asm_tracer works on 64-bit x86-64 Linux only");

mod error;
pub mod filter;
mod syscall;

pub use error::{Error, Result, SpawnStep};
pub use filter::{Action, Filter};
pub use nix::errno::Errno;
pub use syscalls::Sysno;
