//! What runs leave, compared.

use super::*;

#[test]
fn runs_that_do_the_same_are_equal_wherever_they_do_it() {
    let parent = tempdir().unwrap();
    let [one, other] = [1, 2].map(|number| {
        let scratch = Scratch::make(parent.path(), number, None).unwrap();
        let script = "pwd >here; ln -s \"$PWD/here\" link; echo \"$HOME:$TMPDIR\" >\"$HOME/.config\"; mkdir \"$TMPDIR/d\"; mkfifo p";
        run(&scratch, script);
        scratch
    });
    let then = other.snapshot().unwrap();
    assert_eq!(one.snapshot().unwrap(), then);
    run(
        &one,
        "echo more >>here; ln -sf /here link; chmod 600 p; rm \"$HOME/.config\"; rmdir \"$TMPDIR/d\"; echo >\"$TMPDIR/d\"; echo >new; echo >../beside",
    );
    let expected = [
        ("$HOME/.config", Change::Missing),
        ("$TMPDIR/d", Change::Kind),
        ("../beside", Change::Extra),
        ("here", Change::Contents),
        ("link", Change::Contents),
        ("new", Change::Extra),
        ("p", Change::Permissions),
    ];
    let expected = expected.map(|(path, change)| (path.to_owned(), change));
    let now = one.snapshot().unwrap();
    assert_eq!(changes(&now, &then), expected);
    let volatile = now.volatile(&then);
    assert_eq!(volatile, expected.iter().map(|(path, _)| path.clone()).collect());
    assert_eq!(volatile, then.volatile(&now));
    assert_eq!(now.changes(&then, &volatile), []);
}

#[test]
fn a_temporary_file_that_is_left_is_extra() {
    let parent = tempdir().unwrap();
    let scratch = Scratch::make(parent.path(), 1, None).unwrap();
    run(&scratch, "echo >input");
    let before = scratch.snapshot().unwrap();
    run(&scratch, "echo >output; echo >log");
    let expected = scratch.snapshot().unwrap();
    run(
        &scratch,
        "rm output; echo x >input; mktemp -d \"$TMPDIR/leak-XXX\" >/dev/null; echo >\"$TMPDIR/noise\"",
    );
    let extra = scratch
        .snapshot()
        .unwrap()
        .extra(&before, &expected, &["$TMPDIR/noise".to_owned()].into());
    assert_eq!(extra.len(), 1, "{extra:?}");
    assert!(extra[0].path.starts_with("$TMPDIR/leak-") && extra[0].change == Change::Extra);
}

#[test]
fn names_that_are_drawn_account_for_as_many() {
    let parent = tempdir().unwrap();
    let after = |number, script: &str| {
        let scratch = Scratch::make(parent.path(), number, None).unwrap();
        run(
            &scratch,
            &format!("draw() {{ mktemp -p \"$TMPDIR\" kept.XXXXXX >/dev/null; }}; {script}"),
        );
        scratch.snapshot().unwrap()
    };
    let before = after(1, "");
    let [expected, again, same] =
        [2, 3, 4].map(|number| after(number, "draw; mktemp -d cache-XXXXXX >/dev/null"));
    let volatile = expected.volatile(&again);
    assert_eq!(volatile.len(), 4, "{volatile:?}");
    assert_eq!(same.changes(&expected, &volatile), []);
    assert_eq!(same.extra(&before, &expected, &volatile), []);
    let leak = after(5, "draw; draw");
    for extra in [
        leak.changes(&expected, &volatile),
        leak.extra(&before, &expected, &volatile),
    ] {
        assert!(
            matches!(
                &extra[..],
                [FileChange {
                    change: Change::Extra,
                    ..
                }]
            ),
            "{extra:?}"
        );
    }
}

#[test]
fn no_name_hides_another() {
    let parent = tempdir().unwrap();
    let scratch = Scratch::make(parent.path(), 1, None).unwrap();
    let names: [&[u8]; 6] = [
        b"\xff",
        b"\xfe",
        b"\\xff",
        "\u{fffd}".as_bytes(),
        b"$HOME",
        b"a\nb",
    ];
    for name in names {
        fs::write(scratch.work().join(std::ffi::OsStr::from_bytes(name)), "").unwrap();
    }
    let empty = Scratch::make(parent.path(), 2, None).unwrap().snapshot().unwrap();
    assert_eq!(changes(&scratch.snapshot().unwrap(), &empty).len(), names.len());
}
