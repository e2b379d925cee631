//! The primitives of the hand-offs between threads, which a model checker replaces by its own.

#[cfg(asm_tracer_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic::AtomicBool};
#[cfg(not(asm_tracer_loom))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic::AtomicBool};
