//! What a hook may do, and what it must not be able to.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};

use asm_tracer::blocking::{TracedChild, Tracer};
use asm_tracer::{Delivery, Errno, Error, Filter, Notification, Signal, Sysno, TrappedSyscall};

use crate::support::target::frozen_threads_blocking;
use crate::support::until_blocking;
use crate::{program, received, start, until_dropped};

/// Makes calls with these first arguments and prints what each gives.
const PRINTS: &str = r#"
    int main(void) {
        for (long i = 0; i < 4; i++)
            printf("%ld ", trap(i, -1, 1L << 62, 7));
    }
"#;

fn printed(child: &TracedChild) -> String {
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn what_it_gives_is_what_the_call_returns() {
    let answers = [0, i64::MAX, -(Errno::EPERM as i64), -4096];
    let mut given = answers.into_iter();
    let child = start(Tracer::new(move |_| given.next()), "prints", PRINTS);
    assert_eq!(printed(&child), format!("0 {} -1 -4096 ", i64::MAX));
    let calls = child.drain_syscalls();
    let expected = |first| [first, -1, 1 << 62, 7];
    let args = calls
        .iter()
        .map(|call| <[i64; 4]>::try_from(&call.args[..4]).unwrap());
    assert_eq!(args.collect::<Vec<_>>(), [0, 1, 2, 3].map(expected));
    assert_eq!(child.wait().unwrap(), 0);
}

#[test]
fn none_lets_the_call_run() {
    let child = start(Tracer::new(|_| None), "prints", PRINTS);
    let parent = std::process::id();
    assert_eq!(printed(&child), format!("{parent} {parent} {parent} {parent} "));
}

#[test]
fn a_panic_fails_the_call_and_is_reported() {
    let by_value = || {
        Tracer::new(|call: &TrappedSyscall| match call.args[0] {
            1 => resume_unwind(Box::new("out of tune")),
            3 => resume_unwind(Box::new(String::from("a second one"))),
            other => Some(other),
        })
    };
    let by_notification = || {
        Tracer::with_notifications(|call: Notification| match call.args()[0] {
            1 => resume_unwind(Box::new("out of tune")),
            3 => resume_unwind(Box::new(String::from("a second one"))),
            other => assert!(call.respond(other).unwrap().is_delivered()),
        })
    };
    for tracer in [by_value(), by_notification()] {
        let child = start(tracer, "prints", PRINTS);
        let stdout = child.take_stdout().unwrap();
        let unknown = -(Errno::ENOSYS as i64);
        for _ in 0..3 {
            match child.wait().unwrap_err() {
                Error::HookPanicked {
                    message,
                    status: Some(status),
                } => assert_eq!((message.as_str(), status.code()), ("out of tune", Some(0))),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(
            std::io::read_to_string(stdout).unwrap(),
            format!("0 {unknown} 2 {unknown} ")
        );
        assert_eq!(child.drain_syscalls().len(), 4);
    }
}

/// The child ends as soon as the call of the panic is answered.
#[test]
fn whoever_sees_the_child_end_sees_the_panic() {
    const CALLS_AND_ENDS: &str = "int main(void) { trap(0, 0, 0, 0); _exit(7); }";
    for round in 0..200 {
        let tracer = Tracer::with_notifications(move |_call| resume_unwind(Box::new(round.to_string())));
        let child = start(tracer, "calls_and_ends", CALLS_AND_ENDS);
        match child.wait().unwrap_err() {
            Error::HookPanicked {
                message,
                status: Some(status),
            } => assert_eq!((message, status.code()), (round.to_string(), Some(7))),
            other => panic!("{round}: {other:?}"),
        }
    }
}

#[test]
fn a_panic_that_says_nothing_is_one_as_well() {
    let child = start(Tracer::new(|_| panic_any(17)), "prints", PRINTS);
    let error = child.wait().unwrap_err();
    assert_eq!(error.to_string(), "the hook panicked: a panic without a message");
}

struct PanicsWhenDropped(#[expect(dead_code, reason = "tells when it is gone")] Sender<()>);

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

/// The calls of [`PRINTS`] were refused, and the child has ended.
fn all_refused(child: &TracedChild) {
    let stdout = child.take_stdout().unwrap();
    until_blocking("the child has ended", || !matches!(child.try_wait(), Ok(None)));
    let unknown = -(Errno::ENOSYS as i64);
    assert_eq!(
        std::io::read_to_string(stdout).unwrap(),
        format!("{unknown} {unknown} {unknown} {unknown} ")
    );
}

#[test]
fn what_a_panic_carries_may_panic_as_it_is_dropped() {
    let (gone, dropped) = channel();
    let throw = move || -> Option<i64> { panic_any(PanicsWhenDropped(gone.clone())) };
    let by_value = {
        let throw = throw.clone();
        Tracer::new(move |_| throw())
    };
    let by_notification = Tracer::with_notifications(move |_call| {
        throw();
    });
    for tracer in [by_value, by_notification] {
        let child = start(tracer, "prints", PRINTS);
        all_refused(&child);
        let error = child.wait().unwrap_err();
        assert_eq!(error.to_string(), "the hook panicked: a panic without a message");
    }
    until_dropped(&dropped);
}

/// As a runtime does with its tasks.
#[test]
fn a_hook_may_catch_a_panic_that_drops_the_call() {
    let child = start(
        Tracer::with_notifications(|call| {
            let caught = catch_unwind(AssertUnwindSafe(move || {
                let _call = call;
                resume_unwind(Box::new("caught"));
            }));
            assert!(caught.is_err());
        }),
        "prints",
        PRINTS,
    );
    all_refused(&child);
    assert_eq!(child.wait().unwrap(), 0);
}

/// It is why the execution failed.
#[test]
fn a_panic_at_the_execution_is_reported() {
    let mut command = program("true", &[]);
    command
        .filter(Filter::new().trap(Sysno::execve))
        .trap_initial_exec(true);
    let tracer = Tracer::new(|_| resume_unwind(Box::new("no programs")));
    let child = tracer.spawn(&mut command).unwrap();
    let error = child.wait().unwrap_err();
    assert_eq!(error.to_string(), "the hook panicked: no programs");
}

#[test]
fn a_hook_may_panic_as_it_is_dropped() {
    let (gone, hook) = channel();
    let bomb = PanicsWhenDropped(gone);
    let child = start(
        Tracer::new(move |_| {
            let _ = &bomb;
            None
        }),
        "prints",
        PRINTS,
    );
    let _ = child.wait();
    until_dropped(&hook);
    until_blocking("the panic is reported", || child.wait().is_err());
    assert_eq!(
        child.wait().unwrap_err().to_string(),
        "the hook panicked: dropped"
    );
}

/// A hook that tells of each call and waits to be told the answer.
fn waiting() -> (Tracer, Receiver<TrappedSyscall>, Sender<Option<i64>>) {
    let ((calls, call), (answers, answer)) = (channel(), channel());
    let tracer = Tracer::new(move |call| {
        calls.send(*call).unwrap();
        answer.recv().unwrap()
    });
    (tracer, call, answers)
}

/// Shows the number that it was told.
const SHOWS: &str = r#"
    int main(void) {
        long number = 4711;
        return trap((long)&number, sizeof number, 0, 0) == 1 && number == 4711 ? 0 : 1;
    }
"#;

#[test]
fn a_blocked_hook_freezes_its_own_child_alone() {
    let (tracer, call, answer) = waiting();
    let child = start(tracer, "shows", SHOWS);
    let first = received("the call", &call);
    let [address, length, ..] = first.args;
    // Others start, run and end meanwhile.
    for _ in 0..20 {
        let other = start(Tracer::new(|_| Some(1)), "shows", SHOWS);
        assert_eq!(other.wait().unwrap(), 0);
        let memory = child.read_memory(address as u64, length as usize).unwrap();
        assert_eq!(memory, 4711_i64.to_ne_bytes());
        child.kill(0).unwrap();
    }
    assert_eq!(child.try_wait().unwrap(), None);
    assert_eq!(child.drain_syscalls(), [first]);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| child.wait().unwrap());
        answer.send(Some(1)).unwrap();
        assert_eq!(waiter.join().unwrap(), 0);
    });
    until_dropped(&call);
}

#[test]
fn a_child_can_be_killed_while_its_hook_runs() {
    let (tracer, call, answer) = waiting();
    let child = start(tracer, "shows", SHOWS);
    let [address, ..] = received("the call", &call).args;
    child.kill(Signal::SIGKILL).unwrap();
    // Nobody waits for the hook.
    assert_eq!(child.wait().unwrap(), Signal::SIGKILL as i32);
    assert!(matches!(child.read_memory(address as u64, 8), Err(Error::Gone)));
    assert!(matches!(child.kill(Signal::SIGTERM), Err(Error::Gone)));
    answer.send(Some(1)).unwrap();
    until_dropped(&call);
    assert_eq!(child.wait().unwrap(), Signal::SIGKILL as i32);
}

#[test]
fn a_hook_may_outlive_its_child() {
    let (tracer, call, answer) = waiting();
    let child = start(tracer, "shows", SHOWS);
    let pid = child.pid();
    received("the call", &call);
    // Kills and reaps, and doesn't wait for the hook.
    drop(child);
    until_blocking("the child is reaped", || {
        !std::path::Path::new(&format!("/proc/{pid}")).exists()
    });
    answer.send(Some(1)).unwrap();
    until_dropped(&call);
}

#[test]
fn the_notification_may_be_answered_elsewhere_and_later() {
    let (calls, call) = channel::<Notification>();
    let tracer = Tracer::with_notifications(move |call| calls.send(call).unwrap());
    let several = r#"
        static void *run(void *number) {
            check(trap((long)number, 0, 0, 0) == 1000 + (long)number, "the answer");
            return NULL;
        }
        int main(void) {
            pthread_t thread[8];
            for (long i = 0; i < 8; i++)
                check(!pthread_create(&thread[i], NULL, run, (void *)i), "pthread_create");
            for (long i = 0; i < 8; i++)
                pthread_join(thread[i], NULL);
        }
    "#;
    let child = start(tracer, "several_threads", several);
    let held: Vec<_> = (0..8).map(|_| received("a call", &call)).collect();
    frozen_threads_blocking(child.pid() as u32, 8);
    for call in held.into_iter().rev() {
        let number = call.args()[0];
        assert_eq!(call.respond(1000 + number).unwrap(), Delivery::Delivered);
    }
    assert_eq!(child.wait().unwrap(), 0);
    until_dropped(&call);
}

#[test]
fn a_notification_that_the_hook_drops_is_refused() {
    let unknown = -(Errno::ENOSYS as i64);
    let child = start(Tracer::with_notifications(drop), "prints", PRINTS);
    assert_eq!(
        printed(&child),
        format!("{unknown} {unknown} {unknown} {unknown} ")
    );
}

#[test]
fn the_hook_looks_into_the_memory_of_descendants() {
    let (paths, path) = channel();
    let tracer = Tracer::with_notifications(move |call: Notification| {
        paths
            .send((call.pid(), call.read_path(call.args()[0] as u64)))
            .unwrap();
        call.continue_syscall().unwrap();
    });
    let mut command = program("/bin/bash", &["-c", "/bin/true; exec /bin/true"]);
    command.filter(Filter::new().trap(Sysno::execve));
    let child = tracer.spawn(&mut command).unwrap();
    assert_eq!(child.wait().unwrap(), 0);
    let seen: Vec<_> = path
        .iter()
        .map(|(pid, path)| (pid.unwrap(), path.unwrap()))
        .collect();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(
        seen.iter().all(|(_, path)| path.to_str() == Some("/bin/true")),
        "{seen:?}"
    );
    assert!(seen[0].0 != child.pid() && seen[1].0 == child.pid(), "{seen:?}");
}
