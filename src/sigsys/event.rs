use std::time::Duration;

use nix::errno::Errno;

use super::record::{Record, Verdict, What};
use crate::notify::TrappedSyscall;

/// What happened in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A traced call.
    Call(Call),
    /// The result of one, if [results](super::Builder::results) are recorded.
    Returned(Returned),
    /// So many calls there was no room for.
    Lost(u64),
}

/// A traced call of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// The number and the arguments, as the program made it.
    pub syscall: TrappedSyscall,
    /// The calling thread.
    pub thread: i32,
    /// The address of the instruction after the call.
    pub instruction_pointer: u64,
    /// When it was made, since the installation. It comes from the CPU's time stamp counter, and is exact to some
    /// microseconds where that runs at one rate.
    pub time: Duration,
    /// What became of it.
    pub decision: Decision,
}

/// What a traced call returned: the last one that its thread made from this place before that time.
///
/// It may come after later calls of the same thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Returned {
    /// What the kernel returned; −4095..=−1 is an errno.
    pub value: i64,
    /// The calling thread.
    pub thread: i32,
    /// The address of the instruction after the call.
    pub instruction_pointer: u64,
    /// When it returned, since the installation.
    pub time: Duration,
}

/// What became of a traced call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// The kernel ran it as it was.
    Run,
    /// The kernel ran this instead.
    Rewritten(TrappedSyscall),
    /// The hook gave its result.
    Returned(i64),
    /// It failed with this error: an execution that is not allowed (`EPERM`), a rewriting that can't be done
    /// (`EOPNOTSUPP`), a call from one place too many (`EAGAIN`).
    Refused(Errno),
}

impl From<Record> for Event {
    fn from(record: Record) -> Self {
        match record.what {
            What::Lost(calls) => Self::Lost(calls),
            What::Returned(value) => Self::Returned(Returned {
                value,
                thread: record.thread.cast_signed(),
                instruction_pointer: record.site,
                time: Duration::from_nanos(record.time),
            }),
            What::Call(syscall, verdict) => Self::Call(Call {
                syscall,
                thread: record.thread.cast_signed(),
                instruction_pointer: record.site,
                time: Duration::from_nanos(record.time),
                decision: match verdict {
                    Verdict::Run => Decision::Run,
                    Verdict::Rewritten(other) => Decision::Rewritten(other),
                    Verdict::Returned(value) => Decision::Returned(value),
                    Verdict::Refused(errno) => Decision::Refused(Errno::from_raw(errno)),
                },
            }),
        }
    }
}
