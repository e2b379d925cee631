//! Traces: calls with their arguments, answers, times and chosen memory, from any supervisor.
//!
//! A [`Recorder`] is put between the receipt of a call and its answer, which stays the caller's: [`begin`](Recorder::begin)
//! takes a [`Notification`](crate::Notification) and gives a [`Recorded`], which is looked at and answered like one.
//! Where every call is to run, [`pass`](Recorder::pass) is all.
//!
//! ```
//! use asm_tracer::record::{Line, Recorder};
//! use asm_tracer::{Command, Errno, Filter, Supervisor, Sysno};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> asm_tracer::Result<()> {
//! let (lines, trace) = std::sync::mpsc::channel();
//! let recorder = Recorder::builder().to(move |line| lines.send(line).map_err(std::io::Error::other))?;
//!
//! let mut supervisor = Supervisor::new();
//! let mut command = Command::new("cat");
//! command.arg("/etc/hostname").filter(Filter::new().trap(Sysno::openat));
//! let mut child = supervisor.spawn(&mut command).await?;
//! while let Some(call) = supervisor.next().await {
//!     let call = recorder.begin(call).await;
//!     match call.read_path(call.args()[1] as u64)?.ends_with("hostname") {
//!         true => call.error(Errno::EACCES)?,
//!         false => call.continue_syscall()?,
//!     };
//! }
//! child.wait().await?;
//! let finished = recorder.finish().await;
//! assert!(finished.error.is_none() && finished.dropped == 0);
//!
//! for line in trace {
//!     if let Line::Call(call) = line {
//!         println!("{:?} {:?}: {:?}", call.name, call.paths().collect::<Vec<_>>(), call.answer);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A trace goes to a closure ([`Builder::to`]), as JSON lines to a file or pipe (`Builder::to_json`, with the feature `serde`), or
//! to the subscribers of `tracing` (`Builder::to_tracing`, with that feature).
//!
//! # Back-pressure
//!
//! Records wait for the writer in a queue with a bound, in which each has its place before its call is answered. If there is
//! none, the call is held back for a moment ([`Builder::grace`]); then it goes on, and its record is dropped. Dropped
//! ones are counted ([`Recorder::dropped`]), and the trace has a [`Gap`] where they are missing. A destination that
//! fails is the end of the trace and not of the program: [`Recorder::finish`] gives the error, and the rest is counted.
//!
//! # Memory
//!
//! It is read while the thread is frozen, on threads of the library's own, and for no longer than [`Builder::look_limit`]; of a
//! program that is trusted it can be read [in place](Builder::in_place), which takes a fraction of the time. What
//! a call leaves behind in memory, such as the bytes that `read(2)` gives, is not: nobody is frozen then. Nor are structs of
//! which nothing is a path, a buffer or an address.
//!
//! # Security
//!
//! A target can change its memory after the look and before the kernel's own reading, so that a trace of what it has
//! called is evidence of the registers alone. It can't keep the supervisor from going on, unless memory is read in place, nor make the trace larger than the
//! limits say: each call has one line. A trace has what programs write and send, secrets included.
//!
//! # The trace as JSON lines
//!
//! Each line is an object with a `type`: `call` ([`Record`]), `dropped` ([`Gap`]) or `end` ([`Sums`]). `record::read` reads
//! them back. A call has
//!
//! | field | what |
//! |---|---|
//! | `time_us` | when it was received, in microseconds since 1970 |
//! | `held_ns`, `ran_ns` | how long it was held, and then ran (if it was observed), in nanoseconds |
//! | `child`, `pid`, `tid` | the supervised tree, the process, the thread |
//! | `arch`, `nr`, `name` | `"x86_64"`, `"i386"`, `"x32"` or `{"other":AUDIT_ARCH}`, and the call |
//! | `args` | six registers, as strings in hexadecimal: JSON's readers are not all exact beyond 2^53 |
//! | `memory` | what is behind them: `argument`, `kind` (`path`, `buffer`, `address`), the bytes, `truncated`, `missing` |
//! | `answer` | `"continued"`, `{"returned":VALUE}`, `{"failed":{"errno":13,"name":"EACCES"}}`, `{"rewritten":{"nr":…,"args":…}}`, `"descriptor"`, `"interrupted"`, `"elsewhere"`, `"gone"`, `"dropped"` |
//! | `observed` | `{"returned":VALUE}`, `"interrupted"`, `"gone"` |
//!
//! Bytes are `text`, as far as they are UTF-8, followed by `hex`, two digits for each of the others. So a path is readable,
//! and the name `b"caf\xe9"` is `"text":"caf","hex":"e9"`.

mod builder;
mod deadline;
#[cfg(feature = "serde")]
mod json;
mod line;
mod look;
mod opened;
mod queue;
mod recorded;
mod recorder;
mod refused;
mod rewrite;
mod spans;
#[cfg(feature = "serde")]
mod wire;
mod writer;

pub use builder::Builder;
#[cfg(feature = "serde")]
pub use json::read;
pub use line::{Answer, Gap, Line, Memory, MemoryKind, Missing, Record, Sums};
pub use recorded::Recorded;
pub use recorder::{Finished, Recorder};
pub use refused::Refused;
pub use rewrite::RecordedRewrite;
