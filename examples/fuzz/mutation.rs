//! What is done to a call.

use std::fmt;

use asm_tracer::{Errno, Notification};

use crate::calls::Profile;
use crate::random::Random;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Mutation {
    /// It fails.
    Error(Errno),
    /// It returns this, and has done nothing.
    Value(i64),
    /// The kernel runs it with this in one of its argument registers.
    Argument { index: usize, value: i64 },
}

impl Mutation {
    /// Chooses one. First a kind, so that a short read does not drown in errors.
    pub(crate) fn choose(profile: &Profile, call: &Notification, random: &mut Random) -> Option<Self> {
        let args = call.args();
        let error = random.one_of(profile.errors).map(Self::Error);
        let value = random.one_of(profile.values).map(Self::Value);
        let argument = random.one_of(profile.arguments);
        let argument = argument.map(|(index, value)| Self::Argument { index, value });
        let length = profile.length.filter(|index| args[*index] > 1);
        let length = length.map(|index| Self::Argument {
            index,
            // One byte, all but one, or anything in between.
            value: match random.below(3) {
                0 => 1,
                1 => args[index] - 1,
                _ => 1 + random.below(args[index] as u64 - 1) as i64,
            },
        });
        let kinds: Vec<_> = [error, value, argument, length].into_iter().flatten().collect();
        random.one_of(&kinds)
    }
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(errno) => write!(f, "failed with {errno:?}"),
            Self::Value(value) => write!(f, "returned {value}"),
            Self::Argument { index, value } => write!(f, "ran with {value} as its argument {index}"),
        }
    }
}
