//! Signals to a target whose call is being looked at.

mod support;

use std::os::unix::process::ExitStatusExt;

use asm_tracer::{Child, Delivery, Errno, Listener, Notification, Signal};
use support::target::{command, frozen, killable, on_each_runtime, threads};
use support::{state, until, within};

/// Makes one call with a handler for `SIGUSR1` and `SIGALRM` (`argv[1]`: its flags); prints what came back and how
/// often the handler had run by then.
const ONE_CALL: &str = r#"
int main(int argc, char **argv) {
    handle_signal(SIGUSR1, atoi(argv[1]));
    handle_signal(SIGALRM, atoi(argv[1]));
    long result = trap(1, 0, 0, 0);
    printf("%ld %d\n", result, (int)handled);
}
"#;

const NO_FLAGS: i32 = 0;
const RESTART: i32 = nix::libc::SA_RESTART;

/// A target that has made its call, and the call.
async fn one_call(wait_killable: bool, flags: i32) -> (Child, Listener, Notification) {
    let mut command = command("one_call", ONE_CALL);
    command.arg(flags.to_string()).wait_killable(wait_killable);
    let (child, mut listener) = command.spawn().await.unwrap();
    let call = within("the call", listener.next()).await.unwrap();
    (child, listener, call)
}

/// What the target printed, once it has ended by itself without another call.
async fn printed(child: Child, mut listener: Listener) -> String {
    let end = within("the end", listener.next()).await;
    assert!(end.is_none(), "{end:?}");
    let output = within("the output", child.wait_with_output()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn in_state(child: &Child, wanted: char) {
    let pid = child.id().unwrap();
    let what = format!("the target is in state {wanted}");
    until(&what, || state(pid) == Some(wanted)).await;
}

// T9, user_notification_signal
#[test]
fn a_signal_takes_the_call_back_and_a_new_one_comes() {
    on_each_runtime(|| async {
        let (child, mut listener, first) = one_call(false, RESTART).await;
        assert!(first.is_pending());
        child.signal(Signal::SIGUSR1).unwrap();
        let second = within("the call, made again", listener.next()).await.unwrap();
        assert_eq!(second.syscall(), first.syscall());
        assert!(!first.is_pending());
        assert!(second.is_pending());
        assert_eq!(first.respond(1).unwrap(), Delivery::Gone);
        assert_eq!(second.respond(2).unwrap(), Delivery::Delivered);
        assert_eq!(printed(child, listener).await, "2 1");
    });
}

// T9, T12
#[test]
fn a_signal_without_restart_ends_the_call() {
    on_each_runtime(|| async {
        let (child, listener, call) = one_call(false, NO_FLAGS).await;
        // Such as an alarm during a blocking call that the supervisor emulates.
        child.signal(Signal::SIGALRM).unwrap();
        until("the call is taken back", || !call.is_pending()).await;
        assert_eq!(call.continue_syscall().unwrap(), Delivery::Gone);
        assert_eq!(
            printed(child, listener).await,
            format!("{} 1", -(Errno::EINTR as i32))
        );
    });
}

// T12, user_notification_wait_killable
#[test]
fn a_received_call_outlasts_a_signal_whose_handler_runs_afterwards() {
    on_each_runtime(|| async {
        if !killable() {
            return;
        }
        let (child, listener, call) = one_call(true, NO_FLAGS).await;
        in_state(&child, 'S').await;
        child.signal(Signal::SIGUSR1).unwrap();
        in_state(&child, 'D').await;
        assert!(call.is_pending());
        assert_eq!(call.respond(3).unwrap(), Delivery::Delivered);
        assert_eq!(printed(child, listener).await, "3 1");
    });
}

// T12: the supervisor sees that the target is wanted elsewhere, and decides.
#[test]
fn an_alarm_ends_an_emulated_call_with_the_answer_eintr() {
    on_each_runtime(|| async {
        if !killable() {
            return;
        }
        let (child, listener, call) = one_call(true, RESTART).await;
        child.signal(Signal::SIGALRM).unwrap();
        in_state(&child, 'D').await;
        assert_eq!(call.error(Errno::EINTR).unwrap(), Delivery::Delivered);
        assert_eq!(
            printed(child, listener).await,
            format!("{} 1", -(Errno::EINTR as i32))
        );
    });
}

// user_notification_wait_killable_fatal
#[test]
fn a_fatal_signal_kills_although_the_call_was_received() {
    on_each_runtime(|| async {
        if !killable() {
            return;
        }
        let (mut child, mut listener, call) = one_call(true, NO_FLAGS).await;
        child.signal(Signal::SIGTERM).unwrap();
        assert!(within("the end", listener.next()).await.is_none());
        assert!(!call.is_pending());
        assert_eq!(call.respond(3).unwrap(), Delivery::Gone);
        let status = within("the exit", child.wait()).await.unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGTERM as i32));
    });
}

// T10: receiving one call receives all that wait, so that a slow handler for one doesn't expose the others.
#[test]
fn a_call_that_waits_behind_a_slow_handler_is_not_interrupted() {
    const TWO_CALLS: &str = r#"
        static void *run(void *unused) { return (void *)trap(0, 0, 0, 0); }
        int main(void) {
            pthread_t thread;
            check(!pthread_create(&thread, NULL, run, NULL), "pthread_create");
            handle_signal(SIGCHLD, 0);
            told();
            check(trap(1, 0, 0, 0) == 11, "the answer");
            check(handled == 1, "the handler");
            void *result;
            pthread_join(thread, &result);
            check((long)result == 10, "the other answer");
        }
    "#;
    on_each_runtime(|| async {
        if !killable() {
            return;
        }
        let (mut child, mut listener) = command("two_calls", TWO_CALLS).spawn().await.unwrap();
        let pid = child.id().unwrap();
        until("there are two threads", || threads(pid).len() == 2).await;
        let other = *threads(pid).iter().find(|tid| **tid != pid).unwrap();
        frozen(other).await;
        // The end of the file tells the main thread to go on.
        drop(child.stdin.take());
        frozen(pid).await;
        let slow = within("the first call", listener.next()).await.unwrap();
        assert_eq!(slow.args()[0], 0);
        // To the one thread, as the kernel chooses the main one for a process if it can.
        child.signal(Signal::SIGCHLD).unwrap();
        in_state(&child, 'D').await;
        assert!(slow.respond(10).unwrap().is_delivered());
        let waiting = within("the second call", listener.next()).await.unwrap();
        assert_eq!(waiting.args()[0], 1);
        assert!(waiting.respond(11).unwrap().is_delivered());
        assert!(within("the end", listener.next()).await.is_none());
        assert!(child.wait().await.unwrap().success());
    });
}

// T13
#[test]
fn stopping_takes_the_call_back_and_continuing_brings_it_again() {
    on_each_runtime(|| async {
        let (child, mut listener, first) = one_call(false, NO_FLAGS).await;
        child.signal(Signal::SIGSTOP).unwrap();
        in_state(&child, 'T').await;
        assert!(!first.is_pending());
        assert_eq!(first.respond(1).unwrap(), Delivery::Gone);
        tokio::select! {
            biased;
            call = listener.next() => panic!("a stopped target made a call: {call:?}"),
            () = tokio::task::yield_now() => {}
        }
        child.signal(Signal::SIGCONT).unwrap();
        let second = within("the call, made again", listener.next()).await.unwrap();
        assert_eq!(second.respond(2).unwrap(), Delivery::Delivered);
        assert_eq!(printed(child, listener).await, "2 0");
    });
}

// T12, T13
#[test]
fn a_received_call_is_answered_before_its_target_stops() {
    on_each_runtime(|| async {
        if !killable() {
            return;
        }
        let (child, listener, call) = one_call(true, NO_FLAGS).await;
        child.signal(Signal::SIGSTOP).unwrap();
        in_state(&child, 'D').await;
        assert!(call.is_pending());
        assert_eq!(call.respond(4).unwrap(), Delivery::Delivered);
        in_state(&child, 'T').await;
        child.signal(Signal::SIGCONT).unwrap();
        assert_eq!(printed(child, listener).await, "4 0");
    });
}
