//! Ends the one wait of the borrower that a target could make last for ever.
//!
//! Taking hold of a thread waits in the kernel for as long as another thread of its process executes a program. That one
//! waits for all others to end; and where the borrower has one of them, it waits for the borrower to let it go
//! (`ptrace_attach` and `de_thread`, by `cred_guard_mutex`). A signal only begins the wait anew: a death alone ends it.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigmaskHow, pthread_sigmask};
use nix::unistd::Pid;

use crate::pidfd;
use crate::reaper::all_but_sigsys;

/// How long the borrower may take to get hold of a thread.
const LIMIT: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Watchdog {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    /// Since when the borrower waits.
    since: Option<Instant>,
    /// There is nothing to watch any more.
    over: bool,
}

impl Watchdog {
    /// Watches the thread that calls this.
    pub(super) fn start() -> Arc<Self> {
        let watchdog = Arc::new(Self::default());
        let (here, borrower) = (Arc::clone(&watchdog), nix::unistd::gettid());
        let thread = std::thread::Builder::new()
            .name("asm_tracer-watch".into())
            .stack_size(64 * 1024);
        // Without it, the borrower may have to wait.
        let _ = thread.spawn(move || here.run(borrower));
        watchdog
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what may wait.
    pub(super) fn guard<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.state().since = Some(Instant::now());
        let done = wait();
        self.state().since = None;
        done
    }

    pub(super) fn end(&self) {
        self.state().over = true;
        self.ended.notify_one();
    }

    fn run(&self, borrower: Pid) {
        let _ = pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&all_but_sigsys()), None);
        let mut state = self.state();
        while !state.over {
            if state.since.is_some_and(|since| since.elapsed() > LIMIT) {
                drop(state);
                kill_those_who_execute(borrower);
                state = self.state();
            }
            let waited = self.ended.wait_timeout(state, LIMIT / 2);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Kills the processes of which this thread traces one thread while another one executes a program.
fn kill_those_who_execute(tracer: Pid) {
    for process in numbers(Path::new("/proc")) {
        let Ok(pidfd) = pidfd::open(Pid::from_raw(process)) else {
            continue;
        };
        let tasks = Path::new("/proc").join(process.to_string()).join("task");
        let any = |is: &dyn Fn(&Path) -> bool| {
            let threads = numbers(&tasks);
            threads.iter().any(|tid| is(&tasks.join(tid.to_string())))
        };
        if any(&|thread| is_traced(thread, tracer)) && any(&executes) {
            crate::trace::warning!(
                %process,
                "killed a target that kept all others from being taken hold of"
            );
            pidfd::kill(std::os::fd::AsFd::as_fd(&pidfd));
        }
    }
}

fn numbers(directory: &Path) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.parse().ok()).collect()
}

fn is_traced(thread: &Path, tracer: Pid) -> bool {
    let status = fs::read_to_string(thread.join("status")).unwrap_or_default();
    let traced = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    traced.is_some_and(|traced| traced.trim() == tracer.to_string())
}

/// Tells whether a thread is in `execve(2)` or `execveat(2)`.
fn executes(thread: &Path) -> bool {
    let call = fs::read_to_string(thread.join("syscall")).unwrap_or_default();
    let number = call
        .split_whitespace()
        .next()
        .and_then(|number| number.parse().ok());
    matches!(number, Some(libc::SYS_execve | libc::SYS_execveat))
}
