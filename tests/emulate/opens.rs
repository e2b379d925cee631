//! Every kind of open, as the kernel answers it and as it is emulated: in this root, and in others.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use asm_tracer::Command;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::common::{alone, assert_same, emulated, text};
use crate::support::{c_program, in_process_of_its_own};

/// Compiled before any of them runs.
static ORACLE: LazyLock<PathBuf> = LazyLock::new(|| c_program("oracle", include_str!("oracle.c")));
static ELSEWHERE: LazyLock<PathBuf> = LazyLock::new(|| c_program("elsewhere", include_str!("elsewhere.c")));

// T35
#[tokio::test]
async fn every_open_is_answered_as_by_the_kernel() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let kernel = text(&alone(std::process::Command::new(&*ORACLE).current_dir(&theirs)));
    let (output, calls) = emulated(Command::new(&*ORACLE).current_dir(&ours)).await;
    assert_same(&text(&output), &kernel);
    assert!(calls > 10_000, "{calls}");
}

/// Runs the oracle elsewhere, both ways, with `root` as the root of some.
async fn the_same_elsewhere(kinds: &str, root: &Path) {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let arguments = |directory: &Path| -> Vec<PathBuf> {
        vec![
            kinds.into(),
            root.into(),
            directory.into(),
            ORACLE.clone(),
            "7".into(),
        ]
    };
    let output = alone(std::process::Command::new(&*ELSEWHERE).args(arguments(theirs.path())));
    if output.status.code() == Some(77) {
        return eprintln!("skipped: no right to run programs elsewhere ({kinds})");
    }
    let kernel = text(&output);
    let (output, _) = emulated(Command::new(&*ELSEWHERE).args(arguments(ours.path()))).await;
    assert_same(&text(&output), &kernel);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_in_a_mount_namespace() {
    the_same_elsewhere("m", Path::new("/")).await;
}

#[tokio::test]
async fn the_same_below_another_root_of_another_mount_namespace() {
    let root = tempfile::tempdir().unwrap();
    the_same_elsewhere("mc", root.path()).await;
}

#[tokio::test]
async fn the_same_in_a_pid_namespace_with_its_own_procfs() {
    the_same_elsewhere("mp", Path::new("/")).await;
}

#[tokio::test]
async fn the_same_in_all_of_them() {
    let root = tempfile::tempdir().unwrap();
    the_same_elsewhere("mpc", root.path()).await;
}

#[test]
fn the_same_below_another_root_of_this_mount_namespace() {
    LazyLock::force(&ORACLE);
    in_process_of_its_own(
        "opens::the_same_below_another_root_of_this_mount_namespace",
        || {
            let root = tempfile::tempdir().unwrap();
            if let Err(errno) = unshare(CloneFlags::CLONE_NEWNS) {
                return eprintln!("skipped: no right to make a mount namespace ({errno})");
            }
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some("/"), root.path(), none, bind, none).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(the_same_elsewhere("c", root.path()));
            umount2(root.path(), MntFlags::MNT_DETACH).unwrap();
        },
    );
}
