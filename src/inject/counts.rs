//! How often each thread has made each call of each fault.

use std::collections::HashMap;

use crate::lineage::start_time;

/// Threads above this many are looked at, whether they are there still.
const MANY: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Counts {
    threads: HashMap<i32, Thread>,
    /// When to look next.
    limit: usize,
}

#[derive(Debug, Default)]
struct Thread {
    /// In clock ticks since the boot: the number may come to mean another thread.
    started: u64,
    counts: HashMap<(usize, i64), u64>,
}

impl Counts {
    /// Counts a call of a thread that is frozen, and gives how many there have been.
    pub(super) fn next(&mut self, fault: usize, tid: i32, number: i64) -> u64 {
        let started = start_time(tid).unwrap_or(0);
        if self.threads.len() > self.limit.max(MANY) {
            self.threads
                .retain(|tid, thread| start_time(*tid) == Some(thread.started));
            self.limit = 2 * self.threads.len();
        }
        let thread = self.threads.entry(tid).or_default();
        if thread.started != started {
            *thread = Thread {
                started,
                counts: HashMap::new(),
            };
        }
        let count = thread.counts.entry((fault, number)).or_default();
        *count += 1;
        *count
    }
}
