//! The thread that clones the children.
//!
//! `PR_SET_PDEATHSIG` means the death of the *thread* that made the child (T29). This one never retires, so for our
//! children it means the death of the process. It is the one piece of state that the process shares.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::signal::{SigmaskHow, pthread_sigmask};
use nix::unistd::Pid;

use super::entry::enter;
use super::plan::Plan;
use super::signals::Blocked;
use super::stdio::ChildEnd;
use crate::error::{Error, Result, SpawnStep};
use crate::per_process::PerProcess;
use crate::pidfd;
use crate::reaper::{self, Orphan, all_but_sigsys};
use crate::syscall::raw;

/// A child that was cloned and has not yet executed its program. Dropping it kills it.
pub(super) struct Started {
    pub(super) pid: Pid,
    pub(super) pidfd: Arc<OwnedFd>,
    /// Used by the child until it has executed or exited.
    plan: Option<Box<Plan>>,
}

impl Started {
    /// Ends the guard: the child has left the plan behind, or somebody else keeps it.
    pub(super) fn take_plan(&mut self) -> Option<Box<Plan>> {
        self.plan.take()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(plan) = self.plan.take() {
            pidfd::kill(self.pidfd.as_fd());
            reaper::adopt(Orphan::process_with(Arc::clone(&self.pidfd), plan));
        }
    }
}

/// A clone to be made.
struct Job {
    plan: Box<Plan>,
    /// Closed here once the child has them.
    child_ends: Vec<ChildEnd>,
    reply: Reply,
}

/// Takes what came of a clone, on the launcher's thread. It is dropped uncalled if that thread is no more.
type Reply = Box<dyn FnOnce(Result<Started>) + Send>;

/// The way to the thread, which ends with it.
static LAUNCHER: PerProcess<Mutex<Option<Sender<Job>>>> = PerProcess::new();

/// Has the child cloned. `child_ends` are closed in this process afterwards.
pub(super) fn launch(
    plan: Box<Plan>,
    child_ends: Vec<ChildEnd>,
    reply: impl FnOnce(Result<Started>) + Send + 'static,
) -> Result<()> {
    reaper::retry();
    submit(Job {
        plan,
        child_ends,
        reply: Box::new(reply),
    })
}

/// Why there is no reply.
pub(super) fn lost() -> Error {
    Error::spawn(SpawnStep::Clone, Errno::ECANCELED)
}

fn submit(job: Job) -> Result<()> {
    let launcher = LAUNCHER.get().lock();
    let mut launcher = launcher.unwrap_or_else(PoisonError::into_inner);
    let jobs = match &mut *launcher {
        Some(jobs) => jobs,
        none => none.insert(start()?),
    };
    jobs.send(job)
        .map_err(|_| Error::spawn(SpawnStep::StartLauncher, Errno::ESRCH))
}

fn start() -> Result<Sender<Job>> {
    let (jobs, receiver) = channel();
    let thread = std::thread::Builder::new()
        .name("asm_tracer-launch".into())
        .stack_size(256 * 1024);
    thread.spawn(move || run(&receiver)).map_err(|error| {
        Error::spawn(
            SpawnStep::StartLauncher,
            Errno::from_raw(error.raw_os_error().unwrap_or(libc::EAGAIN)),
        )
    })?;
    Ok(jobs)
}

fn run(jobs: &Receiver<Job>) {
    // The program's handlers are not to run here. The C library keeps its own internal signals open.
    let _ = pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&all_but_sigsys()), None);
    for Job {
        plan,
        child_ends,
        reply,
    } in jobs
    {
        let started = clone(plan);
        drop(child_ends);
        // A caller that has gone away is answered by `Started`, which kills the child as it is dropped.
        reply(started);
    }
}

fn clone(plan: Box<Plan>) -> Result<Started> {
    let failed = |errno| match errno {
        // A fork that ended before it could be taken hold of, where the end of a child is not to be waited for.
        Errno::ESRCH => Error::Reaped,
        errno => Error::spawn(SpawnStep::Clone, errno),
    };
    let blocked = Blocked::new();
    let made = match &plan.stack {
        Some(stack) => clone_sharing_memory(&plan, stack.top()),
        None => fork(&plan),
    };
    drop(blocked);
    let (pid, pidfd) = made.map_err(failed)?;
    Ok(Started {
        pid: Pid::from_raw(pid),
        pidfd: Arc::new(pidfd),
        plan: Some(plan),
    })
}

fn clone_sharing_memory(plan: &Plan, stack_top: *mut u8) -> Result<(i32, OwnedFd), Errno> {
    let flags = libc::CLONE_VM | libc::CLONE_PIDFD | libc::SIGCHLD;
    let mut pidfd = -1;
    let argument = std::ptr::from_ref(plan).cast_mut().cast();
    // SAFETY: the stack is the child's own. `Started` keeps it and the plan until the child has left them. All
    // signals are blocked, so that no handler of ours runs in the child.
    let pid = unsafe { raw::clone(flags as usize, stack_top, &raw mut pidfd, enter, argument) };
    if pid < 0 {
        return Err(Errno::from_raw(-pid as i32));
    }
    // SAFETY: the kernel made this descriptor for us together with the child.
    Ok((pid as i32, unsafe { std::os::fd::FromRawFd::from_raw_fd(pidfd) }))
}

/// For a child that needs memory of its own.
fn fork(plan: &Plan) -> Result<(i32, OwnedFd), Errno> {
    let argument = std::ptr::from_ref(plan).cast_mut().cast();
    // SAFETY: the child only runs `enter`, and the closures whose authors promised to be async-signal-safe.
    match Errno::result(unsafe { libc::fork() })? {
        0 => enter(argument),
        // Nobody can have reaped it yet: its pid is known to this thread only, as long as no code of this
        // process waits for any child, which would break every owner of children in it, or ignores SIGCHLD.
        pid => match pidfd::open(Pid::from_raw(pid)) {
            Ok(pidfd) => Ok((pid, pidfd)),
            // The pid may be another process's by now.
            Err(Errno::ESRCH) => Err(Errno::ESRCH),
            Err(errno) => {
                // SAFETY: kills and reaps the child that was just made and has not been reaped.
                unsafe {
                    libc::kill(pid, libc::SIGKILL);
                    libc::waitpid(pid, std::ptr::null_mut(), 0);
                }
                Err(errno)
            }
        },
    }
}
