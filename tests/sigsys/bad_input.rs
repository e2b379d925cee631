//! What can't be traced is an error, after which the process is as it was.

use asm_tracer::filter::{Threads, arg};
use asm_tracer::sigsys::{Builder, Event, Tracer, drain_trapped_syscalls, enable_tracing};
use asm_tracer::{Action, Errno, Error, Filter, Sysno};
use nix::libc;

use crate::common::{
    ANSWER, KernelAction, alone, answer, assert_traced, bit, blocked, call, calls_of, handle, kernel_action,
    own_status, set_mask, trace_getppid,
};
use crate::support::{open_descriptors, until_blocking};

/// What an installation changes.
#[derive(Debug, PartialEq, Eq)]
struct State {
    seccomp: [Option<String>; 2],
    blocked: u64,
    actions: Vec<KernelAction>,
    threads: Vec<String>,
    descriptors: usize,
}

fn threads() -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok())
        .collect();
    names.sort();
    names
}

fn state() -> State {
    State {
        seccomp: ["Seccomp", "Seccomp_filters"].map(own_status),
        blocked: blocked(),
        actions: (1..=64)
            .filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal))
            .map(kernel_action)
            .collect(),
        threads: threads(),
        descriptors: open_descriptors(),
    }
}

extern "C" fn nothing(_: i32) {}

/// Fails to install this, and leaves everything as it was; gives the error.
fn refused(builder: Builder) -> Error {
    // What an installation could change.
    set_mask(bit(libc::SIGSYS) | bit(libc::SIGUSR1));
    handle(libc::SIGUSR2, nothing as *const () as usize, 0, u64::MAX);
    let before = state();
    let error = builder.install().expect_err("it was installed");
    // The drain ends when it has seen that there is nothing more to do.
    until_blocking("the drain has ended", || threads() == before.threads);
    assert_eq!(state(), before, "{error}");
    set_mask(0);
    error
}

/// After which this can be done right.
fn assert_possible() {
    let tracer = trace_getppid();
    assert_traced();
    assert_eq!(calls_of(&tracer).len(), 1);
}

#[test]
fn numbers_that_are_none_are_refused() {
    alone(|| {
        for number in [-1, i64::MIN, i64::MAX, 1 << 32, 100_000, 0x4000_0000, 1023] {
            let error = refused(Tracer::builder().trap([libc::SYS_getppid, number]));
            assert!(matches!(error, Error::InvalidFilter(_)), "{number}: {error:?}");
            assert!(error.to_string().contains(&number.to_string()), "{error}");
            let enabled = enable_tracing(&[number], None);
            assert!(matches!(enabled, Err(Error::InvalidFilter(_))), "{number}");
        }
        assert!(drain_trapped_syscalls().is_empty());
        assert_possible();
    });
}

#[test]
fn a_filter_that_traces_nothing_is_refused() {
    alone(|| {
        let none: [i64; 0] = [];
        let builders = [
            Tracer::builder(),
            Tracer::builder().trap(none),
            Tracer::builder().filter(Filter::new().errno(Sysno::mkdir, Errno::EROFS)),
        ];
        for builder in builders {
            assert!(matches!(refused(builder), Error::InvalidFilter(_)));
        }
        assert!(matches!(
            enable_tracing(&[], Some(answer)),
            Err(Error::InvalidFilter(_))
        ));
        assert_possible();
    });
}

// P11
#[test]
fn calls_of_other_abis_can_not_be_traced() {
    alone(|| {
        let filter = Filter::trap_all().foreign_abi(Action::Trap);
        let error = refused(Tracer::builder().filter(filter));
        assert!(matches!(error, Error::InvalidFilter(_)), "{error:?}");
    });
}

#[test]
fn conditions_that_are_none_are_refused() {
    alone(|| {
        let condition = arg(6).eq(1);
        let filter = Filter::new().trap_if(Sysno::getppid, [condition]);
        assert!(matches!(
            refused(Tracer::builder().filter(filter)),
            Error::InvalidFilter(_)
        ));
        let filter = Filter::new().trap(Sysno::getppid);
        let filter = (0..2000).fold(filter, |filter, value| {
            filter.trap_if(Sysno::openat, [arg(0).eq(2 * value), arg(1).eq(value)])
        });
        let error = refused(Tracer::builder().filter(filter));
        assert!(
            matches!(error, Error::FilterTooLarge { limit: 4096, .. }),
            "{error:?}"
        );
        assert_possible();
    });
}

#[test]
fn capacities_that_can_not_be_had_are_refused() {
    alone(|| {
        for capacity in [
            0,
            3,
            100,
            4095,
            usize::MAX,
            usize::MAX / 2,
            1 << 63,
            1 << 40,
            1 << 21,
        ] {
            let error = refused(Tracer::builder().trap(Sysno::getppid).capacity(capacity));
            assert!(
                matches!(error, Error::InvalidCapacity(given) if given == capacity),
                "{error:?}"
            );
            assert_eq!(error.errno(), Some(Errno::EINVAL));
        }
        let tracer = Tracer::builder()
            .trap(Sysno::getppid)
            .capacity(1)
            .install()
            .unwrap();
        call(Sysno::getppid, &[]);
        assert_eq!(calls_of(&tracer).len(), 1);
    });
}

#[test]
fn a_second_installation_is_refused() {
    alone(|| {
        let tracer = trace_getppid();
        for _ in 0..2 {
            let again = Tracer::builder().trap(Sysno::getpgrp).install();
            assert!(matches!(again, Err(Error::AlreadyTracing)), "{again:?}");
            assert!(matches!(
                enable_tracing(&[libc::SYS_getpgrp], None),
                Err(Error::AlreadyTracing)
            ));
            assert_traced();
        }
        let elsewhere = std::thread::spawn(|| Tracer::builder().trap(Sysno::getpgrp).install());
        assert!(matches!(elsewhere.join().unwrap(), Err(Error::AlreadyTracing)));
        assert_eq!(calls_of(&tracer).len(), 2);
        assert_eq!(own_status("Seccomp_filters").as_deref(), Some("1"));
        drop(tracer);
        let again = Tracer::builder().trap(Sysno::getppid).install();
        assert!(matches!(again, Err(Error::AlreadyTracing)), "{again:?}");
        assert_eq!(own_status("Seccomp_filters").as_deref(), Some("1"));
        // The first filter traps still, and nobody answers.
        assert_ne!(call(Sysno::getppid, &[]), ANSWER);
    });
}

#[test]
fn what_enable_tracing_began_is_refused_again() {
    alone(|| {
        assert!(drain_trapped_syscalls().is_empty());
        enable_tracing(&[libc::SYS_getppid], Some(answer)).unwrap();
        assert_traced();
        assert!(matches!(
            enable_tracing(&[libc::SYS_getppid], None),
            Err(Error::AlreadyTracing)
        ));
        assert_traced();
        let calls = drain_trapped_syscalls();
        assert_eq!(calls.len(), 2);
        assert!(calls.iter().all(|call| call.nr == libc::SYS_getppid));
        assert!(drain_trapped_syscalls().is_empty());
    });
}

#[test]
fn a_program_that_handles_sigsys_is_refused() {
    alone(|| {
        handle(
            libc::SIGSYS,
            nothing as *const () as usize,
            libc::SA_RESTART,
            0x77,
        );
        let error = refused(Tracer::builder().trap(Sysno::getppid));
        assert!(matches!(error, Error::SigsysTaken), "{error:?}");
        assert_eq!(error.errno(), Some(Errno::EBUSY));
        handle(libc::SIGSYS, libc::SIG_DFL, 0, 0);
        assert_possible();
    });
}

#[test]
fn events_are_read_by_one_at_a_time_and_in_a_runtime() {
    alone(|| {
        let tracer = trace_getppid();
        for _ in 0..2 {
            assert!(matches!(tracer.events(), Err(Error::NoRuntime)));
        }
        assert_traced();
        assert_eq!(calls_of(&tracer).len(), 1);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut events = tracer.events().unwrap();
            assert!(matches!(tracer.events(), Err(Error::EventsTaken)));
            assert!(matches!(tracer.drain(), Err(Error::EventsTaken)));
            assert_traced();
            assert!(matches!(events.next().await, Some(Event::Call(_))));
            drop(events);
            assert!(tracer.drain().unwrap().is_empty());
            let mut events = tracer.events().unwrap();
            assert_traced();
            assert!(matches!(events.next().await, Some(Event::Call(_))));
        });
    });
}

/// Installs under a filter that refuses this call with this error.
fn under(number: Sysno, errno: Errno) {
    Filter::new().errno(number, errno).install().unwrap();
    for threads in [Threads::Calling, Threads::All] {
        let error = refused(Tracer::builder().trap(Sysno::getppid).threads(threads));
        match errno {
            Errno::ENOSYS => assert!(matches!(error, Error::Unsupported { .. }), "{error:?}"),
            _ => assert!(matches!(error, Error::Io { .. }), "{error:?}"),
        }
        assert_eq!(error.errno(), Some(errno));
    }
    assert_ne!(call(Sysno::getppid, &[]), ANSWER);
}

#[test]
fn a_kernel_that_forbids_filters_is_an_error() {
    alone(|| under(Sysno::seccomp, Errno::EPERM));
}

#[test]
fn a_kernel_that_does_not_know_filters_is_an_error() {
    alone(|| under(Sysno::seccomp, Errno::EINVAL));
}

#[test]
fn a_kernel_that_does_not_know_the_call_is_an_error() {
    alone(|| under(Sysno::seccomp, Errno::ENOSYS));
}

#[test]
fn a_kernel_that_can_not_empty_memory_on_a_fork_is_an_error() {
    alone(|| {
        let wipe = [arg(2).eq(libc::MADV_WIPEONFORK as u64)];
        let filter = Filter::new().rule(Sysno::madvise, wipe, Action::Errno(Errno::EINVAL));
        filter.install().unwrap();
        let error = refused(Tracer::builder().trap(Sysno::getppid));
        assert!(
            matches!(error, Error::Unsupported { since: "4.14", .. }),
            "{error:?}"
        );
    });
}

#[test]
fn a_process_that_may_not_give_up_privileges_is_an_error() {
    alone(|| under(Sysno::prctl, Errno::EPERM));
}

#[test]
fn a_process_that_may_not_handle_signals_is_an_error() {
    alone(|| {
        let eleven = |signal: i32| arg(0).eq(signal as u64);
        let set = [eleven(libc::SIGSYS), arg(1).ne(0)];
        let filter = Filter::new().rule(Sysno::rt_sigaction, set, Action::Errno(Errno::EPERM));
        filter.install().unwrap();
        let error = refused(Tracer::builder().trap(Sysno::getppid));
        assert_eq!(error.errno(), Some(Errno::EPERM));
    });
}

#[test]
fn a_process_that_may_not_have_threads_is_an_error() {
    alone(|| {
        Filter::new()
            .errno([Sysno::clone3, Sysno::clone], Errno::EAGAIN)
            .install()
            .unwrap();
        let error = refused(Tracer::builder().trap(Sysno::getppid));
        assert!(matches!(error, Error::Io { .. }), "{error:?}");
        assert_eq!(error.errno(), Some(Errno::EAGAIN));
    });
}

#[test]
fn a_process_without_descriptors_is_an_error() {
    alone(|| {
        let error = {
            let next = std::fs::File::open("/dev/null").unwrap();
            let limit = std::os::fd::AsRawFd::as_raw_fd(&next) as u64;
            drop(next);
            let _limit = crate::support::limit::Lowered::to(libc::RLIMIT_NOFILE, limit);
            Tracer::builder().trap(Sysno::getppid).install().unwrap_err()
        };
        assert_eq!(error.errno(), Some(Errno::EMFILE), "{error:?}");
        assert_eq!(own_status("Seccomp").as_deref(), Some("0"));
        assert_possible();
    });
}

#[test]
fn a_thread_with_a_filter_of_its_own_is_traced_all_the_same() {
    alone(|| {
        let (go_on, told) = std::sync::mpsc::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            Filter::new().errno(Sysno::mkdir, Errno::EROFS).install().unwrap();
            drop(ready);
            let _: Result<(), _> = told.recv();
            // SAFETY: asks for a number.
            let parent = unsafe { libc::getppid() };
            (parent, std::fs::create_dir("/tmp/never").unwrap_err().kind())
        });
        let _: Result<(), _> = is_ready.recv();
        let all = Tracer::builder().trap(Sysno::getppid).threads(Threads::All);
        let _tracer = all.hook(answer).install().unwrap();
        drop(go_on);
        let refused = std::io::ErrorKind::ReadOnlyFilesystem;
        assert_eq!(other.join().unwrap(), (ANSWER as i32, refused));
    });
}

// P7
#[test]
fn a_thread_that_blocks_sigsys_is_an_error() {
    alone(|| {
        let (leave, left) = std::sync::mpsc::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            set_mask(u64::MAX);
            // SAFETY: asks for a number.
            ready.send(unsafe { libc::gettid() }).unwrap();
            let _: Result<(), _> = left.recv();
            set_mask(0);

            ready.send(0).unwrap();
            let _: Result<(), _> = left.recv();
            call(Sysno::getppid, &[])
        });
        let thread = is_ready.recv().unwrap();
        let all = || {
            Tracer::builder()
                .trap(Sysno::getppid)
                .hook(answer)
                .threads(Threads::All)
        };
        match refused(all()) {
            Error::SigsysBlocked { threads } => assert_eq!(threads, [thread]),
            other => panic!("{other:?}"),
        }
        // The calling one alone could be traced; all of them can be once it is open.
        leave.send(()).unwrap();
        is_ready.recv().unwrap();
        let _tracer = all().install().unwrap();
        drop(leave);
        assert_eq!(other.join().unwrap(), ANSWER);
        assert_traced();
    });
}
