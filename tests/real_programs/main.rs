//! Programs that nobody wrote for a supervisor do the same under one, with every call trapped and continued.

#[path = "../support/mod.rs"]
mod support;

mod building;
mod program;
mod python;
mod shell;
