//! Where a frozen thread's paths begin, and what else of it decides what they mean.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;

use super::node::Node;
use crate::emulate::sys;

/// The thread by its directory in `/proc`: all that is found there is this thread's, and nothing is once it is dead,
/// even if its tid is used again.
#[derive(Debug)]
pub(in crate::emulate) struct Origin {
    thread: OwnedFd,
    tid: i32,
    root: Arc<Node>,
    /// The directory in which relative paths begin; why there is none, for a call that may not need one.
    base: Result<Arc<Node>, Errno>,
}

/// Where a relative path begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::emulate) enum Base {
    WorkingDirectory,
    /// A descriptor of the target's.
    Descriptor(i32),
}

impl Base {
    /// The `dirfd` argument, of which the kernel takes the lower half (T35).
    pub(in crate::emulate) fn of(dirfd: i64) -> Self {
        match dirfd as i32 {
            libc::AT_FDCWD => Self::WorkingDirectory,
            number => Self::Descriptor(number),
        }
    }
}

impl Origin {
    /// Takes hold of the thread's root and base. They are the frozen thread's only if it is frozen still afterwards.
    pub(in crate::emulate) fn new(tid: i32, base: Base) -> Result<Self, Errno> {
        let path = CString::new(format!("/proc/{tid}")).unwrap_or_default();
        let thread = sys::open(&path, libc::O_PATH | libc::O_DIRECTORY)?;
        let open = |name: &str| {
            let name = CString::new(name).unwrap_or_default();
            sys::open_at(thread.as_fd(), &name, libc::O_PATH, 0).and_then(Node::new)
        };
        let root = Arc::new(open("root")?);
        let base = match base {
            Base::WorkingDirectory => open("cwd"),
            Base::Descriptor(number @ 0..) => match open(&format!("fd/{number}")) {
                Err(Errno::ENOENT) => Err(Errno::EBADF),
                Ok(node) if !node.is_directory() => Err(Errno::ENOTDIR),
                opened => opened,
            },
            Base::Descriptor(_) => Err(Errno::EBADF),
        };
        Ok(Self {
            thread,
            tid,
            root,
            base: base.map(Arc::new),
        })
    }

    pub(in crate::emulate) fn root(&self) -> &Arc<Node> {
        &self.root
    }

    pub(super) fn base(&self) -> Result<&Arc<Node>, Errno> {
        self.base.as_ref().map_err(|errno| *errno)
    }

    /// The umask with which the thread makes files.
    pub(in crate::emulate) fn umask(&self) -> Result<u32, Errno> {
        let status = self.status()?;
        u32::from_str_radix(status.field("Umask")?, 8).map_err(|_| Errno::ESRCH)
    }

    /// The user as whom the thread accesses files.
    pub(super) fn file_owner(&self) -> Result<u32, Errno> {
        let status = self.status()?;
        let user = status.field("Uid")?.split_whitespace().nth(3);
        user.and_then(|user| user.parse().ok()).ok_or(Errno::ESRCH)
    }

    /// What `self` (or `thread-self`) in the root directory of a procfs leads to for this thread, which numbers it as the
    /// pid namespace of that procfs does.
    pub(super) fn own_directory(&self, procfs: &Node, of_thread: bool) -> Result<Vec<u8>, Errno> {
        let status = self.status()?;
        let (pids, tids) = (status.numbers("NStgid")?, status.numbers("NSpid")?);
        let here = sys::open(c"/proc", libc::O_PATH).and_then(Node::new)?;
        let level = if here.identity.same_device(&procfs.identity) {
            0
        } else {
            // One of the namespaces in which the thread has a number is that of this procfs.
            let found = (0..tids.len()).find(|level| self.is_at(procfs, &tids[*level..]));
            // Or none, where the kernel finds no process of that name either.
            found.ok_or(Errno::ENOENT)?
        };
        let (Some(pid), Some(tid)) = (pids.get(level), tids.get(level)) else {
            return Err(Errno::ENOENT);
        };
        Ok(match of_thread {
            true => format!("{pid}/task/{tid}"),
            false => pid.to_string(),
        }
        .into_bytes())
    }

    /// Whether a procfs has this thread under the first of these numbers, which it has from there downwards.
    fn is_at(&self, procfs: &Node, numbers: &[i32]) -> bool {
        let same = || {
            let name = numbers.first()?.to_string();
            let open = |file: &str| {
                let path = CString::new(format!("{name}/{file}")).ok()?;
                sys::open_at(procfs.as_fd(), &path, libc::O_RDONLY, 0).ok()
            };
            let status = Status::read(open("status")?).ok()?;
            let began = start_time(open("stat")?)?;
            let own = sys::open_at(self.thread.as_fd(), c"stat", libc::O_RDONLY, 0).ok()?;
            Some(status.numbers("NSpid").ok()? == numbers && began == start_time(own)?)
        };
        same().unwrap_or(false)
    }

    fn status(&self) -> Result<Status, Errno> {
        Status::read(sys::open_at(self.thread.as_fd(), c"status", libc::O_RDONLY, 0)?)
    }

    pub(in crate::emulate) fn tid(&self) -> i32 {
        self.tid
    }
}

/// The text of a `/proc/PID/status`.
pub(super) struct Status(String);

impl Status {
    pub(super) fn read(fd: OwnedFd) -> Result<Self, Errno> {
        let mut text = Vec::new();
        File::from(fd).read_to_end(&mut text).map_err(errno)?;
        // The name of the program may be anything, but the kernel escapes its line ends.
        Ok(Self(String::from_utf8_lossy(&text).into_owned()))
    }

    pub(super) fn field(&self, name: &str) -> Result<&str, Errno> {
        let value = |line: &'_ str| Some(line.strip_prefix(name)?.strip_prefix(':')?.len());
        let line = self.0.lines().find(|line| value(line).is_some());
        let value = line.and_then(|line| Some(line.split_once(':')?.1.trim()));
        value.ok_or(Errno::ESRCH)
    }

    fn numbers(&self, name: &str) -> Result<Vec<i32>, Errno> {
        let numbers = self.field(name)?.split_whitespace();
        numbers
            .map(|number| number.parse().map_err(|_| Errno::ESRCH))
            .collect()
    }
}

/// When a thread was started, from its `/proc/PID/stat`: the 20th field after the program's name, which ends with the
/// last parenthesis.
fn start_time(fd: OwnedFd) -> Option<u64> {
    let mut text = Vec::new();
    File::from(fd).read_to_end(&mut text).ok()?;
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let fields = str::from_utf8(&text[end + 1..]).ok()?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

fn errno(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
