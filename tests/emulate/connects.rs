//! Connections made in a target's place.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Output;

use asm_tracer::emulate::{Address, Connect};
use asm_tracer::{Command, Errno, Filter, Notification, Stdio, Supervisor, Sysno};

use crate::common::{alone, assert_same, text};
use crate::support::target::program;
use crate::support::{in_process_of_its_own, until, within};

/// Connects the target's socket, wherever `address` says.
async fn serve(call: Notification, redirected: Option<Address>) {
    match Connect::read(&call).await {
        Ok(Some(connect)) => {
            let connect = match redirected {
                Some(address) => connect.with_address(address),
                None => connect,
            };
            connect.answer(call).await.map(drop).unwrap();
        }
        Ok(None) => panic!("{call:?}"),
        Err(error) => call.error(error.errno().unwrap_or(Errno::EIO)).map(drop).unwrap(),
    }
}

async fn emulated(command: &mut Command, redirected: Option<Address>) -> Output {
    let mut supervisor = Supervisor::new();
    command
        .filter(Filter::new().trap(Sysno::connect))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = within("the start", supervisor.spawn(command)).await.unwrap();
    let output = tokio::spawn(child.wait_with_output());
    while let Some(call) = within("a call", supervisor.next()).await {
        tokio::spawn(serve(call, redirected.clone()));
    }
    within("the end", output).await.unwrap().unwrap()
}

const PRELUDE: &str = r#"
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <arpa/inet.h>
#include <stddef.h>
static inline void report(const char *what, long result) {
    if (result < 0) printf("%s: %s\n", what, strerrorname_np(errno)); else printf("%s: %ld\n", what, result);
    fflush(stdout);
}
static inline struct sockaddr_in loopback(int port) {
    struct sockaddr_in address = { AF_INET, htons(port), { htonl(INADDR_LOOPBACK) } };
    return address;
}
static inline int listening(int *port) {
    struct sockaddr_in address = loopback(0);
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    check(fd >= 0 && !bind(fd, (void *)&address, sizeof address) && !listen(fd, 16), "listen");
    check(!getsockname(fd, (void *)&address, &length), "getsockname");
    *port = ntohs(address.sin_port);
    return fd;
}
static inline int unix_connect(int type, const char *path, size_t length) {
    struct sockaddr_un address = { AF_UNIX };
    memcpy(address.sun_path, path, length);
    int fd = socket(AF_UNIX, type, 0);
    long result = connect(fd, (void *)&address, offsetof(struct sockaddr_un, sun_path) + length);
    report(*path ? path : "abstract", result);
    close(fd);
    return result;
}
static inline int unix_listening(int type, const char *path, size_t length, int backlog) {
    struct sockaddr_un address = { AF_UNIX };
    memcpy(address.sun_path, path, length);
    int fd = socket(AF_UNIX, type, 0);
    check(fd >= 0 && !bind(fd, (void *)&address, offsetof(struct sockaddr_un, sun_path) + length), "bind");
    check(type == SOCK_DGRAM || !listen(fd, backlog), "listen");
    return fd;
}
"#;

fn target(name: &str, body: &str) -> std::path::PathBuf {
    program(name, &format!("{PRELUDE}\n{body}"))
}

/// Runs it both ways, each in a directory of its own, and compares what it says.
async fn same(name: &str, body: &str) -> String {
    let program = target(name, body);
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let kernel = text(&alone(std::process::Command::new(&program).current_dir(&theirs)));
    let said = text(&emulated(Command::new(&program).current_dir(&ours), None).await);
    assert_same(&said, &kernel);
    said
}

#[tokio::test]
async fn internet_sockets_are_connected_as_by_the_kernel() {
    const INTERNET: &str = r#"
        int main(void) {
            int port, other, server = listening(&port), gone = listening(&other);
            close(gone);
            struct sockaddr_in address = loopback(port), refused = loopback(other);
            struct sockaddr nobody = { AF_UNSPEC };
            char long_address[256] = { 0 };
            memcpy(long_address, &address, sizeof address);
            int fd = socket(AF_INET, SOCK_STREAM, 0);
            report("refused", connect(fd, (void *)&refused, sizeof refused));
            report("refused again", connect(fd, (void *)&refused, sizeof refused));
            report("connected", connect(fd, (void *)&address, sizeof address));
            report("flags", fcntl(fd, F_GETFL));
            report("connected already", connect(fd, (void *)&address, sizeof address));
            char byte = 'x';
            int peer = accept(server, NULL, NULL);
            report("sent", write(fd, &byte, 1));
            report("received", read(peer, &byte, 1));
            report("dissolved", connect(fd, &nobody, sizeof nobody));
            report("connected again", connect(fd, (void *)&address, sizeof address));
            close(fd);
            /* What is no address, no socket, no pointer. */
            fd = socket(AF_INET, SOCK_STREAM, 0);
            static const int lengths[] = { 0, 1, 2, 8, 15, -1, 129, 1 << 30, 128, 17 };
            for (int i = 0; i < 10; i++) {
                report("length", connect(fd, (void *)long_address, lengths[i]));
                close(fd);
                fd = socket(AF_INET, SOCK_STREAM, 0);
            }
            report("fault", connect(fd, (void *)8, sizeof address));
            report("fault of nothing", connect(fd, NULL, 0));
            report("closed", connect(99, (void *)8, sizeof address));
            report("negative", connect(-1, (void *)&address, sizeof address));
            report("standard input", connect(0, (void *)&address, sizeof address));
            report("standard input and fault", connect(0, (void *)8, sizeof address));
            report("path", connect(open("/", O_PATH), (void *)&address, sizeof address));
            struct sockaddr_un wrong = { AF_UNIX, "/nonexistent" };
            report("family", connect(fd, (void *)&wrong, sizeof wrong));
            report("upper half", syscall(SYS_connect, 0xdeadbeef00000000 | fd, &address, 0xdeadbeef00000000 | sizeof address));
            close(fd);
            /* Without waiting. */
            fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
            report("in progress", connect(fd, (void *)&address, sizeof address));
            struct pollfd event = { fd, POLLOUT };
            check(poll(&event, 1, -1) == 1, "poll");
            report("finished", connect(fd, (void *)&address, sizeof address));
            close(fd);
            /* Datagrams. */
            fd = socket(AF_INET, SOCK_DGRAM, 0);
            report("datagram", connect(fd, (void *)&address, sizeof address));
            report("datagram to another", connect(fd, (void *)&refused, sizeof refused));
            report("datagram to nobody", connect(fd, &nobody, sizeof nobody));
            report("datagram, short", connect(fd, (void *)&address, 4));
            fd = socket(AF_INET6, SOCK_STREAM, 0);
            struct sockaddr_in6 six = { AF_INET6, htons(other), 0, IN6ADDR_LOOPBACK_INIT };
            long result = fd < 0 ? 0 : connect(fd, (void *)&six, sizeof six);
            report("version 6", result);
        }
    "#;
    let said = same("connect_internet", INTERNET).await;
    assert!(said.contains("refused: ECONNREFUSED\n"), "{said}");
    assert!(said.contains("in progress: EINPROGRESS\n"), "{said}");
}

#[tokio::test]
async fn unix_sockets_are_connected_as_by_the_kernel() {
    const UNIX: &str = r#"
        int main(void) {
            char name[32], deep[128] = { 0 };
            check(!mkdir("dir", 0755), "mkdir");
            unix_listening(SOCK_STREAM, "stream", 6, 100);
            unix_listening(SOCK_DGRAM, "datagram", 8, 0);
            unix_listening(SOCK_SEQPACKET, "dir/packet", 10, 100);
            check(!close(unix_listening(SOCK_STREAM, "deaf", 4, 100)), "close");
            check(!symlink("stream", "link") && !symlink("loop", "loop") && !symlink("nothing", "dangling"), "symlink");
            check(!mkfifo("fifo", 0600), "mkfifo");
            /* The kernel takes a zero for the path's end, and none. */
            static const char *paths[] = { "stream", "link", "./dir/../stream", "datagram", "dir/packet", "deaf", "nothing",
                "loop", "dangling", "dir", "fifo", "stream/", "stream/x", "", "/dev/null", "/proc/self/cwd/stream" };
            static const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };
            for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
                for (int j = 0; j < 3; j++) {
                    unix_connect(types[j], paths[i], strlen(paths[i]));
                    unix_connect(types[j], paths[i], strlen(paths[i]) + 1);
                }
            snprintf(name, sizeof name, "%cabstract %d", 0, getpid());
            unix_listening(SOCK_STREAM, name, 20, 100);
            unix_connect(SOCK_STREAM, name, 20);
            name[19] ^= 1;
            unix_connect(SOCK_STREAM, name, 20);
            /* A directory whose path is longer than an address. */
            memset(deep, 'd', 100);
            for (int i = 0; i < 3; i++) check(!mkdir(deep, 0755) && !chdir(deep), "mkdir");
            unix_listening(SOCK_STREAM, "far", 3, 100);
            unix_connect(SOCK_STREAM, "far", 3);
            memset(deep, 'x', 108);
            struct sockaddr_un address = { AF_UNIX };
            memset(address.sun_path, 'x', sizeof address.sun_path);
            int fd = socket(AF_UNIX, SOCK_STREAM, 0);
            report("as long as can be", connect(fd, (void *)&address, sizeof address));
            report("too long", connect(fd, (void *)&address, sizeof address + 1));
            address.sun_family = AF_UNSPEC;
            report("nobody", connect(fd, (void *)&address, sizeof address));
            fd = socket(AF_UNIX, SOCK_DGRAM, 0);
            report("nobody", connect(fd, (void *)&address, sizeof address));
        }
    "#;
    let said = same("connect_unix", UNIX).await;
    assert!(said.contains("far: 0\n"), "{said}");
}

/// A backlog that is full: `argv[1]` says how the connection that doesn't fit is made.
const FULL: &str = r#"
    int main(void) {
        struct sockaddr_un address = { AF_UNIX, "server" };
        int server = unix_listening(SOCK_STREAM, "server", 6, 0);
        int first = socket(AF_UNIX, SOCK_STREAM, 0), second = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        report("fits", connect(first, (void *)&address, sizeof address));
        report("fits no more", connect(second, (void *)&address, sizeof address));
        /* One that waits until there is room. */
        pid_t pid = fork();
        if (!pid) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            usleep(100000);
            check(accept(server, NULL, NULL) >= 0, "accept");
            pause();
        }
        int waiting = socket(AF_UNIX, SOCK_STREAM, 0);
        report("waits for room", connect(waiting, (void *)&address, sizeof address));
        report("flags", fcntl(waiting, F_GETFL));
        /* One that waits for so long. */
        struct timeval limit = { 0, 50000 };
        int limited = socket(AF_UNIX, SOCK_STREAM, 0);
        check(!setsockopt(limited, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit), "setsockopt");
        report("waits no longer", connect(limited, (void *)&address, sizeof address));
        /* One that waits until a signal comes. */
        handle_signal(SIGALRM, 0);
        ualarm(50000, 50000);
        int interrupted = socket(AF_UNIX, SOCK_STREAM, 0);
        report("is interrupted", connect(interrupted, (void *)&address, sizeof address));
        report("flags", fcntl(interrupted, F_GETFL));
        ualarm(0, 0);
        kill(pid, SIGKILL);
    }
"#;

#[tokio::test]
async fn a_full_backlog_is_waited_for() {
    let said = same("connect_full", FULL).await;
    assert!(said.contains("waits for room: 0\n"), "{said}");
    assert!(said.contains("waits no longer: EAGAIN\n"), "{said}");
    assert!(said.contains("is interrupted: EINTR\n"), "{said}");
}

/// A TCP connection that takes for ever: the backlog is full, so that the kernel drops what would begin one.
const BLOCKED: &str = r#"
    int main(void) {
        struct sockaddr_in address = loopback(0);
        socklen_t length = sizeof address;
        int server = socket(AF_INET, SOCK_STREAM, 0), peers[8];
        check(!bind(server, (void *)&address, sizeof address) && !listen(server, 0), "listen");
        check(!getsockname(server, (void *)&address, &length), "getsockname");
        for (int i = 0; i < 8; i++) {
            peers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
            connect(peers[i], (void *)&address, sizeof address);
        }
        handle_signal(SIGALRM, 0);
        ualarm(100000, 0);
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        report("is interrupted", connect(fd, (void *)&address, sizeof address));
        fcntl(fd, F_SETFL, O_NONBLOCK);
        report("goes on", connect(fd, (void *)&address, sizeof address));
        struct timeval limit = { 0, 50000 };
        fd = socket(AF_INET, SOCK_STREAM, 0);
        check(!setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit), "setsockopt");
        report("waits no longer", connect(fd, (void *)&address, sizeof address));
        report("flags", fcntl(fd, F_GETFL));
    }
"#;

#[tokio::test]
async fn a_connection_that_takes_long_is_interrupted() {
    let said = same("connect_blocked", BLOCKED).await;
    assert!(said.contains("is interrupted: EINTR\n"), "{said}");
    assert!(said.contains("goes on: EALREADY\n"), "{said}");
    assert!(said.contains("waits no longer: EINPROGRESS\n"), "{said}");
}

const CLIENT: &str = r#"
    int main(int argc, char **argv) {
        struct sockaddr_in address = loopback(1);
        char text[16] = { 0 };
        int fd = socket(atoi(argv[1]), SOCK_STREAM, 0);
        check(!connect(fd, (void *)&address, sizeof address), "connect");
        check(read(fd, text, sizeof text) > 0, "read");
        puts(text);
    }
"#;

#[tokio::test]
async fn a_connection_goes_where_the_supervisor_wants() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        use std::io::Write;
        listener.accept().unwrap().0.write_all(b"elsewhere").unwrap();
    });
    let mut command = Command::new(target("connect_client", CLIENT));
    command.arg(libc::AF_INET.to_string());
    let output = emulated(&mut command, Some(address.into())).await;
    assert_eq!(text(&output), "elsewhere\n");
    server.join().unwrap();

    // By a path that is longer than an address may be.
    let directory = tempfile::tempdir().unwrap();
    let deep = directory.path().join("d".repeat(200));
    std::fs::create_dir(&deep).unwrap();
    let (path, link) = (deep.join("socket"), directory.path().join("s"));
    let listener = UnixListener::bind(&link).unwrap();
    std::fs::rename(&link, &path).unwrap();
    let server = std::thread::spawn(move || {
        use std::io::Write;
        listener.accept().unwrap().0.write_all(b"far").unwrap();
    });
    let mut command = Command::new(target("connect_client", CLIENT));
    command.arg(libc::AF_UNIX.to_string());
    let output = emulated(&mut command, Some(Address::UnixPath(path))).await;
    assert_eq!(text(&output), "far\n");
    server.join().unwrap();
}

#[test]
fn connecting_leaves_nothing() {
    in_process_of_its_own("connects::connecting_leaves_nothing", || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let run = async |body: &str, name: &str| {
                let directory = tempfile::tempdir().unwrap();
                let program = target(name, body);
                let mut command = Command::new(program);
                text(&emulated(command.current_dir(directory.path() as &Path), None).await);
            };
            run("int main(void) { }", "connect_nothing").await;
            let descriptors = crate::support::open_descriptors();
            run(FULL, "connect_full").await;
            run(BLOCKED, "connect_blocked").await;
            until("the descriptors are closed", || {
                crate::support::open_descriptors() == descriptors
            })
            .await;
        });
    });
}

// T9: a connection that was made can't be made again.
#[tokio::test]
async fn a_storm_of_signals_does_not_have_connections_made_twice() {
    const STORM: &str = r#"
        int main(void) {
            int port, server = listening(&port);
            struct sockaddr_in address = loopback(port);
            handle_signal(SIGALRM, SA_RESTART);
            ualarm(1000, 1000);
            for (int i = 0; i < 200 || handled < 5; i++) {
                int fd = socket(AF_INET, SOCK_STREAM, 0), peer;
                check(!connect(fd, (void *)&address, sizeof address), "connect");
                while ((peer = accept(server, NULL, NULL)) < 0) check(errno == EINTR, "accept");
                check(!close(fd) && !close(peer), "close");
            }
        }
    "#;
    if !crate::support::target::killable() {
        return;
    }
    let output = emulated(&mut Command::new(target("connect_storm", STORM)), None).await;
    assert!(output.status.success(), "{output:?}");
}
