//! `redirect` on programs that read files and talk to servers.

use std::os::unix::net::UnixListener;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::{example, file, finish, text};

#[tokio::test]
async fn another_file_is_opened_whether_the_first_is_there_or_not() {
    let (directory, other) = file();
    std::fs::write(directory.path().join("there"), "the wrong one\n").unwrap();
    std::os::unix::fs::symlink("there", directory.path().join("link")).unwrap();
    for (from, opened) in [
        ("missing", "missing"),
        ("there", "there"),
        ("there", "link"),
        ("link", "there"),
    ] {
        let rule = format!("{}={}", directory.path().join(from).display(), other.display());
        for program in [
            vec!["cat"],
            vec!["sh", "-c", "exec cat <\"$0\""],
            vec![
                "python3",
                "-c",
                "import sys; print(open(sys.argv[1]).read(), end='')",
            ],
        ] {
            let mut command = example("redirect");
            command.args(["--file", &rule, "--"]).args(&program);
            let output = finish(command.arg(directory.path().join(opened))).await;
            let printed = (output.status.code(), text(&output.stdout));
            assert_eq!(printed, (Some(0), "hello\n"), "{rule} {program:?} {output:?}");
        }
    }
    // Its own name, and others, are as they were.
    let rule = format!("{0}/no={0}/there", directory.path().display());
    let output = finish(example("redirect").args(["-f", &rule, "cat"]).arg(&other)).await;
    assert_eq!(text(&output.stdout), "hello\n");
}

/// Answers one request as a web server does, whatever it is.
async fn serve_once(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) {
    let mut request = [0; 4096];
    let n = stream.read(&mut request).await.unwrap();
    assert!(request[..n].starts_with(b"GET / HTTP"), "{:?}", &request[..n]);
    let answer = b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
    stream.write_all(answer).await.unwrap();
}

#[tokio::test]
async fn a_connection_goes_to_a_server_of_ours() {
    const FETCH: &str = "import urllib.request as u; print(u.urlopen('http://192.0.2.1/').read())";
    // An address that is nobody's (RFC 5737).
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rule = format!("192.0.2.1:80={}", server.local_addr().unwrap());
    let served = tokio::spawn(async move { serve_once(server.accept().await.unwrap().0).await });
    let output = finish(example("redirect").args(["-v", "-c", &rule, "python3", "-c", FETCH])).await;
    assert_eq!(text(&output.stdout), "b'hello\\n'\n", "{output:?}");
    assert!(text(&output.stderr).starts_with("redirect: connecting to V4(127.0.0.1:"));
    served.await.unwrap();
}

#[tokio::test]
async fn a_unix_socket_is_another_one() {
    const TALK: &str = "
import socket
s = socket.socket(socket.AF_UNIX)
s.connect('/no/such/socket')
s.send(b'GET / HTTP')
print(s.recv(100)[-6:])";
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let server = UnixListener::bind(&path).unwrap();
    server.set_nonblocking(true).unwrap();
    let server = tokio::net::UnixListener::from_std(server).unwrap();
    let served = tokio::spawn(async move { serve_once(server.accept().await.unwrap().0).await });
    let rule = format!("unix:/no/such/socket=unix:{}", path.display());
    let output = finish(example("redirect").args(["-c", &rule, "python3", "-c", TALK])).await;
    assert_eq!(text(&output.stdout), "b'hello\\n'\n", "{output:?}");
    served.await.unwrap();
}

#[tokio::test]
async fn redirect_passes_the_status_on_and_says_what_it_does_not_understand() {
    for (arguments, status, message) in [
        (vec!["sh", "-c", "exit 37"], 37, ""),
        (vec!["sh", "-c", "kill -KILL $$"], 128 + 9, ""),
        (vec![], 2, "no program to run"),
        (
            vec!["-f", "/etc/passwd", "true"],
            2,
            "`/etc/passwd` is not FROM=TO",
        ),
        (
            vec!["-c", "unix:/a=127.0.0.1:1", "true"],
            2,
            "a socket of one kind can't",
        ),
        (
            vec!["-c", "127.0.0.1:1=[::1]:1", "true"],
            2,
            "can't be connected to IPv6",
        ),
        (vec!["-c", "nothing=[::1]:1", "true"], 2, "`nothing`: "),
        (vec!["no-such-program"], 127, "No such file or directory"),
    ] {
        let output = finish(example("redirect").args(&arguments)).await;
        assert_eq!(output.status.code(), Some(status), "{arguments:?}");
        assert!(
            text(&output.stderr).contains(message),
            "{arguments:?}: {output:?}"
        );
    }
}
