//! A bounded ring that signal handlers of many threads write to, and one thread reads.
//!
//! After Vyukov's queue: each slot says by a number whose turn it is. A writer never waits for anybody, not for one
//! that it has interrupted either: it takes the next slot, or counts a loss. It neither allocates nor calls anything. A
//! claimed slot names the thread that writes to it, so that one that dies there does not hold up the reader for ever.
#![allow(unsafe_code)]

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::sync::{AtomicU64, UnsafeCell};

/// What a ring carries: plain data, which is no less valid for being of another call.
pub(super) trait Record: Copy + Send {}

/// The gate writes to a ring of results, by this layout (`asm/gate.asm`).
#[derive(Debug)]
#[repr(C)]
pub(super) struct Ring<T> {
    /// How many records there was no room for.
    refused: AtomicU64,
    tail: AtomicU64,
    mask: u64,
    /// How many records nobody was left to finish, or to read.
    abandoned: AtomicU64,
    slots: Box<[Slot<T>]>,
}

/// 256 bytes, so that neighbours share no cache line and the gate finds its way by shifting.
#[derive(Debug)]
#[repr(C, align(256))]
struct Slot<T> {
    state: AtomicU64,
    record: UnsafeCell<T>,
}

// SAFETY: a record is written by who claimed its slot and read by the reader, never at the same time; `state` orders them.
unsafe impl<T: Record> Sync for Ring<T> {}

/// A slot's state is the position that it is for, above what it is: free, claimed by a thread, or full.
const SHIFT: u32 = 24;
const FREE: u64 = 0;
const FULL: u64 = 1;
const KIND: u64 = (1 << SHIFT) - 1;
/// Positions are numbers of 40 bits, which takes days to come round; nothing but equality is asked of them.
const POSITIONS: u64 = u64::MAX >> SHIFT;

fn state(position: u64, kind: u64) -> u64 {
    ((position & POSITIONS) << SHIFT) | kind
}

/// A thread id has at most 22 bits (`PID_MAX_LIMIT`).
fn claimed_by(thread: u32) -> u64 {
    u64::from(thread & 0x3f_ffff) << 1
}

impl<T: Record> Ring<T> {
    /// Makes a ring of `capacity` records, a power of two, and touches all of its memory.
    pub(super) fn new(capacity: usize, blank: T) -> Self {
        let slot = |position| Slot {
            state: AtomicU64::new(state(position, FREE)),
            record: UnsafeCell::new(blank),
        };
        Self {
            refused: AtomicU64::new(0),
            tail: AtomicU64::new(0),
            mask: capacity as u64 - 1,
            abandoned: AtomicU64::new(0),
            slots: (0..capacity as u64).map(slot).collect(),
        }
    }

    /// Where the slots are, for the gate.
    pub(super) fn slots(&self) -> *const () {
        self.slots.as_ptr().cast()
    }

    fn slot(&self, position: u64) -> &Slot<T> {
        &self.slots[(position & self.mask) as usize]
    }

    /// Writes what `record` makes of its position, unless there is no room. `thread` is the caller.
    pub(super) fn push(&self, thread: u32, record: impl FnOnce(u64) -> T) -> bool {
        let Some((slot, position)) = self.claim(thread) else {
            self.refused.fetch_add(1, Relaxed);
            return false;
        };
        let record = record(position);
        // SAFETY: this thread has claimed the slot, and nobody touches it until it is full.
        slot.record.with_mut(|place| unsafe { place.write(record) });
        let claimed = state(position, claimed_by(thread));
        // It is not ours any more if this thread was taken for dead; then the loss is counted.
        let _ = slot
            .state
            .compare_exchange(claimed, state(position, FULL), Release, Relaxed);
        true
    }

    fn claim(&self, thread: u32) -> Option<(&Slot<T>, u64)> {
        loop {
            let position = self.tail.load(Relaxed);
            let slot = self.slot(position);
            let present = slot.state.load(Acquire);
            let advance = || {
                self.tail
                    .compare_exchange(position, position.wrapping_add(1), Relaxed, Relaxed)
            };
            if present == state(position, FREE) {
                let claimed = state(position, claimed_by(thread));
                if slot
                    .state
                    .compare_exchange(present, claimed, AcqRel, Relaxed)
                    .is_ok()
                {
                    let _ = advance();
                    return Some((slot, position));
                }
            } else if present & !KIND == state(position, FREE) {
                // Who claimed it has not got round to this yet, and may be interrupted or dead.
                let _ = advance();
            } else if self.tail.load(Relaxed) == position {
                // It still holds what is to be read first.
                return None;
            }
        }
    }

    /// Tells whether the next record fits.
    pub(super) fn has_room(&self) -> bool {
        let tail = self.tail.load(Relaxed);
        self.slot(tail).state.load(Acquire) == state(tail, FREE)
    }

    /// Tells whether there is no room for half of the capacity.
    pub(super) fn is_half_full(&self) -> bool {
        let middle = self.tail.load(Relaxed).wrapping_add(self.mask / 2);
        self.slot(middle).state.load(Acquire) != state(middle, FREE)
    }

    /// How many records were to be written. One that a thread died too early to claim a slot for is none.
    pub(super) fn attempts(&self) -> u64 {
        self.tail.load(Relaxed) + self.refused.load(Relaxed)
    }

    /// Counts a record that was read and thrown away.
    pub(super) fn count_dropped(&self) {
        self.abandoned.fetch_add(1, Relaxed);
    }

    /// How many of the attempts nobody will read.
    pub(super) fn dropped(&self) -> u64 {
        self.refused.load(Relaxed) + self.abandoned.load(Relaxed)
    }
}

/// What the next slot to be read has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next<T> {
    Record(T),
    Nothing,
    /// This thread is writing it, or died while it did.
    Unfinished(u32),
}

/// The one reader's place in a ring.
#[derive(Debug, Default)]
pub(super) struct Reader {
    head: u64,
}

impl Reader {
    pub(super) fn next<T: Record>(&mut self, ring: &Ring<T>) -> Next<T> {
        let slot = ring.slot(self.head);
        let present = slot.state.load(Acquire);
        if present & !KIND != state(self.head, FREE) {
            return Next::Nothing;
        }
        match present & KIND {
            FREE => Next::Nothing,
            FULL => {
                // SAFETY: whoever wrote it is done, and nobody writes it again until it is free.
                let record = slot.record.with(|place| unsafe { place.read() });
                self.release(ring);
                Next::Record(record)
            }
            claimed => Next::Unfinished((claimed >> 1) as u32),
        }
    }

    /// Tells whether there is a record to be read.
    pub(super) fn has_next<T: Record>(&self, ring: &Ring<T>) -> bool {
        ring.slot(self.head).state.load(Acquire) == state(self.head, FULL)
    }

    /// Gives up the record that a dead thread was writing, which counts as dropped.
    pub(super) fn give_up<T: Record>(&mut self, ring: &Ring<T>, thread: u32) {
        let slot = ring.slot(self.head);
        let (claimed, free) = (
            state(self.head, claimed_by(thread)),
            state(self.head.wrapping_add(ring.mask + 1), FREE),
        );
        if slot
            .state
            .compare_exchange(claimed, free, AcqRel, Relaxed)
            .is_ok()
        {
            // It may have died before it got round to this.
            let next = self.head.wrapping_add(1);
            let _ = ring.tail.compare_exchange(self.head, next, Relaxed, Relaxed);
            ring.abandoned.fetch_add(1, Relaxed);
            self.head = self.head.wrapping_add(1);
        }
    }

    fn release<T: Record>(&mut self, ring: &Ring<T>) {
        let next_round = self.head.wrapping_add(ring.mask + 1);
        ring.slot(self.head).state.store(state(next_round, FREE), Release);
        self.head = self.head.wrapping_add(1);
    }
}

#[cfg(not(asm_tracer_loom))]
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<Slot<[u64; 4]>>() == 256 && offset_of!(Slot<[u64; 4]>, record) == 8);
    assert!(offset_of!(Ring<u64>, tail) == 8 && offset_of!(Ring<u64>, mask) == 16);
    assert!(SHIFT == 24 && FULL == 1);
};

#[cfg(all(test, not(asm_tracer_loom)))]
mod tests {
    use super::*;

    impl Record for u64 {}

    #[test]
    fn what_comes_in_comes_out_in_order_and_losses_are_counted() {
        let ring = Ring::new(4, 0);
        let mut reader = Reader::default();
        for round in 0..10_u64 {
            for number in 0..6 {
                assert_eq!(ring.push(1, |_| 10 * round + number), number < 4);
            }
            for number in 0..4 {
                assert_eq!(reader.next(&ring), Next::Record(10 * round + number));
            }
            assert_eq!(reader.next(&ring), Next::Nothing);
        }
        assert_eq!((ring.attempts(), ring.dropped()), (60, 20));
    }

    #[test]
    fn a_writer_that_dies_holds_nobody_up() {
        let ring = Ring::new(4, 0);
        let mut reader = Reader::default();
        assert!(ring.claim(4_194_303).is_some());
        for number in 0..4 {
            assert_eq!(ring.push(1, |_| number), number < 3);
        }
        assert_eq!(reader.next(&ring), Next::Unfinished(4_194_303));
        reader.give_up(&ring, 7);
        assert_eq!(reader.next(&ring), Next::Unfinished(4_194_303));
        reader.give_up(&ring, 4_194_303);
        for number in 0..3 {
            assert_eq!(reader.next(&ring), Next::Record(number));
        }
        assert_eq!(reader.next(&ring), Next::Nothing);
        assert_eq!((ring.attempts(), ring.dropped()), (5, 2));
    }

    #[test]
    fn a_writer_that_was_taken_for_dead_writes_nothing_more() {
        let ring = Ring::new(2, 0);
        let mut reader = Reader::default();
        let pushed = ring.push(9, |_| {
            reader.give_up(&ring, 9);
            1
        });
        assert!(pushed);
        assert_eq!(reader.next(&ring), Next::Nothing);
        assert_eq!(ring.dropped(), 1);
    }

    #[test]
    fn positions_come_round() {
        let ring = Ring::new(2, 0);
        let start = POSITIONS - 1;
        ring.tail.store(start, Relaxed);
        for position in start..start + 2 {
            ring.slot(position).state.store(state(position, FREE), Relaxed);
        }
        let mut reader = Reader { head: start };
        for number in 0..10 {
            assert!(ring.push(1, |_| number));
            assert!(ring.push(1, |_| number));
            assert!(!ring.push(1, |_| number));
            assert_eq!(reader.next(&ring), Next::Record(number));
            assert_eq!(reader.next(&ring), Next::Record(number));
        }
    }

    /// Nothing is lost but what is counted, and each thread's records come in its order.
    #[test]
    fn sixty_four_threads_on_a_ring_of_four() {
        const THREADS: u32 = 64;
        const EACH: u64 = 2_000;
        let ring = Ring::new(4, 0);
        let (mut reader, mut last) = (Reader::default(), [0; THREADS as usize]);
        let mut delivered = 0;
        std::thread::scope(|scope| {
            let writers: Vec<_> = (1..=THREADS)
                .map(|thread| {
                    let ring = &ring;
                    scope.spawn(move || {
                        (1..=EACH)
                            .filter(|number| ring.push(thread, |_| (u64::from(thread - 1) << 32) | number))
                            .count() as u64
                    })
                })
                .collect();
            loop {
                let finished = writers.iter().all(|writer| writer.is_finished());
                match reader.next(&ring) {
                    Next::Record(record) => {
                        let (thread, number) = ((record >> 32) as usize, record & 0xffff_ffff);
                        assert!(number > last[thread]);
                        last[thread] = number;
                        delivered += 1;
                    }
                    _ if finished => break,
                    _ => std::thread::yield_now(),
                }
            }
            let pushed: u64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
            while let Next::Record(_) = reader.next(&ring) {
                delivered += 1;
            }
            assert_eq!(pushed, delivered);
        });
        assert_eq!(ring.attempts(), u64::from(THREADS) * EACH);
        assert_eq!(ring.attempts(), delivered + ring.dropped());
    }
}
