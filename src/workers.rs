//! Threads of the library's own, for work that may stall for as long as somebody hostile likes.
//!
//! Not those of `tokio::task::spawn_blocking`: its threads are shared with the whole program, and a runtime that is
//! dropped waits for them. One read that stalls keeps it from shutting down for as long as it stalls, which
//! `tests/stalling_memory.rs` shows.
//!
//! Nobody queues here: who has work gets a thread, an idle one if there is one. Those who give work see to it that
//! there is a bound. Like the launcher and the reaper, this is state of the process, and a forked copy begins anew.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigmaskHow, pthread_sigmask};

use crate::per_process::PerProcess;
use crate::reaper::all_but_sigsys;

/// Work for a thread. It may panic, of which nobody is told.
pub(crate) type Work = Box<dyn FnOnce(&Arc<Worker>) + Send>;

/// A thread without work ends after this long.
const IDLE: Duration = Duration::from_secs(5);
/// For what users do with the target's memory, and for the report of a panic. Pages that are not used cost nothing.
const STACK: usize = 256 * 1024;

/// The idle threads, the one that worked last at the end.
static POOL: PerProcess<Mutex<Vec<Arc<Worker>>>> = PerProcess::new();

fn pool() -> MutexGuard<'static, Vec<Arc<Worker>>> {
    POOL.get().lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a thread without work waits for some.
#[derive(Default)]
pub(crate) struct Worker {
    work: Mutex<Option<Work>>,
    came: Condvar,
    /// It is in the pool, or was taken out of it for what comes next. Only its own thread asks.
    rests: AtomicBool,
}

/// Has the work done on a thread, at once.
pub(crate) fn run(work: Work) -> io::Result<()> {
    let idle = pool().pop();
    if let Some(worker) = idle {
        worker.give(work);
        return Ok(());
    }
    let thread = std::thread::Builder::new()
        .name("asm_tracer-look".into())
        .stack_size(STACK);
    thread.spawn(move || serve(work)).map(drop)
}

fn serve(work: Work) {
    // The program's handlers are not to run on this small stack.
    let _ = pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&all_but_sigsys()), None);
    let worker = Arc::new(Worker::default());
    let mut next = Some(work);
    while let Some(work) = next {
        caught(|| work(&worker));
        next = worker.next();
    }
}

/// Does what is somebody else's code; `None` if it panics, which has been reported then.
pub(crate) fn caught<T>(code: impl FnOnce() -> T) -> Option<T> {
    let outcome = catch_unwind(AssertUnwindSafe(code));
    // A payload may panic as it is dropped.
    outcome.map_err(std::mem::forget).ok()
}

/// Tells who waits, if somebody does.
pub(crate) fn wake(waker: Option<Waker>) {
    caught(|| waker.map(Waker::wake));
}

impl Worker {
    fn give(&self, work: Work) {
        *self.work.lock().unwrap_or_else(PoisonError::into_inner) = Some(work);
        self.came.notify_one();
    }

    /// Is there for the next work from now on. The work at hand may say so before it tells others that it is done, from which
    /// the next may follow; it must not do much more then.
    pub(crate) fn rest(self: &Arc<Self>) {
        if !self.rests.swap(true, Ordering::Relaxed) {
            pool().push(Arc::clone(self));
        }
    }

    /// Waits for work; `None` if there was none for a while and there won't be any.
    fn next(self: &Arc<Self>) -> Option<Work> {
        self.rest();
        let work = self.wait(IDLE).or_else(|| {
            let mut pool = pool();
            let place = pool.iter().position(|idle| Arc::ptr_eq(idle, self));
            match place {
                Some(place) => {
                    pool.remove(place);
                    None
                }
                // Somebody is about to give it some.
                None => {
                    drop(pool);
                    self.wait(Duration::MAX)
                }
            }
        });
        self.rests.store(false, Ordering::Relaxed);
        work
    }

    fn wait(&self, limit: Duration) -> Option<Work> {
        let start = Instant::now();
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        while work.is_none() {
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                break;
            }
            let waited = self.came.wait_timeout(work, left);
            work = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        work.take()
    }
}
