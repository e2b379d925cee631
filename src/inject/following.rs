//! Who descends from whom, in a program whose plan asks for it.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::unistd::Pid;
use tokio::sync::Notify;

use super::serve::continue_call;
use crate::lineage::{Creation, Lineage};
use crate::notify::{Notification, Observed};
use crate::pidfd;

/// How often to look anew whose a thread is.
const LOOK: Duration = Duration::from_millis(10);

/// The lineage of one program.
#[derive(Debug)]
pub(super) struct Following {
    lineage: Mutex<Lineage>,
    /// Whether all who come to be known are to die.
    ending: AtomicBool,
    /// Tells that a creation has ended.
    ended: Notify,
}

/// Those that end with the child, if the plan says so.
///
/// The task that serves them and the handle of the child both have one, and drop it before what kills the child, which could not
/// tell any more whom it has made.
#[derive(Debug, Clone)]
pub(super) struct Descendants {
    ending: Option<Arc<Following>>,
    /// Whether the child ends with its handle.
    tied: bool,
}

impl Descendants {
    pub(super) fn new(ending: Option<Arc<Following>>, tied: bool) -> Self {
        Self { ending, tied }
    }

    pub(super) fn ending(&self) -> Option<&Arc<Following>> {
        self.ending.as_ref()
    }
}

impl Drop for Descendants {
    fn drop(&mut self) {
        if let Some(ending) = self.ending().filter(|_| self.tied) {
            ending.end_all();
        }
    }
}

impl Following {
    pub(super) fn of(first: i32) -> Arc<Self> {
        Arc::new(Self {
            lineage: Mutex::new(Lineage::of(first)),
            ending: AtomicBool::new(false),
            ended: Notify::new(),
        })
    }

    fn lineage(&self) -> MutexGuard<'_, Lineage> {
        self.lineage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of the caller, unless it [takes a while](Self::is_undecided) to tell.
    pub(super) fn name(&self, call: &Notification) -> Option<Arc<str>> {
        self.lineage().caller(call)
    }

    pub(super) fn is_undecided(&self, call: &Notification) -> bool {
        self.lineage().is_undecided(call)
    }

    /// The name of the caller, which waits meanwhile.
    pub(super) async fn decided_name(&self, call: &Notification) -> Option<Arc<str>> {
        loop {
            let ended = self.ended.notified();
            {
                let mut lineage = self.lineage();
                if !lineage.is_undecided(call) {
                    return lineage.caller(call);
                }
            }
            // The caller may be killed, or a process be there that another thread makes.
            let _ = tokio::time::timeout(LOOK, ended).await;
        }
    }

    /// Tells whether a call is one to be let run by [`creating`](Self::creating).
    pub(super) fn concerns(call: &Notification) -> bool {
        call.sysno()
            .is_some_and(|sysno| Lineage::CREATING.contains(&sysno))
    }

    /// Lets a call run that makes a thread, and learns which.
    pub(super) async fn creating(&self, call: Notification) {
        let creation = self.begin(&call).await;
        match call.continue_and_observe().await {
            Ok(observed) => self.lineage().end(creation, observed),
            // A signal has taken the call back.
            Err(refused) if !refused.notification.is_pending() => {
                self.lineage().end(creation, Observed::Gone);
            }
            // A debugger has the thread, or its call is held back.
            Err(refused) => {
                self.lineage().end(creation, None);
                continue_call(*refused.notification);
            }
        }
        self.ended.notify_waiters();
        if self.is_ending() {
            self.kill_all_but(None);
        }
    }

    async fn begin(&self, call: &Notification) -> Creation {
        loop {
            let ended = self.ended.notified();
            {
                let mut lineage = self.lineage();
                if !lineage.is_creating(call) {
                    return lineage.begin(call);
                }
            }
            ended.await;
        }
    }

    /// Kills all processes that are known, and from now on those that [come to be](Self::ends).
    pub(super) fn end_all(&self) {
        self.ending.store(true, Ordering::Release);
        self.kill_all_but(None);
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// Kills the caller, if it is one that should be dead.
    pub(super) fn ends(&self, call: &Notification) -> bool {
        let ending = self.is_ending();
        if ending {
            self.name(call);
            self.kill_all_but(None);
        }
        ending
    }

    /// Kills all processes that are known, but for the first, which is the caller's.
    pub(super) fn kill_all_but(&self, first: Option<u32>) {
        let mut done: HashSet<_> = first.map(u32::cast_signed).into_iter().collect();
        // More may be made meanwhile.
        for _ in 0..16 {
            let living: Vec<_> = {
                let mut lineage = self.lineage();
                // Whoever is killed does not tell any more whom it has made.
                lineage.look_ahead();
                lineage.living().collect()
            };
            let before = done.len();
            for tid in living {
                if done.insert(tid) {
                    self.kill(tid);
                }
            }
            if done.len() == before {
                break;
            }
        }
    }

    fn kill(&self, tid: i32) {
        // Which fails for a thread that is no process of its own.
        let Ok(process) = pidfd::open(Pid::from_raw(tid)) else {
            return;
        };
        // Before that, the number may have come to mean another process.
        if self.lineage().is(tid) {
            pidfd::kill(process.as_fd());
        }
    }
}
