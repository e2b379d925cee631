//! The names of what calls are about: files, by path and by descriptor, and sockets.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
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

/// What a descriptor of a thread leads to.
pub(super) fn opened(tid: i32, number: i32) -> io::Result<PathBuf> {
    let link = std::fs::read_link(format!("/proc/{tid}/fd/{number}"))?;
    let name = link.as_os_str().as_bytes();
    let name = name.strip_suffix(DELETED).unwrap_or(name);
    Ok(OsStr::from_bytes(name).into())
}

/// The same, if it is a file; `None` for memory, a pipe, a socket.
pub(super) fn opened_file(tid: i32, number: i32) -> io::Result<Option<PathBuf>> {
    let link = std::fs::read_link(format!("/proc/{tid}/fd/{number}"))?;
    let name = link.as_os_str().as_bytes();
    let is_memory = name.strip_suffix(DELETED).is_some_and(|name| {
        // `memfd_create(2)` and `memfd_secret(2)`.
        name.starts_with(b"/memfd:") || name == b"/secretmem"
    });
    match link.is_absolute() && !is_memory {
        true => opened(tid, number).map(Some),
        false => Ok(None),
    }
}

/// What the kernel says behind the name of a file that is gone.
const DELETED: &[u8] = b" (deleted)";

/// Why there is nothing to be said of what a call names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unseen {
    /// The kernel can't read it either, or the call is over.
    Harmless,
    /// It may be anything.
    Unknown,
}

impl From<Error> for Unseen {
    fn from(error: Error) -> Self {
        match error {
            Error::Fault { .. } | Error::TooLong { .. } | Error::Gone => Self::Harmless,
            _ => Self::Unknown,
        }
    }
}

impl From<io::Error> for Unseen {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => Self::Harmless,
            _ => Self::Unknown,
        }
    }
}

/// The names that a path argument of a frozen thread may be known by. It is read, and its links are followed, where that
/// may stall.
pub(super) async fn named(call: &Notification, argument: PathArgument) -> Vec<PathBuf> {
    look_at(call, argument, spellings).await.unwrap_or_default()
}

/// Where a path argument of a frozen thread leads to, as far as it is there; `None` if that is no file.
pub(super) async fn destination(
    call: &Notification,
    argument: PathArgument,
) -> Result<Option<PathBuf>, Unseen> {
    let (tid, follows) = (call.tid().ok_or(Unseen::Unknown)?, follows(call));
    look_at(call, argument, move |base, path| {
        leads_to(tid, base, path, follows)
    })
    .await?
}

/// Where the Unix sockets are that a call wants to reach.
pub(super) async fn sockets(call: &Notification) -> Result<Vec<PathBuf>, Unseen> {
    let tid = call.tid().ok_or(Unseen::Unknown)?;
    let found = look_at_sockets(call, move |base, path| leads_to(tid, base, path, true)).await?;
    found.into_iter().filter_map(Result::transpose).collect()
}

fn leads_to(tid: i32, base: &Path, path: &Path, follows: bool) -> Result<Option<PathBuf>, Unseen> {
    if path.as_os_str().is_empty() {
        return Ok(base.is_absolute().then(|| base.to_owned()));
    }
    let written = own(tid, &base.join(path));
    let descriptors = written.strip_prefix(format!("/proc/{tid}/fd"));
    if let Some(number) = descriptors.ok().and_then(|rest| rest.to_str()?.parse().ok())
        && follows
    {
        return Ok(opened_file(tid, number)?);
    }
    // Behind them is a directory, whatever the call does to links.
    let last = written.as_os_str().as_bytes().rsplit(|byte| *byte == b'/').next();
    let follows = follows || matches!(last, Some(b"" | b"." | b".."));
    if let Some(whole) = std::fs::canonicalize(&written).ok().filter(|_| follows) {
        return Ok(Some(whole));
    }
    let (Some(directory), Some(name)) = (written.parent(), written.file_name()) else {
        return Ok(Some(absolute(Path::new("/"), &written)));
    };
    match std::fs::canonicalize(directory).map_err(Unseen::from) {
        Ok(directory) => Ok(Some(directory.join(name))),
        // Nor does the call get there.
        Err(Unseen::Harmless) => Ok(Some(absolute(Path::new("/"), &written))),
        Err(Unseen::Unknown) => Err(Unseen::Unknown),
    }
}

/// A path that means something else to each process, as it is to this one.
fn own(tid: i32, path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    for (prefix, here) in [
        ("/proc/self", ""),
        ("/proc/thread-self", ""),
        ("/dev/fd", "/fd"),
        ("/dev/stdin", "/fd/0"),
        ("/dev/stdout", "/fd/1"),
        ("/dev/stderr", "/fd/2"),
    ] {
        // Not component by component: a slash at the end says something.
        let rest = bytes.strip_prefix(prefix.as_bytes());
        if let Some(rest @ ([] | [b'/', ..])) = rest {
            let mut own = OsString::from(format!("/proc/{tid}{here}"));
            own.push(OsStr::from_bytes(rest));
            return own.into();
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
        Some(S::setxattrat | S::removexattrat) => followed(2),
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
