//! What is run, with which arguments, environment and directory: the same as with `tokio::process`.

mod support;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use asm_tracer::{Command, Errno, Error, SpawnStep};
use support::side_by_side::side_by_side;
use support::start::{current_thread, executable};
use support::{assert_passed, is_child, rerun};

/// Directories with a program `tool` each, which says where it is.
struct Tools {
    root: tempfile::TempDir,
}

impl Tools {
    fn new(directories: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        for directory in directories {
            let path = root.path().join(directory);
            std::fs::create_dir(&path).unwrap();
            executable(
                &path,
                "tool",
                format!("#!/bin/sh\necho {directory} $*\n").as_bytes(),
            );
        }
        Self { root }
    }

    fn at(&self, path: &str) -> String {
        self.root.path().join(path).to_str().unwrap().to_owned()
    }

    /// Makes a tool one that can't be executed.
    fn forbid(&self, directory: &str) {
        let tool = self.root.path().join(directory).join("tool");
        std::fs::set_permissions(tool, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
}

#[tokio::test]
async fn a_program_is_looked_up_in_the_path_of_the_child() {
    let tools = Tools::new(&["a", "b"]);
    let (a, b) = (tools.at("a"), tools.at("b"));
    for (path, found) in [
        (format!("{a}:{b}"), "a\n"),
        (format!("{b}:{a}"), "b\n"),
        (format!("/nowhere:{b}/:{a}"), "b\n"),
        // Below a file, and longer than any path.
        (format!("{a}/tool:{b}"), "b\n"),
        (format!("/{}:{b}", "x/".repeat(3000)), "b\n"),
    ] {
        let outcome = side_by_side!("tool", |command| {
            command.env("PATH", &path);
        });
        assert_eq!(outcome.stdout(), found, "{path}");
    }
}

#[tokio::test]
async fn an_empty_entry_of_the_path_is_the_working_directory() {
    let tools = Tools::new(&["a", "b"]);
    let (a, b) = (tools.at("a"), tools.at("b"));
    for path in [
        "".to_owned(),
        ":".to_owned(),
        format!(":{b}"),
        "/nowhere:".to_owned(),
        format!("/nowhere::{b}"),
    ] {
        let outcome = side_by_side!("tool", |command| {
            command.env("PATH", &path).current_dir(&a);
        });
        assert_eq!(outcome.stdout(), "a\n", "{path}");
    }
    let outcome = side_by_side!("tool", |command| {
        command.env("PATH", "../b").current_dir(&a);
    });
    assert_eq!(
        outcome.stdout(),
        "b\n",
        "an entry relative to the working directory"
    );
}

#[tokio::test]
async fn without_a_path_the_system_s_own_directories_are_looked_at() {
    let cleared = side_by_side!("echo", |command| {
        command.env_clear().arg("found");
    });
    assert_eq!(cleared.stdout(), "found\n");
    let removed = side_by_side!("echo", |command| {
        command.env_remove("PATH").arg("found");
    });
    assert_eq!(removed.stdout(), "found\n");
    let outcome = side_by_side!("no-such-tool", |command| {
        command.env_clear();
    });
    assert_eq!(outcome.errno(), Errno::ENOENT as i32);
}

#[tokio::test]
async fn what_must_not_be_executed_is_passed_over_if_there_is_another() {
    let tools = Tools::new(&["a", "b", "c"]);
    let (a, b, c) = (tools.at("a"), tools.at("b"), tools.at("c"));
    tools.forbid("a");
    tools.forbid("c");
    let outcome = side_by_side!("tool", |command| {
        command.env("PATH", format!("{a}:/nowhere:{b}:{c}"));
    });
    assert_eq!(outcome.stdout(), "b\n");
    for (path, errno) in [
        (a.clone(), Errno::EACCES),
        (format!("{a}:/nowhere"), Errno::EACCES),
        (format!("/nowhere:{a}:{b}/tool"), Errno::EACCES),
        (format!("/nowhere:{b}/tool"), Errno::ENOTDIR),
        (format!("{b}/tool:/nowhere"), Errno::ENOENT),
        // A directory of the program's name.
        (tools.root.path().to_str().unwrap().to_owned(), Errno::ENOENT),
    ] {
        let outcome = side_by_side!("tool", |command| {
            command.env("PATH", &path);
        });
        assert_eq!(outcome.errno(), errno as i32, "{path}");
    }
    std::fs::create_dir(tools.root.path().join("tool")).unwrap();
    let outcome = side_by_side!("tool", |command| {
        command.env("PATH", tools.root.path());
    });
    assert_eq!(outcome.errno(), Errno::EACCES as i32);
}

#[tokio::test]
async fn a_program_with_a_slash_is_relative_to_the_working_directory() {
    let tools = Tools::new(&["a", "b"]);
    for (program, directory, found) in [
        ("./tool", "a", "a\n"),
        ("../a/tool", "b", "a\n"),
        ("b/tool", ".", "b\n"),
    ] {
        let outcome = side_by_side!(program, |command| {
            command.env("PATH", "/bin").current_dir(tools.at(directory));
        });
        assert_eq!(outcome.stdout(), found);
    }
    let outcome = side_by_side!("a/tool", |command| {
        command.current_dir(tools.at("a"));
    });
    assert_eq!(outcome.errno(), Errno::ENOENT as i32);
}

#[tokio::test]
async fn a_name_that_is_too_long_is_an_error() {
    for program in [
        "x".repeat(300),
        format!("/bin/{}", "x".repeat(300)),
        "/x".repeat(3000),
    ] {
        let outcome = side_by_side!(&program);
        assert_eq!(outcome.errno(), Errno::ENAMETOOLONG as i32);
    }
}

/// Prints all of its arguments, the zeroth too.
const PRINT_ARGUMENTS: [&str; 2] = ["-c", "cat /proc/$$/cmdline"];

#[tokio::test]
async fn arguments_arrive_as_they_are() {
    let odd = OsStr::from_bytes(b"\xff\xfe not UTF-8 \x01");
    let outcome = side_by_side!("/bin/sh", |command| {
        command
            .args(PRINT_ARGUMENTS)
            .arg("")
            .arg("two words")
            .arg("'quotes' \"and\" $HOME * \n")
            .args(["a", "-b", "--"])
            .arg(odd);
    });
    let expected = r"/bin/sh\x00-c\x00cat /proc/$$/cmdline\x00\x00two words\x00\'quotes\' \x22and\x22 $HOME * \n\x00a\x00-b\x00--\x00\xff\xfe not UTF-8 \x01\x00";
    assert_eq!(outcome.stdout().replace("\\\"", "\\x22"), expected);
}

#[tokio::test]
async fn many_and_long_arguments_arrive_up_to_the_limit_of_the_kernel() {
    let long = "x".repeat(100_000);
    let outcome = side_by_side!("/bin/sh", |command| {
        command
            .args(["-c", "echo ${#1} ${#}", "sh"])
            .arg(&long)
            .args((0..5000).map(|number| number.to_string()));
    });
    assert_eq!(outcome.stdout(), "100000 5001\n");
    // No single string may be longer than 128 KiB.
    let outcome = side_by_side!("/bin/true", |command| {
        command.arg("x".repeat(200_000));
    });
    assert_eq!(outcome.errno(), Errno::E2BIG as i32);
}

#[tokio::test]
async fn the_zeroth_argument_is_the_program_or_what_is_asked_for() {
    let program = side_by_side!("sh", |command| {
        command.args(PRINT_ARGUMENTS);
    });
    assert_eq!(program.stdout(), "sh\\0-c\\0cat /proc/$$/cmdline\\0");
    for name in ["other", "", "-sh"] {
        let outcome = side_by_side!("/bin/sh", |command| {
            command.arg0(name).args(PRINT_ARGUMENTS);
        });
        assert_eq!(outcome.stdout(), format!("{name}\\0-c\\0cat /proc/$$/cmdline\\0"));
    }
}

#[tokio::test]
async fn the_environment_is_inherited_with_the_changes() {
    let inherited = side_by_side!("/bin/sh", |command| {
        command.args(["-c", "env -0 | sort -z"]);
    });
    assert!(
        inherited.stdout().contains("CARGO_MANIFEST_DIR="),
        "{inherited:?}"
    );
    let changed = side_by_side!("/usr/bin/env", |command| {
        command
            .arg("-0")
            .env("NEW", "1")
            .env("CARGO_MANIFEST_DIR", "replaced")
            .env_remove("CARGO_PKG_NAME")
            .env_remove("NEVER_THERE");
    });
    let variables: Vec<_> = changed.stdout().split("\\0").collect();
    assert!(variables.contains(&"NEW=1") && variables.contains(&"CARGO_MANIFEST_DIR=replaced"));
    assert!(!changed.stdout().contains("CARGO_PKG_NAME="));
}

#[tokio::test]
async fn the_later_change_of_a_variable_counts() {
    let odd = OsStr::from_bytes(b"\xff=\n");
    let outcome = side_by_side!("/usr/bin/env", |command| {
        command
            .env("LOST", "1")
            .env_clear()
            .envs([("B", "1"), ("A", "2"), ("C", "3")])
            .env("B", "again=and=again")
            .env_remove("C")
            .env_remove("D")
            .env("D", "")
            .env("A", "2")
            .env_remove("A")
            .env("Z", odd);
    });
    assert_eq!(outcome.stdout(), r"B=again=and=again\nD=\nZ=\xff=\n\n");
    let nothing = side_by_side!("/usr/bin/env", |command| {
        command.env("A", "1").env_clear();
    });
    assert_eq!(nothing.stdout(), "");
}

/// The supervisor's own environment may hold what nobody could set through `Command`.
#[test]
fn odd_variables_of_the_supervisor_are_inherited() {
    let test = "odd_variables_of_the_supervisor_are_inherited";
    if !is_child() {
        let mut command = rerun(test);
        command.env("=odd", "1");
        return assert_passed(&command.output().unwrap());
    }
    current_thread().block_on(async {
        let outcome = side_by_side!("/usr/bin/env", |command| {
            command.env("NEW", "1");
        });
        assert!(
            outcome.stdout().lines().any(|line| line == "=odd=1"),
            "{outcome:?}"
        );
    });
}

#[tokio::test]
async fn the_program_runs_in_the_directory_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let real = directory.path().canonicalize().unwrap();
    let outcome = side_by_side!("pwd", |command| {
        command.arg("-P").current_dir(&real);
    });
    assert_eq!(Path::new(outcome.stdout().trim_end()), real);
    let here = side_by_side!("/bin/pwd");
    assert_eq!(
        Path::new(here.stdout().trim_end()),
        std::env::current_dir().unwrap()
    );
}

#[tokio::test]
async fn a_directory_that_is_none_is_an_error_of_its_own_step() {
    for (directory, errno) in [
        ("/nowhere/at/all", Errno::ENOENT),
        ("/etc/passwd", Errno::ENOTDIR),
        ("", Errno::ENOENT),
    ] {
        let outcome = side_by_side!("true", |command| {
            command.current_dir(directory);
        });
        assert_eq!(outcome.errno(), errno as i32);
        let error = Command::new("true")
            .current_dir(directory)
            .spawn()
            .await
            .unwrap_err();
        assert!(
            matches!(&error, Error::Spawn { step: SpawnStep::ChangeDirectory, source } if *source == errno),
            "{error:?}"
        );
    }
}

/// `execvp(3)` would have a shell interpret it; `posix_spawnp(3)` does not, and so neither does this library.
#[tokio::test]
async fn a_script_needs_an_interpreter_line() {
    let directory = tempfile::tempdir().unwrap();
    let script = executable(directory.path(), "script", b"echo interpreted\n");
    let outcome = side_by_side!(&script);
    assert_eq!(outcome.errno(), Errno::ENOEXEC as i32);
    let mut command = Command::new("script");
    command.env("PATH", directory.path());
    let error = command.spawn().await.unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ENOEXEC), "{error:?}");
}

/// The kernel finds out when there is no way back: the program has been executed and is killed.
#[tokio::test]
async fn a_program_that_is_killed_by_its_own_execution_has_run() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = std::fs::read("/bin/true").unwrap();
    // The first loaded segment goes to an address beyond any.
    let headers = u64::from_le_bytes(image[32..40].try_into().unwrap()) as usize;
    let first = (0..)
        .map(|index| headers + 56 * index)
        .find(|header| image[*header] == 1)
        .unwrap();
    image[first + 16..first + 24].copy_from_slice(&(1_u64 << 62).to_le_bytes());
    let broken = executable(directory.path(), "broken", &image);
    let outcome = side_by_side!(&broken);
    assert!(format!("{outcome:?}").contains("signal: Some("), "{outcome:?}");
}
