//! Borrows a frozen thread by `ptrace(2)` for the time of one call: the kernel has no answer that changes the registers of a
//! call, or tells what it returned.

mod bell;
mod borrower;
mod desk;
mod filling;
mod loan;
mod order;
mod registers;
mod scratch;
mod seize;
mod stops;
mod watchdog;

pub(super) use desk::{abandon, call_passed, look_around, submit};
pub(super) use order::{Data, Order, Outcome, Reply, Wish};
