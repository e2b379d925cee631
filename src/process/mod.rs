//! Starting a program under a filter, and seeing it end.
//!
//! [`Command`] says what to start. `plan` turns it into memory that a child can use without allocating;
//! `launcher` clones the child on a thread that never retires; `entry` is what the child does up to its exec;
//! `handover` brings the listener and the outcome back; `start` puts these in order and leaves nothing behind wherever it
//! stops; `spawn` does so in a runtime and `spawn_blocking` on a thread; [`Child`] is the program that runs.

mod child;
mod command;
mod entry;
mod environment;
mod exec_report;
mod handover;
mod inherited;
mod launcher;
mod plan;
mod signals;
mod spawn;
mod spawn_blocking;
mod start;
mod stdio;
#[cfg(feature = "sweep")]
mod swept;

pub use child::Child;
pub use command::Command;
pub(crate) use exec_report::ExecReport;
pub(crate) use spawn_blocking::{Running, spawn_blocking};
pub use stdio::Stdio;
