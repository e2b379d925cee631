//! Children that Landlock confines, and what keeps them from it.

mod support;

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use asm_tracer::blocking::Tracer;
use asm_tracer::{Command, Errno, Error, Filter, SpawnStep, Stdio, Sysno};
use landlock::{ABI, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use support::in_process_of_its_own;
use support::start::{Way, current_thread, leaving_nothing, run};

/// Lets writes through in this directory and to devices only.
fn ruleset(writable: &Path) -> OwnedFd {
    let access = AccessFs::from_write(ABI::V1);
    let created = Ruleset::default()
        .handle_access(access)
        .unwrap()
        .create()
        .unwrap();
    let created = created
        .add_rule(PathBeneath::new(PathFd::new(writable).unwrap(), access))
        .and_then(|created| {
            let devices = PathFd::new("/dev").unwrap();
            created.add_rule(PathBeneath::new(devices, AccessFs::WriteFile))
        });
    Option::from(created.unwrap()).expect("Landlock, on which these tests rest")
}

/// A shell that tries to write to a directory that is granted and one that is not, and has a child of its own try.
fn writer(granted: &Path, denied: &Path) -> Command {
    let script = "echo >\"$1/own\"; echo >\"$2/own\"; sh -c 'echo >\"$1/child\"; echo >\"$2/child\"' sh \"$1\" \"$2\"; ls -l /proc/self/fd";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, "sh"]).arg(granted).arg(denied);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// Fails if a ruleset is among the descriptors that the program has listed.
fn assert_no_ruleset(descriptors: &[u8]) {
    let descriptors = String::from_utf8_lossy(descriptors);
    assert!(descriptors.contains("-> /dev/null"), "{descriptors}");
    assert!(!descriptors.contains(RULESET), "{descriptors}");
}

/// What the links of `/proc/PID/fd` say of a ruleset.
const RULESET: &str = "landlock";

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_program_and_what_it_starts_are_confined() {
    leaving_nothing("the_program_and_what_it_starts_are_confined", async |before| {
        for way in Way::BOTH {
            let (granted, denied) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let mut command = writer(granted.path(), denied.path());
            way.apply(command.landlock(ruleset(granted.path())));
            for _ in 0..2 {
                let output = run(&mut command).await.unwrap();
                assert_no_ruleset(&output.stdout);
                assert_eq!(names(granted.path()), ["child", "own"], "{way:?}");
                assert!(names(denied.path()).is_empty(), "{way:?}");
                std::fs::remove_file(granted.path().join("own")).unwrap();
                std::fs::remove_file(granted.path().join("child")).unwrap();
            }
            drop(command);
            before.assert_soon_none(&format!("{way:?}")).await;
        }
    });
}

#[test]
fn it_is_confined_on_a_thread_too() {
    let (granted, denied) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut command = writer(granted.path(), denied.path());
    command.landlock(ruleset(granted.path())).stdout(Stdio::null());
    let child = Tracer::without_hook().spawn(&mut command).unwrap();
    child.wait().unwrap();
    assert_eq!(names(granted.path()), ["child", "own"]);
    assert!(names(denied.path()).is_empty());
}

#[tokio::test]
async fn it_is_confined_where_its_execution_is_trapped_and_its_calls_are_looked_at() {
    let (granted, denied) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut command = writer(granted.path(), denied.path());
    let filter = Filter::new().trap([Sysno::openat, Sysno::execve]);
    command
        .landlock(ruleset(granted.path()))
        .filter(filter)
        .trap_initial_exec(true);
    let output = run(&mut command).await.unwrap();
    assert_no_ruleset(&output.stdout);
    assert_eq!(names(granted.path()), ["child", "own"]);
    assert!(names(denied.path()).is_empty());
}

/// Whatever its number, and even if it would survive the execution.
#[test]
fn the_descriptor_does_not_reach_the_program() {
    in_process_of_its_own("the_descriptor_does_not_reach_the_program", || {
        let directory = tempfile::tempdir().unwrap();
        let kept = ruleset(directory.path());
        fcntl(&kept, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let low = ruleset(directory.path());
        nix::unistd::dup2_stdin(&low).unwrap();
        #[allow(unsafe_code)]
        // SAFETY: nothing else of this process owns its standard input.
        let low = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(0) };
        for (name, ruleset) in [("inheritable", kept), ("a standard stream", low)] {
            let link = format!("/proc/self/fd/{}", ruleset.as_raw_fd());
            let link = std::fs::read_link(link).unwrap();
            assert!(link.to_string_lossy().contains(RULESET), "{name}: {link:?}");
            assert!(name != "a standard stream" || ruleset.as_raw_fd() == 0);
            let denied = tempfile::tempdir().unwrap();
            let mut command = writer(directory.path(), denied.path());
            command.landlock(ruleset);
            let output = current_thread().block_on(run(&mut command)).unwrap();
            assert_no_ruleset(&output.stdout);
            assert_eq!(names(directory.path()), ["child", "own"], "{name}");
            assert!(names(denied.path()).is_empty(), "{name}");
        }
    });
}

#[test]
fn what_is_no_ruleset_is_refused() {
    leaving_nothing("what_is_no_ruleset_is_refused", async |before| {
        for way in Way::BOTH {
            let mut command = Command::new("true");
            way.apply(command.landlock(File::open("/dev/null").unwrap()));
            let error = run(&mut command).await.unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::Spawn {
                        step: SpawnStep::RestrictAccess,
                        source: Errno::EBADFD
                    }
                ),
                "{way:?}: {error:?}"
            );
            assert_eq!(
                error.to_string(),
                "could not start the program: restricting its access failed"
            );
            drop(command);
            before.assert_soon_none(&format!("{way:?}")).await;
        }
        let mut command = Command::new("true");
        let blocking = Tracer::without_hook().spawn(command.landlock(File::open("/dev/null").unwrap()));
        assert_eq!(blocking.map(drop).unwrap_err().errno(), Some(Errno::EBADFD));
    });
}

#[test]
fn without_no_new_privs_it_takes_a_privilege() {
    in_process_of_its_own("without_no_new_privs_it_takes_a_privilege", || {
        if support::proc_status(std::process::id(), "NoNewPrivs").as_deref() != Some("0") {
            return println!("skipped: no_new_privs is set already");
        }
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("true");
        command.landlock(ruleset(directory.path())).no_new_privs(false);
        if nix::unistd::geteuid().is_root() {
            command.uid(54321);
        }
        let error = current_thread().block_on(run(&mut command)).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Spawn {
                    step: SpawnStep::RestrictAccess,
                    source: Errno::EPERM
                }
            ),
            "{error:?}"
        );
    });
}

/// A kernel without Landlock, played by a filter.
#[test]
fn a_kernel_without_it_is_named() {
    for refusal in [Errno::ENOSYS, Errno::EOPNOTSUPP] {
        in_process_of_its_own("a_kernel_without_it_is_named", || {
            let directory = tempfile::tempdir().unwrap();
            let ruleset = ruleset(directory.path());
            let action = asm_tracer::Action::Errno(refusal);
            let refusing = Filter::new().rule(Sysno::landlock_restrict_self, [], action);
            refusing.install().unwrap();
            let error = current_thread().block_on(run(Command::new("true").landlock(ruleset)));
            let error = error.unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::Unsupported {
                        feature: "Landlock",
                        since: "5.13"
                    }
                ),
                "{error:?}"
            );
        });
    }
}

/// The execution is subject to what the ruleset says about it.
#[tokio::test]
async fn a_program_that_may_not_be_executed_is_not() {
    let created = Ruleset::default()
        .handle_access(AccessFs::Execute)
        .unwrap()
        .create()
        .unwrap();
    let ruleset = Option::<OwnedFd>::from(created).unwrap();
    let error = run(Command::new("/bin/true").landlock(ruleset))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Spawn {
                step: SpawnStep::Exec,
                source: Errno::EACCES
            }
        ),
        "{error:?}"
    );
}
