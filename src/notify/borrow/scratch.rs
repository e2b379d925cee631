//! Room for data in the target: a mapping that the thread itself makes before its call, and removes after it.
//!
//! Below its stack pointer would be no safe place: that may be the end of the stack, or somebody else's memory where stacks
//! are small and lie side by side. Signals are blocked meanwhile, so that no handler runs between the calls.

use nix::errno::Errno;
use nix::unistd::Pid;

use super::order::{Data, Wish};
use crate::notify::TrappedSyscall;
use crate::syscall::{PtraceRequest, SyscallError, ptrace};

const PAGE: usize = 4096;
/// Fit for any type.
pub(super) const ALIGNMENT: usize = 16;

pub(super) struct Scratch {
    size: usize,
    /// Zero until it is there.
    address: i64,
    /// What the thread blocks by itself.
    mask: u64,
}

impl Scratch {
    /// Plans the room, and blocks the signals of the stopped thread.
    pub(super) fn new(tid: Pid, data: &[Data]) -> Result<Self, SyscallError> {
        let size = data
            .iter()
            .map(|data| data.bytes.len().next_multiple_of(ALIGNMENT));
        let mut scratch = Self {
            size: size.sum::<usize>().max(1).next_multiple_of(PAGE),
            address: 0,
            mask: 0,
        };
        scratch.block_signals(tid)?;
        Ok(scratch)
    }

    /// Keeps the thread's own mask, which its call may have changed.
    pub(super) fn block_signals(&mut self, tid: Pid) -> Result<(), SyscallError> {
        ptrace(tid.as_raw(), PtraceRequest::GetSignalMask(&mut self.mask))?;
        ptrace(tid.as_raw(), PtraceRequest::SetSignalMask(&u64::MAX)).map(drop)
    }

    pub(super) fn unblock_signals(&self, tid: Pid) -> Result<(), SyscallError> {
        ptrace(tid.as_raw(), PtraceRequest::SetSignalMask(&self.mask)).map(drop)
    }

    /// The call that makes the room.
    pub(super) fn mapping(&self) -> TrappedSyscall {
        let access = i64::from(libc::PROT_READ | libc::PROT_WRITE);
        let flags = i64::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        TrappedSyscall {
            nr: libc::SYS_mmap,
            args: [0, self.size as i64, access, flags, -1, 0],
        }
    }

    /// The call that gives it back.
    pub(super) fn unmapping(&self) -> TrappedSyscall {
        TrappedSyscall {
            nr: libc::SYS_munmap,
            args: [self.address, self.size as i64, 0, 0, 0, 0],
        }
    }

    /// Takes note of where the room is, which is what the call has returned, and has the arguments point to it.
    pub(super) fn place(&mut self, returned: i64, wish: &mut Wish) -> Result<u64, Errno> {
        if (-4095..0).contains(&returned) {
            return Err(Errno::from_raw(-returned as i32));
        }
        self.address = returned;
        let mut at = returned;
        for data in &wish.data {
            wish.wanted.args[data.argument] = at;
            at += data.bytes.len().next_multiple_of(ALIGNMENT) as i64;
        }
        Ok(returned.cast_unsigned())
    }
}
