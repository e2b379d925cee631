//! Many runs at a time.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tokio::task::JoinSet;

use super::case::Case;
use super::classify::classify;
use super::journal::Journal;
use super::learn::{Learned, RUNS};
use super::progress::Progress;
use super::run::{Setting, blocking, plan};
use super::trial::{Trial, Verdict};
use crate::error::{Error, Result};

/// How much longer the second run may take that is to confirm that the first hung.
const LENIENCE: u32 = 3;

/// What it takes to run a case.
pub(super) struct Engine {
    setting: Arc<Setting>,
    learned: Arc<Learned>,
    deadline: Duration,
    journal: Option<Mutex<Journal>>,
    /// How many were begun.
    runs: AtomicU64,
}

/// What has been run.
pub(super) struct Done {
    /// In the order of the cases.
    pub(super) trials: Vec<Trial>,
    /// How many of them were known before.
    pub(super) resumed: usize,
}

impl Engine {
    pub(super) fn new(
        setting: Arc<Setting>,
        learned: Arc<Learned>,
        deadline: Duration,
        journal: Option<Journal>,
    ) -> Arc<Self> {
        Arc::new(Self {
            setting,
            learned,
            deadline,
            journal: journal.map(Mutex::new),
            runs: AtomicU64::new(0),
        })
    }

    /// Runs the cases that are not known yet, in order, so many at a time, or as there is room for, and begins none later
    /// than `until`.
    pub(super) async fn run_all(
        self: Arc<Self>,
        cases: &[Case],
        known: Vec<Trial>,
        mut jobs: usize,
        until: Option<Instant>,
        mut tell: impl FnMut(&Progress<'_>),
    ) -> Result<Done> {
        let name = |trial: Trial| (trial.case.to_string(), trial);
        let known: HashMap<_, _> = known.into_iter().map(name).collect();
        let slots = cases.iter().map(|case| known.get(&case.to_string()).cloned());
        let mut slots: Vec<Option<Trial>> = slots.collect();
        let resumed = slots.iter().flatten().count();
        let findings = slots.iter().flatten().filter(|trial| trial.verdict.is_finding());
        let (mut done, mut findings) = (resumed, findings.count());
        let open = slots.iter().enumerate().filter(|(_, slot)| slot.is_none());
        let mut open: VecDeque<usize> = open.map(|(index, _)| index).collect();
        let mut running = JoinSet::new();
        loop {
            while running.len() < jobs && until.is_none_or(|until| Instant::now() < until) {
                let next = open
                    .pop_front()
                    .and_then(|index| Some((index, cases.get(index)?.clone())));
                let Some((index, case)) = next else { break };
                let engine = Arc::clone(&self);
                let alone = jobs == 1;
                running.spawn(async move { (index, alone, engine.run(case).await) });
            }
            let Some(joined) = running.join_next().await else {
                break;
            };
            let Ok((index, alone, trial)) = joined else {
                return Err(Error::NotSweepable("a run has panicked".into()));
            };
            let trial = match trial {
                // The others have what it needs, or had. They need some more than what they have just now.
                Err(error) if is_shortage(&error) && !alone => {
                    jobs = jobs.min(running.len() - running.len().div_ceil(8)).max(1);
                    open.push_front(index);
                    continue;
                }
                trial => trial?,
            };
            done += 1;
            findings += usize::from(trial.verdict.is_finding());
            tell(&Progress {
                total: cases.len(),
                done,
                findings,
                last: Some(&trial),
            });
            if let Some(slot) = slots.get_mut(index) {
                *slot = Some(trial);
            }
        }
        let trials = slots.into_iter().flatten().collect();
        Ok(Done { trials, resumed })
    }

    /// Runs a case; twice if the first run has a finding, or has not come to the call.
    async fn run(self: Arc<Self>, case: Case) -> Result<Trial> {
        let mut trial = self.run_once(&case, self.deadline).await?;
        if trial.verdict.is_finding() || trial.verdict == Verdict::NotReached {
            let hung = trial.verdict == Verdict::Hang;
            let deadline = self.deadline * if hung { LENIENCE } else { 1 };
            let again = self.run_once(&case, deadline).await?;
            let steady = again.verdict == trial.verdict;
            // It was just slow, or has not come to the call just once.
            if hung || trial.verdict == Verdict::NotReached {
                trial = again;
            }
            trial.steady = steady;
        }
        if self.journal.is_none() {
            return Ok(trial);
        }
        blocking(move || {
            if let Some(journal) = &self.journal {
                let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
                journal.append(&trial)?;
            }
            Ok(trial)
        })
        .await
    }

    async fn run_once(&self, case: &Case, deadline: Duration) -> Result<Trial> {
        let number = RUNS + self.runs.fetch_add(1, Ordering::Relaxed);
        let ran = self.setting.run(number, plan([case.fault()], deadline)).await?;
        let (case, learned) = (case.clone(), Arc::clone(&self.learned));
        blocking(move || Ok(classify(&case, &ran, &learned))).await
    }
}

/// Tells whether there was too little of something that runs beside this one may give back.
fn is_shortage(error: &Error) -> bool {
    let shortages = [Errno::EMFILE, Errno::ENFILE, Errno::EAGAIN, Errno::ENOMEM];
    error.errno().is_some_and(|errno| shortages.contains(&errno))
}
