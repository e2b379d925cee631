//! What the flag types have in common.

use std::fmt;

/// Declares a set of flags, which only the constants and their unions can make.
///
/// A flag that includes another one comes before it, so that `Debug` names the greater.
macro_rules! flags {
    (
        $(#[$documentation:meta])*
        pub struct $name:ident {
            $($(#[$of_flag:meta])* $flag:ident = $bits:expr;)*
        }
    ) => {
        $(#[$documentation])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub struct $name(i32);

        impl $name {
            $($(#[$of_flag])* pub const $flag: Self = Self($bits);)*

            /// No flag.
            pub const fn empty() -> Self {
                Self(0)
            }

            /// The flags as the kernel takes them.
            pub const fn bits(self) -> i32 {
                self.0
            }

            /// Tells whether all of these flags are there, which is true of no flag at all.
            pub const fn contains(self, flags: Self) -> bool {
                self.0 & flags.0 == flags.0
            }

            /// The flags of both, as `|` gives them, for constants.
            #[must_use]
            pub const fn union(self, flags: Self) -> Self {
                Self(self.0 | flags.0)
            }
        }

        impl std::ops::BitOr for $name {
            type Output = Self;

            fn bitor(self, flags: Self) -> Self {
                self.union(flags)
            }
        }

        impl std::ops::BitOrAssign for $name {
            fn bitor_assign(&mut self, flags: Self) {
                *self = self.union(flags);
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let names = [$((stringify!($flag), $bits)),*];
                $crate::syscall::flags::write(f, stringify!($name), self.0, &names)
            }
        }
    };
}

pub(super) use flags;

/// Writes flags by their names, such as `OpenFlags(CREATE | CLOEXEC)`.
pub(super) fn write(f: &mut fmt::Formatter<'_>, set: &str, bits: i32, names: &[(&str, i32)]) -> fmt::Result {
    write!(f, "{set}(")?;
    let (mut rest, mut separator) = (bits, "");
    for (name, flag) in names {
        let stands_for_none = *flag == 0 && bits == 0;
        if stands_for_none || (*flag != 0 && rest & flag == *flag) {
            write!(f, "{separator}{name}")?;
            separator = " | ";
            rest &= !flag;
        }
    }
    f.write_str(")")
}
