//! Which of the calls that a fault concerns it hits.

use std::fmt;
use std::num::NonZeroU64;

/// Which occurrences of a call are meant: `first[..last][+step]`, counted from 1.
///
/// They are counted as `strace(1)` does: for each thread and each call of the fault by itself. A thread keeps its counts when
/// it executes a program; a new thread or process begins at 1.
///
/// # Examples
///
/// ```
/// use asm_tracer::inject::Occurrences;
///
/// let third_to_ninth = Occurrences::starting_at(3).until(9).every(2);
/// assert_eq!(third_to_ninth.to_string(), "3..9+2");
/// let hit: Vec<u64> = (1..20).filter(|n| third_to_ninth.contains(*n)).collect();
/// assert_eq!(hit, [3, 5, 7, 9]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Occurrences {
    first: u64,
    last: Option<u64>,
    /// `None` for `first` alone.
    step: Option<NonZeroU64>,
}

impl Occurrences {
    /// All of them.
    pub const ALL: Self = Self {
        first: 1,
        last: None,
        step: Some(NonZeroU64::MIN),
    };

    /// This one only.
    pub fn nth(n: u64) -> Self {
        Self {
            first: n,
            last: None,
            step: None,
        }
    }

    /// This one and all that follow.
    pub fn starting_at(first: u64) -> Self {
        Self { first, ..Self::ALL }
    }

    /// None after this one.
    pub fn until(self, last: u64) -> Self {
        Self {
            last: Some(last),
            step: self.step.or(Some(NonZeroU64::MIN)),
            ..self
        }
    }

    /// Only each `step`th of them, beginning with the first; 0 is the same as 1.
    pub fn every(self, step: u64) -> Self {
        Self {
            step: NonZeroU64::new(step).or(Some(NonZeroU64::MIN)),
            ..self
        }
    }

    /// Tells whether the `n`th occurrence, from 1, is meant.
    pub fn contains(self, n: u64) -> bool {
        let Some(steps) = n.checked_sub(self.first) else {
            return false;
        };
        match self.step {
            None => steps == 0,
            Some(step) => steps % step == 0 && self.last.is_none_or(|last| n <= last),
        }
    }

    /// Whether there are any at all.
    pub(super) fn is_possible(self) -> bool {
        self.first > 0 && self.last.is_none_or(|last| last >= self.first)
    }
}

impl Default for Occurrences {
    fn default() -> Self {
        Self::ALL
    }
}

impl fmt::Display for Occurrences {
    /// As `strace(1)` has it in `when=`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if let Some(last) = self.last {
            write!(f, "..{last}")?;
        }
        match self.step {
            Some(NonZeroU64::MIN) if self.last.is_none() => f.write_str("+"),
            None | Some(NonZeroU64::MIN) => Ok(()),
            Some(step) => write!(f, "+{step}"),
        }
    }
}

/// A chance that depends on nothing but the seed, the fault and the occurrence.
pub(super) fn happens(probability: f64, seed: u64, fault: usize, occurrence: u64) -> bool {
    let mixed = mix(mix(mix(seed) ^ fault as u64) ^ occurrence);
    // 53 bits are what a double holds.
    let fraction = (mixed >> 11) as f64 / (1_u64 << 53) as f64;
    fraction < probability
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): each bit of the input changes half of the output.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
