//! The progress bar.

use std::process::Stdio;

use super::{Place, code, on_planted, stderr, stdout};
use crate::finish;

const QUICK: [&str; 4] = ["-e", "mmap,close,read", "-n", "60"];

#[tokio::test]
async fn where_nobody_looks_there_is_none() {
    let place = Place::new();
    for variables in [&[][..], &[("TERM", "xterm-256color"), ("CLICOLOR_FORCE", "1")]] {
        let mut command = place.command(on_planted(&QUICK));
        let output = finish(command.envs(variables.iter().copied())).await;
        assert!(code(&output).is_some_and(|code| code < 2), "{output:?}");
        assert_eq!(stderr(&output), "");
        assert!(
            !stdout(&output)
                .chars()
                .any(|char| char.is_control() && char != '\n'),
            "{output:?}"
        );
    }
}

// `script` plays the terminal. The bar is one line that is written over, and is not there at the end.
#[tokio::test]
async fn on_a_terminal_it_is_one_line_that_goes_away() {
    let place = Place::new();
    let sweep = place.command(on_planted(&[&QUICK[..], &["-q"]].concat()));
    let words = std::iter::once(sweep.as_std().get_program()).chain(sweep.as_std().get_args());
    let words = words.map(|word| format!("'{}'", word.to_str().unwrap()));
    let line = format!("stty cols 80; {}", words.collect::<Vec<_>>().join(" "));
    let mut script = tokio::process::Command::new("script");
    script
        .args(["-qec", &line, "/dev/null"])
        .current_dir(place.directory.path())
        .env("TERM", "xterm")
        .env("SHELL", "/bin/bash")
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let output = finish(&mut script).await;
    assert!(code(&output).is_some_and(|code| code < 2), "{output:?}");
    let written = stdout(&output);
    assert!(!written.contains('\n'), "{written:?}");
    let frames: Vec<_> = written.split("\r\u{1b}[2K").collect();
    for frame in &frames {
        assert!(
            !frame.contains('\u{1b}') && frame.chars().count() <= 80,
            "{frame:?}"
        );
    }
    assert!(
        frames
            .iter()
            .any(|frame| frame.contains("running the program without")),
        "{frames:?}"
    );
    assert!(frames.iter().any(|frame| frame.contains("/60")), "{frames:?}");
    assert_eq!(frames.last().copied(), Some(""), "{frames:?}");
}
