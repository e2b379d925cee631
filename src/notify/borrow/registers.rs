//! A thread's system call, as it is in its registers.

use syscalls::Sysno;

use crate::notify::TrappedSyscall;
use crate::syscall::Registers;

/// How many bytes `syscall` has.
const INSTRUCTION: u64 = 2;

/// The kernel's own results: the call was interrupted, and may be made again (`linux/errno.h`). The program never sees them.
pub(super) const ERESTARTSYS: i64 = -512;
pub(super) const ERESTARTNOINTR: i64 = -513;
pub(super) const ERESTARTNOHAND: i64 = -514;
pub(super) const ERESTART_RESTARTBLOCK: i64 = -516;

/// Tells whether the call did not come to its end.
pub(super) fn is_interrupted(result: i64) -> bool {
    matches!(
        result,
        ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND | ERESTART_RESTARTBLOCK
    )
}

/// Tells whether the call waits with a signal mask of its own, which lasts until the handler of the signal that ends it.
pub(super) fn has_mask(call: &TrappedSyscall) -> bool {
    matches!(
        call.sysno(),
        Some(
            Sysno::ppoll
                | Sysno::pselect6
                | Sysno::epoll_pwait
                | Sysno::epoll_pwait2
                | Sysno::rt_sigsuspend
                | Sysno::io_pgetevents
                | Sysno::io_uring_enter
        )
    )
}

pub(super) trait Call {
    /// Tells whether this is the call that was trapped, which the thread enters or leaves.
    fn is_call(&self, call: &TrappedSyscall, instruction_pointer: u64) -> bool;

    /// Makes it another call, while the thread enters one or is about to make it again.
    fn set_call(&mut self, call: &TrappedSyscall);

    /// Puts number and arguments back.
    fn restore_call(&mut self, original: &Registers);

    /// Has the thread make another call in place of what it was about to do after this one.
    fn make(&mut self, call: &TrappedSyscall);

    fn arguments(&self) -> [u64; 6];

    fn result(&self) -> i64;
}

impl Call for Registers {
    fn is_call(&self, call: &TrappedSyscall, instruction_pointer: u64) -> bool {
        // The kernel takes the lower half for the number.
        let nr = i64::from(self.orig_rax as i32);
        let args = self.arguments().map(u64::cast_signed);
        self.rip == instruction_pointer && nr == call.nr && args == call.args
    }

    fn set_call(&mut self, call: &TrappedSyscall) {
        self.orig_rax = call.nr.cast_unsigned();
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9] = call.args.map(i64::cast_unsigned);
    }

    fn restore_call(&mut self, original: &Registers) {
        self.orig_rax = original.orig_rax;
        [self.rdi, self.rsi, self.rdx] = [original.rdi, original.rsi, original.rdx];
        [self.r10, self.r8, self.r9] = [original.r10, original.r8, original.r9];
    }

    fn make(&mut self, call: &TrappedSyscall) {
        self.set_call(call);
        self.rax = self.orig_rax;
        // It is in no call until then, so the kernel has nothing to make again.
        self.orig_rax = u64::MAX;
        self.rip = self.rip.wrapping_sub(INSTRUCTION);
    }

    fn arguments(&self) -> [u64; 6] {
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9]
    }

    fn result(&self) -> i64 {
        self.rax.cast_signed()
    }
}
