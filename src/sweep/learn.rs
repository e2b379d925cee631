//! What the program does without a fault.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use syscalls::Sysno;

use super::report::Baseline;
use super::run::{Ran, Setting, plan};
use super::scratch::Snapshot;
use super::trial::{Ending, micros};
use crate::error::{Error, Result};
use crate::inject::{Call, FaultPlan};

/// How many calls of a program are learned, in all of its threads.
const CALLS: usize = 200_000;
/// How long it may take for them at least.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);
/// How often it is watched, and how often it is run as it will be in the sweep.
const WATCHED: u64 = 2;
const UNDISTURBED: u64 = 3;
/// How often that is tried.
const ATTEMPTS: u64 = 3;

/// A call of a thread, of which there is one in each run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) lineage: Arc<str>,
    pub(super) sysno: Sysno,
}

/// What to expect of a run.
#[derive(Debug)]
pub(super) struct Learned {
    pub(super) baseline: Baseline,
    /// `None` if it is different each time.
    pub(super) stdout: Option<Vec<u8>>,
    /// Whether there is always some of it.
    pub(super) has_stdout: bool,
    pub(super) stderr: Vec<u8>,
    /// The files before a run, and after one.
    pub(super) pristine: Snapshot,
    pub(super) files: Snapshot,
    pub(super) volatile: BTreeSet<String>,
    /// Those of them that are always there with something in them.
    pub(super) filled: BTreeSet<String>,
    /// How many calls of each kind there are in each run, in the order in which they were first made.
    pub(super) calls: Vec<(Kind, u64)>,
}

/// Runs the program without a fault a few times, and anew if these runs have too little in common: a signal may have come
/// at a bad time. One that does not end is not waited for again.
///
/// The numbers of the runs are those below [`RUNS`].
pub(super) async fn learn(setting: &Arc<Setting>, deadline: Duration) -> Result<Learned> {
    let started = Instant::now();
    let mut attempt = 0;
    loop {
        let learned = attempt_to_learn(setting, attempt * RUNS_EACH, deadline).await;
        attempt += 1;
        match learned {
            Err(Error::NotSweepable(_)) if attempt < ATTEMPTS && started.elapsed() < deadline => {}
            learned => return learned,
        }
    }
}

async fn attempt_to_learn(setting: &Arc<Setting>, first: u64, deadline: Duration) -> Result<Learned> {
    let pristine = setting.pristine(first + RUNS_EACH - 1).await?;
    let mut censuses = Vec::new();
    let mut runs = Vec::new();
    for number in 0..WATCHED {
        let ran = undisturbed(setting, first + number, watching(setting, deadline)).await?;
        censuses.push(Census::of(&ran, setting.calls.as_deref())?);
        runs.push(ran);
    }
    let mut durations = Vec::new();
    for number in WATCHED..WATCHED + UNDISTURBED {
        let ran = undisturbed(setting, first + number, plan([], deadline)).await?;
        durations.push(ran.outcome.duration());
        runs.push(ran);
    }
    durations.sort();
    let duration = durations.get(durations.len() / 2).copied().unwrap_or_default();
    compare(pristine, runs, &censuses, duration)
}

async fn undisturbed(setting: &Arc<Setting>, number: u64, plan: FaultPlan) -> Result<Ran> {
    let ran = setting.run(number, plan).await?;
    if ran.outcome.hung().is_some() {
        let why = format!("it does not end by itself: {}", ran.outcome);
        return Err(Error::NotSweepable(why));
    }
    if let Some(bound) = ran.after.beyond() {
        return Err(Error::NotSweepable(format!("it leaves more than {bound}")));
    }
    Ok(ran)
}

/// With one in which nothing is run.
const RUNS_EACH: u64 = WATCHED + UNDISTURBED + 1;
/// How many runs that takes at most.
pub(super) const RUNS: u64 = ATTEMPTS * RUNS_EACH;

fn watching(setting: &Setting, deadline: Duration) -> FaultPlan {
    let plan = plan([], deadline).history(CALLS + 1);
    match &setting.calls {
        Some(calls) => plan.watch(calls.as_slice()),
        None => plan.watch_all(),
    }
}

/// The calls of one run.
struct Census {
    counts: HashMap<Kind, u64>,
    order: Vec<Kind>,
    /// Those of threads that nobody knows where they come from.
    strangers: u64,
}

impl Census {
    /// Of these calls, or all.
    fn of(ran: &Ran, wanted: Option<&[i64]>) -> Result<Self> {
        let calls = ran.outcome.last_calls();
        if calls.len() > CALLS {
            let why = format!("it makes more than {CALLS} calls, of which fewer could be swept");
            return Err(Error::NotSweepable(why));
        }
        let mut census = Self {
            counts: HashMap::new(),
            order: Vec::new(),
            strangers: 0,
        };
        let mut names = HashMap::<&str, Arc<str>>::new();
        // What confines the program sees others besides.
        let number = |call: &Call| call.sysno().map(|sysno| sysno as i64);
        let is_wanted =
            |call: &&Call| wanted.is_none_or(|wanted| number(call).is_some_and(|nr| wanted.contains(&nr)));
        for call in calls.iter().filter(is_wanted) {
            let Some((lineage, sysno)) = known(call) else {
                census.strangers += 1;
                continue;
            };
            let name = names.entry(lineage).or_insert_with(|| lineage.into());
            let kind = Kind {
                lineage: Arc::clone(name),
                sysno,
            };
            let count = census.counts.entry(kind.clone()).or_insert_with(|| {
                census.order.push(kind);
                0
            });
            *count += 1;
        }
        Ok(census)
    }

    fn total(&self) -> u64 {
        self.counts.values().sum::<u64>() + self.strangers
    }
}

fn known(call: &Call) -> Option<(&str, Sysno)> {
    let lineage = call.lineage().filter(|name| !name.starts_with('?'))?;
    Some((lineage, call.sysno()?))
}

/// Finds what is the same in all runs.
fn compare(pristine: Snapshot, runs: Vec<Ran>, censuses: &[Census], duration: Duration) -> Result<Learned> {
    let unstable = |why: String| Err(Error::NotSweepable(why));
    let mut rest = runs.into_iter();
    let Some(first) = rest.next() else {
        return unstable("it was not run".into());
    };
    let ending = Ending::of(&first.outcome);
    let mut volatile = BTreeSet::new();
    let mut output_varies = false;
    let mut has_stdout = !first.stdout.is_empty();
    let mut filled: BTreeSet<_> = first.after.filled().cloned().collect();
    for ran in rest {
        let other = Ending::of(&ran.outcome);
        if other != ending {
            return unstable(format!(
                "it ends with {ending} once, and with {other} another time"
            ));
        }
        output_varies |= ran.stdout != first.stdout;
        volatile.extend(first.after.volatile(&ran.after));
        has_stdout &= !ran.stdout.is_empty();
        let others: BTreeSet<_> = ran.after.filled().collect();
        filled.retain(|path| others.contains(path));
    }
    filled.retain(|path| volatile.contains(path));
    let calls = in_each(censuses);
    let stable: u64 = calls.iter().map(|(_, count)| count).sum();
    let total = censuses.iter().map(Census::total).max().unwrap_or(0);
    let unstable_calls = total.saturating_sub(stable);
    if stable < unstable_calls {
        return unstable(format!(
            "only {stable} of its {total} calls are made in every run{}",
            example(censuses)
        ));
    }
    let threads: BTreeSet<_> = calls.iter().map(|(kind, _)| &*kind.lineage).collect();
    let mut differs: Vec<String> = volatile.iter().cloned().collect();
    if output_varies {
        differs.insert(0, "output".into());
    }
    Ok(Learned {
        baseline: Baseline {
            ending,
            duration: micros(duration),
            calls: stable,
            threads: threads.len() as u64,
            unstable_calls,
            volatile: differs,
        },
        has_stdout,
        stdout: (!output_varies).then_some(first.stdout),
        stderr: first.stderr,
        pristine,
        files: first.after,
        volatile,
        filled,
        calls,
    })
}

/// The calls that are made in each run, in the order of the first.
fn in_each(censuses: &[Census]) -> Vec<(Kind, u64)> {
    let Some(first) = censuses.first() else {
        return Vec::new();
    };
    let least = |kind: &Kind| {
        let counts = censuses
            .iter()
            .map(|census| census.counts.get(kind).copied().unwrap_or(0));
        counts.min().unwrap_or(0)
    };
    let counted = first.order.iter().map(|kind| (kind.clone(), least(kind)));
    counted.filter(|(_, count)| *count > 0).collect()
}

/// One kind of call that is not made equally often.
fn example(censuses: &[Census]) -> String {
    let counts = |kind: &Kind| -> BTreeMap<u64, ()> {
        let each = censuses
            .iter()
            .map(|census| census.counts.get(kind).copied().unwrap_or(0));
        each.map(|count| (count, ())).collect()
    };
    let kinds = censuses.iter().flat_map(|census| &census.order);
    let varying = kinds
        .map(|kind| (kind, counts(kind)))
        .find(|(_, counts)| counts.len() > 1);
    varying.map_or(String::new(), |(kind, counts)| {
        let (least, most) = (counts.keys().next(), counts.keys().next_back());
        format!(
            ": thread {} makes {} to {} calls of {}",
            kind.lineage,
            least.unwrap_or(&0),
            most.unwrap_or(&0),
            kind.sysno
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Command;

    #[tokio::test]
    async fn what_does_not_end_is_not_waited_for_again() {
        let outside = tempfile::tempdir().unwrap();
        let runs = outside.path().join("runs");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo x >>$0; exec sleep 1000"]).arg(&runs);
        let setting = Arc::new(Setting {
            command,
            parent: Arc::new(tempfile::tempdir().unwrap()),
            files: None,
            stdin: None,
            writable: Some(vec![outside.path().to_owned()]),
            online: false,
            calls: None,
        });
        let refused = learn(&setting, Duration::from_secs(1)).await.unwrap_err();
        assert!(
            matches!(&refused, Error::NotSweepable(why) if why.contains("does not end")),
            "{refused:?}"
        );
        assert_eq!(std::fs::read_to_string(runs).unwrap(), "x\n");
    }
}
