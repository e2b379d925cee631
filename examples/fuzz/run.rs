//! One run of the program.

use std::collections::VecDeque;

use asm_tracer::{
    AnswerError, Command, Creation, Delivery, Filter, Lineage, Notification, Observed, Signal, Stdio,
    Supervisor,
};
use nix::sys::signal::killpg;
use nix::unistd::Pid;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::calls;
use crate::common::{Failure, say};
use crate::family::Family;
use crate::mutation::Mutation;
use crate::options::Options;
use crate::random::Random;

/// How many of the last mutations are shown with a finding.
const SHOWN: usize = 4;
/// Of these die programs that have gone wrong.
const FAULTS: [Signal; 7] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGABRT,
    Signal::SIGTRAP,
    Signal::SIGSYS,
];

/// A crash or a hang.
pub(crate) struct Finding {
    pub(crate) what: String,
    /// What was done last, and where threads hang.
    pub(crate) details: Vec<String>,
}

/// What is done with calls while others are served already.
enum Event {
    /// A thread or process was made.
    Created(Creation, Result<Observed, AnswerError>),
    Rewritten(Result<Delivery, AnswerError>),
}

pub(crate) struct Run<'a> {
    options: &'a Options,
    seed: u64,
    family: Family,
    pending: JoinSet<Event>,
    /// Creations by threads whose last one is not known to have ended.
    waiting: Vec<Notification>,
    spoiled: u64,
    last: VecDeque<String>,
}

/// Runs the program once, with what this seed does to it.
pub(crate) async fn run(options: &Options, seed: u64) -> Result<Option<Finding>, Failure> {
    let scratch = tempfile::tempdir();
    let scratch = scratch.map_err(|error| Failure::new(format!("making a scratch directory: {error}")))?;
    let output = || match options.verbose {
        true => Stdio::inherit(),
        false => Stdio::null(),
    };
    let chosen = options.calls.iter().map(|profile| profile.sysno);
    let mut command = Command::new(&options.program);
    command
        .args(&options.arguments)
        .current_dir(&scratch)
        .stdin(Stdio::null())
        .stdout(output())
        .stderr(output())
        // So that whatever it starts can be killed, even what has made no call yet.
        .process_group(0)
        .filter(
            Filter::new()
                .trap(Lineage::CREATING)
                .trap(chosen.collect::<Vec<_>>())
                .foreign_abi(asm_tracer::Action::Allow),
        );

    let mut supervisor = Supervisor::new();
    let child = supervisor.spawn(&mut command).await;
    let mut child = child.map_err(|error| Failure::not_started(&options.program, &error))?;
    let pid = child.id().map_or(0, |pid| pid as i32);
    let mut run = Run {
        options,
        seed,
        family: Family::of(pid),
        pending: JoinSet::new(),
        waiting: Vec::new(),
        spoiled: 0,
        last: VecDeque::new(),
    };
    let deadline = Instant::now() + options.timeout;
    loop {
        tokio::select! {
            call = supervisor.next() => match call {
                Some(call) => run.serve(call)?,
                None => break,
            },
            Some(Ok(event)) = run.pending.join_next() => run.handle(event)?,
            () = sleep_until(deadline) => {
                let finding = run.hang();
                run.kill_all(&mut supervisor, pid).await?;
                child.kill().await?;
                return Ok(Some(finding));
            }
        }
    }
    let status = child.wait().await?;
    Ok(run.crash(status))
}

impl Run<'_> {
    fn serve(&mut self, call: Notification) -> Result<(), Failure> {
        let (Some(sysno), Some((tid, thread))) = (call.sysno(), self.family.caller(&call)) else {
            return settle(call.continue_syscall());
        };
        if Lineage::CREATING.contains(&sysno) {
            self.follow(call);
            return Ok(());
        }
        let number = thread.count(sysno);
        let mut random = Random::of(self.seed, &thread.name, sysno, number);
        let profile = calls::profile(sysno).filter(|_| random.happens(self.options.rate));
        let mutation = profile.and_then(|profile| Mutation::choose(profile, &call, &mut random));
        let Some(mutation) = mutation else {
            return settle(call.continue_syscall());
        };
        thread.look_at_program(tid);
        let (who, program) = (&thread.name, &thread.program);
        let done = format!("{sysno} {number} of {who} ({program}) {mutation}");
        self.note(done);
        match mutation {
            Mutation::Error(errno) => settle(call.error(errno)),
            Mutation::Value(value) => settle(call.respond(value)),
            Mutation::Argument { index, value } => {
                let mut args = call.args();
                args[index] = value;
                let rewrite = call.continue_with(args);
                self.pending.spawn(async { Event::Rewritten(rewrite.await) });
                Ok(())
            }
        }
    }

    /// Lets a thread or process be made, and learns its tid, which is the result.
    fn follow(&mut self, call: Notification) {
        if self.family.is_creating(&call) {
            return self.waiting.push(call);
        }
        let creation = self.family.begin(&call);
        let observed = call.continue_and_observe();
        self.pending
            .spawn(async move { Event::Created(creation, observed.await) });
    }

    fn handle(&mut self, event: Event) -> Result<(), Failure> {
        let handled = match event {
            Event::Created(creation, Ok(observed)) => {
                self.family.end(creation, Some(observed));
                Ok(())
            }
            // A debugger has the thread, for example. It is not known by whom it was made then.
            Event::Created(creation, Err(refused)) => {
                self.family.end(creation, None);
                settle(refused.notification.continue_syscall())
            }
            Event::Rewritten(Ok(_)) => Ok(()),
            Event::Rewritten(Err(refused)) => settle(refused.notification.continue_syscall()),
        };
        for call in std::mem::take(&mut self.waiting) {
            self.follow(call);
        }
        handled
    }

    fn note(&mut self, done: String) {
        if self.options.verbose {
            say(&format!("fuzz: {done}"));
        }
        self.spoiled += 1;
        self.last.push_back(done);
        if self.last.len() > SHOWN {
            self.last.pop_front();
        }
    }

    fn finding(&self, what: String, mut details: Vec<String>) -> Finding {
        let before = self.spoiled - self.last.len() as u64;
        if before > 0 {
            details.push(format!("after {before} other calls were spoiled"));
        }
        details.extend(self.last.iter().map(|done| format!("after {done}")));
        Finding { what, details }
    }

    /// Everybody has ended; did somebody crash?
    fn crash(self, status: ExitStatus) -> Option<Finding> {
        let of = |tid| {
            let thread = self.family.thread(tid);
            thread.map_or(tid.to_string(), |thread| {
                format!("{} ({})", thread.name, thread.program)
            })
        };
        let signal = |number| Signal::try_from(number).ok();
        let mut died = status
            .signal()
            .and_then(signal)
            .map(|signal| ("0".into(), signal));
        for process in &self.family.processes {
            let fault = process.death().filter(|signal| FAULTS.contains(signal));
            died = died.or(fault.map(|fault| (of(process.pid), fault)));
        }
        // What a shell says of its children, for kernels that don't.
        let told = status.code().and_then(|code| signal(code - 128));
        let told = told.filter(|signal| FAULTS.contains(signal));
        died = died.or(told.map(|signal| ("a process of 0".into(), signal)));
        died.map(|(who, signal)| self.finding(format!("crash: {who} died of {signal}"), vec![]))
    }

    /// Where everybody is at the deadline.
    fn hang(&self) -> Finding {
        let mut details = Vec::new();
        for process in &self.family.processes {
            for (tid, place) in process
                .threads()
                .into_iter()
                .filter(|(_, place)| place != "ended")
            {
                let thread = self.family.thread(tid);
                let who = thread.map_or(format!("thread {tid}"), |thread| thread.name.to_string());
                let program = std::fs::read_to_string(format!("/proc/{tid}/comm")).unwrap_or_default();
                details.push(format!(
                    "{who} ({}) is {place}",
                    program.trim_end().escape_debug()
                ));
            }
        }
        self.finding("hang: the deadline has passed".into(), details)
    }

    /// Kills the program and whatever it has started, until nobody is left.
    async fn kill_all(&mut self, supervisor: &mut Supervisor, group: i32) -> Result<(), Failure> {
        let all = async {
            loop {
                let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
                self.family.processes.iter().for_each(|process| process.kill());
                match supervisor.next().await {
                    // Somebody has got away into a group of its own.
                    Some(call) => drop(self.family.caller(&call)),
                    None => break,
                }
            }
        };
        let late = |_| Failure::new("what a run left behind does not die");
        timeout(Duration::from_secs(60), all).await.map_err(late)
    }
}

/// An answer that does not arrive is ordinary: the target is gone.
fn settle(answered: Result<Delivery, AnswerError>) -> Result<(), Failure> {
    answered.map(drop).map_err(|refused| refused.error.into())
}
