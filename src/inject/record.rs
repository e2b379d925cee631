//! What is remembered of a child: its last calls, and those that faults have hit.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use syscalls::Sysno;
use tokio::sync::watch;

use super::effect::Effect;
use crate::notify::{Notification, TrappedSyscall};
use crate::syscall::arguments;

/// A call as it was trapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    at: Duration,
    tid: i32,
    lineage: Option<Arc<str>>,
    sysno: Option<Sysno>,
    syscall: TrappedSyscall,
    file: Option<PathBuf>,
}

impl Call {
    pub(super) fn new(call: &Notification, at: Duration, lineage: Option<Arc<str>>) -> Self {
        Self {
            at,
            tid: call.tid().unwrap_or(0),
            lineage,
            sysno: call.sysno(),
            syscall: *call.syscall(),
            file: None,
        }
    }

    /// When it was made, from the start of the child.
    pub fn at(&self) -> Duration {
        self.at
    }

    /// The thread that made it; 0 if this process can't see it.
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// The name of that thread in the [`Lineage`](crate::Lineage) of the program, if a plan
    /// [follows](super::FaultPlan::follow_lineage) it.
    pub fn lineage(&self) -> Option<&str> {
        self.lineage.as_deref()
    }

    /// Its name, if x86-64 Linux has such a call.
    pub fn sysno(&self) -> Option<Sysno> {
        self.sysno
    }

    /// Its number and arguments.
    pub fn syscall(&self) -> &TrappedSyscall {
        &self.syscall
    }

    /// The file that it is about, which is looked up for the calls that faults hit.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    pub(super) fn set_file(&mut self, file: Option<PathBuf>) {
        self.file = file;
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:9.3} ms [{}] ", self.at.as_secs_f64() * 1e3, self.tid)?;
        write_call(f, self.sysno, &self.syscall, self.file.as_deref())
    }
}

/// A call with its first three arguments: which of the others it has is not known here.
pub(super) fn write_call(
    f: &mut fmt::Formatter<'_>,
    sysno: Option<Sysno>,
    syscall: &TrappedSyscall,
    mut file: Option<&Path>,
) -> fmt::Result {
    let Some(sysno) = sysno else {
        return write!(f, "call {}", syscall.nr);
    };
    write!(f, "{sysno}(")?;
    let paths = arguments::paths(sysno);
    let numbers = arguments::descriptors(sysno);
    for (index, value) in syscall.args.iter().enumerate().take(3) {
        let separator = if index == 0 { "" } else { ", " };
        let directory = paths.iter().any(|argument| argument.directory == Some(index));
        let shown = paths.is_empty() && numbers.contains(&index) || paths.iter().any(|a| a.path == index);
        write!(f, "{separator}")?;
        match (*value as i32, shown.then(|| file.take()).flatten()) {
            (libc::AT_FDCWD, _) if directory => f.write_str("AT_FDCWD")?,
            (number, Some(file)) if numbers.contains(&index) => {
                write!(f, "{number}<{}>", file.display().to_string().escape_debug())?;
            }
            (_, Some(file)) => write!(f, "{file:?}")?,
            (number, None) if directory || numbers.contains(&index) => write!(f, "{number}")?,
            _ if (-4096..65536).contains(value) => write!(f, "{value}")?,
            _ => write!(f, "{value:#x}")?,
        }
    }
    f.write_str(", …)")
}

/// A call that faults have hit.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    call: Call,
    faults: Vec<usize>,
    occurrence: u64,
    effect: Effect,
    failed: Option<String>,
    followed: Vec<Call>,
}

impl Hit {
    pub(super) fn new(call: Call, faults: Vec<usize>, occurrence: u64, effect: Effect) -> Self {
        Self {
            call,
            faults,
            occurrence,
            effect,
            failed: None,
            followed: Vec::new(),
        }
    }

    /// The call.
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// Which faults of the plan have hit it, by their places in it, from 0.
    pub fn faults(&self) -> &[usize] {
        &self.faults
    }

    /// Which occurrence it was, as the first of these faults counts; see [`Occurrences`](super::Occurrences).
    pub fn occurrence(&self) -> u64 {
        self.occurrence
    }

    /// Why the fault could not be injected as it was wanted: the call ran without, then. `None` if it could.
    ///
    /// This happens to what takes a borrowed thread (a shorter length, other arguments, a result that is held back), for example
    /// if a debugger has the target.
    pub fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// The calls that the same thread made next, of those that are [trapped](super::FaultPlan::watch), up to 16.
    ///
    /// They are those at the time when the hit was asked for.
    pub fn followed_by(&self) -> &[Call] {
        &self.followed
    }
}

impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} #{}: {}", self.call, self.occurrence, self.effect)?;
        match &self.failed {
            Some(why) => write!(f, " (could not: {why})"),
            None => Ok(()),
        }
    }
}

/// How many calls that follow a hit are kept.
const FOLLOWING: usize = 16;
/// How many hits are kept of a child, the first ones. All are counted.
const HITS: usize = 4096;

/// What one child has done so far.
#[derive(Debug)]
pub(super) struct Recorder {
    started: Instant,
    history: usize,
    log: Mutex<Log>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Log {
    last: VecDeque<Call>,
    hits: Vec<Hit>,
    total: u64,
    /// The hits for which calls of a thread are still gathered.
    open: HashMap<i32, Vec<usize>>,
    ended: bool,
}

/// A consistent view of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    pub(super) last: Vec<Call>,
    pub(super) hits: Vec<Hit>,
    pub(super) total: u64,
}

impl Recorder {
    pub(super) fn new(history: usize) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            history,
            log: Mutex::default(),
            changed: watch::Sender::new(()),
        })
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Takes note of a call. It is to be called before the call is answered, so that nothing that follows is seen before.
    pub(super) fn called(&self, call: Call) {
        let mut log = self.log();
        let Log { last, hits, open, .. } = &mut *log;
        if let Some(gathering) = open.get_mut(&call.tid) {
            gathering.retain(|index| match hits.get_mut(*index) {
                Some(hit) => {
                    hit.followed.push(call.clone());
                    hit.followed.len() < FOLLOWING
                }
                None => false,
            });
            if gathering.is_empty() {
                open.remove(&call.tid);
            }
        }
        if last.len() >= self.history {
            last.pop_front();
        }
        if self.history > 0 {
            last.push_back(call);
        }
    }

    /// Takes note of a hit, and gives its place among those that are kept.
    pub(super) fn hit(&self, hit: &Hit) -> Option<usize> {
        let mut log = self.log();
        log.total += 1;
        let kept = log.hits.len() < HITS;
        let index = kept.then(|| {
            let index = log.hits.len();
            log.hits.push(hit.clone());
            log.open.entry(hit.call.tid).or_default().push(index);
            index
        });
        drop(log);
        self.changed.send_replace(());
        index
    }

    pub(super) fn failed(&self, index: Option<usize>, why: String) {
        if let Some(hit) =
            index.and_then(|index| self.log().hits.get_mut(index).map(|hit| hit.failed = Some(why)))
        {
            hit
        }
    }

    pub(super) fn ended(&self) {
        self.log().ended = true;
        self.changed.send_replace(());
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let log = self.log();
        Snapshot {
            last: log.last.iter().cloned().collect(),
            hits: log.hits.clone(),
            total: log.total,
        }
    }

    /// Waits for the hit with this number, from 0; `None` if it won't come.
    pub(super) async fn nth_hit(&self, number: usize) -> Option<Hit> {
        let mut changes = self.changed.subscribe();
        loop {
            {
                let log = self.log();
                if let Some(hit) = log.hits.get(number) {
                    return Some(hit.clone());
                }
                if log.ended || number >= HITS {
                    return None;
                }
            }
            if changes.changed().await.is_err() {
                return None;
            }
        }
    }
}

/// The lines of a list, indented; the last ones of a long one.
pub(super) fn list(calls: &[Call]) -> String {
    calls.iter().map(|call| format!("\n  {call}")).collect()
}
