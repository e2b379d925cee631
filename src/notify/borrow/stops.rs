//! Waiting for the threads that this one traces, and what they stop for.
#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::syscall::{PtraceRequest, SignalNumber, kill, ptrace};

/// Why a traced thread stopped (`ptrace(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// At the entry to a system call, or at its exit.
    Syscall,
    /// As it was asked to, with nothing else on.
    Interrupted,
    /// With its whole process, by a stop signal.
    Group,
    /// Before a signal is delivered.
    Signal(i32),
    /// After an execution, in the new program.
    Executed,
    /// On its way out.
    Exiting,
    Other,
}

impl Stop {
    fn of(status: i32) -> Self {
        match (status >> 8, status & 0xff) {
            (0, SYSCALL) => Self::Syscall,
            (0, signal) => Self::Signal(signal),
            (libc::PTRACE_EVENT_STOP, libc::SIGTRAP) => Self::Interrupted,
            (libc::PTRACE_EVENT_STOP, _) => Self::Group,
            (libc::PTRACE_EVENT_EXEC, _) => Self::Executed,
            (libc::PTRACE_EVENT_EXIT, _) => Self::Exiting,
            _ => Self::Other,
        }
    }
}

/// With `PTRACE_O_TRACESYSGOOD`.
const SYSCALL: i32 = libc::SIGTRAP | 0x80;

/// The next stop of any thread that this one traces; `None` if there is none at present and `block` is not set.
///
/// Ends are not waited for: those who started the processes do.
pub(super) fn next(block: bool) -> Result<Option<(Pid, Stop)>, Errno> {
    let options = libc::WSTOPPED | libc::__WALL | libc::__WNOTHREAD | if block { 0 } else { libc::WNOHANG };
    let change = wait(libc::P_ALL, 0, options)?;
    Ok(change.map(|change| (change.pid, Stop::of(change.status))))
}

/// What became of a traced thread that may have died without a stop, as a second `SIGKILL` makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Alive,
    Dead,
}

/// Looks whether a traced thread is dead, and reaps it then unless its parent in this process has to.
pub(super) fn life(tid: Pid) -> Life {
    let id = tid.as_raw().cast_unsigned();
    let look = libc::WEXITED | libc::WNOHANG | libc::__WALL;
    match wait(libc::P_PID, id, look | libc::WNOWAIT) {
        Ok(None) => Life::Alive,
        // A tracer is told of stops, whatever it asks for.
        Ok(Some(change)) if !change.ended => Life::Alive,
        Ok(Some(_)) => {
            // What another process waits for is only passed on to it once its tracer has seen it, and a thread waits for
            // nobody else. But a child of this process is its owner's to reap.
            if !is_child_of_this_process(tid) {
                let _ = wait(libc::P_PID, id, look);
            }
            Life::Dead
        }
        Err(_) => Life::Dead,
    }
}

fn is_child_of_this_process(tid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let number = |name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|number| number.trim().parse::<i32>().ok())
    };
    number("Tgid:") == Some(tid.as_raw()) && number("PPid:") == Some(Pid::this().as_raw())
}

/// What a wait has to tell.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    pid: Pid,
    /// The exit status or signal, or what it stopped for.
    status: i32,
    ended: bool,
}

fn wait(which: libc::idtype_t, id: libc::id_t, options: i32) -> Result<Option<Change>, Errno> {
    // SAFETY: all fields are integers or a union of them, for which zero is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one siginfo.
    Errno::result(unsafe { libc::waitid(which, id, &raw mut info, options) })?;
    // SAFETY: waitid(2) fills in these fields, or leaves a pid of zero if there is nothing to report.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok((pid != 0).then(|| Change {
        pid: Pid::from_raw(pid),
        status,
        ended: matches!(
            info.si_code,
            libc::CLD_EXITED | libc::CLD_KILLED | libc::CLD_DUMPED
        ),
    }))
}

/// Kills a child of this very thread that it traces, and reaps it.
pub(super) fn end(pid: Pid) {
    let _ = kill(pid.as_raw(), Signal::SIGKILL);
    loop {
        // What is on its way out may stop once more, from which nothing else wakes it.
        let _ = ptrace(pid.as_raw(), PtraceRequest::Detach(SignalNumber::NONE));
        let id = pid.as_raw().cast_unsigned();
        match wait(libc::P_PID, id, libc::WEXITED | libc::WSTOPPED | libc::__WALL) {
            Ok(Some(change)) if !change.ended => {}
            Err(Errno::EINTR) => {}
            _ => return,
        }
    }
}
