//! The signals that wait for a thread, as `/proc` shows them.

use nix::unistd::Pid;

use crate::error::{Error, Result};

/// Sets of signals (bit 0 is signal 1), of one thread at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Signals {
    /// Whether the thread sleeps so that nothing but its death wakes it, as one does that a signal came to while it waits
    /// for its answer (T12). Until then the signal is another thread's, or the kernel is about to take the call back.
    held: bool,
    /// Whether the leader of the process has stopped it, for which the kernel waits for this thread, too.
    stopping: bool,
    threads: u64,
    /// Sent to the thread.
    own: u64,
    /// Sent to the process, and not taken by a thread so far.
    shared: u64,
    blocked: u64,
    ignored: u64,
    caught: u64,
}

impl Signals {
    pub(super) fn of(tid: Pid) -> Result<Self> {
        let status = status(tid)?;
        let (mut signals, leader) =
            Self::parse(&status).ok_or_else(|| failed(std::io::ErrorKind::InvalidData.into()))?;
        // Whose signals the kernel hands to its leader first. It may be gone; then nobody can tell.
        if signals.held && leader != tid {
            signals.stopping = self::status(leader).is_ok_and(|status| state(&status) == Some('T'));
        }
        Ok(signals)
    }

    /// Also gives the leader of the process.
    fn parse(status: &str) -> Option<(Self, Pid)> {
        let number = |name, radix| u64::from_str_radix(field(status, name)?, radix).ok();
        let signals = Self {
            held: state(status)? == 'D',
            stopping: false,
            threads: number("Threads", 10)?,
            own: number("SigPnd", 16)?,
            shared: number("ShdPnd", 16)?,
            blocked: number("SigBlk", 16)?,
            ignored: number("SigIgn", 16)?,
            caught: number("SigCgt", 16)?,
        };
        Some((signals, Pid::from_raw(field(status, "Tgid")?.parse().ok()?)))
    }

    /// Which of these end a call that waits.
    fn interrupting(self, signals: u64) -> u64 {
        if !self.held || self.own & bit(libc::SIGKILL) != 0 {
            return 0;
        }
        signals & !self.blocked & !self.ignored & (self.caught | !IGNORED_BY_DEFAULT)
    }

    /// Those of the process that this thread could take.
    pub(super) fn shared(self) -> u64 {
        self.interrupting(self.shared)
    }

    /// Tells whether one is sure to be handled when this thread's call ends.
    pub(super) fn surely_interrupt(self) -> bool {
        let sure = match self.threads {
            1 => self.own | self.shared,
            _ => self.own,
        };
        self.stopping || self.interrupting(sure) != 0
    }
}

fn status(tid: Pid) -> Result<String> {
    std::fs::read_to_string(format!("/proc/{tid}/status")).map_err(failed)
}

fn failed(source: std::io::Error) -> Error {
    Error::Io {
        operation: "reading /proc",
        source,
    }
}

/// A program chooses its name, but can't break the line with it: the kernel escapes it.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.trim())
}

/// The scheduler's letter.
fn state(status: &str) -> Option<char> {
    field(status, "State")?.chars().next()
}

const IGNORED_BY_DEFAULT: u64 =
    bit(libc::SIGCHLD) | bit(libc::SIGCONT) | bit(libc::SIGURG) | bit(libc::SIGWINCH);

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signals(own: u64, shared: u64) -> Signals {
        Signals {
            held: true,
            stopping: false,
            threads: 2,
            own,
            shared,
            blocked: bit(libc::SIGUSR1),
            ignored: bit(libc::SIGUSR2),
            caught: bit(libc::SIGALRM) | bit(libc::SIGCHLD),
        }
    }

    #[test]
    fn what_is_blocked_or_ignored_interrupts_nothing() {
        for (signal, interrupts) in [
            (libc::SIGUSR1, false),
            (libc::SIGUSR2, false),
            (libc::SIGWINCH, false),
            (libc::SIGCONT, false),
            (libc::SIGALRM, true),
            (libc::SIGCHLD, true),
            (libc::SIGTSTP, true),
            (libc::SIGSTOP, true),
            (libc::SIGQUIT, true),
            (64, true),
        ] {
            assert_eq!(signals(bit(signal), 0).surely_interrupt(), interrupts, "{signal}");
            assert_eq!(signals(0, bit(signal)).shared() != 0, interrupts, "{signal}");
            // Another thread may take it.
            assert!(!signals(0, bit(signal)).surely_interrupt());
            let alone = Signals {
                threads: 1,
                ..signals(0, bit(signal))
            };
            assert_eq!(alone.surely_interrupt(), interrupts, "{signal}");
            let awake = Signals { held: false, ..alone };
            assert!(!awake.surely_interrupt() && awake.shared() == 0);
        }
    }

    #[test]
    fn whoever_is_killed_is_not_interrupted() {
        let both = bit(libc::SIGKILL) | bit(libc::SIGTERM);
        assert!(!signals(both, 0).surely_interrupt());
        assert_eq!(signals(bit(libc::SIGKILL), bit(libc::SIGTERM)).shared(), 0);
    }

    #[test]
    fn this_thread_can_be_read() {
        let signals = Signals::of(nix::unistd::gettid()).unwrap();
        assert!(signals.threads > 0 && !signals.held);
        assert!(Signals::of(Pid::from_raw(i32::MAX)).is_err());
        assert!(Signals::parse("Name:\tx\nThreads:\t1\n").is_none());
    }
}
