use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStderr, ChildStdin, ChildStdout, ExitStatus, Output};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::log::Log;
use crate::error::{Error, Result};
use crate::memory::{self, CHUNK};
use crate::notify::{Source, TrappedSyscall};
use crate::pidfd::{KillOnDrop, Process};
use crate::process::{ExecReport, Running};
use crate::syscall::SignalNumber;

/// A program whose calls a thread serves.
///
/// Every method takes `&self`: it can be shared between threads, so that one waits while others read memory or
/// kill, and it can be used after the program has ended.
///
/// Dropping it kills the program and reaps it, unless it was started with
/// [`kill_on_drop(false)`](crate::Command::kill_on_drop); then it is reaped when it ends. The thread goes on as long as
/// there are descendants under the filter.
#[must_use = "dropping a child kills it, unless kill_on_drop is off"]
pub struct TracedChild {
    stdin: Mutex<Option<ChildStdin>>,
    stdout: Mutex<Option<ChildStdout>>,
    stderr: Mutex<Option<ChildStderr>>,
    exec_report: ExecReport,
    /// The listener, as long as it is served.
    source: Weak<Source>,
    log: Arc<Log>,
    guard: KillOnDrop,
}

impl TracedChild {
    pub(super) fn new(running: Running<Weak<Source>>, log: Arc<Log>) -> Self {
        let [stdin, stdout, stderr] = running.pipes;
        Self {
            stdin: Mutex::new(stdin.map(ChildStdin::from)),
            stdout: Mutex::new(stdout.map(ChildStdout::from)),
            stderr: Mutex::new(stderr.map(ChildStderr::from)),
            exec_report: running.exec_report,
            source: running.served,
            log,
            guard: running.guard,
        }
    }

    fn process(&self) -> &Process {
        &self.guard.process
    }

    /// The process id. Once the child has been waited for, the number may mean another process; the methods here
    /// don't go by it.
    pub fn pid(&self) -> i32 {
        self.process().pid().as_raw()
    }

    /// Waits for the program to end, after closing the pipe to its standard input, and gives its status as `wait(2)`
    /// does: [`ExitStatus::from_raw`](std::os::unix::process::ExitStatusExt::from_raw) takes it apart.
    ///
    /// It can be called again and from several threads, and gives the same status.
    ///
    /// # Errors
    ///
    /// [`Error::HookPanicked`], with the status, if the hook has panicked by then; [`Error::Spawn`] if the execution was
    /// [trapped](crate::Command::trap_initial_exec) and failed; [`Error::Reaped`] if other code took the status away.
    pub fn wait(&self) -> Result<i32> {
        drop(self.take_stdin());
        let status = self.process().wait()?;
        self.judge(status)
    }

    /// Gives the status if the program has ended.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Self::wait).
    pub fn try_wait(&self) -> Result<Option<i32>> {
        let status = self.process().try_reap()?;
        status.map(|status| self.judge(status)).transpose()
    }

    fn judge(&self, status: ExitStatus) -> Result<i32> {
        // The panic first: it may be why the execution failed.
        match self.log.panic() {
            Some(message) => Err(Error::HookPanicked {
                message,
                status: Some(status),
            }),
            None => self.exec_report.judge(status).map(ExitStatus::into_raw),
        }
    }

    /// Sends a signal to the program: a [`Signal`](crate::Signal) or its number, 0 for none.
    ///
    /// It can't hit another process that got the same pid, since it goes through the pidfd.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`] if the program has ended, [`Error::Io`] if the kernel refuses or there is no such signal.
    pub fn kill(&self, signal: impl Into<SignalNumber>) -> Result<()> {
        self.process().signal(signal.into().as_raw())
    }

    /// Takes the calls that were trapped since the last time, in the order in which they were received.
    ///
    /// They are those of the program and its descendants, whatever became of them. There are as many as the
    /// [`Tracer`](super::Tracer::record) keeps: the last ones.
    pub fn drain_syscalls(&self) -> Vec<TrappedSyscall> {
        self.log.drain()
    }

    /// How many calls there was no room for, since the start.
    pub fn dropped_syscalls(&self) -> u64 {
        self.log.dropped()
    }

    /// Reads up to `length` bytes of memory, fewer where readable memory ends.
    ///
    /// While the hook looks at a call, it is the memory of the caller, be that the program or one of its
    /// descendants, and it can't be another one's. At other times it is that of the program, as it happens to be.
    ///
    /// A hostile program can make the read stall for as long as it likes (memory behind a FUSE file or
    /// `userfaultfd(2)`), and this thread with it; in the hook that is the one on which all calls of this program wait,
    /// and of no other. Nothing but the death of this process ends it, not that of the program if another one is
    /// behind the memory. So a thread that has more to do must not read, or have another one do it. It also can make it
    /// as long as `length` says: a length that comes from it must be bounded.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`] if the program has ended, or the hook has answered the call and not returned; [`Error::Fault`] if not one byte is
    /// readable, [`Error::NoAccess`] without permission, [`Error::UnknownPid`] if the caller's pid namespace can't be
    /// seen from here, [`Error::Unsupported`] where the kernel can't, [`Error::Io`] if there is no memory for so much.
    pub fn read_memory(&self, address: u64, length: usize) -> Result<Vec<u8>> {
        loop {
            let looked_at = self.log.frozen();
            let (Some(thread), Some(source)) = (looked_at, self.source.upgrade()) else {
                let process = self.process();
                return memory::read_up_to(address, length, |at, buffer| process.read_memory(at, buffer));
            };
            let read = memory::read_up_to(address, length, |at, buffer| {
                thread.read_memory(&source, at, buffer)
            });
            // The hook may have been done with this call before it was read.
            if !matches!(read, Err(Error::Gone)) || self.log.frozen() == looked_at {
                return read;
            }
        }
    }

    /// Takes the pipe to the standard input, if that is [`Stdio::piped`](crate::Stdio::piped) and was not taken.
    pub fn take_stdin(&self) -> Option<ChildStdin> {
        take(&self.stdin)
    }

    /// Takes the pipe from the standard output, if that is [`Stdio::piped`](crate::Stdio::piped) and was not taken.
    pub fn take_stdout(&self) -> Option<ChildStdout> {
        take(&self.stdout)
    }

    /// Takes the pipe from the standard error, if that is [`Stdio::piped`](crate::Stdio::piped) and was not taken.
    pub fn take_stderr(&self) -> Option<ChildStderr> {
        take(&self.stderr)
    }

    /// Closes the pipe to the standard input, then reads the other pipes to their ends and waits for the program.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Self::wait), and [`Error::Io`] if a pipe can't be read.
    pub fn wait_with_output(&self) -> Result<Output> {
        drop(self.take_stdin());
        let pipes = [
            self.take_stdout().map(OwnedFd::from),
            self.take_stderr().map(OwnedFd::from),
        ];
        let read = read_all(pipes.map(|pipe| pipe.map(File::from)));
        let status = ExitStatus::from_raw(self.wait()?);
        let [stdout, stderr] = read.map_err(|source| Error::Io {
            operation: "reading a pipe of the child",
            source,
        })?;
        Ok(Output {
            status,
            stdout,
            stderr,
        })
    }
}

/// How long a killed child is waited for where it was dropped; after that, it is reaped elsewhere.
const END: Duration = Duration::from_millis(100);

impl Drop for TracedChild {
    fn drop(&mut self) {
        if self.guard.enabled {
            let _ = self.process().signal(nix::libc::SIGKILL);
            self.process().ended_within(END);
        }
        self.process().reap_later();
    }
}

impl fmt::Debug for TracedChild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TracedChild")
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}

fn take<T>(pipe: &Mutex<Option<T>>) -> Option<T> {
    pipe.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Reads the pipes to their ends, each as data comes: a program that waits for room in one writes nothing to the other.
fn read_all(mut pipes: [Option<File>; 2]) -> io::Result<[Vec<u8>; 2]> {
    let mut data = [Vec::new(), Vec::new()];
    let mut chunk = vec![0; CHUNK];
    loop {
        let index = match &pipes {
            [Some(first), Some(second)] => {
                let mut fds = [first, second].map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
                match poll(&mut fds, PollTimeout::NONE) {
                    Err(Errno::EINTR) => continue,
                    polled => polled?,
                };
                fds.iter().position(|fd| fd.any().unwrap_or(true))
            }
            pipes => pipes.iter().position(Option::is_some),
        };
        let Some(index) = index else {
            return Ok(data);
        };
        if let Some(pipe) = &mut pipes[index] {
            match pipe.read(&mut chunk) {
                Ok(0) => pipes[index] = None,
                Ok(length) => data[index].extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
