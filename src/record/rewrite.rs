//! The answers that run a call in another way, or watch it to its end.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;

use super::opened::Opened;
use super::recorded::answered;
use super::{Answer, Refused};
use crate::notify::{Delivery, Observe, Observed, Rewrite, TrappedSyscall};

/// A recorded call to be run in another way: a [`Rewrite`] that is awaited like one.
#[must_use = "nothing happens until it is awaited; dropped, the call fails with ENOSYS"]
pub struct RecordedRewrite {
    rewrite: Rewrite,
    answer: Answer,
    record: Opened,
}

impl RecordedRewrite {
    pub(super) fn new(rewrite: Rewrite, wanted: TrappedSyscall, record: Opened) -> Self {
        let TrappedSyscall { nr, args } = wanted;
        let answer = Answer::Rewritten { nr, args };
        Self {
            rewrite,
            answer,
            record,
        }
    }

    /// [`Rewrite::data`].
    pub fn data(mut self, argument: usize, bytes: impl AsRef<[u8]>) -> Self {
        self.rewrite = self.rewrite.data(argument, bytes);
        self
    }

    /// [`Rewrite::observe`], of which the result is recorded too.
    ///
    /// # Errors
    ///
    /// Those of the method, with the call.
    ///
    /// # Cancel safety
    ///
    /// That of [`Observe`]. The record says that the call was dropped.
    pub async fn observe(self) -> Result<Observed, Refused> {
        let Self {
            rewrite,
            answer,
            record,
        } = self;
        observe(rewrite.observe(), answer, record).await
    }
}

impl IntoFuture for RecordedRewrite {
    type Output = Result<Delivery, Refused>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self {
            rewrite,
            answer,
            record,
        } = self;
        Box::pin(async move {
            let outcome = rewrite.await;
            let held = record.held();
            answered(outcome, held, answer, record)
        })
    }
}

pub(super) async fn observe(
    observe: Observe,
    answer: Answer,
    mut record: Opened,
) -> Result<Observed, Refused> {
    let held = record.held();
    record.give_place_back();
    match observe.await {
        Ok(observed) => {
            record.finish_observed(held, answer, observed).await;
            Ok(observed)
        }
        Err(refused) => Err(Refused::new(refused, record)),
    }
}

impl fmt::Debug for RecordedRewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RecordedRewrite").field(&self.rewrite).finish()
    }
}
