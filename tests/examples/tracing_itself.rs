//! The examples of a process that traces itself.

use crate::{example, finish, text};

#[tokio::test]
async fn trace_self_prints_calls_as_they_happen_and_a_summary() {
    let output = finish(&mut example("trace_self")).await;
    assert!(output.status.success(), "{output:?}");
    let printed = text(&output.stdout);
    let (lines, summary) = printed.split_once("\n\n    calls  name\n").expect(printed);
    for call in ["socket(", "connect(", "epoll_wait(", "futex("] {
        assert!(lines.contains(call), "{call}: {printed}");
    }
    assert!(lines.contains(" = "), "{printed}");
    let count = |name: &str| -> usize {
        let row = summary
            .lines()
            .find_map(|row| row.strip_suffix(&format!("  {name}")));
        row.map_or(0, |count| count.trim().parse().unwrap())
    };
    // Each line is a call that was counted, or the result of one.
    let is_call = |line: &&str| line.contains('(');
    let counted: usize = summary
        .lines()
        .filter(|row| !row.ends_with("  lost"))
        .map(|row| row.split_whitespace().next().unwrap().parse::<usize>().unwrap())
        .sum();
    assert_eq!(lines.lines().filter(is_call).count(), counted, "{printed}");
    assert_eq!((count("connect"), count("lost")), (3, 0), "{printed}");
}

#[tokio::test]
async fn trace_self_ends_well_where_nobody_reads_it() {
    let mut shell = tokio::process::Command::new("sh");
    shell
        .args(["-c", "\"$0\" >/dev/full"])
        .arg(example("trace_self").as_std().get_program());
    let output = finish(&mut shell).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("No space left"), "{output:?}");
}

#[tokio::test]
async fn block_self_denies_the_plugin_and_nobody_else() {
    let output = finish(&mut example("block_self")).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        text(&output.stdout),
        "plugin before: reads files: Ok(true), connects: Ok(())\n\
         plugin after:  reads files: Ok(true), connects: Err(PermissionDenied)\n\
         denied: Some(socket), which returned -13\n\
         main:          reads files: Ok(true), connects: Ok(())\n"
    );
}
