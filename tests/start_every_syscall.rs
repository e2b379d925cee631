//! A program starts whatever the filter traps, and a start that fails says why: nothing that the library does on the
//! way may wait for its own supervisor.

mod support;

use std::path::PathBuf;

use asm_tracer::{Command, Errno, Error, Filter, SpawnStep, Sysno};
use support::start::{Leftovers, Way, executable, leaving_nothing, run};
use support::within;

/// Programs that can't be executed, and why not.
struct Broken {
    _directory: tempfile::TempDir,
    programs: Vec<(PathBuf, Errno)>,
}

impl Broken {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let true_ = std::fs::read("/bin/true").unwrap();
        let with = |offset: usize, bytes: &[u8]| {
            let mut changed = true_.clone();
            changed[offset..offset + bytes.len()].copy_from_slice(bytes);
            changed
        };
        let interpreter = find(&true_, b"/lib64/ld-linux-x86-64.so.2\0");
        let plain = path.join("plain");
        std::fs::write(&plain, "not executable").unwrap();
        let broken = |name: &str, contents: &[u8]| executable(path, name, contents);
        let programs = vec![
            (path.join("missing"), Errno::ENOENT),
            (path.join("missing/too"), Errno::ENOENT),
            (plain.join("below-a-file"), Errno::ENOTDIR),
            (plain, Errno::EACCES),
            (path.to_owned(), Errno::EACCES),
            (broken("empty", b""), Errno::ENOEXEC),
            (broken("garbage", b"neither this nor that\n"), Errno::ENOEXEC),
            (broken("elf-magic-only", &true_[..4]), Errno::ENOEXEC),
            (broken("elf-header-only", &true_[..64]), Errno::ENOEXEC),
            // e_type, e_machine, e_phentsize
            (broken("elf-no-executable", &with(16, &[9, 9])), Errno::ENOEXEC),
            (
                broken("elf-of-another-machine", &with(18, &[0xff, 0xff])),
                Errno::ENOEXEC,
            ),
            (broken("elf-of-odd-headers", &with(54, &[1, 0])), Errno::ENOEXEC),
            (
                broken("elf-without-its-interpreter", &with(interpreter, b"/lib65")),
                Errno::ENOENT,
            ),
            (
                broken("script-without-its-interpreter", b"#!/nowhere/at/all\n"),
                Errno::ENOENT,
            ),
            (broken("script-of-a-directory", b"#!/tmp\n"), Errno::EACCES),
        ];
        Self {
            _directory: directory,
            programs,
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> usize {
    let found = haystack.windows(needle.len()).position(|window| window == needle);
    found.expect("/bin/true is linked against the usual loader")
}

/// Starts everything under a filter, and looks for what stays.
async fn start_all(what: &str, filter: &Filter, broken: &Broken, before: &Leftovers) {
    for way in Way::BOTH {
        let what = format!("{what}, {way:?}");
        let mut command = Command::new("true");
        way.apply(command.filter(filter.clone()));
        let output = run(&mut command)
            .await
            .unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert!(output.status.success(), "{what}: {:?}", output.status);
        for (program, errno) in &broken.programs {
            let mut command = Command::new(program);
            way.apply(command.filter(filter.clone()));
            let error = within(&what, command.spawn()).await.unwrap_err();
            let step = match &error {
                Error::Spawn { step, source } if source == errno => Some(*step),
                _ => None,
            };
            assert_eq!(step, Some(SpawnStep::Exec), "{what}: {program:?} gave {error:?}");
            // All of it is gone by the time that the error is known.
            before.assert_none(&what);
        }
    }
}

/// Runs `body` where only what it does itself shows up among the descriptors and the children.
fn sweep(test: &str, body: impl AsyncFnOnce(&Broken, &Leftovers)) {
    leaving_nothing(test, async |before| body(&Broken::new(), before).await);
}

// T25, T26
#[test]
fn programs_start_whichever_call_is_trapped() {
    sweep(
        "programs_start_whichever_call_is_trapped",
        async |broken, before| {
            for call in Sysno::iter() {
                start_all(call.name(), &Filter::new().trap(call), broken, before).await;
            }
        },
    );
}

// T25, T26
#[test]
fn programs_start_with_every_call_trapped() {
    sweep(
        "programs_start_with_every_call_trapped",
        async |broken, before| {
            start_all("all", &Filter::trap_all(), broken, before).await;
            let each = Sysno::iter().fold(Filter::new(), Filter::trap);
            start_all("all by number", &each, broken, before).await;
        },
    );
}

// T25, T26: the filter refuses or kills what the hand-over needs. The program itself could not get on.
#[test]
fn a_program_starts_though_its_filter_refuses_the_calls_of_the_start() {
    use std::os::unix::process::ExitStatusExt;

    let test = "a_program_starts_though_its_filter_refuses_the_calls_of_the_start";
    sweep(test, async |broken, before| {
        let calls = [Sysno::sendmsg, Sysno::execve, Sysno::exit_group];
        let refused = Filter::new().errno(calls, Errno::EPERM);
        for way in Way::BOTH {
            for (program, errno) in &broken.programs {
                for filter in [refused.clone(), Filter::new().kill(calls)] {
                    let mut command = Command::new(program);
                    way.apply(command.filter(filter));
                    let error = within("the error", command.spawn()).await.unwrap_err();
                    assert_eq!(error.errno(), Some(*errno), "{way:?} {program:?}: {error:?}");
                    before.assert_none("a start that failed");
                }
            }
            let mut command = Command::new("true");
            way.apply(command.filter(Filter::new().kill(calls)));
            let output = run(&mut command).await.unwrap();
            assert_eq!(output.status.signal(), Some(nix::libc::SIGSYS), "{way:?}");
        }
    });
}
