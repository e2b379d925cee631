//! Random numbers that are a function of what they are for, and of nothing else.

use asm_tracer::Sysno;

/// A sequence of numbers (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    /// The sequence for the `position`th call of this number in a thread, whatever other threads do.
    pub(crate) fn of(seed: u64, thread: &str, call: Sysno, position: u64) -> Self {
        let mut random = Self(seed);
        let thread = thread.bytes().map(u64::from);
        for part in thread.chain([u64::from(call.id() as u32), position]) {
            random = Self(random.next() ^ part);
        }
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Tells whether something of this probability happens.
    pub(crate) fn happens(&mut self, probability: f64) -> bool {
        // The 53 bits that a float has.
        ((self.next() >> 11) as f64) < probability * (1_u64 << 53) as f64
    }

    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        let bound = choices.len().max(1) as u64;
        choices.get(self.below(bound) as usize).copied()
    }
}
