//! Which calls a fault concerns, beyond their numbers and argument values: whose they are, and which file they are about.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use syscalls::Sysno;

use super::fault::absolute;
use super::peers;
use crate::emulate::Address;
use crate::notify::Notification;
use crate::syscall::arguments::{self, PathArgument};

/// How long a look at a name in the target may take. Only a hostile target makes it take so long.
const LOOK_LIMIT: Duration = Duration::from_secs(1);
/// What the kernel keeps of a thread's name.
const NAME_LENGTH: usize = 15;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Selection {
    pub(super) path: Option<Wanted>,
    /// Places that the file must not be in, if there are any.
    pub(super) outside: Vec<Wanted>,
    /// Whether it has to name an address on another machine.
    pub(super) remote: bool,
    pub(super) descriptor: Option<i32>,
    pub(super) thread: Option<ThreadTest>,
    pub(super) program: Option<ProgramTest>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ThreadTest {
    Id(i32),
    Leader,
    Named(OsString),
    /// In the [lineage](crate::Lineage).
    Descended(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ProgramTest {
    Named(OsString),
    At(Wanted),
}

impl ProgramTest {
    pub(super) fn new(program: OsString) -> Self {
        match program.as_bytes().contains(&b'/') {
            true => Self::At(Wanted::exactly(Path::new(&program))),
            false => Self::Named(program),
        }
    }
}

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

    fn is(&self, path: &Path) -> bool {
        self.names.iter().any(|name| match self.below {
            true => path.starts_with(name),
            false => path == name,
        })
    }
}

/// A path as it is written, and with the links of its directory resolved, and with its own.
fn spellings(base: &Path, path: &Path) -> Vec<PathBuf> {
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

impl Selection {
    /// Tells whether the call is concerned.
    pub(super) async fn concerns(&self, call: &Notification, lineage: Option<&str>) -> bool {
        self.is_thread(call, lineage)
            && self.is_program(call)
            && self.is_descriptor(call)
            && self.is_file(call).await
            && self.is_outside(call).await
            && self.is_remote(call).await
    }

    /// Tells whether it matters who made the thread.
    pub(super) fn needs_lineage(&self) -> bool {
        matches!(self.thread, Some(ThreadTest::Descended(_)))
    }

    fn is_thread(&self, call: &Notification, lineage: Option<&str>) -> bool {
        let Some(test) = &self.thread else { return true };
        let tid = call.tid();
        match test {
            ThreadTest::Id(wanted) => tid == Some(*wanted),
            ThreadTest::Leader => tid.is_some() && call.pid().ok() == tid,
            ThreadTest::Named(name) => tid.is_some_and(|tid| has_name(tid, name)),
            ThreadTest::Descended(name) => lineage == Some(name),
        }
    }

    fn is_program(&self, call: &Notification) -> bool {
        let Some(program) = &self.program else {
            return true;
        };
        let Ok(pid) = call.pid() else { return false };
        let executable = std::fs::read_link(format!("/proc/{pid}/exe"));
        match program {
            ProgramTest::At(wanted) => executable.is_ok_and(|path| wanted.is(&path)),
            ProgramTest::Named(name) => {
                executable.is_ok_and(|path| path.file_name() == Some(name)) || has_name(pid, name)
            }
        }
    }

    fn is_descriptor(&self, call: &Notification) -> bool {
        self.descriptor
            .is_none_or(|wanted| descriptors(call).contains(&wanted))
    }

    async fn is_file(&self, call: &Notification) -> bool {
        let Some(wanted) = &self.path else { return true };
        if descriptors(call)
            .iter()
            .filter_map(|number| opened(call.tid()?, *number))
            .any(|path| wanted.is(&path))
        {
            return true;
        }
        for argument in call.sysno().map_or(&[][..], arguments::paths) {
            if named(call, *argument).await.iter().any(|name| wanted.is(name)) {
                return true;
            }
        }
        let sockets = |base: &Path, path: &Path| spellings(base, path);
        let sockets = look_at_sockets(call, sockets).await;
        sockets.iter().flatten().any(|name| wanted.is(name))
    }

    async fn is_outside(&self, call: &Notification) -> bool {
        if self.outside.is_empty() {
            return true;
        }
        let elsewhere = |path: &PathBuf| !self.outside.iter().any(|place| place.is(path));
        let mut named = false;
        for argument in call.sysno().map_or(&[][..], arguments::paths) {
            let Some(path) = destination(call, *argument).await else {
                continue;
            };
            if elsewhere(&path) {
                return true;
            }
            named = true;
        }
        if look_at_sockets(call, resolved).await.iter().any(elsewhere) {
            return true;
        }
        // Some calls do without a path. What is no file, such as a pipe, is nowhere.
        let opened = descriptors(call)
            .into_iter()
            .filter_map(|number| opened(call.tid()?, number))
            .filter(|path| path.is_absolute());
        !named && opened.into_iter().any(|path| elsewhere(&path))
    }

    async fn is_remote(&self, call: &Notification) -> bool {
        let remote = |_: &Path, addresses: Vec<Address>| addresses.iter().any(peers::is_remote);
        !self.remote || look_at_peers(call, remote).await == Some(true)
    }
}

/// The numbers in the arguments of a call that are descriptors.
pub(super) fn descriptors(call: &Notification) -> Vec<i32> {
    let places = call.sysno().map_or(&[][..], arguments::descriptors);
    places.iter().map(|place| call.args()[*place] as i32).collect()
}

/// What a descriptor of a thread leads to.
pub(super) fn opened(tid: i32, number: i32) -> Option<PathBuf> {
    let path = std::fs::read_link(format!("/proc/{tid}/fd/{number}")).ok()?;
    let name = path.as_os_str().as_bytes();
    match name.strip_suffix(b" (deleted)") {
        Some(name) => Some(OsStr::from_bytes(name).into()),
        None => Some(path),
    }
}

/// The names that a path argument of a frozen thread may be known by. It is read, and its links are followed, where that
/// may stall.
pub(super) async fn named(call: &Notification, argument: PathArgument) -> Vec<PathBuf> {
    look_at(call, argument, spellings).await.unwrap_or_default()
}

/// The file that a path argument of a frozen thread leads to, as far as it is there.
async fn destination(call: &Notification, argument: PathArgument) -> Option<PathBuf> {
    let follows = follows(call);
    look_at(call, argument, move |base: &Path, path: &Path| match follows {
        true => resolved(base, path),
        false => in_directory(&absolute(base, path)),
    })
    .await
}

/// Where a path leads to, as far as it is there.
fn resolved(base: &Path, path: &Path) -> PathBuf {
    let written = absolute(base, path);
    std::fs::canonicalize(&written).unwrap_or_else(|_| in_directory(&written))
}

/// The same without the last link.
fn in_directory(written: &Path) -> PathBuf {
    let directory = || std::fs::canonicalize(written.parent()?).ok();
    let whole = || Some(directory()?.join(written.file_name()?));
    whole().unwrap_or_else(|| written.to_owned())
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
) -> Option<T> {
    let args = call.args();
    let tid = call.tid()?;
    let base = match argument.directory.map(|place| args[place] as i32) {
        None | Some(libc::AT_FDCWD) => std::fs::read_link(format!("/proc/{tid}/cwd")).ok(),
        Some(number) => opened(tid, number),
    };
    let base = base.unwrap_or_else(|| "/".into());
    let address = args[argument.path].cast_unsigned();
    let look = call.look(move |target| Ok(make(&base, &target.read_path(address)?)));
    tokio::time::timeout(LOOK_LIMIT, look).await.ok()?.ok()
}

/// Makes something of each name of a Unix socket that a call wants to reach.
async fn look_at_sockets<T: Send + 'static>(
    call: &Notification,
    make: impl Fn(&Path, &Path) -> T + Send + 'static,
) -> Vec<T> {
    let each = move |base: &Path, addresses: Vec<Address>| {
        let paths = addresses.iter().filter_map(|address| match address {
            Address::UnixPath(path) => Some(path),
            _ => None,
        });
        paths.map(|path| make(base, path)).collect()
    };
    look_at_peers(call, each).await.unwrap_or_default()
}

/// Makes something of the addresses that a call wants to reach, with the directory that they are relative to.
async fn look_at_peers<T: Send + 'static>(
    call: &Notification,
    make: impl FnOnce(&Path, Vec<Address>) -> T + Send + 'static,
) -> Option<T> {
    let sysno = call.sysno().filter(|sysno| peers::can_name(*sysno))?;
    let (tid, args) = (call.tid()?, call.args());
    let look = call.look(move |target| {
        let base = std::fs::read_link(format!("/proc/{tid}/cwd")).unwrap_or_else(|_| "/".into());
        Ok(make(&base, peers::named(target, sysno, args)?))
    });
    tokio::time::timeout(LOOK_LIMIT, look).await.ok()?.ok()
}

fn has_name(tid: i32, wanted: &OsStr) -> bool {
    let wanted = wanted.as_bytes();
    let kept = &wanted[..wanted.len().min(NAME_LENGTH)];
    std::fs::read(format!("/proc/{tid}/comm")).is_ok_and(|name| name.strip_suffix(b"\n") == Some(kept))
}
