//! What the benchmarks share: targets, the floor, and the comparison with it.
#![allow(dead_code)] // Each benchmark is a crate of its own and uses a part of it.

pub(crate) mod floor;
pub(crate) mod paired;
pub(crate) mod target;
