use std::fmt;

use syscalls::Sysno;

use super::{Action, Filter, Rule};

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow => f.write_str("allow"),
            Self::Log => f.write_str("log"),
            Self::Trap => f.write_str("trap"),
            Self::Sigsys => f.write_str("sigsys"),
            Self::Errno(errno) => write!(f, "{errno:?}"),
            Self::Kill => f.write_str("kill"),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match usize::try_from(self.number).ok().and_then(Sysno::new) {
            Some(sysno) => f.write_str(sysno.name())?,
            None => write!(f, "call {}", self.number)?,
        }
        for (position, condition) in self.conditions.iter().enumerate() {
            write!(f, " {} {condition}", if position == 0 { "when" } else { "and" })?;
        }
        write!(f, ": {}", self.action)
    }
}

/// One rule a line, in the order in which they are tried, and the defaults at the end.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for rule in &self.rules {
            writeln!(f, "{rule}")?;
        }
        write!(
            f,
            "otherwise: {}\ni386 and x32: {}",
            self.default, self.foreign_abi
        )
    }
}
