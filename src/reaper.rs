//! Takes over the children that nobody waits for any more, and the memory that they still use.
//!
//! A thread runs while there are any, and only then. It waits on descriptors, so it costs nothing while it waits,
//! works without a runtime, and takes no exit status away from anybody else.

use std::any::Any;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};

use crate::error::Error;
use crate::per_process::PerProcess;
use crate::pidfd;

/// A child that is to be reaped when it exits.
pub(crate) struct Orphan {
    pidfd: Arc<OwnedFd>,
    /// Freed at the end.
    _kept: Option<Box<dyn Any + Send>>,
}

impl Orphan {
    /// A child that uses nothing of ours.
    pub(crate) fn process(pidfd: Arc<OwnedFd>) -> Self {
        Self { pidfd, _kept: None }
    }

    /// One that uses memory of ours until it exits.
    pub(crate) fn process_with(pidfd: Arc<OwnedFd>, kept: Box<dyn Any + Send>) -> Self {
        Self {
            pidfd,
            _kept: Some(kept),
        }
    }
}

#[derive(Default)]
struct Reaper {
    arrivals: Vec<Orphan>,
    running: bool,
    /// Wakes the running thread. There may be no descriptor for one; the thread looks around now and then instead.
    bell: Option<Arc<EventFd>>,
}

/// A forked copy waits for no child of its parent.
static REAPER: PerProcess<Mutex<Reaper>> = PerProcess::new();

fn lock() -> MutexGuard<'static, Reaper> {
    REAPER.get().lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sees the orphan to its end.
pub(crate) fn adopt(orphan: Orphan) {
    let mut reaper = lock();
    reaper.arrivals.push(orphan);
    match &reaper.bell {
        Some(bell) => drop(bell.write(1)),
        None => reaper.start(),
    }
}

/// Tries again to start the thread if it could not be started when it was needed.
pub(crate) fn retry() {
    let mut reaper = lock();
    if !reaper.arrivals.is_empty() {
        reaper.start();
    }
}

impl Reaper {
    fn start(&mut self) {
        if !self.running {
            let thread = std::thread::Builder::new()
                .name("asm_tracer-reap".into())
                .stack_size(64 * 1024);
            self.running = thread.spawn(run).is_ok();
        }
    }
}

/// What a thread of the library's own blocks: the program's handlers are not to run there. `SIGSYS` stays open, since the
/// process may trace itself.
pub(crate) fn all_but_sigsys() -> SigSet {
    let mut signals = SigSet::all();
    signals.remove(Signal::SIGSYS);
    signals
}

fn run() {
    // The program's handlers are not to run on this small stack.
    let _ = pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&all_but_sigsys()), None);
    let mut orphans = Vec::new();
    while let Some(bell) = gather(&mut orphans) {
        wait(bell.as_deref(), &mut orphans);
    }
}

/// Adds what has arrived, and gives the bell, if there is one. `None` if there is nothing left to do.
fn gather(orphans: &mut Vec<Orphan>) -> Option<Option<Arc<EventFd>>> {
    let mut reaper = lock();
    orphans.append(&mut reaper.arrivals);
    if orphans.is_empty() {
        reaper.running = false;
        reaper.bell = None;
        return None;
    }
    if reaper.bell.is_none() {
        reaper.bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).ok().map(Arc::new);
    }
    Some(reaper.bell.clone())
}

/// After how many milliseconds the thread looks around when it can't be told.
const LOOK: u8 = 50;

/// Waits until something happened, and ends the orphans to which it did.
fn wait(bell: Option<&EventFd>, orphans: &mut Vec<Orphan>) {
    let interest = orphans
        .iter()
        .map(|orphan| PollFd::new(orphan.pidfd.as_fd(), PollFlags::POLLIN));
    let mut fds: Vec<_> = interest.collect();
    fds.extend(bell.map(|bell| PollFd::new(bell.as_fd(), PollFlags::POLLIN)));
    let timeout = if bell.is_some() {
        PollTimeout::NONE
    } else {
        LOOK.into()
    };
    match poll(&mut fds, timeout) {
        Ok(_) => {}
        Err(Errno::EINTR) => return,
        // Too many for the limits of the call: look at all of them whenever something happens to the first ones.
        Err(_) => {
            fds.truncate(16);
            let _ = poll(&mut fds, LOOK);
        }
    }
    if let (Some(bell), Some(last)) = (bell, fds.get(orphans.len()))
        && happened(last)
    {
        let _ = bell.read();
    }
    orphans.retain(|orphan| !ended(orphan));
}

fn happened(fd: &PollFd<'_>) -> bool {
    fd.any().unwrap_or(true)
}

fn ended(orphan: &Orphan) -> bool {
    match pidfd::reap(orphan.pidfd.as_fd()) {
        Ok(None) => false,
        Ok(Some(_)) | Err(Error::Reaped) => true,
        // It can't be reaped, by a filter of ours for example. It may still run, and use what is kept for it.
        Err(_) => {
            let mut fds = [PollFd::new(orphan.pidfd.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_kept_for_a_child_that_can_not_be_reaped_until_it_exits() {
        // A pipe stands for a pidfd that the kernel refuses to wait for.
        let (fd, exit) = nix::unistd::pipe().unwrap();
        let orphan = Orphan::process_with(Arc::new(fd), Box::new("the stack of the child"));
        assert!(!ended(&orphan));
        nix::unistd::write(&exit, b"!").unwrap();
        assert!(ended(&orphan));
    }
}
