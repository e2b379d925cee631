//! Many listeners as one stream.

#[path = "../support/mod.rs"]
mod support;

mod attached;
mod cancellation;
mod children;
mod descendants;
mod fairness;
mod runtimes;
mod stream;
mod target;
mod tasks;
