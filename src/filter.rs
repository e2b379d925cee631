//! Rules that the kernel applies to each system call.

/// t
pub struct Filter;
/// t
pub enum Action {}
