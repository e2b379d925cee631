mod comparing;
mod copying;
mod hostile;

use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use nix::fcntl::openat;
use nix::sys::stat::{SFlag, mknod};
use nix::unistd::mkfifo;
use tempfile::tempdir;

use super::*;
use crate::sweep::scratch::directory::DEEPEST;
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

#[test]
fn a_parent_is_there_as_long_as_what_is_kept_in_it() {
    let parent = std::sync::Arc::new(tempdir().unwrap());
    let path = parent.path().to_owned();
    let scratch = Scratch::make(&path, 1, None).unwrap();
    let scratch = scratch.kept_in(std::sync::Arc::clone(&parent));
    drop(parent);
    assert!(scratch.work().is_dir());
    drop(scratch);
    assert!(!path.exists());
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
