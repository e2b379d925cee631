//! Shells: many processes, pipes, signals, and every way to end.

use std::os::unix::process::ExitStatusExt;

use crate::program::Program;

fn shell(script: &str) -> Program<'_> {
    Program::new("sh", ["-c", script])
}

/// A shell that lets the kernel repeat its calls when a child exits, as most programs do.
///
/// The smaller shells don't: a call of theirs that has not been received yet fails then, whatever it is (T10).
fn repeating_shell(script: &str) -> Option<Program<'_>> {
    let program = Program::new("bash", ["-c", script]);
    let found = std::process::Command::new("bash")
        .arg("--version")
        .output()
        .is_ok();
    if !found {
        eprintln!("skipped: there is no bash");
    }
    found.then_some(program)
}

#[tokio::test]
async fn a_pipeline_of_a_hundred_programs() {
    let script = ["cat"; 100].join(" | ");
    let mut program = shell(&script);
    // Nobody exits before all have started, so nothing disturbs the shell meanwhile.
    program.input = "through a hundred pipes\n";
    let output = program.same_as_it_is().await;
    assert_eq!(output.stdout, program.input.as_bytes());
}

#[tokio::test]
async fn a_pipeline_whose_first_programs_are_gone_before_the_last_have_started() {
    let script = format!("seq 1 500 {} | tail -n 2", "| cat ".repeat(100));
    let Some(program) = repeating_shell(&script) else {
        return;
    };
    let output = program.same_as_it_is().await;
    assert_eq!(output.stdout, b"499\n500\n");
}

#[tokio::test]
async fn a_hundred_pipelines_at_once() {
    let script = "for i in $(seq 100); do (seq $i | tail -n 1 | wc -l) & done; wait; echo done";
    let Some(program) = repeating_shell(script) else {
        return;
    };
    let output = program.same_as_it_is().await;
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "1\n".repeat(100) + "done\n"
    );
}

#[tokio::test]
async fn exit_codes() {
    for code in [0, 1, 37, 255] {
        let script = format!("echo out; echo err >&2; exit {code}");
        let output = shell(&script).same_as_it_is().await;
        assert_eq!(output.status.code(), Some(code));
        assert_eq!(output.stdout, b"out\n");
    }
}

#[tokio::test]
async fn deaths_by_signal() {
    for (name, number) in [("TERM", 15), ("KILL", 9), ("SEGV", 11), ("ABRT", 6), ("USR1", 10)] {
        let script = format!("ulimit -c 0; echo out; kill -{name} $$; echo not reached");
        let output = shell(&script).same_as_it_is().await;
        assert_eq!(output.status.signal(), Some(number));
        assert_eq!(output.stdout, b"out\n");
    }
}

#[tokio::test]
async fn signal_handlers_and_jobs() {
    const SCRIPT: &str = "
        (exit 3) & wait $!; echo $?
        sleep 60 & kill $!; wait $!; echo $?
        trap 'echo usr1' USR1
        trap 'echo exit' EXIT
        kill -USR1 $$
        exit 5";
    let Some(program) = repeating_shell(SCRIPT) else {
        return;
    };
    let output = program.same_as_it_is().await;
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(output.stdout, b"3\n143\nusr1\nexit\n");
}
