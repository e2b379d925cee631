//! Who is who: names for threads that are the same in each run of a program.

use std::collections::HashMap;
use std::sync::Arc;

use syscalls::Sysno;

use crate::notify::{Notification, Observed};

/// Threads above this many are looked at, whether they are there still.
const MANY: usize = 1024;

/// Names for the threads and processes of a program, which are the same in each of its runs, unlike their ids.
///
/// The first thread is `0`, the first that it makes, as a thread or as a process, is `0.1`, the second `0.2`, and so on. So
/// a name depends on what each thread does, and not on which of them is the faster.
///
/// Whoever serves the calls of the program tells of each call in [`CREATING`](Self::CREATING) when it
/// [begins](Self::begin) and what it [came to](Self::end), and may ask for the name of any [caller](Self::caller). A thread
/// whose creation was not told of is named `?1`, `?2`, in the order in which they are asked for.
///
/// What is remembered is bounded by the number of threads that live at a time.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> asm_tracer::Result<()> {
/// use asm_tracer::{Command, Filter, Lineage, Supervisor, Sysno};
///
/// let mut supervisor = Supervisor::new();
/// let mut command = Command::new("sh");
/// command
///     .args(["-c", "(true; cd /); cd /tmp"])
///     .filter(Filter::new().trap(Sysno::chdir).trap(Lineage::CREATING));
/// let mut child = supervisor.spawn(&mut command).await?;
/// let mut lineage = Lineage::of(child.id().unwrap() as i32);
/// let mut changed = Vec::new();
/// while let Some(call) = supervisor.next().await {
///     if call.sysno() == Some(Sysno::chdir) {
///         changed.extend(lineage.caller(&call));
///         call.continue_syscall()?;
///     } else {
///         let creation = lineage.begin(&call);
///         let observed = call.continue_and_observe().await?;
///         lineage.end(creation, observed);
///     }
/// }
/// child.wait().await?;
/// assert_eq!(changed.iter().map(|name| &**name).collect::<Vec<_>>(), ["0.1", "0"]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Lineage {
    threads: HashMap<i32, Thread>,
    pending: Vec<Pending>,
    /// How many creations there have been.
    serial: u64,
    strangers: u64,
    /// When to look next who is gone.
    limit: usize,
}

#[derive(Debug)]
struct Thread {
    name: Arc<str>,
    /// In clock ticks since the boot: the number may come to mean another thread.
    started: u64,
    created: u64,
}

/// A creation that has begun and not ended.
#[derive(Debug)]
struct Pending {
    serial: u64,
    creator: i32,
    process: i32,
    name: Arc<str>,
    /// Whether the id that the call returns means here what it means to the creator.
    visible: bool,
    /// Who has been taken for the new thread meanwhile.
    seen: Option<i32>,
    /// Whether nobody learns what it comes to.
    unobserved: bool,
}

/// A creation that was told of.
#[derive(Debug)]
#[must_use = "the lineage is to be told what it came to"]
pub struct Creation(Option<u64>);

impl Lineage {
    /// The calls by which threads and processes are made.
    pub const CREATING: [Sysno; 4] = [Sysno::clone, Sysno::clone3, Sysno::fork, Sysno::vfork];

    /// Begins with the first thread of a program, which is `0`.
    pub fn of(first: i32) -> Self {
        let mut lineage = Self::default();
        lineage.add(first, "0".into());
        lineage
    }

    /// The name of the thread that makes a call; `None` if it is gone, or can't be seen from here.
    ///
    /// For a thread that was not known before, this reads files in `/proc`, in place. If several threads of its process are making
    /// threads at that moment, it is a guess which of them it is; it is known once their creations have [ended](Self::end).
    pub fn caller(&mut self, call: &Notification) -> Option<Arc<str>> {
        let tid = call.tid()?;
        if let Some(thread) = self.threads.get(&tid) {
            return Some(Arc::clone(&thread.name));
        }
        let process = call.pid().ok()?;
        let creator = match process == tid {
            true => parent(tid)?,
            false => process,
        };
        let among = |pending: &Pending| pending.process == creator && pending.seen.is_none();
        let several = self.pending.iter().filter(|pending| among(pending)).count() > 1;
        // Its creation may not have returned yet: after a vfork(2), it won't for long.
        let made = (0..self.pending.len()).find(|index| {
            self.pending.get(*index).is_some_and(|pending| {
                let may_be = || match process == tid {
                    true => children(pending.process, pending.creator).contains(&tid),
                    false => !self.has_new_child(pending),
                };
                among(pending) && (!several || may_be())
            })
        });
        let made = made.and_then(|index| self.pending.get_mut(index));
        let (name, made) = match made {
            Some(made) => (Arc::clone(&made.name), Some(made)),
            None => (format!("?{}", self.strangers + 1).into(), None),
        };
        // What was read is about this thread only if it waits still: tids are used again.
        if !call.is_pending() {
            return None;
        }
        match made {
            Some(made) => made.seen = Some(tid),
            None => self.strangers += 1,
        }
        self.add(tid, Arc::clone(&name));
        Some(name)
    }

    /// Tells whether the caller is a new thread of a process in which several are being made: whose it is shows once their
    /// creations have ended.
    pub(crate) fn is_undecided(&self, call: &Notification) -> bool {
        let is_new = |tid: &i32| self.pending.len() > 1 && !self.threads.contains_key(tid);
        let Some(tid) = call.tid().filter(is_new) else {
            return false;
        };
        let Some(process) = call.pid().ok().filter(|process| *process != tid) else {
            return false;
        };
        let among = |pending: &&Pending| pending.process == process && pending.seen.is_none();
        let made = self.pending.iter().filter(among);
        let mut makers = made.filter(|pending| !self.has_new_child(pending));
        let first = makers.next();
        // Those that nobody observes don't end.
        let observed = |pending: &Pending| !pending.unobserved;
        makers
            .next()
            .is_some_and(|second| first.is_some_and(observed) || observed(second) || makers.any(observed))
    }

    /// Tells whether it is a process that is being made, since it is there already.
    fn has_new_child(&self, pending: &Pending) -> bool {
        let children = children(pending.process, pending.creator);
        children.iter().any(|child| !self.threads.contains_key(child))
    }

    /// The name of the thread with this id, as this process numbers it, if it is known.
    pub fn name(&self, tid: i32) -> Option<Arc<str>> {
        self.threads.get(&tid).map(|thread| Arc::clone(&thread.name))
    }

    /// Tells whether the lineage has not been told yet what the caller's last creation came to.
    ///
    /// It is over if the caller makes another call, but who waits for it may not have been told. Only then it is known whether a
    /// signal interrupted it, so that this one is the same again.
    pub fn is_creating(&self, call: &Notification) -> bool {
        let caller = call.tid();
        let mut pending = self.pending.iter();
        pending.any(|pending| Some(pending.creator) == caller && !pending.unobserved)
    }

    /// Takes note that the caller is about to make another thread or process; to be told before the call is let run, and after
    /// [the end](Self::is_creating) of the caller's last creation.
    pub fn begin(&mut self, call: &Notification) -> Creation {
        self.caller(call);
        let known = call.tid().zip(call.pid().ok());
        let thread = known.and_then(|(tid, process)| Some((tid, process, self.threads.get_mut(&tid)?)));
        let Some((creator, process, thread)) = thread else {
            return Creation(None);
        };
        thread.created += 1;
        // It is over since the caller is here.
        self.pending
            .retain(|pending| pending.creator != creator || !pending.unobserved);
        let name = format!("{}.{}", thread.name, thread.created).into();
        self.serial += 1;
        self.pending.push(Pending {
            serial: self.serial,
            creator,
            process,
            name,
            visible: shares_pid_namespace(process),
            seen: None,
            unobserved: false,
        });
        Creation(Some(self.serial))
    }

    /// Takes note of what a creation came to. `None`, told before the call is let run, says that nobody will learn that; whom it makes may be
    /// found out.
    pub fn end(&mut self, creation: Creation, observed: impl Into<Option<Observed>>) {
        let mut pending = self.pending.iter_mut();
        let Some(found) = pending.position(|pending| Some(pending.serial) == creation.0) else {
            return;
        };
        let Some(observed) = observed.into() else {
            if let Some(left) = self.pending.get_mut(found) {
                left.unobserved = true;
            }
            return;
        };
        let made = self.pending.swap_remove(found);
        match observed {
            Observed::Returned(tid @ 1..) => {
                let tid = i32::try_from(tid).ok().and_then(|tid| match made.visible {
                    true => Some(tid),
                    false => made.seen.or_else(|| translated(made.process, made.creator, tid)),
                });
                // Another one may have been taken for it, if several were being made.
                if let Some(tid) = tid.filter(|tid| made.seen != Some(*tid)) {
                    self.add(tid, made.name);
                }
            }
            // It is made again, or was taken back before it ran. If it is gone because its maker is, there will be no other.
            Observed::Interrupted | Observed::Gone if made.seen.is_none() && self.is(made.creator) => {
                if let Some(thread) = self.threads.get_mut(&made.creator) {
                    thread.created = thread.created.saturating_sub(1);
                }
            }
            _ => {}
        }
    }

    /// Takes those for known who are made already, though their creation has not returned.
    pub(crate) fn look_ahead(&mut self) {
        for index in 0..self.pending.len() {
            let Some(pending) = self.pending.get_mut(index) else {
                break;
            };
            let made = children(pending.process, pending.creator);
            let made = made.into_iter().find(|child| !self.threads.contains_key(child));
            if let Some(made) = made.filter(|_| pending.seen.is_none()) {
                pending.seen = Some(made);
                let name = Arc::clone(&pending.name);
                self.add(made, name);
            }
        }
        // Nor does everybody tell who could not be observed.
        let living: Vec<_> = self.living().collect();
        for child in living.into_iter().flat_map(|creator| children(creator, creator)) {
            if !self.threads.contains_key(&child) {
                self.strangers += 1;
                self.add(child, format!("?{}", self.strangers).into());
            }
        }
    }

    /// The ids of the threads that live, as far as they are known.
    pub(crate) fn living(&self) -> impl Iterator<Item = i32> {
        let threads = self.threads.iter();
        threads.filter_map(|(tid, thread)| (start_time(*tid) == Some(thread.started)).then_some(*tid))
    }

    /// Tells whether a number still means the thread that it meant.
    pub(crate) fn is(&self, tid: i32) -> bool {
        self.threads
            .get(&tid)
            .is_some_and(|thread| start_time(tid) == Some(thread.started))
    }

    fn add(&mut self, tid: i32, name: Arc<str>) {
        if self.threads.len() > self.limit.max(MANY) {
            self.threads
                .retain(|tid, thread| start_time(*tid) == Some(thread.started));
            self.limit = 2 * self.threads.len();
            let threads = &self.threads;
            self.pending
                .retain(|pending| !pending.unobserved || threads.contains_key(&pending.creator));
        }
        let thread = Thread {
            name,
            started: start_time(tid).unwrap_or(0),
            created: 0,
        };
        self.threads.insert(tid, thread);
    }
}

/// Tells whether ids that a process sees mean here what they mean there.
fn shares_pid_namespace(process: i32) -> bool {
    let namespace = |whose: &str| std::fs::read_link(format!("/proc/{whose}/ns/pid")).ok();
    let own = namespace("self");
    own.is_some() && own == namespace(&process.to_string())
}

fn parent(pid: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    parent.trim().parse().ok()
}

/// Those that this very thread has made.
fn children(process: i32, thread: i32) -> Vec<i32> {
    let list = std::fs::read_to_string(format!("/proc/{process}/task/{thread}/children"));
    let list = list.unwrap_or_default();
    list.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// The id here of what a thread has made that has this id to its maker, in a namespace below.
fn translated(process: i32, creator: i32, tid: i32) -> Option<i32> {
    let ids = |whose: i32| {
        let status = std::fs::read_to_string(format!("/proc/{whose}/status")).ok()?;
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        Some(ids.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    };
    // The first is the id here, the last that in its own namespace.
    let level = ids(creator)?.len().checked_sub(1)?;
    let tid = tid.to_string();
    let mut made = children(process, creator).into_iter().chain(threads(process));
    made.find(|made| ids(*made).is_some_and(|ids| ids.get(level) == Some(&tid)))
}

fn threads(process: i32) -> Vec<i32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else {
        return Vec::new();
    };
    let ids = threads.map_while(|thread| thread.ok()?.file_name().to_str()?.parse().ok());
    ids.collect()
}

/// The 22nd field of `/proc/TID/stat`, which an execution leaves as it is.
pub(crate) fn start_time(tid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{tid}/stat")).ok()?;
    // The name may contain anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(19)?.parse().ok()
}
