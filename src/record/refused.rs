use std::fmt;

use super::Recorded;
use crate::error::Error;
use crate::notify::AnswerError;

/// An answer that was refused, with the call, which still waits for one: the [`AnswerError`] of a call that is recorded.
#[must_use = "dropping it answers the call with ENOSYS"]
pub struct Refused {
    /// Why the answer was refused.
    pub error: Error,
    /// The call, still to be answered and recorded.
    pub call: Box<Recorded>,
}

impl Refused {
    pub(super) fn new(refused: AnswerError, record: super::opened::Opened) -> Self {
        let AnswerError { error, notification } = refused;
        let call = Box::new(Recorded {
            call: *notification,
            record,
        });
        Self { error, call }
    }
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused")
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl From<Refused> for Error {
    /// Gives up the call, which is answered with `ENOSYS`.
    fn from(refused: Refused) -> Self {
        refused.error
    }
}

impl From<Refused> for std::io::Error {
    fn from(refused: Refused) -> Self {
        refused.error.into()
    }
}
