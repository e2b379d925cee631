//! Sweeps: every call of a program fails with every error that it documents, one in each run, to see what the program makes
//! of it.
//!
//! A [`Sweep`] runs the program a few times without a fault, and learns which calls its threads make, what it writes, and
//! which files it leaves. Then it runs it once for each [`Case`], many at a time, and gives each run a [`Verdict`]: the same
//! result, a clean failure, a silent one, a crash, a hang, a leaked file. The [`Report`] has them all, as a value, as text, as JSON
//! and as a page; each finding has a command line that repeats it.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> asm_tracer::Result<()> {
//! use asm_tracer::sweep::{Sweep, Verdict};
//! use asm_tracer::{Command, Errno, Sysno};
//!
//! // What does a careless script do when its disk is full?
//! let mut command = Command::new("sh");
//! command.args(["-c", "echo precious >file; echo done"]);
//! let report = Sweep::new(command).calls(Sysno::write).errors([Errno::ENOSPC]).run().await?;
//! assert_eq!(report.count(Verdict::SilentFailure), 1, "{report}");
//! println!("{report}");
//! # Ok(())
//! # }
//! ```
//!
//! # Which calls are the same
//!
//! A call is known by its thread, its kind, and its place among the calls of that kind in that thread. Threads are known by
//! who made them ([`Lineage`](crate::Lineage)). So it does not matter which thread is faster. A call that is not made in each
//! run without a fault is not swept; a program most of whose calls are such, or that does not end in the same way each time, can't be
//! ([`Error::NotSweepable`](crate::Error::NotSweepable)). Output and files that are different each time are not compared, unless
//! there is nothing of them any more, and the [`Baseline`] says which. A program that has the time, its process id or the name of a temporary file in its output should be told
//! not to.
//!
//! Signals that come at any time, and timeouts that run out while the machine is busy, lead to other calls. The calls of a child
//! whose parent is traced by somebody else are not known. A shell whose handler of `SIGCHLD` does not restart calls, as dash, can have a
//! fork fail that is trapped just when another child ends: the kernel gives the call back before it is received. Bash restarts it.
//!
//! # What is touched
//!
//! Each run has a directory of its own, with the working directory, `HOME` and `TMPDIR` in it. It is removed afterwards, and
//! whatever the program has started is killed. Runs may read what the user may read, and write to that directory, to what they
//! are told is [writable](Sweep::writable), and to `/dev/null` and the like. The kernel sees to that: Landlock (since Linux
//! 6.2; signals to processes outside and abstract sockets since 6.12). What it does not know fails by the paths and addresses that
//! calls name, which is for programs that are not out to get around it: changes of permissions, owners, times and extended
//! attributes with `EROFS`, Unix sockets elsewhere with `EACCES`, and addresses on other machines with `ENETUNREACH` unless the
//! sweep is [online](Sweep::online). There is no `io_uring` and no other ABI (32 bits, x32), through which all of this could
//! be had unseen. A server that takes connections from elsewhere can answer them. Where this process may not look into a
//! program, one that is not dumpable for example, or an orphan under Yama, all such calls of it fail.
//!
//! # What it costs
//!
//! Only the calls of the kind that is to fail are trapped, and those that make threads, change what is known of files, or say whom
//! to reach. A run costs the program and about as much again for its start, its directory and the comparison. Runs with a finding, and
//! those that did not come to the call, are made twice.
//!
//! # Kernel support
//!
//! Since Linux 6.2, or 5.9 if it is [unconfined](Sweep::unconfined).

mod case;
mod cases;
mod classify;
mod engine;
mod errors;
mod journal;
mod learn;
mod progress;
mod report;
mod run;
mod scratch;
mod stamp;
#[allow(clippy::module_inception)] // What the module is about.
mod sweep;
mod trial;

pub use case::Case;
pub use errors::documented_errors;
pub use progress::Progress;
pub use report::{Baseline, LeftOut, Report};
pub use sweep::Sweep;
pub use trial::{Change, Ending, FileChange, Trial, Verdict};
