//! The records between those who answer calls and the one who writes.
//!
//! A record has its place from before its call is answered, so that the answer waits for nothing. What finds none is counted,
//! and the trace says so where it is missing.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::deadline::within;
use super::line::{Gap, Record, Sums};

pub(super) struct Queue {
    places: Arc<Semaphore>,
    /// As many free places are too few to have the writer wait for more.
    few: usize,
    /// A wait for a place was in vain, and nothing was taken out since.
    stuck: AtomicBool,
    state: Mutex<State>,
    came: Condvar,
    over: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// What is missing behind those that wait.
    gap: Option<Gap>,
    /// How many the writer has taken and not brought to their destination yet.
    taken: u64,
    sums: Sums,
    error: Option<io::Error>,
    stage: Stage,
    writer: Writer,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Open,
    /// What is there is still written.
    Closing,
    /// No more is taken.
    Closed,
}

/// What the writer does. To wake it for each record would cost the program more than the record itself.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Writer {
    #[default]
    Busy,
    /// It lets a few records come together.
    Gathering,
    /// It waits to be told of the first one.
    Asleep,
}

/// For how long the writer lets records come together.
const GATHERING: Duration = Duration::from_millis(1);

struct Waiting {
    record: Box<Record>,
    gap: Option<Gap>,
    _place: OwnedSemaphorePermit,
}

/// What is to be done next.
pub(super) enum Task {
    Write(Option<Gap>, Box<Record>),
    Flush,
    End(Option<Gap>, Sums),
    /// Nothing any more: nobody wants it.
    Stop,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            places: Arc::new(Semaphore::new(capacity)),
            few: capacity / 2,
            stuck: AtomicBool::new(false),
            state: Mutex::default(),
            came: Condvar::new(),
            over: watch::Sender::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place, for which it waits so long, unless somebody has in vain already.
    pub(super) async fn place(&self, grace: Duration) -> Option<OwnedSemaphorePermit> {
        let places = || Arc::clone(&self.places);
        if let Ok(place) = places().try_acquire_owned() {
            return Some(place);
        }
        self.hurry();
        if self.places.is_closed() || self.stuck.load(Ordering::Relaxed) {
            return None;
        }
        match within(grace, places().acquire_owned()).await {
            Ok(Some(place)) => place.ok(),
            _ => {
                self.stuck.store(true, Ordering::Relaxed);
                // Not for ever, if one was given back just now.
                places().try_acquire_owned().ok()
            }
        }
    }

    /// Has the writer wait for no more.
    fn hurry(&self) {
        let mut state = self.state();
        if state.writer == Writer::Gathering {
            state.writer = Writer::Busy;
            self.came.notify_one();
        }
    }

    /// Hands over a record.
    pub(super) fn push(&self, record: Box<Record>, place: Option<OwnedSemaphorePermit>) {
        let place = place.or_else(|| Arc::clone(&self.places).try_acquire_owned().ok());
        let mut state = self.state();
        match place {
            Some(place) if state.stage != Stage::Closed => {
                let gap = state.gap.take();
                let _place = place;
                state.waiting.push_back(Waiting { record, gap, _place });
                let wakes = match state.writer {
                    Writer::Busy => false,
                    Writer::Gathering => self.places.available_permits() <= self.few,
                    Writer::Asleep => true,
                };
                if wakes {
                    state.writer = Writer::Busy;
                    drop(state);
                    self.came.notify_one();
                }
            }
            _ => state.missing(record.time),
        }
    }

    /// Takes note of a call for which there is no place.
    pub(super) fn missing(&self, time: SystemTime) {
        self.state().missing(time);
    }

    /// Waits for something to do.
    pub(super) fn next(&self, batch: u64) -> Task {
        let mut state = self.state();
        // Where nothing has come for a while, nothing is expected.
        let mut gathers = true;
        loop {
            state.writer = Writer::Busy;
            if *self.over.borrow() {
                return Task::Stop;
            }
            if state.taken >= batch {
                return Task::Flush;
            }
            if let Some(Waiting { record, gap, _place }) = state.waiting.pop_front() {
                state.taken += 1;
                drop(state);
                self.stuck.store(false, Ordering::Relaxed);
                return Task::Write(gap, record);
            }
            if state.taken > 0 {
                return Task::Flush;
            }
            if state.stage != Stage::Open {
                state.stage = Stage::Closed;
                return Task::End(state.gap.take(), state.sums);
            }
            if gathers {
                gathers = false;
                state.writer = Writer::Gathering;
                let waited = self.came.wait_timeout(state, GATHERING);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            } else {
                state.writer = Writer::Asleep;
                state = self.came.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Takes note that all that was taken is at its destination.
    pub(super) fn flushed(&self) {
        let mut state = self.state();
        // Nothing is taken any more if it was given up.
        state.sums.written += std::mem::take(&mut state.taken);
    }

    /// Has what is there written, and then no more.
    pub(super) fn close(&self) {
        let mut state = self.state();
        if state.stage == Stage::Open {
            state.stage = Stage::Closing;
        }
        drop(state);
        self.came.notify_one();
    }

    /// Ends it. With an error, what has not reached its destination is counted as missing.
    pub(super) fn end(&self, error: Option<io::Error>) {
        let mut state = self.state();
        state.stage = Stage::Closed;
        state.sums.dropped += std::mem::take(&mut state.taken) + state.waiting.len() as u64;
        let left = std::mem::take(&mut state.waiting);
        if !*self.over.borrow() {
            state.error = error;
        }
        drop(state);
        drop(left);
        self.places.close();
        self.over.send_replace(true);
    }

    /// Waits for the end.
    pub(super) async fn over(&self) {
        // The sender is here.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    pub(super) fn sums(&self) -> Sums {
        self.state().sums
    }

    /// Why it ended, once.
    pub(super) fn take_error(&self) -> Option<io::Error> {
        self.state().error.take()
    }
}

impl State {
    fn missing(&mut self, time: SystemTime) {
        self.sums.dropped += 1;
        self.gap.get_or_insert(Gap { calls: 0, time }).calls += 1;
    }
}
