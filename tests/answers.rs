//! The answers: what the target sees of each, and which are refused.

mod support;

use std::os::unix::process::ExitStatusExt;

use asm_tracer::{AnswerError, Child, Delivery, Errno, Error, Filter, Listener, Notification, Signal, Sysno};
use support::target::{command, on_each_runtime};
use support::within;

/// Makes calls for as long as its standard input has bytes, and prints the register that came back from each.
const PRINTS: &str = r#"
int main(void) {
    while (told()) { printf("%ld\n", trap(1, 0, 0, 0)); fflush(stdout); }
}
"#;

/// A target that makes this many calls.
async fn prints(calls: usize) -> (Child, Listener) {
    use tokio::io::AsyncWriteExt;
    let (mut child, listener) = command("prints", PRINTS).spawn().await.unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&vec![b'x'; calls]).await.unwrap();
    (child, listener)
}

/// What the target printed, once it has ended by itself.
async fn printed(child: Child, mut listener: Listener) -> Vec<i64> {
    assert!(within("the end", listener.next()).await.is_none());
    let output = within("the output", child.wait_with_output()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// Gives each answer once; gives what the target saw.
async fn seen<T>(
    answers: &[T],
    answer: impl Fn(Notification, &T) -> Result<Delivery, AnswerError>,
) -> Vec<i64> {
    let (child, mut listener) = prints(answers.len()).await;
    for value in answers {
        let call = within("a call", listener.next()).await.unwrap();
        assert_eq!(answer(call, value).unwrap(), Delivery::Delivered);
    }
    printed(child, listener).await
}

// T15, user_notification_basic
#[test]
fn a_value_comes_back_as_it_is() {
    on_each_runtime(|| async {
        let values = [
            0,
            1,
            2,
            13,
            38,
            4095,
            4096,
            i64::from(i32::MAX),
            i64::from(u32::MAX),
            i64::MAX,
            -4096,
            -4097,
            i64::from(i32::MIN),
            i64::MIN,
        ];
        assert_eq!(seen(&values, |call, value| call.respond(*value)).await, values);
    });
}

// T15: the kernel takes a positive `error` for a value, and a small negative value for an error.
#[test]
fn every_errno_comes_back_as_that_errno() {
    on_each_runtime(|| async {
        let errnos: Vec<_> = (1..=133)
            .map(Errno::from_raw)
            .filter(|errno| *errno != Errno::UnknownErrno)
            .collect();
        assert!(errnos.len() > 120);
        let expected: Vec<_> = errnos.iter().map(|errno| -(*errno as i64)).collect();
        assert_eq!(seen(&errnos, |call, errno| call.error(*errno)).await, expected);
    });
}

/// Checks that the answer is refused, and gives the call, which still waits.
fn refused(answer: Result<Delivery, AnswerError>) -> Notification {
    let AnswerError { error, notification } = answer.unwrap_err();
    assert!(matches!(error, Error::InvalidAnswer(_)), "{error:?}");
    assert!(notification.is_pending());
    *notification
}

// T15
#[test]
fn a_value_that_would_be_an_errno_is_refused_and_the_call_still_waits() {
    on_each_runtime(|| async {
        let (child, mut listener) = prints(2).await;
        let mut call = within("a call", listener.next()).await.unwrap();
        // -512 to -530 are the kernel's own, such as ERESTARTSYS.
        for value in -4095..=-1 {
            call = refused(call.respond(value));
        }
        assert_eq!(call.respond(-4096).unwrap(), Delivery::Delivered);
        let call = within("a call", listener.next()).await.unwrap();
        let call = refused(call.error(Errno::UnknownErrno));
        // Giving up on a refused answer is giving up the call.
        let error = Error::from(call.respond(-1).unwrap_err());
        assert!(matches!(error, Error::InvalidAnswer(_)), "{error:?}");
        assert_eq!(printed(child, listener).await, [-4096, -(Errno::ENOSYS as i64)]);
    });
}

// T16, user_notification_continue
#[test]
fn a_continued_call_is_really_made() {
    const DUPLICATES: &str = r#"
        int main(void) {
            int copy = dup(1);
            check(copy > 2 && write(copy, "written\n", 8) == 8, "write");
            check(dup(-1) == -1 && errno == EBADF, "dup");
        }
    "#;
    on_each_runtime(|| async {
        let mut command = command("duplicates", DUPLICATES);
        command.filter(Filter::new().trap(Sysno::dup));
        let (child, mut listener) = command.spawn().await.unwrap();
        for argument in [1, -1] {
            let call = within("a call", listener.next()).await.unwrap();
            assert_eq!(call.args()[0] as i32, argument);
            assert_eq!(call.continue_syscall().unwrap(), Delivery::Delivered);
        }
        assert!(within("the end", listener.next()).await.is_none());
        let output = child.wait_with_output().await.unwrap();
        assert!(output.status.success());
        assert_eq!(output.stdout, b"written\n");
    });
}

// T14, user_notification_kill_in_middle
#[test]
fn answers_to_a_killed_target_are_gone_and_no_error() {
    type Answer = fn(Notification) -> Result<Delivery, AnswerError>;
    let answers: [Answer; 4] = [
        |call| call.respond(1),
        |call| call.error(Errno::EPERM),
        |call| call.continue_syscall(),
        |call| {
            drop(call);
            Ok(Delivery::Gone)
        },
    ];
    on_each_runtime(|| async {
        for answer in answers {
            let (mut child, mut listener) = prints(1).await;
            let call = within("a call", listener.next()).await.unwrap();
            assert!(call.is_pending());
            // The target is dead at once, and a zombie until it is waited for below.
            child.start_kill().unwrap();
            assert!(within("the end", listener.next()).await.is_none());
            assert!(!call.is_pending());
            assert!(matches!(call.pid(), Err(Error::Gone)));
            assert!(matches!(call.read_memory(0x1000, &mut [0]), Err(Error::Gone)));
            assert!(matches!(call.write_memory(0x1000, &[0]), Err(Error::Gone)));
            assert_eq!(answer(call).unwrap(), Delivery::Gone);
            let status = within("the exit", child.wait()).await.unwrap();
            assert_eq!(status.signal(), Some(Signal::SIGKILL as i32));
        }
    });
}

const UNANSWERED: i64 = -(Errno::ENOSYS as i64);

// What becomes of a call whose handler doesn't answer it.
#[test]
fn a_handler_that_fails_frees_its_target_with_enosys() {
    on_each_runtime(|| async {
        let (child, mut listener) = prints(5).await;
        let call = within("a call", listener.next()).await.unwrap();
        drop(call);

        let call = within("a call", listener.next()).await.unwrap();
        let panics = tokio::spawn(async move {
            let _call = call;
            // A panic without its message in the log of a passing test.
            std::panic::resume_unwind(Box::new("a bug"));
        });
        assert!(panics.await.unwrap_err().is_panic());

        let call = within("a call", listener.next()).await.unwrap();
        let hangs = tokio::spawn(async move {
            let _call = call;
            std::future::pending::<()>().await;
        });
        tokio::task::yield_now().await;
        hangs.abort();
        assert!(hangs.await.unwrap_err().is_cancelled());

        let call = within("a call", listener.next()).await.unwrap();
        let slow = async move {
            let _call = call;
            std::future::pending::<()>().await;
        };
        assert!(
            tokio::time::timeout(std::time::Duration::from_millis(10), slow)
                .await
                .is_err()
        );

        // The supervisor serves on.
        let call = within("a call", listener.next()).await.unwrap();
        assert!(call.respond(9).unwrap().is_delivered());
        assert_eq!(
            printed(child, listener).await,
            [UNANSWERED, UNANSWERED, UNANSWERED, UNANSWERED, 9]
        );
    });
}

/// Takes the free descriptor numbers, so that one that was closed means something else now.
fn reopen() -> Vec<std::fs::File> {
    (0..64)
        .map(|_| std::fs::File::open("/dev/null").unwrap())
        .collect()
}

// T50
#[test]
fn a_call_can_be_answered_after_its_stream_was_dropped() {
    on_each_runtime(|| async {
        let mut command = command(
            "two_calls",
            "int main(void) { printf(\"%ld\\n\", trap(1, 0, 0, 0)); printf(\"%ld\\n\", trap(1, 0, 0, 0)); }",
        );
        let (child, mut listener) = command.kill_on_drop(false).spawn().await.unwrap();
        let call = within("a call", listener.next()).await.unwrap();
        drop(listener);
        let files = reopen();
        assert!(call.is_pending());
        assert_eq!(call.pid().unwrap() as u32, child.id().unwrap());
        // On a thread that knows of no runtime.
        let delivery = std::thread::spawn(move || call.respond(7).unwrap())
            .join()
            .unwrap();
        assert_eq!(delivery, Delivery::Delivered);
        // That was the last holder of the listener.
        let output = within("the output", child.wait_with_output()).await.unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            format!("7\n{UNANSWERED}\n")
        );
        drop(files);
    });
}

// T50
#[test]
fn a_call_whose_child_died_with_the_stream_is_gone() {
    on_each_runtime(|| async {
        let (mut child, mut listener) = prints(1).await;
        let call = within("a call", listener.next()).await.unwrap();
        drop(listener);
        let status = within("the exit", child.wait()).await.unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32));
        let files = reopen();
        assert!(!call.is_pending());
        assert_eq!(call.respond(7).unwrap(), Delivery::Gone);
        drop(files);
    });
}

// T50
#[test]
fn a_call_can_be_answered_after_the_runtime_is_gone() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (child, listener, call) = runtime.block_on(async {
        let (child, mut listener) = prints(1).await;
        let call = within("a call", listener.next()).await.unwrap();
        (child, listener, call)
    });
    drop(runtime);
    let pid = child.id().unwrap();
    assert_eq!(call.pid().unwrap() as u32, pid);
    assert_eq!(call.respond(3).unwrap(), Delivery::Delivered);
    drop((listener, child));
    support::until_blocking("the child is reaped", || support::state(pid).is_none());
}
