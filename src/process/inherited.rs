//! The descriptors that a child has from the supervisor and its program will not have.
//!
//! The exec closes them. One that waits for an answer may wait for long, and meanwhile they would keep other
//! children's listeners (T24) and pipes open, and the sockets over which other starts come to their end.
#![allow(unsafe_code)]

use std::os::fd::RawFd;

use syscalls::Sysno;

use super::entry::call;
use crate::syscall::{SyscallError, pointer};

/// Room for `struct linux_dirent64`s, aligned as they are.
#[repr(C, align(8))]
struct Entries([u8; 1024]);

/// Where an entry has its length and its name.
const LENGTH: usize = 16;
const NAME: usize = 19;

/// Closes what the exec would close, but for what is still needed. Like the rest of the child, it neither allocates nor panics.
///
/// Without a `/proc` it does nothing.
pub(super) fn close_ahead_of_exec(socket: RawFd, ruleset: Option<RawFd>) -> Result<(), SyscallError> {
    let keep = [socket, ruleset.unwrap_or(socket)].map(i64::from);
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let directory = call(Sysno::open, [pointer(c"/proc/self/fd".as_ptr()), flags.into(), 0])?;
    let mut entries = Entries([0; 1024]);
    loop {
        let (buffer, room) = (pointer(&raw mut entries.0), entries.0.len() as i64);
        let filled = call(Sysno::getdents64, [directory, buffer, room])?;
        let mut rest = entries.0.get(..filled as usize).unwrap_or_default();
        if rest.is_empty() {
            break;
        }
        while let Some((entry, later)) = split(rest) {
            rest = later;
            if let Some(fd) = number(entry).filter(|fd| *fd != directory && !keep.contains(fd))
                && call(Sysno::fcntl, [fd, libc::F_GETFD.into(), 0])? & i64::from(libc::FD_CLOEXEC) != 0
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
fn number(entry: &[u8]) -> Option<i64> {
    let mut number: Option<i64> = None;
    for byte in entry.get(NAME..)?.iter().take_while(|byte| **byte != 0) {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number = number.unwrap_or(0).checked_mul(10)?.checked_add(digit.into());
    }
    number
}
