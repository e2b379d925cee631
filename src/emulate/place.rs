use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;

use super::resolve::{Found, Node};

/// What a path of the target means: an object, or a free name in a directory.
///
/// It is held by descriptors, so that it stays the same whatever is renamed, replaced or linked elsewhere from now on: what
/// a policy looks at here is what is opened.
pub struct Place {
    pub(super) found: Found,
    pub(super) root: Arc<Node>,
}

impl Place {
    /// The object, by an `O_PATH` descriptor; `None` if the name is free, and the call would make a file.
    ///
    /// A symlink is one that the call does not follow.
    pub fn object(&self) -> Option<BorrowedFd<'_>> {
        match &self.found {
            Found::Object { node, .. } => Some(node.as_fd()),
            Found::Free { .. } => None,
        }
    }

    /// The directory, by an `O_PATH` descriptor, and the name in it.
    ///
    /// `None` if the path ended with `.`, `..` or at the root, or went through a link such as `/proc/PID/fd/3`, which leads to
    /// an object and not to a name. Of an object that is there the name may be outdated.
    pub fn name(&self) -> Option<(BorrowedFd<'_>, &OsStr)> {
        match &self.found {
            Found::Object { place, .. } => place
                .as_ref()
                .map(|(parent, name)| (parent.as_fd(), name.as_os_str())),
            Found::Free { parent, name } => Some((parent.as_fd(), name)),
        }
    }

    pub(super) fn is_directory(&self) -> bool {
        matches!(&self.found, Found::Object { node, .. } if node.is_directory())
    }

    /// The absolute path, free of symlinks, as this process would write it.
    ///
    /// It is the present path of the very object, or of the directory that the new file would be in. An object may have
    /// others (hard links); one that was removed has a path that ends with ` (deleted)`, and what never had a path, such
    /// as a pipe, has something like `pipe:[123]`. If the target is in another mount namespace, the path is one of that
    /// namespace; compare objects, by `fstat(2)` of [`object`](Self::object), where that matters.
    ///
    /// # Errors
    ///
    /// If `/proc` can't be read.
    pub fn path(&self) -> Result<PathBuf, Errno> {
        Ok(match &self.found {
            Found::Object { node, .. } => path(node)?,
            Found::Free { parent, name } => path(parent)?.join(name),
        })
    }

    /// The same as the target would write it, whose root may be another one; `None` if the object is outside of it.
    ///
    /// # Errors
    ///
    /// If `/proc` can't be read.
    pub fn path_in_target(&self) -> Result<Option<PathBuf>, Errno> {
        let (path, root) = (self.path()?, path(&self.root)?);
        let below = path.strip_prefix(root).ok();
        Ok(below.map(|below| Path::new("/").join(below)))
    }
}

fn path(node: &Node) -> Result<PathBuf, Errno> {
    node.path().map(|path| PathBuf::from(OsString::from_vec(path)))
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("path", &self.path())
            .field("exists", &self.object().is_some())
            .finish_non_exhaustive()
    }
}

/// The directory and name of an object, for those who look for it there.
pub(super) fn named(place: Option<&(Arc<Node>, OsString)>) -> Option<(&Node, &[u8])> {
    place.map(|(parent, name)| (&**parent, name.as_bytes()))
}
