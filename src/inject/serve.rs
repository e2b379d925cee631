//! The task that serves the calls of one program.

use std::collections::HashMap;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::task::{JoinHandle, JoinSet};

use super::counts::Counts;
use super::effect::{Answer, Effect};
use super::fault::Fault;
use super::following::{Descendants, Following};
use super::hold::Holds;
use super::names;
use super::occurrence;
use super::plan::Shared;
use super::record::{Call, Hit, Recorder};
use super::signal::{ends_process, is_being_killed, recipient, send, send_to_thread};
use crate::error::{Error, Result};
use crate::notify::{AnswerError, Arch, Listener, Notification};
use crate::syscall::arguments::{self, Length};

/// The faults of a plan as one program has them.
#[derive(Debug)]
pub(super) struct Faults {
    faults: Vec<Fault>,
    /// Which of them are about a call of this number.
    by_number: HashMap<i64, Vec<usize>>,
    seed: u64,
}

impl Faults {
    pub(super) fn new(faults: Vec<Fault>, seed: u64) -> Self {
        let mut by_number = HashMap::<i64, Vec<usize>>::new();
        for (index, fault) in faults.iter().enumerate() {
            for number in &fault.numbers {
                by_number.entry(*number).or_default().push(index);
            }
        }
        Self {
            faults,
            by_number,
            seed,
        }
    }

    /// The faults that may be meant, by what is in registers.
    fn candidates<'a>(&'a self, call: &Notification) -> impl Iterator<Item = (usize, &'a Fault)> {
        let native = call.arch() == Arch::X86_64;
        let indices = self.by_number.get(&call.nr()).filter(|_| native);
        let args = call.args();
        let faults = indices.map_or(&[][..], Vec::as_slice).iter();
        faults
            .filter_map(|index| Some((*index, self.faults.get(*index)?)))
            .filter(move |(_, fault)| fault.conditions.iter().all(|condition| condition.holds(&args)))
    }
}

#[derive(Debug)]
struct Handler {
    faults: Faults,
    counts: Mutex<Counts>,
    shared: Arc<Shared>,
    recorder: Arc<Recorder>,
    holds: Holds,
    following: Option<Arc<Following>>,
    /// Whether a signal leaves a call alone that waits for its answer.
    killable: bool,
}

pub(super) fn start(
    listener: Listener,
    killable: bool,
    faults: Faults,
    following: Option<Arc<Following>>,
    descendants: Descendants,
    shared: Arc<Shared>,
    recorder: Arc<Recorder>,
) -> JoinHandle<()> {
    let running = Running::new(Arc::clone(&shared), Arc::clone(&recorder), descendants);
    let handler = Handler {
        faults,
        counts: Mutex::default(),
        shared,
        recorder,
        holds: Holds::default(),
        following,
        killable,
    };
    tokio::spawn(serve(listener, Arc::new(handler), running))
}

/// Says so when the task has ended, in whatever way.
struct Running {
    shared: Arc<Shared>,
    recorder: Arc<Recorder>,
    /// They end before the listener, which kills the child.
    #[allow(dead_code)] // For its destructor.
    descendants: Descendants,
}

impl Running {
    fn new(shared: Arc<Shared>, recorder: Arc<Recorder>, descendants: Descendants) -> Self {
        shared.started();
        Self {
            shared,
            recorder,
            descendants,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.recorder.ended();
        self.shared.ended(&self.recorder);
    }
}

async fn serve(mut listener: Listener, handler: Arc<Handler>, _running: Running) {
    let mut tasks = JoinSet::new();
    while let Some(call) = next(&mut listener, &mut tasks).await {
        if handler
            .following
            .as_ref()
            .is_some_and(|following| following.ends(&call))
        {
            continue;
        }
        if !handler.deals_with(&call) {
            handler.pass(call);
            continue;
        }
        // Polled in place once: most calls have their answer then, and take no task.
        let mut handling = Box::pin(Arc::clone(&handler).handle(call));
        if poll_fn(|cx| Poll::Ready(handling.as_mut().poll(cx)))
            .await
            .is_pending()
        {
            tasks.spawn(handling);
        }
    }
}

/// The next call; gathers what has ended meanwhile.
async fn next(listener: &mut Listener, tasks: &mut JoinSet<()>) -> Option<Notification> {
    poll_fn(|cx: &mut Context<'_>| {
        while let Poll::Ready(Some(_)) = tasks.poll_join_next(cx) {}
        Pin::new(&mut *listener).poll_next(cx)
    })
    .await
}

impl Handler {
    /// Tells whether there may be more to a call than to let it run.
    fn deals_with(&self, call: &Notification) -> bool {
        let faulty = self.shared.is_armed() && self.faults.candidates(call).next().is_some();
        let following = self.following.as_ref();
        faulty || following.is_some_and(|following| Following::concerns(call) || following.is_undecided(call))
    }

    /// Lets a call run that no fault is about at present.
    fn pass(&self, call: Notification) {
        // One that is held back comes a second time when it really runs.
        if !self.holds.take_pass(&call) {
            let lineage = self
                .following
                .as_ref()
                .and_then(|following| following.name(&call));
            self.recorder
                .called(Call::new(&call, self.recorder.now(), lineage));
        }
        continue_call(call);
    }

    /// Lets a call run as it is, and follows whom it makes.
    async fn let_run(&self, call: Notification) {
        match &self.following {
            Some(following) if Following::concerns(&call) => following.creating(call).await,
            _ => continue_call(call),
        }
    }

    async fn handle(self: Arc<Self>, call: Notification) {
        if self.holds.take_pass(&call) {
            return self.let_run(call).await;
        }
        let lineage = match &self.following {
            Some(following) => following.decided_name(&call).await,
            None => None,
        };
        let mut record = Call::new(&call, self.recorder.now(), lineage.clone());
        let fired = self.fired(&call, lineage.as_ref()).await;
        let Some((_, first)) = fired.first().copied() else {
            self.recorder.called(record);
            return self.let_run(call).await;
        };
        record.set_file(file(&call).await);
        let mut effect = Effect::default();
        for (index, _) in &fired {
            if let Some(fault) = self.faults.faults.get(*index) {
                effect.compose(&fault.effect);
            }
        }
        let indices = fired.iter().map(|(index, _)| *index).collect();
        self.recorder.called(record.clone());
        let hit = Hit::new(record, indices, first, effect.clone());
        let place = self.recorder.hit(&hit);
        self.shared.hit(hit);
        if let Err(error) = self.inject(call, &effect).await {
            self.recorder.failed(place, error.to_string());
        }
    }

    /// The faults that hit the call, with the occurrence that it is to each of them.
    async fn fired(&self, call: &Notification, lineage: Option<&Arc<str>>) -> Vec<(usize, u64)> {
        let mut fired = Vec::new();
        if !self.shared.is_armed() {
            return fired;
        }
        for (index, fault) in self.faults.candidates(call) {
            if !fault.selection.concerns(call, lineage.map(|name| &**name)).await {
                continue;
            }
            let occurrence = {
                let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
                counts.next(index, call.tid().unwrap_or(0), call.nr(), lineage)
            };
            let happens = || occurrence::happens(fault.probability, self.faults.seed, index, occurrence);
            if fault.occurrences.contains(occurrence) && happens() {
                fired.push((index, occurrence));
            }
        }
        fired
    }

    /// Does to the call what the effect says. Where that fails, the call runs as it is.
    async fn inject(&self, call: Notification, effect: &Effect) -> Result<()> {
        if !effect.delay_before.is_zero() {
            tokio::time::sleep(effect.delay_before).await;
        }
        if self.killable || effect.signals.is_empty() {
            return self.finish(call, effect).await;
        }
        // A signal would take the call back, which would come again, and be hit again.
        let thread = recipient(&call);
        let mut quiet = effect.clone();
        quiet.signals.clear();
        self.finish(call, &quiet).await?;
        let thread = thread?;
        effect.signals.iter().try_for_each(|signal| send(thread, *signal))
    }

    async fn finish(&self, call: Notification, effect: &Effect) -> Result<()> {
        let held = !effect.delay_after.is_zero();
        let mut call = call;
        let mut outcome = Ok(());
        if effect.answer.is_none()
            && (held || effect.signals.iter().any(|signal| ends_process(&call, *signal)))
        {
            let hold = self.holds.hold(call, effect.delay_after, effect.signals.clone());
            match hold.await {
                Ok(()) => return Ok(()),
                // The signals come without, then, some of them before the call.
                Err(AnswerError { error, notification }) => {
                    outcome = Err(error);
                    call = *notification;
                }
            }
        }
        for signal in &effect.signals {
            outcome = outcome.and(send_to_thread(&call, *signal));
        }
        if !effect.signals.is_empty() && is_being_killed(&call) {
            // An answer could come first, and the call would run.
            return call.gone().await.and(outcome);
        }
        if held && matches!(effect.answer, Some(Answer::Return(_) | Answer::Error(_))) {
            // It does not run: before its answer is after it as well.
            tokio::time::sleep(effect.delay_after).await;
        }
        let refused = match &effect.answer {
            Some(Answer::Return(value)) => call.respond_raw(*value).err(),
            Some(Answer::Error(number)) => call.respond_raw(-i64::from(*number)).err(),
            Some(Answer::Short(length)) => match shortened(&call, *length).await {
                Ok((args, None)) => call.continue_with(args).await.err(),
                Ok((args, Some(iovec))) => call.continue_with(args).data(1, iovec).await.err(),
                Err(error) => {
                    continue_call(call);
                    return Err(error);
                }
            },
            Some(Answer::Arguments(arguments)) => {
                let mut args = call.args();
                for (index, value) in arguments {
                    if let Some(arg) = args.get_mut(*index) {
                        *arg = *value;
                    }
                }
                call.continue_with(args).await.err()
            }
            None => {
                self.let_run(call).await;
                None
            }
        };
        match refused {
            Some(AnswerError { error, notification }) => {
                continue_call(*notification);
                Err(error)
            }
            None => outcome,
        }
    }
}

/// An answer that can't be given ends the call with `ENOSYS`, as the notification says.
pub(super) fn continue_call(call: Notification) {
    if let Err(error) = call.continue_syscall() {
        crate::trace::warning!(%error, "could not let a call run");
    }
}

/// The arguments of the call with at most so many bytes, and the buffers if there are several.
async fn shortened(call: &Notification, length: usize) -> Result<([i64; 6], Option<Vec<u8>>)> {
    let mut args = call.args();
    match call.sysno().and_then(arguments::length) {
        Some(Length::Bytes(place)) => {
            let given = args[place].cast_unsigned();
            args[place] = given.min(length as u64).cast_signed();
            Ok((args, None))
        }
        Some(Length::Vector) => {
            let (address, count) = (args[1].cast_unsigned(), args[2] as usize);
            let buffers = call.look(move |target| target.read_iovec(address, count)).await?;
            let mut left = length as u64;
            let mut iovec = Vec::with_capacity(buffers.len() * 16);
            for buffer in buffers {
                let part = buffer.len.min(left);
                left -= part;
                iovec.extend_from_slice(&buffer.address.to_ne_bytes());
                iovec.extend_from_slice(&part.to_ne_bytes());
            }
            Ok((args, Some(iovec)))
        }
        None => Err(Error::InvalidAnswer("the call has no length")),
    }
}

/// The file that a call is about, for the record.
async fn file(call: &Notification) -> Option<std::path::PathBuf> {
    for argument in arguments::paths(call.sysno()?) {
        if let Some(name) = names::named(call, *argument).await.into_iter().next() {
            return Some(name);
        }
    }
    let number = names::descriptors(call).into_iter().next()?;
    names::opened(call.tid()?, number).ok()
}
