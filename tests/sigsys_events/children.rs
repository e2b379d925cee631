use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use asm_tracer::sigsys::{Event, Tracer};
use asm_tracer::{Sysno, TrappedSyscall};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::support::{in_process_of_its_own, is_child, rerun};
use crate::{assert_accounted, drain_until, getppid};

// P39
#[test]
fn a_forked_child_is_not_traced_and_runs() {
    in_process_of_its_own("children::a_forked_child_is_not_traced_and_runs", || {
        let tracer = Arc::new(
            Tracer::builder()
                .trap(Sysno::getppid)
                .capacity(1 << 16)
                .install()
                .unwrap(),
        );
        let stop = Arc::new(AtomicBool::new(false));
        let draining = drain_until(Arc::clone(&tracer), Arc::clone(&stop));
        let mut children = Vec::new();
        let storm = AtomicBool::new(true);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                let storm = &storm;
                scope.spawn(move || {
                    while storm.load(Ordering::Relaxed) {
                        getppid(1);
                    }
                });
            }
            for _ in 0..10 {
                // SAFETY: the child makes system calls and exits.
                match unsafe { fork() }.unwrap() {
                    ForkResult::Child => {
                        let parent = getppid(0);
                        let right = (0..10_000).all(|number| getppid(number) == parent);
                        // SAFETY: ends the child.
                        unsafe { libc::_exit(if right && parent > 1 { 7 } else { 1 }) };
                    }
                    ForkResult::Parent { child } => children.push(child),
                }
            }
            for child in &children {
                assert_eq!(waitpid(*child, None).unwrap(), WaitStatus::Exited(*child, 7));
            }
            storm.store(false, Ordering::Relaxed);
        });
        stop.store(true, Ordering::Relaxed);
        let events = draining.join().unwrap();
        assert_accounted(tracer.statistics(), &events);
        assert!(!events.iter().any(|event| {
            matches!(event, Event::Call(call) if children.contains(&Pid::from_raw(call.thread)))
        }));
    });
}

// P39: a forked process has a copy of what its parent is to read.
#[test]
fn a_forked_child_finds_no_events() {
    in_process_of_its_own("children::a_forked_child_finds_no_events", || {
        let tracer = Tracer::builder().trap(Sysno::getppid).install().unwrap();
        getppid(1);
        // SAFETY: the child has a look and exits.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let none = tracer.drain().is_ok_and(|events| events.is_empty());
                // SAFETY: ends the child.
                unsafe { libc::_exit(if none { 7 } else { 1 }) };
            }
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 7));
            }
        }
        assert_eq!(tracer.drain().unwrap().len(), 1);
    });
}

// P39
#[test]
fn a_stream_ends_in_a_forked_child() {
    use futures::FutureExt;
    in_process_of_its_own("children::a_stream_ends_in_a_forked_child", || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().unwrap();
        let tracer = Tracer::builder().trap(Sysno::getppid).install().unwrap();
        let mut events = runtime.block_on(async { tracer.events().unwrap() });
        getppid(1);
        // SAFETY: the child looks at the stream and exits.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let ended = events.next().now_or_never() == Some(None);
                // SAFETY: ends the child.
                unsafe { libc::_exit(if ended { 7 } else { 1 }) };
            }
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 7));
            }
        }
        let event = runtime.block_on(crate::support::within("the event", events.next()));
        assert!(
            matches!(event, Some(Event::Call(call)) if call.syscall.args[0] == 1),
            "{event:?}"
        );
    });
}

extern "C" fn call_for_ever(_: *mut libc::c_void) -> i32 {
    loop {
        // Not the C library's, which would write `errno` where the parent has its own.
        // SAFETY: asks for a number.
        unsafe {
            std::arch::asm!("syscall", inout("rax") libc::SYS_getppid => _, out("rcx") _, out("r11") _);
        }
    }
}

// P40
#[test]
fn a_child_that_shares_the_memory_and_is_killed_does_not_stall_the_events() {
    in_process_of_its_own(
        "children::a_child_that_shares_the_memory_and_is_killed_does_not_stall_the_events",
        || {
            let tracer = Arc::new(Tracer::builder().trap(Sysno::getppid).install().unwrap());
            let stop = Arc::new(AtomicBool::new(false));
            let draining = drain_until(Arc::clone(&tracer), Arc::clone(&stop));
            let mut stack = vec![0_u128; 8192];
            for round in 0..200 {
                let top = stack.as_mut_ptr_range().end.cast();
                let flags = libc::CLONE_VM | libc::SIGCHLD;
                // SAFETY: the child has a stack of its own, and only makes system calls on it.
                let child = unsafe { libc::clone(call_for_ever, top, flags, std::ptr::null_mut()) };
                let child = Pid::from_raw(child);
                assert!(child.as_raw() > 0);
                // It has been at it for a while, which is not the same each time.
                for _ in 0..round * 10 {
                    std::hint::spin_loop();
                }
                kill(child, Signal::SIGKILL).unwrap();
                assert!(matches!(
                    waitpid(child, None).unwrap(),
                    WaitStatus::Signaled(_, Signal::SIGKILL, _)
                ));
            }
            getppid(4711);
            stop.store(true, Ordering::Relaxed);
            let events = draining.join().unwrap();
            let last = |event: &Event| matches!(event, Event::Call(call) if call.syscall.args[0] == 4711);
            assert!(events.iter().any(last));
            assert_accounted(tracer.statistics(), &events);
        },
    );
}

fn panics(_: &mut TrappedSyscall) -> Option<i64> {
    panic!("out of tune")
}

// P41
#[test]
fn a_panic_in_the_hook_aborts_with_its_message() {
    if is_child() {
        let tracer = Tracer::builder()
            .trap(Sysno::getppid)
            .hook(panics)
            .install()
            .unwrap();
        getppid(1);
        drop(tracer);
        return;
    }
    let output = rerun("children::a_panic_in_the_hook_aborts_with_its_message")
        .output()
        .unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("out of tune"), "{errors}");
}

fn calls_itself(call: &mut TrappedSyscall) -> Option<i64> {
    // A trapped call in the hook: it runs, and the hook isn't shown it.
    // SAFETY: asks for a number.
    let parent = unsafe { libc::getppid() };
    (call.args[0] == 9).then_some(i64::from(parent) + 1)
}

#[test]
fn a_hook_may_make_trapped_calls_itself() {
    in_process_of_its_own("children::a_hook_may_make_trapped_calls_itself", || {
        let parent = getppid(0);
        let tracer = Tracer::builder()
            .trap(Sysno::getppid)
            .hook(calls_itself)
            .install()
            .unwrap();
        assert_eq!(getppid(9), parent + 1);
        assert_eq!(getppid(8), parent);
        let events = tracer.drain().unwrap();
        assert_eq!(events.len(), 4, "{events:?}");
        assert_accounted(tracer.statistics(), &events);
    });
}
