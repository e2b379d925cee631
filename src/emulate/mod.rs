//! Performing a call in a target's place.
//!
//! A call that is inspected and then [let through](crate::Notification::continue_syscall) may be another one by then: the
//! kernel reads its path or address again, which other threads of the target can change meanwhile, and resolves it again,
//! in a tree in which others can rename and link. Here the supervisor reads what the call says once, finds out what it means
//! for the target, decides on the very object, opens or connects that, and hands over the result. Nothing is looked up
//! twice.
//!
//! - [`Open`] is `open(2)`, `openat(2)`, `openat2(2)` and `creat(2)`, [`Connect`] is `connect(2)`. Each is read from a call,
//!   can be looked at, redirected, performed, and answered.
//! - [`Lookup`] finds out what the path in any other call means, such as `unlink(2)`, for those who perform it themselves.
//! - [`Place`] is what a path means: an object or a free name, held so that it can't be exchanged.
//!
//! A path is resolved as `path_resolution(7)` says, from the target's root and working directory, in its mount namespace:
//! `..` stops at its root, absolute symlinks begin there, `/proc/self` and thus `/dev/stdin` and `/dev/fd` are its own, and
//! `fs.protected_symlinks` and its siblings protect the target's user. A file that is made gets the permissions that the
//! target's umask leaves. What the kernel would answer to an invalid call is answered as well.
//!
//! # Security
//!
//! Things are opened **with this process's rights**, not with the target's: permission bits, capabilities and security
//! modules are asked about this process, and a file that is made belongs to its user. A supervisor that has more rights
//! than its targets, such as one that runs as root, lends them to whatever its policy permits, `/proc/1/mem` and
//! `/dev/mem` included, and must not perform what it has not decided on. If both run as the same user, the kernel decides
//! about most things as it would have for the target.
//!
//! Only this process itself is nobody's to have: what `/proc` shows of it beyond what everybody may read, such as its
//! memory and its descriptors, is refused with `EACCES`. So is what can't be told from that: a file of a procfs that is
//! mounted elsewhere on its own, or that is opened again by a descriptor and can't be found here by its path.
//!
//! A decision on a [`Place`] holds for the object that it was made about. Hard links give an object more than one path, and
//! a directory that is renamed afterwards takes what is in it along; a policy by path decides on the path that the object
//! has at that moment. A policy must decide on *every* call that can reach an object: trap them all, and let none
//! through that has a path in it.
//!
//! A descriptor remembers who has opened it. Some files ask about that when they are written to, those of user namespaces
//! such as `/proc/PID/uid_map` among them.
//!
//! # Descriptors that stand for a path
//!
//! The kernel refuses to hand over what was opened with `O_PATH`. [`Open::answer`] lets such a call through once the policy
//! has agreed to what it means at that moment; the target may get another object then. That is a name more than a file:
//! nothing can be read or written by it, and to open it again takes another call, which is decided on again. But
//! `execveat(2)`, `fchdir(2)` and calls that look at files or change their attributes take it. A policy that is
//! to hold for these has to refuse `O_PATH`, or to [redirect](Open::with_path) it.
//!
//! # What is different
//!
//! - A target has no controlling terminal here: `/dev/tty` is `ENXIO`, since what it means depends on who opens it, and
//!   opening a terminal never makes it the target's (as with `O_NOCTTY`).
//! - What the kernel keeps for each network namespace and shows in `/proc/sys/net` is this process's.
//! - `RESOLVE_CACHED` is always `EAGAIN`.
//! - A file is made before it is known whether the target can take one more descriptor (`EMFILE`).
//! - While this process starts another child, that one has copies of its descriptors until it executes. Something that was opened
//!   for a target may be in use for that moment longer than the target has it (`ETXTBSY`, `EBUSY` of `umount(2)`).
//! - `F_GETFL` never shows `O_NOFOLLOW`.
//!
//! # What waits
//!
//! Everything happens on threads of the library's own, never on the runtime's: 32 at a time for a child and its
//! descendants, and 256 more that wait at FIFOs. A signal to the target ends an open that waits at a FIFO, and a connection
//! that is being made, as it would without a supervisor. (The thread is let go by opening the other end for a moment. Where
//! this process may not do that, it stays until somebody else does.)
//!
//! A file system that does not answer (FUSE, NFS) and a device that waits keep their thread for as long as they like. Only the
//! death of the target ends the emulation then, and nothing ends the thread; other children have their own.
//!
//! # Kernel support
//!
//! As for [`Listener`](crate::Listener). `openat2(2)` has to be there for targets that call it, and `unshare(2)` for default
//! ACLs to take the place of a umask.

mod address;
mod answer;
mod connect;
mod connecting;
mod fifo;
mod lookup;
mod open;
mod opened;
mod opening;
mod perform;
mod place;
mod request;
mod resolve;
mod socket;
mod sys;

pub use address::Address;
pub use connect::Connect;
pub use lookup::Lookup;
pub use open::Open;
pub use place::Place;

use nix::errno::Errno;

use crate::error::Error;

/// Why there was no thread for something.
fn errno(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EINTR))
}

/// What it means that the target's directories in `/proc` can't be used.
fn no_access(errno: Errno) -> Error {
    match errno {
        Errno::EACCES | Errno::EPERM => Error::NoAccess,
        Errno::ESRCH => Error::Gone,
        errno => Error::os("taking hold of the target's directories", errno),
    }
}
