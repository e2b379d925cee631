//! Who is who, and what each has done so far.

use std::collections::HashMap;
use std::sync::Arc;

use asm_tracer::{Creation, Lineage, Notification, Observed, Sysno};

use crate::process::Process;

pub(crate) struct Thread {
    /// That of its [`Lineage`].
    pub(crate) name: Arc<str>,
    /// The program's name when it was last looked at.
    pub(crate) program: String,
    /// How many calls of each kind it has made.
    calls: HashMap<Sysno, u64>,
}

impl Thread {
    fn new(tid: i32, name: Arc<str>) -> Self {
        let mut thread = Self {
            name,
            program: String::new(),
            calls: HashMap::new(),
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

pub(crate) struct Family {
    lineage: Lineage,
    threads: HashMap<i32, Thread>,
    pub(crate) processes: Vec<Process>,
}

impl Family {
    pub(crate) fn of(first: i32) -> Self {
        let mut family = Self {
            lineage: Lineage::of(first),
            threads: HashMap::new(),
            processes: Vec::new(),
        };
        family.add(first, "0".into());
        family
    }

    /// The thread that makes a call, and its tid; `None` if it is gone, or can't be seen.
    pub(crate) fn caller(&mut self, call: &Notification) -> Option<(i32, &mut Thread)> {
        let tid = call.tid()?;
        let name = self.lineage.caller(call)?;
        self.add(tid, name);
        self.threads.get_mut(&tid).map(|thread| (tid, thread))
    }

    /// Whether the end of the caller's last creation is not known yet.
    pub(crate) fn is_creating(&self, call: &Notification) -> bool {
        self.lineage.is_creating(call)
    }

    /// The caller is about to make another thread or process.
    pub(crate) fn begin(&mut self, call: &Notification) -> Creation {
        self.lineage.begin(call)
    }

    /// It has, or nobody will know.
    pub(crate) fn end(&mut self, creation: Creation, observed: Option<Observed>) {
        self.lineage.end(creation, observed);
        if let Some(Observed::Returned(tid @ 1..)) = observed
            && let Some(name) = self.lineage.name(tid as i32)
        {
            self.add(tid as i32, name);
        }
    }

    pub(crate) fn thread(&self, tid: i32) -> Option<&Thread> {
        self.threads.get(&tid)
    }

    fn add(&mut self, tid: i32, name: Arc<str>) {
        // Its number may have been another's.
        if self.threads.get(&tid).is_some_and(|thread| thread.name == name) {
            return;
        }
        self.threads.insert(tid, Thread::new(tid, name));
        if self.processes.iter().all(|process| process.pid != tid) {
            // Which fails for a thread that is no process of its own.
            self.processes.extend(Process::open(tid));
        }
    }
}
