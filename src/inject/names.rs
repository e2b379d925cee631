//! The names of what calls are about: files, by path and by descriptor, and sockets.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use syscalls::Sysno;

use super::peers;
use crate::emulate::Address;
use crate::error::Error;
use crate::notify::{Look, Notification};
use crate::syscall::arguments::{self, PathArgument};

/// How long a look at a name in the target may take. Only a hostile target makes it take so long.
const LOOK_LIMIT: Duration = Duration::from_secs(1);

/// The file or directory that is meant, as it is written and as the links lead there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    names: Vec<PathBuf>,
    below: bool,
}

impl Wanted {
    pub(super) fn exactly(path: &Path) -> Self {
        let here = std::env::current_dir().unwrap_or_else(|_| "/".into());
        Self {
            names: spellings(&here, path),
            below: false,
        }
    }

    pub(super) fn under(directory: &Path) -> Self {
        Self {
            below: true,
            ..Self::exactly(directory)
        }
    }

    pub(super) fn is(&self, path: &Path) -> bool {
        self.names.iter().any(|name| match self.below {
            true => path.starts_with(name),
            false => path == name,
        })
    }
}

/// A path as it is written, and with the links of its directory resolved, and with its own.
pub(super) fn spellings(base: &Path, path: &Path) -> Vec<PathBuf> {
    let written = absolute(base, path);
    let in_directory = written
        .parent()
        .zip(written.file_name())
        .and_then(|(directory, name)| {
            let directory = std::fs::canonicalize(directory).ok()?;
            Some(directory.join(name))
        });
    let resolved = std::fs::canonicalize(&written).ok();
    let mut names = vec![written];
    for name in [in_directory, resolved].into_iter().flatten() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The numbers in the arguments of a call that are descriptors.
pub(super) fn descriptors(call: &Notification) -> Vec<i32> {
    let places = call.sysno().map_or(&[][..], arguments::descriptors);
    places.iter().map(|place| call.args()[*place] as i32).collect()
}

/// What a descriptor of a thread leads to: an absolute path, if it is a file.
pub(super) fn opened(tid: i32, number: i32) -> io::Result<PathBuf> {
    let path = std::fs::read_link(format!("/proc/{tid}/fd/{number}"))?;
    let name = path.as_os_str().as_bytes();
    let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
    // That of a `memfd_create(2)` begins with a slash.
    let name = match name.strip_prefix(b"/") {
        Some(memory) if memory.starts_with(b"memfd:") => memory,
        _ => name,
    };
    Ok(OsStr::from_bytes(name).into())
}

/// Why there is nothing to be said of what a call names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unseen {
    /// The kernel can't read it either.
    Faulty,
    /// It may be anything.
    Unknown,
}

impl From<Error> for Unseen {
    fn from(error: Error) -> Self {
        match error {
            Error::Fault { .. } | Error::TooLong { .. } => Self::Faulty,
            _ => Self::Unknown,
        }
    }
}

/// The names that a path argument of a frozen thread may be known by. It is read, and its links are followed, where that
/// may stall.
pub(super) async fn named(call: &Notification, argument: PathArgument) -> Vec<PathBuf> {
    look_at(call, argument, spellings).await.unwrap_or_default()
}

/// The file that a path argument of a frozen thread leads to, as far as it is there.
pub(super) async fn destination(call: &Notification, argument: PathArgument) -> Result<PathBuf, Unseen> {
    let (tid, follows) = (call.tid().ok_or(Unseen::Unknown)?, follows(call));
    look_at(call, argument, move |base: &Path, path: &Path| match follows {
        true => resolved(tid, base, path),
        false => in_directory(&base.join(own(tid, path))),
    })
    .await
}

/// The files that the sockets are that a call wants to reach.
pub(super) async fn sockets(call: &Notification) -> Result<Vec<PathBuf>, Unseen> {
    let tid = call.tid().ok_or(Unseen::Unknown)?;
    look_at_sockets(call, move |base, path| resolved(tid, base, path)).await
}

/// Where a path of a thread leads to, as far as it is there.
fn resolved(tid: i32, base: &Path, path: &Path) -> PathBuf {
    let written = base.join(own(tid, path));
    std::fs::canonicalize(&written).unwrap_or_else(|_| in_directory(&written))
}

/// The same without the last link.
fn in_directory(written: &Path) -> PathBuf {
    let directory = || std::fs::canonicalize(written.parent()?).ok();
    let whole = || Some(directory()?.join(written.file_name()?));
    whole().unwrap_or_else(|| absolute(Path::new("/"), written))
}

/// A path that means something else to each process, as it is to this one.
fn own(tid: i32, path: &Path) -> PathBuf {
    let own = |below: &str| PathBuf::from(format!("/proc/{tid}{below}"));
    for (prefix, here) in [
        ("/proc/self", own("")),
        ("/proc/thread-self", own("")),
        ("/dev/fd", own("/fd")),
    ] {
        if let Ok(rest) = path.strip_prefix(prefix) {
            return here.join(rest);
        }
    }
    path.to_owned()
}

/// Whether a call that changes a file follows a link to it.
fn follows(call: &Notification) -> bool {
    use Sysno as S;
    let followed = |flags: usize| call.args()[flags] as i32 & libc::AT_SYMLINK_NOFOLLOW == 0;
    match call.sysno() {
        Some(S::lchown | S::lsetxattr | S::lremovexattr) => false,
        Some(S::fchownat) => followed(4),
        Some(S::utimensat | S::fchmodat2) => followed(3),
        _ => true,
    }
}

/// Reads a path argument of a frozen thread, with the directory that it is relative to, and makes something of both.
async fn look_at<T: Send + 'static>(
    call: &Notification,
    argument: PathArgument,
    make: impl FnOnce(&Path, &Path) -> T + Send + 'static,
) -> Result<T, Unseen> {
    let args = call.args();
    let tid = call.tid().ok_or(Unseen::Unknown)?;
    let base = match argument.directory.map(|place| args[place] as i32) {
        None | Some(libc::AT_FDCWD) => working_directory(tid),
        Some(number) => opened(tid, number).ok(),
    };
    let address = args[argument.path].cast_unsigned();
    let look = call.look(move |target| {
        let path = target.read_path(address)?;
        Ok(base_of(&path, base.as_deref()).map(|base| make(base, &path)))
    });
    within_limit(look).await?
}

fn working_directory(tid: i32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{tid}/cwd")).ok()
}

/// What a path is relative to, if it is not known to be something.
fn base_of<'a>(path: &Path, known: Option<&'a Path>) -> Result<&'a Path, Unseen> {
    match path.is_absolute() {
        true => Ok(Path::new("/")),
        false => known.ok_or(Unseen::Unknown),
    }
}

async fn within_limit<T>(look: Look<T>) -> Result<T, Unseen> {
    let looked = tokio::time::timeout(LOOK_LIMIT, look).await;
    looked.map_or(Err(Unseen::Unknown), |looked| Ok(looked?))
}

/// Makes something of each name of a Unix socket that a call wants to reach, with the directory that it is relative to.
pub(super) async fn look_at_sockets<T: Send + 'static>(
    call: &Notification,
    make: impl Fn(&Path, &Path) -> T + Send + 'static,
) -> Result<Vec<T>, Unseen> {
    let base = call.tid().and_then(working_directory);
    let each = move |addresses: Vec<Address>| {
        let paths = addresses.iter().filter_map(|address| match address {
            Address::UnixPath(path) => Some(path),
            _ => None,
        });
        paths
            .map(|path| base_of(path, base.as_deref()).map(|base| make(base, path)))
            .collect()
    };
    look_at_peers(call, each).await?
}

/// Makes something of the addresses that a call wants to reach.
pub(super) async fn look_at_peers<T: Send + 'static>(
    call: &Notification,
    make: impl FnOnce(Vec<Address>) -> T + Send + 'static,
) -> Result<T, Unseen> {
    let args = call.args();
    match call.sysno().filter(|sysno| peers::may_name(*sysno, args)) {
        Some(sysno) => {
            within_limit(call.look(move |target| Ok(make(peers::named(target, sysno, args)?)))).await
        }
        None => Ok(make(Vec::new())),
    }
}

/// Makes a path absolute, without `.` and `..`, as it is written.
fn absolute(base: &Path, path: &Path) -> PathBuf {
    use std::path::Component;
    let mut whole = PathBuf::new();
    for component in base.join(path).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(whole.pop()),
            other => whole.push(other),
        }
    }
    whole
}
