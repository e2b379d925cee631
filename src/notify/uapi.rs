//! The kernel's side of a listener: structs of `linux/seccomp.h`, one function per ioctl.
#![allow(unsafe_code)]

use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// The call that a frozen thread made (`struct seccomp_data`).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Data {
    pub(crate) nr: i32,
    pub(crate) arch: u32,
    pub(crate) instruction_pointer: u64,
    pub(crate) args: [u64; 6],
}

/// One frozen thread (`struct seccomp_notif`).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) tid: u32,
    pub(crate) flags: u32,
    pub(crate) data: Data,
}

/// The answer to one frozen thread (`struct seccomp_notif_resp`).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Response {
    pub(crate) id: u64,
    pub(crate) value: i64,
    pub(crate) error: i32,
    pub(crate) flags: u32,
}

/// A descriptor for one frozen thread (`struct seccomp_notif_addfd`).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct AddFd {
    pub(crate) id: u64,
    pub(crate) flags: u32,
    pub(crate) source: u32,
    pub(crate) number: u32,
    pub(crate) descriptor_flags: u32,
}

/// A buffer with room for the struct of a later kernel, which copies as many bytes as *its* struct has (T17).
#[repr(C)]
#[derive(Clone, Copy)]
struct Padded<T> {
    value: T,
    reserve: [u64; RESERVE / 8],
}

const RESERVE: usize = 64;

const _: () = {
    assert!(size_of::<Data>() == 64 && offset_of!(Data, args) == 16);
    assert!(size_of::<Request>() == 80 && offset_of!(Request, data) == 16);
    assert!(size_of::<Response>() == 24 && offset_of!(Response, flags) == 20);
    assert!(size_of::<AddFd>() == 24 && offset_of!(AddFd, descriptor_flags) == 20);
};

/// The largest structs of a kernel that these buffers can serve: (request, response), in bytes.
pub(crate) const CAPACITY: (usize, usize) = (size_of::<Request>() + RESERVE, size_of::<Response>() + RESERVE);

/// `linux/audit.h`: the machine, with the bits for 64-bit and little-endian.
pub(crate) const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
pub(crate) const AUDIT_ARCH_I386: u32 = 0x4000_0003;

pub(crate) const FLAG_CONTINUE: u32 = 1;
/// The number is that of [`AddFd`], which closes what is open there.
pub(crate) const ADD_FD_REPLACE: u32 = 1;
/// The call returns the number, in the same step.
pub(crate) const ADD_FD_SEND: u32 = 2;

const IOCTL_RECV: libc::Ioctl = request_number(3, 0, size_of::<Request>());
const IOCTL_SEND: libc::Ioctl = request_number(3, 1, size_of::<Response>());
const IOCTL_ID_VALID: libc::Ioctl = request_number(1, 2, size_of::<u64>());
const IOCTL_ADD_FD: libc::Ioctl = request_number(1, 3, size_of::<AddFd>());
const IOCTL_SET_FLAGS: libc::Ioctl = request_number(1, 4, size_of::<u64>());
const SYNC_WAKE_UP: u64 = 1;

/// `_IOC(direction, '!', number, size)` of `asm-generic/ioctl.h`; direction 1 writes, 3 reads and writes.
const fn request_number(direction: u64, number: u64, size: usize) -> libc::Ioctl {
    (direction << 30) | ((size as u64) << 16) | ((b'!' as u64) << 8) | number
}

/// Makes a request, as [`completed`] does, that succeeds with nothing to tell.
fn uninterrupted(request: impl FnMut() -> i32) -> Result<(), Errno> {
    completed(request).map(drop)
}

/// Makes a request that fails with `EINTR` if a signal comes while another thread holds the listener's lock, for which
/// the kernel waits interruptibly (T14). Nothing has happened then.
fn completed(mut request: impl FnMut() -> i32) -> Result<i32, Errno> {
    loop {
        match Errno::result(request()) {
            Err(Errno::EINTR) => {}
            outcome => return outcome,
        }
    }
}

/// Takes the oldest call that waits. Blocks when there is none, whatever `O_NONBLOCK` says (T1).
pub(crate) fn receive(listener: BorrowedFd<'_>) -> Result<Request, Errno> {
    // SAFETY: all fields are integers, for which zero is a value. The kernel demands zeros (T17).
    let mut buffer: Padded<Request> = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes its own struct, whose size `KernelSupport` compared with `CAPACITY`.
    Errno::result(unsafe { libc::ioctl(listener.as_raw_fd(), IOCTL_RECV, &raw mut buffer) })?;
    Ok(buffer.value)
}

/// Answers a call.
pub(crate) fn send(listener: BorrowedFd<'_>, response: Response) -> Result<(), Errno> {
    let mut buffer = Padded {
        value: response,
        reserve: [0; RESERVE / 8],
    };
    // SAFETY: the kernel reads its own struct, whose size `KernelSupport` compared with `CAPACITY`.
    uninterrupted(|| unsafe { libc::ioctl(listener.as_raw_fd(), IOCTL_SEND, &raw mut buffer) })
}

/// Tells whether the call is still waiting for its answer.
pub(crate) fn id_is_valid(listener: BorrowedFd<'_>, id: u64) -> Result<(), Errno> {
    // SAFETY: the kernel reads eight bytes.
    uninterrupted(|| unsafe { libc::ioctl(listener.as_raw_fd(), IOCTL_ID_VALID, &raw const id) })
}

/// Adds a descriptor to the target's table and gives its number there. Blocks until the target has run (T20).
///
/// The struct has the size that the ioctl's number tells, so that a later kernel knows which one it is.
pub(crate) fn add_fd(listener: BorrowedFd<'_>, request: AddFd) -> Result<i32, Errno> {
    // SAFETY: the kernel reads the struct, of the size that is part of the ioctl's number.
    completed(|| unsafe { libc::ioctl(listener.as_raw_fd(), IOCTL_ADD_FD, &raw const request) })
}

/// Chooses whether an answer hands the CPU straight to the target, and a trapped call to its receiver.
///
/// The argument is the value itself and no pointer, despite the ioctl's number (T18).
pub(crate) fn set_sync_wake_up(listener: BorrowedFd<'_>, on: bool) -> Result<(), Errno> {
    let flags = if on { SYNC_WAKE_UP } else { 0 };
    // SAFETY: the argument is taken by value; no memory is touched.
    uninterrupted(|| unsafe { libc::ioctl(listener.as_raw_fd(), IOCTL_SET_FLAGS, flags) })
}

/// The sizes of this kernel's request and response, in bytes.
pub(crate) fn sizes() -> Result<(usize, usize), Errno> {
    let mut sizes = libc::seccomp_notif_sizes {
        seccomp_notif: 0,
        seccomp_notif_resp: 0,
        seccomp_data: 0,
    };
    // SAFETY: the kernel writes the three sizes.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_NOTIF_SIZES,
            0,
            &raw mut sizes,
        )
    })?;
    Ok((sizes.seccomp_notif.into(), sizes.seccomp_notif_resp.into()))
}
