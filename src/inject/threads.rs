//! Where the threads of a program are.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::os::fd::AsFd;

use nix::unistd::Pid;

use super::record::write_call;
use crate::notify::TrappedSyscall;
use crate::pidfd;

/// A hostile program can have any number.
const PROCESSES: usize = 4096;
const THREADS: usize = 1024;

/// What a thread was doing when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadState {
    pid: i32,
    tid: i32,
    name: String,
    state: char,
    call: Option<TrappedSyscall>,
}

impl ThreadState {
    /// Its process.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Its id.
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// Its name, which is that of the program unless it was given another.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The scheduler's state, as `ps(1)` shows it: `S` sleeps, `D` waits and takes no signal (which a call is in that waits
    /// for its answer), `R` runs, `T` is stopped, `Z` has ended.
    pub fn state(&self) -> char {
        self.state
    }

    /// The call that it is in; `None` if it is in none or can't be looked into.
    pub fn syscall(&self) -> Option<&TrappedSyscall> {
        self.call.as_ref()
    }
}

impl fmt::Display for ThreadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.escape_debug();
        write!(f, "thread {} of {} ({name}): {}", self.tid, self.pid, self.state)?;
        match &self.call {
            Some(call) => {
                f.write_str(" in ")?;
                write_call(f, call.sysno(), call, None)
            }
            None => f.write_str(" in no call"),
        }
    }
}

/// The threads of a process and of all of its descendants.
pub(super) fn of_tree(pid: u32) -> Vec<ThreadState> {
    let mut states = Vec::new();
    for pid in processes(pid) {
        for tid in tasks(pid) {
            if states.len() == THREADS {
                return states;
            }
            states.extend(state(pid, tid));
        }
    }
    states
}

/// Kills all descendants of a process, which itself is the caller's to kill: they have its children's numbers only as long as
/// it is there. What has another parent by now is none of them.
pub(super) fn kill_descendants(pid: u32) {
    let mut killed = HashSet::from([pid]);
    // More may be made meanwhile.
    for _ in 0..16 {
        let tree = processes(pid);
        let before = killed.len();
        for descendant in tree.iter().rev() {
            if killed.insert(*descendant) {
                kill(*descendant, &tree);
            }
        }
        if killed.len() == before {
            break;
        }
    }
}

fn kill(pid: u32, tree: &[u32]) {
    let Ok(process) = pidfd::open(Pid::from_raw(pid.cast_signed())) else {
        return;
    };
    // Before that, the number may have come to mean another process.
    if parent(pid).is_some_and(|parent| tree.contains(&parent)) {
        pidfd::kill(process.as_fd());
    }
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(1)?.parse().ok()
}

/// A process and its descendants, parents first.
fn processes(root: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut open = VecDeque::from([root]);
    while let Some(pid) = open.pop_front() {
        if found.len() == PROCESSES {
            break;
        }
        found.push(pid);
        for tid in tasks(pid) {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/children"));
            let children = children.unwrap_or_default();
            open.extend(
                children
                    .split_whitespace()
                    .filter_map(|child| child.parse::<u32>().ok()),
            );
        }
    }
    found
}

fn tasks(pid: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let tids = tasks.map_while(|task| task.ok()?.file_name().to_str()?.parse().ok());
    tids.take(THREADS).collect()
}

fn state(pid: u32, tid: u32) -> Option<ThreadState> {
    let directory = format!("/proc/{pid}/task/{tid}");
    let stat = std::fs::read(format!("{directory}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let (head, rest) = stat.rsplit_once(") ")?;
    let (_, name) = head.split_once(" (")?;
    let call = std::fs::read_to_string(format!("{directory}/syscall")).ok();
    Some(ThreadState {
        pid: pid.cast_signed(),
        tid: tid.cast_signed(),
        name: name.to_owned(),
        state: rest.chars().next()?,
        call: call.and_then(|line| syscall(&line)),
    })
}

/// `proc_pid_syscall(5)`: the number and six arguments, then two pointers; −1 for none, and `running`.
fn syscall(line: &str) -> Option<TrappedSyscall> {
    let mut fields = line.split_whitespace();
    let nr = fields.next()?.parse().ok().filter(|nr| *nr >= 0)?;
    let mut args = [0; 6];
    for arg in &mut args {
        let field = fields.next()?.strip_prefix("0x")?;
        *arg = u64::from_str_radix(field, 16).ok()?.cast_signed();
    }
    Some(TrappedSyscall { nr, args })
}
