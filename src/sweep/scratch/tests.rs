use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use nix::fcntl::openat;
use nix::sys::stat::{SFlag, mknod};
use nix::unistd::mkfifo;
use tempfile::{TempDir, tempdir};

use super::directory::DEEPEST;
use super::*;
use crate::sweep::trial::{Change, FileChange};

fn none() -> BTreeSet<String> {
    BTreeSet::new()
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn fifo(path: &Path) {
    mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
}

/// Fails unless the parent of scratch directories is empty again.
fn assert_removed(parent: &TempDir) {
    let left: Vec<_> = fs::read_dir(parent)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Runs a shell script where a program of a sweep would run.
fn run(scratch: &Scratch, script: &str) {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-ec", script]).current_dir(scratch.work());
    shell.env("HOME", scratch.home()).env("TMPDIR", scratch.tmp());
    assert!(shell.status().unwrap().success(), "{script}");
}

fn assert_exceeds(scratch: &Scratch, bounds: &Bounds, bound: &str) {
    let error = walk(&scratch.directory, scratch.root(), bounds).unwrap_err();
    assert!(
        matches!(&error, Error::NotSweepable(why) if why.contains(bound)),
        "{error:?}"
    );
}

fn changes(now: &Snapshot, then: &Snapshot) -> Vec<(String, Change)> {
    plain(now.changes(then, &none()))
}

fn plain(changes: Vec<FileChange>) -> Vec<(String, Change)> {
    changes
        .into_iter()
        .map(|FileChange { path, change }| (path, change))
        .collect()
}

/// Runs the test again as a user without privileges, unless it is one, in a process of its own.
fn as_nobody(test: &str, body: impl FnOnce()) {
    const MARK: &str = "ASM_TRACER_AS_NOBODY";
    if std::env::var_os(MARK).is_some() {
        return body();
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args([
        &format!("sweep::scratch::tests::{test}"),
        "--exact",
        "--nocapture",
    ]);
    again.env(MARK, "1").current_dir("/");
    if nix::unistd::geteuid().is_root() {
        again.uid(65534).gid(65534);
    }
    match again.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
        }
        Err(error) => println!("skipped: nobody can't execute the test: {error}"),
    }
}

#[test]
fn each_run_has_a_directory_of_its_own() {
    let parent = tempdir().unwrap();
    let runs = [7, 12_345_678].map(|number| Scratch::make(parent.path(), number, None).unwrap());
    assert!(runs[0].root().ends_with("00000007"));
    assert_eq!(runs[0].root().as_os_str().len(), runs[1].root().as_os_str().len());
    for run in &runs {
        for directory in [run.work(), run.home(), run.tmp()] {
            assert_eq!(directory.parent(), Some(run.root()));
            assert_eq!(fs::read_dir(directory).unwrap().count(), 0);
        }
    }
    assert_eq!(runs[0].snapshot().unwrap(), runs[1].snapshot().unwrap());
    let error = Scratch::make(parent.path(), 7, None).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EEXIST));
    assert!(runs[0].work().is_dir());
    drop(runs);
    assert_removed(&parent);
}

/// A tree with one of everything.
fn fill(files: &Path) {
    fs::create_dir(files.join("dir")).unwrap();
    fs::write(files.join("dir/file"), "contents").unwrap();
    fs::write(files.join("secret"), "s").unwrap();
    symlink("dir/file", files.join("link")).unwrap();
    symlink("/nonexistent", files.join("dangling")).unwrap();
    symlink("loop", files.join("loop")).unwrap();
    fifo(&files.join("fifo"));
    drop(UnixListener::bind(files.join("socket")).unwrap());
    let sparse = File::create(files.join("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"in the middle", 1 << 39).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    for (name, permissions) in [
        ("dir/file", 0o4751),
        ("secret", 0o400),
        ("fifo", 0o620),
        ("dir", 0o555),
    ] {
        let path = files.join(name);
        if name != "fifo" {
            let times = FileTimes::new().set_modified(time);
            File::open(&path).unwrap().set_times(times).unwrap();
        }
        chmod(&path, permissions);
    }
}

#[test]
fn files_are_copied_as_they_are() {
    let (parent, files) = (tempdir().unwrap(), tempdir().unwrap());
    fill(files.path());
    chmod(files.path(), 0o750);
    let scratch = Scratch::make(parent.path(), 1, Some(files.path())).unwrap();
    for name in [
        "", "dir", "dir/file", "secret", "link", "dangling", "loop", "fifo", "sparse",
    ] {
        let [copy, original] = [scratch.work(), files.path()].map(|root| {
            let status = fs::symlink_metadata(root.join(name)).unwrap();
            let modified = (status.mtime(), status.mtime_nsec());
            let length = (!status.is_dir()).then_some(status.len());
            (
                status.mode(),
                modified,
                length,
                fs::read_link(root.join(name)).ok(),
            )
        });
        assert_eq!(copy, original, "{name}");
    }
    assert_eq!(
        fs::read_to_string(scratch.work().join("link")).unwrap(),
        "contents"
    );
    assert!(!scratch.work().join("socket").exists());
    let sparse = File::open(scratch.work().join("sparse")).unwrap();
    let mut middle = [0; 13];
    std::os::unix::fs::FileExt::read_exact_at(&sparse, &mut middle, 1 << 39).unwrap();
    assert_eq!(&middle, b"in the middle");
    assert!(sparse.metadata().unwrap().blocks() < 2048);
    drop(scratch);
    assert_removed(&parent);
    assert!(files.path().join("dir/file").exists());
    chmod(&files.path().join("dir"), 0o755);
}

#[test]
fn what_the_copies_are_in_is_not_copied() {
    let files = tempdir().unwrap();
    let parent = files.path().join("target");
    fs::create_dir_all(parent.join("more")).unwrap();
    fs::write(files.path().join("file"), "").unwrap();
    let scratch = Scratch::make(&parent, 1, Some(files.path())).unwrap();
    let copied: Vec<_> = fs::read_dir(scratch.work())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(copied, ["file"]);
}

#[test]
fn files_that_can_not_be_copied_are_named_and_nothing_is_left() {
    let (parent, files) = (tempdir().unwrap(), tempdir().unwrap());
    let deep = (0..=DEEPEST).fold(files.path().to_owned(), |path, _| path.join("d"));
    fs::create_dir_all(deep).unwrap();
    for path in [files.path(), Path::new("/nonexistent"), Path::new("/etc/passwd")] {
        let error = Scratch::make(parent.path(), 1, Some(path)).unwrap_err();
        let named = matches!(&error, Error::NotSweepable(why) if why.contains(path.to_str().unwrap()));
        assert!(named, "{error:?}");
        assert_removed(&parent);
    }
}

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

#[test]
fn what_is_no_file_is_not_opened() {
    let parent = tempdir().unwrap();
    let scratch = Scratch::make(parent.path(), 1, None).unwrap();
    let work = scratch.work().to_owned();
    fifo(&work.join("fifo"));
    let socket = UnixListener::bind(work.join("socket")).unwrap();
    symlink("loop", work.join("loop")).unwrap();
    symlink("fifo", work.join("link")).unwrap();
    let before = scratch.snapshot().unwrap();
    // If it were opened, it would wait for a writer, or a writer that waits would get on.
    if nix::unistd::geteuid().is_root() {
        // A device without a driver, so that opening it would fail.
        mknod(
            &work.join("device"),
            SFlag::S_IFCHR,
            Mode::S_IRUSR,
            nix::libc::makedev(499, 499),
        )
        .unwrap();
        let now = scratch.snapshot().unwrap();
        assert_eq!(changes(&now, &before), [("device".to_owned(), Change::Extra)]);
    }
    let writer = openat(
        File::open(&work).unwrap(),
        "fifo",
        OFlag::O_WRONLY | OFlag::O_NONBLOCK,
        Mode::empty(),
    );
    assert_eq!(writer.map(drop), Err(Errno::ENXIO));
    drop(socket);
    assert!(
        fs::symlink_metadata(work.join("socket"))
            .unwrap()
            .file_type()
            .is_socket()
    );
    drop(scratch);
    assert_removed(&parent);
}

#[test]
fn a_file_without_end_takes_no_time() {
    let parent = tempdir().unwrap();
    let scratch = Scratch::make(parent.path(), 1, None).unwrap();
    let file = File::create(scratch.work().join("sparse")).unwrap();
    // As long as the file system has it.
    let longest = (40..63)
        .rev()
        .find(|power| file.set_len(1 << power).is_ok())
        .unwrap();
    let before = scratch.snapshot().unwrap();
    file.set_len((1 << longest) - 1).unwrap();
    let now = scratch.snapshot().unwrap();
    assert_eq!(changes(&now, &before), [("sparse".to_owned(), Change::Contents)]);
    let bounds = Bounds {
        data: 1 << 20,
        ..Bounds::USUAL
    };
    assert_exceeds(&scratch, &bounds, "1048576 bytes in files");
}

#[test]
fn a_deep_tree_is_bounded_and_removed() {
    let parent = tempdir().unwrap();
    let scratch = Scratch::make(parent.path(), 1, None).unwrap();
    // The names that the removal would like to have itself.
    fs::create_dir_all(scratch.root().join("deep-0/full")).unwrap();
    fs::write(scratch.root().join("deep-1"), "").unwrap();
    let mut at = directory(scratch.directory.as_fd(), c"work").unwrap();
    for _ in 0..1500 {
        mkdirat(&at, "deeper", Mode::S_IRWXU).unwrap();
        at = directory(&at, c"deeper").unwrap();
    }
    openat(&at, "file", OFlag::O_CREAT, Mode::S_IRUSR).unwrap();
    let snapshot = scratch.snapshot().unwrap();
    assert_eq!(snapshot, scratch.snapshot().unwrap());
    let empty = Scratch::make(parent.path(), 2, None).unwrap().snapshot().unwrap();
    let extra = changes(&snapshot, &empty);
    assert!(
        (DEEPEST - 3..DEEPEST + 3).contains(&extra.len()),
        "{}",
        extra.len()
    );
    drop(at);
    drop(scratch);
    assert_removed(&parent);
}

#[test]
fn a_wide_tree_is_bounded_and_removed() {
    let parent = tempdir().unwrap();
    let scratch = Scratch::make(parent.path(), 1, None).unwrap();
    let at = File::open(scratch.tmp()).unwrap();
    for number in 0..3000 {
        let (flags, name) = (OFlag::O_CREAT | OFlag::O_EXCL, format!("{number}"));
        openat(&at, name.as_str(), flags, Mode::S_IRUSR).unwrap();
    }
    let files = 3000 + PLACES.len();
    let just = Bounds {
        files,
        ..Bounds::USUAL
    };
    assert_eq!(
        walk(&scratch.directory, scratch.root(), &just).unwrap().len(),
        files
    );
    let fewer = Bounds {
        files: files - 1,
        ..just
    };
    assert_exceeds(&scratch, &fewer, "3002 files");
    assert_exceeds(&scratch, &Bounds { names: 9999, ..just }, "9999 bytes of names");
    let copied = |most| {
        let other = Scratch::make(parent.path(), 2, None).unwrap();
        let to = directory(&other.directory, c"work").unwrap();
        copy(scratch.tmp(), to, &fstat(&other.parent).unwrap(), most)
    };
    copied(3000).unwrap();
    assert!(matches!(copied(2999), Err(Error::NotSweepable(_))));
    drop(scratch);
    assert_removed(&parent);
}

#[test]
fn links_out_are_not_followed() {
    let (parent, outside) = (tempdir().unwrap(), tempdir().unwrap());
    let kept = outside.path().join("kept");
    fs::write(&kept, "kept").unwrap();
    chmod(&kept, 0o444);
    chmod(outside.path(), 0o555);
    let scratch = Scratch::make(parent.path(), 1, None).unwrap();
    let empty = scratch.snapshot().unwrap();
    symlink(outside.path(), scratch.work().join("link")).unwrap();
    symlink(&kept, scratch.tmp().join("link")).unwrap();
    fs::rename(scratch.home(), scratch.work().join("moved")).unwrap();
    symlink(outside.path(), scratch.home()).unwrap();
    let expected = [
        ("$HOME", Change::Kind),
        ("$TMPDIR/link", Change::Extra),
        ("link", Change::Extra),
        ("moved", Change::Extra),
    ];
    let expected = expected.map(|(path, change)| (path.to_owned(), change));
    assert_eq!(changes(&scratch.snapshot().unwrap(), &empty), expected);
    drop(scratch);
    assert_removed(&parent);
    assert_eq!((mode(&kept), mode(outside.path())), (0o444, 0o555));
    assert_eq!(fs::read_to_string(&kept).unwrap(), "kept");
    chmod(outside.path(), 0o755);
}

/// A run that swaps directories for links, and files for FIFOs, while it is looked at and removed.
#[test]
fn a_run_that_goes_on_leads_nowhere_else() {
    let (parent, outside) = (tempdir().unwrap(), tempdir().unwrap());
    fs::create_dir(outside.path().join("sub")).unwrap();
    fs::write(outside.path().join("sub/kept"), "kept").unwrap();
    chmod(&outside.path().join("sub"), 0o755);
    let ended = AtomicBool::new(false);
    for round in 0..20 {
        let scratch = Scratch::make(parent.path(), round, None).unwrap();
        let work = scratch.work().to_owned();
        ended.store(false, Ordering::Relaxed);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    let swapped = work.join("swapped");
                    let _ = fs::create_dir_all(swapped.join("sub"));
                    let _ = fs::write(swapped.join("sub/kept"), "other");
                    let _ = fs::write(work.join("file"), "other");
                    let _ = fs::remove_file(work.join("file"));
                    let _ = mkfifo(&work.join("file"), Mode::S_IRUSR);
                    let _ = fs::remove_file(work.join("file"));
                    let _ = fs::rename(&swapped, work.join("away"));
                    let _ = symlink(outside.path(), &swapped);
                    let _ = fs::remove_file(&swapped);
                    let _ = fs::remove_dir_all(work.join("away"));
                }
            });
            for _ in 0..50 {
                scratch.snapshot().unwrap();
                let _ = super::remove::empty(&scratch.directory);
                let _ = mkdirat(&scratch.directory, "work", Mode::S_IRWXU);
            }
            ended.store(true, Ordering::Relaxed);
        });
        drop(scratch);
        assert_removed(&parent);
        assert_eq!(
            fs::read_to_string(outside.path().join("sub/kept")).unwrap(),
            "kept"
        );
        assert_eq!(mode(&outside.path().join("sub")), 0o755);
    }
}

#[test]
fn permissions_hide_but_do_not_keep() {
    as_nobody("permissions_hide_but_do_not_keep", || {
        let parent = tempdir().unwrap();
        for closed in ["000", "400", "100", "200", "500"] {
            let scratch = Scratch::make(parent.path(), 1, None).unwrap();
            let empty = scratch.snapshot().unwrap();
            run(
                &scratch,
                &format!(
                    "mkdir -p a/b; echo x >a/b/f; chmod {closed} a/b/f a/b a; chmod {closed} \"$TMPDIR\""
                ),
            );
            let now = scratch.snapshot().unwrap();
            assert_eq!(now, scratch.snapshot().unwrap());
            let changed = changes(&now, &empty);
            assert!(
                changed.contains(&("$TMPDIR".to_owned(), Change::Permissions)),
                "{closed}: {changed:?}"
            );
            assert!(
                changed.contains(&("a".to_owned(), Change::Extra)),
                "{closed}: {changed:?}"
            );
            drop(scratch);
            assert_removed(&parent);
        }
        let scratch = Scratch::make(parent.path(), 1, None).unwrap();
        let empty = scratch.snapshot().unwrap();
        run(&scratch, "chmod 000 .. .");
        assert_ne!(scratch.snapshot().unwrap(), empty);
        drop(scratch);
        assert_removed(&parent);
        // Deep and closed.
        let scratch = Scratch::make(parent.path(), 1, None).unwrap();
        run(
            &scratch,
            "for i in $(seq 200); do mkdir d; cd d; done; while cd ..; [ -d d ]; do chmod 0 d; done",
        );
        drop(scratch);
        assert_removed(&parent);
    });
}

#[test]
fn no_descriptor_is_left_open() {
    as_nobody("no_descriptor_is_left_open", || {
        let (parent, files) = (tempdir().unwrap(), tempdir().unwrap());
        fill(files.path());
        chmod(&files.path().join("dir/file"), 0o644);
        let open = || fs::read_dir("/proc/self/fd").unwrap().count();
        let before = open();
        for number in 0..3 {
            let scratch = Scratch::make(parent.path(), number, Some(files.path())).unwrap();
            scratch.snapshot().unwrap();
            Scratch::make(parent.path(), 9, Some(Path::new("/nonexistent"))).unwrap_err();
            drop(scratch);
        }
        assert_eq!(open(), before);
        chmod(&files.path().join("dir"), 0o755);
    });
}

/// One is made for each run.
#[test]
#[ignore = "it measures"]
fn one_takes_little_time() {
    let parent = tempdir().unwrap();
    let start = Instant::now();
    for number in 0..1000 {
        let scratch = Scratch::make(parent.path(), number, None).unwrap();
        scratch.snapshot().unwrap();
    }
    println!("{:?} for a scratch directory", start.elapsed() / 1000);
}
