//! Signals: to processes of the sandbox alone.

use asm_tracer::{Errno, Sysno};

use crate::serve::Served;

pub(crate) fn decide(served: &Served<'_>, sysno: Sysno) -> Result<(), Errno> {
    let target = served.call.args()[0] as i32;
    let process = match (sysno, target) {
        (Sysno::tkill, tid) => match status(tid, "Tgid").and_then(|pid| pid.parse().ok()) {
            Some(pid) => pid,
            None => return Err(Errno::ESRCH),
        },
        // A process group has members of one session, and is ours if who it was made for is.
        (Sysno::kill, 0) => {
            let group = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(served.pid)))?;
            group.as_raw()
        }
        (Sysno::kill, -1 | i32::MIN) => return Err(Errno::EPERM),
        (Sysno::kill, group @ ..0) => -group,
        (_, pid) => pid,
    };
    match process == served.pid || descends_from(process, std::process::id() as i32) {
        true => Ok(()),
        false => Err(Errno::EPERM),
    }
}

/// Whether a process is in the sandbox: a child of this process, or one of a child. What a dead parent left behind is
/// not found, and is nobody's to signal.
fn descends_from(pid: i32, ancestor: i32) -> bool {
    let mut here = pid;
    while let Some(parent) = status(here, "PPid").and_then(|parent| parent.parse().ok()) {
        if parent == ancestor {
            return true;
        }
        here = parent;
    }
    false
}

/// A field of `/proc/PID/status`.
pub(crate) fn status(pid: i32, field: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mut values = status
        .lines()
        .filter_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    values.next().map(|value| value.trim().to_owned())
}
