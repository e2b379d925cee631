use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use syscalls::Sysno;

use super::request::{Arguments, Request, invalid};
use super::resolve::Origin;
use crate::bound::Bound;
use crate::error::{Error, Result};
use crate::notify::{InstallFd, Notification};

/// An `open(2)`, `openat(2)`, `openat2(2)` or `creat(2)` of a frozen target, to be performed in its place.
///
/// All that is in the target's memory was read once; the target's root and the directory in which the path begins are held by
/// descriptors. So it means one thing, whatever other threads of the target do.
///
/// # Security
///
/// See [the module](super#security).
///
/// # Examples
///
/// A policy that decides on what is opened, and not on what it is called:
///
/// ```
/// use asm_tracer::{Errno, Supervisor, emulate};
///
/// # async fn serve(mut supervisor: Supervisor) -> asm_tracer::Result<()> {
/// while let Some(call) = supervisor.next().await {
///     match emulate::Open::read(&call).await {
///         Ok(Some(open)) => {
///             open.answer_if(call, |place| match place.path()?.starts_with("/etc") {
///                 true => Err(Errno::EACCES),
///                 false => Ok(()),
///             })
///             .await?
///         }
///         Ok(None) => call.continue_syscall()?,
///         Err(error) => call.error(error.errno().unwrap_or(Errno::EIO))?,
///     };
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "it opens nothing by itself"]
#[derive(Clone)]
pub struct Open {
    pub(super) bound: Arc<Bound>,
    pub(super) origin: Arc<Origin>,
    pub(super) path: Vec<u8>,
    /// Whether the path is another one than the target's.
    pub(super) redirected: bool,
    pub(super) request: Request,
}

impl Open {
    /// Reads the call of a frozen target; `None` if it is not one of these, or of another ABI.
    ///
    /// If the filter traps other ABIs, a policy has to refuse their calls: see [`Notification::arch`].
    ///
    /// # Errors
    ///
    /// What the kernel itself would answer is the [`errno`](Error::errno) of the error: [`Error::Fault`] for a bad pointer,
    /// [`Error::TooLong`] for a path that is, [`Error::InvalidCall`] for bad flags. The others are
    /// [`Error::NoAccess`] without the right to trace the target, [`Error::UnknownPid`], [`Error::Gone`] and [`Error::Io`].
    /// The call stays answerable.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    pub async fn read(call: &Notification) -> Result<Option<Self>> {
        let arguments = call.sysno().and_then(|sysno| Arguments::of(sysno, call.args()));
        let Some(arguments) = arguments else {
            return Ok(None);
        };
        let tid = call.tid().ok_or(Error::UnknownPid)?;
        let read = call.look(move |target| {
            // In the order in which the kernel does it.
            let request = arguments.request(target)?;
            let path = target.read_path(arguments.path)?.into_os_string().into_vec();
            if path.is_empty() {
                return Err(invalid(Errno::ENOENT));
            }
            Ok((request, path, Origin::new(tid, arguments.base)))
        });
        let (request, path, origin) = read.await?;
        // It was the frozen thread only if that is frozen still: tids are used again.
        if !call.is_pending() {
            return Err(Error::Gone);
        }
        let origin = origin.map_err(super::no_access)?;
        Ok(Some(Self {
            bound: call.bound(),
            origin: Arc::new(origin),
            path,
            redirected: false,
            request,
        }))
    }

    /// The path as the target wrote it: bytes, which need not be UTF-8. A relative one begins in a directory of the target's.
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }

    /// The flags, such as `O_RDWR | O_CLOEXEC`, without those that the kernel ignores with `O_PATH`.
    pub fn flags(&self) -> i32 {
        self.request.flags
    }

    /// The permissions for a file that it makes, before the target's umask is applied; 0 if it makes none.
    pub fn mode(&self) -> u32 {
        self.request.mode
    }

    /// The `RESOLVE_*` flags of an `openat2(2)`.
    pub fn resolve_flags(&self) -> u64 {
        self.request.resolve
    }

    /// Tells whether it could change what it opens: it opens it for writing, or truncates it.
    ///
    /// If [`Place::object`](super::Place::object) is `None`, it makes a file as well.
    pub fn writes(&self) -> bool {
        self.request.writes()
    }

    /// Tells whether the descriptor is closed when the target executes another program.
    pub fn close_on_exec(&self) -> bool {
        self.request.has(libc::O_CLOEXEC)
    }

    /// How a descriptor is to be installed that answers this call, for [`Notification::respond_with_fd`].
    pub fn install(&self) -> InstallFd {
        InstallFd::new().close_on_exec(self.close_on_exec())
    }

    /// The same call with another path, which means what it would mean if the target had written it.
    ///
    /// Bytes from a zero on are left out.
    pub fn with_path(mut self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().as_os_str().as_bytes();
        let end = path.iter().position(|byte| *byte == 0);
        self.path = path[..end.unwrap_or(path.len())].to_vec();
        self.redirected = true;
        self
    }

    /// Tells whether a call is one of those that this emulates.
    pub fn emulates(sysno: Sysno) -> bool {
        matches!(sysno, Sysno::open | Sysno::creat | Sysno::openat | Sysno::openat2)
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open")
            .field("tid", &self.origin.tid())
            .field("path", &self.path())
            .field("flags", &self.request.flags)
            .field("mode", &self.request.mode)
            .field("resolve", &self.request.resolve)
            .finish_non_exhaustive()
    }
}
