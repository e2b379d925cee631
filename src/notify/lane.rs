//! How many looks at one child's memory there are at a time.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use crate::workers::{self, Worker};

/// How many threads one listener's targets can stall.
const LIMIT: usize = 4;

/// A look that waits for a thread, or has one.
pub(super) trait Job: Send + Sync {
    /// Does it on this thread, unless it was given up, and gives who waits for it. It does not panic.
    fn run(&self) -> Option<Waker>;
}

/// The looks at the targets of one listener. A look that was given up counts until the kernel lets go of its thread, so
/// that a hostile child keeps no more threads busy than this, and only from looks at itself.
#[derive(Default)]
pub(crate) struct Lane {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The process whose threads these are.
    pid: u32,
    /// How many threads are busy. There is one if anything waits.
    busy: usize,
    waiting: VecDeque<Arc<dyn Job>>,
}

impl Lane {
    /// Has a look done as soon as there is a thread for it.
    pub(super) fn submit(self: &Arc<Self>, job: Arc<dyn Job>) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.pid != std::process::id() {
            // After a fork; what the parent's threads do, and are to do, is not ours.
            std::mem::forget(std::mem::take(&mut state.waiting));
            state.busy = 0;
            state.pid = std::process::id();
        }
        if state.busy == LIMIT {
            state.waiting.push_back(job);
            return Ok(());
        }
        let lane = Arc::clone(self);
        workers::run(Box::new(move |worker| lane.serve(job, worker)))?;
        state.busy += 1;
        Ok(())
    }

    /// Takes back what waits, if it does so still.
    pub(super) fn withdraw(&self, job: *const dyn Job) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = &mut state.waiting;
        let place = waiting
            .iter()
            .position(|waiting| std::ptr::addr_eq(Arc::as_ptr(waiting), job));
        let withdrawn = place.and_then(|place| waiting.remove(place));
        // Not under the lock: dropping it may drop what belongs to a user.
        drop(state);
        drop(withdrawn);
    }

    /// Does a look and those that wait.
    fn serve(&self, first: Arc<dyn Job>, worker: &Arc<Worker>) {
        let mut next = Some(first);
        while let Some(job) = next {
            let waker = job.run();
            next = self.next(worker);
            // Another look may follow from that.
            workers::wake(waker);
        }
    }

    /// The next look for a thread that is done with one.
    fn next(&self, worker: &Arc<Worker>) -> Option<Arc<dyn Job>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let next = state.waiting.pop_front();
        if next.is_none() {
            state.busy -= 1;
            // Before another look finds that there is room for it, which had a thread made otherwise.
            worker.rest();
        }
        next
    }
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Ends when it is told to.
    struct Busy(Mutex<Receiver<()>>);

    impl Job for Busy {
        fn run(&self) -> Option<Waker> {
            let _ = self.0.lock().unwrap().recv();
            None
        }
    }

    fn busy() -> (Sender<()>, Arc<Busy>) {
        let (end, ended) = channel();
        (end, Arc::new(Busy(Mutex::new(ended))))
    }

    #[test]
    fn what_is_withdrawn_waits_no_more_and_what_waits_is_done_in_order() {
        let lane = Arc::new(Lane::default());
        let jobs: Vec<_> = (0..LIMIT + 3).map(|_| busy()).collect();
        for (_, job) in &jobs {
            let job: Arc<dyn Job> = job.clone();
            lane.submit(job).unwrap();
        }
        let waiting = || lane.state.lock().unwrap().waiting.len();
        let busy = || lane.state.lock().unwrap().busy;
        assert_eq!((busy(), waiting()), (LIMIT, 3));
        let (_, withdrawn) = &jobs[LIMIT + 1];
        lane.withdraw(Arc::as_ptr(withdrawn) as *const dyn Job);
        assert_eq!((waiting(), Arc::strong_count(withdrawn)), (2, 1));
        lane.withdraw(Arc::as_ptr(&jobs[0].1) as *const dyn Job);
        assert_eq!(waiting(), 2);
        let kept = Arc::clone(&jobs[LIMIT].1);
        drop(jobs);
        // The threads are done with all of it.
        while Arc::strong_count(&kept) > 1 || busy() > 0 {
            std::thread::yield_now();
        }
    }
}
