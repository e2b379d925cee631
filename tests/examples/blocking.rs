//! The examples of the blocking face.

use crate::{example, finish, text};

/// What an example wrote, on its two outputs, once it succeeded.
async fn written(name: &str) -> (String, String) {
    let output = finish(example(name).env("LC_ALL", "C")).await;
    assert!(output.status.success(), "{output:?}");
    (text(&output.stdout).to_owned(), text(&output.stderr).to_owned())
}

#[tokio::test]
async fn swallow_prints_nothing_and_drains_one_call() {
    let (printed, told) = written("swallow").await;
    assert_eq!(printed, "");
    assert!(
        told.starts_with("exit status: 0, 1 call: TrappedSyscall { nr: 1, args: [1, "),
        "{told}"
    );
}

#[tokio::test]
async fn peek_reads_what_is_written_before_it_is() {
    let (printed, told) = written("peek").await;
    assert_eq!(printed, "hello\n");
    assert_eq!(told, "about to write \"hello\\n\"\nexit status: 0\n");
}

#[tokio::test]
async fn bad_stdout_fails_as_a_bad_descriptor_does() {
    let (printed, told) = written("bad_stdout").await;
    assert_eq!(printed, "");
    assert_eq!(told, "echo: write error: Bad file descriptor\nexit status: 1\n");
}

#[tokio::test]
async fn bad_stdout_tree_fails_so_for_the_whole_tree() {
    let (printed, told) = written("bad_stdout_tree").await;
    assert_eq!(printed, "");
    let failed = "/bin/echo: write error: Bad file descriptor\n";
    assert!(told.starts_with(&failed.repeat(2)), "{told}");
    // What is written elsewhere passes.
    assert!(
        told.contains("cat: /no/such/file: No such file or directory\n"),
        "{told}"
    );
    assert!(
        told.ends_with("exit status: 1: 3 programs executed, 3 writes refused\n"),
        "{told}"
    );
}
