use std::fmt;

use crate::error::{Error, Result};

/// An argument register as a whole: 64 bits, unsigned. `index` is 0 to 5.
///
/// For C's `int` arguments, such as descriptors and most flags, use [`int_arg`]: what is in the upper half of their
/// registers is the caller's business, and a hostile one puts something there.
pub fn arg(index: usize) -> Arg {
    Arg(index)
}

/// An argument that the kernel takes as a C `int`: the lower 32 bits of the register, signed. `index` is 0 to 5.
pub fn int_arg(index: usize) -> IntArg {
    IntArg(index)
}

/// A 64-bit argument; see [`arg`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Arg(usize);

/// A 32-bit argument; see [`int_arg`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IntArg(usize);

macro_rules! comparisons {
    ($argument:ident, $value:ty, $wide:literal, $bits:expr) => {
        // The names are those of the comparison operators, which can't give anything but a `bool`.
        #[allow(clippy::should_implement_trait)]
        impl $argument {
            /// Holds where the argument equals `value`.
            pub fn eq(self, value: $value) -> Condition {
                self.condition(Test::Equal($bits(value)))
            }

            /// Holds where the argument differs from `value`.
            pub fn ne(self, value: $value) -> Condition {
                self.condition(Test::NotEqual($bits(value)))
            }

            /// Holds where the argument is less than `value`.
            pub fn lt(self, value: $value) -> Condition {
                self.condition(Test::Less($bits(value)))
            }

            /// Holds where the argument is greater than or equal to `value`.
            pub fn ge(self, value: $value) -> Condition {
                self.condition(Test::GreaterOrEqual($bits(value)))
            }

            /// Holds where the argument's bits in `mask` equal `value`.
            pub fn masked_eq(self, mask: $value, value: $value) -> Condition {
                self.condition(Test::Masked {
                    mask: $bits(mask),
                    value: $bits(value),
                })
            }

            fn condition(self, test: Test) -> Condition {
                Condition {
                    index: self.0,
                    wide: $wide,
                    test,
                }
            }
        }
    };
}
comparisons!(Arg, u64, true, |value: u64| value);
comparisons!(IntArg, i32, false, |value: i32| u64::from(value as u32));

/// A condition on one argument; made by the methods of [`Arg`] and [`IntArg`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Condition {
    pub(super) index: usize,
    /// All 64 bits, unsigned; otherwise the lower 32, signed.
    pub(super) wide: bool,
    pub(super) test: Test,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Test {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    GreaterOrEqual(u64),
    Masked { mask: u64, value: u64 },
}

impl Condition {
    pub(super) fn check(&self) -> Result<()> {
        if self.index > 5 {
            let why = format!("`{self}`: a system call has the arguments 0 to 5");
            return Err(Error::InvalidFilter(why));
        }
        match self.test {
            Test::Masked { mask, value } if value & !mask != 0 => Err(Error::InvalidFilter(format!(
                "`{self}` can never hold: the value has bits outside of the mask"
            ))),
            _ => Ok(()),
        }
    }
}

impl Condition {
    /// Tells whether the condition holds for these argument registers, as the filter would.
    pub(crate) fn holds(&self, args: &[i64; 6]) -> bool {
        let Some(register) = args.get(self.index).map(|arg| arg.cast_unsigned()) else {
            return false;
        };
        let (given, order): (u64, fn(u64, u64) -> bool) = match self.wide {
            true => (register, |one, other| one < other),
            false => (u64::from(register as u32), |one, other| {
                (one as i32) < (other as i32)
            }),
        };
        match self.test {
            Test::Equal(value) => given == value,
            Test::NotEqual(value) => given != value,
            Test::Less(value) => order(given, value),
            Test::GreaterOrEqual(value) => !order(given, value),
            Test::Masked { mask, value } => given & mask == value,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = self.index;
        let (name, number): (_, fn(u64) -> String) = match self.wide {
            true => (format!("arg{index}"), |value| format!("{value:#x}")),
            false => (format!("int(arg{index})"), |value| {
                (value as u32 as i32).to_string()
            }),
        };
        match self.test {
            Test::Equal(value) => write!(f, "{name} == {}", number(value)),
            Test::NotEqual(value) => write!(f, "{name} != {}", number(value)),
            Test::Less(value) => write!(f, "{name} < {}", number(value)),
            Test::GreaterOrEqual(value) => write!(f, "{name} >= {}", number(value)),
            Test::Masked { mask, value } => write!(f, "{name} & {mask:#x} == {value:#x}"),
        }
    }
}
