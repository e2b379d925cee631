//! Receiving: every call comes, once, in order, and the runtime goes on meanwhile.

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use asm_tracer::{Delivery, Filter, Listener, Supervisor, Sysno};
use support::target::{command, frozen_threads, on_each_runtime, waits_in};
use support::{BOUND, state, until, within};
use tokio::io::AsyncWriteExt;

/// `argv[1]` threads make one call each, at the same time, and check what it returns.
const THREADS: &str = r#"
static pthread_barrier_t barrier;
static void *run(void *number) {
    pthread_barrier_wait(&barrier);
    check(trap((long)number, 0, 0, 0) == 1000 + (long)number, "the answer");
    return NULL;
}
int main(int argc, char **argv) {
    long count = atol(argv[1]);
    pthread_t thread[count];
    pthread_barrier_init(&barrier, NULL, count);
    for (long i = 0; i < count; i++)
        check(!pthread_create(&thread[i], NULL, run, (void *)i), "pthread_create");
    for (long i = 0; i < count; i++)
        pthread_join(thread[i], NULL);
}
"#;

/// For each byte on the standard input, a new thread makes a call; its number is how many there were before.
const ON_DEMAND: &str = r#"
static void *run(void *number) { trap((long)number, 0, 0, 0); return NULL; }
int main(void) {
    for (long i = 0; told(); i++) {
        pthread_t thread;
        check(!pthread_create(&thread, NULL, run, (void *)i), "pthread_create");
    }
    pthread_exit(NULL);
}
"#;

/// Runs on a thread of its own, so that a runtime that is blocked fails the test and doesn't hang it.
fn unless_blocked(body: impl FnOnce() + Send + 'static) {
    let (done, finished) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        body();
        let _ = done.send(());
    });
    match finished.recv_timeout(2 * BOUND) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the runtime is blocked"),
        _ => thread.join().unwrap(),
    }
}

/// A task on the same runtime that counts.
fn ticker() -> (Arc<AtomicU64>, tokio::task::JoinHandle<()>) {
    let ticks = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&ticks);
    let task = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    (ticks, task)
}

// T1
#[test]
fn waiting_for_a_call_blocks_nobody() {
    unless_blocked(|| {
        on_each_runtime(|| async {
            let mut supervisor = Supervisor::new();
            let mut child = supervisor
                .spawn(&mut command("on_demand", ON_DEMAND))
                .await
                .unwrap();
            let (ticks, ticker) = ticker();
            tokio::select! {
                call = supervisor.next() => panic!("{call:?}"),
                () = until("the ticker has ticked", || ticks.load(Ordering::Relaxed) >= 200) => {}
            }
            ticker.abort();
            child.kill().await.unwrap();
        });
    });
}

// T1, T2
#[test]
fn one_wake_up_may_stand_for_many_calls() {
    unless_blocked(|| {
        on_each_runtime(|| async {
            // The second is more than what is received at a time.
            for threads in [64_usize, 200] {
                let mut command = command("threads", THREADS);
                let (mut child, mut listener) = command.arg(threads.to_string()).spawn().await.unwrap();
                frozen_threads(child.id().unwrap(), threads).await;
                let (ticks, ticker) = ticker();
                let mut seen = vec![0; threads];
                let mut held = Vec::new();
                while held.len() < threads {
                    let call = within("a call", listener.next()).await.unwrap();
                    seen[call.args()[0] as usize] += 1;
                    held.push(call);
                }
                assert_eq!(seen, vec![1; threads]);
                let before = ticks.load(Ordering::Relaxed);
                tokio::select! {
                    call = listener.next() => panic!("{call:?}"),
                    () = until("the ticker has ticked", || ticks.load(Ordering::Relaxed) >= before + 20) => {}
                }
                ticker.abort();
                for call in held {
                    let number = call.args()[0];
                    assert!(call.respond(1000 + number).unwrap().is_delivered());
                }
                assert!(within("the end", listener.next()).await.is_none());
                assert!(child.wait().await.unwrap().success());
            }
        });
    });
}

// user_notification_fifo
#[tokio::test]
async fn calls_come_in_the_order_in_which_they_were_trapped() {
    let (mut child, mut listener) = command("on_demand", ON_DEMAND).spawn().await.unwrap();
    let pid = child.id().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for round in 0..3 {
        for number in 1..=20 {
            stdin.write_all(b"x").await.unwrap();
            frozen_threads(pid, number).await;
        }
        for number in 0..20 {
            let call = within("a call", listener.next()).await.unwrap();
            assert_eq!(call.args()[0], round * 20 + number);
            call.continue_syscall().unwrap();
        }
        frozen_threads(pid, 0).await;
    }
    drop(stdin);
    assert!(within("the end", listener.next()).await.is_none());
    assert!(child.wait().await.unwrap().success());
}

// T3, user_notification_wait_killable_pre_notification
#[test]
fn a_call_taken_back_before_it_was_received_does_not_stop_the_stream() {
    on_each_runtime(|| async {
        let target = r#"
            int main(void) {
                handle_signal(SIGUSR1, 0);
                for (long i = 0; i < 5; i++)
                    check(trap(i, 0, 0, 0) == -EINTR && handled == i + 1, "interrupted");
                check(trap(5, 0, 0, 0) == 55, "the answer");
            }
        "#;
        let (mut child, mut listener) = command("taken_back", target).spawn().await.unwrap();
        let pid = child.id().unwrap();
        for number in 0..=5 {
            let is_call = || {
                let line = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
                line.starts_with(&format!("110 {number:#x} "))
            };
            until("the next call", is_call).await;
            if number < 5 {
                // It isn't received, so that the count of calls and the calls no longer agree.
                child.signal(asm_tracer::Signal::SIGUSR1).unwrap();
            }
        }
        let call = within("the call that stays", listener.next()).await.unwrap();
        assert_eq!(call.args()[0], 5);
        assert!(call.respond(55).unwrap().is_delivered());
        assert!(within("the end", listener.next()).await.is_none());
        assert!(child.wait().await.unwrap().success());
    });
}

// T46
#[test]
fn every_answer_goes_to_the_thread_that_asked() {
    on_each_runtime(|| async {
        let mut supervisor = Supervisor::new();
        let mut children = HashMap::new();
        for _ in 0..10 {
            let mut command = command("threads", THREADS);
            let child = supervisor.spawn(command.arg("10")).await.unwrap();
            assert!(children.insert(child.key(), (child, 0)).is_none());
        }
        let mut held = Vec::new();
        while held.len() < 100 {
            held.push(within("a call", supervisor.next()).await.unwrap());
        }
        // The last come first, and those of one child are spread over those of the others.
        for call in held.into_iter().rev() {
            let (child, calls) = children.get_mut(&call.child()).unwrap();
            assert_eq!(call.pid().unwrap() as u32, child.id().unwrap());
            *calls += 1;
            let number = call.args()[0];
            assert!(call.respond(1000 + number).unwrap().is_delivered());
        }
        assert!(within("the end", supervisor.next()).await.is_none());
        for (mut child, calls) in children.into_values() {
            assert_eq!(calls, 10);
            assert!(child.wait().await.unwrap().success());
        }
    });
}

// T45
#[test]
fn a_vfork_parent_waits_in_the_kernel_until_the_execution_is_answered() {
    const SPAWNS: &str = r#"
        #include <spawn.h>
        extern char **environ;
        int main(void) {
            for (int i = 0; i < 3; i++) {
                char *argv[] = { "true", NULL };
                pid_t pid;
                int status;
                check(posix_spawn(&pid, "/bin/true", NULL, NULL, argv, environ) == 0, "posix_spawn");
                check(waitpid(pid, &status, 0) == pid && status == 0, "waitpid");
            }
        }
    "#;
    on_each_runtime(|| async {
        let mut command = command("spawns", SPAWNS);
        command.filter(Filter::new().trap([Sysno::execve, Sysno::wait4]));
        let (mut child, mut listener) = command.spawn().await.unwrap();
        let parent = child.id().unwrap();
        for _ in 0..3 {
            let execve = within("the execution", listener.next()).await.unwrap();
            assert_eq!(execve.sysno(), Some(Sysno::execve));
            assert_ne!(execve.pid().unwrap() as u32, parent);
            until("the parent is in state D", || state(parent) == Some('D')).await;
            // Another handler looks at the parent meanwhile, and the child's memory is the parent's.
            let address = execve.args()[0] as u64;
            let mut path = [0; 10];
            assert_eq!(child.read_memory(address, &mut path).unwrap(), 10);
            assert_eq!(&path, b"/bin/true\0");
            let handler = tokio::spawn(async move {
                assert_eq!(execve.read_path(address).unwrap().to_str(), Some("/bin/true"));
                execve.continue_syscall().unwrap()
            });
            let wait = within("the parent's next call", listener.next()).await.unwrap();
            assert_eq!(wait.pid().unwrap() as u32, parent);
            assert!(waits_in(parent, Sysno::wait4));
            assert_eq!(handler.await.unwrap(), Delivery::Delivered);
            wait.continue_syscall().unwrap();
        }
        assert!(within("the end", listener.next()).await.is_none());
        assert!(child.wait().await.unwrap().success());
    });
}

// T49: a second receiver would steal from the first, and could block. There is no way to have one.
#[test]
fn a_listener_and_its_notifications_exist_once() {
    /// The inferred type below is ambiguous, and this file doesn't compile, for a type that implements `Clone`.
    trait NotClone<Marker> {
        fn exists_once() {}
    }
    struct Clones;
    impl<T: ?Sized> NotClone<()> for T {}
    impl<T: Clone> NotClone<Clones> for T {}
    <Listener as NotClone<_>>::exists_once();
    <Supervisor as NotClone<_>>::exists_once();
    // T14, T16: nor can a call be answered twice, or be let through with a value.
    <asm_tracer::Notification as NotClone<_>>::exists_once();
}
