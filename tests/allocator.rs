//! Starting children while other threads hold the allocator's lock, or any other of the C library.
#![allow(unsafe_code)] // `pre_exec`.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use asm_tracer::{Command, Errno, Error, Filter, SpawnStep, Stdio, Supervisor, Sysno};
use futures::future::join_all;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use support::target::on_each_runtime;
use support::{in_process_of_its_own, until, within};

/// Threads that allocate and free all the time, and use the environment and the standard output's locks.
struct Busy {
    over: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Busy {
    fn new() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let turns = Arc::new(AtomicUsize::new(0));
        let threads = (0..4_usize).map(|seed| {
            let (over, turns) = (Arc::clone(&over), Arc::clone(&turns));
            std::thread::spawn(move || {
                let mut size = seed;
                let mut kept = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    size = (size * 7919 + 104_729) % 50_000;
                    kept.push(vec![1_u8; size]);
                    if kept.len() > 50 {
                        kept.truncate(size % 50);
                    }
                    assert!(std::env::vars_os().count() > 0);
                    drop(std::io::stdout().lock());
                    turns.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let threads = threads.collect();
        support::until_blocking("the threads are busy", || turns.load(Ordering::Relaxed) > 100);
        Self { over, threads }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

/// A program in memory that is shared until its execution, or in a forked copy.
fn command(program: &str, forked: bool) -> Command {
    let mut command = Command::new(program);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .filter(Filter::new().trap(Sysno::getuid));
    if forked {
        // SAFETY: it does nothing.
        unsafe { command.pre_exec(|| Ok(())) };
    }
    command
}

/// Starts many children at once, one of four of which is not there.
async fn start_many(forked: bool) {
    let mut supervisor = Supervisor::new();
    let spawner = supervisor.spawner();
    let starting = tokio::spawn(async move {
        let spawner = &spawner;
        let starts = (0..40).map(|number| async move {
            if number % 4 == 0 {
                match spawner.spawn(&mut command("/nonexistent/program", forked)).await {
                    Err(Error::Spawn { step, source }) => {
                        assert_eq!((step, source), (SpawnStep::Exec, Errno::ENOENT));
                    }
                    other => panic!("{other:?}"),
                }
            } else {
                let mut child = spawner.spawn(&mut command("id", forked)).await.unwrap();
                assert!(child.wait().await.unwrap().success());
            }
        });
        join_all(starts).await;
    });
    while let Some(call) = within("a call", supervisor.next()).await {
        call.continue_syscall().unwrap();
    }
    within("the starts", starting).await.unwrap();
}

// T28
#[test]
fn children_that_share_the_memory_start_while_the_allocator_is_busy() {
    let _busy = Busy::new();
    on_each_runtime(|| start_many(false));
}

// T28
#[test]
fn forked_children_start_while_the_allocator_is_busy() {
    let _busy = Busy::new();
    on_each_runtime(|| start_many(true));
}

// T28: a start that is given up at any point leaves no process, and none that uses memory of ours afterwards.
#[test]
fn starts_that_are_given_up_leave_nothing_while_the_allocator_is_busy() {
    in_process_of_its_own(
        "starts_that_are_given_up_leave_nothing_while_the_allocator_is_busy",
        || {
            let _busy = Busy::new();
            on_each_runtime(|| async {
                for round in 0..60 {
                    let mut command = command("id", round % 2 == 0);
                    let mut start = std::pin::pin!(command.spawn());
                    for _ in 0..round / 6 {
                        if futures::poll!(start.as_mut()).is_ready() {
                            break;
                        }
                        tokio::task::yield_now().await;
                    }
                }
                let options = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
                until("there is no child left", || {
                    waitid(Id::All, options) == Err(Errno::ECHILD)
                })
                .await;
                start_many(false).await;
            });
        },
    );
}
