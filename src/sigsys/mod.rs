//! Tracing of this very process: its own system calls, trapped by `SIGSYS`.

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
