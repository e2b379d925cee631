use std::fmt;

use nix::sys::signal::Signal;

/// The number of a signal: one with a name ([`Signal`]), a real-time one, or none.
///
/// Whether there is such a signal is for the kernel to say.
///
/// # Examples
///
/// ```
/// use asm_tracer::{Signal, SignalNumber};
///
/// assert_eq!(SignalNumber::from(Signal::SIGTERM), SignalNumber::from(15));
/// assert_eq!(SignalNumber::from(34).as_raw(), 34);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SignalNumber(i32);

impl SignalNumber {
    /// No signal: for finding out whether there is such a process, or for continuing without one.
    pub const NONE: Self = Self(0);

    /// The number as the kernel takes it.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(asm_tracer::SignalNumber::NONE.as_raw(), 0);
    /// ```
    pub const fn as_raw(self) -> i32 {
        self.0
    }
}

impl From<i32> for SignalNumber {
    fn from(number: i32) -> Self {
        Self(number)
    }
}

impl From<Signal> for SignalNumber {
    fn from(signal: Signal) -> Self {
        Self(signal as i32)
    }
}

impl fmt::Debug for SignalNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, Signal::try_from(self.0)) {
            (0, _) => f.write_str("SignalNumber(NONE)"),
            (_, Ok(signal)) => write!(f, "SignalNumber({})", signal.as_str()),
            (number, Err(_)) => write!(f, "SignalNumber({number})"),
        }
    }
}
