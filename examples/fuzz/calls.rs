//! The calls that are spoiled, and how.
//!
//! They concern the program alone: its files are read and written as it asks for, or less, and nothing is removed, renamed,
//! signalled or mounted. What is not listed here is left alone.

use asm_tracer::{Errno, Sysno};

/// What can be done to a call so that it still behaves as the kernel might have.
pub(crate) struct Profile {
    pub(crate) sysno: Sysno,
    /// Errors that it can give.
    pub(crate) errors: &'static [Errno],
    /// The argument that says how many bytes are wanted, of which fewer can come.
    pub(crate) length: Option<usize>,
    /// Values at the edge of what it can return, without having done anything.
    pub(crate) values: &'static [i64],
    /// Other values for arguments, by their index.
    pub(crate) arguments: &'static [(usize, i64)],
}

impl Profile {
    const fn of(sysno: Sysno, errors: &'static [Errno]) -> Self {
        Self {
            sysno,
            errors,
            length: None,
            values: &[],
            arguments: &[],
        }
    }

    const fn length(mut self, argument: usize) -> Self {
        self.length = Some(argument);
        self
    }

    const fn values(mut self, values: &'static [i64]) -> Self {
        self.values = values;
        self
    }

    const fn arguments(mut self, arguments: &'static [(usize, i64)]) -> Self {
        self.arguments = arguments;
        self
    }
}

pub(crate) fn profile(sysno: Sysno) -> Option<&'static Profile> {
    ALL.iter().find(|profile| profile.sysno == sysno)
}

const READ: &[Errno] = &[Errno::EINTR, Errno::EAGAIN, Errno::EIO];
const WRITE: &[Errno] = &[Errno::EINTR, Errno::EAGAIN, Errno::EIO, Errno::ENOSPC];
const RECEIVE: &[Errno] = &[Errno::EINTR, Errno::EAGAIN, Errno::ECONNRESET, Errno::ETIMEDOUT];
const SEND: &[Errno] = &[Errno::EINTR, Errno::EAGAIN, Errno::ECONNRESET, Errno::EPIPE];
const OPEN: &[Errno] = &[
    Errno::EINTR,
    Errno::EMFILE,
    Errno::ENFILE,
    Errno::EACCES,
    Errno::ENOENT,
];
const LOOK: &[Errno] = &[Errno::EACCES, Errno::ENOENT, Errno::ENOMEM, Errno::ELOOP];
const WAIT: &[Errno] = &[Errno::EINTR];
const DESCRIPTORS: &[Errno] = &[Errno::EMFILE];
const MEMORY: &[Errno] = &[Errno::ENOMEM];
const END_OF_FILE: &[i64] = &[0];
const NOTHING_YET: &[i64] = &[0];
/// Waits that do not wait, or have room for a single event.
const POLL_AT_ONCE: &[(usize, i64)] = &[(2, 0)];
const EPOLL_AT_ONCE: &[(usize, i64)] = &[(3, 0), (2, 1)];
/// Nothing has so much room.
const HUGE: i64 = i64::MAX & !0xfff;

#[rustfmt::skip]
pub(crate) static ALL: &[Profile] = &[
    // Reading and writing.
    Profile::of(Sysno::read, READ).length(2).values(END_OF_FILE).arguments(&[(2, 0)]),
    Profile::of(Sysno::pread64, READ).length(2).values(END_OF_FILE).arguments(&[(3, i64::MAX), (3, 0)]),
    Profile::of(Sysno::readv, READ).values(END_OF_FILE).arguments(&[(2, 1)]),
    Profile::of(Sysno::write, WRITE).length(2).arguments(&[(2, 0)]),
    // Never at another place, where the file could become huge.
    Profile::of(Sysno::pwrite64, WRITE).length(2).arguments(&[(2, 0)]),
    Profile::of(Sysno::writev, WRITE).arguments(&[(2, 1)]),
    Profile::of(Sysno::sendfile, WRITE).length(3).values(END_OF_FILE),
    Profile::of(Sysno::copy_file_range, &[Errno::EXDEV, Errno::EINVAL, Errno::EIO, Errno::ENOSPC]).length(4)
        .values(END_OF_FILE),
    Profile::of(Sysno::splice, READ).length(4).values(END_OF_FILE),
    Profile::of(Sysno::recvfrom, RECEIVE).length(2).values(END_OF_FILE),
    Profile::of(Sysno::recvmsg, RECEIVE).values(END_OF_FILE),
    Profile::of(Sysno::sendto, SEND).length(2),
    Profile::of(Sysno::sendmsg, SEND),
    Profile::of(Sysno::getrandom, &[Errno::EINTR, Errno::EAGAIN, Errno::ENOSYS]).length(1),
    Profile::of(Sysno::getdents64, &[Errno::EIO, Errno::ENOENT]).values(END_OF_FILE),
    Profile::of(Sysno::lseek, &[Errno::ESPIPE, Errno::EINVAL, Errno::EOVERFLOW]).values(&[0, i64::MAX])
        .arguments(&[(1, 0), (1, i64::MAX), (1, -1)]),
    Profile::of(Sysno::fsync, &[Errno::EIO, Errno::ENOSPC]),
    Profile::of(Sysno::fadvise64, &[Errno::EINVAL, Errno::ESPIPE]).arguments(&[(2, 0), (3, 0), (3, 5)]),
    // Files.
    Profile::of(Sysno::open, OPEN),
    Profile::of(Sysno::openat, OPEN),
    // Not close(2), which closes even if it fails.
    Profile::of(Sysno::stat, LOOK),
    Profile::of(Sysno::lstat, LOOK),
    Profile::of(Sysno::fstat, &[Errno::ENOMEM, Errno::EOVERFLOW]),
    Profile::of(Sysno::newfstatat, LOOK),
    Profile::of(Sysno::statx, &[Errno::ENOSYS, Errno::EACCES, Errno::ENOENT]),
    Profile::of(Sysno::access, LOOK),
    Profile::of(Sysno::faccessat, LOOK),
    Profile::of(Sysno::faccessat2, &[Errno::ENOSYS, Errno::EACCES, Errno::ENOENT]),
    Profile::of(Sysno::readlink, &[Errno::EINVAL, Errno::ENOENT]).length(2),
    Profile::of(Sysno::readlinkat, &[Errno::EINVAL, Errno::ENOENT]).length(3),
    Profile::of(Sysno::getcwd, &[Errno::ENOENT, Errno::ERANGE]),
    Profile::of(Sysno::ioctl, &[Errno::ENOTTY, Errno::EINTR]),
    // Descriptors.
    Profile::of(Sysno::dup, DESCRIPTORS),
    Profile::of(Sysno::dup2, DESCRIPTORS),
    Profile::of(Sysno::dup3, DESCRIPTORS),
    Profile::of(Sysno::pipe, DESCRIPTORS),
    Profile::of(Sysno::pipe2, DESCRIPTORS),
    Profile::of(Sysno::socket, &[Errno::EMFILE, Errno::EAFNOSUPPORT, Errno::EACCES]),
    Profile::of(Sysno::connect, &[Errno::EINTR, Errno::ECONNREFUSED, Errno::ETIMEDOUT, Errno::ENETUNREACH]),
    Profile::of(Sysno::accept, &[Errno::EINTR, Errno::EAGAIN, Errno::ECONNABORTED, Errno::EMFILE]),
    Profile::of(Sysno::accept4, &[Errno::EINTR, Errno::EAGAIN, Errno::ECONNABORTED, Errno::EMFILE]),
    // Waiting.
    Profile::of(Sysno::poll, WAIT).values(NOTHING_YET).arguments(POLL_AT_ONCE),
    Profile::of(Sysno::ppoll, WAIT).values(NOTHING_YET),
    Profile::of(Sysno::select, WAIT),
    Profile::of(Sysno::pselect6, WAIT),
    Profile::of(Sysno::epoll_wait, WAIT).values(NOTHING_YET).arguments(EPOLL_AT_ONCE),
    Profile::of(Sysno::nanosleep, WAIT),
    Profile::of(Sysno::clock_nanosleep, WAIT),
    Profile::of(Sysno::wait4, WAIT),
    Profile::of(Sysno::waitid, WAIT),
    // Memory. Never elsewhere, which could hit what is there.
    Profile::of(Sysno::brk, &[]).arguments(&[(0, 0)]),
    Profile::of(Sysno::mmap, MEMORY).arguments(&[(1, HUGE)]),
    Profile::of(Sysno::mremap, MEMORY).arguments(&[(2, HUGE)]),
    Profile::of(Sysno::madvise, &[Errno::EAGAIN, Errno::ENOMEM]).arguments(&[(1, 0)]),
];
