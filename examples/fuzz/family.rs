//! Who is who: names for threads and processes that are the same each time.
//!
//! The first thread is `0`, the first that it makes, as a thread or as a process, `0.1`, and so on. So the names depend on
//! what each thread does, and not on which of them is the faster.

use std::collections::HashMap;

use asm_tracer::{Notification, Observed, Sysno};

use crate::process::Process;

pub(crate) struct Thread {
    pub(crate) name: String,
    /// The program's name when it was last looked at.
    pub(crate) program: String,
    /// How many calls of each kind it has made.
    calls: HashMap<Sysno, u64>,
    created: u64,
}

impl Thread {
    fn new(tid: i32, name: String) -> Self {
        let mut thread = Self {
            name,
            program: String::new(),
            calls: HashMap::new(),
            created: 0,
        };
        thread.look_at_program(tid);
        thread
    }

    /// Counts a call. Each kind on its own: how often a shell waits for its children, say, depends on how fast they are.
    pub(crate) fn count(&mut self, sysno: Sysno) -> u64 {
        let count = self.calls.entry(sysno).or_default();
        *count += 1;
        *count
    }

    pub(crate) fn look_at_program(&mut self, tid: i32) {
        let name = std::fs::read_to_string(format!("/proc/{tid}/comm"));
        self.program = name.unwrap_or_default().trim_end().escape_debug().to_string();
    }
}

/// A `fork(2)` or its like that was made and has not returned yet.
struct Creation {
    creator: i32,
    process: i32,
    name: String,
}

#[derive(Default)]
pub(crate) struct Family {
    threads: HashMap<i32, Thread>,
    pub(crate) processes: Vec<Process>,
    creations: Vec<Creation>,
    strangers: u64,
}

/// The calls by which threads and processes are made. They are not spoiled, but followed.
pub(crate) const CREATING: [Sysno; 4] = [Sysno::clone, Sysno::clone3, Sysno::fork, Sysno::vfork];

impl Family {
    pub(crate) fn of(first: i32) -> Self {
        let mut family = Self::default();
        family.add(first, "0".into());
        family
    }

    /// The thread that makes a call, and its tid; `None` if it is gone, or can't be seen.
    pub(crate) fn caller(&mut self, call: &Notification) -> Option<(i32, &mut Thread)> {
        let tid = call.tid()?;
        if !self.threads.contains_key(&tid) {
            let process = call.pid().ok()?;
            let creator = if process == tid { parent(tid)? } else { process };
            // What was read is about this thread only if it waits still: tids are used again.
            if !call.is_pending() {
                return None;
            }
            // Its creation may not have returned yet: after a vfork(2), it won't for long.
            let made = self.creations.iter().position(|one| one.process == creator);
            let name = match made {
                Some(made) => self.creations.remove(made).name,
                None => {
                    self.strangers += 1;
                    format!("?{}", self.strangers)
                }
            };
            self.add(tid, name);
        }
        self.threads.get_mut(&tid).map(|thread| (tid, thread))
    }

    /// The caller is about to make another thread or process.
    pub(crate) fn begin(&mut self, creator: i32, process: i32) {
        if let Some(thread) = self.threads.get_mut(&creator) {
            thread.created += 1;
            let name = format!("{}.{}", thread.name, thread.created);
            self.creations.push(Creation {
                creator,
                process,
                name,
            });
        }
    }

    /// It has.
    pub(crate) fn end(&mut self, creator: i32, observed: Observed) {
        let Some(made) = self.creations.iter().position(|one| one.creator == creator) else {
            // Whom it made has been seen already.
            return;
        };
        let name = self.creations.remove(made).name;
        match observed {
            Observed::Returned(tid @ 1..) => self.add(tid as i32, name),
            // It is made again.
            Observed::Interrupted => {
                if let Some(thread) = self.threads.get_mut(&creator) {
                    thread.created -= 1;
                }
            }
            _ => {}
        }
    }

    pub(crate) fn thread(&self, tid: i32) -> Option<&Thread> {
        self.threads.get(&tid)
    }

    fn add(&mut self, tid: i32, name: String) {
        self.threads.insert(tid, Thread::new(tid, name));
        if self.processes.iter().all(|process| process.pid != tid) {
            // Which fails for a thread that is no process of its own.
            self.processes.extend(Process::open(tid));
        }
    }
}

fn parent(pid: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    parent.trim().parse().ok()
}
