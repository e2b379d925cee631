//! The command line that comes with a finding.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tokio::process::Command;

use super::{Place, code, planted, stdout};
use crate::{example, finish};

/// What it says to do again, of each finding.
fn again(report: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut title = "";
    for line in report.lines() {
        let line = line.trim_start();
        if let Some(command) = line.strip_prefix("again:") {
            found.push((title.to_owned(), command.trim_start().to_owned()));
        } else if let Some((_, rest)) = line.split_once(". ") {
            title = rest;
        }
    }
    found
}

/// Has a shell run it, with the example in place of its name.
async fn in_a_shell(place: &Place, line: &str) -> String {
    let sweep = example("sweep");
    let program = sweep.as_std().get_program().to_str().unwrap();
    let rest = line.strip_prefix("sweep ").unwrap_or_else(|| panic!("{line}"));
    let script = format!("'{program}' --scratch scratch {rest}");
    let mut shell = Command::new("/bin/bash");
    shell
        .args(["-c", &script])
        .current_dir(place.directory.path())
        .env("LC_ALL", "C")
        .kill_on_drop(true);
    let output = finish(&mut shell).await;
    assert_eq!(code(&output), Some(1), "{script}: {output:?}");
    stdout(&output).to_owned()
}

#[tokio::test]
async fn each_finding_comes_again() {
    let place = Place::new();
    let program = planted();
    let arguments = ["-e", "flock", "-E", "EINTR", "--deadline", "700", "--"].map(OsStr::new);
    let output = place
        .sweep(arguments.iter().copied().chain([program.as_os_str()]))
        .await;
    let found = again(stdout(&output));
    let titles: Vec<_> = found.iter().map(|(title, _)| title.as_str()).collect();
    let expected = [
        "crash: flock#1=EINTR",
        "hang: flock#2=EINTR",
        "silent failure: flock#3=EINTR",
    ];
    assert_eq!(titles, expected, "{output:?}");
    for (title, line) in found {
        let once = again(&in_a_shell(&place, &line).await);
        assert_eq!(once, [(title, line)]);
    }
}

// Names of directories and files that a shell would take apart, and that no terminal shows.
#[tokio::test]
async fn it_comes_again_whatever_the_files_are_called() {
    let program = planted();
    let names: [&[u8]; 6] = [
        b"a name with spaces",
        b"it's \"$HOME\" `id` \\ *",
        b"-n",
        "\u{e4}\u{f6}\u{fc}".as_bytes(),
        b"line\nand\ttab\x1b[31m7",
        b"no \xff text",
    ];
    for name in names {
        let place = Place::new();
        let path = Path::new(OsStr::from_bytes(name));
        let in_place = place.directory.path().join(path);
        std::fs::create_dir(&in_place).unwrap();
        std::fs::write(in_place.join(path), "given\n").unwrap();
        let script = "test -s ./* && read line && test \"$line\" = given && exec \"$0\"; echo no";
        let mut command = place.command(["--files"]);
        command
            .arg(path)
            .arg("--stdin")
            .arg(path.join(path))
            .arg("--writable")
            .arg(path);
        command.args(["--only", "0:flock#1=EINTR", "--", "/bin/bash", "-c", script]);
        let output = finish(command.arg(&program)).await;
        let found = again(stdout(&output));
        assert_eq!(found.len(), 1, "{name:?}: {output:?}");
        let (title, line) = &found[0];
        assert_eq!(title, "crash: flock#1=EINTR");
        assert!(line.chars().all(|char| !char.is_control()), "{line}");
        if name.contains(&b' ') && name.is_ascii() && !name.contains(&b'\'') {
            assert!(line.contains(" --files 'a name with spaces' --stdin"), "{line}");
        }
        let once = again(&in_a_shell(&place, line).await);
        assert_eq!(once, found, "{name:?}");
    }
}
