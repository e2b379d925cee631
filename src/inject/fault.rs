//! One fault: which calls, which of their occurrences, and what becomes of them.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use syscalls::Sysno;

use super::effect::{Answer, Effect};
use super::names::Wanted;
use super::occurrence::Occurrences;
use super::peers;
use super::selection::{ProgramTest, Selection, ThreadTest};
use crate::error::{Error, Result};
use crate::filter::{Condition, Syscalls};
use crate::syscall::SignalNumber;
use crate::syscall::arguments;

/// A fault to be injected: which calls it concerns, which occurrences of them it hits, and with which effect.
///
/// The methods take the fault and give it back, so that one reads as a sentence. All conditions must hold for a call to be
/// concerned; only calls that are concerned are counted ([`Occurrences`] says how). Without a word about the occurrences,
/// all are hit. Delay, signal and answer (an errno, a value, a shorter length, other arguments) can be combined; of several
/// answers the last one counts.
///
/// An expression of `strace(1)` is a fault, too: `"write:error=ENOSPC:when=3+2".parse::<Fault>()`; see [`FaultPlan`](super::FaultPlan)
/// for what is understood.
///
/// # Examples
///
/// ```
/// use asm_tracer::inject::{Fault, FaultPlan};
/// use asm_tracer::{Errno, Signal, Sysno};
/// use std::time::Duration;
///
/// let full = Fault::on(Sysno::write).path("/tmp/log").nth(3).error(Errno::ENOSPC);
/// let slow = Fault::on([Sysno::fsync, Sysno::fdatasync]).every(2).delay_before(Duration::from_millis(5));
/// let rude = Fault::on(Sysno::read).fd(0).signal(Signal::SIGUSR1);
/// let plan = FaultPlan::new().with(full).with(slow).with(rude);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Fault {
    /// In order, each once.
    pub(super) numbers: Vec<i64>,
    pub(super) conditions: Vec<Condition>,
    pub(super) selection: Selection,
    pub(super) occurrences: Occurrences,
    pub(super) probability: f64,
    pub(super) effect: Effect,
}

/// Which calls.
impl Fault {
    /// Begins a fault of these calls.
    pub fn on(calls: impl Syscalls) -> Self {
        let mut numbers = calls.numbers();
        numbers.sort_unstable();
        numbers.dedup();
        Self {
            numbers,
            conditions: Vec::new(),
            selection: Selection::default(),
            occurrences: Occurrences::ALL,
            probability: 1.0,
            effect: Effect::default(),
        }
    }

    /// Only calls whose argument meets the condition, which the filter checks in the kernel; see
    /// [`filter::arg`](crate::filter::arg) and [`filter::int_arg`](crate::filter::int_arg).
    ///
    /// # Examples
    ///
    /// ```
    /// use asm_tracer::filter::arg;
    /// use asm_tracer::inject::Fault;
    /// use asm_tracer::{Errno, Sysno};
    ///
    /// // Only large writes fail.
    /// let fault = Fault::on(Sysno::write).when(arg(2).ge(4096)).error(Errno::ENOSPC);
    /// ```
    pub fn when(mut self, condition: Condition) -> Self {
        self.conditions.push(condition);
        self
    }

    /// Only calls with this file name, or on a descriptor of this file, or that want to reach the Unix socket with this name.
    ///
    /// A relative path is relative to the working directory of this process; those of the target are resolved from its
    /// own. Links are followed where the directory exists. The name is read from the target's memory on another thread,
    /// which takes some microseconds for each call that might be concerned; a name that can't be read within a second
    /// is no match. As it is with each name in memory, another thread of a hostile target can change it afterwards.
    pub fn path(mut self, path: impl AsRef<Path>) -> Self {
        self.selection.path = Some(Wanted::exactly(path.as_ref()));
        self
    }

    /// Only calls with a file name in this directory or below it, or on a descriptor of such a file; see
    /// [`path`](Self::path).
    pub fn under(mut self, directory: impl AsRef<Path>) -> Self {
        self.selection.path = Some(Wanted::under(directory.as_ref()));
        self
    }

    /// Only calls with a file name, or on a descriptor of a file, that is neither in this directory nor below it, or that names a
    /// Unix socket that is not. It can be said of several directories; see [`path`](Self::path). A name that can't be read counts,
    /// unless there is no readable memory.
    pub fn outside(mut self, directory: impl AsRef<Path>) -> Self {
        self.selection.outside.push(Wanted::under(directory.as_ref()));
        self
    }

    /// Only calls that want to connect or send to an address on another machine, or that may be on one: anything but the
    /// loopback of IP, and what has none, as Unix sockets. The address is read as a [`path`](Self::path) is; one that can't be
    /// read counts, unless there is no readable memory.
    ///
    /// Calls that send on a connected socket name nobody, and are not concerned: most often `connect` has named whom they reach, but who
    /// was accepted has named himself.
    ///
    /// # Examples
    ///
    /// ```
    /// use asm_tracer::inject::{Fault, FaultPlan};
    /// use asm_tracer::{Errno, Sysno};
    ///
    /// let unplugged = Fault::on([Sysno::connect, Sysno::sendto, Sysno::sendmsg, Sysno::sendmmsg])
    ///     .remote()
    ///     .error(Errno::ENETUNREACH);
    /// # let _: FaultPlan = [unplugged].into_iter().collect();
    /// ```
    pub fn remote(mut self) -> Self {
        self.selection.remote = true;
        self
    }

    /// Only calls on the descriptor with this number in the target.
    pub fn fd(mut self, number: i32) -> Self {
        self.selection.descriptor = Some(number);
        self
    }

    /// Only calls of the thread with this id, as this process numbers it.
    pub fn thread(mut self, tid: i32) -> Self {
        self.selection.thread = Some(ThreadTest::Id(tid));
        self
    }

    /// Only calls of threads that lead their process.
    pub fn main_thread(mut self) -> Self {
        self.selection.thread = Some(ThreadTest::Leader);
        self
    }

    /// Only calls of threads of this name (`pthread_setname_np(3)`), of which the kernel keeps 15 bytes.
    pub fn thread_named(mut self, name: impl Into<OsString>) -> Self {
        self.selection.thread = Some(ThreadTest::Named(name.into()));
        self
    }

    /// Only calls of the thread with this name in the [`Lineage`](crate::Lineage) of the program: `0` is its first thread,
    /// `0.2` the second one that this makes, as a thread or as a process, and so on.
    ///
    /// The calls that make threads are followed for that, which lets them take some 0.1 ms longer.
    pub fn lineage(mut self, name: impl Into<String>) -> Self {
        self.selection.thread = Some(ThreadTest::Descended(name.into()));
        self
    }

    /// Only calls of processes that have executed this program and no other since, or are copies of such.
    ///
    /// A name with a slash is that of the executable file; one without is the last part of the name under which it was
    /// executed, which is also how a script is known.
    pub fn after_exec_of(mut self, program: impl Into<OsString>) -> Self {
        self.selection.program = Some(ProgramTest::new(program.into()));
        self
    }
}

/// Which occurrences.
impl Fault {
    /// Only the `n`th occurrence, from 1.
    pub fn nth(self, n: u64) -> Self {
        self.occurrences(Occurrences::nth(n))
    }

    /// Every `n`th occurrence: the `n`th, the `2n`th, and so on.
    pub fn every(self, n: u64) -> Self {
        self.occurrences(Occurrences::starting_at(n).every(n))
    }

    /// This occurrence and all that follow.
    pub fn starting_at(self, first: u64) -> Self {
        self.occurrences(Occurrences::starting_at(first))
    }

    /// The occurrences that are not later than this one.
    pub fn until(self, last: u64) -> Self {
        let occurrences = self.occurrences.until(last);
        self.occurrences(occurrences)
    }

    /// These occurrences.
    pub fn occurrences(mut self, occurrences: Occurrences) -> Self {
        self.occurrences = occurrences;
        self
    }

    /// Each of the occurrences with this probability, from 0 to 1.
    ///
    /// Whether it is hit depends on the seed of the plan, the place of the fault in the plan and the number of the occurrence, and
    /// on nothing else: another run has the same faults.
    pub fn with_probability(mut self, probability: f64) -> Self {
        self.probability = probability;
        self
    }
}

/// With which effect.
impl Fault {
    /// The call fails with this error without running. [`Errno::UnknownErrno`], which is none, is refused when the plan is run.
    pub fn error(self, errno: Errno) -> Self {
        self.answer(Answer::Error(u16::try_from(errno as i32).unwrap_or_default()))
    }

    /// The call returns this value without running: a success that was none. −4095..=−1 is an errno to the target.
    pub fn returns(self, value: i64) -> Self {
        self.answer(Answer::Return(value))
    }

    /// The call really runs, with at most so many bytes: a short read or write.
    ///
    /// For `read`, `write`, their relatives with an offset or an array of buffers, `recvfrom`, `sendto`, `getrandom`,
    /// `sendfile`, `splice`, `tee` and `copy_file_range`.
    ///
    /// A program that waits for events by edges (`EPOLLET`), as those on Tokio do, takes a short read from a socket for the last
    /// one, which it is there, and waits for more: that it hangs then is no mistake of it.
    pub fn short(self, bytes: usize) -> Self {
        self.answer(Answer::Short(bytes))
    }

    /// The call runs with another value in the argument with this index, from 0. It can be said of several arguments.
    pub fn argument(self, index: usize, value: i64) -> Self {
        let mut arguments = match &self.effect.answer {
            Some(Answer::Arguments(arguments)) => arguments.clone(),
            _ => Vec::new(),
        };
        arguments.push((index, value));
        self.answer(Answer::Arguments(arguments))
    }

    /// The thread gets this signal at the call. Unless the signal ends it, the call runs then, or is answered as the fault says.
    pub fn signal(mut self, signal: impl Into<SignalNumber>) -> Self {
        self.effect.signals = vec![signal.into().as_raw()];
        self
    }

    /// The call waits before it runs or is answered.
    pub fn delay_before(mut self, delay: Duration) -> Self {
        self.effect.delay_before = delay;
        self
    }

    /// The call runs, and its result is held back for so long; see [the module](super#delays).
    pub fn delay_after(mut self, delay: Duration) -> Self {
        self.effect.delay_after = delay;
        self
    }

    fn answer(mut self, answer: Answer) -> Self {
        self.effect.answer = Some(answer);
        self
    }
}

impl Fault {
    /// Finds what can't be meant.
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |why: &str| Err(Error::InvalidPlan(format!("{}: {why}", self.calls())));
        if self.effect.is_nothing() {
            return refuse("no effect is said of it");
        }
        if let Some(Answer::Arguments(arguments)) = &self.effect.answer
            && arguments.iter().any(|(index, _)| *index > 5)
        {
            return refuse("a call has the arguments 0 to 5");
        }
        // It would be a success (T15).
        if self.effect.answer == Some(Answer::Error(0)) {
            return refuse("errno 0 is no error; use `returns(0)`");
        }
        if !self.occurrences.is_possible() {
            return refuse("occurrences are counted from 1, and the last is not before the first");
        }
        if !(0.0..=1.0).contains(&self.probability) {
            return refuse("a probability is between 0 and 1");
        }
        if self
            .effect
            .signals
            .iter()
            .any(|signal| !(1..=64).contains(signal))
        {
            return refuse("there are the signals 1 to 64");
        }
        let known = || self.numbers.iter().filter_map(|number| sysno(*number));
        if let Some(Answer::Short(_)) = self.effect.answer
            && let Some(call) = known().find(|call| arguments::length(*call).is_none())
        {
            return refuse(&format!("{call} has no length that could be shortened"));
        }
        let rewrites = matches!(self.effect.answer, Some(Answer::Short(_) | Answer::Arguments(_)));
        if rewrites && !self.effect.delay_after.is_zero() {
            return refuse("a call that is rewritten can't be held back as well");
        }
        let about = |call: Sysno| !arguments::descriptors(call).is_empty();
        if (self.selection.path.is_some() || !self.selection.outside.is_empty())
            && !known().any(|call| about(call) || !arguments::paths(call).is_empty())
        {
            return refuse("there is neither a path nor a descriptor among the arguments");
        }
        if self.selection.remote && !known().any(peers::can_name) {
            return refuse("there is no address among the arguments");
        }
        if self.selection.descriptor.is_some() && !known().any(about) {
            return refuse("there is no descriptor among the arguments");
        }
        Ok(())
    }

    /// The names of the calls, or of the first few.
    fn calls(&self) -> String {
        let name = |number: &i64| sysno(*number).map_or(number.to_string(), |call| call.name().to_owned());
        let mut names: Vec<_> = self.numbers.iter().take(4).map(name).collect();
        if self.numbers.len() > names.len() {
            names.push("…".into());
        }
        match names.is_empty() {
            true => "no call".into(),
            false => names.join(", "),
        }
    }
}

pub(super) fn sysno(number: i64) -> Option<Sysno> {
    usize::try_from(number).ok().and_then(Sysno::new)
}
