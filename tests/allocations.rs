//! Receiving and answering allocates nothing once warm.
#![allow(unsafe_code)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::mpsc::channel;

use asm_tracer::blocking::Tracer;
use asm_tracer::{Command, Filter, Notification, Supervisor, Sysno, TrappedSyscall};
use support::{BOUND, c_program, within};

/// Counts what each thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending has no counter any more, and is none that a test asks about.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

/// A program that makes two calls again and again.
fn command() -> Command {
    let source = "
        #include <unistd.h>
        #include <sys/syscall.h>
        int main() { for (;;) { syscall(SYS_getppid); syscall(SYS_getpgid, 0); } }
    ";
    let mut command = Command::new(c_program("calls", source));
    command.filter(Filter::new().trap([Sysno::getppid, Sysno::getpgid]));
    command
}

fn serve(call: Notification) {
    assert!(call.tid().is_some() && call.instruction_pointer() != 0);
    match call.sysno() {
        Some(Sysno::getppid) => call.respond(42).unwrap(),
        Some(Sysno::getpgid) if call.args()[0] == 0 => call.continue_syscall().unwrap(),
        other => panic!("{other:?}"),
    };
}

const WARM: usize = 2_000;
const CALLS: usize = 20_000;
const LAST: usize = WARM + CALLS;

#[tokio::test]
async fn one_listener() {
    let (_child, mut listener) = command().spawn().await.unwrap();
    let mut before = 0;
    for round in 0..LAST {
        if round == WARM {
            before = allocations();
        }
        serve(listener.next().await.unwrap());
    }
    assert_eq!(allocations() - before, 0);
}

#[tokio::test]
async fn a_supervisor_of_several_children() {
    let mut supervisor = Supervisor::new();
    let mut command = command();
    let mut children = Vec::new();
    for _ in 0..5 {
        children.push(within("a spawn", supervisor.spawn(&mut command)).await.unwrap());
    }
    let mut before = 0;
    for round in 0..LAST {
        if round == WARM {
            before = allocations();
        }
        serve(supervisor.next().await.unwrap());
    }
    assert_eq!(allocations() - before, 0);
}

/// Has a hook's thread count what it allocates from one call to another, and asserts that it is nothing.
fn assert_a_hook_allocates_nothing(tracer: impl FnOnce(Box<dyn FnMut() + Send>) -> Tracer) {
    let (results, result) = channel();
    let (mut round, mut before) = (0, 0);
    let count = move || {
        match round {
            WARM => before = allocations(),
            LAST => results.send(allocations() - before).unwrap(),
            _ => {}
        }
        round += 1;
    };
    // The record overflows on the way.
    let child = tracer(Box::new(count))
        .record(WARM + CALLS / 2)
        .spawn(&mut command());
    let child = child.unwrap();
    assert_eq!(result.recv_timeout(BOUND).unwrap(), 0);
    assert!(child.dropped_syscalls() > 0);
}

#[test]
fn a_hook_that_gives_a_value() {
    assert_a_hook_allocates_nothing(|mut count| {
        Tracer::new(move |call: &TrappedSyscall| {
            count();
            (call.sysno() == Some(Sysno::getppid)).then_some(42)
        })
    });
}

#[test]
fn a_hook_that_gets_the_notification() {
    assert_a_hook_allocates_nothing(|mut count| {
        Tracer::with_notifications(move |call| {
            count();
            serve(call);
        })
    });
}

#[test]
fn the_counter_counts() {
    let before = allocations();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(allocations() - before, 1);
}
