//! Sweeps of faults over a program: what each of its calls could answer, one after the other. Here is which errors those are:
//! [`documented_errors`] has what the manual page of a call lists.

mod errors;

pub use errors::documented_errors;
