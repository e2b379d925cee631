//! What a run may write to.

use std::os::fd::OwnedFd;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, PathFdError, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use nix::errno::Errno;

use crate::error::{Error, Result};

/// The newest that the crate `landlock` knows; of an older kernel's, as much as there is.
const NEWEST: ABI = ABI::V10;

/// What belongs to everybody and keeps nothing.
const DEVICES: [&str; 8] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/tty",
    "/dev/random",
    "/dev/urandom",
    "/dev/ptmx",
    "/dev/pts",
];

/// Makes a ruleset under which anything may be read and executed, but written, made, removed, truncated and renamed only
/// beneath these paths, and written to devices that keep nothing.
///
/// Where the kernel can, signals and connections to abstract sockets stay among the confined, and other sockets can be
/// connected to beneath the paths only. What is open already can be written to. Landlock has no say in permissions, owners,
/// times and extended attributes.
///
/// # Errors
///
/// [`Error::Unsupported`] without Landlock, or one that lets files be truncated anyway.
pub(in crate::sweep) fn ruleset(writable: &[&Path]) -> Result<OwnedFd> {
    let unsupported = Error::Unsupported {
        feature: "Landlock with LANDLOCK_ACCESS_FS_TRUNCATE",
        since: "6.2",
    };
    let required = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let Ok(required) = required.handle_access(AccessFs::Truncate) else {
        return Err(unsupported);
    };
    let best_effort = required.set_compatibility(CompatLevel::BestEffort);
    let created = best_effort
        .handle_access(AccessFs::from_write(NEWEST))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create);
    let mut created = created.map_err(failed("making a Landlock ruleset"))?;
    for path in writable {
        let path = PathFd::new(path).map_err(failed("opening what a run may write to"))?;
        created = grant(created, path, AccessFs::from_write(NEWEST))?;
    }
    for device in DEVICES {
        match PathFd::new(device) {
            Ok(path) => created = grant(created, path, AccessFs::WriteFile | AccessFs::IoctlDev)?,
            // There is none here, so nobody writes to it.
            Err(PathFdError::OpenCall { source, .. }) if is_absent(&source) => {}
            Err(error) => return Err(failed("opening a device")(error)),
        }
    }
    Option::from(created).ok_or(unsupported)
}

/// Grants this access, or as much of it as there is to a file if the path is one.
fn grant(
    created: RulesetCreated,
    path: PathFd,
    access: impl Into<BitFlags<AccessFs>>,
) -> Result<RulesetCreated> {
    created
        .add_rule(PathBeneath::new(path, access))
        .map_err(|error: RulesetError| failed("granting access in a Landlock ruleset")(error))
}

fn is_absent(error: &std::io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ENXIO))
}

fn failed<E: std::error::Error + 'static>(operation: &'static str) -> impl FnOnce(E) -> Error {
    move |error| Error::os(operation, Errno::from_raw(*landlock::Errno::from(error)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;
    use crate::blocking::Tracer;
    use crate::{Action, Command, Filter, Stdio, Sysno};

    /// Runs a shell script under a ruleset, and gives its status.
    fn sh(script: &str, args: &[&Path], writable: &[&Path]) -> i32 {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, "sh"]).args(args);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command.landlock(ruleset(writable).unwrap());
        let child = Tracer::without_hook().spawn(&mut command).unwrap();
        std::process::ExitStatus::from_raw(child.wait().unwrap())
            .code()
            .unwrap()
    }

    #[test]
    fn what_is_beneath_is_writable_in_every_way() {
        let directory = tempfile::tempdir().unwrap();
        let script = r#"set -e; cd "$1"; mkdir a b; echo x >a/f; mv a/f b/g; : >b/g; ln -s g b/l; ln b/g a/h
            mkfifo p; truncate -s 5 b/g; rm -r a b p; truncate -s 1 k; cat /etc/passwd >k; mkdir d; mv k d; rm -r d"#;
        assert_eq!(sh(script, &[directory.path()], &[directory.path()]), 0);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn nothing_outside_is() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = outside.path().join("file");
        std::fs::write(&file, "kept").unwrap();
        let refused = [
            r#"echo x >>"$2/file""#,
            r#"truncate -s 0 "$2/file""#,
            r#": >"$2/new""#,
            r#"rm "$2/file""#,
            r#"mkdir "$2/new""#,
            r#"mkfifo "$2/new""#,
            r#"ln -s x "$2/new""#,
            r#"ln "$2/file" "$1/link""#,
            r#"mv "$2/file" "$1""#,
            r#"echo x >"$1/x"; mv "$1/x" "$2/new""#,
            r#"echo x >"$1/x"; ln "$1/x" "$2/new""#,
            r#"ln -sf "$2/file" "$1/link"; echo x >"$1/link""#,
            r#"ln -sf "$2" "$1/dir"; echo x >"$1/dir/new""#,
            r#"echo x >"/dev/shm/${1##*/}-escaped""#,
            r#"echo x >"/proc/$PPID/comm""#,
        ];
        for script in refused {
            assert_ne!(
                sh(script, &[inside.path(), outside.path()], &[inside.path()]),
                0,
                "{script}"
            );
            assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept", "{script}");
            assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1, "{script}");
        }
        let mut shared = inside.path().file_name().unwrap().to_owned();
        shared.push("-escaped");
        assert!(!Path::new("/dev/shm").join(shared).exists());
    }

    #[test]
    fn harmless_devices_and_a_granted_file_are_writable() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "before").unwrap();
        let script = r#"set -e; echo x >/dev/null; echo x >/dev/zero; echo x >/dev/urandom; echo y >"$1"; cat "$1" >/dev/null"#;
        assert_eq!(sh(script, &[&file], &[&file]), 0);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "y\n");
        assert_ne!(sh(r#"rm "$1""#, &[&file], &[&file]), 0);
    }

    #[test]
    fn signals_stay_among_the_confined() {
        if ABI::V6 > ABI::from(landlock_abi()) {
            return println!("skipped: this kernel's Landlock has no scopes");
        }
        assert_eq!(sh("sleep 1000 & kill $!", &[], &[]), 0);
        assert_ne!(sh("kill -0 $PPID", &[], &[]), 0);
    }

    /// The ABI of this kernel.
    fn landlock_abi() -> i32 {
        // SAFETY: asking for the version touches no memory.
        #[allow(unsafe_code)]
        let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) };
        abi as i32
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = ruleset(&[Path::new("/nonexistent")]).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENOENT));
    }

    /// A kernel without Landlock, or with one that was switched off, played by a filter.
    #[test]
    fn without_landlock_there_is_no_ruleset() {
        for refusal in [Errno::ENOSYS, Errno::EOPNOTSUPP] {
            let refused = std::thread::spawn(move || {
                let refusing = Filter::new().rule(Sysno::landlock_create_ruleset, [], Action::Errno(refusal));
                refusing.install().unwrap();
                ruleset(&[])
            });
            let error = refused.join().unwrap().unwrap_err();
            assert!(
                matches!(error, Error::Unsupported { since: "6.2", .. }),
                "{error:?}"
            );
        }
    }
}
