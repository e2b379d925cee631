//! `fuzz` on programs that everybody has, and on one that it must find wanting.

use std::path::PathBuf;

use crate::support::c_program;
use crate::{example, finish, text};

/// Dies of a header that comes in pieces, and waits for ever where there is none yet. With an argument, a grandchild does.
const CARELESS: &str = r#"
#include <errno.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int count, char **arguments) {
    if (count > 1 && (fork() || fork())) return wait(NULL) < 0;
    char header[64] = {0};
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) || write(pair[1], header, sizeof header) < 0) return 1;
    ssize_t n = recv(pair[0], header, sizeof header, 0);
    while (n < 0 && errno == EAGAIN) pause();
    if (n > 0 && n < (ssize_t)sizeof header) *(volatile char *)0 = 1;
    return n <= 0;
}
"#;

fn careless() -> PathBuf {
    c_program("careless", CARELESS)
}

/// What `fuzz` prints with these options, and its exit status.
async fn fuzz(options: &[&str], program: &[&str]) -> (Option<i32>, String) {
    let output = finish(example("fuzz").args(options).arg("--").args(program)).await;
    assert!(output.stderr.is_empty(), "{output:?}");
    (output.status.code(), text(&output.stdout).into())
}

/// The part of the report that tells one finding.
fn findings(report: &str) -> Vec<&str> {
    let (_, findings) = report.split_once(" runs\n\n").unwrap_or_default();
    findings
        .split("\n\n")
        .filter(|finding| !finding.is_empty())
        .collect()
}

/// Runs the command line that a finding is said to be repeated with, and gives what it finds.
async fn again(finding: &str) -> String {
    let line = finding
        .lines()
        .find_map(|line| line.trim().strip_prefix("again: fuzz "))
        .unwrap();
    let path = example("fuzz").as_std().get_program().to_owned();
    let mut shell = tokio::process::Command::new("sh");
    shell.args(["-c", &format!("exec \"$0\" {line}")]).arg(path);
    let output = finish(&mut shell).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    findings(text(&output.stdout))[0].to_owned()
}

#[tokio::test]
async fn a_planted_crash_and_a_planted_hang_are_found_and_repeated() {
    let program = careless();
    for (depth, who, first) in [(None, "0", "1"), (Some("deep"), "0.1.1", "30")] {
        let mut command = vec![program.to_str().unwrap()];
        command.extend(depth);
        let options = [
            "-s", first, "--runs", "9", "--rate", "0.9", "-t", "3000", "-e", "recvfrom",
        ];
        let (status, report) = fuzz(&options, &command).await;
        assert_eq!(status, Some(1), "{report}");
        let found = findings(&report);
        let kind = |kind: &str| {
            let of_kind = found.iter().find(|finding| finding.starts_with(kind));
            of_kind.unwrap_or_else(|| panic!("no {kind} in {report}"))
        };
        let crash = kind("crash: ");
        assert!(
            crash.starts_with(&format!("crash: {who} ")) && crash.contains("SIGSEGV"),
            "{crash}"
        );
        assert!(
            crash.contains("ran with") && crash.contains("as its argument 2"),
            "{crash}"
        );
        let hang = kind("hang: ");
        assert!(
            hang.contains(&format!("{who} (careless")) && hang.contains("is in pause"),
            "{hang}"
        );
        assert!(hang.contains("failed with EAGAIN"), "{hang}");
        assert_eq!(again(crash).await.trim(), crash.trim());
        assert_eq!(again(hang).await.trim(), hang.trim());
    }
}

#[tokio::test]
async fn programs_without_a_fault_have_none_found() {
    for program in [
        vec!["cat", "/etc/passwd"],
        vec![
            "sh",
            "-c",
            "ls / | sort >sorted; cp sorted copy; cat copy | wc -l",
        ],
        vec![
            "python3",
            "-c",
            "print(sum(map(int, open('/proc/self/statm').read().split())))",
        ],
    ] {
        // What fails while it is loaded tells nothing about the program.
        let (status, report) = fuzz(&["-n", "10", "-s", "7", "-e", "read,write,lseek"], &program).await;
        assert_eq!(status, Some(0), "{report}");
        assert!(report.ends_with("\n\n0 findings in 10 runs\n"), "{report}");
    }
}

#[tokio::test]
async fn a_run_has_a_scratch_directory_and_its_own_output_only_if_asked() {
    let mut command = example("fuzz");
    command.args(["-v", "-n", "2", "-r", "0", "sh", "-c", "ls -A; pwd; echo x >file"]);
    let output = finish(&mut command).await;
    assert_eq!(output.status.code(), Some(0));
    let places: Vec<_> = text(&output.stdout)
        .lines()
        .filter(|line| line.starts_with('/'))
        .collect();
    assert!(places.len() == 2 && places[0] != places[1], "{output:?}");
    assert!(places.iter().all(|place| !std::path::Path::new(place).exists()));
    assert!(!text(&output.stdout).contains("file"), "{output:?}");
}

#[tokio::test]
async fn fuzz_says_what_it_does_not_understand() {
    for (arguments, status, message) in [
        (vec![], 2, "no program to run"),
        (
            vec!["-e", "kill", "true"],
            2,
            "`kill` is none of the calls that are spoiled",
        ),
        (vec!["-e", "raed", "true"], 2, "there is no system call `raed`"),
        (vec!["-r", "2", "true"], 2, "a rate is a number from 0 to 1"),
        (
            vec!["no-such-program"],
            127,
            "no-such-program: No such file or directory",
        ),
        (vec!["/etc/passwd"], 126, "/etc/passwd: Permission denied"),
    ] {
        let output = finish(example("fuzz").args(&arguments)).await;
        assert_eq!(output.status.code(), Some(status), "{arguments:?}");
        let errors = text(&output.stderr);
        assert!(errors.contains(message), "{arguments:?}: {errors}");
    }
    let output = finish(example("fuzz").arg("--help")).await;
    assert!(output.status.success() && text(&output.stdout).contains("Usage: fuzz "));
}
