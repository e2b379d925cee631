use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// A set of threads by their ids, for signal handlers: it neither allocates nor waits.
#[derive(Debug)]
pub(super) struct Threads {
    /// A thread is within `WINDOW` places of where its id leads.
    places: Box<[AtomicU32]>,
}

const PLACES: usize = 4096;
const WINDOW: usize = 16;

impl Threads {
    pub(super) fn new() -> Self {
        Self {
            places: (0..PLACES).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    fn window(&self, thread: u32) -> impl Iterator<Item = &AtomicU32> {
        let start = thread.wrapping_mul(0x9e37_79b1) as usize >> 8;
        (start..start + WINDOW).filter_map(|place| self.places.get(place % PLACES))
    }

    /// Adds a thread; false if it was there already, or there is no room for it.
    pub(super) fn insert(&self, thread: u32) -> bool {
        !self.contains(thread)
            && self
                .window(thread)
                .any(|place| place.compare_exchange(0, thread, AcqRel, Relaxed).is_ok())
    }

    pub(super) fn remove(&self, thread: u32) {
        for place in self.window(thread) {
            let _ = place.compare_exchange(thread, 0, Release, Relaxed);
        }
    }

    /// Removes all of them.
    pub(super) fn take(&self) -> impl Iterator<Item = u32> {
        let taken = self.places.iter().map(|place| match place.load(Relaxed) {
            0 => 0,
            _ => place.swap(0, AcqRel),
        });
        taken.filter(|thread| *thread != 0)
    }

    pub(super) fn contains(&self, thread: u32) -> bool {
        self.window(thread).any(|place| place.load(Acquire) == thread)
    }
}

#[cfg(all(test, not(asm_tracer_loom)))]
mod tests {
    use super::*;

    #[test]
    fn threads_are_in_it_once_until_they_are_removed() {
        let threads = Threads::new();
        for thread in 1..200 {
            assert!(threads.insert(thread) && !threads.insert(thread));
            assert!(threads.contains(thread) && !threads.contains(thread + 1));
        }
        for thread in 1..100 {
            threads.remove(thread);
            assert!(!threads.contains(thread));
        }
        let mut rest: Vec<_> = threads.take().collect();
        rest.sort_unstable();
        assert!(rest.into_iter().eq(100..200));
        assert_eq!(threads.take().count(), 0);
    }

    #[test]
    fn a_full_window_takes_no_more() {
        let threads = Threads::new();
        let inserted = (1..1_000_000).filter(|thread| threads.insert(*thread)).count();
        assert!(inserted <= PLACES);
    }
}
