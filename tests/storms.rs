//! Storms of signals, at the target and at the supervisor.
#![allow(unsafe_code)] // To send signals to a thread of this process.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use asm_tracer::Signal;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, sigaction};
use support::target::{command, killable, on_each_runtime};
use support::{in_process_of_its_own, within};
use tokio::io::AsyncWriteExt;

/// Makes calls while another thread signals the one that makes them, until there have been 500 of each; each call must
/// have its own answer. Prints how many calls there were.
const STORM: &str = r#"
static pthread_t caller;
static volatile int over;
static void *storm(void *unused) {
    while (!over) { pthread_kill(caller, SIGUSR1); usleep(20); }
    return NULL;
}
int main(void) {
    handle_signal(SIGUSR1, SA_RESTART);
    caller = pthread_self();
    pthread_t thread;
    check(!pthread_create(&thread, NULL, storm, NULL), "pthread_create");
    long i;
    for (i = 0; i < 500 || handled < 500; i++)
        check(trap(i, 0, 0, 0) == 1000 + i, "the answer");
    over = 1;
    pthread_join(thread, NULL);
    printf("%ld\n", i);
}
"#;

/// What became of the calls of [`STORM`].
#[derive(Debug, Default)]
struct Weather {
    /// How many the target made.
    made: usize,
    seen: usize,
    delivered: usize,
}

async fn weather(wait_killable: bool) -> Weather {
    let mut command = command("storm", STORM);
    let (child, mut listener) = command.wait_killable(wait_killable).spawn().await.unwrap();
    let mut weather = Weather::default();
    while let Some(call) = within("a call", listener.next()).await {
        let number = call.args()[0];
        weather.seen += 1;
        weather.delivered += usize::from(call.respond(1000 + number).unwrap().is_delivered());
    }
    let output = within("the output", child.wait_with_output()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    weather.made = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    weather
}

// T9
#[test]
fn a_signal_storm_repeats_calls_and_mixes_up_no_answers() {
    on_each_runtime(|| async {
        let Weather {
            made,
            seen,
            delivered,
        } = weather(false).await;
        // A call is repeated when it was taken back, and also when the signal met the answer on its way.
        assert!(
            seen >= delivered && delivered >= made,
            "{seen}, {delivered}, {made}"
        );
    });
}

// T9, T11
#[test]
fn a_signal_storm_repeats_no_received_call() {
    on_each_runtime(|| async {
        if killable() {
            let Weather {
                made,
                seen,
                delivered,
            } = weather(true).await;
            assert_eq!(seen, delivered, "a received call was taken back");
            assert_exactly_once(delivered, made);
        }
    });
}

// T11, user_notification_wait_killable_after_reply
#[test]
fn a_signal_right_after_the_answer_repeats_nothing() {
    const CALLS: usize = 3000;
    const MANY_CALLS: &str = r#"
        int main(int argc, char **argv) {
            handle_signal(SIGUSR1, SA_RESTART);
            for (long i = 0; i < atol(argv[1]); i++)
                check(trap(i, 0, 0, 0) == i, "the answer");
        }
    "#;
    on_each_runtime(|| async {
        if !killable() {
            return;
        }
        let mut command = command("many_calls", MANY_CALLS);
        command.arg(CALLS.to_string()).wait_killable(true);
        let (mut child, mut listener) = command.spawn().await.unwrap();
        let mut delivered = 0;
        while let Some(call) = within("a call", listener.next()).await {
            let number = call.args()[0];
            delivered += usize::from(call.respond(number).unwrap().is_delivered());
            // It may have ended after the last answer.
            let _ = child.signal(Signal::SIGUSR1);
        }
        assert!(child.wait().await.unwrap().success());
        assert_exactly_once(delivered, CALLS);
    });
}

/// Kernels before commit `cce436aafc2a` restart a call whose answer met a signal. That can't be tried out otherwise.
fn assert_exactly_once(delivered: usize, calls: usize) {
    if delivered > calls && before(6, 18) {
        eprintln!("skipped: this kernel delivers at least once ({delivered} answers for {calls} calls)");
    } else {
        assert_eq!(delivered, calls);
    }
}

fn before(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split(['.', '-'])
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (major, minor)
}

// T14: the kernel takes a mutex interruptibly, and signals come while it is held.
#[test]
fn signals_to_the_supervisor_lose_neither_calls_nor_answers() {
    const THREADS: &str = r#"
        static void *run(void *unused) {
            for (long i = 0; i < 250; i++)
                check(trap(i, 0, 0, 0) == 7 * i, "the answer");
            return NULL;
        }
        int main(void) {
            pthread_t thread[4];
            for (int i = 0; i < 4; i++) check(!pthread_create(&thread[i], NULL, run, NULL), "pthread_create");
            for (int i = 0; i < 4; i++) pthread_join(thread[i], NULL);
        }
    "#;
    extern "C" fn nothing(_: i32) {}
    in_process_of_its_own("signals_to_the_supervisor_lose_neither_calls_nor_answers", || {
        let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing.
        unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
        // SAFETY: a thread can always name itself.
        let supervisor = unsafe { libc::pthread_self() };
        let over = AtomicBool::new(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let calls = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // SAFETY: the thread waits for this one at the end of the scope.
                    assert_eq!(unsafe { libc::pthread_kill(supervisor, libc::SIGUSR1) }, 0);
                }
            });
            let calls = runtime.block_on(async {
                let mut calls = 0;
                let (mut child, mut listener) = command("four_threads", THREADS).spawn().await.unwrap();
                while let Some(call) = within("a call", listener.next()).await {
                    assert!(call.is_pending());
                    assert!(call.pid().is_ok());
                    let number = call.args()[0];
                    assert!(call.respond(7 * number).unwrap().is_delivered());
                    calls += 1;
                }
                assert!(child.wait().await.unwrap().success());
                calls
            });
            over.store(true, Ordering::Relaxed);
            calls
        });
        assert_eq!(calls, 1000);
    });
}

/// Each of `argv[1]` threads makes a call that is not answered; once they all wait, another one makes `argv[2]` calls.
const CROWD: &str = r#"
static void *stay(void *unused) { trap(-1, 0, 0, 0); return NULL; }
int main(int argc, char **argv) {
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 16384);
    pthread_t thread;
    for (long i = 0; i < atol(argv[1]); i++)
        check(!pthread_create(&thread, &small, stay, NULL), "pthread_create");
    check(told(), "the word");
    for (long i = 0; i < atol(argv[2]); i++)
        check(trap(i, 0, 0, 0) == i, "the answer");
    _exit(0);
}
"#;

// T14: the kernel says POLLERR, and nothing of a call that is there, where a signal keeps it from the mutex.
#[test]
fn a_signal_while_another_thread_is_in_the_listener_neither_hides_a_call_nor_ends_the_stream() {
    const THREADS: usize = 2500;
    const CALLS: i64 = 2500;
    extern "C" fn nothing(_: i32) {}
    let name = "a_signal_while_another_thread_is_in_the_listener_neither_hides_a_call_nor_ends_the_stream";
    in_process_of_its_own(name, || {
        let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_RESTART, SigSet::empty());
        // SAFETY: the handler does nothing.
        unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
        // SAFETY: a thread can always name itself.
        let supervisor = unsafe { libc::pthread_self() };
        let over = AtomicBool::new(false);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        let (_child, mut listener, held) = runtime.block_on(async {
            let mut command = command("crowd", CROWD);
            command.args([THREADS.to_string(), CALLS.to_string()]);
            let (mut child, mut listener) = command.spawn().await.unwrap();
            let mut held = Vec::new();
            while held.len() < THREADS {
                held.push(within("a call", listener.next()).await.expect("a call"));
            }
            child.stdin.as_mut().unwrap().write_all(b"x").await.unwrap();
            (child, listener, held)
        });
        std::thread::scope(|scope| {
            let _ends = Ends(&over);
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // SAFETY: the thread waits for this one at the end of the scope.
                    assert_eq!(unsafe { libc::pthread_kill(supervisor, libc::SIGUSR1) }, 0);
                    std::thread::sleep(Duration::from_micros(20));
                }
            });
            // Has the kernel look for a call among all of them, with the mutex held.
            for _ in 0..2 {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        held[THREADS - 1].is_pending();
                    }
                });
            }
            runtime.block_on(async {
                for expected in 0..CALLS {
                    let call = within("a call", listener.next()).await.expect("a call");
                    assert_eq!(call.args()[0], expected);
                    assert!(call.respond(expected).unwrap().is_delivered());
                }
            });
        });
    });
}

/// Says that it is over, whatever happens.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
