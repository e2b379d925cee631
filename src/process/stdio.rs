use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::Mode;
use nix::unistd::pipe2;

/// What a standard stream of a child is.
///
/// The names mean what they mean in [`std::process::Stdio`].
#[derive(Debug, Clone)]
pub struct Stdio(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Inherit,
    Null,
    Piped,
    Fd(Arc<OwnedFd>),
}

impl Stdio {
    /// The stream of the supervising process.
    pub fn inherit() -> Self {
        Self(Kind::Inherit)
    }

    /// `/dev/null`: reads give the end of the file, writes vanish.
    pub fn null() -> Self {
        Self(Kind::Null)
    }

    /// A pipe, whose other end is in the [`Child`](crate::Child).
    pub fn piped() -> Self {
        Self(Kind::Piped)
    }

    pub(super) fn is_inherited(&self) -> bool {
        matches!(self.0, Kind::Inherit)
    }
}

impl From<OwnedFd> for Stdio {
    fn from(fd: OwnedFd) -> Self {
        Self(Kind::Fd(Arc::new(fd)))
    }
}

impl From<File> for Stdio {
    fn from(file: File) -> Self {
        OwnedFd::from(file).into()
    }
}

/// A stream made ready: the child's end, unless it inherits ours, and our end of a pipe.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) child: Option<ChildEnd>,
    pub(super) ours: Option<OwnedFd>,
}

/// A descriptor for the child, above the three that it replaces.
#[derive(Debug)]
pub(super) enum ChildEnd {
    Owned(OwnedFd),
    /// A descriptor of the [`Command`](crate::Command), which is borrowed until the clone.
    Borrowed(RawFd),
}

impl ChildEnd {
    pub(super) fn number(&self) -> RawFd {
        match self {
            Self::Owned(fd) => fd.as_raw_fd(),
            Self::Borrowed(fd) => *fd,
        }
    }
}

impl Stdio {
    /// Opens what the stream needs. `number` is 0, 1 or 2.
    pub(super) fn open(&self, number: usize) -> Result<Stream, Errno> {
        let reads = number == 0;
        match &self.0 {
            Kind::Inherit => Ok(Stream::default()),
            Kind::Null => {
                let flags = if reads { OFlag::O_RDONLY } else { OFlag::O_WRONLY } | OFlag::O_CLOEXEC;
                let null = raised(open("/dev/null", flags, Mode::empty())?)?;
                Ok(Stream {
                    child: Some(ChildEnd::Owned(null)),
                    ours: None,
                })
            }
            Kind::Piped => {
                let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
                let (child, ours) = if reads { (read, write) } else { (write, read) };
                Ok(Stream {
                    child: Some(ChildEnd::Owned(raised(child)?)),
                    ours: Some(ours),
                })
            }
            Kind::Fd(fd) if fd.as_raw_fd() > 2 => Ok(Stream {
                child: Some(ChildEnd::Borrowed(fd.as_raw_fd())),
                ours: None,
            }),
            Kind::Fd(fd) => Ok(Stream {
                child: Some(ChildEnd::Owned(duplicate_above(fd)?)),
                ours: None,
            }),
        }
    }
}

/// Moves a descriptor out of the way of the standard streams, onto which the child duplicates others.
pub(super) fn raised(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    if fd.as_raw_fd() > 2 {
        Ok(fd)
    } else {
        duplicate_above(&fd)
    }
}

#[allow(unsafe_code)]
pub(super) fn duplicate_above(fd: &OwnedFd) -> Result<OwnedFd, Errno> {
    let new = fcntl(fd.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(3))?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(new) })
}
