//! Filters on top of filters: those that a child adds, and those of a thread that restricts itself.

mod fixtures;
mod support;

use asm_tracer::filter::{arg, int_arg};
use asm_tracer::{Action, Errno, Error, Filter, Sysno, syscall};
use fixtures::{UNKNOWN, numbers, own_filter, run, unexpected};
use libc::{SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_USER_NOTIF};

/// An answer that no kernel gives.
const OURS: i64 = 4242;

const WATCHED: u32 = 1000;
const NEW_LISTENER: u32 = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;

fn errno(errno: Errno) -> i64 {
    -i64::from(errno as i32)
}

// T31
#[tokio::test]
async fn a_stricter_filter_of_the_child_hides_its_calls() {
    for how in ["seccomp", "prctl"] {
        let refusing = SECCOMP_RET_ERRNO + Errno::EXFULL as u32;
        let mut command = own_filter(how, refusing, 0, WATCHED);
        let output = run(&mut command, Filter::new().trap(i64::from(WATCHED)), unexpected).await;
        assert_eq!(numbers(&output), [0, errno(Errno::EXFULL)], "{how}");
    }
}

// T31
#[tokio::test]
async fn a_laxer_filter_of_the_child_hides_nothing() {
    let mut command = own_filter("seccomp", SECCOMP_RET_ALLOW, 0, WATCHED);
    let mut seen = 0;
    let output = run(&mut command, Filter::new().trap(i64::from(WATCHED)), |call| {
        seen += 1;
        call.respond(OURS).unwrap();
    })
    .await;
    assert_eq!((numbers(&output), seen), (vec![0, OURS], 1));
}

// T31
#[tokio::test]
async fn a_child_whose_filters_are_trapped_hides_nothing() {
    let filter = Filter::new()
        .trap([i64::from(WATCHED), Sysno::seccomp.id().into()])
        .trap_if(Sysno::prctl, [int_arg(0).eq(libc::PR_SET_SECCOMP)]);
    for how in ["seccomp", "prctl"] {
        let mut command = own_filter(how, SECCOMP_RET_ERRNO + Errno::EXFULL as u32, 0, WATCHED);
        let mut seen = Vec::new();
        let output = run(&mut command, filter.clone(), |call| {
            seen.push(call.nr());
            match call.sysno() {
                Some(Sysno::seccomp | Sysno::prctl) => call.error(Errno::EACCES),
                _ => call.respond(OURS),
            }
            .unwrap();
        })
        .await;
        assert_eq!(numbers(&output), [errno(Errno::EACCES), OURS], "{how}");
        assert_eq!(seen.len(), 2, "{how}: {seen:?}");
    }
}

// T31
#[tokio::test]
async fn a_trapping_filter_without_a_listener_of_its_own_hides_calls_too() {
    let mut command = own_filter("seccomp", SECCOMP_RET_USER_NOTIF, 0, WATCHED);
    let output = run(&mut command, Filter::new().trap(i64::from(WATCHED)), unexpected).await;
    assert_eq!(numbers(&output), [0, UNKNOWN]);
}

// T30, T31, user_notification_basic
#[tokio::test]
async fn a_child_gets_no_listener_of_its_own() {
    let mut command = own_filter("seccomp", SECCOMP_RET_USER_NOTIF, NEW_LISTENER, WATCHED);
    let mut seen = 0;
    let output = run(&mut command, Filter::new().trap(i64::from(WATCHED)), |call| {
        seen += 1;
        call.respond(OURS).unwrap();
    })
    .await;
    assert_eq!((numbers(&output), seen), (vec![errno(Errno::EBUSY), OURS], 1));
}

/// Makes a call of a number that no kernel knows, with this first argument.
#[allow(unsafe_code)]
fn call(number: u32, argument: u64) -> i64 {
    // SAFETY: the kernel doesn't know the call, so that it does nothing.
    unsafe { syscall::raw_syscall1(number.into(), argument.cast_signed()) }
}

/// What `/proc` says about the filters of this thread, or of a child of it.
fn restrictions(status: &str) -> Vec<String> {
    let wanted = ["NoNewPrivs", "Seccomp", "Seccomp_filters"];
    let of_interest = |line: &&str| {
        line.split_once(':')
            .is_some_and(|(name, _)| wanted.contains(&name))
    };
    status.lines().filter(of_interest).map(str::to_owned).collect()
}

fn own_restrictions() -> Vec<String> {
    restrictions(&std::fs::read_to_string("/proc/thread-self/status").unwrap())
}

#[test]
fn an_installed_filter_is_the_thread_s_and_that_of_those_it_starts() {
    let (installed, other) = std::thread::scope(|scope| {
        let (told, wait) = std::sync::mpsc::channel();
        let other = scope.spawn(move || {
            wait.recv().unwrap();
            call(1000, 5)
        });
        let installed = scope.spawn(move || {
            Filter::new()
                .rule(1000, [arg(0).eq(5)], Action::Errno(Errno::EXFULL))
                .install()
                .unwrap();
            told.send(()).unwrap();
            let later = std::thread::spawn(|| call(1000, 5)).join().unwrap();
            let child = std::process::Command::new("cat")
                .arg("/proc/self/status")
                .output();
            let status = String::from_utf8(child.unwrap().stdout).unwrap();
            assert_eq!(restrictions(&status), own_restrictions());
            assert!(status.contains("NoNewPrivs:\t1\nSeccomp:\t2\n"), "{status}");
            [call(1000, 5), call(1000, 6), later]
        });
        (installed.join().unwrap(), other.join().unwrap())
    });
    assert_eq!(installed, [errno(Errno::EXFULL), UNKNOWN, errno(Errno::EXFULL)]);
    assert_eq!(other, UNKNOWN);
}

#[test]
fn of_two_installed_filters_the_stricter_action_and_the_newer_errno_count() {
    let results = std::thread::spawn(|| {
        for errno in [Errno::EXFULL, Errno::EUNATCH] {
            let filter = Filter::new().errno(1000, errno);
            let more = if errno == Errno::EXFULL {
                filter.errno(1001, errno)
            } else {
                filter.allow(1001)
            };
            more.install().unwrap();
        }
        [call(1000, 0), call(1001, 0), call(1002, 0)]
    });
    assert_eq!(
        results.join().unwrap(),
        [errno(Errno::EUNATCH), errno(Errno::EXFULL), UNKNOWN]
    );
}

#[test]
fn a_filter_that_traps_is_not_installed() {
    let trapping = [
        Filter::new().trap(1000),
        Filter::new().trap_if(1000, [arg(0).eq(1)]),
        Filter::trap_all(),
        Filter::new().foreign_abi(Action::Trap),
    ];
    for filter in trapping {
        assert!(matches!(not_installed(filter), Error::InvalidFilter(_)));
    }
}

#[test]
fn a_filter_with_a_mistake_is_not_installed() {
    let error = not_installed(Filter::new().errno(1000, Errno::EPERM).trap(-1));
    assert!(matches!(error, Error::InvalidFilter(_)), "{error:?}");
}

/// Why a filter is not installed on a thread, which stays as it was.
fn not_installed(filter: Filter) -> Error {
    let thread = std::thread::spawn(move || {
        let before = own_restrictions();
        let error = filter.install().unwrap_err();
        assert_eq!(own_restrictions(), before);
        assert_eq!(call(1000, 1), UNKNOWN);
        error
    });
    thread.join().unwrap()
}
