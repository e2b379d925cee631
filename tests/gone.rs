//! When a target no longer waits.

mod support;

use std::time::Duration;

use asm_tracer::{
    Action, Child, Delivery, Errno, Error, Filter, KernelSupport, Listener, Notification, Signal, Sysno,
};
use support::limit::Lowered;
use support::target::{command, next, on_each_runtime, threads};
use support::{in_process_of_its_own, until, within};

const CALLS: &str = "int main(void) { return trap(1, 0, 0, 0) != 7; }";

async fn start(name: &str, body: &str) -> (Child, Listener, Notification) {
    let (child, mut listener) = command(name, body).spawn().await.unwrap();
    let call = next(&mut listener).await;
    (child, listener, call)
}

/// Fails if the call is taken for gone.
async fn is_not_gone(call: &Notification) {
    let gone = tokio::time::timeout(Duration::from_millis(60), call.gone()).await;
    assert!(gone.is_err(), "{gone:?}");
    assert!(call.is_pending());
}

#[test]
fn a_target_that_waits_is_not_gone_until_it_is_killed() {
    on_each_runtime(|| async {
        let (mut child, _listener, call) = start("calls", CALLS).await;
        is_not_gone(&call).await;
        let kills = async {
            tokio::task::yield_now().await;
            child.start_kill().unwrap();
        };
        let (gone, ()) = within("the end", futures::future::join(call.gone(), kills)).await;
        gone.unwrap();
        // And for good.
        within("the end", call.gone()).await.unwrap();
        assert_eq!(call.respond(7).unwrap(), Delivery::Gone);
    });
}

#[test]
fn looking_out_changes_nothing() {
    on_each_runtime(|| async {
        let (mut child, mut listener, call) = start("calls", CALLS).await;
        for _ in 0..100 {
            tokio::select! {
                biased;
                gone = call.gone() => panic!("{gone:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
        assert_eq!(call.respond(7).unwrap(), Delivery::Delivered);
        assert!(within("the end", listener.next()).await.is_none());
        assert!(child.wait().await.unwrap().success());
    });
}

#[test]
fn looking_out_leaves_no_descriptor_open() {
    in_process_of_its_own("looking_out_leaves_no_descriptor_open", || {
        on_each_runtime(|| async {
            let (mut child, _listener, call) = start("calls", CALLS).await;
            let before = support::open_descriptors();
            for _ in 0..100 {
                let mut gone = call.gone();
                tokio::select! {
                    biased;
                    gone = &mut gone => panic!("{gone:?}"),
                    () = tokio::task::yield_now() => {}
                }
                assert_eq!(support::open_descriptors(), before + 2);
            }
            assert_eq!(support::open_descriptors(), before);
            child.start_kill().unwrap();
            within("the end", call.gone()).await.unwrap();
            assert_eq!(support::open_descriptors(), before);
        });
    });
}

// T9: no event tells it, and the target lives on.
#[test]
fn a_call_that_a_signal_took_back_is_gone() {
    const INTERRUPTED: &str = r#"
        int main(int argc, char **argv) {
            handle_signal(SIGUSR1, 0);
            check(trap(1, 0, 0, 0) == -EINTR && handled == 1, "EINTR");
            return trap(2, 0, 0, 0) != 7;
        }
    "#;
    on_each_runtime(|| async {
        let mut command = command("taken_back", INTERRUPTED);
        let (mut child, mut listener) = command.wait_killable(false).spawn().await.unwrap();
        let call = next(&mut listener).await;
        is_not_gone(&call).await;
        let signals = async {
            tokio::task::yield_now().await;
            child.signal(Signal::SIGUSR1).unwrap();
        };
        let (gone, ()) = within("the end", futures::future::join(call.gone(), signals)).await;
        gone.unwrap();
        let after = next(&mut listener).await;
        assert_eq!(after.args()[0], 2);
        is_not_gone(&after).await;
        within("the end", call.gone()).await.unwrap();
        assert_eq!(after.respond(7).unwrap(), Delivery::Delivered);
        assert!(within("the end", listener.next()).await.is_none());
        assert!(child.wait().await.unwrap().success());
    });
}

/// The thread that is frozen dies by the other one's execution; the process lives on, and its new program makes a call.
/// `argv[1]` says which one executes.
const EXECUTES: &str = r#"
static void *freeze(void *unused) { trap(1, 0, 0, 0); return unused; }
static void *execute(void *unused) {
    told();
    execl("/proc/self/exe", "again", NULL);
    return unused;
}
int main(int argc, char **argv) {
    if (argc == 1) return trap(2, 0, 0, 0) != 7;
    int leader = !strcmp(argv[1], "leader executes");
    pthread_t thread;
    check(!pthread_create(&thread, NULL, leader ? freeze : execute, NULL), "pthread_create");
    (leader ? execute : freeze)(NULL);
}
"#;

async fn a_thread_dies(which: &str) {
    use tokio::io::AsyncWriteExt;
    let (mut child, mut listener) = command("executes", EXECUTES).arg(which).spawn().await.unwrap();
    let call = next(&mut listener).await;
    let leader = call.tid() == Some(call.pid().unwrap());
    assert_eq!(leader, which != "leader executes");
    is_not_gone(&call).await;
    let pid = child.id().unwrap();
    let executes = async { child.stdin.as_mut().unwrap().write_all(b"x").await.unwrap() };
    let (gone, ()) = within("the thread's end", futures::future::join(call.gone(), executes)).await;
    gone.unwrap();
    assert_eq!(call.respond(7).unwrap(), Delivery::Gone);
    let call = next(&mut listener).await;
    assert_eq!((call.args()[0], call.pid().unwrap() as u32), (2, pid));
    assert_eq!(threads(pid).len(), 1);
    is_not_gone(&call).await;
    assert_eq!(call.respond(7).unwrap(), Delivery::Delivered);
    assert!(within("the end", listener.next()).await.is_none());
    assert!(child.wait().await.unwrap().success());
}

// T8
#[test]
fn a_thread_that_dies_alone_is_gone() {
    on_each_runtime(|| async {
        a_thread_dies("leader executes").await;
        a_thread_dies("thread executes").await;
    });
}

/// Runs all of it where no thread, or nothing at all, has a pidfd.
fn where_refused(test: &str, refusing: Filter) {
    in_process_of_its_own(test, || {
        // Starting a child needs to find pidfds.
        assert!(KernelSupport::get().pidfd);
        refusing.install().unwrap();
        on_each_runtime(|| async {
            a_thread_dies("leader executes").await;
            a_thread_dies("thread executes").await;
            let (mut child, _listener, call) = start("calls", CALLS).await;
            is_not_gone(&call).await;
            child.start_kill().unwrap();
            within("the end", call.gone()).await.unwrap();
        });
    });
}

// T8
#[test]
fn before_thread_pidfds_the_death_of_a_thread_is_found() {
    let flag = asm_tracer::filter::int_arg(1).masked_eq(libc::O_EXCL, libc::O_EXCL);
    where_refused(
        "before_thread_pidfds_the_death_of_a_thread_is_found",
        Filter::new().rule(Sysno::pidfd_open, [flag], Action::Errno(Errno::EINVAL)),
    );
}

#[test]
fn without_any_pidfd_of_the_target_its_death_is_found() {
    where_refused(
        "without_any_pidfd_of_the_target_its_death_is_found",
        Filter::new().errno(Sysno::pidfd_open, Errno::EPERM),
    );
}

#[test]
fn many_threads_are_gone_at_once() {
    const MANY: &str = r#"
        static void *freeze(void *unused) { trap(1, 0, 0, 0); return unused; }
        int main(void) {
            pthread_t thread;
            for (int i = 0; i < 63; i++) check(!pthread_create(&thread, NULL, freeze, NULL), "pthread_create");
            freeze(NULL);
        }
    "#;
    on_each_runtime(|| async {
        let (mut child, mut listener, call) = start("many", MANY).await;
        let mut calls = vec![call];
        while calls.len() < 64 {
            calls.push(next(&mut listener).await);
        }
        let mut waiting: Vec<_> = calls
            .into_iter()
            .map(|call| tokio::spawn(async move { call.gone().await.map(|()| call.is_pending()) }))
            .collect();
        until("they wait", || waiting.iter().all(|task| !task.is_finished())).await;
        child.start_kill().unwrap();
        for task in waiting.drain(..) {
            assert!(!within("the end", task).await.unwrap().unwrap());
        }
    });
}

#[test]
fn what_looking_out_lacks_is_told_and_the_call_still_waits() {
    in_process_of_its_own("what_looking_out_lacks_is_told_and_the_call_still_waits", || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (child, mut listener, call) = runtime.block_on(start("calls", CALLS));
        let error = futures::executor::block_on(call.gone()).unwrap_err();
        assert!(matches!(error, Error::NoRuntime), "{error:?}");
        let lowered = Lowered::to(libc::RLIMIT_NOFILE, 0);
        let error = runtime.block_on(call.gone()).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EMFILE), "{error:?}");
        drop(lowered);
        // For want of the second one, the death is looked for.
        let full = Lowered::to(libc::RLIMIT_NOFILE, lowest_free() + 1);
        runtime.block_on(is_not_gone(&call));
        drop(full);
        assert_eq!(call.respond(7).unwrap(), Delivery::Delivered);
        runtime.block_on(async move {
            let mut child = child;
            assert!(within("the end", listener.next()).await.is_none());
            assert!(child.wait().await.unwrap().success());
        });
    });
}

/// The number that the next descriptor of this process gets.
fn lowest_free() -> u64 {
    use std::os::fd::AsRawFd;
    std::fs::File::open("/dev/null").unwrap().as_raw_fd() as u64
}
