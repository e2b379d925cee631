//! What is told of a sweep, and the order of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::case::Case;
use super::cases;
use super::engine::Engine;
use super::journal::{Header, Journal};
use super::learn::{self, Learned};
use super::progress::Progress;
use super::report::{LeftOut, Report};
use super::run::{Setting, blocking};
use super::stamp::stamps;
use super::trial::micros;
use crate::error::{Error, Result};
use crate::filter::Syscalls;
use crate::process::Command;

/// How many runs there are at a time at most, unless told otherwise. Each takes some ten descriptors, of which a process has
/// 1024 on most machines.
const JOBS: usize = 64;
/// How many runs there are at most, unless told otherwise, and for how long.
const LIMIT: usize = 10_000;
const TIME: Duration = Duration::from_secs(3600);
/// A run that takes this much longer than one without a fault hangs, but not before it took this long.
const PATIENCE: u32 = 20;
const LEAST: Duration = Duration::from_secs(1);
/// The format of the journal.
const VERSION: u32 = 1;

/// Makes every call of a program fail with every error that it documents, one in each run, and classifies what comes of it.
///
/// See [the module](super) for how.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> asm_tracer::Result<()> {
/// use asm_tracer::sweep::{Sweep, Verdict};
/// use asm_tracer::{Command, Sysno};
///
/// let mut command = Command::new("cp");
/// command.args(["/etc/passwd", "copy"]);
/// let report = Sweep::new(command).calls([Sysno::fstat, Sysno::close]).limit(20).run().await?;
/// assert_eq!(report.count(Verdict::Crash), 0, "{report}");
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing happens before it is run"]
pub struct Sweep {
    command: Command,
    files: Option<PathBuf>,
    stdin: Option<Vec<u8>>,
    calls: Option<Vec<i64>>,
    errors: Option<Vec<Errno>>,
    only: Option<Vec<Case>>,
    jobs: usize,
    limit: usize,
    time: Duration,
    deadline: Option<Duration>,
    journal: Option<PathBuf>,
    scratch: Option<PathBuf>,
    writable: Vec<PathBuf>,
    online: bool,
    confined: bool,
    repeat_with: String,
    watcher: Option<Watcher>,
}

type Watcher = Box<dyn FnMut(&Progress<'_>) + Send>;

impl std::fmt::Debug for Sweep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sweep")
            .field("command", &words(&self.command))
            .finish_non_exhaustive()
    }
}

/// What is swept.
impl Sweep {
    /// Begins a sweep of a program.
    ///
    /// The command says what is run, with which arguments and variables, as which user. Its working directory, `HOME` and
    /// `TMPDIR` are in the scratch directory of each run, and relative paths among its arguments lead there; that of the
    /// program itself is looked up from here. Its streams are the sweep's.
    pub fn new(command: Command) -> Self {
        Self {
            command,
            files: None,
            stdin: None,
            calls: None,
            errors: None,
            only: None,
            jobs: (2 * std::thread::available_parallelism().map_or(1, usize::from)).min(JOBS),
            limit: LIMIT,
            time: TIME,
            deadline: None,
            journal: None,
            scratch: None,
            writable: Vec::new(),
            online: false,
            confined: true,
            repeat_with: "sweep --only".into(),
            watcher: None,
        }
    }

    /// Begins each run with a copy of what is in this directory in its working directory, which is empty otherwise.
    pub fn files(mut self, directory: impl Into<PathBuf>) -> Self {
        self.files = Some(directory.into());
        self
    }

    /// What each run reads from its standard input, which is `/dev/null` otherwise.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Only these calls fail. All that have documented errors do otherwise.
    pub fn calls(mut self, calls: impl Syscalls) -> Self {
        self.calls = Some(calls.numbers());
        self
    }

    /// Calls fail with these errors only, of those that are documented for them.
    pub fn errors(mut self, errors: impl IntoIterator<Item = Errno>) -> Self {
        self.errors = Some(errors.into_iter().collect());
        self
    }

    /// Only these cases are run, to repeat what was found, for example. They need not be documented errors.
    pub fn only(mut self, cases: impl IntoIterator<Item = Case>) -> Self {
        self.only = Some(cases.into_iter().collect());
        self
    }
}

/// How it is run.
impl Sweep {
    /// How many runs there are at a time; twice the number of CPUs, up to 64, unless told otherwise. Each takes some ten
    /// descriptors of this process; if there are too few for all, or too little of something else, fewer run at a time.
    pub fn jobs(mut self, jobs: usize) -> Self {
        self.jobs = jobs.max(1);
        self
    }

    /// How many cases are run at most; 10 000 unless told otherwise. If there are more, the first calls of each kind come first.
    pub fn limit(mut self, cases: usize) -> Self {
        self.limit = cases;
        self
    }

    /// For how long cases are begun; an hour unless told otherwise.
    pub fn time_limit(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// How long a run may take before it is taken for a hang; 20 times what one without a fault takes, and a second at
    /// least, unless told otherwise. Those without a fault may take a minute in any case.
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.deadline = Some(limit);
        self
    }

    /// Keeps what is done in this file, and resumes what is there of this very sweep.
    ///
    /// A sweep that was dropped or killed goes on where it was. The program and the files among its arguments have to be as they
    /// were; nobody checks whether what they load, read and find in the environment is, which should have a journal of its own
    /// otherwise.
    pub fn journal(mut self, path: impl Into<PathBuf>) -> Self {
        self.journal = Some(path.into());
        self
    }

    /// Makes the scratch directories in this one, which has to be there, and not in `TMPDIR`.
    pub fn scratch(mut self, directory: impl Into<PathBuf>) -> Self {
        self.scratch = Some(directory.into());
        self
    }

    /// Lets runs write to this file or below this directory as well, and reach the Unix sockets there.
    pub fn writable(mut self, path: impl Into<PathBuf>) -> Self {
        self.writable.push(path.into());
        self
    }

    /// Lets runs reach other machines. Each of some hundred runs does what the program does there.
    pub fn online(mut self) -> Self {
        self.online = true;
        self
    }

    /// Lets runs write wherever the user may, and reach whatever there is.
    ///
    /// # Security
    ///
    /// A program whose calls fail may do what nobody has thought of, such as removing files somewhere else.
    pub fn unconfined(mut self) -> Self {
        self.confined = false;
        self
    }

    /// What stands before the case in command lines that repeat one; `sweep --only` unless told otherwise.
    pub fn repeat_with(mut self, words: impl Into<String>) -> Self {
        self.repeat_with = words.into();
        self
    }

    /// Has this told of each case that is done, in place.
    pub fn on_progress(mut self, watcher: impl FnMut(&Progress<'_>) + Send + 'static) -> Self {
        self.watcher = Some(Box::new(watcher));
        self
    }

    /// Runs it.
    ///
    /// # Errors
    ///
    /// - [`Error::NotSweepable`] if the program does not do the same in each run without a fault, or makes too many calls;
    /// - [`Error::InvalidJournal`] if the journal is that of another sweep or of another version of the program, or
    ///   can't be read or written;
    /// - [`Error::InvalidCommand`] if the command has streams or a working directory of its own, or a Landlock ruleset
    ///   while runs are confined, and [`Error::InvalidPlan`] if it has a filter;
    /// - [`Error::Unsupported`] if runs can't be confined on this kernel;
    /// - those of [`FaultPlan::spawn`](crate::inject::FaultPlan::spawn), for a program that can't be started.
    ///
    /// # Panics
    ///
    /// If the Tokio runtime has no I/O driver (`enable_io`) or no clock (`enable_time`).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills what runs, and removes the scratch directories. What is in the [journal](Self::journal)
    /// stays there.
    pub async fn run(mut self) -> Result<Report> {
        let started = Instant::now();
        let header = self.header()?;
        let mut journal = None;
        let mut known = Vec::new();
        if let Some(path) = self.journal.take() {
            let header = header.clone();
            let (opened, trials) = blocking(move || Journal::open(&path, &header)).await?;
            journal = Some(opened);
            known = trials;
        }
        let setting = Arc::new(self.setting()?);
        self.tell(&Progress {
            total: 0,
            done: 0,
            findings: 0,
            last: None,
        });
        let patience = learn::DEADLINE.max(self.deadline.unwrap_or_default());
        let learned = Arc::new(learn::learn(&setting, patience).await?);
        let (cases, all) = self.cases(&learned);
        let deadline = self.deadline;
        let deadline = deadline.unwrap_or_else(|| (learned.baseline.duration * PATIENCE).max(LEAST));
        let engine = Engine::new(setting, Arc::clone(&learned), deadline, journal);
        let until = started.checked_add(self.time);
        let jobs = self.jobs;
        let done = engine
            .run_all(&cases, known, jobs, until, |progress| self.tell(progress))
            .await?;
        Ok(Report {
            command: header.command,
            baseline: learned.baseline.clone(),
            left_out: LeftOut {
                by_limit: all - cases.len() as u64,
                by_time: (cases.len() - done.trials.len()) as u64,
            },
            trials: done.trials,
            elapsed: micros(started.elapsed()),
            resumed: done.resumed,
            repeat_with: self.repeat_with,
        })
    }
}

impl Sweep {
    fn header(&self) -> Result<Header> {
        Ok(Header {
            version: VERSION,
            command: words(&self.command),
            files: self.files.clone(),
            stdin: self.stdin.clone(),
            confined: self.confined,
            writable: self.writable.clone(),
            online: self.online,
            stamps: stamps(&self.command, self.files.as_deref(), &self.writable)?,
        })
    }

    fn setting(&self) -> Result<Setting> {
        let failed = |operation| move |source| Error::Io { operation, source };
        let mut command = self.command.clone();
        if command.redirected() != [false; 3] || command.has_directory() {
            return Err(Error::InvalidCommand(
                "the streams and the working directory of a sweep are its own",
            ));
        }
        if command.has_ruleset() && self.confined {
            return Err(Error::InvalidCommand(
                "the Landlock ruleset of a sweep is its own, unless it is unconfined",
            ));
        }
        command
            .anchor_program()
            .map_err(failed("looking up the program"))?;
        // So that whatever it starts can be told from others.
        command.process_group(0);
        // No run survives the sweep.
        command.kill_on_drop(true);
        let parent = match &self.scratch {
            Some(directory) => scratch_directory(directory),
            None => scratch_directory(&std::env::temp_dir()),
        };
        Ok(Setting {
            command,
            parent: Arc::new(parent.map_err(failed("making a scratch directory"))?),
            files: self.files.clone(),
            stdin: self.stdin.clone(),
            writable: self.confined.then(|| self.writable.clone()),
            online: self.online,
            calls: self.calls.clone(),
        })
    }

    /// Those that are wanted, and how many there are in all.
    fn cases(&self, learned: &Learned) -> (Vec<Case>, u64) {
        if let Some(only) = &self.only {
            let wanted = only.iter().take(self.limit).cloned();
            return (wanted.collect(), only.len() as u64);
        }
        let errors = self.errors.as_deref();
        let wanted = cases::of(&learned.calls, errors).take(self.limit);
        (wanted.collect(), cases::count(&learned.calls, errors))
    }

    fn tell(&mut self, progress: &Progress<'_>) {
        if let Some(watcher) = &mut self.watcher {
            watcher(progress);
        }
    }
}

fn scratch_directory(parent: &Path) -> std::io::Result<tempfile::TempDir> {
    // As the program may see it, without links.
    let parent = std::fs::canonicalize(parent)?;
    tempfile::Builder::new().prefix("sweep-").tempdir_in(parent)
}

fn words(command: &Command) -> Vec<String> {
    let program = std::iter::once(command.get_program());
    let words = program.chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect()
}
