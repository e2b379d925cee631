//! Programs that do not do the same each time.

use asm_tracer::sweep::{Sweep, Verdict};
use asm_tracer::{Command, Errno, Error, Sysno};

use crate::support::{target, within};
use crate::{run, shell, trial};

/// Each run leaves a mark outside, or removes it.
#[tokio::test]
async fn a_program_that_ends_now_so_and_now_so_is_refused() {
    let mark = tempfile::tempdir().unwrap();
    let script = format!(
        "cd {} && mkdir mark 2>/dev/null || (rmdir mark; exit 3)",
        mark.path().display()
    );
    let sweep = Sweep::new(shell(&script)).writable(mark.path());
    let refused = within("the refusal", sweep.run()).await;
    assert!(
        matches!(&refused, Err(Error::NotSweepable(why)) if why.contains("exit status 0") && why.contains("exit status 3")),
        "{refused:?}"
    );
}

/// It makes more calls each second time.
#[tokio::test]
async fn a_program_most_of_whose_calls_vary_is_refused() {
    let mark = tempfile::tempdir().unwrap();
    let body = "
#include <sys/stat.h>
int main(int argc, char **argv) {
    int n = mkdir(argv[argc - 1], 0700) == 0 ? 10 : 1000;
    if (n > 10) rmdir(argv[argc - 1]);
    while (n--) trap(0, 0, 0, 0);
    return 0;
}";
    let mut command = Command::new(target::program("sweep_varying", body));
    command.arg(mark.path().join("mark"));
    let refused = within("the refusal", Sweep::new(command).writable(mark.path()).run()).await;
    assert!(
        matches!(&refused, Err(Error::NotSweepable(why)) if why.contains("thread 0 makes 10 to 1000 calls of getppid")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn what_varies_a_little_is_left_out_and_said() {
    let script = "echo $$; echo $$ >pid; echo constant >file; : >$$.tmp";
    let report = run(Sweep::new(shell(script))
        .calls(Sysno::openat)
        .errors([Errno::EMFILE]))
    .await;
    let volatile = &report.baseline.volatile;
    assert!(
        volatile.iter().any(|what| what == "output") && volatile.iter().any(|what| what == "pid"),
        "{report}"
    );
    assert!(!volatile.iter().any(|what| what == "file"), "{report}");
    assert!(
        report.count(Verdict::CleanFailure) + report.count(Verdict::SilentFailure) > 0,
        "{report}"
    );
}

#[tokio::test]
async fn a_call_that_is_not_made_is_not_reached() {
    let case = "write#7=EIO".parse().unwrap();
    let report = run(Sweep::new(shell("echo hello")).only([case])).await;
    assert_eq!(report.trials[0].verdict, Verdict::NotReached, "{report}");
}

/// It has its number in all that it writes, and does not care whether it is written.
#[tokio::test]
async fn what_varies_and_is_lost_is_missed() {
    let body = r#"
int main(void) {
    printf("%d\n", getpid());
    fflush(stdout);
    int file = open("file", O_CREAT | O_WRONLY, 0600);
    dprintf(file, "%d\n", getpid());
    return 0;
}
"#;
    let command = Command::new(target::program("sweep_losing_pids", body));
    let report = run(Sweep::new(command).calls(Sysno::write).errors([Errno::ENOSPC])).await;
    assert_eq!(report.baseline.volatile, ["output", "file"], "{report}");
    let output = trial(&report, "write#1=ENOSPC");
    assert!(output.output_differs && output.files.is_empty(), "{report}");
    assert_eq!(output.verdict, Verdict::SilentFailure, "{report}");
    let file = trial(&report, "write#2=ENOSPC");
    assert_eq!(
        (file.files.len(), file.files[0].path.as_str()),
        (1, "file"),
        "{report}"
    );
    assert_eq!(file.verdict, Verdict::SilentFailure, "{report}");
}
