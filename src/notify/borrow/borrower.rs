//! The thread that borrows: only the thread that has taken hold of another can let it go.
//!
//! It runs while there is something to do, and is all that the process shares, beside the launcher and the reaper.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{SigmaskHow, Signal, pthread_sigmask};
use nix::sys::time::TimeSpec;
use nix::unistd::Pid;

use super::bell::{Bell, Watched};
use super::desk::{Desk, Work};
use super::loan::{Loan, Next};
use super::order::{Order, Outcome};
use super::seize::seize;
use super::stops::{self, Stop};
use super::watchdog::Watchdog;
use crate::error::Error;
use crate::notify::Source;
use crate::pidfd;
use crate::reaper::all_but_sigsys;
use crate::syscall::{Prctl, PtraceRequest, SignalNumber, prctl, ptrace};

/// After how long a thread that has not stopped again is watched by descriptors, which costs more than it is worth before.
const PROMPT: Duration = Duration::from_millis(2);
/// How often to look around while threads were only just let go.
const TICK: Duration = Duration::from_millis(10);
/// How often to look for the death of threads that are not watched.
const LOOK: Duration = Duration::from_millis(100);
/// For how long a call that is to pass unseen is waited for after its thread was let go.
const PASSING: Duration = Duration::from_millis(100);
/// For how long a call is waited for that the filter traps once more, between looks for other stops, in nanoseconds: where the
/// last one was trapped again, and where it was not. Calls that the filter lets pass now have no notification.
const TRAPPED_AGAIN: &[i64] = &[150_000, 100_000];
const LET_PASS: &[i64] = &[1_000, 8_000, 32_000, 64_000, 128_000];
/// How many threads have a descriptor of their own at most. The others are looked at now and then.
const WATCHED: usize = 256;

/// Each list beside the loans is short, or rarely gone through: many calls may block while others are rewritten.
pub(super) struct Borrower {
    desk: Arc<Desk>,
    bell: Option<Bell>,
    /// There once a thread was taken hold of beside others.
    watchdog: Option<Arc<Watchdog>>,
    loans: HashMap<Pid, Entry>,
    /// Threads that run since their last stop, with a call that may be trapped again.
    expecting: Vec<Pid>,
    /// Listeners with passes that were not used when they were expected to be, by their names.
    listeners: HashMap<u64, Weak<Source>>,
    /// Loans in the order in which they began, until it is late enough to watch them.
    young: VecDeque<(Pid, Instant)>,
    /// Who is watched, by the names of the ends.
    watched: HashMap<u64, Pid>,
    /// Who is looked at now and then.
    unwatched: Vec<(Pid, Instant)>,
    next_look: Instant,
    /// Threads that were let go with a pass.
    passing: Vec<Passing>,
    /// The next name of what the bell watches.
    name: u64,
    /// How often there was something more to watch.
    edition: u64,
}

struct Entry {
    loan: Loan,
    /// The next slice to wait for its call.
    slice: usize,
    /// Becomes readable at its end; with a name of its own.
    end: Option<(OwnedFd, u64)>,
}

struct Passing {
    source: Weak<Source>,
    tid: u32,
    until: Instant,
}

impl Borrower {
    pub(super) fn new(desk: Arc<Desk>) -> Self {
        Self {
            desk,
            bell: None,
            watchdog: None,
            loans: HashMap::new(),
            expecting: Vec::new(),
            listeners: HashMap::new(),
            young: VecDeque::new(),
            watched: HashMap::new(),
            unwatched: Vec::new(),
            next_look: Instant::now(),
            passing: Vec::new(),
            name: 0,
            edition: 0,
        }
    }

    pub(super) fn run(mut self) {
        // The program's handlers are not to run here. But a stop sends SIGCHLD to this thread, and were it blocked here, the
        // kernel would interrupt another one for it.
        let mut blocked = all_but_sigsys();
        blocked.remove(Signal::SIGCHLD);
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&blocked), None);
        let _ = prctl(Prctl::SetTimerSlack(1));
        while let Some(work) = self.desk.take(self.is_idle()) {
            self.take_on(work);
            if self.is_idle() {
                continue;
            }
            if !self.wait_for_calls() {
                self.wait_for_stop();
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.loans.is_empty() && self.passing.is_empty()
    }

    fn take_on(&mut self, work: Work) {
        for order in work.orders {
            self.begin(order);
        }
        for reply in work.abandoned {
            let entry = self
                .loans
                .values_mut()
                .find(|entry| entry.loan.belongs_to(&reply));
            if let Some(entry) = entry {
                entry.loan.abandon();
            }
        }
        for (tid, reply, filled) in work.filled {
            let entry = self.loans.get_mut(&tid);
            if let Some(entry) = entry.filter(|entry| entry.loan.belongs_to(&reply)) {
                let next = entry.loan.filled(filled);
                self.go_on(tid, next);
            }
        }
        if work.look_around {
            for source in self.listeners() {
                source.receive_for_others();
            }
            self.look_around();
        }
    }

    fn begin(&mut self, order: Order) {
        if order.reply.is_abandoned() {
            return;
        }
        let held = order.call.target().is_ok_and(|tid| self.loans.contains_key(&tid));
        let alone = self.loans.is_empty();
        let seized = match self.bell() {
            // A signal took its last call back before it had the answer. The interruption that comes with it ends this one.
            Ok(_) if held => Err(Error::Gone),
            Ok(_) if alone => seize(&order),
            Ok(_) => {
                let watchdog = self.watchdog.get_or_insert_with(Watchdog::start);
                watchdog.guard(|| seize(&order))
            }
            Err(errno) => Err(Error::os("making a child that waits for descriptors", errno)),
        };
        match seized {
            Ok(tid) => {
                let loan = Loan::begin(order, tid, &self.desk);
                let (slice, end) = (0, None);
                self.young.push_back((tid, loan.since));
                // Whatever was to pass has done so, or it would not make another call.
                self.passing
                    .retain(|passing| passing.tid != tid.as_raw().cast_unsigned());
                self.loans.insert(tid, Entry { loan, slice, end });
            }
            Err(error) => order.reply.settle(Outcome::Refused(order.call.refuse(error))),
        }
    }

    fn bell(&mut self) -> Result<&mut Bell, Errno> {
        match &mut self.bell {
            Some(bell) => Ok(bell),
            none => Ok(none.insert(Bell::new(Arc::clone(self.desk.rope()?))?)),
        }
    }

    /// Deals with what has stopped; false if nothing has.
    fn handle_stops(&mut self) -> bool {
        let mut any = false;
        while let Ok(Some((pid, stop))) = stops::next(false) {
            self.handle(pid, stop);
            any = true;
        }
        any
    }

    fn handle(&mut self, pid: Pid, stop: Stop) {
        if self.bell.as_ref().is_some_and(|bell| bell.pid() == pid) {
            return self.handle_bell(stop);
        }
        let tid = match stop {
            Stop::Executed => self.rename(pid),
            _ => pid,
        };
        let Some(entry) = self.loans.get_mut(&tid) else {
            // Nobody's: let it go.
            let _ = ptrace(pid.as_raw(), PtraceRequest::Detach(SignalNumber::NONE));
            return;
        };
        let next = entry.loan.stopped(stop);
        self.go_on(tid, next);
    }

    /// Deals with a thread that is to do the next thing.
    fn go_on(&mut self, tid: Pid, next: Next) {
        let Some(entry) = self.loans.get_mut(&tid) else {
            return;
        };
        match next {
            Next::Borrowed => {
                entry.slice = 0;
                if !self.expecting.contains(&tid) {
                    self.expecting.push(tid);
                }
            }
            Next::Released => drop(self.remove(tid)),
            Next::ReleasedWithPass => {
                if let Some(source) = entry.loan.expected_at() {
                    self.passing.push(Passing {
                        source: Arc::downgrade(&source),
                        tid: tid.as_raw().cast_unsigned(),
                        until: Instant::now() + PASSING,
                    });
                }
                self.remove(tid);
            }
        }
    }

    fn remove(&mut self, tid: Pid) -> Option<Loan> {
        let Entry { loan, end, .. } = self.loans.remove(&tid)?;
        if let Some((_, name)) = end {
            self.watched.remove(&name);
        }
        Some(loan)
    }

    /// A thread that executes a program takes over the number of its process. Gives the one that it is known by.
    fn rename(&mut self, pid: Pid) -> Pid {
        let mut former = 0;
        let _ = ptrace(pid.as_raw(), PtraceRequest::GetEventMessage(&mut former));
        let former = Pid::from_raw(former as i32);
        if former != pid
            && let Some(mut loan) = self.remove(former)
        {
            loan.renamed(pid);
            // The thread that had the number before is dead.
            if let Some(former) = self.remove(pid) {
                former.died();
            }
            let (slice, end) = (0, None);
            self.loans.insert(pid, Entry { loan, slice, end });
        }
        pid
    }

    fn handle_bell(&mut self, stop: Stop) {
        let Some(bell) = &mut self.bell else { return };
        if stop == Stop::Exiting {
            // Somebody has killed it.
            self.bell = None;
            let _ = self.bell();
        } else {
            bell.stopped();
        }
        self.look_around();
    }

    /// Deals with what sends no stop.
    fn look_around(&mut self) {
        let now = Instant::now();
        let happened: Vec<u64> = self.bell.iter().flat_map(Bell::happened).collect();
        for name in happened {
            if let Some(source) = self.listeners.get(&name).and_then(Weak::upgrade) {
                source.receive_for_others();
            } else if let Some(tid) = self.watched.get(&name) {
                self.remove_dead(*tid);
            }
        }
        if now >= self.next_look {
            self.next_look = now + LOOK;
            for (tid, since) in std::mem::take(&mut self.unwatched) {
                if self.is_lent(tid, since) {
                    self.remove_dead(tid);
                    // There may be room to watch it by now.
                    self.young.push_front((tid, since));
                }
            }
        }
        self.passing.retain(|passing| passing.goes_on(now));
    }

    /// Tells whether a thread's loan is still this one.
    fn is_lent(&self, tid: Pid, since: Instant) -> bool {
        self.loans
            .get(&tid)
            .is_some_and(|entry| entry.loan.since == since)
    }

    fn remove_dead(&mut self, tid: Pid) {
        if self.loans.get(&tid).is_some_and(|entry| entry.loan.is_dead())
            && let Some(loan) = self.remove(tid)
        {
            loan.died();
        }
    }

    /// The listeners where calls are still to come, each once.
    fn listeners(&mut self) -> Vec<Arc<Source>> {
        let mut sources = Vec::new();
        self.listeners.retain(|_, source| {
            let source = source.upgrade().filter(|source| source.passes.any());
            sources.extend(source.clone());
            source.is_some()
        });
        sources
    }

    /// Waits for a moment for the calls that the filter is asked about once more; false if there are none, or they take long.
    fn wait_for_calls(&mut self) -> bool {
        let mut sources: Vec<Arc<Source>> = Vec::new();
        let mut patience = i64::MAX;
        let Self {
            expecting,
            loans,
            listeners,
            edition,
            ..
        } = self;
        expecting.retain(|tid| {
            let Some(entry) = loans.get_mut(tid) else {
                return false;
            };
            let Some(source) = entry.loan.expected_at() else {
                entry.loan.let_run();
                return false;
            };
            let slices = match source.passes.is_expected(entry.loan.number()) {
                true => TRAPPED_AGAIN,
                false => LET_PASS,
            };
            if let Some(slice) = slices.get(entry.slice) {
                patience = patience.min(*slice);
                entry.slice += 1;
                if !sources.iter().any(|other| Arc::ptr_eq(other, &source)) {
                    sources.push(source);
                }
                return true;
            }
            entry.loan.let_run();
            if listeners
                .insert(name_of(&source), Arc::downgrade(&source))
                .is_none()
            {
                *edition += 1;
            }
            false
        });
        let (false, Ok(nudge)) = (sources.is_empty(), self.desk.nudge()) else {
            return false;
        };
        let listeners = sources
            .iter()
            .map(|source| PollFd::new(source.as_fd(), PollFlags::POLLIN));
        let nudged = PollFd::new(nudge.as_fd(), PollFlags::POLLIN);
        let mut fds: Vec<_> = [nudged].into_iter().chain(listeners).collect();
        if self.desk.wait_for_calls() {
            let _ = ppoll(&mut fds, Some(TimeSpec::new(0, patience)), None);
            self.desk.end_wait();
            if fds[0].any() == Some(true) {
                let _ = nudge.read();
            }
        }
        for source in &sources {
            source.receive_for_others();
        }
        self.handle_stops();
        true
    }

    /// Waits until something stops, or the bell is rung.
    fn wait_for_stop(&mut self) {
        self.watch_late();
        let sources = self.listeners();
        let timeout = if !self.passing.is_empty() || !self.young.is_empty() {
            Some(TICK)
        } else if !self.unwatched.is_empty() {
            Some(LOOK)
        } else {
            None
        };
        if self.bell().is_err() {
            // It was there, and can't be made again at present.
            std::thread::sleep(TICK);
            return self.look_around();
        }
        if let Some(bell) = &mut self.bell {
            let listeners = sources.iter().map(|source| Watched {
                fd: source.as_raw_fd(),
                name: name_of(source),
            });
            let ends = self.watched.values().filter_map(|tid| {
                let (end, name) = self.loans.get(tid)?.end.as_ref()?;
                let (fd, name) = (end.as_raw_fd(), *name);
                Some(Watched { fd, name })
            });
            bell.watch(self.edition, listeners.chain(ends), timeout);
        }
        if self.desk.wait_for_stops() {
            let stopped = stops::next(true);
            self.desk.end_wait();
            if let Ok(Some((pid, stop))) = stopped {
                self.handle(pid, stop);
            }
        }
    }

    /// Sees to it that the end of each thread that has not stopped for a while is noticed.
    fn watch_late(&mut self) {
        let now = Instant::now();
        while let Some((tid, since)) = self.young.front().copied() {
            let lent = self.is_lent(tid, since);
            if lent && now.saturating_duration_since(since) <= PROMPT {
                break;
            }
            self.young.pop_front();
            if !lent {
                continue;
            }
            let end = (self.watched.len() < WATCHED).then(|| pidfd::open_thread(tid));
            let Some(Ok(end)) = end else {
                self.unwatched.push((tid, since));
                continue;
            };
            let name = self.name + 2;
            self.name = name;
            self.edition += 1;
            self.watched.insert(name, tid);
            if let Some(entry) = self.loans.get_mut(&tid) {
                entry.end = Some((end, name));
            }
        }
    }
}

/// What the bell calls a listener. Names of ends are even.
fn name_of(source: &Source) -> u64 {
    source.child.number() << 1 | 1
}

impl Drop for Borrower {
    fn drop(&mut self) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.end();
        }
    }
}

impl Passing {
    /// Whether the call is still to come; takes its pass back once it is too late.
    fn goes_on(&self, now: Instant) -> bool {
        let Some(source) = self.source.upgrade() else {
            return false;
        };
        source.receive_for_others();
        if now > self.until {
            source.passes.revoke(self.tid);
        }
        source.passes.is_granted(self.tid)
    }
}
