//! The child as its owner holds it.
#![allow(unsafe_code)] // To ignore a signal.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::mpsc::channel;

use asm_tracer::blocking::{Tracer, spawn_traced};
use asm_tracer::{Errno, Error, Filter, Signal, SpawnStep, Stdio, Sysno, WakeUp};
use nix::sys::signal::{SigHandler, signal};

use crate::support::{in_process_of_its_own, state};
use crate::{NO_HOOK, number, program, received, start, until_dropped};

fn exists(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn its_status_is_the_same_again_and_again_and_everywhere() {
    let mut command = program("/bin/sh", &["-c", "read line; exit 37"]);
    let child = Tracer::without_hook()
        .spawn(command.stdin(Stdio::piped()))
        .unwrap();
    let pid = child.pid();
    assert_eq!(child.try_wait().unwrap(), None);
    std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..8).map(|_| scope.spawn(|| child.wait().unwrap())).collect();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), 37 << 8);
        }
    });
    for _ in 0..3 {
        assert_eq!(child.wait().unwrap(), 37 << 8);
        assert_eq!(child.try_wait().unwrap(), Some(37 << 8));
    }
    // Nothing else fails for it, or means another process.
    assert_eq!(child.pid(), pid);
    assert!(!exists(pid));
    assert!(matches!(child.kill(Signal::SIGTERM), Err(Error::Gone)));
    assert!(matches!(child.kill(0), Err(Error::Gone)));
    assert!(matches!(child.read_memory(0x1000, 8), Err(Error::Gone)));
    assert!(child.take_stdin().is_none());
    assert!(child.drain_syscalls().is_empty());
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(37));
}

#[test]
fn a_status_that_other_code_took_away_is_missed_by_all_that_wait() {
    in_process_of_its_own(
        "child::a_status_that_other_code_took_away_is_missed_by_all_that_wait",
        || {
            // SAFETY: no handler is involved.
            unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.unwrap();
            let mut command = program("/bin/sh", &["-c", "read line"]);
            let child = Tracer::without_hook()
                .spawn(command.stdin(Stdio::piped()))
                .unwrap();
            let stdin = child.take_stdin();
            let missed = || {
                let waited = child.wait();
                assert!(matches!(waited, Err(Error::Reaped)), "{waited:?}");
            };
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(missed);
                }
                drop(stdin);
            });
            missed();
            assert!(matches!(child.kill(Signal::SIGTERM), Err(Error::Gone)));
        },
    );
}

#[test]
fn its_status_is_raw() {
    for (signal, raw) in [(Signal::SIGKILL, 9), (Signal::SIGTERM, 15)] {
        let child = Tracer::without_hook()
            .spawn(program("sleep", &["1000"]).filter(Filter::new()))
            .unwrap();
        child.kill(0).unwrap();
        child.kill(signal).unwrap();
        assert_eq!(child.wait().unwrap(), raw);
    }
    let child = Tracer::without_hook()
        .spawn(&mut program("sleep", &["1000"]))
        .unwrap();
    // A real-time signal, which has no name, and one that there is not.
    child.kill(40).unwrap();
    assert_eq!(child.wait().unwrap(), 40);
    let child = Tracer::without_hook()
        .spawn(&mut program("sleep", &["1000"]))
        .unwrap();
    let error = child.kill(1000).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EINVAL), "{error:?}");
}

#[test]
fn dropping_it_kills_and_reaps() {
    for frozen in [false, true] {
        let (gone, hook) = channel::<()>();
        let (calls, call) = channel();
        let tracer = Tracer::with_notifications(move |notification| {
            let _ = &gone;
            calls.send(notification).unwrap();
        });
        let mut command = program("sleep", &["1000"]);
        if frozen {
            command.filter(Filter::new().trap(Sysno::clock_nanosleep));
        }
        let child = tracer.spawn(&mut command).unwrap();
        let pid = child.pid();
        let held = frozen.then(|| received("the call", &call));
        drop(child);
        crate::until_blocking("the child is reaped", || !exists(pid));
        drop(held);
        until_dropped(&hook);
    }
}

#[test]
fn kill_on_drop_can_be_switched_off() {
    let mut command = program("/bin/sh", &["-c", "read line"]);
    command
        .stdin(Stdio::piped())
        .filter(Filter::new().trap(Sysno::getppid))
        .kill_on_drop(false);
    let child = Tracer::without_hook().spawn(&mut command).unwrap();
    let (pid, stdin) = (child.pid(), child.take_stdin().unwrap());
    drop(child);
    assert!(matches!(state(pid as u32), Some('S' | 'R' | 'D')));
    drop(stdin);
    crate::until_blocking("the child is reaped", || !exists(pid));
}

#[test]
fn its_streams_environment_and_directory_are_those_of_the_command() {
    let mut command = program("/bin/sh", &["-c", "cat; echo $WORD; pwd; echo oh >&2"]);
    command
        .stdin(Stdio::piped())
        .env_clear()
        .env("WORD", "hush")
        .env("PATH", "/bin:/usr/bin")
        .current_dir("/usr")
        .filter(Filter::trap_all());
    let child = Tracer::without_hook().spawn(&mut command).unwrap();
    let mut stdin = child.take_stdin().unwrap();
    assert!(child.take_stdin().is_none());
    stdin.write_all(b"from us\n").unwrap();
    drop(stdin);
    let mut stderr = child.take_stderr().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "from us\nhush\n/usr\n");
    assert_eq!(output.stderr, b"");
    let mut errors = String::new();
    stderr.read_to_string(&mut errors).unwrap();
    assert_eq!(errors, "oh\n");
    assert!(child.drain_syscalls().len() > 100);
}

/// More than any pipe holds, on both, first on the one and then on the other.
#[test]
fn both_pipes_are_read_at_once() {
    let script = "head -c 1000000 /dev/zero >&2; head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2";
    let child = Tracer::without_hook()
        .spawn(&mut program("/bin/sh", &["-c", script]))
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.stdout.len(), output.stderr.len()), (1_000_000, 2_000_000));
}

#[test]
fn the_last_calls_are_kept_and_the_others_counted() {
    const CALLS: &str = "int main(void) { for (long i = 0; i < 1000; i++) trap(i, 0, 0, 0); }";
    let first = |calls: Vec<asm_tracer::TrappedSyscall>| -> Vec<i64> {
        calls.iter().map(|call| call.args[0]).collect()
    };
    for (capacity, kept) in [(0, 0), (1, 1), (10, 10), (1000, 1000), (5000, 1000)] {
        let child = start(Tracer::new(|_| Some(0)).record(capacity), "calls", CALLS);
        assert_eq!(child.wait().unwrap(), 0);
        assert_eq!(
            first(child.drain_syscalls()),
            (1000 - kept..1000).collect::<Vec<_>>()
        );
        assert_eq!(child.dropped_syscalls(), 1000 - kept as u64);
        assert!(child.drain_syscalls().is_empty());
    }
    // In the middle of it, drained as it comes.
    let child = start(Tracer::new(|_| Some(0)).record(64), "calls", CALLS);
    let mut seen = Vec::new();
    while child.try_wait().unwrap().is_none() {
        seen.extend(first(child.drain_syscalls()));
    }
    seen.extend(first(child.drain_syscalls()));
    assert!(seen.is_sorted_by(|a, b| a < b));
    assert_eq!(seen.len() as u64 + child.dropped_syscalls(), 1000);
}

#[test]
fn more_calls_than_there_is_memory_for_are_not_recorded() {
    let error = Tracer::without_hook()
        .record(usize::MAX)
        .spawn(&mut program("true", &[]))
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::OutOfMemory {
                step: SpawnStep::StartServer,
                source: Errno::ENOMEM
            }
        ),
        "{error:?}"
    );
}

/// The kernel would say that it was delivered, until the child is waited for.
#[test]
fn a_signal_to_a_child_that_has_ended_goes_nowhere() {
    let child = Tracer::without_hook().spawn(&mut program("true", &[])).unwrap();
    let ended = || matches!(state(child.pid() as u32), None | Some('Z'));
    crate::until_blocking("the child has ended", ended);
    for signal in [0, Signal::SIGKILL as i32] {
        let sent = child.kill(signal);
        assert!(matches!(sent, Err(Error::Gone)), "{sent:?}");
    }
    assert_eq!(child.wait().unwrap(), 0);
}

#[test]
fn memory_is_read_up_to_where_it_ends() {
    const MAPS: &str = r#"
        int main(void) {
            char *map = mmap(NULL, 3 * 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            check(map != MAP_FAILED && !munmap(map + 2 * 65536, 65536), "mmap");
            memset(map, 'x', 2 * 65536);
            trap((long)map, 0, 0, 0);
            told();
        }
    "#;
    let ((calls, call), (answers, answer)) = (channel(), channel::<()>());
    let tracer = Tracer::new(move |call| {
        calls.send(call.args[0] as u64).unwrap();
        answer.recv().unwrap();
        Some(0)
    });
    let child = start(tracer, "maps", MAPS);
    let map = received("the address", &call);
    let looks = |child: &asm_tracer::blocking::TracedChild| {
        assert_eq!(child.read_memory(map, 2 * 65536).unwrap(), vec![b'x'; 2 * 65536]);
        assert_eq!(child.read_memory(map + 10, 65536).unwrap(), vec![b'x'; 65536]);
        // A length that a hostile program claims takes no more memory than it has.
        assert_eq!(child.read_memory(map, usize::MAX).unwrap(), vec![b'x'; 2 * 65536]);
        assert_eq!(child.read_memory(map + 2 * 65536 - 3, 100).unwrap(), b"xxx");
        assert!(child.read_memory(map, 0).unwrap().is_empty());
        for (address, length) in [(0, 1), (u64::MAX, 16), (map + 2 * 65536, 1)] {
            let error = child.read_memory(address, length).unwrap_err();
            assert!(
                matches!(error, Error::Fault { address: at } if at == address),
                "{error:?}"
            );
        }
    };
    looks(&child);
    answers.send(()).unwrap();
    // While it isn't in a call of its hook, it is read as it is.
    looks(&child);
}

#[test]
fn the_memory_is_that_of_the_descendant_whose_call_it_is() {
    const FORKS: &str = r#"
        int main(void) {
            long *number = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            *number = 1;
            pid_t pid = fork();
            if (!pid) {
                *number = 2;
                return trap((long)number, 0, 0, 0);
            }
            int status;
            check(waitpid(pid, &status, 0) == pid && status == 0, "the descendant");
            return trap((long)number, 0, 0, 0);
        }
    "#;
    let ((calls, call), (answers, answer)) = (channel(), channel());
    let tracer = Tracer::new(move |call| {
        calls.send(call.args[0] as u64).unwrap();
        answer.recv().unwrap()
    });
    let child = start(tracer, "forks", FORKS);
    for expected in [2_i64, 1] {
        let address = received("the call", &call);
        assert_eq!(child.read_memory(address, 8).unwrap(), expected.to_ne_bytes());
        answers.send(Some(0)).unwrap();
    }
    assert_eq!(child.wait().unwrap(), 0);
}

#[test]
fn a_start_that_fails_says_why_and_leaves_nothing() {
    in_process_of_its_own("child::a_start_that_fails_says_why_and_leaves_nothing", || {
        // What the library opens for itself is open from now on.
        assert_eq!(
            Tracer::without_hook()
                .spawn(&mut program("true", &[]))
                .unwrap()
                .wait()
                .unwrap(),
            0
        );
        let settled = || {
            let threads = std::fs::read_dir("/proc/self/task").unwrap().count();
            (threads, crate::support::open_descriptors())
        };
        // The reaper's thread may be there still.
        let before = settled();
        let start =
            |path: &str, argv: &[&str], calls: &[i64]| spawn_traced(path, argv, calls, NO_HOOK).unwrap_err();
        for _ in 0..20 {
            let missing = start("/no/such/program", &["program"], &[0]);
            assert!(
                matches!(
                    missing,
                    Error::Spawn {
                        step: SpawnStep::Exec,
                        source: Errno::ENOENT
                    }
                ),
                "{missing:?}"
            );
            let not_executable = start("/etc/passwd", &["passwd"], &[0]);
            assert_eq!(not_executable.errno(), Some(Errno::EACCES));
            assert!(matches!(start("true", &["a\0b"], &[0]), Error::InvalidCommand(_)));
            assert!(matches!(start("", &["true"], &[0]), Error::InvalidCommand(_)));
            for call in [-1, i64::MIN, i64::MAX, 0x4000_0001] {
                assert!(matches!(
                    start("true", &["true"], &[call]),
                    Error::InvalidFilter(_)
                ));
            }
        }
        crate::until_blocking("threads and descriptors are as before", || settled() <= before);
        assert_eq!(nix::sys::wait::wait().unwrap_err(), Errno::ECHILD);
    });
}

#[test]
fn without_a_thread_there_is_no_child() {
    in_process_of_its_own("child::without_a_thread_there_is_no_child", || {
        // The library's own threads are there already, so that only the new one is missing.
        let child = Tracer::without_hook().spawn(&mut program("true", &[])).unwrap();
        assert_eq!(child.wait().unwrap(), 0);
        let no_threads = Filter::new().errno([Sysno::clone, Sysno::clone3], Errno::EAGAIN);
        let (gone, hook) = channel::<()>();
        let refused = std::thread::spawn(move || {
            no_threads.install().unwrap();
            let tracer = Tracer::new(move |_| {
                let _ = &gone;
                None
            });
            tracer.spawn(&mut program("true", &[])).unwrap_err()
        });
        let refused = refused.join().unwrap();
        assert!(
            matches!(
                refused,
                Error::OutOfMemory {
                    step: SpawnStep::StartServer,
                    source: Errno::EAGAIN
                }
            ),
            "{refused:?}"
        );
        until_dropped(&hook);
        assert_eq!(nix::sys::wait::wait().unwrap_err(), Errno::ECHILD);
    });
}

#[test]
fn pipes_are_read_where_there_are_no_threads_to_be_had() {
    in_process_of_its_own(
        "child::pipes_are_read_where_there_are_no_threads_to_be_had",
        || {
            let child = Tracer::without_hook()
                .spawn(&mut program("/bin/sh", &["-c", "echo out; echo oh >&2"]))
                .unwrap();
            let no_threads = Filter::new().errno([Sysno::clone, Sysno::clone3], Errno::EAGAIN);
            no_threads.install().unwrap();
            let output = child.wait_with_output().unwrap();
            assert_eq!((output.stdout, output.stderr), (b"out\n".into(), b"oh\n".into()));
        },
    );
}

#[test]
fn a_trapped_execution_that_fails_is_found_by_waiting() {
    let mut command = program("/no/such/program", &[]);
    command
        .filter(Filter::new().trap(Sysno::execve))
        .trap_initial_exec(true);
    let child = Tracer::without_hook().spawn(&mut command).unwrap();
    for _ in 0..3 {
        let error = child.wait().unwrap_err();
        assert!(
            matches!(
                error,
                Error::Spawn {
                    step: SpawnStep::Exec,
                    source: Errno::ENOENT
                }
            ),
            "{error:?}"
        );
    }
    let mut command = program("/bin/true", &[]);
    command
        .filter(Filter::new().trap(Sysno::execve))
        .trap_initial_exec(true);
    let child = Tracer::without_hook().spawn(&mut command).unwrap();
    assert_eq!(child.wait().unwrap(), 0);
    assert_eq!(child.drain_syscalls().len(), 1);
}

#[test]
fn it_works_inside_of_a_runtime_as_well() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        // One fork at a time: a child that exits while its shell's next fork has not been received makes it fail (T10).
        let argv = ["sh", "-c", "/bin/true; /bin/cat </dev/null; exit 3"];
        let every = (0..400).collect::<Vec<i64>>();
        let child = spawn_traced("/bin/sh", &argv, &every, NO_HOOK).unwrap();
        assert_eq!(child.wait().unwrap(), 3 << 8);
        assert!(
            child
                .drain_syscalls()
                .iter()
                .any(|call| call.nr == number(Sysno::execve))
        );
    });
}

#[test]
fn each_way_to_wake_up_serves() {
    const CALLS: &str = r#"
        static void *run(void *unused) {
            for (long i = 0; i < 2000; i++)
                check(trap(i, 0, 0, 0) == i, "the answer");
            return NULL;
        }
        int main(void) {
            pthread_t thread;
            check(!pthread_create(&thread, NULL, run, NULL), "pthread_create");
            run(NULL);
            pthread_join(thread, NULL);
        }
    "#;
    for policy in [WakeUp::Adaptive, WakeUp::Synchronous, WakeUp::Asynchronous] {
        let tracer = Tracer::new(|call| Some(call.args[0])).wake_up(policy);
        assert_eq!(start(tracer, "two_threads", CALLS).wait().unwrap(), 0);
    }
}
