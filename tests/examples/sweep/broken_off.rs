//! Sweeps that end before they are through.

use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;

use super::{Place, code, on_planted, processes_in};
use crate::support::{proc_status, until, within};

/// How many lines the journal has: one for the sweep, and one for each run.
fn lines(place: &Place) -> usize {
    let journal = std::fs::read_to_string(place.path("journal"));
    journal.map_or(0, |journal| journal.matches('\n').count())
}

/// A sweep that has come to its `least`th case at least, and is not through for long.
async fn under_way(place: &Place, least: usize, arguments: &[&str]) -> Child {
    let arguments = [&["--journal", "journal", "--json", "report"], arguments].concat();
    let mut command = undeaf(&place.command(on_planted(&arguments)));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let before = lines(place);
    let child = command.spawn().unwrap();
    until("it is under way", || lines(place) > before.max(1) + least).await;
    child
}

/// The same with no signal ignored, whatever has started the tests.
fn undeaf(command: &tokio::process::Command) -> tokio::process::Command {
    let command = command.as_std();
    let mut undeaf = tokio::process::Command::new("env");
    undeaf
        .args(["--default-signal=HUP,INT,TERM".as_ref(), command.get_program()])
        .args(command.get_args())
        .envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .kill_on_drop(true);
    if let Some(directory) = command.get_current_dir() {
        undeaf.current_dir(directory);
    }
    undeaf
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().unwrap() as i32), signal).unwrap();
}

async fn assert_nobody_is_left(place: &Place) {
    let scratch = place.path("scratch").canonicalize().unwrap();
    until("no process is left", || processes_in(&scratch).is_empty()).await;
}

#[tokio::test]
async fn a_signal_ends_it_and_nothing_is_left() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        for least in [0, 1, 7] {
            let place = Place::new();
            let child = under_way(&place, least, &[]).await;
            send(&child, signal);
            let output = within("its end", child.wait_with_output()).await.unwrap();
            assert_eq!(code(&output), Some(128 + signal as i32), "{output:?}");
            assert_eq!(output.stderr, b"sweep: interrupted\n", "{output:?}");
            assert!(output.stdout.is_empty(), "{output:?}");
            assert_nobody_is_left(&place).await;
            place.assert_nothing_is_left();
        }
    }
}

#[tokio::test]
async fn a_signal_ends_it_while_a_run_hangs() {
    let place = Place::new();
    let arguments = on_planted(&["--only", "flock#2=EINTR", "--deadline", "3600000"]);
    let mut command = undeaf(&place.command(arguments));
    let child = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let scratch = place.path("scratch").canonicalize().unwrap();
    // In `pause`, which it calls nowhere else.
    until("it hangs", || {
        let calls = processes_in(&scratch).into_iter();
        let mut calls =
            calls.map(|process| std::fs::read_to_string(process.join("syscall")).unwrap_or_default());
        calls.any(|call| call.starts_with("34 "))
    })
    .await;
    send(&child, Signal::SIGINT);
    let output = within("its end", child.wait_with_output()).await.unwrap();
    assert_eq!(code(&output), Some(130), "{output:?}");
    assert_nobody_is_left(&place).await;
    place.assert_nothing_is_left();
}

#[tokio::test]
async fn who_started_it_may_have_it_ignore_a_signal() {
    let place = Place::new();
    let mut command = tokio::process::Command::new("nohup");
    let sweep = place.command(on_planted(&[
        "--journal",
        "journal",
        "-n",
        "40",
        "-e",
        "write,close,mmap",
    ]));
    command
        .arg(sweep.as_std().get_program())
        .args(sweep.as_std().get_args())
        .current_dir(place.directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let child = command.spawn().unwrap();
    until("it is under way", || lines(&place) > 1).await;
    let ignored = proc_status(child.id().unwrap(), "SigIgn").unwrap();
    assert_eq!(u64::from_str_radix(&ignored, 16).unwrap() & 1, 1);
    send(&child, Signal::SIGHUP);
    let output = within("its end", child.wait_with_output()).await.unwrap();
    assert!(code(&output).is_some_and(|code| code < 2), "{output:?}");
    assert_eq!(lines(&place), 41);
}

// Killed in the middle again and again, it comes to the end of the same cases.
#[tokio::test]
async fn a_sweep_that_was_killed_goes_on_where_it_was() {
    let place = Place::new();
    let arguments = ["-e", "flock,close,read,mmap", "--deadline", "500"];
    let mut before = 1;
    for _ in 0..3 {
        let mut child = under_way(&place, 4, &arguments).await;
        within("the kill", child.kill()).await.unwrap();
        assert!(lines(&place) > before, "nothing was done");
        before = lines(&place);
        assert_nobody_is_left(&place).await;
        // Nobody is there to remove them.
        std::fs::remove_dir_all(place.path("scratch")).unwrap();
        std::fs::create_dir(place.path("scratch")).unwrap();
    }
    let done = lines(&place) - 1;
    let all = [&["--journal", "journal", "--json", "report"], &arguments[..]].concat();
    let output = place.sweep(on_planted(&all)).await;
    assert_eq!(code(&output), Some(1), "{output:?}");
    let report: serde_json::Value = serde_json::from_str(&place.read("report")).unwrap();
    let resumed = report["resumed"].as_u64().unwrap() as usize;
    // A last line may have been torn off.
    assert!((done - 1..=done).contains(&resumed), "{resumed} of {done}");
    let verdicts = |report: &serde_json::Value| {
        let trials = report["trials"].as_array().unwrap().iter();
        let verdicts = trials.map(|trial| (trial["case"].to_string(), trial["verdict"].to_string()));
        verdicts.collect::<Vec<_>>()
    };
    assert_eq!(lines(&place), 1 + verdicts(&report).len());
    let arguments = [&["--json", "whole"], &arguments[..]].concat();
    place.sweep(on_planted(&arguments)).await;
    let whole: serde_json::Value = serde_json::from_str(&place.read("whole")).unwrap();
    assert_eq!(verdicts(&report), verdicts(&whole));
}
