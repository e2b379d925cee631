//! The thread that empties the rings into the outbox, so that they have room whatever the consumer does.
//!
//! It is there before the filter, and makes no calls but through the stubs while it works: none of them is an event.

use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::time::{Duration, Instant};

use super::record::{Record, What};
use super::ring::{self, Next, Reader, Ring};
use super::shared::Shared;
use crate::syscall::{self, Mode, OpenFlags, SignalNumber};

/// How long a record may be unfinished before its writer is looked at more closely.
const UNFINISHED: Duration = Duration::from_millis(20);
/// How long it sleeps at most while there is something that nobody wakes it for.
const LOOK: Duration = Duration::from_millis(10);
/// While calls come, it looks after them so often, and whoever makes them need not wake it each time.
const NAP: Duration = Duration::from_micros(100);
/// After so many naps for nothing it sleeps.
const NAPS: u32 = 20;
/// Smaller rings would overflow meanwhile.
const WORTH_A_NAP: u64 = 256;

pub(super) fn run(shared: &'static Shared, ready: impl FnOnce()) {
    let mut drain = Drain {
        calls: shared.rings.iter().map(|_| Source::default()).collect(),
        results: Source::default(),
        clock: Clock::new(),
        shared,
    };
    ready();
    let mut naps = NAPS;
    loop {
        let moved = drain.round();
        naps = if moved > 0 { 0 } else { naps.saturating_add(1) };
        if moved > WORTH_A_NAP / 4 {
            continue;
        }
        if naps < NAPS && 4 * shared.patience >= WORTH_A_NAP {
            nap();
            continue;
        }
        if moved > 0 {
            continue;
        }
        let closed = !shared.recording.load(SeqCst);
        if closed && (drain.is_settled() || drain.discard()) {
            break;
        }
        let looks = closed || shared.results.is_some() || drain.waits_for_writer();
        shared.drain.sleep(looks.then_some(LOOK), || {
            drain.has_work() || closed == shared.recording.load(SeqCst)
        });
    }
    shared.finished.store(true, Release);
    shared.consumer.wake();
}

/// Sleeps without being woken for calls.
#[allow(unsafe_code)]
fn nap() {
    let time = libc::timespec {
        tv_sec: 0,
        tv_nsec: NAP.subsec_nanos().into(),
    };
    // SAFETY: the kernel reads the time.
    let _ = unsafe { syscall::syscall2(libc::SYS_nanosleep, syscall::pointer(&raw const time), 0) };
}

struct Drain {
    calls: Vec<Source>,
    results: Source,
    clock: Clock,
    shared: &'static Shared,
}

/// A ring as it is read.
#[derive(Debug, Default)]
struct Source {
    reader: Reader,
    /// What was read and is to be delivered next.
    head: Option<Record>,
    /// Losses that the consumer was told of.
    dropped: u64,
    /// Who has not finished the next record, and since when.
    unfinished: Option<(u32, Instant)>,
}

impl Drain {
    /// Moves what there is and room for, in the order of time; gives how much that was.
    fn round(&mut self) -> u64 {
        let anchor = self.clock.anchor();
        let (mut moved, mut loud) = (0, false);
        while self.shared.outbox.has_room()
            && let Some(mut record) = self.next()
        {
            loud |= !record.quiet;
            record.time = anchor.nanoseconds(record.time);
            self.deliver(record);
            moved += 1;
        }
        let lost = if self.shared.outbox.has_room() {
            self.lost()
        } else {
            0
        };
        if lost > 0 {
            // One of them is counted as it is delivered.
            self.shared.settled.fetch_add(lost - 1, Release);
            self.deliver(Record {
                time: anchor.nanoseconds(anchor.ticks),
                what: What::Lost(lost),
                ..Record::BLANK
            });
            (moved, loud) = (moved + 1, true);
        }
        if loud || (moved > 0 && self.shared.outbox.is_half_full()) {
            self.shared.consumer.wake();
        }
        moved
    }

    /// The earliest of the records that come next.
    fn next(&mut self) -> Option<Record> {
        let shared = self.shared;
        // The results first: whose result is seen here, the call is seen below.
        if let Some(ring) = &shared.results {
            self.results.look(ring, |result| {
                let thread = result.thread as u32;
                Record {
                    time: result.ticks,
                    site: result.site,
                    thread,
                    quiet: shared.quiet.contains(thread),
                    what: What::Returned(result.value),
                }
            });
        }
        for (source, ring) in self.calls.iter_mut().zip(&shared.rings) {
            source.look(ring, |record| record);
        }
        // Behind an unfinished call may be the one of a result.
        let complete = self.calls.iter().all(|source| source.unfinished.is_none());
        let results = Some(&mut self.results).filter(|_| complete);
        let sources = self.calls.iter_mut().chain(results);
        let earliest = sources
            .filter(|source| source.head.is_some())
            .min_by_key(|source| source.head.map(|head| head.time))?;
        earliest.head.take()
    }

    fn deliver(&self, record: Record) {
        self.shared.outbox.push(1, |_| record);
        self.shared.settled.fetch_add(1, Release);
    }

    /// How much was lost since the last time.
    fn lost(&mut self) -> u64 {
        let calls = self.calls.iter_mut().zip(&self.shared.rings);
        let lost: u64 = calls.map(|(source, ring)| source.lost(ring)).sum();
        let results = self.shared.results.as_ref();
        lost + results.map_or(0, |ring| self.results.lost(ring))
    }

    fn has_work(&self) -> bool {
        let mut calls = self.calls.iter().zip(&self.shared.rings);
        let results = self.shared.results.as_ref();
        self.shared.outbox.has_room()
            && (calls.any(|(source, ring)| source.has_work(ring))
                || results.is_some_and(|ring| self.results.has_work(ring)))
    }

    fn waits_for_writer(&self) -> bool {
        let mut sources = self.calls.iter().chain([&self.results]);
        sources.any(|source| source.unfinished.is_some())
    }

    /// Whether everything that was to be recorded has been dealt with.
    fn is_settled(&self) -> bool {
        self.shared.settled.load(Relaxed) == self.shared.attempts()
    }

    /// Gives up what nobody is there to make room for; false if somebody is.
    fn discard(&mut self) -> bool {
        let abandoned = !self.shared.outbox.has_room() && !self.shared.consumer.taken.load(SeqCst);
        if abandoned {
            let calls = self.calls.iter_mut().zip(&self.shared.rings);
            calls.for_each(|(source, ring)| source.discard(ring));
            if let Some(ring) = &self.shared.results {
                self.results.discard(ring);
            }
        }
        abandoned
    }
}

impl Source {
    /// Reads the next record, unless the last one is here still.
    fn look<T: ring::Record>(&mut self, ring: &Ring<T>, record: impl FnOnce(T) -> Record) {
        if self.head.is_some() {
            return;
        }
        match self.reader.next(ring) {
            Next::Record(next) => {
                self.unfinished = None;
                self.head = Some(record(next));
            }
            Next::Nothing => self.unfinished = None,
            Next::Unfinished(writer) => self.look_for(ring, writer),
        }
    }

    fn lost<T: ring::Record>(&mut self, ring: &Ring<T>) -> u64 {
        let dropped = ring.dropped();
        dropped - std::mem::replace(&mut self.dropped, dropped)
    }

    fn has_work<T: ring::Record>(&self, ring: &Ring<T>) -> bool {
        self.head.is_some() || self.reader.has_next(ring) || ring.dropped() != self.dropped
    }

    /// Gives up what a dead thread was writing.
    fn look_for<T: ring::Record>(&mut self, ring: &Ring<T>, writer: u32) {
        let (writer, since) = match self.unfinished {
            Some(present) if present.0 == writer => present,
            _ => (writer, Instant::now()),
        };
        self.unfinished = Some((writer, since));
        if is_gone(writer) || (since.elapsed() > UNFINISHED && is_zombie(writer)) {
            self.reader.give_up(ring, writer);
            self.unfinished = None;
        }
    }

    fn discard<T: ring::Record>(&mut self, ring: &Ring<T>) {
        if self.head.take().is_some() {
            ring.count_dropped();
        }
        while let Next::Record(_) = self.reader.next(ring) {
            ring.count_dropped();
        }
    }
}

/// Tells whether there is no such thread.
fn is_gone(thread: u32) -> bool {
    let signalled = syscall::kill(thread as i32, SignalNumber::NONE);
    signalled.is_err_and(|error| error.raw_os_error() == libc::ESRCH)
}

/// Tells whether a thread is dead and waits to be reaped.
pub(super) fn is_zombie(thread: u32) -> bool {
    let mut path = *b"/proc/0000000/stat\0";
    let mut rest = thread;
    for digit in path[6..13].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    // procfs takes no leading zeros.
    let start = path[6..12].iter().take_while(|digit| **digit == b'0').count();
    path.copy_within(6 + start.., 6);
    let Ok(path) = std::ffi::CStr::from_bytes_until_nul(&path) else {
        return false;
    };
    let Ok(file) = syscall::open(path, OpenFlags::READ_ONLY | OpenFlags::CLOEXEC, Mode::new(0)) else {
        return false;
    };
    let mut stat = [0; 256];
    let length = syscall::read(&file, &mut stat).unwrap_or(0);
    let _ = syscall::close(file);
    // The state comes after the name, which may have brackets of its own.
    let stat = stat.get(..length).unwrap_or_default();
    let state = stat
        .iter()
        .rposition(|byte| *byte == b')')
        .and_then(|end| stat.get(end + 2));
    matches!(state, Some(b'Z' | b'X'))
}

/// Turns the CPU's ticks into time since the start. Nothing but ticks can be read in a handler without a system call.
struct Clock {
    start: Instant,
    ticks: u64,
    anchor: Anchor,
}

/// A moment by both clocks, and the rate between them.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    ticks: u64,
    nanoseconds: u64,
    nanoseconds_per_tick: f64,
}

#[allow(unsafe_code)]
fn ticks() -> u64 {
    // SAFETY: every x86-64 CPU has it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

impl Clock {
    /// The shortest time over which a rate is measured.
    const CALIBRATION: Duration = Duration::from_micros(200);

    fn new() -> Self {
        let (start, first) = (Instant::now(), ticks());
        let mut clock = Self {
            start,
            ticks: first,
            anchor: Anchor {
                ticks: first,
                nanoseconds: 0,
                nanoseconds_per_tick: 0.0,
            },
        };
        while clock.start.elapsed() < Self::CALIBRATION {
            std::hint::spin_loop();
        }
        clock.anchor();
        clock
    }

    fn anchor(&mut self) -> Anchor {
        let nanoseconds = self.start.elapsed().as_nanos() as u64;
        let ticks = ticks();
        let passed = ticks.saturating_sub(self.ticks);
        if passed > 0 {
            self.anchor = Anchor {
                ticks,
                nanoseconds,
                nanoseconds_per_tick: nanoseconds as f64 / passed as f64,
            };
        }
        self.anchor
    }
}

impl Anchor {
    fn nanoseconds(&self, ticks: u64) -> u64 {
        let before = self.ticks.wrapping_sub(ticks).cast_signed() as f64 * self.nanoseconds_per_tick;
        (self.nanoseconds as f64 - before).max(0.0) as u64
    }
}
