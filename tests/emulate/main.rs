//! Calls performed in a target's place: what the target sees is what the kernel would have done.
#![allow(unsafe_code)]

#[path = "../support/mod.rs"]
mod support;

mod common;
mod connects;
mod fifos;
mod lookups;
mod older_kernel;
mod opens;
mod policies;
mod programs;
mod races;
mod signals;
mod sole_owner;
mod threads;
