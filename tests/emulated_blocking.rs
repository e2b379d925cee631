//! Work in a target's place that a signal ends, or its going (T12).

mod support;

use std::time::Duration;

use asm_tracer::{Child, Delivery, Errno, Error, InstallFd, Interruption, Listener, Notification, Signal};
use support::target::{command, killable, next, on_each_runtime, threads};
use support::{state, until, within};

/// Fails if something is taken for an interruption.
async fn is_not_interrupted(call: &Notification) {
    let interrupted = tokio::time::timeout(Duration::from_millis(100), call.interrupted()).await;
    assert!(interrupted.is_err(), "{interrupted:?}");
    assert!(call.is_pending());
}

/// Makes calls until one gives -1, and prints what each gave; `argv[1]` is the signals' flags.
const PRINTS: &str = r#"
int main(int argc, char **argv) {
    handle_signal(SIGUSR1, atoi(argv[1]));
    long result;
    do {
        result = trap(1, 0, 0, 0);
        printf("%ld ", result);
        fflush(stdout);
    } while (result != -EPERM);
}
"#;

async fn prints(flags: i32) -> (Child, Listener) {
    let mut command = command("prints_results", PRINTS);
    command.arg(flags.to_string()).spawn().await.unwrap()
}

async fn printed(child: Child, mut listener: Listener) -> String {
    let call = next(&mut listener).await;
    call.error(Errno::EPERM).unwrap();
    assert!(within("the end", listener.next()).await.is_none());
    let output = within("the output", child.wait_with_output()).await.unwrap();
    String::from_utf8(output.stdout).unwrap()
}

type Work = futures::future::Pending<Result<i64, Errno>>;

fn for_ever() -> Work {
    futures::future::pending()
}

// T12: a timer of the target's own, which rings again in case that it did so before the call was received (T10).
#[test]
fn an_alarm_ends_a_call_with_eintr() {
    const ALARM: &str = r#"
        #include <sys/time.h>
        int main(void) {
            handle_signal(SIGALRM, 0);
            struct itimerval often = { { .tv_usec = 30000 }, { .tv_usec = 30000 } };
            check(!setitimer(ITIMER_REAL, &often, NULL), "setitimer");
            check(trap(1, 0, 0, 0) == -EINTR && handled > 0, "EINTR");
        }
    "#;
    on_each_runtime(|| async {
        let (mut child, mut listener) = command("alarm", ALARM).spawn().await.unwrap();
        while let Some(call) = within("a call, or the end", listener.next()).await {
            within("the alarm", call.serve_blocking(for_ever()))
                .await
                .unwrap();
        }
        assert!(child.wait().await.unwrap().success());
    });
}

// T12
#[test]
fn work_ends_with_its_result_or_with_a_signal() {
    if !killable() {
        return;
    }
    on_each_runtime(|| async {
        let (child, mut listener) = prints(0).await;
        let slow = async |result| {
            tokio::time::sleep(Duration::from_millis(5)).await;
            result
        };
        for result in [Ok(5), Err(Errno::EBUSY)] {
            let call = next(&mut listener).await;
            let served = call.serve_blocking(slow(result)).await;
            assert_eq!(served.unwrap(), Delivery::Delivered);
        }
        // At once, without a look at anything.
        let call = next(&mut listener).await;
        let served = call.serve_restartable(async { Ok(6) }).await;
        assert_eq!(served.unwrap(), Delivery::Delivered);
        // The result counts, although there is a signal.
        let call = next(&mut listener).await;
        child.signal(Signal::SIGUSR1).unwrap();
        let served = call.serve_blocking(async { Ok(7) }).await;
        assert_eq!(served.unwrap(), Delivery::Delivered);
        for restartable in [false, true] {
            let call = next(&mut listener).await;
            child.signal(Signal::SIGUSR1).unwrap();
            let served = match restartable {
                false => within("the signal", call.serve_blocking(for_ever())).await,
                true => within("the signal", call.serve_restartable(for_ever())).await,
            };
            assert_eq!(served.unwrap(), Delivery::Delivered);
        }
        // What is no answer comes back with the call.
        let call = next(&mut listener).await;
        let refused = call.serve_blocking(async { Ok(-1) }).await.unwrap_err();
        assert!(matches!(refused.error, Error::InvalidAnswer(_)));
        refused.notification.respond(8).unwrap();
        assert_eq!(printed(child, listener).await, "5 -16 6 7 -4 -4 8 -1 ");
    });
}

#[test]
fn a_restart_is_the_handlers_choice() {
    if !killable() {
        return;
    }
    on_each_runtime(|| async {
        let (child, mut listener) = prints(libc::SA_RESTART).await;
        let call = next(&mut listener).await;
        child.signal(Signal::SIGUSR1).unwrap();
        within("the signal", call.serve_blocking(for_ever()))
            .await
            .unwrap();
        for _ in 0..3 {
            let call = next(&mut listener).await;
            child.signal(Signal::SIGUSR1).unwrap();
            within("the signal", call.serve_restartable(for_ever()))
                .await
                .unwrap();
        }
        let call = next(&mut listener).await;
        call.respond(9).unwrap();
        assert_eq!(printed(child, listener).await, "-4 9 -1 ");
    });
}

#[test]
fn work_for_a_target_that_dies_is_given_up() {
    on_each_runtime(|| async {
        let (mut child, mut listener) = prints(0).await;
        let call = next(&mut listener).await;
        let (alive, mut dropped) = tokio::sync::oneshot::channel::<()>();
        let work = async move {
            let _alive = alive;
            for_ever().await
        };
        let serving = tokio::spawn(call.serve_blocking(work));
        child.start_kill().unwrap();
        let served = within("the end", serving).await.unwrap();
        assert_eq!(served.unwrap(), Delivery::Gone);
        assert!(dropped.try_recv().is_err());
        within("the exit", child.wait()).await.unwrap();
    });
}

#[test]
fn work_that_is_dropped_answers_enosys() {
    on_each_runtime(|| async {
        let (child, mut listener) = prints(0).await;
        let call = next(&mut listener).await;
        drop(call.serve_blocking(for_ever()));
        let call = next(&mut listener).await;
        let limit = Duration::from_millis(10);
        let served = tokio::time::timeout(limit, call.serve_blocking(for_ever())).await;
        assert!(served.is_err());
        let call = next(&mut listener).await;
        let serving = tokio::spawn(call.serve_restartable(for_ever()));
        tokio::task::yield_now().await;
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
        assert_eq!(printed(child, listener).await, "-38 -38 -38 -1 ");
    });
}

/// Threads that are all frozen, and the leader that takes the process's signals, or is frozen too.
const THREADS: &str = r#"
static volatile int over;
static void *call(void *unused) {
    while (!over) {
        long result = trap(1, 0, 0, 0);
        if (result == -EPERM) return unused;
        if (result != -EINTR) { fprintf(stderr, "the answer is %ld\n", result); exit(1); }
    }
    return unused;
}
int main(int argc, char **argv) {
    int all = !strcmp(argv[1], "all");
    handle_signal(SIGUSR1, atoi(argv[2]));
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) check(!pthread_create(&threads[i], NULL, call, NULL), "pthread_create");
    if (all) {
        call(NULL);
    } else {
        while (!handled) pause();
        printf("handled\n");
        fflush(stdout);
    }
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
}
"#;

#[test]
fn a_signal_that_another_thread_takes_ends_no_call() {
    on_each_runtime(|| async {
        let mut command = command("threads", THREADS);
        let (mut child, mut listener) = command.args(["others", "0"]).spawn().await.unwrap();
        let mut calls = Vec::new();
        for _ in 0..4 {
            calls.push(next(&mut listener).await);
        }
        let waits = futures::future::select_all(calls.iter().map(Notification::interrupted));
        let signals = async {
            use tokio::io::{AsyncBufReadExt, BufReader};
            tokio::task::yield_now().await;
            child.signal(Signal::SIGUSR1).unwrap();
            let mut line = String::new();
            let mut stdout = BufReader::new(child.stdout.as_mut().unwrap());
            stdout.read_line(&mut line).await.unwrap();
            assert_eq!(line, "handled\n");
        };
        tokio::select! {
            biased;
            (end, ..) = waits => panic!("{end:?}"),
            () = within("the handler", signals) => {}
        }
        for call in &calls {
            is_not_interrupted(call).await;
        }
        for call in calls {
            call.error(Errno::EPERM).unwrap();
        }
        assert!(within("the end", listener.next()).await.is_none());
        assert!(child.wait().await.unwrap().success());
    });
}

// T12, T13: the thread that leads the process takes the signal.
#[test]
fn a_process_stops_although_a_thread_of_it_is_frozen() {
    const STOPS: &str = r#"
        static void *call(void *unused) {
            check(trap(1, 0, 0, 0) == 7, "the answer");
            return unused;
        }
        int main(void) {
            pthread_t thread;
            check(!pthread_create(&thread, NULL, call, NULL), "pthread_create");
            pthread_join(thread, NULL);
        }
    "#;
    if !killable() {
        return;
    }
    on_each_runtime(|| async {
        let (mut child, mut listener) = command("stops", STOPS).spawn().await.unwrap();
        let pid = child.id().unwrap();
        for _ in 0..3 {
            let call = next(&mut listener).await;
            is_not_interrupted(&call).await;
            child.signal(Signal::SIGSTOP).unwrap();
            let served = within("the stop", call.serve_restartable(for_ever())).await;
            assert_eq!(served.unwrap(), Delivery::Delivered);
            let stopped = || threads(pid).into_iter().all(|tid| state(tid) == Some('T'));
            until("all threads are stopped", stopped).await;
            child.signal(Signal::SIGCONT).unwrap();
        }
        let call = next(&mut listener).await;
        call.respond(7).unwrap();
        assert!(within("the end", listener.next()).await.is_none());
        assert!(child.wait().await.unwrap().success());
    });
}

// T15: the kernel gives a signal to one thread, and the others must not return the number that stands for one.
#[test]
fn a_thread_whose_signal_may_be_anothers_sees_eintr() {
    const TWO: &str = r#"
        static void *call(void *number) {
            check(trap((long)number, 0, 0, 0) == -EINTR, "EINTR");
            told(); /* A thread that is left alone would be sure of its signal. */
            return NULL;
        }
        int main(void) {
            handle_signal(SIGUSR1, SA_RESTART);
            pthread_t thread;
            check(!pthread_create(&thread, NULL, call, (void *)2), "pthread_create");
            call((void *)1);
            pthread_join(thread, NULL);
            check(handled == 1, "handled");
        }
    "#;
    if !killable() {
        return;
    }
    on_each_runtime(|| async {
        let (mut child, mut listener) = command("two", TWO).spawn().await.unwrap();
        let mut calls = [next(&mut listener).await, next(&mut listener).await];
        calls.sort_by_key(|call| call.args()[0]);
        let [leader, other] = calls;
        // After that, a thread sleeps as if a signal had come to it.
        other.install_fd(std::io::stdin(), InstallFd::new()).unwrap();
        let tid = other.tid().unwrap() as u32;
        until("it sleeps", || state(tid) == Some('D')).await;
        child.signal(Signal::SIGUSR1).unwrap();
        for call in [other, leader] {
            let interruption = within("the signal", call.interrupted()).await.unwrap();
            assert_eq!(interruption, Interruption::Signal);
            assert!(call.interrupt().unwrap().is_delivered());
        }
        drop(child.stdin.take());
        assert!(within("the end", listener.next()).await.is_none());
        assert!(child.wait().await.unwrap().success());
    });
}

// T15: the kernel's own number reaches no program, whoever gets the signal, and no call waits for ever.
#[test]
fn many_threads_under_a_storm_of_signals_see_eintr_or_nothing() {
    use futures::StreamExt;
    on_each_runtime(|| async {
        for flags in [0, libc::SA_RESTART] {
            let mut command = command("threads", THREADS);
            command.args(["all".to_owned(), flags.to_string()]);
            let (mut child, mut listener) = command.spawn().await.unwrap();
            let pid = child.id().unwrap();
            let first = next(&mut listener).await;
            // They don't queue up, so they are sent for as long as anybody may wait for one.
            let storm = tokio::spawn(async move {
                loop {
                    signal_all(pid);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
            let mut served = tokio::task::JoinSet::new();
            let mut calls = 0;
            let mut following = futures::stream::iter([first]).chain(listener);
            while let Some(call) = within("a call, or the end", following.next()).await {
                calls += 1;
                served.spawn(async move {
                    match calls {
                        0..500 if calls % 7 == 0 => call.interrupt(),
                        0..500 if calls % 2 == 0 => call.serve_restartable(for_ever()).await,
                        0..500 => call.serve_blocking(for_ever()).await,
                        _ => call.error(Errno::EPERM),
                    }
                    .unwrap()
                });
            }
            storm.abort();
            while let Some(end) = served.join_next().await {
                end.unwrap();
            }
            let status = within("the exit", child.wait()).await.unwrap();
            assert!(status.success(), "{status} after {calls} calls");
            assert!(calls >= 500);
        }
    });
}

/// Sends a signal to the process, and one to each of its threads.
#[allow(unsafe_code)]
fn signal_all(pid: u32) {
    // SAFETY: no memory is involved; the process is not reaped as long as this is called.
    unsafe {
        libc::kill(pid as i32, libc::SIGUSR1);
        for tid in threads(pid) {
            libc::syscall(libc::SYS_tgkill, pid, tid, libc::SIGUSR1);
        }
    }
}
