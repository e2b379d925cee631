//! Who descends from whom, in a program whose plan asks for it.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::unistd::Pid;

use super::serve::continue_call;
use crate::lineage::Lineage;
use crate::notify::{Notification, Observed};
use crate::pidfd;

/// The lineage of one program.
#[derive(Debug)]
pub(super) struct Following(Mutex<Lineage>);

impl Following {
    pub(super) fn of(first: i32) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Lineage::of(first))))
    }

    fn lineage(&self) -> MutexGuard<'_, Lineage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn name(&self, call: &Notification) -> Option<Arc<str>> {
        self.lineage().caller(call)
    }

    /// Tells whether a call is one to be let run by [`creating`](Self::creating).
    pub(super) fn concerns(call: &Notification) -> bool {
        call.sysno()
            .is_some_and(|sysno| Lineage::CREATING.contains(&sysno))
    }

    /// Lets a call run that makes a thread, and learns which.
    pub(super) async fn creating(&self, call: Notification) {
        let creation = self.lineage().begin(&call);
        let observed = match call.continue_and_observe().await {
            Ok(observed) => observed,
            // A debugger has the thread, for example. Whom it makes is a stranger then.
            Err(refused) => {
                continue_call(*refused.notification);
                Observed::Gone
            }
        };
        self.lineage().end(creation, observed);
    }

    /// Kills all processes that are known, but for the first, which is the caller's.
    pub(super) fn kill_all_but(&self, first: Option<u32>) {
        let first = first.map(u32::cast_signed);
        // More may be made meanwhile.
        for _ in 0..16 {
            let living: Vec<_> = self
                .lineage()
                .living()
                .filter(|tid| Some(*tid) != first)
                .collect();
            let mut killed = 0;
            for tid in living {
                // Which fails for a thread that is no process of its own.
                let Ok(process) = pidfd::open(Pid::from_raw(tid)) else {
                    continue;
                };
                // Before that, the number may have come to mean another process.
                if self.lineage().is(tid) {
                    pidfd::kill(process.as_fd());
                    killed += 1;
                }
            }
            if killed == 0 {
                break;
            }
        }
    }
}
