//! A process that traces itself: what can go wrong, by the numbers of the pitfalls (`P1` and so on).
//!
//! Each test is in a process of its own, since a filter can't be taken off.
#![allow(unsafe_code)] // System calls, masks and handlers are what this is about.

#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod common;
mod delivery;
mod exec;
mod masks;
mod memory;
mod races;
mod rewriting;
mod sites;
