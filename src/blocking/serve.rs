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

/// Serves the calls of one listener until nobody uses its filter any more.
pub(super) fn serve(mut receiver: Receiver, log: &Log, mut hook: Hook) {
    receiver.keep_unwound();
    while let Some(call) = receiver.next() {
        log.begin(*call.syscall(), call.thread());
        // A panic is reported before its call is answered: whoever sees the target go on, or end, finds the reason.
        match &mut hook {
            Hook::Result(hook) => {
                let result = catch_unwind(AssertUnwindSafe(|| hook(call.syscall())));
                log.end();
                // What can't be answered so is answered as it is dropped.
                let _ = match result {
                    Ok(Some(value)) => call.respond_raw(value),
                    Ok(None) => call.continue_syscall(),
                    Err(panic) => {
                        log.panicked(message(&*panic));
                        continue;
                    }
                };
            }
            Hook::Answer(hook) => {
                let answered = catch_unwind(AssertUnwindSafe(|| hook(call)));
                log.end();
                if let Err(panic) = answered {
                    log.panicked(message(&*panic));
                    receiver.answer_unwound();
                }
            }
        }
    }
    // What the hook has captured may panic as well.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(hook))) {
        log.panicked(message(&*panic));
    }
}

/// What a panic said, as far as it was text.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
