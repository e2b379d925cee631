//! The thread that empties the rings into the outbox, so that they have room whatever the consumer does.
//!
//! It is there before the filter, and makes no calls but through the stubs while it works: none of them is an event.

use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::time::{Duration, Instant};

use super::record::{Record, What};
use super::ring::{Next, Reader};
use super::shared::Shared;
use crate::syscall::{self, Mode, OpenFlags, SignalNumber};

/// How long a record may be unfinished before its writer is looked for.
const UNFINISHED: Duration = Duration::from_millis(100);

pub(super) fn run(shared: &'static Shared, ready: impl FnOnce()) {
    let mut drain = Drain {
        readers: shared.rings.iter().map(|_| Reader::default()).collect(),
        dropped: vec![0; shared.rings.len()],
        clock: Clock::new(),
        unfinished: None,
        shared,
    };
    ready();
    loop {
        let moved = drain.round();
        if moved > 0 {
            continue;
        }
        let closed = !shared.recording.load(SeqCst);
        if closed && drain.is_settled() {
            break;
        }
        let limit = (closed || drain.unfinished.is_some()).then_some(Duration::from_millis(10));
        shared.drain.sleep(limit, || drain.has_work());
    }
    shared.finished.store(true, Release);
    shared.consumer.wake();
}

struct Drain {
    readers: Vec<Reader>,
    /// Losses of each ring that the consumer knows of.
    dropped: Vec<u64>,
    clock: Clock,
    /// A record whose writer has not finished it: the ring, the writer, since when.
    unfinished: Option<(usize, u32, Instant)>,
    shared: &'static Shared,
}

impl Drain {
    /// Moves what there is and room for; gives how much that was.
    fn round(&mut self) -> u64 {
        let anchor = self.clock.anchor();
        let (mut moved, mut loud) = (0, false);
        self.unfinished = self.unfinished.take().filter(|(ring, writer, _)| {
            self.readers[*ring].next_is_unfinished(&self.shared.rings[*ring], *writer)
        });
        for index in 0..self.readers.len() {
            let ring = &self.shared.rings[index];
            while self.shared.outbox.has_room() {
                match self.readers[index].next(ring) {
                    Next::Record(mut record) => {
                        record.time = anchor.nanoseconds(record.time);
                        loud |= !record.quiet;
                        self.deliver(record);
                        moved += 1;
                    }
                    Next::Nothing => break,
                    Next::Unfinished(writer) => {
                        self.look_for(index, writer);
                        break;
                    }
                }
            }
            let lost = ring.dropped() - self.dropped[index];
            if lost > 0 && self.shared.outbox.has_room() {
                self.dropped[index] += lost;
                self.deliver(Record {
                    time: anchor.nanoseconds(anchor.ticks),
                    what: What::Lost(lost),
                    quiet: false,
                    ..Record::BLANK
                });
                self.shared.settled.fetch_add(lost - 1, Release);
                (moved, loud) = (moved + 1, true);
            }
        }
        if loud || (moved > 0 && self.shared.outbox.is_half_full()) {
            self.shared.consumer.wake();
        }
        moved
    }

    fn deliver(&self, record: Record) {
        self.shared.outbox.push(1, |_| record);
        self.shared.settled.fetch_add(1, Release);
    }

    fn has_work(&self) -> bool {
        let rings = self.shared.rings.iter();
        self.shared.outbox.has_room()
            && (self
                .readers
                .iter()
                .zip(rings.clone())
                .any(|(reader, ring)| reader.has_next(ring))
                || rings
                    .zip(&self.dropped)
                    .any(|(ring, dropped)| ring.dropped() != *dropped))
            || !self.shared.recording.load(SeqCst)
    }

    /// Whether everything that was to be recorded has been dealt with.
    fn is_settled(&self) -> bool {
        self.shared.settled.load(Relaxed) == self.shared.attempts()
    }

    /// Gives up what a dead thread was writing.
    fn look_for(&mut self, ring: usize, writer: u32) {
        let since = match self.unfinished {
            Some((same_ring, same_writer, since)) if (same_ring, same_writer) == (ring, writer) => since,
            _ => Instant::now(),
        };
        self.unfinished = Some((ring, writer, since));
        if since.elapsed() > UNFINISHED && is_dead(writer) {
            self.readers[ring].give_up(&self.shared.rings[ring], writer);
            self.unfinished = None;
        }
    }
}

/// Tells whether a thread is gone, or waits to be reaped.
fn is_dead(thread: u32) -> bool {
    if syscall::kill(thread as i32, SignalNumber::NONE).is_err() {
        return true;
    }
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
