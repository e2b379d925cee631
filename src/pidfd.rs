//! A child process by its pidfd: no `SIGCHLD`, no pid that could mean another process.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{Error, Result};
use crate::{memory, reaper};

/// A child that this process started.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    pidfd: Arc<OwnedFd>,
    /// How it ended, once reaped.
    status: Mutex<Option<ExitStatus>>,
}

impl Process {
    pub(crate) fn new(pid: Pid, pidfd: Arc<OwnedFd>) -> Self {
        Self {
            pid,
            pidfd,
            status: Mutex::new(None),
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    fn status(&self) -> MutexGuard<'_, Option<ExitStatus>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether the process has exited.
    pub(crate) fn ended(&self) -> bool {
        self.ended_within(Duration::ZERO)
    }

    /// Waits for the process to exit, for no longer than this; a signal to us may end it early.
    pub(crate) fn ended_within(&self, limit: Duration) -> bool {
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        let polled = poll(&mut fds, limit);
        polled.is_ok()
            && fds[0]
                .revents()
                .is_some_and(|events| events.contains(PollFlags::POLLIN))
    }

    /// Reaps the process if it has exited; says how it ended, now or earlier.
    pub(crate) fn try_reap(&self) -> Result<Option<ExitStatus>> {
        let mut status = self.status();
        if status.is_none() {
            *status = reap(self.pidfd.as_fd())?;
        }
        Ok(*status)
    }

    /// Waits for the end and reaps. Any number of threads may wait, while others signal the process or look at it.
    pub(crate) fn wait(&self) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.try_reap()? {
                return Ok(status);
            }
            let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::os("waiting for the child", errno)),
            }
        }
    }

    /// Sees to it that the process is reaped once it has ended, whoever still holds it.
    pub(crate) fn reap_later(&self) {
        if matches!(self.try_reap(), Ok(None)) {
            reaper::adopt(reaper::Orphan::process(Arc::clone(&self.pidfd)));
        }
    }

    /// Tells whether the pid may mean another process by now.
    pub(crate) fn reaped(&self) -> bool {
        self.status().is_some()
    }

    /// Sends a signal; to a process that has exited it is [`Error::Gone`].
    pub(crate) fn signal(&self, signal: i32) -> Result<()> {
        // The kernel takes a signal to a zombie for delivered.
        if self.ended() {
            return Err(Error::Gone);
        }
        match send_signal(self.pidfd.as_fd(), signal) {
            Ok(()) => Ok(()),
            Err(Errno::ESRCH) => Err(Error::Gone),
            Err(errno) => Err(Error::os("signalling the child", errno)),
        }
    }

    pub(crate) fn read_memory(&self, address: u64, buffer: &mut [u8]) -> Result<usize> {
        // Without the lock: a target can make the read stall for as long as it likes.
        let read = memory::read(self.pid, address, buffer);
        self.validated(address, read)
    }

    /// The outcome of an access by the pid, now that it is known whether it met this process.
    pub(crate) fn validated(&self, address: u64, outcome: Result<usize, Errno>) -> Result<usize> {
        // The pid was the child's all the while if it is so still.
        if self.reaped() || send_signal(self.pidfd.as_fd(), 0) == Err(Errno::ESRCH) {
            return Err(Error::Gone);
        }
        outcome.map_err(|errno| memory::error(errno, address))
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl AsRawFd for Process {
    fn as_raw_fd(&self) -> RawFd {
        self.pidfd.as_raw_fd()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody is left to wait for it; it must not stay a zombie.
        self.reap_later();
    }
}

/// A supervised child as its listener or its handle holds it: killed when that goes, unless told otherwise.
#[derive(Debug)]
pub(crate) struct ChildGuard {
    pub(crate) process: Arc<AsyncFd<Process>>,
    pub(crate) kill_on_drop: bool,
}

impl ChildGuard {
    /// Becomes ready once the process has been reaped, by this or by someone else.
    pub(crate) fn poll_reap(&self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Poll::Ready(Ok(mut ready)) = self.process.poll_read_ready(cx) else {
                return Poll::Pending;
            };
            match self.process.get_ref().try_reap() {
                Ok(None) => ready.clear_ready(),
                Ok(Some(_)) | Err(_) => return Poll::Ready(()),
            }
        }
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        if self.kill_on_drop {
            // A process that has exited already is just as good.
            let _ = self.process.get_ref().signal(libc::SIGKILL);
        }
    }
}

/// The same without a runtime.
#[derive(Debug)]
pub(crate) struct KillOnDrop {
    pub(crate) process: Arc<Process>,
    /// Whether it is to be killed.
    pub(crate) enabled: bool,
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if self.enabled {
            // A process that has exited already is just as good.
            let _ = self.process.signal(libc::SIGKILL);
        }
    }
}

/// What keeps one descriptor open, and the same, for as long as it lives.
///
/// # Safety
///
/// `as_raw_fd` must always give the same descriptor, which must stay open as long as the value.
pub(crate) unsafe trait HoldsFd: AsRawFd {}

// SAFETY: it owns the descriptor and never replaces it.
unsafe impl HoldsFd for OwnedFd {}
// SAFETY: it holds a share of the `OwnedFd` and never replaces it.
unsafe impl HoldsFd for Process {}
// SAFETY: what it points to stays where it is and holds the descriptor.
unsafe impl<T: HoldsFd> HoldsFd for Arc<T> {}

/// Registers a descriptor with the runtime that runs this code.
pub(crate) fn register<T: HoldsFd>(inner: T, interest: Interest) -> Result<AsyncFd<T>> {
    if tokio::runtime::Handle::try_current().is_err() {
        return Err(Error::NoRuntime);
    }
    // SAFETY: `HoldsFd` promises what this demands.
    let registered = unsafe { AsyncFd::register_with_interest(inner, interest) };
    registered.map_err(|refused| Error::Io {
        operation: "registering a descriptor with the runtime",
        source: refused.into_parts().1,
    })
}

/// Reaps the child behind a pidfd if it has exited, and says how it ended.
pub(crate) fn reap(pidfd: BorrowedFd<'_>) -> Result<Option<ExitStatus>> {
    // A look first. A child that a thread of this process traces tells all of them of its stops, whatever they wait for, and
    // these are for the tracer alone to take.
    match exited(pidfd, libc::WNOWAIT)? {
        None => Ok(None),
        Some(_) => exited(pidfd, 0),
    }
}

/// How the child behind a pidfd ended, if it has.
fn exited(pidfd: BorrowedFd<'_>, options: i32) -> Result<Option<ExitStatus>> {
    let options = libc::WEXITED | libc::WNOHANG | options;
    // SAFETY: all fields are integers or a union of them, for which zero is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let pidfd = pidfd.as_raw_fd() as libc::id_t;
    loop {
        // SAFETY: the kernel writes one siginfo.
        let waited = unsafe { libc::waitid(libc::P_PIDFD, pidfd, &raw mut info, options) };
        match Errno::result(waited) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Err(Error::Reaped),
            Err(errno) => return Err(Error::os("waiting for the child", errno)),
        }
    }
    // SAFETY: waitid(2) fills in this field, or leaves zeros if there is nothing to report.
    let status = unsafe { info.si_status() };
    Ok(match info.si_code {
        libc::CLD_EXITED => Some(ExitStatus::from_raw(status << 8)),
        libc::CLD_DUMPED => Some(ExitStatus::from_raw(status | 0x80)),
        libc::CLD_KILLED => Some(ExitStatus::from_raw(status)),
        _ => None,
    })
}

/// Tells whether a process can be signalled and waited for by a pidfd: tried on this one, which is no child of itself.
pub(crate) fn is_supported() -> bool {
    match open(Pid::this()) {
        Ok(pidfd) => {
            send_signal(pidfd.as_fd(), 0).is_ok() && matches!(reap(pidfd.as_fd()), Err(Error::Reaped))
        }
        // Too little of something; the first child will tell, with its reason.
        Err(errno) => matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM),
    }
}

/// Opens a pidfd for a process.
pub(crate) fn open(pid: Pid) -> Result<OwnedFd, Errno> {
    open_with(pid, 0)
}

/// Opens one for a thread, which need not lead its process. Since Linux 6.9; before, it is `EINVAL` (T8).
pub(crate) fn open_thread(tid: Pid) -> Result<OwnedFd, Errno> {
    open_with(tid, PIDFD_THREAD)
}

/// `linux/pidfd.h`.
const PIDFD_THREAD: i32 = libc::O_EXCL;

fn open_with(pid: Pid, flags: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: no memory is involved.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), flags) })?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd as RawFd) })
}

/// Duplicates a descriptor of another process or thread, with close-on-exec.
pub(crate) fn get_fd(pidfd: BorrowedFd<'_>, number: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: no memory is involved.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) })?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd as RawFd) })
}

/// Tells whether two threads have one table of descriptors.
pub(crate) fn share_descriptors(one: Pid, other: Pid) -> Result<bool, Errno> {
    // SAFETY: no memory is involved.
    let compared = unsafe { libc::syscall(libc::SYS_kcmp, one.as_raw(), other.as_raw(), KCMP_FILES, 0, 0) };
    Errno::result(compared).map(|order| order == 0)
}

/// `linux/kcmp.h`.
const KCMP_FILES: i32 = 2;

fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: no siginfo is passed.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0) };
    Errno::result(sent).map(drop)
}

/// Kills the process if it is still there.
pub(crate) fn kill(pidfd: BorrowedFd<'_>) {
    let _ = send_signal(pidfd, libc::SIGKILL);
}

/// Tells whether a thread leads its process, whose pid is its tid then. Without permission to signal it: false.
pub(crate) fn leads_process(tid: Pid) -> bool {
    // SAFETY: no memory is involved; signal 0 is a look whether there is such a thread in such a process.
    let looked = unsafe { libc::syscall(libc::SYS_tgkill, tid.as_raw(), tid.as_raw(), 0) };
    looked == 0
}
