//! The descriptors that a child has from the supervisor and its program will not have.
//!
//! The exec closes them. One that waits for an answer may wait for long, and meanwhile they would keep other
//! children's listeners (T24) and pipes open, and the sockets over which other starts come to their end.
#![allow(unsafe_code)]

use std::os::fd::RawFd;

use syscalls::Sysno;

use super::entry::call;

/// Room for `struct linux_dirent64`s, aligned as they are.
#[repr(C, align(8))]
struct Entries([u8; 1024]);

/// Where an entry has its length and its name.
const LENGTH: usize = 16;
const NAME: usize = 19;

/// Closes what the exec would close, but for one. Like the rest of the child, it neither allocates nor panics.
///
/// Without a `/proc` it does nothing.
pub(super) fn close_ahead_of_exec(keep: RawFd) -> Result<(), i32> {
    let flags = (libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC) as usize;
    let directory = call(Sysno::open, [c"/proc/self/fd".as_ptr().addr(), flags, 0])?;
    let mut entries = Entries([0; 1024]);
    loop {
        let (buffer, room) = ((&raw mut entries.0).addr(), entries.0.len());
        let filled = call(Sysno::getdents64, [directory, buffer, room])?;
        let mut rest = entries.0.get(..filled).unwrap_or_default();
        if rest.is_empty() {
            break;
        }
        while let Some((entry, later)) = split(rest) {
            rest = later;
            if let Some(fd) = number(entry).filter(|fd| *fd != directory && *fd != keep as usize)
                && call(Sysno::fcntl, [fd, libc::F_GETFD as usize, 0])? & libc::FD_CLOEXEC as usize != 0
            {
                // It is closed whatever this returns.
                let _ = call(Sysno::close, [fd, 0, 0]);
            }
        }
    }
    call(Sysno::close, [directory, 0, 0]).map(drop)
}

/// The first entry, and what follows it.
fn split(entries: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = entries.get(LENGTH..)?.first_chunk().copied()?;
    entries.split_at_checked(u16::from_ne_bytes(length).into())
}

/// The entry's name as a number; `None` for `.` and `..`.
fn number(entry: &[u8]) -> Option<usize> {
    let mut number: Option<usize> = None;
    for byte in entry.get(NAME..)?.iter().take_while(|byte| **byte != 0) {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number = number.unwrap_or(0).checked_mul(10)?.checked_add(digit.into());
    }
    number
}
