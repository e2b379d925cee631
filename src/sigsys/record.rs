use super::ring;
use crate::notify::TrappedSyscall;

/// A trapped call as the handler writes it down.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Record {
    /// Ticks in the rings of the handler, nanoseconds behind the drain.
    pub(super) time: u64,
    pub(super) site: u64,
    pub(super) thread: u32,
    /// It is the consumer's own, and not to wake it.
    pub(super) quiet: bool,
    pub(super) what: What,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    Call(TrappedSyscall, Verdict),
    /// The result of a call.
    Returned(i64),
    Lost(u64),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Verdict {
    Run,
    Rewritten(TrappedSyscall),
    Returned(i64),
    Refused(i32),
}

impl ring::Record for Record {}

impl Record {
    pub(super) const BLANK: Self = Self {
        time: 0,
        site: 0,
        thread: 0,
        quiet: true,
        what: What::Lost(0),
    };
}

const _: () = assert!(size_of::<Record>() <= 248);

/// The result of a call as the gate writes it down (`gate.asm`).
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Returned {
    pub(super) ticks: u64,
    pub(super) site: u64,
    pub(super) value: i64,
    pub(super) thread: u64,
}

impl ring::Record for Returned {}

impl Returned {
    pub(super) const BLANK: Self = Self {
        ticks: 0,
        site: 0,
        value: 0,
        thread: 0,
    };
}
