//! Errnos by name.

use nix::errno::Errno;

/// The errnos of the kernel's interface that have a name, each with it, in the order of their numbers.
pub(crate) fn errnos() -> impl Iterator<Item = (String, Errno)> {
    let known = (1..=133)
        .map(Errno::from_raw)
        .filter(|errno| *errno != Errno::UnknownErrno);
    known.map(|errno| (format!("{errno:?}"), errno))
}
