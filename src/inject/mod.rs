//! Faults for programs under test: how a program behaves when the kernel says no.
//!
//! A [`FaultPlan`] has [`Fault`]s: which calls they are about, which occurrences they hit, and what happens then. A program
//! is run under it to its end ([`FaultPlan::run`]), or beside the work of a test ([`FaultPlan::spawn`]), which switches the
//! faults on and off, waits until one has hit, and asserts what became of it.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> asm_tracer::Result<()> {
//! use asm_tracer::inject::{Fault, FaultPlan};
//! use asm_tracer::{Command, Errno, Sysno};
//!
//! // What does `cat` do when its second read fails?
//! let plan = FaultPlan::from(Fault::on(Sysno::read).path("/etc/passwd").nth(2).error(Errno::EIO));
//! let outcome = plan.run(Command::new("cat").arg("/etc/passwd")).await?;
//! outcome.assert_hits(1).assert_code(1);
//! assert!(!outcome.stdout().is_empty());
//! println!("{outcome}");
//! # Ok(())
//! # }
//! ```
//!
//! # What it costs
//!
//! Only calls that faults are about are trapped, with those conditions on arguments that the kernel can check; all others run at
//! full speed and leave no trace. [`FaultPlan::watch`] and [`FaultPlan::watch_all`] trap more, for the record. Of each
//! program the last 64 calls and the first 4 096 hits are kept.
//!
//! # Occurrences
//!
//! They are counted as `strace(1)` does; see [`Occurrences`]. As there, the execution that starts the program is neither hit
//! nor counted, unless [`Command::trap_initial_exec`](crate::Command::trap_initial_exec) asks for it.
//!
//! # Delays
//!
//! A delay before a call holds the thread in the trap, where it takes no signal unless it is killed (see
//! [`Command::wait_killable`](crate::Command::wait_killable)). For a delay after it, the thread is borrowed by `ptrace(2)` until
//! its call returns, and stopped for the delay with the result in its registers. A signal that comes while the call
//! runs ends the delay, as does a debugger that has the thread. At most 64 threads of a program are held back at a time; the
//! calls of others run without it, and [`Hit::failed`] says so.
//!
//! # Signals
//!
//! The signal of a fault goes to the thread that made the call, which then runs, unless it blocks, even if the signal is to end
//! the process, `SIGKILL` excepted; strace has it so. Without
//! [`wait_killable`](crate::Command::wait_killable) any signal would take the call back, so that it is sent right after the answer.
//!
//! A call that a signal takes back and the kernel makes again is another occurrence, as it is to strace.
//!
//! # What is not seen
//!
//! What a program asks of the kernel by `io_uring`, calls that the vDSO answers, and calls through the ABIs of 32 bits and x32
//! run as they are. A fault of `io_uring_setup` has programs do without the first, and
//! [`refuse_other_abis`](FaultPlan::refuse_other_abis) without the last.
//!
//! # Security
//!
//! This is for testing programs that one has, not for confining others. A target can see that it is under a filter, and one
//! that is hostile can have names in memory that change after they were looked at. It can't keep the test from going on:
//! the runtime is never blocked by it, and what is kept of it is bounded.

mod capture;
mod child;
mod counts;
mod effect;
mod expression;
mod fault;
mod following;
mod hold;
mod names;
mod occurrence;
mod outcome;
mod peers;
mod plan;
mod record;
mod selection;
mod serve;
mod sets;
mod signal;
mod threads;

pub use child::FaultyChild;
pub use expression::ParseFaultError;
pub use fault::Fault;
pub use occurrence::Occurrences;
pub use outcome::Outcome;
pub use plan::FaultPlan;
pub use record::{Call, Hit};
pub use threads::ThreadState;
