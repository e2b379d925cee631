//! Rules that the kernel applies to each system call, before anybody else sees it.
//!
//! A [`Filter`] is a list of rules and a default. For each call the first rule in the list whose number and conditions
//! fit decides. It compiles to a classic BPF [`Program`]: a binary search over the numbers, so that the cost grows
//! with the logarithm of their count, and loads of arguments only where a rule asks for them, so that the kernel
//! remembers the plainly allowed numbers and runs no program at all for them (since Linux 5.11).
//!
//! # Security
//!
//! Calls that never enter the kernel's system call path are not seen by any filter: the vDSO (`clock_gettime` and its
//! like), and the operations of an `io_uring`. A filter that is to see every access to files or sockets must refuse
//! the latter: `filter.errno(Sysno::io_uring_setup, Errno::ENOSYS)`.
//!
//! A program may install further filters for itself, and of two actions the kernel takes the stricter one: a call that
//! its own filter refuses does not reach the supervisor.
//!
//! See `seccomp(2)`.

mod assembler;
mod calls;
mod compile;
mod condition;
mod display;
mod install;
mod leaf;
mod program;
#[cfg(test)]
mod tests;

use nix::errno::Errno;

pub use calls::Syscalls;
pub(crate) use compile::{HandOver, Handler, Purpose};
pub use condition::{Arg, Condition, IntArg, arg, int_arg};
pub(crate) use install::install;
pub use install::{Threads, install_filter, install_filter_with_notifs};
pub use program::{Instruction, Program};

use crate::error::{Error, Result};

/// What happens to a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// The kernel runs it.
    Allow,
    /// The kernel runs it and writes a line to the audit log. Since Linux 4.14.
    Log,
    /// It becomes a [`Notification`](crate::Notification).
    Trap,
    /// The thread gets a `SIGSYS` in place of it, whose handler finds the call in its `siginfo_t`. Without a handler the
    /// process dies of it.
    Sigsys,
    /// It fails with this error without having run.
    Errno(Errno),
    /// The whole process dies, as of `SIGSYS`. Since Linux 4.14.
    Kill,
}

impl Action {
    /// The value that a program returns for it (`SECCOMP_RET_*`).
    fn return_value(self) -> Result<u32> {
        Ok(match self {
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::Log => libc::SECCOMP_RET_LOG,
            Self::Trap => libc::SECCOMP_RET_USER_NOTIF,
            Self::Sigsys => libc::SECCOMP_RET_TRAP,
            Self::Kill => libc::SECCOMP_RET_KILL_PROCESS,
            Self::Errno(errno) if errno as i32 > 0 => libc::SECCOMP_RET_ERRNO | errno as u32,
            Self::Errno(_) => {
                return Err(Error::InvalidFilter(
                    "errno 0 is no error; trap the call and respond with 0".into(),
                ));
            }
        })
    }
}

/// Rules and a default: which calls are allowed, refused, trapped.
///
/// The methods take the filter and give it back, so that one is written as one expression. For each call the first
/// rule whose number and conditions fit decides; where none fits, the default does.
///
/// Calls through another ABI (32-bit `int 0x80`, x32) have other numbers, which no rule speaks of. They kill the process
/// unless [`foreign_abi`](Self::foreign_abi) says otherwise.
///
/// # Examples
///
/// ```
/// use asm_tracer::filter::{arg, int_arg};
/// use asm_tracer::{Errno, Filter, Sysno};
///
/// let filter = Filter::new()
///     .errno(Sysno::io_uring_setup, Errno::ENOSYS)
///     .trap([Sysno::openat, Sysno::connect])
///     .trap_if(Sysno::write, [int_arg(0).eq(2), arg(2).ge(1 << 20)]);
/// println!("{filter}");
/// assert!(filter.program()?.len() < 50);
/// # Ok::<(), asm_tracer::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Filter {
    rules: Vec<Rule>,
    default: Action,
    foreign_abi: Action,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    number: i64,
    conditions: Vec<Condition>,
    action: Action,
}

impl Filter {
    /// Makes a filter that allows everything.
    pub fn new() -> Self {
        Self {
            rules: Vec::new(),
            default: Action::Allow,
            foreign_abi: Action::Kill,
        }
    }

    /// Makes a filter that traps everything.
    pub fn trap_all() -> Self {
        Self::new().otherwise(Action::Trap)
    }

    /// Traps these calls.
    pub fn trap(self, calls: impl Syscalls) -> Self {
        self.rule(calls, [], Action::Trap)
    }

    /// Traps these calls where all conditions hold.
    pub fn trap_if(self, calls: impl Syscalls, conditions: impl IntoIterator<Item = Condition>) -> Self {
        self.rule(calls, conditions, Action::Trap)
    }

    /// Makes these calls fail.
    pub fn errno(self, calls: impl Syscalls, errno: Errno) -> Self {
        self.rule(calls, [], Action::Errno(errno))
    }

    /// Makes these calls kill the process.
    pub fn kill(self, calls: impl Syscalls) -> Self {
        self.rule(calls, [], Action::Kill)
    }

    /// Allows these calls and has the kernel log them.
    pub fn log(self, calls: impl Syscalls) -> Self {
        self.rule(calls, [], Action::Log)
    }

    /// Allows these calls.
    pub fn allow(self, calls: impl Syscalls) -> Self {
        self.rule(calls, [], Action::Allow)
    }

    /// Adds a rule for each of these calls: the action, where all conditions hold.
    pub fn rule(
        mut self,
        calls: impl Syscalls,
        conditions: impl IntoIterator<Item = Condition>,
        action: Action,
    ) -> Self {
        let conditions: Vec<_> = conditions.into_iter().collect();
        for number in calls.numbers() {
            self.rules.push(Rule {
                number,
                conditions: conditions.clone(),
                action,
            });
        }
        self
    }

    /// Sets what happens to the calls that no rule fits.
    pub fn otherwise(mut self, action: Action) -> Self {
        self.default = action;
        self
    }

    /// Sets what happens to calls through the i386 and x32 ABIs; [`Action::Kill`] unless told otherwise.
    ///
    /// If they are trapped, [`Notification::arch`](crate::Notification::arch) tells them apart.
    pub fn foreign_abi(mut self, action: Action) -> Self {
        self.foreign_abi = action;
        self
    }

    /// Tells whether anything leads to this action.
    pub(crate) fn has(&self, action: Action) -> bool {
        let rules = self.rules.iter().map(|rule| rule.action);
        rules
            .chain([self.default, self.foreign_abi])
            .any(|present| present == action)
    }

    /// What happens to calls through the i386 and x32 ABIs.
    pub(crate) fn on_foreign_abi(&self) -> Action {
        self.foreign_abi
    }

    /// The numbers that rules speak of.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = i64> {
        self.rules.iter().map(|rule| rule.number)
    }

    /// Compiles the filter.
    ///
    /// Starting a child does it too; this is for those who want to see the program or find mistakes early.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidFilter`] for a rule that can't be expressed (a number of another ABI, an argument that there
    /// isn't, errno 0) or whose masked value lies outside of its mask, and [`Error::FilterTooLarge`] for more than the
    /// 4 096 instructions that the kernel takes. Starting a child adds up to some forty, where the filter traps or
    /// refuses the calls that start it.
    pub fn program(&self) -> Result<Program> {
        self.compile(Purpose::Rules)
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self::new()
    }
}
