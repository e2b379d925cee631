//! One borrowed thread, from stop to stop.
//!
//! ```text
//! trapped ── interrupted, answered ERESTARTNOINTR ──▶ Stopping ──▶ Entering ──▶ Running ──▶ its own again
//!                                                        │            ▲            │
//!                                                        └─▶ Mapping ─┘            └─▶ Unmapping ─▶ its own again
//! ```
//!
//! The answer has the kernel make the call again. At its entry, before the filter is asked, the registers are those of the
//! wanted call; at its exit those of the program are put back. Whatever else the thread stops for ends the loan.

use std::sync::{Arc, Weak};
use std::time::Instant;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::desk::Desk;
use super::filling::Filling;
use super::order::{Order, Outcome, Reply, Wish};
use super::registers::{Call, ERESTARTNOHAND, ERESTARTNOINTR, has_mask, is_interrupted};
use super::scratch::Scratch;
use super::stops::{self, Life, Stop};
use crate::notify::passes::Pass;
use crate::notify::{Source, TrappedSyscall, answer, uapi};
use crate::syscall::{PtraceRequest, Registers, SignalNumber, SyscallError, ptrace};

pub(super) struct Loan {
    tid: Pid,
    /// Does not keep the listener open after all others have let go of it.
    source: Weak<Source>,
    wish: Wish,
    reply: Arc<Reply>,
    /// Where the end of other threads' work is left.
    desk: Arc<Desk>,
    rewrites: bool,
    /// Its process, whose number it takes over when it executes a program.
    process: Option<Pid>,
    phase: Phase,
    /// As they were when the call had been trapped.
    original: Registers,
    /// As they are to be once the room is given back.
    after: Registers,
    scratch: Option<Scratch>,
    /// Its data on its way to the room.
    filling: Option<Arc<Filling>>,
    /// It was interrupted because nobody waits for its result any more.
    leaving: bool,
    /// When it was taken hold of.
    pub(super) since: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It has been told to stop.
    Stopping,
    /// It makes room for data: before the entry to that call, and in it.
    Mapping { entered: bool },
    /// It waits for its data.
    Filling,
    /// It is about to make its call again.
    Entering,
    /// It makes the wanted call.
    Running,
    /// It gives the room back.
    Unmapping { entered: bool },
    /// The same, and is about to be told that its call was interrupted.
    Unmapped,
    /// It is about to make its call again, as if nobody had looked.
    Leaving,
}

/// What becomes of a thread after a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It goes on, to its next stop.
    Borrowed,
    /// It is its own again.
    Released,
    /// The same, and its next call has a pass.
    ReleasedWithPass,
}

type Step = Result<Next, SyscallError>;

impl Loan {
    /// Gives a thread that was taken hold of its answer.
    pub(super) fn begin(order: Order, tid: Pid, desk: &Arc<Desk>) -> Self {
        let Order {
            mut call,
            wish,
            reply,
        } = order;
        let executes = matches!(wish.wanted.nr, libc::SYS_execve | libc::SYS_execveat);
        let process = if executes { call.pid().ok() } else { None };
        // It is interrupted as soon as it has its answer, before it makes the call again or takes a signal. If either fails,
        // it dies, or a signal has taken the call back, and it stops for that.
        let _ = ptrace(tid.as_raw(), PtraceRequest::Interrupt);
        let again = uapi::Response {
            id: call.id,
            value: 0,
            error: ERESTARTNOINTR as i32,
            flags: 0,
        };
        let _ = answer::deliver(&call.source, again);
        call.answered = true;
        Self {
            tid,
            source: Arc::downgrade(&call.source),
            rewrites: wish.rewrites(),
            wish,
            reply,
            desk: Arc::clone(desk),
            process: process.map(Pid::from_raw),
            phase: Phase::Stopping,
            original: Registers::default(),
            after: Registers::default(),
            scratch: None,
            filling: None,
            leaving: false,
            since: Instant::now(),
        }
    }

    /// After an execution by a thread that does not lead its process, which then has the leader's number.
    pub(super) fn renamed(&mut self, tid: Pid) {
        self.tid = tid;
    }

    pub(super) fn belongs_to(&self, reply: &Arc<Reply>) -> bool {
        Arc::ptr_eq(&self.reply, reply)
    }

    /// The listener from which the thread's next call is to be let pass, if it has not come yet.
    pub(super) fn expected_at(&self) -> Option<Arc<Source>> {
        let source = self.source.upgrade()?;
        source.passes.is_granted(self.raw_tid()).then_some(source)
    }

    /// Says that the call runs, if that is what is waited for.
    pub(super) fn let_run(&self) {
        if self.phase == Phase::Running && !self.wish.observe {
            self.reply.settle(Outcome::LetRun);
        }
    }

    /// The number of the call that the thread makes now.
    pub(super) fn number(&self) -> i64 {
        match self.phase {
            Phase::Mapping { .. } => libc::SYS_mmap,
            Phase::Unmapping { .. } => libc::SYS_munmap,
            _ => self.wish.wanted.nr,
        }
    }

    /// Takes note that nobody waits for the outcome.
    pub(super) fn abandon(&mut self) {
        if self.phase == Phase::Running {
            self.leave();
        }
    }

    /// Looks whether the thread has died without a stop.
    pub(super) fn is_dead(&self) -> bool {
        let dead = |tid| stops::life(tid) == Life::Dead;
        // If it has its process's number already, that one is this thread, which stops soon.
        dead(self.tid)
            && self
                .process
                .is_none_or(|process| process == self.tid || dead(process))
    }

    /// The thread has died without a stop.
    pub(super) fn died(self) {
        self.end(Outcome::Gone);
    }

    /// Has the thread do the next thing.
    pub(super) fn stopped(&mut self, stop: Stop) -> Next {
        let next = match (self.phase, stop) {
            (_, Stop::Exiting) => self.release(SignalNumber::NONE, Outcome::Gone),
            (Phase::Stopping, Stop::Interrupted) => self.begin_again(),
            (Phase::Mapping { entered }, Stop::Syscall) => self.map(entered),
            (Phase::Entering, Stop::Syscall) => self.enter(),
            (Phase::Running, Stop::Syscall) => self.leave_call(),
            (Phase::Running, Stop::Executed) => self.release(SignalNumber::NONE, Outcome::Returned(0)),
            (Phase::Unmapping { entered }, Stop::Syscall) => self.unmap(entered),
            (Phase::Leaving, Stop::Syscall) => self.release_with_pass(),
            // A signal is about to be delivered, or stops the process: it comes first, as it does for any call.
            (_, Stop::Signal(signal)) => self.give_back(SignalNumber::from(signal)),
            _ => self.give_back(SignalNumber::NONE),
        };
        // It has been killed meanwhile, and will stop once more on its way out.
        next.unwrap_or(Next::Borrowed)
    }

    /// The thread has left the trap, and makes its call again, unless a signal is about to come or has taken it back before.
    fn begin_again(&mut self) -> Step {
        // Nobody wants it to be rewritten any more: it comes again.
        if self.rewrites && self.reply.is_abandoned() {
            return self.release(SignalNumber::NONE, Outcome::Gone);
        }
        if self.wish.data.is_empty() {
            return self.go_on(Phase::Entering);
        }
        let registers = self.registers()?;
        let call_again = registers.is_call(&self.wish.trapped, self.wish.instruction_pointer)
            && is_interrupted(registers.result());
        if !call_again {
            return self.release(SignalNumber::NONE, Outcome::Gone);
        }
        self.original = registers;
        let scratch = Scratch::new(self.tid, &self.wish.data)?;
        let mut registers = self.original;
        registers.set_call(&scratch.mapping());
        // Whatever took it out of the trap: no signal comes in between.
        registers.rax = ERESTARTNOINTR.cast_unsigned();
        self.scratch = Some(scratch);
        self.set_registers(&registers)?;
        self.go_on(Phase::Mapping { entered: false })
    }

    fn map(&mut self, entered: bool) -> Step {
        let Some(scratch) = &mut self.scratch else {
            return self.give_back(SignalNumber::NONE);
        };
        if !entered {
            let call = scratch.mapping();
            return self.enter_own(&call, Phase::Mapping { entered: true });
        }
        self.take_pass_back();
        let result = self.registers()?.result();
        let address = match self
            .scratch
            .as_mut()
            .map(|scratch| scratch.place(result, &mut self.wish))
        {
            Some(Ok(address)) => address,
            Some(Err(errno)) => return self.fail(errno),
            None => return self.give_back(SignalNumber::NONE),
        };
        let data = std::mem::take(&mut self.wish.data);
        let (desk, reply) = (Arc::clone(&self.desk), Arc::clone(&self.reply));
        let filling = Arc::new(Filling::new(self.tid, address, data, desk, reply));
        let Some(source) = self.source.upgrade() else {
            return self.fail(Errno::ENOSYS);
        };
        self.filling = Some(Arc::clone(&filling));
        if source.lane.submit(filling).is_err() {
            return self.fail(Errno::ENOMEM);
        }
        self.phase = Phase::Filling;
        Ok(Next::Borrowed)
    }

    /// The data is in place, or can't be, and the thread goes on.
    pub(super) fn filled(&mut self, filled: Result<(), Errno>) -> Next {
        let next = match (self.phase, filled) {
            (Phase::Filling, Ok(())) => self.make_call(),
            (Phase::Filling, Err(errno)) => self.fail(errno),
            _ => Ok(Next::Borrowed),
        };
        next.unwrap_or(Next::Borrowed)
    }

    fn make_call(&mut self) -> Step {
        let mut registers = self.original;
        registers.make(&self.wish.trapped);
        registers.rax = self.original.orig_rax;
        self.set_registers(&registers)?;
        self.go_on(Phase::Entering)
    }

    /// Ends the call with an error of its own: it can't run as it is to.
    fn fail(&mut self, errno: Errno) -> Step {
        let mut registers = self.original;
        registers.rax = -(errno as i64) as u64;
        registers.orig_rax = u64::MAX;
        self.set_registers(&registers)?;
        self.unblock_signals()?;
        self.release(SignalNumber::NONE, Outcome::Returned(-(errno as i64)))
    }

    /// The thread enters its call; the filter has not been asked yet.
    fn enter(&mut self) -> Step {
        let mut registers = self.registers()?;
        let entered = registers.result() == -(Errno::ENOSYS as i64);
        if !entered || !registers.is_call(&self.wish.trapped, self.wish.instruction_pointer) {
            return self.give_back(SignalNumber::NONE);
        }
        self.unblock_signals()?;
        if self.scratch.is_none() {
            self.original = registers;
        }
        if self.rewrites {
            registers.set_call(&self.wish.wanted);
            self.set_registers(&registers)?;
        }
        self.grant_pass(&registers);
        let abandoned = self.reply.is_abandoned();
        if abandoned && !self.rewrites {
            return self.release_granted();
        }
        let next = self.go_on(Phase::Running)?;
        if abandoned {
            self.leave();
        }
        Ok(next)
    }

    /// The thread leaves its call.
    fn leave_call(&mut self) -> Step {
        self.take_pass_back();
        let mut registers = self.registers()?;
        let mut result = registers.result();
        // A call that no signal ends can be made again; but a descriptor may be closed already when close(2) says so.
        let disturbed = result == -(Errno::EINTR as i64) && self.wish.wanted.nr != libc::SYS_close;
        if self.leaving && disturbed {
            result = ERESTARTNOHAND;
            registers.rax = result.cast_unsigned();
        }
        if self.rewrites {
            registers.restore_call(&self.original);
        }
        let outcome = match is_interrupted(result) {
            true => Outcome::Interrupted,
            false => Outcome::Returned(result),
        };
        let ended_by_signal = is_interrupted(result) || result == -(Errno::EINTR as i64);
        if ended_by_signal && has_mask(&self.wish.wanted) {
            // Its mask can't be put back once signals were blocked, so the room stays.
            self.scratch = None;
        }
        if let Some(scratch) = &mut self.scratch {
            self.reply.settle(outcome);
            scratch.block_signals(self.tid)?;
            self.after = registers;
            registers.make(&scratch.unmapping());
            self.set_registers(&registers)?;
            return self.go_on(Phase::Unmapping { entered: false });
        }
        if self.rewrites || self.leaving {
            self.set_registers(&registers)?;
        }
        if self.leaving && is_interrupted(result) && !self.rewrites {
            return self.go_on(Phase::Leaving);
        }
        self.release(SignalNumber::NONE, outcome)
    }

    fn unmap(&mut self, entered: bool) -> Step {
        let Some(scratch) = &self.scratch else {
            return self.give_back(SignalNumber::NONE);
        };
        if !entered {
            let call = scratch.unmapping();
            return self.enter_own(&call, Phase::Unmapping { entered: true });
        }
        self.take_pass_back();
        if is_interrupted(self.after.result()) {
            // Only a thread that looks for signals takes this result for what it is; the one that it was meant for may have
            // gone to another thread by now.
            ptrace(self.tid.as_raw(), PtraceRequest::Interrupt)?;
            return self.go_on(Phase::Unmapped);
        }
        self.give_back(SignalNumber::NONE)
    }

    /// Lets a call of our own into the kernel.
    fn enter_own(&mut self, call: &TrappedSyscall, phase: Phase) -> Step {
        let registers = self.registers()?;
        if !registers.is_call(call, self.wish.instruction_pointer) {
            return self.give_back(SignalNumber::NONE);
        }
        self.grant_pass(&registers);
        self.go_on(phase)
    }

    /// Ends the loan at a stop where the thread may have changed registers.
    fn give_back(&mut self, signal: SignalNumber) -> Step {
        let outcome = match self.phase {
            Phase::Unmapping { .. } | Phase::Unmapped => {
                self.set_registers(&self.after)?;
                Outcome::Interrupted
            }
            Phase::Mapping { .. } | Phase::Filling | Phase::Entering if self.scratch.is_some() => {
                self.set_registers(&self.original)?;
                Outcome::Gone
            }
            Phase::Running => {
                let mut registers = self.registers()?;
                if self.rewrites {
                    registers.restore_call(&self.original);
                    self.set_registers(&registers)?;
                }
                Outcome::Interrupted
            }
            _ => Outcome::Gone,
        };
        self.unblock_signals()?;
        self.release(signal, outcome)
    }

    /// Interrupts the call, of which nobody wants to know the result any more.
    fn leave(&mut self) {
        self.leaving = ptrace(self.tid.as_raw(), PtraceRequest::Interrupt).is_ok();
    }

    fn go_on(&mut self, phase: Phase) -> Step {
        ptrace(self.tid.as_raw(), PtraceRequest::Syscall(SignalNumber::NONE))?;
        self.phase = phase;
        Ok(Next::Borrowed)
    }

    fn release(&mut self, signal: SignalNumber, outcome: Outcome) -> Step {
        self.take_pass_back();
        ptrace(self.tid.as_raw(), PtraceRequest::Detach(signal))?;
        self.reply.settle(outcome);
        Ok(Next::Released)
    }

    /// Lets the thread make its call again as if nothing had happened, if it is that call: other threads can have changed
    /// the code meanwhile, so that it makes another.
    fn release_with_pass(&mut self) -> Step {
        let registers = self.registers()?;
        let mut restarted = self.wish.trapped;
        restarted.nr = libc::SYS_restart_syscall;
        let is_call = |call| registers.is_call(call, self.wish.instruction_pointer);
        if !is_call(&self.wish.trapped) && !is_call(&restarted) {
            return self.give_back(SignalNumber::NONE);
        }
        self.grant_pass(&registers);
        self.release_granted()
    }

    fn release_granted(&mut self) -> Step {
        ptrace(self.tid.as_raw(), PtraceRequest::Detach(SignalNumber::NONE))?;
        self.reply.settle(Outcome::Gone);
        Ok(Next::ReleasedWithPass)
    }

    fn end(&self, outcome: Outcome) {
        self.take_pass_back();
        self.reply.settle(outcome);
    }

    /// Lets the call in the registers through when the filter traps it.
    fn grant_pass(&self, registers: &Registers) {
        if let Some(source) = self.source.upgrade() {
            source.passes.grant(Pass {
                tid: self.raw_tid(),
                nr: registers.orig_rax as i32,
                args: registers.arguments(),
                instruction_pointer: registers.rip,
            });
        }
    }

    fn take_pass_back(&self) {
        if let Some(source) = self.source.upgrade() {
            source.passes.revoke(self.raw_tid());
        }
    }

    fn unblock_signals(&self) -> Result<(), SyscallError> {
        self.scratch
            .as_ref()
            .map_or(Ok(()), |scratch| scratch.unblock_signals(self.tid))
    }

    fn raw_tid(&self) -> u32 {
        self.tid.as_raw().cast_unsigned()
    }

    fn registers(&self) -> Result<Registers, SyscallError> {
        let mut registers = Registers::default();
        ptrace(self.tid.as_raw(), PtraceRequest::GetRegisters(&mut registers))?;
        Ok(registers)
    }

    fn set_registers(&self, registers: &Registers) -> Result<(), SyscallError> {
        ptrace(self.tid.as_raw(), PtraceRequest::SetRegisters(registers)).map(drop)
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(filling) = &self.filling {
            filling.cancel();
        }
    }
}
