//! How far a sweep is.

use super::trial::Trial;

/// How far a [`Sweep`](super::Sweep) is, for those who wait.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// How many cases are to be run, those from the journal included; 0 while the program is run without a fault.
    pub total: usize,
    /// How many of them are done.
    pub done: usize,
    /// How many of these came to something that the program should not come to.
    pub findings: usize,
    /// The one that was done last.
    pub last: Option<&'a Trial>,
}
