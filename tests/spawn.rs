//! Starts that are given up, that are many at once, on several runtimes and threads, or on none.

mod support;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};

use asm_tracer::{Command, Error, Filter, Listener, SpawnStep, Stdio, Supervisor};
use futures::future::join_all;
use support::start::{Leftovers, Way, current_thread, finish, leaving_nothing, run};
use support::{in_process_of_its_own, within};

/// A command with all that a start can hold: pipes, a filter that traps everything.
fn full(program: &str, way: Way) -> Command {
    let mut command = Command::new(program);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .filter(Filter::trap_all());
    way.apply(&mut command);
    command
}

/// Polls a future at most so many times, letting the runtime work in between, and drops it then.
async fn polled<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..times {
        let mut cx = Context::from_waker(futures::task::noop_waker_ref());
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

#[test]
fn a_start_that_is_dropped_leaves_nothing_behind_wherever_it_was() {
    let test = "a_start_that_is_dropped_leaves_nothing_behind_wherever_it_was";
    leaving_nothing(test, async |before| {
        for way in Way::BOTH {
            for program in ["sleep", "/nowhere/at/all"] {
                for kill_on_drop in [true, false] {
                    for trap_initial_exec in [false, true] {
                        let mut command = full(program, way);
                        command
                            .kill_on_drop(kill_on_drop)
                            .trap_initial_exec(trap_initial_exec);
                        let mut done = None;
                        let mut times = 0;
                        // Until it comes to its end by itself, and a few times more for other interleavings.
                        while done.is_none() && times < 100_000 {
                            done = polled(command.spawn(), times).await;
                            times += 1 + times / 8;
                            if done.is_none() {
                                before
                                    .assert_soon_none(&format!("{times} polls of {command:?}, {way:?}"))
                                    .await;
                            }
                        }
                        let done = done.unwrap();
                        assert_eq!(done.is_ok(), program == "sleep" || trap_initial_exec);
                        if let Ok((mut child, listener)) = done {
                            let _ = child.start_kill();
                            drop((child, listener));
                        }
                        before.assert_soon_none("the last").await;
                    }
                }
            }
        }
    });
}

// The same where nobody runs the runtime any more: what is left is seen to by a thread.
#[test]
fn a_start_that_is_dropped_with_its_runtime_leaves_nothing_behind() {
    let test = "a_start_that_is_dropped_with_its_runtime_leaves_nothing_behind";
    in_process_of_its_own(test, || {
        assert!(
            current_thread()
                .block_on(run(&mut Command::new("true")))
                .unwrap()
                .status
                .success()
        );
        let before = Leftovers::now();
        for way in Way::BOTH {
            for times in 0..20 {
                let runtime = current_thread();
                let mut command = full("sleep", way);
                let task = runtime.spawn(async move { command.spawn().await });
                runtime.block_on(async {
                    for _ in 0..times {
                        tokio::task::yield_now().await;
                    }
                });
                drop(runtime);
                drop(task);
                before.assert_soon_none_blocking(&format!("{times} rounds of the runtime, {way:?}"));
            }
        }
    });
}

#[test]
fn a_supervisor_that_goes_meanwhile_fails_the_start() {
    let test = "a_supervisor_that_goes_meanwhile_fails_the_start";
    leaving_nothing(test, async |before| {
        for way in Way::BOTH {
            for kill_on_drop in [true, false] {
                let mut command = full("sleep", way);
                command
                    .arg("1000")
                    .kill_on_drop(kill_on_drop)
                    .filter(Filter::new());
                for polls in 0..4 {
                    let supervisor = Supervisor::new();
                    let spawner = supervisor.spawner();
                    {
                        let mut start = pin!(spawner.spawn(&mut command));
                        if let Some(started) = polled(start.as_mut(), polls).await {
                            // It was faster.
                            started.unwrap().kill().await.unwrap();
                            continue;
                        }
                        drop(supervisor);
                        let error = within("the error", start).await.unwrap_err();
                        assert!(matches!(error, Error::SupervisorGone), "{error:?}");
                    }
                    before
                        .assert_soon_none(&format!("{way:?}, kill_on_drop {kill_on_drop}, {polls} polls"))
                        .await;
                }
            }
        }
    });
}

// T25, T26
#[tokio::test]
async fn many_starts_at_once_in_one_task() {
    for filter in [Filter::new(), Filter::trap_all()] {
        let mut commands: Vec<_> = (0..60)
            .map(|index| {
                let mut command = full("cat", Way::BOTH[index % 2]);
                command.filter(filter.clone());
                command
            })
            .collect();
        let started = within("all starts", join_all(commands.iter_mut().map(Command::spawn))).await;
        let ends = started.into_iter().map(|started| {
            let (child, listener) = started.unwrap();
            finish(child, listener)
        });
        for output in join_all(ends).await {
            assert!(output.unwrap().status.success());
        }
    }
}

// T24, T28: no child keeps what belongs to another, and no fork meets a lock that is held.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_starts_at_once_in_tasks_on_many_threads() {
    let tasks = (0..8).map(|task| {
        tokio::spawn(async move {
            for round in 0..15 {
                let mut command = full("cat", Way::BOTH[(task + round) % 2]);
                let mut ballast: Vec<Vec<u8>> = (0..50).map(|size| vec![0; size * 100]).collect();
                let (child, listener) = command.spawn().await.unwrap();
                ballast.clear();
                // It ends only if nobody else holds the pipe to it.
                let output = finish(child, listener).await.unwrap();
                assert!(output.status.success());
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_start_children_of_one_supervisor() {
    let mut supervisor = Supervisor::new();
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let spawner = supervisor.spawner();
            tokio::spawn(async move {
                for round in 0..5 {
                    let mut command = full("echo", Way::BOTH[(task + round) % 2]);
                    command.arg(format!("{task} {round}"));
                    let child = within("the start", spawner.spawn(&mut command)).await.unwrap();
                    let output = within("the end", child.wait_with_output()).await.unwrap();
                    assert_eq!(output.stdout, format!("{task} {round}\n").as_bytes());
                }
            })
        })
        .collect();
    while let Some(call) = within("a call", supervisor.next()).await {
        call.continue_syscall().unwrap();
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[test]
fn a_child_of_one_runtime_is_waited_for_and_served_on_another() {
    let (one, other) = (current_thread(), current_thread());
    for way in Way::BOTH {
        let mut command = full("cat", way);
        let (child, listener) = one.block_on(command.spawn()).unwrap();
        // Whoever registered the descriptors has to run for others to hear of them.
        let serving = std::thread::scope(|scope| {
            let (done, until_done) = tokio::sync::oneshot::channel::<()>();
            let driver = scope.spawn(|| one.block_on(until_done));
            let output = other.block_on(finish(child, listener));
            done.send(()).unwrap();
            driver.join().unwrap().unwrap();
            output
        });
        assert!(serving.unwrap().status.success());
    }
}

#[test]
fn two_runtimes_start_children_at_the_same_time() {
    let threads: Vec<_> = (0..3)
        .map(|thread| {
            std::thread::spawn(move || {
                current_thread().block_on(async {
                    for round in 0..20 {
                        let output = run(&mut full("echo", Way::BOTH[(thread + round) % 2])).await;
                        assert_eq!(output.unwrap().stdout, b"\n");
                    }
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn outside_of_a_runtime_there_is_an_error_and_nothing_else() {
    let test = "outside_of_a_runtime_there_is_an_error_and_nothing_else";
    in_process_of_its_own(test, || {
        fn at_once<F: Future>(future: F) -> F::Output {
            let mut cx = Context::from_waker(futures::task::noop_waker_ref());
            match pin!(future).poll(&mut cx) {
                Poll::Ready(output) => output,
                Poll::Pending => panic!("it waits for nobody"),
            }
        }
        let attempt = |command: &mut Command| {
            let error = at_once(command.spawn()).unwrap_err();
            assert!(matches!(error, Error::NoRuntime), "{error:?}");
        };
        attempt(&mut Command::new("true"));
        let before = Leftovers::now();
        for way in Way::BOTH {
            attempt(&mut full("true", way));
            before.assert_none("a start outside of a runtime");
        }
        let supervisor = Supervisor::new();
        let mut command = full("true", Way::Shared);
        let error = at_once(supervisor.spawn(&mut command)).unwrap_err();
        assert!(error.to_string().contains("Tokio runtime"), "{error}");
        // And within one it works.
        assert!(
            current_thread()
                .block_on(run(&mut command))
                .unwrap()
                .status
                .success()
        );
    });
}

// The step that is cancelled most is also one that can fail: nothing is left either way.
#[test]
fn failed_starts_at_once_leave_nothing_behind() {
    leaving_nothing("failed_starts_at_once_leave_nothing_behind", async |before| {
        let mut commands: Vec<_> = (0..40)
            .map(|index| full("/nowhere/at/all", Way::BOTH[index % 2]))
            .collect();
        for started in join_all(commands.iter_mut().map(Command::spawn)).await {
            let error = started.unwrap_err();
            let expected = matches!(
                error,
                Error::Spawn {
                    step: SpawnStep::Exec,
                    ..
                }
            );
            assert!(expected, "{error:?}");
        }
        before.assert_none("failed starts");
    });
}

#[allow(unused)]
fn the_futures_can_be_sent(command: &mut Command, supervisor: &Supervisor, listener: &mut Listener) {
    fn sent<T: Send>(_: T) {}
    sent(command.spawn());
    sent(supervisor.spawn(command));
    sent(listener.next());
}
