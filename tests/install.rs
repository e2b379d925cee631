//! Filters that a process installs for itself: for one thread, for all, with a listener and with SIGSYS.
//!
//! Each test is in a process of its own, since a filter can't be taken off.
#![allow(unsafe_code)]

mod support;

use std::os::fd::OwnedFd;
use std::os::unix::process::{ExitStatusExt, parent_id};
use std::sync::Barrier;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::channel;

use asm_tracer::blocking::Tracer;
use asm_tracer::filter::Threads;
use asm_tracer::{
    Action, Errno, Error, Filter, Listener, Sysno, TrappedSyscall, install_filter, install_filter_with_notifs,
};
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use support::{BOUND, in_process_of_its_own, is_child, rerun, within};

fn numbers(calls: &[Sysno]) -> Vec<i64> {
    calls.iter().map(|call| call.id().into()).collect()
}

fn group() -> i32 {
    // SAFETY: asks for a number.
    unsafe { libc::getpgrp() }
}

static SEEN: AtomicI64 = AtomicI64::new(0);

/// Answers the call with 4711, as a SIGSYS handler can.
extern "C" fn answer(_: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes both to a handler with SA_SIGINFO; `_sigsys` has the number at this offset.
    unsafe {
        let number = info.cast::<u8>().add(24).cast::<i32>().read();
        SEEN.store(number.into(), Ordering::Relaxed);
        (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_RAX as usize] = 4711;
    }
}

#[test]
fn calls_raise_sigsys_on_the_calling_thread_alone() {
    in_process_of_its_own("calls_raise_sigsys_on_the_calling_thread_alone", || {
        let action = SigAction::new(
            SigHandler::SigAction(answer),
            SaFlags::SA_SIGINFO,
            SigSet::empty(),
        );
        // SAFETY: the handler touches its arguments and an atomic.
        unsafe { sigaction(Signal::SIGSYS, &action) }.unwrap();
        let group = group();
        std::thread::spawn(|| {
            install_filter(&numbers(&[Sysno::getpgrp])).unwrap();
            assert_eq!(crate::group(), 4711);
            assert_eq!(SEEN.load(Ordering::Relaxed), i64::from(Sysno::getpgrp.id()));
            assert_ne!(parent_id(), 4711);
            // A thread that it starts has the filter as well.
            std::thread::spawn(|| assert_eq!(crate::group(), 4711))
                .join()
                .unwrap();
        })
        .join()
        .unwrap();
        assert_eq!(crate::group(), group);
    });
}

#[test]
fn without_a_handler_the_process_dies_of_it() {
    if is_child() {
        install_filter(&numbers(&[Sysno::getpgrp])).unwrap();
        group();
        return;
    }
    let output = rerun("without_a_handler_the_process_dies_of_it")
        .output()
        .unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{output:?}");
}

#[test]
fn sigsys_is_an_action_like_others() {
    let filter = Filter::new()
        .rule(Sysno::getpgrp, [asm_tracer::filter::arg(0).eq(7)], Action::Sigsys)
        .otherwise(Action::Allow);
    assert_eq!(
        filter.to_string(),
        "getpgrp when arg0 == 0x7: sigsys\notherwise: allow\ni386 and x32: kill"
    );
    let values: Vec<u32> = filter
        .program()
        .unwrap()
        .iter()
        .map(|instruction| instruction.k)
        .collect();
    assert!(values.contains(&libc::SECCOMP_RET_TRAP), "{filter}");
}

/// Serves a listener until nobody uses its filter any more: gives 42 for each call, and how many there were.
fn serve(listener: OwnedFd) -> usize {
    let mut calls = 0;
    let (counts, count) = channel();
    let tracer = Tracer::new(move |_: &TrappedSyscall| {
        calls += 1;
        counts.send(calls).unwrap();
        Some(42)
    });
    tracer.serve(listener).unwrap();
    count.iter().last().unwrap_or(0)
}

#[test]
fn a_listener_for_the_calling_thread_hears_no_other() {
    in_process_of_its_own("a_listener_for_the_calling_thread_hears_no_other", || {
        let group = group();
        let (listeners, listener) = channel();
        let caller = std::thread::spawn(move || {
            let listener = install_filter_with_notifs(&numbers(&[Sysno::getpgrp])).unwrap();
            listeners.send(listener).unwrap();
            let theirs = std::thread::spawn(crate::group).join().unwrap();
            (crate::group(), theirs)
        });
        std::thread::scope(|scope| {
            let server = scope.spawn(move || serve(listener.recv_timeout(BOUND).unwrap()));
            assert_eq!(caller.join().unwrap(), (42, 42));
            assert_eq!(crate::group(), group);
            // The filter has ended with its threads.
            assert_eq!(server.join().unwrap(), 2);
        });
    });
}

#[test]
fn a_listener_for_all_threads_hears_them_all() {
    in_process_of_its_own("a_listener_for_all_threads_hears_them_all", || {
        let (started, go) = (Barrier::new(5), Barrier::new(5));
        std::thread::scope(|scope| {
            let others: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        started.wait();
                        go.wait();
                        group()
                    })
                })
                .collect();
            started.wait();
            let filter = Filter::new().trap(Sysno::getpgrp);
            let listener = filter.install_with_listener(Threads::All).unwrap();
            // The thread that serves makes no trapped call, though it has the filter as well.
            let server = std::thread::spawn(move || Tracer::new(|_| Some(42)).serve(listener).unwrap());
            go.wait();
            for other in others {
                assert_eq!(other.join().unwrap(), 42);
            }
            assert_eq!(group(), 42);
            assert!(!server.is_finished());
        });
    });
}

#[test]
fn the_listener_can_be_served_in_a_runtime() {
    in_process_of_its_own("the_listener_can_be_served_in_a_runtime", || {
        let (listeners, listener) = channel();
        let caller = std::thread::spawn(move || {
            listeners
                .send(install_filter_with_notifs(&numbers(&[Sysno::getpgrp])).unwrap())
                .unwrap();
            group()
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut listener = Listener::attach(listener.recv_timeout(BOUND).unwrap()).unwrap();
            let call = within("the call", listener.next()).await.unwrap();
            assert!(call.respond(7).unwrap().is_delivered());
            assert!(within("the end", listener.next()).await.is_none());
        });
        assert_eq!(caller.join().unwrap(), 7);
    });
}

/// What it is for is the memory of others; that of this process is its own code's.
#[test]
fn the_memory_of_this_process_is_read_and_not_written() {
    in_process_of_its_own("the_memory_of_this_process_is_read_and_not_written", || {
        let number = 4711_i64;
        let address = (&raw const number).addr() as u64;
        let (listeners, listener) = channel();
        let caller = std::thread::spawn(move || {
            listeners
                .send(install_filter_with_notifs(&numbers(&[Sysno::getpgrp])).unwrap())
                .unwrap();
            group()
        });
        let tracer = Tracer::with_notifications(move |call| {
            assert_eq!(call.read_value::<i64>(address).unwrap(), 4711);
            let written = call.write_memory(address, &[0; 8]);
            assert!(matches!(written, Err(Error::NoAccess)), "{written:?}");
            call.respond(1).unwrap();
        });
        tracer.serve(listener.recv_timeout(BOUND).unwrap()).unwrap();
        assert_eq!((caller.join().unwrap(), number), (1, 4711));
    });
}

/// The same of a process that shares the memory, as `posix_spawn(3)` makes one.
#[test]
fn nor_is_it_written_through_a_child_that_shares_it() {
    in_process_of_its_own("nor_is_it_written_through_a_child_that_shares_it", || {
        let number = AtomicI64::new(4711);
        let address = number.as_ptr().addr() as u64;
        let (listeners, listener) = channel();
        let caller = std::thread::spawn(move || {
            listeners
                .send(install_filter_with_notifs(&numbers(&[Sysno::execve])).unwrap())
                .unwrap();
            std::process::Command::new("/bin/true").status().unwrap()
        });
        let own_pid = std::process::id() as i32;
        let tracer = Tracer::with_notifications(move |call| {
            assert_ne!(call.pid().unwrap(), own_pid);
            let written = call.write_memory(address, &[0; 8]);
            assert!(matches!(written, Err(Error::NoAccess)), "{written:?}");
            call.continue_syscall().unwrap();
        });
        tracer.serve(listener.recv_timeout(BOUND).unwrap()).unwrap();
        assert!(caller.join().unwrap().success());
        assert_eq!(number.load(Ordering::Relaxed), 4711);
    });
}

#[test]
fn a_closed_listener_leaves_calls_unknown() {
    in_process_of_its_own("a_closed_listener_leaves_calls_unknown", || {
        let failed = std::thread::spawn(|| {
            drop(install_filter_with_notifs(&numbers(&[Sysno::mkdir])).unwrap());
            std::fs::create_dir("/tmp/never").unwrap_err().raw_os_error()
        });
        assert_eq!(failed.join().unwrap(), Some(libc::ENOSYS));
    });
}

#[test]
fn what_the_kernel_refuses_has_a_name() {
    in_process_of_its_own("what_the_kernel_refuses_has_a_name", || {
        // One listener is open; a second one is not to be had by its descendants.
        std::thread::spawn(|| {
            let _open = install_filter_with_notifs(&numbers(&[Sysno::mkdir])).unwrap();
            let second = install_filter_with_notifs(&numbers(&[Sysno::rmdir]));
            assert!(matches!(second, Err(Error::NestedListener)), "{second:?}");
        })
        .join()
        .unwrap();
        // A thread with a filter of its own can't be given that of another one.
        let (installed, done) = (Barrier::new(2), Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                Filter::new().errno(Sysno::mkdir, Errno::EROFS).install().unwrap();
                installed.wait();
                done.wait();
            });
            installed.wait();
            let all = Filter::new()
                .trap(Sysno::rmdir)
                .install_with_listener(Threads::All);
            assert!(matches!(all, Err(Error::DifferentFilters)), "{all:?}");
            done.wait();
        });
        // Nothing was installed.
        assert_eq!(
            std::fs::remove_dir("/no/such/directory")
                .unwrap_err()
                .raw_os_error(),
            Some(libc::ENOENT)
        );
    });
}

#[test]
fn bad_numbers_are_refused_before_anything_is_done() {
    in_process_of_its_own("bad_numbers_are_refused_before_anything_is_done", || {
        let no_new_privs = || support::proc_status(std::process::id(), "NoNewPrivs").unwrap();
        assert_eq!(no_new_privs(), "0");
        for number in [-1, i64::MIN, 0x4000_0001, i64::MAX] {
            for refused in [
                install_filter(&[number]).unwrap_err(),
                install_filter_with_notifs(&[number]).unwrap_err(),
            ] {
                assert!(matches!(refused, Error::InvalidFilter(_)), "{refused:?}");
            }
        }
        let unanswered = Filter::new().trap(Sysno::mkdir).install().unwrap_err();
        assert!(matches!(unanswered, Error::InvalidFilter(_)), "{unanswered:?}");
        assert_eq!(no_new_privs(), "0");
    });
}
