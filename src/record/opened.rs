//! A record whose call is being held.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::OwnedSemaphorePermit;

use super::line::{Answer, Record};
use super::recorder::Shared;
use super::spans::Span;
use crate::notify::{Notification, Observed};

/// It goes to the queue when it is dropped. If it was not finished before, its call was dropped.
pub(super) struct Opened {
    shared: Arc<Shared>,
    started: Instant,
    /// None once it is in the queue.
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
            place: Place::None,
            span,
        }
    }

    pub(super) async fn take_place(&mut self) {
        let (Place::None, Some(queue), Some(record)) = (&self.place, &self.shared.queue, &self.record) else {
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
        self.settle(held, answer);
    }

    /// The same for a call whose result is known as well. It waits for a place, but holds nobody up.
    pub(super) async fn finish_observed(mut self, held: Duration, answer: Answer, observed: Observed) {
        let ran = self.started.elapsed().saturating_sub(held);
        self.settle(held, answer);
        if let Some(record) = &mut self.record {
            (record.observed, record.ran) = (Some(observed), Some(ran));
        }
        self.take_place().await;
    }

    fn settle(&mut self, held: Duration, answer: Answer) {
        if let Some(record) = &mut self.record {
            (record.held, record.answer) = (held, answer);
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let held = self.held();
        let Some(mut record) = self.record.take() else {
            return;
        };
        if record.answer == Answer::Dropped {
            record.held = held;
        }
        self.span.answered(&record);
        let Some(queue) = &self.shared.queue else {
            return;
        };
        match std::mem::replace(&mut self.place, Place::Lost) {
            Place::Taken(place) => queue.push(record, Some(place)),
            Place::None => queue.push(record, None),
            Place::Lost => {}
        }
    }
}
