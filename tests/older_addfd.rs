//! Descriptors for a target on kernels that know less: another supervisor, of this very thread, answers for them.

mod support;

use std::os::fd::OwnedFd;
use std::sync::mpsc;

use asm_tracer::filter::{Threads, int_arg};
use asm_tracer::{Delivery, Errno, Error, Filter, InstallFd, Listener, Sysno};
use support::foreign::Foreign;
use support::{in_process_of_its_own, within};

/// `SECCOMP_IOCTL_NOTIF_ADDFD`.
const ADD_FD: i32 = 0x4018_2103;
/// `SECCOMP_ADDFD_FLAG_SEND`.
const SEND: u32 = 2;

/// A target of its own supervisor: two calls.
const TARGET: &str = r#"
int main(void) {
    send_listener(new_listener(0));
    for (int i = 0; i < 2; i++) {
        int fd = trap(i, 0, 0, 0);
        if (fd < 0) { check(fd == -EPERM, "the answer"); continue; }
        char data[8] = "";
        check(read(fd, data, 7) == 7 && !strcmp(data, "content"), "read");
        check(fcntl(fd, F_GETFD) == FD_CLOEXEC, "the flags");
        check(i == 0 || fd == 40, "the number");
    }
}
"#;

fn content() -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, b"content").unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    file
}

/// Runs `body` on a thread whose ADDFD with any of `flags` is an `EINVAL`, with a foreign target. Gives how many were
/// refused and how many were let through.
fn where_refused(
    flags: impl Fn(u32) -> bool,
    body: impl AsyncFnOnce(OwnedFd) + Send + 'static,
) -> (usize, usize) {
    let (mut foreign, target) = Foreign::start("older_addfd", TARGET);
    let (sender, listener) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let filter = Filter::new().trap_if(Sysno::ioctl, [int_arg(1).eq(ADD_FD)]);
        sender
            .send(filter.install_with_listener(Threads::Calling))
            .unwrap();
        runtime().block_on(body(target));
    });
    let listener = listener.recv().unwrap().unwrap();
    let (mut refused, mut passed) = (0, 0);
    runtime().block_on(async {
        let mut listener = Listener::attach(listener).unwrap();
        while let Some(call) = within("an ioctl, or the end", listener.next()).await {
            let [_, _, asked, ..]: [u32; 6] = call.read_value(call.args()[2] as u64).unwrap();
            if flags(asked) {
                refused += 1;
                call.error(Errno::EINVAL).unwrap();
            } else {
                passed += 1;
                call.continue_syscall().unwrap();
            }
        }
    });
    thread.join().unwrap();
    assert!(foreign.wait().success());
    (refused, passed)
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

// Before Linux 5.14.
#[test]
fn without_the_atomic_answer_a_descriptor_is_given_in_two_steps() {
    const NAME: &str = "without_the_atomic_answer_a_descriptor_is_given_in_two_steps";
    in_process_of_its_own(NAME, || {
        let calls = where_refused(
            |flags| flags & SEND != 0,
            async |listener| {
                let mut listener = Listener::attach(listener).unwrap();
                let call = within("a call", listener.next()).await.unwrap();
                let options = InstallFd::new().close_on_exec(true);
                let answer = call.respond_with_fd(content(), options).unwrap();
                assert_eq!(answer, Delivery::Delivered);
                let call = within("a call", listener.next()).await.unwrap();
                let refused = call
                    .respond_with_fd(content(), options.replace(i32::MAX))
                    .unwrap_err();
                assert!(matches!(
                    refused.error,
                    Error::InstallFd {
                        number: Some(i32::MAX),
                        source: Errno::EBADF
                    }
                ));
                let answer = refused
                    .notification
                    .respond_with_fd(content(), options.replace(40));
                assert_eq!(answer.unwrap(), Delivery::Delivered);
                assert!(within("the end", listener.next()).await.is_none());
            },
        );
        assert_eq!(calls, (3, 3));
    });
}

// Where all of it is missing, or forbidden.
#[test]
fn without_addfd_the_calls_stay_answerable() {
    const NAME: &str = "without_addfd_the_calls_stay_answerable";
    in_process_of_its_own(NAME, || {
        let calls = where_refused(
            |_| true,
            async |listener| {
                let mut listener = Listener::attach(listener).unwrap();
                for _ in 0..2 {
                    let call = within("a call", listener.next()).await.unwrap();
                    let error = call.install_fd(content(), InstallFd::new()).unwrap_err();
                    assert!(
                        matches!(error, Error::Unsupported { since: "5.9", .. }),
                        "{error:?}"
                    );
                    let refused = call.respond_with_fd(content(), InstallFd::new()).unwrap_err();
                    assert!(matches!(refused.error, Error::Unsupported { .. }), "{refused:?}");
                    let answer = refused.notification.error(Errno::EPERM).unwrap();
                    assert_eq!(answer, Delivery::Delivered);
                }
                assert!(within("the end", listener.next()).await.is_none());
            },
        );
        assert_eq!(calls, (6, 0));
    });
}
