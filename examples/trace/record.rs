//! One call as a line, of text or of JSON.

use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use asm_tracer::{AnswerError, Arch, Delivery, Notification};
use serde_json::{Value, json};

use crate::decode;

/// A call while it is being held.
pub(crate) struct Held {
    call: Notification,
    received: Instant,
    time: SystemTime,
}

impl Held {
    /// Starts the clock.
    pub(crate) fn new(call: Notification) -> Self {
        Self {
            call,
            received: Instant::now(),
            time: SystemTime::now(),
        }
    }

    /// Looks at the call, and lets it run.
    pub(crate) fn look(self, limit: usize) -> Record {
        let target = Target {
            pid: self.call.pid().ok(),
            tid: self.call.tid(),
            arch: self.call.arch(),
            nr: self.call.nr(),
            registers: self.call.args(),
            decoded: decode::arguments(&self.call, limit),
        };
        Record {
            target,
            time: self.time,
            brief: self.release(),
        }
    }

    /// Lets the call run without a look.
    pub(crate) fn release(self) -> Brief {
        let name = name(&self.call);
        // The answer itself may hand the CPU over to the target.
        let held = self.received.elapsed();
        Brief {
            name,
            held,
            answer: describe(&self.call.continue_syscall()),
        }
    }
}

/// What is known of a call without having looked into its process.
pub(crate) struct Brief {
    pub(crate) name: Cow<'static, str>,
    answer: &'static str,
    pub(crate) held: Duration,
}

struct Target {
    pid: Option<i32>,
    tid: Option<i32>,
    arch: Arch,
    nr: i64,
    registers: [i64; 6],
    decoded: Vec<String>,
}

/// All that is known of a call.
pub(crate) struct Record {
    brief: Brief,
    target: Target,
    time: SystemTime,
}

impl Record {
    /// `[pid/tid] name(arguments) = answer <time held>`
    pub(crate) fn text(&self) -> String {
        let (Brief { name, answer, held }, target) = (&self.brief, &self.target);
        let who = match (target.pid, target.tid) {
            (Some(pid), Some(tid)) if pid != tid => format!("{pid}/{tid}"),
            (_, Some(tid)) => tid.to_string(),
            (_, None) => "?".into(),
        };
        let held = micros(*held);
        format!(
            "[{who}] {name}({}) = {answer} <{held:.1} µs>",
            target.decoded.join(", ")
        )
    }

    pub(crate) fn json(&self) -> Value {
        let (brief, target) = (&self.brief, &self.target);
        let time = self.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        json!({
            "time": time.as_secs_f64(),
            "pid": target.pid,
            "tid": target.tid,
            "arch": format!("{:?}", target.arch).to_lowercase(),
            "nr": target.nr,
            "name": brief.name,
            "args": target.registers.map(|register| format!("{register:#x}")),
            "decoded": target.decoded,
            "answer": brief.answer,
            "held_us": micros(brief.held),
        })
    }
}

pub(crate) fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}

fn name(call: &Notification) -> Cow<'static, str> {
    let nr = call.nr();
    match (call.sysno(), call.arch()) {
        (Some(sysno), _) => sysno.name().into(),
        (None, Arch::X86_64) => format!("syscall_{nr}").into(),
        (None, Arch::I386) => format!("i386_syscall_{nr}").into(),
        (None, Arch::X32) => format!("x32_syscall_{}", nr & !0x4000_0000).into(),
        (None, _) => format!("foreign_syscall_{nr}").into(),
    }
}

/// A target that died, or was interrupted, before the answer is ordinary. A refused answer makes the call fail.
fn describe(answer: &Result<Delivery, AnswerError>) -> &'static str {
    match answer {
        Ok(Delivery::Delivered) => "continued",
        Ok(Delivery::Gone) => "gone",
        Err(_) => "refused",
    }
}
