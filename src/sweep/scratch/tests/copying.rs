//! The files that a run is to find.

use super::*;

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
