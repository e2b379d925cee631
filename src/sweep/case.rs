//! One call of a program, and the error it is to give.

use std::fmt;
use std::str::FromStr;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use syscalls::Sysno;

use crate::errno::errnos;
use crate::error::{Error, Result};
use crate::inject::Fault;

/// One call of a program, and the error with which it fails in one run of a [`Sweep`](super::Sweep).
///
/// The call is named by its place among those of its kind in its thread, and the thread by its place in the
/// [`Lineage`](crate::Lineage): neither depends on what other threads do meanwhile. Displayed, and parsed again, the third
/// `write` of the first thread that fails with `ENOSPC` is `write#3=ENOSPC`, and that of the first process that it forks
/// is `0.1:write#3=ENOSPC`.
///
/// # Examples
///
/// ```
/// use asm_tracer::sweep::Case;
/// use asm_tracer::{Errno, Sysno};
///
/// let case: Case = "0.1:write#3=ENOSPC".parse()?;
/// assert_eq!((case.lineage(), case.sysno(), case.occurrence(), case.errno()), ("0.1", Sysno::write, 3, Errno::ENOSPC));
/// assert_eq!(case.to_string(), "0.1:write#3=ENOSPC");
/// # Ok::<(), asm_tracer::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Case {
    lineage: String,
    sysno: Sysno,
    occurrence: u64,
    errno: Errno,
}

/// The name of a program's first thread.
const FIRST: &str = "0";

impl Case {
    /// The `occurrence`th (from 1) of these calls in the thread with this name in the lineage.
    pub fn new(lineage: impl Into<String>, sysno: Sysno, occurrence: u64, errno: Errno) -> Self {
        Self {
            lineage: lineage.into(),
            sysno,
            occurrence,
            errno,
        }
    }

    /// The thread that makes the call, by its name in the [`Lineage`](crate::Lineage).
    pub fn lineage(&self) -> &str {
        &self.lineage
    }

    /// The call.
    pub fn sysno(&self) -> Sysno {
        self.sysno
    }

    /// Which of the thread's calls of that kind it is, from 1.
    pub fn occurrence(&self) -> u64 {
        self.occurrence
    }

    /// The error.
    pub fn errno(&self) -> Errno {
        self.errno
    }

    /// The fault that makes it so.
    pub fn fault(&self) -> Fault {
        let fault = Fault::on(self.sysno).nth(self.occurrence).error(self.errno);
        fault.lineage(&self.lineage)
    }

    /// What `strace(1)` takes to do the same, if it can: it knows no thread but the first from the outset.
    pub fn strace(&self) -> Option<String> {
        let Self {
            sysno,
            errno,
            occurrence,
            ..
        } = self;
        let expression = || format!("inject={sysno}:error={errno:?}:when={occurrence}");
        (self.lineage == FIRST).then(expression)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lineage != FIRST {
            write!(f, "{}:", self.lineage)?;
        }
        write!(f, "{}#{}={:?}", self.sysno, self.occurrence, self.errno)
    }
}

impl FromStr for Case {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |why: &str| Error::InvalidCase {
            case: text.to_owned(),
            why: why.to_owned(),
        };
        let (lineage, rest) = text.rsplit_once(':').unwrap_or((FIRST, text));
        let (call, errno) = rest
            .split_once('=')
            .ok_or_else(|| invalid("there is no `=` and error"))?;
        let (call, occurrence) = call.split_once('#').unwrap_or((call, "1"));
        let sysno = call.parse().map_err(|_| invalid("there is no such call"))?;
        let occurrence = occurrence.parse().ok().filter(|number| *number > 0);
        let occurrence = occurrence.ok_or_else(|| invalid("calls are counted from 1"))?;
        let errno = errnos().find(|(name, _)| name == errno);
        let (_, errno) = errno.ok_or_else(|| invalid("there is no such error"))?;
        Ok(Self::new(lineage, sysno, occurrence, errno))
    }
}

impl From<Case> for String {
    fn from(case: Case) -> Self {
        case.to_string()
    }
}

impl TryFrom<String> for Case {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
