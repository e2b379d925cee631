//! Holding back the result of a call that has run.
//!
//! The kernel's answers let a call run and nothing else, so the thread is borrowed by `ptrace(2)`, as `notify::borrow` does it,
//! and stopped where its call returns. It is told to make its call again, which comes as a second notification that is let
//! pass. One thread for each that is held, since only the thread that traces may ask anything of a tracee.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tokio::sync::oneshot;

use super::signal::send_to_thread;
use crate::error::Error;
use crate::notify::{AnswerError, Notification};
use crate::syscall::{PtraceOptions, PtraceRequest, SignalNumber, ptrace};
use crate::workers::{self, Worker};

/// How many threads of one program are held at a time: each takes a thread of this process.
const HELD: usize = 64;
/// Makes the kernel make the call again (`include/linux/errno.h`).
const ERESTARTNOINTR: i64 = 513;
/// How long the end of a thread that is held may go unnoticed.
const SLICE: Duration = Duration::from_millis(20);

/// The threads that are held, and the calls of theirs that are let pass.
#[derive(Debug, Default)]
pub(super) struct Holds(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    held: usize,
    passes: HashMap<i32, Pass>,
}

/// A call that is made again, and then runs.
#[derive(Debug)]
struct Pass {
    nr: i64,
    /// Sent as it comes, so that it runs with them pending.
    signals: Vec<i32>,
}

impl Holds {
    /// Lets the call run with these signals pending, and its thread go on after the delay. The error has the call, which
    /// waits still.
    ///
    /// A signal that ends the process does so once the call has returned: those of a traced thread wait for it.
    pub(super) async fn hold(
        &self,
        call: Notification,
        delay: Duration,
        signals: Vec<i32>,
    ) -> Result<(), AnswerError> {
        let call = match self.admit() {
            Ok(()) => call,
            Err(error) => return Err(refused(error, call)),
        };
        let (reply, done) = oneshot::channel();
        let holds = Self(Arc::clone(&self.0));
        // In a place from which it can be had back if there is no thread.
        let slot = Arc::new(Mutex::new(Some(call)));
        let work = {
            let slot = Arc::clone(&slot);
            Box::new(move |_: &Arc<Worker>| {
                if let Some(call) = take(&slot) {
                    let outcome = holds.run(call, delay, signals);
                    holds.state().held -= 1;
                    let _ = reply.send(outcome);
                }
            })
        };
        if let Err(source) = workers::run(work) {
            self.state().held -= 1;
            let operation = "starting a thread that holds a call";
            return match take(&slot) {
                Some(call) => Err(refused(Error::Io { operation, source }, call)),
                None => Ok(()),
            };
        }
        done.await.unwrap_or(Ok(()))
    }

    /// Whether this is the second coming of a call that is held.
    pub(super) fn take_pass(&self, call: &Notification) -> bool {
        let Some(pass) = call.tid().and_then(|tid| self.revoke(tid, call.nr())) else {
            return false;
        };
        for signal in pass.signals {
            // A thread that has gone needs none.
            let _ = send_to_thread(call, signal);
        }
        true
    }

    fn admit(&self) -> Result<(), Error> {
        let mut state = self.state();
        if state.held == HELD {
            return Err(Error::NotBorrowable("too many threads are held back already"));
        }
        state.held += 1;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds a call, on this thread.
    fn run(&self, call: Notification, delay: Duration, signals: Vec<i32>) -> Result<(), AnswerError> {
        let Some(tid) = call.tid() else {
            return Err(refused(Error::UnknownPid, call));
        };
        let executes = matches!(call.nr(), libc::SYS_execve | libc::SYS_execveat);
        if executes && call.pid().ok() != Some(tid) {
            let why = "an execution by a thread that does not lead its process changes its number";
            return Err(refused(Error::NotBorrowable(why), call));
        }
        if call.nr() == libc::SYS_rt_sigreturn {
            return Err(refused(Error::NotBorrowable("rt_sigreturn has no result"), call));
        }
        if !call.is_pending() {
            return Ok(());
        }
        if let Err(error) = ptrace(tid, PtraceRequest::Seize(PtraceOptions::TRACESYSGOOD)) {
            let error = match Errno::from(error) {
                Errno::ESRCH => return Ok(()),
                _ => match status(tid, "TracerPid:") {
                    Some(tracer @ 1..) => Error::AlreadyTraced { tracer },
                    _ => Error::TracingDenied,
                },
            };
            return Err(refused(error, call));
        }
        let nr = call.nr();
        let mut pass = Some(Pass { nr, signals });
        // It stops as soon as it has its answer, before it makes the call again.
        let _ = ptrace(tid, PtraceRequest::Interrupt);
        if let Err(refused) = call.respond_raw(-ERESTARTNOINTR) {
            // It gets `ENOSYS`, and must not be waited for unanswered: it stops for nothing else.
            drop(refused);
            pass = None;
        }
        let mut phase = Phase::Stopping;
        while let Some(stop) = next_stop(tid) {
            phase = match (phase, stop) {
                (Phase::Stopping, Stop::Interrupted) if pass.is_some() => {
                    self.state().passes.extend(pass.take().map(|pass| (tid, pass)));
                    Phase::Entering
                }
                (Phase::Entering, Stop::Syscall) => Phase::Running,
                (Phase::Running, Stop::Syscall) => {
                    sleep(tid, delay);
                    self.release(tid, nr, SignalNumber::NONE);
                    break;
                }
                (_, stop) => {
                    // A signal comes first, as it does for any call.
                    let signal = match stop {
                        Stop::Signal(signal) => SignalNumber::from(signal),
                        _ => SignalNumber::NONE,
                    };
                    self.release(tid, nr, signal);
                    break;
                }
            };
            // It has been killed if this fails, which the next look finds.
            let _ = ptrace(tid, PtraceRequest::Syscall(SignalNumber::NONE));
        }
        self.revoke(tid, nr);
        Ok(())
    }

    fn release(&self, tid: i32, nr: i64, signal: SignalNumber) {
        self.revoke(tid, nr);
        let _ = ptrace(tid, PtraceRequest::Detach(signal));
    }

    fn revoke(&self, tid: i32, nr: i64) -> Option<Pass> {
        let mut state = self.state();
        match state.passes.get(&tid) {
            Some(pass) if pass.nr == nr => state.passes.remove(&tid),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It has been told to stop.
    Stopping,
    /// It is about to make its call again.
    Entering,
    /// It is in its call.
    Running,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Interrupted,
    Syscall,
    Signal(i32),
    Other,
}

fn refused(error: Error, notification: Notification) -> AnswerError {
    AnswerError {
        error,
        notification: Box::new(notification),
    }
}

fn take(slot: &Mutex<Option<Notification>>) -> Option<Notification> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Waits for the thread's next stop; `None` once it has ended.
fn next_stop(tid: i32) -> Option<Stop> {
    loop {
        match wait(tid, libc::WEXITED | libc::WSTOPPED | libc::WNOWAIT) {
            Ok(Some((_, true))) => {
                bury(tid);
                return None;
            }
            Ok(Some((_, false))) => {
                let stop = wait(tid, libc::WSTOPPED | libc::WNOHANG).ok().flatten();
                if let Some((status, false)) = stop {
                    return Some(match (status >> 8, status & 0xff) {
                        (0, STOPPED_AT_SYSCALL) => Stop::Syscall,
                        (0, signal) => Stop::Signal(signal),
                        (libc::PTRACE_EVENT_STOP, libc::SIGTRAP) => Stop::Interrupted,
                        _ => Stop::Other,
                    });
                }
            }
            Ok(None) | Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

/// With `PTRACE_O_TRACESYSGOOD`.
const STOPPED_AT_SYSCALL: i32 = libc::SIGTRAP | 0x80;

/// Waits, unless the thread is killed meanwhile: nobody else can reap it as long as it is traced.
fn sleep(tid: i32, delay: Duration) {
    let start = Instant::now();
    while let Some(left) = delay.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
        std::thread::sleep(left.min(SLICE));
        if let Ok(Some((_, true))) = wait(tid, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) {
            return bury(tid);
        }
    }
}

/// Reaps a thread that ended while it was traced, unless its parent in this process has to.
fn bury(tid: i32) {
    let this = nix::unistd::Pid::this().as_raw();
    let ours = status(tid, "Tgid:") == Some(tid) && status(tid, "PPid:") == Some(this);
    if !ours {
        let _ = wait(tid, libc::WEXITED | libc::WNOHANG);
    }
}

/// A number in `/proc/TID/status`.
fn status(tid: i32, name: &str) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().parse().ok()
}

/// What a thread has to tell, and whether it is its end.
fn wait(tid: i32, options: i32) -> Result<Option<(i32, bool)>, Errno> {
    // SAFETY: all fields are integers or a union of them, for which zero is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let id = tid.cast_unsigned();
    // SAFETY: the kernel writes one siginfo.
    Errno::result(unsafe { libc::waitid(libc::P_PID, id, &raw mut info, options | libc::__WALL) })?;
    // SAFETY: waitid(2) fills in these fields, or leaves a pid of zero if there is nothing to report.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    let ends = [libc::CLD_EXITED, libc::CLD_KILLED, libc::CLD_DUMPED];
    Ok((pid != 0).then(|| (status, ends.contains(&info.si_code))))
}
