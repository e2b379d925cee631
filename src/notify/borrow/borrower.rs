//! The thread that borrows: only the thread that has taken hold of another can let it go.
//!
//! It runs while there is something to do, and is all that the process shares, beside the launcher and the reaper.

use std::collections::HashMap;
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
use super::stops::{self, Stop};
use crate::error::Error;
use crate::notify::Source;
use crate::pidfd;
use crate::reaper::all_but_sigsys;
use crate::syscall::{Prctl, PtraceRequest, SignalNumber, prctl, ptrace};

/// After how long a thread that has not stopped again is watched by descriptors, which costs more than it is worth before.
const PROMPT: Duration = Duration::from_millis(2);
/// How often to look around while there are threads that are not watched.
const TICK: Duration = Duration::from_millis(10);
/// For how long a call that is to pass unseen is waited for after its thread was let go.
const PASSING: Duration = Duration::from_millis(100);
/// For how long a call is waited for that the filter traps once more, between looks for other stops, in nanoseconds: where the
/// last one was trapped again, and where it was not. Calls that the filter lets pass now have no notification.
const TRAPPED_AGAIN: &[i64] = &[150_000, 100_000];
const LET_PASS: &[i64] = &[1_000, 8_000, 32_000, 64_000, 128_000];
/// How many threads have a descriptor of their own at most. The others are looked at now and then.
const WATCHED: usize = 256;

pub(super) struct Borrower {
    desk: Arc<Desk>,
    bell: Option<Bell>,
    loans: HashMap<Pid, Entry>,
    /// Threads that were let go with a pass.
    passing: Vec<Passing>,
    /// The next name of what the bell watches.
    name: u64,
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
            loans: HashMap::new(),
            passing: Vec::new(),
            name: 0,
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
        if work.look_around {
            self.look_around();
        }
    }

    fn begin(&mut self, order: Order) {
        if order.reply.is_abandoned() {
            return;
        }
        let held = order.call.target().is_ok_and(|tid| self.loans.contains_key(&tid));
        let seized = match self.bell() {
            // A signal took its last call back before it had the answer. The interruption that comes with it ends this one.
            Ok(_) if held => Err(Error::Gone),
            Ok(_) => Loan::seize(&order),
            Err(errno) => Err(Error::os("making a child that waits for descriptors", errno)),
        };
        match seized {
            Ok(tid) => {
                let loan = Loan::begin(order, tid);
                let (slice, end) = (0, None);
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
        match entry.loan.stopped(stop) {
            Next::Borrowed => entry.slice = 0,
            Next::Released => drop(self.loans.remove(&tid)),
            Next::ReleasedWithPass => {
                if let Some(source) = entry.loan.expected_at() {
                    self.passing.push(Passing {
                        source: Arc::downgrade(&source),
                        tid: tid.as_raw().cast_unsigned(),
                        until: Instant::now() + PASSING,
                    });
                }
                self.loans.remove(&tid);
            }
        }
    }

    /// A thread that executes a program takes over the number of its process. Gives the one that it is known by.
    fn rename(&mut self, pid: Pid) -> Pid {
        let mut former = 0;
        let _ = ptrace(pid.as_raw(), PtraceRequest::GetEventMessage(&mut former));
        let former = Pid::from_raw(former as i32);
        if former != pid
            && let Some(mut entry) = self.loans.remove(&former)
        {
            entry.loan.renamed(pid);
            // The thread that had the number before is dead.
            if let Some(former) = self.loans.insert(pid, entry) {
                former.loan.died();
            }
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
        let dead: Vec<Pid> = self
            .loans
            .values()
            .filter(|entry| {
                if let Some(source) = entry.loan.expected_at() {
                    source.receive_for_others();
                }
                let late = now.saturating_duration_since(entry.loan.since) > PROMPT;
                let look = entry
                    .end
                    .as_ref()
                    .map_or(late, |(_, name)| happened.contains(name));
                look && entry.loan.is_dead()
            })
            .map(|entry| entry.loan.tid())
            .collect();
        for tid in dead {
            if let Some(entry) = self.loans.remove(&tid) {
                entry.loan.died();
            }
        }
        self.passing.retain(|passing| passing.goes_on(now));
    }

    /// Waits for a moment for the calls that the filter is asked about once more; false if there are none, or they take long.
    fn wait_for_calls(&mut self) -> bool {
        let mut sources = Vec::new();
        let mut patience = i64::MAX;
        for entry in self.loans.values_mut() {
            let Some(source) = entry.loan.expected_at() else {
                entry.loan.let_run();
                continue;
            };
            let slices = match source.passes.is_expected(entry.loan.number()) {
                true => TRAPPED_AGAIN,
                false => LET_PASS,
            };
            match slices.get(entry.slice) {
                Some(slice) => {
                    patience = patience.min(*slice);
                    entry.slice += 1;
                    sources.push(source);
                }
                None => entry.loan.let_run(),
            }
        }
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
        let now = Instant::now();
        let mut sources = Vec::new();
        let mut fds = Vec::new();
        let mut unwatched = !self.passing.is_empty();
        let mut watched = self.loans.values().filter(|entry| entry.end.is_some()).count();
        for entry in self.loans.values_mut() {
            if let Some(source) = entry.loan.expected_at().filter(|source| !source.is_closed()) {
                // Names of ends are even.
                let name = source.child.number() << 1 | 1;
                let fd = source.as_raw_fd();
                fds.push(Watched { fd, name });
                sources.push(source);
            }
            let late = now.saturating_duration_since(entry.loan.since) > PROMPT;
            if late && entry.end.is_none() && watched < WATCHED {
                self.name += 2;
                let end = pidfd::open_thread(entry.loan.tid());
                entry.end = end.ok().map(|end| (end, self.name));
                watched += 1;
            }
            match &entry.end {
                Some((end, name)) => fds.push(Watched {
                    fd: end.as_raw_fd(),
                    name: *name,
                }),
                None => unwatched = true,
            }
        }
        let Ok(bell) = self.bell() else {
            // It was there, and can't be made again at present.
            std::thread::sleep(TICK);
            return self.look_around();
        };
        bell.watch(&fds, unwatched.then_some(TICK));
        if self.desk.wait_for_stops() {
            let stopped = stops::next(true);
            self.desk.end_wait();
            if let Ok(Some((pid, stop))) = stopped {
                self.handle(pid, stop);
            }
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
