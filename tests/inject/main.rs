//! Fault plans: faults that hit programs as they were told to.

#[path = "../support/mod.rs"]
mod support;

mod oracle;
