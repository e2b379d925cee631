//! The events of a process that traces itself: none is lost uncounted, and the runtime that reads them lives on.
//!
//! Each test is in a process of its own, since a filter can't be taken off.
#![allow(unsafe_code)]

#[path = "../support/mod.rs"]
mod support;

mod children;
mod losses;
mod programs;
mod results;
mod runtime;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use asm_tracer::Sysno;
use asm_tracer::sigsys::{Event, Statistics, Tracer};

/// A call that is trapped where `getppid` is, with a number of the caller's.
fn getppid(number: i64) -> i64 {
    // SAFETY: asks for a number; the kernel ignores the argument.
    unsafe { nix::libc::syscall(nix::libc::SYS_getppid, number) }
}

/// How many calls of this number there are among these events.
fn calls(events: &[Event], number: Sysno) -> usize {
    let is_one = |event: &&Event| matches!(event, Event::Call(call) if call.syscall.sysno() == Some(number));
    events.iter().filter(is_one).count()
}

/// How many calls were lost, by what the events say.
fn lost(events: &[Event]) -> u64 {
    let lost = events.iter().map(|event| match event {
        Event::Lost(calls) => *calls,
        _ => 0,
    });
    lost.sum()
}

/// Every attempt is delivered or dropped, and nothing is in flight.
#[track_caller]
fn assert_accounted(statistics: Statistics, events: &[Event]) {
    let delivered = events
        .iter()
        .filter(|event| !matches!(event, Event::Lost(_)))
        .count() as u64;
    assert_eq!(
        statistics.attempts,
        delivered + statistics.dropped,
        "{statistics:?}"
    );
    assert_eq!(statistics.settled, statistics.attempts, "{statistics:?}");
    assert_eq!(lost(events), statistics.dropped, "{statistics:?}");
}

/// A thread that drains all the time, and gives what it found once it is told to stop.
fn drain_until(tracer: Arc<Tracer>, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<Vec<Event>> {
    std::thread::spawn(move || {
        let mut events = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            events.extend(tracer.drain().unwrap());
        }
        events.extend(tracer.drain().unwrap());
        events
    })
}
