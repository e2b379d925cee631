//! One run of the program, in a scratch directory of its own.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use syscalls::Sysno;

use super::scratch::ruleset;
use super::scratch::{Scratch, Snapshot};
use crate::error::{Error, Result};
use crate::filter::int_arg;
use crate::inject::{Fault, FaultPlan, Hit, Outcome};
use crate::process::{Command, Stdio};

/// What all runs have in common.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) command: Command,
    /// Where the scratch directories are.
    pub(super) parent: Arc<tempfile::TempDir>,
    /// What is copied into each of them.
    pub(super) files: Option<PathBuf>,
    pub(super) stdin: Option<Vec<u8>>,
    /// What may be written to besides; `None` for everything.
    pub(super) writable: Option<Vec<PathBuf>>,
    /// Whether other machines may be reached.
    pub(super) online: bool,
    /// Which calls are learned.
    pub(super) calls: Option<Vec<i64>>,
}

/// What a run left, with the name of its directory replaced wherever it occurs.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) outcome: Outcome,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    /// The files after it.
    pub(super) after: Snapshot,
    /// The file that the first hit was about.
    pub(super) file: Option<String>,
}

/// A directory that is ready for a run.
struct Prepared {
    scratch: Scratch,
    command: Command,
}

/// They change what is known of a file, which Landlock leaves to those who have access to it.
const METADATA: [Sysno; 20] = [
    Sysno::chmod,
    Sysno::fchmod,
    Sysno::fchmodat,
    Sysno::fchmodat2,
    Sysno::chown,
    Sysno::fchown,
    Sysno::lchown,
    Sysno::fchownat,
    Sysno::utime,
    Sysno::utimes,
    Sysno::futimesat,
    Sysno::utimensat,
    Sysno::setxattr,
    Sysno::lsetxattr,
    Sysno::fsetxattr,
    Sysno::removexattr,
    Sysno::lremovexattr,
    Sysno::fremovexattr,
    Sysno::setxattrat,
    Sysno::removexattrat,
];

/// `FS_IOC_SETFLAGS` and `FS_IOC_FSSETXATTR` (`linux/fs.h`), which do the same by a descriptor.
const ATTRIBUTES: [i32; 2] = [0x4008_6602, 0x401c_5820];

/// They say whom a program wants to reach.
const REACHES: [Sysno; 4] = [Sysno::connect, Sysno::sendto, Sysno::sendmsg, Sysno::sendmmsg];

impl Setting {
    /// Runs the program under a plan. `number` names the directory, and is used once.
    pub(super) async fn run(self: &Arc<Self>, number: u64, plan: FaultPlan) -> Result<Ran> {
        let setting = Arc::clone(self);
        let Prepared { scratch, mut command } = blocking(move || setting.prepare(number)).await?;
        let plan = self.confine(plan, &scratch).end_descendants();
        let outcome = plan.run(&mut command).await?;
        blocking(move || {
            let after = scratch.snapshot()?;
            let place = |bytes: &[u8]| scratch.anonymous(bytes);
            let file = first_hit(&outcome).and_then(|hit| hit.call().file());
            let file = file.map(|file| place(file.as_os_str().as_encoded_bytes()));
            Ok(Ran {
                stdout: place(outcome.stdout()),
                stderr: place(outcome.stderr()),
                outcome,
                after,
                file: file.map(|file| String::from_utf8_lossy(&file).into_owned()),
            })
        })
        .await
    }

    fn prepare(&self, number: u64) -> Result<Prepared> {
        let scratch = Scratch::make(self.parent.path(), number, self.files.as_deref())?;
        let scratch = scratch.kept_in(Arc::clone(&self.parent));
        let mut command = self.command.clone();
        command
            .current_dir(scratch.work())
            .env("HOME", scratch.home())
            .env("TMPDIR", scratch.tmp())
            .stdin(self.input(&scratch)?);
        if let Some(writable) = &self.writable {
            let mut paths = vec![scratch.work(), scratch.home(), scratch.tmp()];
            paths.extend(writable.iter().map(PathBuf::as_path));
            command.landlock(ruleset(&paths)?);
        }
        Ok(Prepared { scratch, command })
    }

    /// The files before a run. `number` is as above.
    pub(super) async fn pristine(self: &Arc<Self>, number: u64) -> Result<Snapshot> {
        let setting = Arc::clone(self);
        blocking(move || setting.prepare(number)?.scratch.snapshot()).await
    }

    /// Has those calls fail that touch what is outside, and that Landlock does not know.
    fn confine(&self, mut plan: FaultPlan, scratch: &Scratch) -> FaultPlan {
        if let Some(writable) = &self.writable {
            let outside = |fault: Fault| {
                writable
                    .iter()
                    .fold(fault.outside(scratch.root()), Fault::outside)
            };
            plan = plan
                .refuse_other_abis()
                .with(outside(Fault::on(METADATA).error(Errno::EROFS)))
                .with(outside(attributes(ATTRIBUTES[0])))
                .with(outside(attributes(ATTRIBUTES[1])))
                .with(outside(Fault::on(REACHES).error(Errno::EACCES)))
                // Through it, all of these can be had unseen. A kernel where it is switched off says the same.
                .with(Fault::on(Sysno::io_uring_setup).error(Errno::EPERM));
            if !self.online {
                plan = plan.with(Fault::on(REACHES).remote().error(Errno::ENETUNREACH));
            }
        }
        plan
    }

    /// A file, beside those that the program knows of.
    fn input(&self, scratch: &Scratch) -> Result<Stdio> {
        let Some(stdin) = &self.stdin else {
            return Ok(Stdio::null());
        };
        let path = scratch.root().join("stdin");
        let written = std::fs::write(&path, stdin).and_then(|()| File::open(&path));
        let file = written.map_err(|source| Error::Io {
            operation: "writing the standard input of a run",
            source,
        })?;
        Ok(OwnedFd::from(file).into())
    }
}

/// Has an `ioctl(2)` fail that changes attributes.
fn attributes(request: i32) -> Fault {
    Fault::on(Sysno::ioctl)
        .when(int_arg(1).eq(request))
        .error(Errno::EROFS)
}

/// The first hit of the fault that is tried: the first of the plan.
pub(super) fn first_hit(outcome: &Outcome) -> Option<&Hit> {
    let mut hits = outcome.hits().iter();
    hits.find(|hit| hit.faults().contains(&0) && hit.failed().is_none())
}

/// The plan of a run with these faults.
pub(super) fn plan(faults: impl IntoIterator<Item = Fault>, deadline: Duration) -> FaultPlan {
    faults.into_iter().collect::<FaultPlan>().deadline(deadline)
}

/// Does what may block for a while, on a thread for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        let source = io::Error::other(error);
        let operation = "working on another thread";
        Err(Error::Io { operation, source })
    })
}
