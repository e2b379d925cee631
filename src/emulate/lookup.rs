use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;

use super::place::named;
use super::resolve::{Base, Found, Origin, Rules, is_withheld, walk};
use super::{Place, errno, no_access};
use crate::bound::{Bound, Length};
use crate::error::{Error, Result};
use crate::notify::Notification;

/// A path in the arguments of any call of a frozen target, to find out what it means.
///
/// For calls that have no emulation of their own, such as `unlink(2)`, `rename(2)` or `stat(2)`: the [`Place`] holds the
/// object, or the directory and the name in it, by descriptors, on which a supervisor can perform the call itself
/// (`unlinkat(2)`, `renameat(2)`, `fstat(2)`). The path was read once, so that it means one thing, whatever other threads
/// of the target do.
///
/// # Security
///
/// See [the module](super#security). What is performed on a [`Place`] is performed with this process's rights and umask.
///
/// # Examples
///
/// ```
/// use asm_tracer::{Delivery, Errno, Error, Notification, Sysno, emulate::Lookup};
/// # use std::os::fd::BorrowedFd;
/// # use std::ffi::OsStr;
/// # fn unlink(directory: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> { Ok(()) }
///
/// // The `unlink(2)` of a target, on what the policy has looked at.
/// async fn serve(call: Notification) -> asm_tracer::Result<Delivery> {
///     let lookup = Lookup::read(&call, libc::AT_FDCWD, call.args()[0] as u64).await?;
///     let done = match lookup.name().await {
///         Ok(place) if place.path().is_ok_and(|path| path.starts_with("/tmp")) => match place.name() {
///             Some((directory, name)) => unlink(directory, name),
///             None => Err(Errno::EBUSY),
///         },
///         Ok(_) => Err(Errno::EACCES),
///         Err(errno) => Err(errno),
///     };
///     Ok(match done {
///         Ok(()) => call.respond(0)?,
///         Err(errno) => call.error(errno)?,
///     })
/// }
/// ```
#[must_use = "it finds nothing by itself"]
#[derive(Clone)]
pub struct Lookup {
    bound: Arc<Bound>,
    origin: Arc<Origin>,
    path: Vec<u8>,
}

impl Lookup {
    /// Reads the path at `address` in a frozen target. A relative one begins in the directory that is open as `dirfd` there,
    /// or in its working directory (`AT_FDCWD`).
    ///
    /// The numbers and addresses of a call of another ABI are no different, but its arguments are elsewhere: see
    /// [`Notification::arch`].
    ///
    /// # Errors
    ///
    /// [`Error::Fault`] for a bad pointer, [`Error::TooLong`] for a path that is, [`Error::NoAccess`] without the right to trace
    /// the target, [`Error::UnknownPid`], [`Error::Gone`] and [`Error::Io`]. The call stays answerable.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    pub async fn read(call: &Notification, dirfd: i32, address: u64) -> Result<Self> {
        let tid = call.tid().ok_or(Error::UnknownPid)?;
        let read = call.look(move |target| {
            let path = target.read_path(address)?.into_os_string().into_vec();
            Ok((path, Origin::new(tid, Base::of(dirfd.into()))))
        });
        let (path, origin) = read.await?;
        // It was the frozen thread only if that is frozen still: tids are used again.
        if !call.is_pending() {
            return Err(Error::Gone);
        }
        Ok(Self {
            bound: call.bound(),
            origin: Arc::new(origin.map_err(no_access)?),
            path,
        })
    }

    /// The path as the target wrote it: bytes, which need not be UTF-8; empty if it is, which means a descriptor to calls with
    /// `AT_EMPTY_PATH`, and `ENOENT` to others.
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }

    /// The same with another path, which means what it would mean if the target had written it.
    ///
    /// Bytes from a zero on are left out.
    pub fn with_path(mut self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().as_os_str().as_bytes();
        let end = path.iter().position(|byte| *byte == 0);
        self.path = path[..end.unwrap_or(path.len())].to_vec();
        self
    }

    /// Finds the object that the path means at this moment.
    ///
    /// A symlink at its end is followed, or is itself the object.
    ///
    /// # Errors
    ///
    /// The errno with which the call would fail; `EACCES` for what is [this process's own](super#security).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    pub async fn object(&self, follow: bool) -> Result<Place, Errno> {
        self.find(self.path.clone(), follow, false).await
    }

    /// Finds the directory and the name in it that the path means at this moment, whether there is something of this name or
    /// not, for calls that make, remove or move names.
    ///
    /// [`Place::name`] is `None` if the path ends with `.`, `..` or at the root. Slashes at its end are left out.
    ///
    /// # Errors
    ///
    /// The errno with which the call would fail; `EACCES` for what is [this process's own](super#security).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it changes nothing.
    pub async fn name(&self) -> Result<Place, Errno> {
        let mut path = self.path.clone();
        while path.len() > 1 && path.last() == Some(&b'/') {
            path.pop();
        }
        self.find(path, false, true).await
    }

    async fn find(&self, path: Vec<u8>, follow: bool, create: bool) -> Result<Place, Errno> {
        if self.path.len() >= libc::PATH_MAX as usize {
            return Err(Errno::ENAMETOOLONG);
        }
        let rules = Rules {
            resolve: 0,
            follow,
            create,
            directory: false,
            used: false,
        };
        let origin = Arc::clone(&self.origin);
        let find = move || {
            let found = walk(&origin, &path, rules)?;
            match &found {
                Found::Object { node, place } if is_withheld(node, named(place.as_ref()), create)? => {
                    Err(Errno::EACCES)
                }
                _ => Ok(found),
            }
        };
        let found = self.bound.run(Length::Short, find).await;
        Ok(Place {
            found: found.unwrap_or_else(|error| Err(errno(&error)))?,
            root: Arc::clone(self.origin.root()),
        })
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookup")
            .field("tid", &self.origin.tid())
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}
