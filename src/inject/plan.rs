//! Several faults, and what they are injected into.

use std::collections::VecDeque;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use nix::errno::Errno;

use super::child::FaultyChild;
use super::expression::ParseFaultError;
use super::fault::Fault;
use super::following::{Descendants, Following};
use super::outcome::Outcome;
use super::record::{Hit, Recorder, list};
use super::serve::{self, Faults};
use crate::error::{Error, Result};
use crate::filter::{Action, Filter, Syscalls};
use crate::lineage::Lineage;
use crate::process::{Command, Stdio};

/// How long [`FaultPlan::run`] and [`FaultyChild::outcome`] wait for a program unless told otherwise.
const DEADLINE: Duration = Duration::from_secs(60);
/// How many of the last calls are kept of a child unless told otherwise.
const HISTORY: usize = 64;
/// How many hits wait for those who ask for them.
const FEED: usize = 4096;

/// Faults to be injected into programs; see [the module](super).
///
/// A plan is armed until it is [disarmed](Self::disarm). It can be used for any number of programs, at once and one after
/// the other; each counts for itself.
///
/// Where several faults of a plan hit the same call, their delays add up, all of their signals are sent, and the first fault
/// that has an answer decides about it. Each fault counts the calls that it concerns, whatever the others do.
///
/// # Expressions
///
/// [`Fault`] and `FaultPlan` parse what `strace(1)` takes after `-e inject=`:
///
/// ```text
/// [?]syscall_set[:error=ERRNO|:retval=VALUE][:signal=SIG][:syscall=SYSCALL][:delay_enter=DELAY][:delay_exit=DELAY][:when=first[..last][+[step]]]
/// ```
///
/// A set is a list of names, numbers and classes (`%file`, `%network`, …), or `all`, or `!` and those that are not meant.
/// `inject=` and `fault=` may stand before it. There is no `poke_enter=` and `poke_exit=`, and there are no regular
/// expressions. What is wrong is said with its place ([`ParseFaultError`]). Of several expressions about the same call
/// strace takes the last; in a plan, they compose.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use asm_tracer::Command;
/// use asm_tracer::inject::FaultPlan;
///
/// let plan: FaultPlan = "write:error=ENOSPC:when=1".parse()?;
/// let outcome = plan.run(Command::new("echo").arg("hello")).await?;
/// outcome.assert_hit().assert_failure();
/// assert!(String::from_utf8_lossy(outcome.stderr()).contains("No space left on device"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct FaultPlan {
    faults: Vec<Fault>,
    watched: Filter,
    seed: u64,
    deadline: Option<Duration>,
    history: usize,
    follows: bool,
    ends_descendants: bool,
    foreign_abi: Action,
    shared: Arc<Shared>,
}

impl FaultPlan {
    /// Makes a plan without a fault yet, armed.
    pub fn new() -> Self {
        Self {
            faults: Vec::new(),
            watched: Filter::new(),
            seed: 0,
            deadline: Some(DEADLINE),
            history: HISTORY,
            follows: false,
            ends_descendants: false,
            foreign_abi: Action::Allow,
            shared: Arc::default(),
        }
    }

    /// Adds a fault.
    pub fn with(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// Adds the fault of an expression.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and where.
    pub fn with_expression(self, expression: &str) -> Result<Self, ParseFaultError> {
        Ok(self.with(expression.parse()?))
    }

    /// Sets the seed of [`Fault::with_probability`]; 0 unless told otherwise.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets how long the end of a program is waited for; a minute unless told otherwise.
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.deadline = Some(limit);
        self
    }

    /// Waits for the end of a program however long it takes.
    pub fn no_deadline(mut self) -> Self {
        self.deadline = None;
        self
    }

    /// Has these calls recorded as well, so that they are among the [last calls](Outcome::last_calls) and those that
    /// [follow](Hit::followed_by) a hit.
    ///
    /// Only the calls that faults are about are trapped and recorded otherwise. Each that is trapped costs a way to this
    /// process and back, some microseconds if it is idle, where it would cost a tenth of one.
    pub fn watch(mut self, calls: impl Syscalls) -> Self {
        self.watched = self.watched.trap(calls);
        self
    }

    /// Has all calls recorded; see [`watch`](Self::watch) for what that costs.
    pub fn watch_all(mut self) -> Self {
        self.watched = self.watched.otherwise(Action::Trap);
        self
    }

    /// Sets how many of its last calls are kept of each child; 64 unless told otherwise.
    pub fn history(mut self, calls: usize) -> Self {
        self.history = calls;
        self
    }

    /// Follows the [`Lineage`] of each program, so that its calls say [by which thread](super::Call::lineage) they were made.
    /// A fault that asks for it ([`Fault::lineage`]) does so, too.
    ///
    /// The calls that make threads and processes are trapped and observed for that, which lets them take some 0.1 ms longer.
    pub fn follow_lineage(mut self) -> Self {
        self.follows = true;
        self
    }

    /// Ends with a program whatever it has started and what is there still, in other sessions and groups as well, so that
    /// nothing is left behind and nobody keeps its pipes open. It follows the [lineage](Self::follow_lineage).
    ///
    /// Whom a hostile program makes by calls of another ABI (`int 0x80`) is not known, and lives on until it makes a call that
    /// the plan traps.
    pub fn end_descendants(mut self) -> Self {
        self.ends_descendants = true;
        self.follow_lineage()
    }

    /// Has all calls through other ABIs, of 32 bits and x32, fail with `ENOSYS`. They run unless told so, and no fault
    /// concerns them. A program of 32 bits starts then, and can't even exit.
    pub fn refuse_other_abis(mut self) -> Self {
        self.foreign_abi = Action::Errno(Errno::ENOSYS);
        self
    }

    /// The faults, in the order in which they were added.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Switches all faults on, in programs that run as well.
    pub fn arm(&self) {
        self.shared.armed.store(true, Ordering::Release);
    }

    /// Switches all faults off: calls run as they are, and are not counted. What a fault has begun (a delay) it ends.
    ///
    /// A plan that is to begin like this is disarmed before a program is started.
    pub fn disarm(&self) {
        self.shared.armed.store(false, Ordering::Release);
    }

    /// Tells whether faults are injected at present.
    pub fn is_armed(&self) -> bool {
        self.shared.is_armed()
    }

    /// Waits until a fault hits a call of any program under this plan, and gives each hit once, in order.
    ///
    /// A hit is there before its call is answered. Those of one program are [`FaultyChild::hit`].
    ///
    /// # Errors
    ///
    /// [`Error::NotHit`] if all programs that were started have ended, with the last calls in the message.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a hit that was not returned is returned by the next `hit`. Up to 4 096 of them wait.
    pub async fn hit(&self) -> Result<Hit> {
        let mut changes = self.shared.changed.subscribe();
        loop {
            {
                let mut feed = self.shared.feed();
                if let Some(hit) = feed.hits.pop_front() {
                    return Ok(hit);
                }
                if feed.started > 0 && feed.running == 0 {
                    return Err(not_hit(feed.last.as_deref()));
                }
            }
            if changes.changed().await.is_err() {
                return Err(not_hit(None));
            }
        }
    }

    /// Starts a program, captures its output, and waits for its end, or kills it at the deadline.
    ///
    /// Standard output and error are captured unless the command says where they go, and the standard input is
    /// empty unless it says what it is. Everything else is that of [`spawn`](Self::spawn) and
    /// [`FaultyChild::outcome`].
    ///
    /// # Errors
    ///
    /// Those of [`spawn`](Self::spawn) and [`FaultyChild::outcome`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills the program.
    pub async fn run(&self, command: &mut Command) -> Result<Outcome> {
        let streams = [Stdio::null(), Stdio::piped(), Stdio::piped()];
        let inherited = command.replace_inherited(streams);
        let spawned = self.spawn(command).await;
        command.restore_inherited(inherited);
        spawned?.outcome().await
    }

    /// Starts a program, whose calls a task on this runtime serves while the caller does something else.
    ///
    /// The task never blocks the runtime, and ends with the child.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPlan`] if a fault can't be meant, or the command has a filter of its own, which this would
    /// replace; and those of [`Command::spawn`].
    ///
    /// # Panics
    ///
    /// If the Tokio runtime has no I/O driver (`enable_io`) or no clock (`enable_time`).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills and reaps what it had started.
    pub async fn spawn(&self, command: &mut Command) -> Result<FaultyChild> {
        for fault in &self.faults {
            fault.check()?;
        }
        let filter = self.filter();
        filter.program()?;
        let recorder = Recorder::new(self.history);
        let (child, listener) = command.spawn_under(filter).await?;
        let faults = Faults::new(self.faults.clone(), self.seed);
        let first = child.id().filter(|_| self.follows_lineage());
        let following = first.map(|pid| Following::of(pid.cast_signed()));
        let tied = command.kills_on_drop();
        let ending = following.clone().filter(|_| self.ends_descendants);
        let descendants = Descendants::new(ending, tied);
        let server = serve::start(
            listener,
            command.waits_killably(),
            faults,
            following,
            descendants.clone(),
            Arc::clone(&self.shared),
            Arc::clone(&recorder),
        );
        Ok(FaultyChild::new(
            child,
            server,
            tied,
            recorder,
            Arc::clone(&self.shared),
            self.deadline,
            descendants,
        ))
    }

    fn follows_lineage(&self) -> bool {
        self.follows || self.faults.iter().any(|fault| fault.selection.needs_lineage())
    }

    /// What traps the calls that faults are about, under the conditions that can be checked in the kernel, and those that
    /// are watched. Calls of other ABIs have other numbers, which nobody can have asked for.
    fn filter(&self) -> Filter {
        let mut filter = self.watched.clone().foreign_abi(self.foreign_abi);
        if self.follows_lineage() {
            filter = filter.trap(Lineage::CREATING);
        }
        for fault in &self.faults {
            filter = filter.trap_if(&fault.numbers, fault.conditions.iter().copied());
        }
        filter
    }
}

impl Default for FaultPlan {
    fn default() -> Self {
        Self::new()
    }
}

impl From<Fault> for FaultPlan {
    fn from(fault: Fault) -> Self {
        Self::new().with(fault)
    }
}

impl FromIterator<Fault> for FaultPlan {
    fn from_iter<I: IntoIterator<Item = Fault>>(faults: I) -> Self {
        faults.into_iter().fold(Self::new(), Self::with)
    }
}

impl FromStr for FaultPlan {
    type Err = ParseFaultError;

    fn from_str(expression: &str) -> Result<Self, ParseFaultError> {
        Self::new().with_expression(expression)
    }
}

/// What the plan has in common with the tasks that serve its programs.
#[derive(Debug)]
pub(super) struct Shared {
    armed: AtomicBool,
    feed: Mutex<Feed>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Feed {
    hits: VecDeque<Hit>,
    started: usize,
    running: usize,
    /// That of the program that has ended last.
    last: Option<Arc<Recorder>>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            armed: AtomicBool::new(true),
            feed: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }
}

impl Shared {
    fn feed(&self) -> MutexGuard<'_, Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Acquire)
    }

    pub(super) fn set_armed(&self, armed: bool) {
        self.armed.store(armed, Ordering::Release);
    }

    pub(super) fn started(&self) {
        let mut feed = self.feed();
        feed.started += 1;
        feed.running += 1;
    }

    pub(super) fn ended(&self, recorder: &Arc<Recorder>) {
        let mut feed = self.feed();
        feed.running = feed.running.saturating_sub(1);
        feed.last = Some(Arc::clone(recorder));
        drop(feed);
        self.changed.send_replace(());
    }

    pub(super) fn hit(&self, hit: Hit) {
        let mut feed = self.feed();
        if feed.hits.len() >= FEED {
            feed.hits.pop_front();
        }
        feed.hits.push_back(hit);
        drop(feed);
        self.changed.send_replace(());
    }
}

pub(super) fn not_hit(recorder: Option<&Recorder>) -> Error {
    let calls = recorder.map_or(Vec::new(), |recorder| recorder.snapshot().last);
    Error::NotHit {
        last_calls: match calls.is_empty() {
            true => "no call was trapped".into(),
            false => format!("its last calls were{}", list(&calls)),
        },
    }
}
