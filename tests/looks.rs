//! Looks at targets from other threads: what they give, and what becomes of those that fail, panic or are dropped.
#![allow(unsafe_code)] // To fork.

mod support;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Waker};

use asm_tracer::{Child, Errno, Error, Filter, Listener, Look, Notification, Sysno};
use futures::FutureExt;
use futures::executor::block_on;
use futures::future::{FusedFuture, join_all};
use nix::libc;
use support::stalling::lookers;
use support::start::current_thread;
use support::target::{command, on_each_runtime};
use support::{in_process_of_its_own, proc_status, until, until_blocking, within};

/// How many threads look at one child at most.
const LIMIT: usize = 4;

/// Makes a call with a string, a place for another and a vector of both; it succeeds if the place has "written" then.
const TARGET: &str = r#"
#include <sys/uio.h>
static char place[100];
int main(void) {
    char *text = "some/path";
    struct iovec both[2] = { { text, 9 }, { place, sizeof place } };
    check(trap((long)text, (long)place, (long)both, 0) == 1, "the answer");
    return strcmp(place, "written");
}
"#;

struct Frozen {
    child: Child,
    listener: Listener,
    call: Notification,
}

impl Frozen {
    async fn start() -> Self {
        let (child, mut listener) = command("looked_at", TARGET).spawn().await.unwrap();
        let call = within("the call", listener.next()).await.unwrap();
        Self {
            child,
            listener,
            call,
        }
    }

    /// Lets the target go on, which then has what it wants.
    async fn finish(mut self) {
        let place = self.call.args()[1] as u64;
        self.call.write_memory(place, b"written").unwrap();
        assert!(self.call.respond(1).unwrap().is_delivered());
        assert!(within("the end", self.listener.next()).await.is_none());
        assert!(self.child.wait().await.unwrap().success());
    }
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn one_look_does_any_number_of_accesses() {
    on_each_runtime(|| async {
        let frozen = Frozen::start().await;
        let [text, place, both, ..] = frozen.call.args().map(|address| address as u64);
        let look = frozen.call.look(move |target| {
            let path = target.read_path(text)?;
            let string = target.read_cstr(text, 10)?;
            let start: [u8; 4] = target.read_value(text)?;
            let slices: [_; 2] = target.read_iovec(both, 2)?.try_into().unwrap();
            target.write_memory(place, b"seen")?;
            let mut seen = [0; 5];
            let n = target.read_memory(place, &mut seen)?;
            Ok((path, string, start, slices, seen[..n].to_vec()))
        });
        let (path, string, start, slices, seen) = within("the look", look).await.unwrap();
        assert_eq!(path.as_os_str(), "some/path");
        assert_eq!(string.as_bytes(), b"some/path");
        assert_eq!(&start, b"some");
        assert_eq!(
            slices.map(|slice| (slice.address, slice.len)),
            [(text, 9), (place, 100)]
        );
        assert_eq!(seen, b"seen\0");
        let fault = within("a fault", frozen.call.look(|target| target.read_path(8))).await;
        assert!(matches!(fault, Err(Error::Fault { address: 8 })), "{fault:?}");
        frozen.finish().await;
    });
}

#[test]
fn a_look_at_a_child_reads_what_there_is_until_it_has_ended() {
    on_each_runtime(|| async {
        let frozen = Frozen::start().await;
        let text = frozen.call.args()[0] as u64;
        let read = within("the look", frozen.child.look_at(text, 9)).await;
        assert_eq!(read.unwrap(), b"some/path");
        // To the end of the mapping, in pieces.
        let read = within("all", frozen.child.look_at(text, usize::MAX))
            .await
            .unwrap();
        assert!(read.starts_with(b"some/path\0"));
        assert_eq!((text + read.len() as u64) % 4096, 0);
        let fault = within("a fault", frozen.child.look_at(8, 8)).await;
        assert!(matches!(fault, Err(Error::Fault { address: 8 })), "{fault:?}");
        let mut child = frozen.child;
        let late = child.look_at(text, 9);
        within("the death", child.kill()).await.unwrap();
        assert!(matches!(within("the look", late).await, Err(Error::Gone)));
        let orphaned = child.look_at(text, 9);
        drop(child);
        assert!(matches!(within("the look", orphaned).await, Err(Error::Gone)));
    });
}

#[test]
fn after_the_answer_the_target_is_gone_and_does_not_keep_the_listener() {
    on_each_runtime(|| async {
        let frozen = Frozen::start().await;
        let text = frozen.call.args()[0] as u64;
        let target = frozen.call.look(|target| Ok(target.clone()));
        let target = within("the target", target).await.unwrap();
        assert_eq!(target.read_path(text).unwrap().as_os_str(), "some/path");
        let look = frozen.call.look(move |target| target.read_path(text));
        frozen.finish().await;
        assert!(matches!(within("the look", look).await, Err(Error::Gone)));
        assert!(matches!(target.read_path(text), Err(Error::Gone)));
        assert!(matches!(target.write_memory(text, b"x"), Err(Error::Gone)));
    });
}

#[test]
fn many_looks_share_the_threads_of_their_child() {
    in_process_of_its_own("many_looks_share_the_threads_of_their_child", || {
        on_each_runtime(|| async {
            let frozen = Frozen::start().await;
            let text = frozen.call.args()[0] as u64;
            let most = Arc::new(AtomicUsize::new(0));
            let at_once = Arc::new(AtomicUsize::new(0));
            let looks = (0..500).map(|n| {
                let (most, at_once) = (Arc::clone(&most), Arc::clone(&at_once));
                frozen.call.look(move |target| {
                    most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let path = target.read_path(text);
                    at_once.fetch_sub(1, Ordering::SeqCst);
                    path.map(|path| (n, path))
                })
            });
            let outcomes = within("the looks", join_all(looks)).await;
            for (n, outcome) in outcomes.into_iter().enumerate() {
                let (number, path) = outcome.unwrap();
                assert_eq!((number, path.as_os_str()), (n, "some/path".as_ref()));
            }
            assert!((1..=LIMIT).contains(&most.load(Ordering::SeqCst)));
            assert!(lookers().len() <= LIMIT);
            frozen.finish().await;
        });
    });
}

#[test]
fn idle_threads_end_and_busy_ones_leave_signals_to_others() {
    in_process_of_its_own("idle_threads_end_and_busy_ones_leave_signals_to_others", || {
        current_thread().block_on(async {
            let frozen = Frozen::start().await;
            for _ in 0..2 {
                let look = frozen.call.look(|_| Ok(nix::unistd::gettid()));
                let tid = within("the look", look).await.unwrap();
                assert_eq!(lookers(), [tid.as_raw() as u32]);
                let blocked = proc_status(tid.as_raw() as u32, "SigBlk").unwrap();
                let open = !u64::from_str_radix(&blocked, 16).unwrap();
                let signals: Vec<_> = (1..=64)
                    .filter(|signal| open & (1_u64 << (signal - 1)) != 0)
                    .collect();
                // The C library keeps two of its own open.
                assert_eq!(signals, [libc::SIGKILL, libc::SIGSTOP, libc::SIGSYS, 32, 33]);
                until("the thread has ended", || lookers().is_empty()).await;
            }
            frozen.finish().await;
        });
    });
}

#[test]
fn a_look_that_is_dropped_while_it_waits_never_runs() {
    on_each_runtime(|| async {
        let frozen = Frozen::start().await;
        // One that was never polled.
        let held = Arc::new(());
        let dropped = frozen.call.look({
            let held = Arc::clone(&held);
            move |_| -> Result<(), Error> { panic!("it ran, with {held:?}") }
        });
        assert!(!dropped.is_terminated());
        drop(dropped);
        assert_eq!(Arc::strong_count(&held), 1);
        // Those that wait behind others which take as long as they are told to.
        let (ends, busy): (Vec<_>, Vec<_>) = (0..LIMIT)
            .map(|n| {
                let (end, ended) = channel::<()>();
                let (running, runs) = channel();
                let mut look = frozen.call.look(move |_| {
                    running.send(()).unwrap();
                    let _ = ended.recv();
                    Ok(n)
                });
                assert!(poll_once(&mut look).is_pending());
                runs.recv().unwrap();
                (end, look)
            })
            .unzip();
        let mut waiting: Vec<Look<()>> = (0..100)
            .map(|_| {
                let held = Arc::clone(&held);
                frozen.call.look(move |_| panic!("it ran, with {held:?}"))
            })
            .collect();
        assert!(waiting.iter_mut().all(|look| poll_once(look).is_pending()));
        assert_eq!(Arc::strong_count(&held), 101);
        let mut last = frozen.call.look(|_| Ok(()));
        assert!(poll_once(&mut last).is_pending());
        drop(waiting);
        assert_eq!(Arc::strong_count(&held), 1);
        drop(ends);
        within("the last", last).await.unwrap();
        for (n, look) in busy.into_iter().enumerate() {
            assert_eq!(within("a busy one", look).await.unwrap(), n);
        }
        frozen.finish().await;
    });
}

#[test]
fn what_a_dropped_look_returns_is_dropped() {
    on_each_runtime(|| async {
        let frozen = Frozen::start().await;
        let value = Arc::new(());
        let (end, ended) = channel::<()>();
        let mut look = frozen.call.look({
            let value = Arc::clone(&value);
            move |_| {
                let _ = ended.recv();
                Ok(value)
            }
        });
        assert!(poll_once(&mut look).is_pending());
        drop(look);
        drop(end);
        until("the value is dropped", || Arc::strong_count(&value) == 1).await;
        frozen.finish().await;
    });
}

/// Panics as it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("dropped");
        }
    }
}

#[test]
fn a_panic_goes_on_where_the_look_is_awaited_and_nowhere_else() {
    in_process_of_its_own(
        "a_panic_goes_on_where_the_look_is_awaited_and_nowhere_else",
        || {
            on_each_runtime(|| async {
                let frozen = Frozen::start().await;
                for _ in 0..2 * LIMIT {
                    let look = frozen
                        .call
                        .look(|_| -> Result<(), Error> { panic!("on purpose") });
                    let unwound = within("the panic", AssertUnwindSafe(look).catch_unwind()).await;
                    let payload = unwound.unwrap_err();
                    assert_eq!(payload.downcast_ref(), Some(&"on purpose"));
                }
                // Nobody awaits these; the value of one panics as it is dropped, and the payload of the other.
                let (end, ended) = channel::<()>();
                let mut bomb = frozen.call.look(move |_| {
                    let _ = ended.recv();
                    Ok(Bomb)
                });
                let (end_too, ended) = channel::<()>();
                let mut payload = frozen.call.look(move |_| -> Result<(), Error> {
                    let _ = ended.recv();
                    std::panic::panic_any(Bomb)
                });
                assert!(poll_once(&mut bomb).is_pending() && poll_once(&mut payload).is_pending());
                drop((bomb, payload, end, end_too));
                for _ in 0..2 * LIMIT {
                    within("a look", frozen.call.look(|_| Ok(()))).await.unwrap();
                }
                assert!((1..=LIMIT).contains(&lookers().len()));
                frozen.finish().await;
            });
        },
    );
}

#[test]
fn without_a_thread_the_look_fails_and_the_call_is_answerable() {
    in_process_of_its_own(
        "without_a_thread_the_look_fails_and_the_call_is_answerable",
        || {
            current_thread().block_on(async {
                let frozen = Frozen::start().await;
                let call = frozen.call;
                // The filter is this thread's own.
                let (call, failed) = std::thread::spawn(move || {
                    let filter = Filter::new().errno([Sysno::clone, Sysno::clone3], Errno::EAGAIN);
                    filter.install().unwrap();
                    let failed: Vec<_> = (0..2 * LIMIT).map(|_| block_on(call.look(|_| Ok(())))).collect();
                    (call, failed)
                })
                .join()
                .unwrap();
                for outcome in failed {
                    let error = outcome.unwrap_err();
                    assert_eq!(error.errno(), Some(Errno::EAGAIN), "{error:?}");
                }
                within("a look", call.look(|_| Ok(()))).await.unwrap();
                Frozen { call, ..frozen }.finish().await;
            });
        },
    );
}

#[test]
fn a_forked_process_has_threads_of_its_own() {
    in_process_of_its_own("a_forked_process_has_threads_of_its_own", || {
        let runtime = current_thread();
        let frozen = runtime.block_on(Frozen::start());
        let text = frozen.call.args()[0] as u64;
        let read = || frozen.call.look(move |target| target.read_path(text));
        assert_eq!(block_on(read()).unwrap().as_os_str(), "some/path");
        // All of the child's threads are busy, and looks wait; the pool has an idle one too.
        let (end, ended) = channel::<()>();
        let ended = Arc::new(std::sync::Mutex::new(ended));
        let mut pending: Vec<_> = (0..2 * LIMIT)
            .map(|_| {
                let ended = Arc::clone(&ended);
                frozen.call.look(move |_| {
                    let _ = ended.lock().unwrap().recv();
                    Ok(())
                })
            })
            .collect();
        assert!(pending.iter_mut().all(|look| poll_once(look).is_pending()));
        until_blocking("the threads are busy", || lookers().len() == LIMIT);
        // SAFETY: the other threads of this process are waiting, in a channel and for the tests, and hold no lock that
        // the child needs.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            let checked = catch_unwind(AssertUnwindSafe(|| {
                for mut look in pending {
                    match poll_once(&mut look) {
                        Poll::Ready(Err(error)) => assert_eq!(error.errno(), Some(Errno::ECANCELED)),
                        other => panic!("{other:?}"),
                    }
                }
                for _ in 0..2 * LIMIT {
                    assert_eq!(block_on(read()).unwrap().as_os_str(), "some/path");
                }
            }));
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(if checked.is_ok() { 7 } else { 8 }) };
        }
        let mut status = 0;
        // SAFETY: waits for the child of this process, and writes a number.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(libc::WEXITSTATUS(status), 7, "{status}");
        drop(end);
        block_on(join_all(pending))
            .into_iter()
            .for_each(|look| look.unwrap());
        runtime.block_on(frozen.finish());
    });
}
