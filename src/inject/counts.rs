//! How often each thread has made each call of each fault.

use std::collections::HashMap;
use std::sync::Arc;

use crate::lineage::start_time;

/// Threads above this many are looked at, whether they are there still.
const MANY: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Counts {
    threads: HashMap<i32, Thread>,
    /// When to look next.
    limit: usize,
}

#[derive(Debug)]
struct Thread {
    identity: Identity,
    counts: HashMap<(usize, i64), u64>,
}

/// What tells a thread from another one that has its number later.
#[derive(Debug, Clone, PartialEq)]
enum Identity {
    /// In the lineage, which takes no look at it.
    Named(Arc<str>),
    /// In clock ticks since the boot.
    Started(Option<u64>),
}

impl Counts {
    /// Counts a call of a thread that is frozen, and gives how many there have been.
    pub(super) fn next(&mut self, fault: usize, tid: i32, number: i64, name: Option<&Arc<str>>) -> u64 {
        let identity = match name {
            Some(name) => Identity::Named(Arc::clone(name)),
            None => Identity::Started(start_time(tid)),
        };
        if self.threads.len() > self.limit.max(MANY) {
            self.threads.retain(|tid, thread| match &thread.identity {
                Identity::Named(_) => start_time(*tid).is_some(),
                Identity::Started(started) => start_time(*tid) == *started,
            });
            self.limit = 2 * self.threads.len();
        }
        let thread = self
            .threads
            .entry(tid)
            .or_insert_with(|| Thread::new(identity.clone()));
        if thread.identity != identity {
            *thread = Thread::new(identity);
        }
        let count = thread.counts.entry((fault, number)).or_default();
        *count += 1;
        *count
    }
}

impl Thread {
    fn new(identity: Identity) -> Self {
        let counts = HashMap::new();
        Self { identity, counts }
    }
}
