//! Runs that are out to deceive, or just do as they like.

use super::*;

fn assert_exceeds(scratch: &Scratch, bounds: &Bounds, bound: &str) {
    let (found, beyond) = walk(&scratch.directory, scratch.root(), bounds).unwrap();
    assert_eq!(beyond.as_deref(), Some(bound));
    assert!(!found.is_empty() && found.len() <= bounds.files);
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
        walk(&scratch.directory, scratch.root(), &just).unwrap().0.len(),
        files
    );
    let fewer = Bounds {
        files: files - 1,
        ..just
    };
    assert_exceeds(&scratch, &fewer, "3002 files");
    assert_exceeds(
        &scratch,
        &Bounds { names: 9999, ..just },
        "9999 bytes of names of files",
    );
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
                let _ = crate::sweep::scratch::remove::empty(&scratch.directory);
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
    as_nobody("hostile::permissions_hide_but_do_not_keep", || {
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
