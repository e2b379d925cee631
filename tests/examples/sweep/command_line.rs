//! What it is told, and what it says to that.

use super::{Place, code, on_planted, planted, stderr, stdout};

#[tokio::test]
async fn the_exit_status_says_what_came_of_it() {
    let place = Place::new();
    for (arguments, status) in [
        (on_planted(&["--only", "flock#4=EINTR"]), 0),
        (on_planted(&["--only", "flock#1=EINTR"]), 1),
        (on_planted(&["--bogus"]), 2),
        (vec![], 2),
        (on_planted(&["--files", "no-such-directory"]), 125),
        (vec!["/etc/passwd".into()], 126),
        (vec!["./no-such-program".into()], 127),
        (vec!["no-such-program".into()], 127),
    ] {
        let output = place.sweep(&arguments).await;
        assert_eq!(code(&output), Some(status), "{arguments:?}: {output:?}");
        assert_eq!(stderr(&output).is_empty(), status < 2, "{output:?}");
        assert_eq!(stdout(&output).is_empty(), status >= 2, "{output:?}");
    }
    let help = place.sweep(["--help"]).await;
    assert!(
        help.status.success() && stdout(&help).contains("Usage: sweep"),
        "{help:?}"
    );
    assert!(
        stdout(&help).lines().all(|line| line.chars().count() <= 80),
        "{help:?}"
    );
}

#[tokio::test]
async fn what_it_does_not_understand_it_says() {
    let place = Place::new();
    for (arguments, message) in [
        (&["-e", "opne"][..], "no system call `opne`; is `open` meant?"),
        (&["-e", "read,"], "no system call ``"),
        (&["-e", "zzzzzzzz"], "no system call `zzzzzzzz`\n"),
        (&["-e", "\x1b[31m"], "no system call `\\u{1b}[31m`"),
        (&["-E", "enospc"], "no error `enospc`; is `ENOSPC` meant?"),
        (&["--only", "wrote#1=EIO"], "`wrote#1=EIO`: there is no such call"),
        (
            &["--only", "write#1=ENO"],
            "`write#1=ENO`: there is no such error",
        ),
        (&["--jobs", "many"], "--jobs `many`"),
        (&["--limit=-1"], "--limit `-1`"),
        (&["--stdin", "no-such-file"], "no-such-file: No such file"),
        (&["--json", "no/such/file"], "no/such/file: No such file"),
        (&["--html", "/"], "/: Is a directory"),
        (&["--bogus"], "invalid option '--bogus'"),
    ] {
        let output = place.sweep(on_planted(arguments)).await;
        assert_eq!(code(&output), Some(2), "{output:?}");
        let said = stderr(&output);
        assert!(
            said.starts_with("sweep: ") && said.contains(message),
            "{output:?}"
        );
        assert!(said.contains("Try `sweep --help`."), "{output:?}");
    }
}

#[tokio::test]
async fn the_cases_are_those_of_the_calls_and_errors_up_to_the_limit() {
    let place = Place::new();
    let sweep = async |arguments: &[&str]| {
        let output = place
            .sweep(on_planted(&[arguments, &["--json", "report"]].concat()))
            .await;
        let report: serde_json::Value = serde_json::from_str(&place.read("report")).unwrap();
        let cases = report["trials"].as_array().unwrap().iter();
        let cases: Vec<_> = cases
            .map(|trial| trial["case"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(code(&output), Some(1), "{output:?}");
        (cases, stdout(&output).to_owned())
    };
    let quick = ["--deadline", "300", "-e", "flock,write"];
    let (all, _) = sweep(&[&quick[..], &["-E", "EINTR"]].concat()).await;
    let each = [
        "flock#1=EINTR",
        "flock#2=EINTR",
        "flock#3=EINTR",
        "flock#4=EINTR",
        "write#1=EINTR",
    ];
    let mut sorted = all.clone();
    sorted.sort();
    assert_eq!(sorted, each);
    let (some, shown) = sweep(&[&quick[..], &["-E", "EINTR", "--limit", "2"]].concat()).await;
    assert_eq!(some, all[..2]);
    assert!(shown.contains("3 cases: beyond the limit"), "{shown}");
    let (several, _) = sweep(&["-e", "flock", "-E", "EINTR,ENOLCK", "-n", "1"]).await;
    assert_eq!(several.len(), 1);
    let (one, _) = sweep(&["-e", "write", "-E", "ENOSPC"]).await;
    assert_eq!(one, ["write#1=ENOSPC"]);
}

#[tokio::test]
async fn a_run_has_its_files_and_its_input_and_hangs_after_its_deadline() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("given/sub")).unwrap();
    std::fs::write(place.path("given/sub/file"), "from the directory\n").unwrap();
    std::fs::write(place.path("input"), "from the input\n").unwrap();
    let script = "exec 2>/dev/null; cat sub/file - | sort; rm sub/file; mkdir new || sleep 1000";
    let arguments = [
        "--files",
        "given",
        "--stdin",
        "input",
        "--deadline",
        "1000",
        "--only",
        "0.4:mkdir#1=EACCES",
        "--json",
        "report",
        "--",
        "/bin/bash",
        "-c",
        script,
    ];
    let output = place.sweep(arguments).await;
    let report: serde_json::Value = serde_json::from_str(&place.read("report")).unwrap();
    assert_eq!(
        report["baseline"]["ending"],
        serde_json::json!({"exited": 0}),
        "{report:#}"
    );
    assert_eq!(code(&output), Some(1), "{output:?}");
    assert!(
        stdout(&output).contains("1. hang: 0.4:mkdir#1=EACCES"),
        "{output:?}"
    );
    // Copies were removed.
    assert!(place.path("given/sub/file").exists() && !place.path("given/new").exists());
    let output = place
        .sweep(["--only", "read#1=EIO", "--", "/bin/cat", "sub/file"])
        .await;
    assert!(stdout(&output).contains("exit status 1"), "{output:?}");
}

#[tokio::test]
async fn the_report_is_written_in_each_form() {
    let place = Place::new();
    // What is there gives way.
    std::fs::write(place.path("page"), "x".repeat(1 << 20)).unwrap();
    let arguments = [
        "-e",
        "flock",
        "-E",
        "EINTR",
        "--deadline",
        "300",
        "--json",
        "report",
        "--html",
        "page",
    ];
    let shown = place.sweep(on_planted(&arguments)).await;
    let quiet = place.sweep(on_planted(&[&arguments[..], &["-q"]].concat())).await;
    assert_eq!((code(&shown), code(&quiet)), (Some(1), Some(1)));
    assert_eq!((stdout(&quiet), stderr(&quiet)), ("", ""));
    let report: serde_json::Value = serde_json::from_str(&place.read("report")).unwrap();
    assert_eq!(report["command"], serde_json::json!([planted()]));
    let page = place.read("page");
    for case in ["flock#1=EINTR", "flock#2=EINTR", "flock#3=EINTR", "flock#4=EINTR"] {
        let trials = report["trials"].as_array().unwrap();
        assert!(
            trials.iter().any(|trial| trial["case"] == case),
            "{case}: {report:#}"
        );
        assert!(page.contains(case), "{case}: {page}");
        let finding = case != "flock#4=EINTR";
        assert_eq!(
            stdout(&shown).contains(&format!("{case}\n")),
            finding,
            "{shown:?}"
        );
    }
    assert!(
        page.trim_start().to_lowercase().starts_with("<!doctype html>")
            && page.trim_end().ends_with("</html>")
    );
    // Into a pipe, and nowhere.
    let arguments = on_planted(&["-q", "--only", "flock#1=EINTR", "--json", "/dev/stdout"]);
    let piped = place.sweep(arguments).await;
    let report: serde_json::Value = serde_json::from_slice(&piped.stdout).unwrap();
    assert_eq!(report["trials"].as_array().unwrap().len(), 1);
    let full = place
        .sweep(on_planted(&["--only", "flock#1=EINTR", "--json", "/dev/full"]))
        .await;
    assert_eq!(code(&full), Some(125));
    assert!(stderr(&full).contains("/dev/full: No space left"), "{full:?}");
    assert!(stdout(&full).contains("1. crash: flock#1=EINTR"), "{full:?}");
}
