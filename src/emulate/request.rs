//! What a call asks for, as the kernel would read its arguments.

use nix::errno::Errno;
use syscalls::Sysno;

use super::resolve::{Base, Rules};
use super::sys::{self, OpenHow};
use crate::error::{Error, Result};
use crate::notify::Target;

/// The flags that mean something with `O_PATH`; the others are ignored.
const PATH_FLAGS: i32 = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_PATH | libc::O_CLOEXEC;
/// Without the bit that it shares with `O_DIRECTORY`.
const TMPFILE: i32 = libc::O_TMPFILE & !libc::O_DIRECTORY;
/// The permission bits that a new file can get.
const MODE: u32 = 0o7777;
/// More bytes than this the kernel takes for no `struct open_how`.
const HOW_LIMIT: u64 = 4096;

/// The arguments of an open call apart from its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) flags: i32,
    pub(super) mode: u32,
    pub(super) resolve: u64,
}

/// Where in the arguments of a call things are. The registers of C's `int` arguments may have anything in their upper
/// halves (T35).
pub(super) struct Arguments {
    pub(super) base: Base,
    pub(super) path: u64,
    how: How,
}

enum How {
    Flags(i32, u32),
    Struct { address: u64, size: u64 },
}

impl Arguments {
    pub(super) fn of(sysno: Sysno, args: [i64; 6]) -> Option<Self> {
        let [first, second, third, fourth, ..] = args;
        let here = Base::WorkingDirectory;
        let (base, path, how) = match sysno {
            Sysno::open => (here, first, How::Flags(second as i32, third as u32)),
            Sysno::creat => {
                let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
                (here, first, How::Flags(flags, second as u32))
            }
            Sysno::openat => (Base::of(first), second, How::Flags(third as i32, fourth as u32)),
            Sysno::openat2 => {
                let how = How::Struct {
                    address: third as u64,
                    size: fourth as u64,
                };
                (Base::of(first), second, how)
            }
            _ => return None,
        };
        Some(Self {
            base,
            path: path as u64,
            how,
        })
    }

    /// Reads what the registers do not hold, and refuses what the kernel would.
    pub(super) fn request(&self, target: &Target) -> Result<Request> {
        match self.how {
            How::Flags(flags, mode) => {
                sys::check_open(flags, mode).map_err(invalid)?;
                Ok(Request::plain(flags, mode))
            }
            How::Struct { address, size } => {
                let how = read_how(target, address, size)?;
                sys::check_open_how(&how).map_err(invalid)?;
                Ok(Request {
                    // The kernel knows no flags in the upper half.
                    flags: how.flags as i32,
                    mode: how.mode as u32,
                    resolve: how.resolve,
                })
            }
        }
    }
}

/// Reads a struct of any size, as `openat2(2)` says: what this kernel does not know must be zero.
fn read_how(target: &Target, address: u64, size: u64) -> Result<OpenHow> {
    const KNOWN: u64 = size_of::<OpenHow>() as u64;
    if size < KNOWN {
        return Err(invalid(Errno::EINVAL));
    }
    if size > HOW_LIMIT {
        return Err(invalid(Errno::E2BIG));
    }
    let mut rest = vec![0; (size - KNOWN) as usize];
    let mut done = 0;
    while done < rest.len() {
        let at = address.wrapping_add(KNOWN + done as u64);
        done += target.read_memory(at, &mut rest[done..])?;
    }
    if rest.iter().any(|byte| *byte != 0) {
        return Err(invalid(Errno::E2BIG));
    }
    let [flags, mode, resolve] = target.read_value(address)?;
    Ok(OpenHow { flags, mode, resolve })
}

pub(super) fn invalid(source: Errno) -> Error {
    Error::InvalidCall { source }
}

impl Request {
    fn plain(flags: i32, mode: u32) -> Self {
        let flags = match flags & libc::O_PATH {
            0 => flags,
            _ => flags & PATH_FLAGS,
        };
        let makes = flags & (libc::O_CREAT | TMPFILE) != 0;
        Self {
            flags,
            mode: if makes { mode & MODE } else { 0 },
            resolve: 0,
        }
    }

    pub(super) fn has(&self, flags: i32) -> bool {
        self.flags & flags == flags
    }

    pub(super) fn temporary(&self) -> bool {
        self.flags & TMPFILE != 0
    }

    /// Whether what is opened could be changed by it, now or later.
    pub(super) fn writes(&self) -> bool {
        let access = self.flags & libc::O_ACCMODE != libc::O_RDONLY;
        !self.has(libc::O_PATH) && (access || self.has(libc::O_TRUNC) || self.temporary())
    }

    pub(super) fn rules(&self) -> Rules {
        let exclusive = self.has(libc::O_CREAT | libc::O_EXCL);
        Rules {
            resolve: self.resolve,
            follow: !exclusive && !self.has(libc::O_NOFOLLOW),
            create: self.has(libc::O_CREAT),
            directory: self.has(libc::O_DIRECTORY),
            used: !self.has(libc::O_PATH),
        }
    }

    /// The flags with which something is opened by a descriptor that stands for it.
    pub(super) fn flags_of_existing(&self) -> i32 {
        let made = match self.has(libc::O_CREAT) {
            true => libc::O_CREAT | libc::O_EXCL,
            false => 0,
        };
        self.flags & !(made | libc::O_NOFOLLOW)
    }
}
