//! Where and how `trace` prints, and what happens when it can't.

use std::fs::read_to_string;
use std::io::pipe;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::lines::{calls, parse};
use crate::support::{until, within};
use crate::{example, file, finish, text, trace};

#[tokio::test]
async fn each_line_of_json_is_an_object() {
    let (_directory, file) = file();
    let output = finish(trace(["--json", "cat"]).arg(&file)).await;
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "hello\n"));
    let calls: Vec<Value> = text(&output.stderr)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut last = 0.0;
    for call in &calls {
        assert!(
            call["pid"].as_u64().is_some() && call["pid"] == call["tid"],
            "{call}"
        );
        assert!(call["time"].as_f64().is_some_and(|time| time >= last), "{call}");
        assert!(call["held_us"].as_f64().is_some_and(|held| held > 0.0), "{call}");
        assert_eq!(
            (&call["answer"], &call["arch"]),
            (&"continued".into(), &"x86_64".into())
        );
        assert_eq!(call["args"].as_array().unwrap().len(), 6, "{call}");
        last = call["time"].as_f64().unwrap();
    }
    let write = calls.iter().find(|call| call["name"] == "write").unwrap();
    assert_eq!(
        (&write["nr"], &write["args"][0], &write["args"][2]),
        (&1.into(), &"0x1".into(), &"0x6".into())
    );
    assert_eq!(write["decoded"], serde_json::json!(["1", "\"hello\\n\"", "6"]));
    assert_eq!(calls.last().unwrap()["name"], "exit_group");
}

#[tokio::test]
async fn a_count_sums_up_each_call() {
    let (directory, file) = file();
    let log = directory.path().join("log");
    let output = finish(trace(["-c", "-o"]).arg(&log).arg("cat").arg(&file)).await;
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "hello\n"));
    assert!(output.stderr.is_empty());

    let table = read_to_string(&log).unwrap();
    let rows = table.lines().skip(1).map(|row| {
        let columns: Vec<_> = row.split_whitespace().collect();
        (
            columns[0].parse().unwrap(),
            columns[1].parse().unwrap(),
            columns[3],
        )
    });
    let rows: Vec<(u32, f64, &str)> = rows.collect();
    let ((total, _, last), rows) = rows.split_last().unwrap();
    assert_eq!(
        (*last, *total),
        ("total", rows.iter().map(|row| row.0).sum()),
        "{table}"
    );
    assert!(rows.is_sorted_by(|a, b| a.1 >= b.1), "{table}");
    assert!(rows.iter().any(|row| (row.0, row.2) == (1, "write")), "{table}");

    // The same count by another way.
    let lines = parse(text(
        &finish(trace(["-e", "openat", "cat"]).arg(&file)).await.stderr,
    ));
    let openat = calls(&lines, "openat").len() as u32;
    assert!(
        rows.iter().any(|row| (row.0, row.2) == (openat, "openat")),
        "{openat}: {table}"
    );

    let output = finish(trace(["-c", "--json", "-e", "openat", "cat"]).arg(&file)).await;
    let object: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(
        (&object["name"], &object["calls"]),
        (&"openat".into(), &openat.into())
    );
}

#[tokio::test]
async fn the_help_goes_to_the_standard_output() {
    let output = finish(&mut trace(["--help"])).await;
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("Usage: trace [OPTIONS] PROGRAM"));
    assert!(output.stderr.is_empty());
}

#[tokio::test]
async fn a_closed_standard_error_disturbs_nobody() {
    let (_directory, file) = file();
    let path = example("trace").as_std().get_program().to_owned();
    let mut shell = tokio::process::Command::new("sh");
    shell
        .args(["-c", "exec \"$@\" 2>&-", "sh"])
        .arg(path)
        .arg("cat")
        .arg(&file);
    let output = finish(&mut shell).await;
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "hello\n"));
}

#[tokio::test]
async fn a_reader_that_leaves_does_not_stop_the_program() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    // The program makes calls long after the first line was lost; its own standard error is another one.
    let script = "exec 2>/dev/null; for i in 1 2 3; do ls / >/dev/null; echo $i; done; exit 3";
    let mut command = trace(["sh", "-c", script]);
    let output = command
        .stderr(Stdio::from(writer))
        .stdout(Stdio::piped())
        .stdin(Stdio::null());
    let child = output.spawn().unwrap();
    let output = within("trace", child.wait_with_output()).await.unwrap();
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(125), "1\n2\n3\n")
    );
}

#[tokio::test]
async fn a_full_disk_does_not_stop_the_program_and_is_told_at_the_end() {
    let output = finish(&mut trace([
        "-o",
        "/dev/full",
        "sh",
        "-c",
        "ls / >/dev/null; echo done",
    ]))
    .await;
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(125), "done\n")
    );
    assert_eq!(
        text(&output.stderr),
        "trace: writing to /dev/full: No space left on device (os error 28)\n"
    );
}

/// The program shares the standard error, and may make it non-blocking while nobody reads it.
#[tokio::test]
async fn no_line_is_lost_where_the_standard_error_does_not_block() {
    let (mut reader, writer) = pipe().unwrap();
    nix::fcntl::fcntl(
        &writer,
        nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
    )
    .unwrap();
    let (_directory, file) = file();
    let script = "for i in 1 2 3 4 5 6 7 8 9; do cat \"$0\" \"$0\" \"$0\"; done; echo end";
    let mut command = trace(["sh", "-c", script]);
    let mut child = command
        .arg(&file)
        .stderr(Stdio::from(writer))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(command);
    let id = child.id().unwrap();
    // It fills the pipe and then waits for its reader.
    until("trace waits in poll", || {
        std::fs::read_to_string(format!("/proc/{id}/syscall")).is_ok_and(|call| call.starts_with("7 "))
    })
    .await;
    let lines = tokio::task::spawn_blocking(move || {
        let mut lines = String::new();
        std::io::Read::read_to_string(&mut reader, &mut lines).map(|_| lines)
    });
    let lines = parse(&within("the lines", lines).await.unwrap().unwrap());
    assert!(within("trace", child.wait()).await.unwrap().success());
    assert!(
        lines
            .iter()
            .map(|line| line.name.as_str())
            .filter(|name| *name == "exit_group")
            .count()
            == 10
    );
}

#[tokio::test]
async fn the_lines_can_be_seen_while_the_program_waits() {
    let mut command = trace(["cat"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    loop {
        let line = within("the line of the call that waits", lines.next_line()).await;
        if line.unwrap().expect("trace ended").contains("] read(0, ") {
            break;
        }
    }
    // The end of its input ends it.
    let output = within("trace", child.wait_with_output()).await.unwrap();
    assert_eq!(output.status.code(), Some(0));
}
