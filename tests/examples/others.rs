//! The smaller examples.

use crate::{example, file, finish, text};

#[tokio::test]
async fn deny_makes_the_chosen_calls_fail_and_passes_the_status_on() {
    let (directory, file) = file();
    let new = directory.path().join("new");
    let output = finish(
        example("deny")
            .args(["mkdir=EROFS,mkdirat=EROFS", "--", "mkdir"])
            .arg(&new),
    )
    .await;
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert!(
        errors.contains("deny: mkdir fails with EROFS: Read-only file system\n"),
        "{errors}"
    );
    // What mkdir itself says.
    assert!(errors.lines().any(|line| line.starts_with("mkdir: ")), "{errors}");
    assert!(!new.exists());

    let output = finish(example("deny").args(["mkdir=EROFS", "cat"]).arg(&file)).await;
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "hello\n"));
    let output = finish(example("deny").args(["mkdir=EROFS", "sh", "-c", "kill -KILL $$"])).await;
    assert_eq!(output.status.code(), Some(128 + 9));
}

#[tokio::test]
async fn deny_says_what_it_does_not_understand() {
    for (arguments, message) in [
        (vec![], "usage: deny "),
        (vec!["mkdir", "true"], "usage: deny "),
        (vec!["mkdri=EROFS", "true"], "no system call is called `mkdri`"),
        (vec!["mkdir=EROFL", "true"], "no errno is called `EROFL`"),
        (
            vec!["mkdir=EROFS", "no-such-program"],
            "could not start the program: executing the program failed: ENOENT",
        ),
    ] {
        let output = finish(example("deny").args(&arguments)).await;
        assert_eq!(output.status.code(), Some(125), "{arguments:?}");
        let errors = text(&output.stderr);
        assert!(
            errors.starts_with(&format!("deny: {message}")),
            "{arguments:?}: {errors}"
        );
    }
}

#[tokio::test]
async fn a_hundred_children_end_well() {
    let output = finish(&mut example("many_children")).await;
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let table = text(&output.stdout);
    let value = |label: &str| {
        let row = table
            .lines()
            .find_map(|row| row.trim().strip_prefix(label))
            .unwrap_or_else(|| panic!("{table}"));
        row.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    for label in ["children started", "children seen calling", "children succeeded"] {
        assert_eq!(value(label), 100, "{table}");
    }
    assert!(value("system calls served") > 100 * 20, "{table}");
    assert!(value("per second") > 0, "{table}");
}

#[cfg(feature = "serde")]
#[tokio::test]
async fn record_writes_each_call_and_passes_the_status_on() {
    use asm_tracer::record::{Line, read};
    let (directory, file) = file();
    let trace = directory.path().join("trace.jsonl");
    let record = |arguments: &[&std::ffi::OsStr]| {
        let mut command = example("record");
        command.arg("-o").arg(&trace).args(arguments);
        command
    };
    let output = finish(&mut record(&["--".as_ref(), "cat".as_ref(), file.as_ref()])).await;
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "hello\n"));
    assert!(output.stderr.is_empty(), "{output:?}");
    let lines: Vec<_> = read(std::fs::File::open(&trace).unwrap())
        .collect::<Result<_, _>>()
        .unwrap();
    let calls = lines.iter().filter_map(|line| match line {
        Line::Call(call) => Some(call),
        _ => None,
    });
    assert!(
        calls
            .clone()
            .flat_map(|call| call.paths())
            .any(|path| path == file)
    );
    let written = calls.flat_map(|call| &call.memory);
    assert!(written.into_iter().any(|memory| memory.bytes == b"hello\n"));
    assert!(matches!(lines.last(), Some(Line::End(sums)) if sums.dropped == 0));

    let output = finish(&mut record(&["sh".as_ref(), "-c".as_ref(), "exit 37".as_ref()])).await;
    assert_eq!(output.status.code(), Some(37));
    let output = finish(&mut record(&["no-such-program".as_ref()])).await;
    assert_eq!(output.status.code(), Some(127));
    let output = finish(example("record").args(["-o", "/dev/full", "cat"]).arg(&file)).await;
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(125), "hello\n")
    );
    let errors = text(&output.stderr);
    assert!(errors.contains("record: /dev/full: No space left"), "{errors}");
    let output = finish(example("record").arg("cat")).await;
    assert_eq!(output.status.code(), Some(2));
}
