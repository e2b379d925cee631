//! The standard streams and the other descriptors of the child: the same as with `tokio::process`.
#![allow(unsafe_code)]

mod support;

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use asm_tracer::{Command, Stdio};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use support::side_by_side::{side_by_side, variants};
use support::start::{Way, assert_a_start_works, current_thread, finish, run, serve};
use support::{in_process_of_its_own, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What has been written to a file.
fn text(mut file: &File) -> String {
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

#[tokio::test]
async fn null_is_empty_and_swallows() {
    let outcome = side_by_side!("/bin/sh", |command| {
        command
            .args(["-c", "cat; echo lost >&2; readlink /proc/$$/fd/0 /proc/$$/fd/2"])
            .stdin(Stdio::null())
            .stderr(Stdio::null());
    });
    assert_eq!(outcome.stdout(), "/dev/null\n/dev/null\n");
}

#[tokio::test]
async fn files_and_descriptors_become_streams() {
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (directory.path().join("input"), directory.path().join("output"));
    std::fs::write(&input, "from the file").unwrap();
    let mut written = String::new();
    let outcome = side_by_side!("/bin/sh", |command| {
        written.push_str(&std::fs::read_to_string(&output).unwrap_or_default());
        command
            .args(["-c", "cat; echo to the file >&2"])
            .stdin(File::open(&input).unwrap())
            .stderr(OwnedFd::from(File::create(&output).unwrap()));
    });
    assert_eq!(outcome.stdout(), "from the file");
    // What the last one wrote is not looked at by the next.
    written.push_str(&std::fs::read_to_string(&output).unwrap());
    assert_eq!(written, "to the file\n".repeat(1 + variants().count()));
}

#[tokio::test]
async fn one_file_can_be_both_output_and_errors() {
    let file = tempfile::tempfile().unwrap();
    side_by_side!("/bin/sh", |command| {
        command
            .args(["-c", "echo one; echo two >&2; echo three"])
            .stdout(file.try_clone().unwrap())
            .stderr(file.try_clone().unwrap());
    });
    assert_eq!(text(&file), "one\ntwo\nthree\n".repeat(1 + variants().count()));
}

#[tokio::test]
async fn the_same_command_starts_twice_with_the_same_descriptors() {
    for way in Way::BOTH {
        let file = tempfile::tempfile().unwrap();
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "echo line"])
            .stdout(file.try_clone().unwrap());
        way.apply(&mut command);
        for _ in 0..3 {
            assert!(run(&mut command).await.unwrap().status.success());
        }
        drop(command);
        assert_eq!(text(&file), "line\n".repeat(3));
    }
}

#[tokio::test]
async fn much_data_goes_both_ways_at_once() {
    const SIZE: usize = 8 << 20;
    let data: Vec<u8> = (0..SIZE as u32)
        .map(|index| (index ^ (index >> 9)) as u8)
        .collect();
    for (way, filter) in variants() {
        let mut command = Command::new("cat");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .filter(filter);
        way.apply(&mut command);
        let (mut child, listener) = command.spawn().await.unwrap();
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let write = async {
            stdin.write_all(&data).await.unwrap();
            drop(stdin);
        };
        let mut copy = Vec::with_capacity(SIZE);
        let read = async { stdout.read_to_end(&mut copy).await.unwrap() };
        let all = async { futures::join!(write, read, serve(listener), child.wait()) };
        let (.., status) = within("the copy", all).await;
        assert!(status.unwrap().success());
        assert!(copy == data, "{way:?}");
    }
}

#[tokio::test]
async fn waiting_closes_the_pipe_to_the_child() {
    for way in Way::BOTH {
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        way.apply(&mut command);
        let (mut child, listener) = command.spawn().await.unwrap();
        let (status, _) = within(
            "the end of cat",
            futures::future::join(child.wait(), serve(listener)),
        )
        .await;
        assert!(status.unwrap().success());
        assert!(child.stdin.is_none());

        let (mut child, listener) = command.spawn().await.unwrap();
        child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"to be read")
            .await
            .unwrap();
        assert_eq!(finish(child, listener).await.unwrap().stdout, b"to be read");
    }
}

#[tokio::test]
async fn streams_that_are_not_piped_have_no_pipe() {
    let mut command = Command::new("true");
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let (child, listener) = command.spawn().await.unwrap();
    assert!(child.stdin.is_none() && child.stdout.is_none() && child.stderr.is_some());
    finish(child, listener).await.unwrap();
}

/// Prints the numbers and targets of its descriptors, but for the one with which it looks.
const LIST: [&str; 2] = [
    "-c",
    "for fd in /proc/$$/fd/*; do t=$(readlink $fd) && case $t in pipe:*) t=pipe;; esac && echo ${fd##*/} $t; done",
];

// T24
#[tokio::test]
async fn a_child_has_no_descriptor_that_it_should_not_have() {
    // Without close-on-exec, so it is inherited.
    let leaked = nix::unistd::dup(File::open("/etc/passwd").unwrap()).unwrap();
    let outcome = side_by_side!("/bin/sh", |command| {
        command.args(LIST);
    });
    let listed = outcome.stdout();
    let leaked = format!("{} /etc/passwd", leaked.as_raw_fd());
    for expected in ["0 /dev/null", "1 pipe", "2 pipe", &leaked] {
        assert!(
            listed.lines().any(|line| line == expected),
            "{expected}: {listed}"
        );
    }
    assert!(
        !listed.contains("seccomp") && !listed.contains("socket"),
        "{listed}"
    );
}

/// When descriptors 0, 1 and 2 are closed.
#[derive(Clone, Copy, PartialEq)]
enum Closed {
    /// What the runtime and the library open gets these numbers.
    Early,
    /// These numbers are free when `body` begins, and what it opens gets them.
    Late,
}

const STREAMS: [RawFd; 3] = [0, 1, 2];

/// Runs `body` in a process without standard streams.
fn without_standard_streams(test: &str, closed: Closed, body: impl AsyncFnOnce()) {
    in_process_of_its_own(test, || {
        let saved = STREAMS.map(|number| {
            // SAFETY: the descriptor is only borrowed for the copy.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(100)).unwrap()
        });
        let close = || STREAMS.map(|number| nix::unistd::close(number).unwrap());
        let steps = || {
            if closed == Closed::Early {
                close();
            }
            let runtime = current_thread();
            runtime.block_on(async {
                assert_a_start_works().await;
                if closed == Closed::Late {
                    close();
                }
                body().await;
            });
            // Before the numbers mean something else again.
            drop(runtime);
        };
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(steps));
        for (number, saved) in STREAMS.into_iter().zip(saved) {
            // SAFETY: both numbers are of this process, and nobody else uses them.
            unsafe { libc::dup2(saved, number) };
        }
        if let Err(panic) = ran {
            panic!("without its streams: {:?}", panic.downcast_ref::<String>());
        }
    });
}

/// Opens three files whose numbers are exactly 0, 1 and 2.
fn three_files() -> [File; 3] {
    let files = STREAMS.map(|_| tempfile::tempfile().unwrap());
    assert_eq!(files.each_ref().map(|file| file.as_raw_fd()), STREAMS);
    files
}

#[test]
fn streams_are_permuted() {
    without_standard_streams("streams_are_permuted", Closed::Late, async || {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut readers = Vec::new();
            side_by_side!("/bin/sh", |command| {
                let files = three_files();
                readers.push(files.each_ref().map(|file| file.try_clone().unwrap()));
                let mut files = files.map(Some);
                let [stdin, stdout, stderr] = order.map(|number: usize| files[number].take().unwrap());
                command
                    .args(["-c", "echo in >&0; echo out >&1; echo err >&2"])
                    .stdin(stdin)
                    .stdout(stdout)
                    .stderr(stderr);
            });
            let mut expected = [""; 3];
            for (number, text) in order.into_iter().zip(["in\n", "out\n", "err\n"]) {
                expected[number] = text;
            }
            for files in readers {
                assert_eq!(files.each_ref().map(text), expected, "{order:?}");
            }
        }
    });
}

async fn programs_start() {
    let piped = side_by_side!("/bin/sh", |command| {
        command.args(["-c", "cat; echo out; echo err >&2"]);
    });
    assert_eq!(piped.stdout(), "out\n");
    let inherited = side_by_side!("/bin/sh", |command| {
        command
            .args(["-c", "ls /proc/$$/fd"])
            .stdin(Stdio::inherit())
            .stderr(Stdio::inherit());
    });
    let numbers: Vec<_> = inherited.stdout().lines().collect();
    assert!(
        !numbers.contains(&"0") && !numbers.contains(&"2"),
        "{inherited:?}"
    );
    let swallowed = side_by_side!("/bin/true", |command| {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::inherit())
            .stderr(Stdio::null());
    });
    assert_eq!(swallowed.stdout(), "");
}

#[test]
fn a_supervisor_without_streams_starts_programs() {
    let test = "a_supervisor_without_streams_starts_programs";
    without_standard_streams(test, Closed::Late, programs_start);
}

#[test]
fn the_runtime_may_have_the_numbers_of_the_streams() {
    let test = "the_runtime_may_have_the_numbers_of_the_streams";
    without_standard_streams(test, Closed::Early, programs_start);
}

#[test]
fn inherited_streams_are_those_of_the_supervisor() {
    without_standard_streams(
        "inherited_streams_are_those_of_the_supervisor",
        Closed::Late,
        async || {
            let [mut input, output, errors] = three_files();
            input.write_all(b"in\n").unwrap();
            for file in [&input, &output, &errors] {
                fcntl(file, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
            }
            side_by_side!("/bin/sh", |command| {
                input.rewind().unwrap();
                command
                    .args(["-c", "cat; echo out; echo err >&2"])
                    .stdin(Stdio::inherit())
                    .stdout(Stdio::inherit())
                    .stderr(Stdio::inherit());
            });
            let times = 1 + variants().count();
            assert_eq!(text(&output), "in\nout\n".repeat(times));
            assert_eq!(text(&errors), "err\n".repeat(times));
        },
    );
}
