//! A record whose call is being held.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::OwnedSemaphorePermit;

use super::line::{Answer, Record};
use super::recorder::Shared;
use super::spans::Span;
use crate::notify::{Notification, Observed};

/// It is finished once; if it is dropped, its call was.
pub(super) struct Opened {
    shared: Arc<Shared>,
    started: Instant,
    /// None once it is finished.
    record: Option<Box<Record>>,
    /// In the queue, for its record.
    place: Place,
    pub(super) span: Span,
}

enum Place {
    /// It was not asked for yet, or was given back.
    None,
    Taken(OwnedSemaphorePermit),
    /// There was none, which has been counted.
    Lost,
    /// There is no queue.
    Unwanted,
}

impl Opened {
    pub(super) fn new(shared: Arc<Shared>, call: &Notification) -> Self {
        let started = Instant::now();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // As exact as it is written.
        let since = Duration::new(since.as_secs(), since.subsec_micros() * 1000);
        let span = match shared.options.spans {
            true => Span::new(call),
            false => Span::none(),
        };
        let place = match shared.queue {
            Some(_) => Place::None,
            None => Place::Unwanted,
        };
        let record = Box::new(Record {
            time: UNIX_EPOCH + since,
            held: Duration::ZERO,
            ran: None,
            child: call.child().number(),
            pid: None,
            tid: call.tid(),
            arch: call.arch(),
            nr: call.nr(),
            name: call.sysno().map(|sysno| sysno.name().into()),
            args: call.args(),
            memory: Vec::new(),
            answer: Answer::Dropped,
            observed: None,
        });
        Self {
            shared,
            started,
            record: Some(record),
            place,
            span,
        }
    }

    pub(super) async fn take_place(&mut self) {
        let (Some(queue), Some(record)) = (&self.shared.queue, &self.record) else {
            return;
        };
        self.place = match queue.place(self.shared.options.grace).await {
            Some(place) => Place::Taken(place),
            None => {
                queue.missing(record.time);
                Place::Lost
            }
        };
    }

    /// Looks at the call, unless nobody would hear of it.
    pub(super) async fn look(&mut self, call: &Notification) {
        let written = matches!(self.place, Place::Taken(_));
        let Some(record) = &mut self.record else { return };
        if written || self.span.is_enabled() {
            let Shared { options, looks, .. } = &*self.shared;
            record.pid = call.pid().ok();
            record.memory = looks.look(call, options.choice, options.look_limit).await;
            self.span.looked(record);
        }
    }

    /// How long the call has been held.
    pub(super) fn held(&self) -> Duration {
        self.started.elapsed()
    }

    /// Lets others have the place while the call runs, which may take long.
    pub(super) fn give_place_back(&mut self) {
        if let Place::Taken(_) = self.place {
            self.place = Place::None;
        }
    }

    pub(super) fn finish(mut self, held: Duration, answer: Answer) {
        self.end(held, answer, None);
    }

    /// The same for a call whose result is known as well.
    pub(super) fn finish_observed(mut self, held: Duration, answer: Answer, observed: Observed) {
        let ran = self.started.elapsed().saturating_sub(held);
        self.end(held, answer, Some((observed, ran)));
    }

    fn end(&mut self, held: Duration, answer: Answer, observed: Option<(Observed, Duration)>) {
        let Some(mut record) = self.record.take() else {
            return;
        };
        record.held = held;
        record.answer = answer;
        (record.observed, record.ran) = observed.unzip();
        self.span.answered(&record);
        let place = std::mem::replace(&mut self.place, Place::Lost);
        match (place, &self.shared.queue) {
            (Place::Taken(place), Some(queue)) => queue.push(record, Some(place)),
            (Place::None, Some(queue)) => queue.push(record, None),
            _ => {}
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.end(self.held(), Answer::Dropped, None);
    }
}
