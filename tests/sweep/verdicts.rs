//! Programs that make of a failure what they are told to.

use asm_tracer::sweep::{Change, Ending, Sweep, Verdict};
use asm_tracer::{Command, Errno, Sysno};

use crate::support::target;
use crate::{run, shell, trial};

/// Each of its calls of `flock` takes another way when it fails. None of them is made by the C library.
const PLANTED: &str = r#"
#include <sys/file.h>
int main(void) {
    if (flock(0, LOCK_SH)) abort();
    if (flock(0, LOCK_SH)) for (;;) pause();
    int silent = flock(0, LOCK_SH);
    if (flock(0, LOCK_SH)) {
        char name[4096];
        snprintf(name, sizeof name, "%s/left.XXXXXX", getenv("TMPDIR"));
        close(mkstemp(name));
        fprintf(stderr, "sorry\n");
        return 1;
    }
    if (flock(0, LOCK_SH)) return 2;
    if (flock(0, LOCK_SH)) { perror("flock"); return 3; }
    if (flock(0, LOCK_SH)) fprintf(stderr, "never mind\n");
    if (flock(0, LOCK_SH)) mkdir("extra", 0700);
    int file = open("file", O_CREAT | O_WRONLY, 0600);
    if (flock(0, LOCK_SH)) fchmod(file, 0644);
    if (!silent) check(write(file, "precious", 8) == 8, "write");
    puts("done");
    return 0;
}
"#;

fn planted() -> Command {
    Command::new(target::program(
        "sweep_planted",
        &format!("#include <sys/stat.h>\n{PLANTED}"),
    ))
}

#[tokio::test]
async fn a_program_is_judged_by_what_it_makes_of_a_failure() {
    let sweep = Sweep::new(planted())
        .calls(Sysno::flock)
        .errors([Errno::EINTR, Errno::ENOLCK]);
    let report = run(sweep).await;
    let ending = |case: &str| (trial(&report, case).verdict, trial(&report, case).ending);
    use Ending::Exited;
    for errno in ["EINTR", "ENOLCK"] {
        for (number, expected) in [
            (1, (Verdict::Crash, Ending::Signaled(libc::SIGABRT))),
            (2, (Verdict::Hang, Ending::Hung)),
            (3, (Verdict::SilentFailure, Exited(0))),
            (4, (Verdict::Leak, Exited(1))),
            (5, (Verdict::MuteFailure, Exited(2))),
            (6, (Verdict::CleanFailure, Exited(3))),
            (7, (Verdict::Same, Exited(0))),
            (8, (Verdict::Leak, Exited(0))),
            (9, (Verdict::SilentFailure, Exited(0))),
        ] {
            let case = format!("flock#{number}={errno}");
            assert_eq!(ending(&case), expected, "{case}:\n{report}");
            assert!(trial(&report, &case).steady, "{case}:\n{report}");
        }
    }
    assert_eq!(report.trials.len(), 18, "{report}");
    assert_eq!(report.findings().len(), 14, "{report}");
    assert_eq!(
        report.findings()[0].verdict,
        Verdict::Crash,
        "the worst is not first"
    );

    let silent = trial(&report, "flock#3=EINTR");
    assert_eq!(
        (silent.files[0].path.as_str(), silent.files[0].change),
        ("file", Change::Contents)
    );
    let leak = trial(&report, "flock#4=EINTR");
    assert!(
        leak.files.len() == 1 && leak.files[0].path.starts_with("$TMPDIR/left."),
        "{leak:?}"
    );
    assert_eq!(leak.message, "sorry\n");
    assert_eq!(
        trial(&report, "flock#9=EINTR").files[0].change,
        Change::Permissions
    );
    let hang = trial(&report, "flock#2=ENOLCK");
    assert!(
        hang.hung.iter().any(|thread| thread.contains("pause")),
        "{hang:?}"
    );
    let clean = trial(&report, "flock#6=ENOLCK");
    assert_eq!(clean.message, "flock: No locks available\n");
}

#[tokio::test]
async fn output_that_is_not_what_it_should_be_is_a_silent_failure() {
    let script = "echo one; echo two; exit 0";
    let report = run(Sweep::new(shell(script))
        .calls(Sysno::write)
        .errors([Errno::ENOSPC]))
    .await;
    let first = trial(&report, "write#1=ENOSPC");
    assert!(
        first.verdict == Verdict::SilentFailure && first.output_differs,
        "{report}"
    );
}

/// `diff` ends with 1 when it has found a difference, and with 2 when it has failed.
#[tokio::test]
async fn what_is_not_0_may_be_what_a_program_ends_with() {
    let script = "echo one >a; echo two >b; exec diff a b";
    let report = run(Sweep::new(shell(script)).calls([Sysno::read, Sysno::write, Sysno::fstat])).await;
    assert_eq!(report.baseline.ending, Ending::Exited(1));
    assert!(
        report.count(Verdict::Same) > 0 && report.count(Verdict::CleanFailure) > 0,
        "{report}"
    );
}

/// It finds something, as `diff` and `grep -v` do, and says so by its status; then it loses a line, and says nothing.
#[tokio::test]
async fn output_that_is_not_what_it_should_be_is_no_message() {
    let body = r#"
#include <sys/file.h>
int main(void) {
    if (flock(0, LOCK_SH) == 0) puts("one");
    puts("two");
    return 1;
}
"#;
    let command = Command::new(target::program("sweep_losing", body));
    let report = run(Sweep::new(command).calls(Sysno::flock).errors([Errno::ENOLCK])).await;
    let silent = trial(&report, "flock#1=ENOLCK");
    assert!(silent.output_differs, "{report}");
    assert_eq!(
        (silent.verdict, silent.ending),
        (Verdict::SilentFailure, Ending::Exited(1)),
        "{report}"
    );
}

/// A shell has the death of its child for a status.
#[tokio::test]
async fn a_crash_is_one_behind_a_shell_too() {
    let mut command = shell("\"$1\"; exit $?");
    command.args([
        "sh".as_ref(),
        target::program("sweep_planted", &format!("#include <sys/stat.h>\n{PLANTED}")).as_os_str(),
    ]);
    let case = "0.1:flock#1=EINTR".parse().unwrap();
    let report = run(Sweep::new(command).calls(Sysno::flock).only([case])).await;
    let crash = trial(&report, "0.1:flock#1=EINTR");
    assert_eq!(
        (crash.verdict, crash.ending),
        (Verdict::Crash, Ending::Exited(134)),
        "{report}"
    );
}

/// More than is looked at.
const FLOODING: &str = r#"
#include <sys/file.h>
int main(void) {
    close(open("file", O_CREAT | O_WRONLY, 0600));
    if (flock(0, LOCK_SH)) {
        char name[32];
        for (int i = 0; i < 120000; i++) {
            // A file can't have as many names everywhere.
            if (i % 30000 == 0) {
                sprintf(name, "new%d", i);
                close(open(name, O_CREAT | O_WRONLY, 0600));
            }
            char link_name[32];
            sprintf(link_name, "%d", i);
            check(link(name, link_name) == 0, "link");
        }
        return 1;
    }
    return 0;
}
"#;

#[tokio::test]
async fn a_run_that_leaves_too_many_files_is_one_that_leaks() {
    let command = Command::new(target::program("sweep_flooding", FLOODING));
    let sweep = Sweep::new(command).calls(Sysno::flock).errors([Errno::ENOLCK]);
    let report = run(sweep.deadline(std::time::Duration::from_secs(60))).await;
    let leak = trial(&report, "flock#1=ENOLCK");
    assert_eq!((leak.verdict, leak.steady), (Verdict::Leak, true), "{report}");
    assert!(
        leak.files.iter().all(|file| file.change == Change::Extra),
        "{report}"
    );
}
