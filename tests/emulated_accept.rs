//! An accept that the kernel never makes: the supervisor waits for a connection, and the target's signals end it (T12).

mod support;

use std::io::{Read, Write};
use std::time::Duration;

use asm_tracer::{Child, Errno, Filter, InstallFd, Interruption, Listener, Notification, Signal, Sysno};
use support::target::{command, killable, on_each_runtime};
use support::{state, until, within};
use tokio::net::TcpListener;

/// A server that says what it got from each connection, in capitals. It accepts on a socket on which the kernel's own
/// accept would fail at once. `argv[1]` is the signals' flags.
const SERVER: &str = r#"
#include <ctype.h>
#include <sys/socket.h>
int main(int argc, char **argv) {
    int flags = atoi(argv[1]);
    handle_signal(SIGALRM, flags);
    handle_signal(SIGUSR1, flags);
    signal(SIGUSR2, SIG_IGN);
    /* Whoever runs the tests in the background may ignore these. */
    signal(SIGQUIT, SIG_DFL);
    signal(SIGTSTP, SIG_DFL);
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGHUP);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    int server = socket(AF_INET, SOCK_STREAM, 0);
    for (;;) {
        int fd = accept(server, NULL, NULL);
        if (fd < 0) {
            printf("%s after %d signals\n", strerror(errno), handled);
            fflush(stdout);
            if (errno != EINTR) return 0;
            continue;
        }
        char data[16];
        int n = read(fd, data, sizeof data);
        check(n > 0, "read");
        for (int i = 0; i < n; i++) data[i] = toupper(data[i]);
        check(write(fd, data, n) == n && !close(fd), "write");
        printf("served after %d signals\n", handled);
        fflush(stdout);
    }
}
"#;

struct Server {
    child: Child,
    listener: Listener,
    /// Where the supervisor accepts.
    accepts: TcpListener,
}

impl Server {
    async fn start(flags: i32, wait_killable: bool) -> Self {
        let mut command = command("server", SERVER);
        command
            .arg(flags.to_string())
            .filter(Filter::new().trap(Sysno::accept))
            // In a group whose parent is in another one, a SIGTSTP is not ignored by the kernel.
            .process_group(0)
            .wait_killable(wait_killable);
        let (child, listener) = command.spawn().await.unwrap();
        Self {
            child,
            listener,
            accepts: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        }
    }

    async fn next(&mut self) -> Notification {
        let call = within("an accept", self.listener.next()).await.unwrap();
        assert_eq!(call.sysno(), Some(Sysno::accept));
        call
    }

    fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Blocks in the target's place; gives what ended it.
    async fn accept(&self, call: Notification) -> Option<Interruption> {
        let end = async {
            tokio::select! {
                accepted = self.accepts.accept() => {
                    let connection = accepted.unwrap().0.into_std().unwrap();
                    connection.set_nonblocking(false).unwrap();
                    call.respond_with_fd(connection, InstallFd::new()).unwrap();
                    None
                }
                interruption = call.interrupted() => {
                    let interruption = interruption.unwrap();
                    if interruption == Interruption::Signal {
                        assert!(call.interrupt().unwrap().is_delivered());
                    }
                    Some(interruption)
                }
            }
        };
        within("a connection or a signal", end).await
    }

    /// Serves one connection.
    async fn serve(&mut self, call: Notification) {
        let address = self.accepts.local_addr().unwrap();
        let client = tokio::task::spawn_blocking(move || {
            let mut connection = std::net::TcpStream::connect(address).unwrap();
            connection.write_all(b"hello").unwrap();
            let mut answer = String::new();
            connection.read_to_string(&mut answer).unwrap();
            answer
        });
        assert_eq!(self.accept(call).await, None);
        assert_eq!(within("the answer", client).await.unwrap(), "HELLO");
    }

    /// Ends it, and gives what it printed.
    async fn finish(self, call: Notification) -> String {
        assert!(call.error(Errno::EBADF).unwrap().is_delivered());
        let mut listener = self.listener;
        assert!(within("the end", listener.next()).await.is_none());
        let output = within("the output", self.child.wait_with_output()).await.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Fails if something is taken for an interruption.
async fn is_not_interrupted(call: &Notification) {
    let interrupted = tokio::time::timeout(Duration::from_millis(100), call.interrupted()).await;
    assert!(interrupted.is_err(), "{interrupted:?}");
    assert!(call.is_pending());
}

#[test]
fn a_connection_ends_an_accept_with_a_descriptor() {
    on_each_runtime(|| async {
        let mut server = Server::start(0, true).await;
        for _ in 0..3 {
            let call = server.next().await;
            server.serve(call).await;
        }
        let call = server.next().await;
        is_not_interrupted(&call).await;
        let printed = server.finish(call).await;
        assert_eq!(
            printed,
            "served after 0 signals\nserved after 0 signals\nserved after 0 signals\nBad file descriptor after 0 signals\n"
        );
    });
}

// T12
#[test]
fn a_signal_ends_an_accept_with_eintr() {
    if !killable() {
        return;
    }
    on_each_runtime(|| async {
        let mut server = Server::start(0, true).await;
        let call = server.next().await;
        server.child.signal(Signal::SIGALRM).unwrap();
        assert_eq!(server.accept(call).await, Some(Interruption::Signal));
        let call = server.next().await;
        server.serve(call).await;
        let call = server.next().await;
        server.child.signal(Signal::SIGUSR1).unwrap();
        assert_eq!(server.accept(call).await, Some(Interruption::Signal));
        let call = server.next().await;
        let printed = server.finish(call).await;
        assert_eq!(
            printed,
            "Interrupted system call after 1 signals\nserved after 1 signals\n\
             Interrupted system call after 2 signals\nBad file descriptor after 2 signals\n"
        );
    });
}

// T12, and T9 by our own answer.
#[test]
fn a_handler_with_sa_restart_has_the_accept_made_again() {
    if !killable() {
        return;
    }
    on_each_runtime(|| async {
        let mut server = Server::start(libc::SA_RESTART, true).await;
        let call = server.next().await;
        server.child.signal(Signal::SIGALRM).unwrap();
        assert_eq!(server.accept(call).await, Some(Interruption::Signal));
        let call = server.next().await;
        server.serve(call).await;
        let call = server.next().await;
        let printed = server.finish(call).await;
        assert_eq!(
            printed,
            "served after 1 signals\nBad file descriptor after 1 signals\n"
        );
    });
}

// T12, T13
#[test]
fn a_stopped_target_stops_and_makes_its_accept_again() {
    if !killable() {
        return;
    }
    on_each_runtime(|| async {
        let mut server = Server::start(0, true).await;
        for signal in [Signal::SIGSTOP, Signal::SIGTSTP] {
            let call = server.next().await;
            server.child.signal(signal).unwrap();
            assert_eq!(server.accept(call).await, Some(Interruption::Signal));
            let pid = server.pid();
            until("it is stopped", || state(pid) == Some('T')).await;
            server.child.signal(Signal::SIGCONT).unwrap();
        }
        let call = server.next().await;
        server.serve(call).await;
        let call = server.next().await;
        let printed = server.finish(call).await;
        assert_eq!(
            printed,
            "served after 0 signals\nBad file descriptor after 0 signals\n"
        );
    });
}

#[test]
fn signals_that_end_no_call_do_not_end_this_one() {
    on_each_runtime(|| async {
        let mut server = Server::start(0, true).await;
        let call = server.next().await;
        // Blocked, ignored, and ignored by default.
        for signal in [Signal::SIGHUP, Signal::SIGUSR2, Signal::SIGWINCH, Signal::SIGCONT] {
            server.child.signal(signal).unwrap();
        }
        is_not_interrupted(&call).await;
        // And where there is no signal, the kernel's own number does not reach the program (T15).
        assert!(call.interrupt().unwrap().is_delivered());
        let call = server.next().await;
        let printed = server.finish(call).await;
        assert_eq!(
            printed,
            "Interrupted system call after 0 signals\nBad file descriptor after 0 signals\n"
        );
    });
}

// T12: without a handler, SIGQUIT kills nobody who is protected like that before the answer, unlike SIGTERM.
#[test]
fn a_signal_that_would_dump_a_core_ends_the_target() {
    use std::os::unix::process::ExitStatusExt;
    on_each_runtime(|| async {
        for signal in [Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGKILL] {
            let mut server = Server::start(0, true).await;
            let call = server.next().await;
            server.child.signal(signal).unwrap();
            let end = server.accept(call).await;
            if signal != Signal::SIGQUIT {
                assert_eq!(end, Some(Interruption::Gone));
            }
            let status = within("the exit", server.child.wait()).await.unwrap();
            assert_eq!(status.signal(), Some(signal as i32));
        }
    });
}

// T9
#[test]
fn without_protection_the_kernel_ends_the_accept_itself() {
    on_each_runtime(|| async {
        let mut server = Server::start(0, false).await;
        let call = server.next().await;
        server.child.signal(Signal::SIGALRM).unwrap();
        assert_eq!(server.accept(call).await, Some(Interruption::Gone));
        let call = server.next().await;
        server.child.signal(Signal::SIGSTOP).unwrap();
        assert_eq!(server.accept(call).await, Some(Interruption::Gone));
        server.child.signal(Signal::SIGCONT).unwrap();
        let call = server.next().await;
        let printed = server.finish(call).await;
        assert_eq!(
            printed,
            "Interrupted system call after 1 signals\nBad file descriptor after 1 signals\n"
        );
    });
}
