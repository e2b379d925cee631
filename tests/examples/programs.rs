//! `trace` on programs that everybody has.

use std::collections::HashSet;
use std::fs::read_to_string;
use std::os::unix::process::ExitStatusExt;

use tokio::process::Command;

use crate::lines::{calls, parse};
use crate::support::c_program;
use crate::{file, finish, text, trace};

#[tokio::test]
async fn the_calls_of_cat_are_decoded_and_its_output_is_its_own() {
    let (_directory, file) = file();
    let output = finish(trace(["cat"]).arg(&file)).await;
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "hello\n"));
    let lines = parse(text(&output.stderr));
    let opened = format!("AT_FDCWD, \"{}\", O_RDONLY", file.display());
    assert!(calls(&lines, "openat").contains(&opened.as_str()), "{lines:#?}");
    assert_eq!(calls(&lines, "write"), [r#"1, "hello\n", 6"#]);
    let libraries = calls(&lines, "mmap")
        .iter()
        .any(|call| call.contains("PROT_READ|PROT_EXEC, MAP_PRIVATE"));
    assert!(libraries, "{lines:#?}");
    // The last call never returns.
    let last = lines.last().unwrap();
    assert_eq!((last.name.as_str(), last.arguments.as_str()), ("exit_group", "0"));
}

/// A shell that survives `EINTR`, or the reason why there is none.
///
/// A signal takes back a call that was not yet received. `dash` takes `SIGCHLD` without `SA_RESTART`, and when that
/// hits its `fork` it gives up.
async fn pipeline_shell() -> Result<&'static str, String> {
    let tried = Command::new("bash").args(["-c", ":"]).status().await;
    match tried {
        Ok(status) if status.success() => Ok("bash"),
        other => Err(format!("bash does not run here: {other:?}")),
    }
}

// T9, T10
#[tokio::test]
async fn forks_and_executions_are_followed_and_the_status_is_passed_on() {
    let shell = match pipeline_shell().await {
        Ok(shell) => shell,
        Err(why) => return println!("skipped: {why}"),
    };
    let (directory, _file) = file();
    let log = directory.path().join("log");
    let script = "echo to the pipe | cat; ls /nonexistent; exit 37";
    let output = finish(trace(["-o"]).arg(&log).args([shell, "-c", script])).await;
    let plain = finish(Command::new(shell).args(["-c", script])).await;
    assert_eq!(output.status.code(), Some(37));
    assert_eq!(output, plain, "the program's own output");

    let lines = parse(&read_to_string(&log).unwrap());
    let shell = lines[0].pid;
    let by = |name: &str, arguments: &str| {
        let found = lines
            .iter()
            .find(|line| line.name == name && line.arguments.contains(arguments));
        found
            .unwrap_or_else(|| panic!("no {name} of {arguments} in {lines:#?}"))
            .pid
    };
    let cat = by("execve", r#"/cat", ["cat"], 0x"#);
    let ls = by("execve", r#"/ls", ["ls", "/nonexistent"], 0x"#);
    // The shell forks for its side of the pipe.
    assert_ne!(by("write", r#"1, "to the pipe\n", 12"#), shell);
    assert_eq!(HashSet::from([shell, cat, ls]).len(), 3);
    assert_eq!(by("exit_group", "37"), shell);
    // Each process's last call is there, though it gets no result.
    let processes: HashSet<u32> = lines.iter().map(|line| line.pid).collect();
    assert_eq!(calls(&lines, "exit_group").len(), processes.len());
}

#[tokio::test]
async fn a_death_by_signal_becomes_128_and_its_number() {
    let output = finish(&mut trace(["-e", "kill", "sh", "-c", "kill -TERM $$"])).await;
    assert_eq!(output.status.code(), Some(128 + 15));
    let lines = parse(text(&output.stderr));
    assert_eq!(calls(&lines, "kill"), [format!("{}, SIGTERM", lines[0].pid)]);
}

#[tokio::test]
async fn only_the_calls_that_were_asked_for_are_printed() {
    let (_directory, file) = file();
    // 1 is the number of `write`.
    let output = finish(trace(["-e", "openat,1", "-s", "3", "--", "cat"]).arg(&file)).await;
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "hello\n"));
    let lines = parse(text(&output.stderr));
    assert!(
        lines
            .iter()
            .all(|line| ["openat", "write"].contains(&line.name.as_str())),
        "{lines:#?}"
    );
    assert_eq!(calls(&lines, "write"), [r#"1, "hel"…, 6"#]);
    let shortened = format!("AT_FDCWD, \"{}\"…, O_RDONLY", &file.to_str().unwrap()[..3]);
    assert!(
        calls(&lines, "openat").contains(&shortened.as_str()),
        "{lines:#?}"
    );
}

#[tokio::test]
async fn a_program_that_does_not_start_says_why_in_the_manner_of_env() {
    let (directory, file) = file();
    let no_directory = directory.path().join("no/log").display().to_string();
    let file = file.display().to_string();
    for (arguments, code, message) in [
        (
            vec!["no-such-program"],
            127,
            "trace: no-such-program: No such file or directory\n".to_owned(),
        ),
        (vec![&file], 126, format!("trace: {file}: Permission denied\n")),
        (
            vec!["-o", &no_directory, "echo"],
            125,
            format!("trace: writing to {no_directory}: No such file"),
        ),
        (vec![], 125, "trace: no program to run\n".into()),
        (
            vec!["--nonsense", "echo"],
            125,
            "trace: invalid option '--nonsense'".into(),
        ),
        (
            vec!["-s", "-1", "echo"],
            125,
            "trace: cannot parse argument".into(),
        ),
        (
            vec!["-e", "wriet,openat", "echo"],
            125,
            "trace: there is no system call `wriet`; did you mean `write`?".into(),
        ),
        (
            vec!["-e", "gibberish", "echo"],
            125,
            "trace: there is no system call `gibberish`\n".into(),
        ),
    ] {
        let output = finish(&mut trace(&arguments)).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(
            text(&output.stderr).starts_with(&message),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        assert!(output.stdout.is_empty(), "{arguments:?} ran");
    }
}

#[tokio::test]
async fn the_program_sees_the_same_descriptors_environment_and_arguments() {
    // glibc keeps the signals 32 and 33, of which the upper half of the masks tells, for itself.
    let script = r#"ls /proc/self/fd; env; for arg; do echo "$arg"; done
        sed -nE 's/^(Sig|Shd)(Pnd|Blk|Ign|Cgt):.*(.{8})$/\1\2 \3/p' /proc/self/status"#;
    let arguments = ["sh", "-c", script, "--", "-e", "--json", "two words", ""];
    let traced = finish(
        trace(["-o", "/dev/null"])
            .args(arguments)
            .env("VARIABLE", "\u{e9}"),
    )
    .await;
    let plain = finish(Command::new("sh").args(&arguments[1..]).env("VARIABLE", "\u{e9}")).await;
    assert_eq!(text(&traced.stdout), text(&plain.stdout));
    assert_eq!(traced.status, plain.status);
}

#[tokio::test]
async fn all_of_64_threads_are_followed() {
    let program = c_program("threads", THREADS);
    let output = finish(trace(["-e", "openat,exit"]).arg(program)).await;
    assert_eq!(output.status.code(), Some(0));
    let lines = parse(text(&output.stderr));
    let mut tids = HashSet::new();
    for thread in 0..64 {
        let path = format!("\"/nonexistent/{thread}\"");
        let of_thread: Vec<_> = lines
            .iter()
            .filter(|line| line.arguments.contains(&path))
            .collect();
        assert_eq!(of_thread.len(), 10, "calls of thread {thread}");
        for line in &of_thread {
            assert_eq!((line.tid, line.pid), (of_thread[0].tid, lines[0].pid));
        }
        assert!(tids.insert(of_thread[0].tid) && of_thread[0].tid != lines[0].pid);
    }
    assert_eq!(calls(&lines, "exit").len(), 64);
}

const THREADS: &str = r#"
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
static void *run(void *number) {
    char path[32];
    snprintf(path, sizeof path, "/nonexistent/%ld", (long)number);
    for (int i = 0; i < 10; i++) open(path, O_RDONLY);
    return 0;
}
int main(void) {
    pthread_t threads[64];
    for (long i = 0; i < 64; i++) if (pthread_create(&threads[i], 0, run, (void *)i)) return 1;
    for (int i = 0; i < 64; i++) pthread_join(threads[i], 0);
    return 0;
}
"#;

/// `strace` sees the same calls in the same order, from the first one after the execution on.
#[tokio::test]
async fn strace_agrees() {
    let (directory, file) = file();
    let log = directory.path().join("log");
    let strace = Command::new("strace")
        .args(["-f", "-o"])
        .arg(&log)
        .arg("cat")
        .arg(&file)
        .output();
    match crate::support::within("strace", strace).await {
        Ok(output) if output.status.success() && output.status.signal().is_none() => {}
        other => return println!("skipped: strace does not run here: {other:?}"),
    }
    let log = read_to_string(&log).unwrap();
    // `1234  openat(AT_FDCWD, …`; the last line tells the exit.
    let calls = log
        .lines()
        .filter_map(|line| Some(line.split_once(' ')?.1.trim_start().split_once('(')?.0));
    let expected: Vec<_> = calls.skip_while(|name| *name == "execve").collect();
    let output = finish(trace(["cat"]).arg(&file)).await;
    let lines = parse(text(&output.stderr));
    let names: Vec<_> = lines.iter().map(|line| line.name.as_str()).collect();
    assert!(expected.len() > 20, "{log}");
    assert_eq!(names, expected);
}
