//! `inject` on real programs.

use std::path::Path;
use std::process::Output;

use crate::{example, file, finish, text};

async fn inject(arguments: &[&str], directory: &Path) -> Output {
    finish(
        example("inject")
            .args(arguments)
            .current_dir(directory)
            .env("LC_ALL", "C"),
    )
    .await
}

/// An exit status that differs between versions.
const SOME: i32 = -1;

/// Where a program is, and not a script that looks for it.
fn installed(program: &str) -> Option<String> {
    let mut paths = ["/usr/bin", "/usr/local/bin", "/bin"]
        .map(|directory| format!("{directory}/{program}"))
        .into_iter();
    paths.find(|path| Path::new(path).exists())
}

/// Without the program, what the example says.
fn said(output: &Output) -> String {
    let errors = text(&output.stderr);
    errors
        .split_once("inject: ")
        .unwrap_or_else(|| panic!("{output:?}"))
        .1
        .to_owned()
}

#[tokio::test]
async fn a_full_disk_is_told_by_each_program_that_writes() {
    let (directory, file) = file();
    let at = directory.path();
    let name = file.file_name().unwrap().to_str().unwrap();
    let python = "open('made', 'w').write('x')";
    let sql = "create table t (x); insert into t values (1);";
    for (program, expression, arguments, code) in [
        (
            "cp",
            "copy_file_range,write,ioctl:error=ENOSPC",
            vec![name, "copy"],
            1,
        ),
        ("tar", "write:error=ENOSPC", vec!["cf", "archive.tar", name], 2),
        (
            "python3",
            "openat:error=ENOSPC:when=2+",
            vec!["-S", "-c", "print()"],
            127,
        ),
        ("python3", "%file:error=ENOSPC:when=60000", vec!["-c", python], 0),
        ("git", "mkdir:error=ENOSPC", vec!["init", "-q", "repository"], 128),
        ("sqlite3", "fsync,fdatasync:error=ENOSPC", vec!["base", sql], SOME),
    ] {
        let Some(path) = installed(program) else {
            println!("skipped: there is no {program}");
            continue;
        };
        let options = ["-e", expression, "--timeout", "50000", "--", &path];
        let output = inject(&[&options[..], &arguments].concat(), at).await;
        let said = said(&output);
        let status = output.status.code().unwrap();
        assert!(
            status == code || code == SOME && status > 0,
            "{program}: {output:?}"
        );
        assert!(
            said.contains(&format!("exit status: {status}")),
            "{program}: {said}"
        );
        assert_eq!(
            said.contains("failed with ENOSPC"),
            code != 0,
            "{program}: {said}"
        );
    }
}

#[tokio::test]
async fn several_faults_and_all_calls_are_told() {
    let (directory, file) = file();
    let name = file.file_name().unwrap().to_str().unwrap();
    let short = "write:error=EINTR:when=1";
    let output = inject(
        &[
            "-a",
            "-e",
            short,
            "-e",
            "close:delay_enter=1ms:when=1",
            "cat",
            name,
        ],
        directory.path(),
    )
    .await;
    let said = said(&output);
    for part in [
        "failed with EINTR",
        "delayed by 1ms",
        "then ",
        "its last calls were",
        "exit_group(",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(
        text(&inject(&["-q", "cat", name], directory.path()).await.stdout),
        "hello\n"
    );
}

#[tokio::test]
async fn a_program_that_hangs_is_killed_and_tells_where() {
    let (directory, _file) = file();
    let output = inject(
        &["-e", "getpid:error=EPERM", "--timeout", "300", "sleep", "1000"],
        directory.path(),
    )
    .await;
    assert_eq!(output.status.code(), Some(124));
    let said = said(&output);
    assert!(
        said.contains("killed at its deadline") && said.contains("(sleep): S in clock_nanosleep("),
        "{said}"
    );
}

#[tokio::test]
async fn what_it_does_not_understand_it_says_with_the_place() {
    let (directory, _file) = file();
    for (arguments, code, message) in [
        (vec![], 125, "no program to run"),
        (
            vec!["-e", "write:error=ENOSPACE", "true"],
            125,
            "              ^^^^^^^^",
        ),
        (
            vec!["-e", "write:error=EIO", "no-such-program"],
            127,
            "No such file or directory",
        ),
        (vec!["--bogus", "true"], 125, "invalid option '--bogus'"),
    ] {
        let output = inject(&arguments, directory.path()).await;
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(said(&output).contains(message), "{output:?}");
    }
    let help = inject(&["--help"], directory.path()).await;
    assert!(help.status.success() && text(&help.stdout).contains("Usage: inject"));
}
