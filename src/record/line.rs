//! What a trace consists of.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use syscalls::Sysno;

#[cfg(feature = "serde")]
use super::wire;
use crate::notify::{Arch, Observed, TrappedSyscall};

/// A line of a trace.
///
/// They are in the order of the answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(tag = "type", rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Line {
    /// A call that has been answered.
    Call(Box<Record>),
    /// Calls are missing here.
    Dropped(Gap),
    /// The end of a trace that was [finished](super::Recorder::finish). One without was cut off.
    End(Sums),
}

/// Calls that are missing in a trace, because its writer could not keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Gap {
    /// How many they are.
    pub calls: u64,
    /// When the first of them was received.
    #[cfg_attr(feature = "serde", serde(rename = "time_us", with = "wire::time"))]
    pub time: SystemTime,
}

/// How many calls a whole trace has, and how many it has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Sums {
    /// The lines that are calls.
    pub written: u64,
    /// The calls that are missing.
    pub dropped: u64,
}

/// A call, with its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Record {
    /// When it was received, to the microsecond.
    #[cfg_attr(feature = "serde", serde(rename = "time_us", with = "wire::time"))]
    pub time: SystemTime,
    /// How long its thread was held from then until the answer, looks included.
    #[cfg_attr(feature = "serde", serde(rename = "held_ns", with = "wire::duration"))]
    pub held: Duration,
    /// How long it then ran, if its result was waited for.
    #[cfg_attr(feature = "serde", serde(rename = "ran_ns", with = "wire::optional_duration"))]
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub ran: Option<Duration>,
    /// The supervised tree, as its [`ChildKey`](crate::ChildKey) is displayed. It means something among the records of one
    /// process.
    pub child: u64,
    /// The process, as the supervisor numbers it; `None` if that can't see it or it was gone.
    pub pid: Option<i32>,
    /// The thread, as the supervisor numbers it; `None` if that can't see it.
    pub tid: Option<i32>,
    /// Through which ABI the call was made, which decides what its number means.
    #[cfg_attr(feature = "serde", serde(with = "wire::arch"))]
    pub arch: Arch,
    /// Its number.
    pub nr: i64,
    /// Its name, if it is a call of the 64-bit ABI.
    pub name: Option<Cow<'static, str>>,
    /// The argument registers.
    #[cfg_attr(feature = "serde", serde(with = "wire::registers"))]
    pub args: [i64; 6],
    /// The memory behind its arguments that was to be looked at. What is behind null pointers is left out.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Vec::is_empty"))]
    pub memory: Vec<Memory>,
    /// How it was answered.
    pub answer: Answer,
    /// What it came to, if that was waited for.
    #[cfg_attr(feature = "serde", serde(with = "wire::observed"))]
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub observed: Option<Observed>,
}

impl Record {
    /// The call, if it was made through the 64-bit ABI and x86-64 Linux has it.
    pub fn sysno(&self) -> Option<Sysno> {
        let Self { nr, args, .. } = *self;
        match self.arch {
            Arch::X86_64 => TrappedSyscall { nr, args }.sysno(),
            _ => None,
        }
    }

    /// The paths among its arguments that could be read, in their order.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.memory.iter().filter_map(Memory::path)
    }
}

/// What was found behind an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "wire::Memory", try_from = "wire::Memory"))]
#[non_exhaustive]
pub struct Memory {
    /// The argument, from 0.
    pub argument: usize,
    /// What it is to the call.
    pub kind: MemoryKind,
    /// As much as was read: of a path all but its final zero.
    pub bytes: Vec<u8>,
    /// Whether the call has more than was to be recorded.
    pub truncated: bool,
    /// Why there is less than there should be.
    pub missing: Option<Missing>,
}

impl Memory {
    /// The path, if it is one and could be read.
    pub fn path(&self) -> Option<&Path> {
        let readable = self.kind == MemoryKind::Path && self.missing.is_none();
        readable.then(|| Path::new(OsStr::from_bytes(&self.bytes)))
    }
}

/// What memory is to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum MemoryKind {
    /// A path.
    Path,
    /// What is to be written or sent, if need be from several buffers.
    Buffer,
    /// A socket's address, a `struct sockaddr`.
    Address,
}

/// Why memory was not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Missing {
    /// The target can't read it either.
    Fault,
    /// The look took [too long](super::Builder::look_limit), or an earlier one at this child does still.
    Stalled,
    /// This process may not look into the target.
    NoAccess,
    /// The target died, or a signal took the call back.
    Gone,
    /// It is longer than the kernel takes.
    TooLong,
    /// This process could not look, for example for want of a descriptor.
    Failed,
}

/// How a call was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Answer {
    /// It ran as the target made it.
    Continued,
    /// It returned this value without running.
    Returned(i64),
    /// It failed with this error without running.
    #[cfg_attr(feature = "serde", serde(with = "wire::errno"))]
    Failed(Errno),
    /// It ran as another one.
    Rewritten {
        /// The number of the call that ran.
        nr: i64,
        /// Its arguments. Where data was given, these are the addresses that it replaced.
        #[cfg_attr(feature = "serde", serde(with = "wire::registers"))]
        args: [i64; 6],
    },
    /// It returned a descriptor that the supervisor gave.
    Descriptor,
    /// It ended as for a signal.
    Interrupted,
    /// Other code answered it: see [`Recorded::answer_with`](super::Recorded::answer_with).
    Elsewhere,
    /// None was wanted any more: the target died, or a signal took the call back.
    Gone,
    /// None was given, so that it failed with `ENOSYS`.
    Dropped,
}
