//! A look at memory that stalls holds up its own child's looks and nobody else.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use asm_tracer::{Child, Error, Notification, Result, Supervisor, Sysno, Target};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::stalling::{KINDS, lookers, page_of, stalled, stalling};
use support::start::{current_thread, descriptors};
use support::target::{adopt_orphans, command, orphan_end, threads, waits_in};
use support::{in_process_of_its_own, until, until_blocking, within};
use tokio::io::AsyncWriteExt;

/// How many threads stall for one child at most.
const LIMIT: usize = 4;

/// Makes a call with a string for each byte on its standard input, which must be answered with the string's length.
const FRIENDLY: &str = r#"
int main(void) {
    while (told()) check(trap((long)"/a/friendly/path", 0, 0, 0) == 16, "the answer");
    return 0;
}
"#;

/// A child whose memory stalls, and the call with which it says where.
struct Hostile {
    child: Child,
    call: Notification,
    page: u64,
    /// The process behind the memory.
    other: u32,
}

impl Hostile {
    async fn start(supervisor: &mut Supervisor, kind: &str) -> Option<Self> {
        let child = supervisor.spawn(&mut stalling(kind)).await.unwrap();
        let call = within("the call", supervisor.next()).await.unwrap();
        assert_eq!(call.child(), child.key());
        match page_of(&call) {
            Some((page, other)) => Some(Self {
                child,
                call,
                page,
                other,
            }),
            None => {
                call.respond(1).unwrap();
                assert!(within("the end", supervisor.next()).await.is_none());
                None
            }
        }
    }

    /// The read that stalls.
    fn read(&self) -> impl FnOnce(&Target) -> Result<u8> + Send + 'static {
        let page = self.page;
        move |target| target.read_value::<u8>(page)
    }

    /// Ends what is behind the memory; the rest goes on with zeros.
    async fn release(child: &mut Child) {
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"h").await.unwrap();
    }
}

/// Ends the process behind the memory when a test fails, so that nothing outlives it.
struct KillOnDrop(u32);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0 as i32), Signal::SIGKILL);
    }
}

/// Runs a body for each kind of stalling memory, on a runtime of one thread in a process of its own, which must not be
/// blocked.
fn for_each_kind(test: &str, body: impl AsyncFn(&'static str) + Send + Copy + 'static) {
    in_process_of_its_own(test, || {
        adopt_orphans();
        let thread = std::thread::spawn(move || {
            for kind in KINDS {
                current_thread().block_on(body(kind));
            }
        });
        until_blocking("the runtime has got on", || thread.is_finished());
        thread.join().unwrap();
    });
}

async fn stalled_by(count: usize) {
    until("the looks stall", || stalled() == count).await;
}

#[test]
fn stalled_looks_hold_up_nobody_else_and_no_more_threads_than_the_limit() {
    for_each_kind(
        "stalled_looks_hold_up_nobody_else_and_no_more_threads_than_the_limit",
        hold_up_nobody,
    );
}

async fn hold_up_nobody(kind: &'static str) {
    // What stays for good, as the launcher does.
    let mut supervisor = Supervisor::new();
    let mut first = supervisor
        .spawn(&mut command("friendly", FRIENDLY))
        .await
        .unwrap();
    drop(first.stdin.take());
    assert!(within("the end", supervisor.next()).await.is_none());
    assert!(first.wait().await.unwrap().success());
    let before = (threads(std::process::id()).len(), descriptors());

    let mut supervisor = Supervisor::new();
    let Some(hostile) = Hostile::start(&mut supervisor, kind).await else {
        return;
    };
    let other = KillOnDrop(hostile.other);
    let ran = Arc::new(AtomicUsize::new(0));
    let mut looks = Vec::new();
    // Whether by a call or by the child.
    let at_child = tokio::spawn(hostile.child.look_at(hostile.page, 8));
    stalled_by(1).await;
    for _ in 0..3 * LIMIT {
        let (read, ran) = (hostile.read(), Arc::clone(&ran));
        let look = hostile.call.look(move |target| {
            ran.fetch_add(1, Ordering::Relaxed);
            read(target)
        });
        looks.push(tokio::spawn(look));
    }
    stalled_by(LIMIT).await;

    // Another child is served on the same runtime, while another task has its turns too.
    let ticks = Arc::new(AtomicUsize::new(0));
    let ticker = tokio::spawn({
        let ticks = Arc::clone(&ticks);
        async move {
            loop {
                ticks.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    let mut friendly = supervisor
        .spawn(&mut command("friendly", FRIENDLY))
        .await
        .unwrap();
    let mut stdin = friendly.stdin.take().unwrap();
    for _ in 0..50 {
        let already = ticks.load(Ordering::Relaxed);
        stdin.write_all(b"x").await.unwrap();
        let call = within("a friendly call", supervisor.next()).await.unwrap();
        let address = call.args()[0] as u64;
        let look = call.look(move |target| target.read_path(address));
        let path = within("a look", look).await.unwrap();
        assert_eq!(path.as_os_str(), "/a/friendly/path");
        assert!(
            call.respond(path.as_os_str().len() as i64)
                .unwrap()
                .is_delivered()
        );
        assert!(ticks.load(Ordering::Relaxed) > already);
    }
    ticker.abort();
    drop(stdin);
    let end = within("the friendly end", friendly.wait()).await.unwrap();
    assert!(end.success());
    drop(friendly);
    assert_eq!(stalled(), LIMIT);
    assert_eq!(lookers().len(), LIMIT + 1);
    assert_eq!(ran.load(Ordering::Relaxed), LIMIT - 1);

    // Those that wait and those that stall are dropped; the threads count as long as they stall.
    assert!(looks.iter().all(|look| !look.is_finished()));
    at_child.abort();
    assert!(within("the abort", at_child).await.unwrap_err().is_cancelled());
    for look in looks {
        look.abort();
        assert!(within("the abort", look).await.unwrap_err().is_cancelled());
    }
    let refused = tokio::spawn(hostile.call.look(|_| Ok(())));
    within("the supervisor's turns", async {
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!refused.is_finished());
    assert_eq!(stalled(), LIMIT);

    // The child can be killed meanwhile and is reaped, and its listener is closed.
    let Hostile { mut child, call, .. } = hostile;
    let stdin = child.stdin.take();
    within("the death", child.kill()).await.unwrap();
    drop((child, call, supervisor));
    refused.abort();
    assert!(within("the abort", refused).await.unwrap_err().is_cancelled());
    assert_eq!(stalled(), LIMIT);
    until("only the pipe is open", || {
        descriptors().len() == before.1.len() + 1
    })
    .await;

    // Without what is behind the memory, nothing is left.
    drop(stdin);
    orphan_end(other.0);
    std::mem::forget(other);
    until("the threads have ended", || {
        (threads(std::process::id()).len(), descriptors()) == before
    })
    .await;
    assert_eq!(
        ran.load(Ordering::Relaxed),
        LIMIT - 1,
        "a look that was dropped ran"
    );
}

#[test]
fn looks_that_wait_are_done_when_the_memory_stalls_no_more() {
    for_each_kind(
        "looks_that_wait_are_done_when_the_memory_stalls_no_more",
        async |kind| {
            let mut supervisor = Supervisor::new();
            let Some(mut hostile) = Hostile::start(&mut supervisor, kind).await else {
                return;
            };
            let _other = KillOnDrop(hostile.other);
            let looks: Vec<_> = (0..3 * LIMIT)
                .map(|_| tokio::spawn(hostile.call.look(hostile.read())))
                .collect();
            stalled_by(LIMIT).await;
            Hostile::release(&mut hostile.child).await;
            for look in looks {
                let read = within("a look", look).await.unwrap();
                match kind {
                    "FUSE" => {
                        assert!(matches!(read, Err(Error::Fault { address }) if address == hostile.page))
                    }
                    _ => assert_eq!(read.unwrap(), 0),
                }
            }
            assert!(hostile.call.respond(1).unwrap().is_delivered());
            assert!(within("the end", supervisor.next()).await.is_none());
            assert!(hostile.child.wait().await.unwrap().success());
        },
    );
}

/// Whether what is behind the memory was ended.
static RELEASED: AtomicBool = AtomicBool::new(false);

/// Drops a runtime, on a thread of its own, in which a read stalls. It says whether that outlasted the stall.
struct ShutDown {
    thread: std::thread::JoinHandle<bool>,
    tid: u32,
    other: KillOnDrop,
}

impl ShutDown {
    fn begin(kind: &'static str, stall: fn(Notification, u64)) -> Option<Self> {
        RELEASED.store(false, Ordering::SeqCst);
        let (started, starts) = channel();
        let thread = std::thread::spawn(move || {
            let runtime = current_thread();
            runtime.block_on(async {
                let mut supervisor = Supervisor::new();
                let Some(hostile) = Hostile::start(&mut supervisor, kind).await else {
                    return;
                };
                let other = KillOnDrop(hostile.other);
                stall(hostile.call, hostile.page);
                let stalls = |tid: &u32| waits_in(*tid, Sysno::process_vm_readv);
                until("the read stalls", || {
                    threads(std::process::id()).iter().any(stalls)
                })
                .await;
                let mut child = hostile.child;
                // Its end would end what is behind the memory.
                let stdin = child.stdin.take().unwrap().into_owned_fd().unwrap();
                let tid = nix::unistd::gettid().as_raw() as u32;
                started.send((tid, other, stdin)).unwrap();
            });
            drop(runtime);
            RELEASED.load(Ordering::SeqCst)
        });
        let Ok((tid, other, stdin)) = starts.recv() else {
            thread.join().unwrap();
            return None;
        };
        std::mem::forget(stdin);
        Some(Self { thread, tid, other })
    }

    fn release(other: KillOnDrop) {
        RELEASED.store(true, Ordering::SeqCst);
        drop(other);
    }
}

#[test]
fn a_runtime_shuts_down_while_a_look_stalls() {
    let test = "a_runtime_shuts_down_while_a_look_stalls";
    in_process_of_its_own(test, || {
        for kind in KINDS {
            let begun = ShutDown::begin(kind, |call, page| {
                tokio::spawn(async move { call.look(move |target| target.read_value::<u8>(page)).await });
            });
            let Some(shut_down) = begun else { continue };
            until_blocking("the runtime is gone", || shut_down.thread.is_finished());
            assert!(!shut_down.thread.join().unwrap());
            assert_eq!(stalled(), 1);
            ShutDown::release(shut_down.other);
            until_blocking("the read has ended", || stalled() == 0);
        }
    });
}

/// Why the library has threads of its own.
#[test]
fn a_runtime_waits_for_its_own_blocking_threads() {
    let test = "a_runtime_waits_for_its_own_blocking_threads";
    in_process_of_its_own(test, || {
        for kind in KINDS {
            let begun = ShutDown::begin(kind, |call, page| {
                tokio::task::spawn_blocking(move || call.read_value::<u8>(page));
            });
            let Some(shut_down) = begun else { continue };
            let thread = &shut_down.thread;
            until_blocking("the runtime is gone or waits", || {
                thread.is_finished() || waits_in(shut_down.tid, Sysno::futex)
            });
            ShutDown::release(shut_down.other);
            until_blocking("the runtime is gone", || thread.is_finished());
            assert!(shut_down.thread.join().unwrap());
        }
    });
}
