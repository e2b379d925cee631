//! Opening what was found.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;

use super::opened::Opened;
use super::place::named;
use super::request::Request;
use super::resolve::{Found, Node, Origin, check_existing, is_withheld};
use super::sys;

/// `/dev/tty`: the terminal of whoever opens it.
const CONTROLLING_TERMINAL: (u32, u32) = (5, 0);

/// Opens what was found, except for a FIFO, which may wait.
pub(super) fn open(origin: &Origin, found: &Found, request: &Request) -> Result<Opened, Errno> {
    let (node, place) = match found {
        Found::Free { parent, name } => {
            return make(origin, parent, name, request).map(|fd| Opened::new(fd, false));
        }
        Found::Object { node, place } => (node, named(place.as_ref())),
    };
    check(origin, node, place, request)?;
    if node.is_symlink() {
        let duplicate = node.as_fd().try_clone_to_owned();
        return duplicate.map(Opened::path_only).map_err(|_| Errno::ENFILE);
    }
    let fd = match request.temporary() {
        true => with_umask(origin, request.mode, |mode| {
            sys::open_again(node.as_fd(), request.flags, mode)
        }),
        false => sys::open_again(node.as_fd(), request.flags_of_existing(), 0),
    };
    match request.has(libc::O_PATH) {
        true => fd.map(Opened::path_only),
        false => fd.map(|fd| Opened::new(fd, node.is_device())),
    }
}

/// Refuses what the kernel would refuse the target, and what must not be opened in its place.
pub(super) fn check(
    origin: &Origin,
    node: &Node,
    place: Option<(&Node, &[u8])>,
    request: &Request,
) -> Result<(), Errno> {
    if request.has(libc::O_CREAT) {
        if request.has(libc::O_EXCL) {
            return Err(Errno::EEXIST);
        }
        if node.is_directory() {
            return Err(Errno::EISDIR);
        }
        if let Some((parent, _)) = place {
            check_existing(origin, parent, node)?;
        }
    }
    if request.has(libc::O_PATH) {
        return Ok(());
    }
    if node.is_symlink() {
        return Err(Errno::ELOOP);
    }
    if node.is_character_device() && node.device == CONTROLLING_TERMINAL {
        // It would be this process's. To the target it has none.
        return Err(Errno::ENXIO);
    }
    match is_withheld(node, place, request.writes())? {
        true => Err(Errno::EACCES),
        false => Ok(()),
    }
}

/// Makes a file under a name that was free. If it is so no more, it is `EEXIST`.
fn make(origin: &Origin, parent: &Node, name: &OsStr, request: &Request) -> Result<OwnedFd, Errno> {
    let name = CString::new(name.as_bytes()).map_err(|_| Errno::EINVAL)?;
    let flags = request.flags | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    with_umask(origin, request.mode, |mode| {
        sys::open_at(parent.as_fd(), &name, flags, mode)
    })
}

/// Makes a file with the permissions that the target's umask leaves.
///
/// The umask is the kernel's to apply, since a directory's default ACL takes its place. It belongs to all threads of this
/// process, so it is set on a thread that ends with this.
fn with_umask(
    origin: &Origin,
    mode: u32,
    make: impl Fn(u32) -> Result<OwnedFd, Errno> + Sync,
) -> Result<OwnedFd, Errno> {
    let umask = origin.umask()?;
    let made = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(64 * 1024);
        let thread = thread.spawn_scoped(scope, || {
            sys::unshare_umask().ok()?;
            sys::set_umask(umask);
            Some(make(mode))
        });
        // A panic is none of this code; it is as if there had been no thread.
        thread.ok().and_then(|thread| thread.join().ok()).flatten()
    });
    if let Some(made) = made {
        return made;
    }
    // A container may forbid unshare(2) as a whole. Until the mode is right it is a stricter one.
    let fd = make(mode & !umask)?;
    sys::set_mode(fd.as_fd(), mode & !umask)?;
    Ok(fd)
}
