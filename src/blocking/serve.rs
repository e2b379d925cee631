use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::log::Log;
use crate::notify::{Notification, Receiver, TrappedSyscall};

/// What decides about a call.
pub(super) enum Hook {
    /// Gives its result, or lets it run.
    Result(Box<ResultHook>),
    /// Answers it.
    Answer(Box<AnswerHook>),
}

type ResultHook = dyn FnMut(&TrappedSyscall) -> Option<i64> + Send;
type AnswerHook = dyn FnMut(Notification) + Send;

impl Hook {
    /// Has a call decided about and answered.
    fn decide(&mut self, call: Notification, log: &Log) {
        match self {
            Self::Result(hook) => {
                let result = hook(call.syscall());
                log.end();
                // What can't be answered so is answered as it is dropped.
                let _ = match result {
                    Some(value) => call.respond_raw(value),
                    None => call.continue_syscall(),
                };
            }
            Self::Answer(hook) => {
                hook(call);
                log.end();
            }
        }
    }
}

/// Serves the calls of one listener until nobody uses its filter any more.
pub(super) fn serve(mut receiver: Receiver, log: &Log, mut hook: Hook) {
    receiver.keep_unwound();
    while let Some(call) = receiver.next() {
        log.begin(*call.syscall(), call.thread());
        catch(log, || hook.decide(call, log));
        // A panic is reported before its call is answered: whoever sees the target go on, or end, finds the reason. One
        // that the hook has caught itself leaves its call here as well.
        receiver.answer_unwound();
    }
    // What the hook has captured may panic as well.
    catch(log, || drop(hook));
}

/// Runs what belongs to the hook, and takes note if it panics.
fn catch(log: &Log, run: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
        log.panicked(message(&*panic));
        // What it carries may panic in turn as it is dropped; that what this carries does so too is never found out.
        catch_unwind(AssertUnwindSafe(|| drop(panic))).unwrap_or_else(std::mem::forget);
    }
}

/// What a panic said, as far as it was text.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
