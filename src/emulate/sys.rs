//! The calls behind an emulation, one wrapper each. Paths are C strings, errors the kernel's numbers.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// `struct open_how` of `openat2(2)`, as it has been since it exists.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct OpenHow {
    pub(super) flags: u64,
    pub(super) mode: u64,
    pub(super) resolve: u64,
}

const _: () = assert!(size_of::<OpenHow>() == 24 && offset_of!(OpenHow, resolve) == 16);

/// Opens relative to a directory. The descriptor is always close-on-exec, and never becomes a controlling terminal.
pub(super) fn open_at(dir: BorrowedFd<'_>, path: &CStr, flags: i32, mode: u32) -> Result<OwnedFd, Errno> {
    open_from(dir.as_raw_fd(), path, flags, mode)
}

/// Opens an absolute path of this process.
pub(super) fn open(path: &CStr, flags: i32) -> Result<OwnedFd, Errno> {
    open_from(libc::AT_FDCWD, path, flags, 0)
}

/// Opens what another descriptor of this process stands for, which may be an `O_PATH` one.
pub(super) fn open_again(fd: BorrowedFd<'_>, flags: i32, mode: u32) -> Result<OwnedFd, Errno> {
    open_from(libc::AT_FDCWD, &own_link(fd), flags, mode)
}

fn open_from(dir: RawFd, path: &CStr, flags: i32, mode: u32) -> Result<OwnedFd, Errno> {
    let flags = flags | libc::O_CLOEXEC | libc::O_NOCTTY;
    // SAFETY: the path is a C string.
    let fd = Errno::result(unsafe { libc::openat(dir, path.as_ptr(), flags, mode) }).map_err(own_limit)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// That this process has no descriptor left says nothing about the target's own limit.
fn own_limit(errno: Errno) -> Errno {
    match errno {
        Errno::EMFILE => Errno::ENFILE,
        errno => errno,
    }
}

/// Has the kernel look at the arguments of an `open(2)`, and nothing else: the path is empty.
pub(super) fn check_open(flags: i32, mode: u32) -> Result<(), Errno> {
    // SAFETY: the path is a C string.
    let opened = unsafe { libc::openat(libc::AT_FDCWD, c"".as_ptr(), flags, mode) };
    valid_if_nothing_is_there(opened.into())
}

/// The same for an `openat2(2)`.
pub(super) fn check_open_how(how: &OpenHow) -> Result<(), Errno> {
    let (path, size) = (c"".as_ptr(), size_of::<OpenHow>());
    // SAFETY: the path is a C string and the struct as large as it is said to be.
    let opened = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            libc::AT_FDCWD,
            path,
            std::ptr::from_ref(how),
            size,
        )
    };
    valid_if_nothing_is_there(opened)
}

fn valid_if_nothing_is_there(opened: i64) -> Result<(), Errno> {
    match Errno::result(opened) {
        Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno),
        // No file has this name.
        Ok(_) => Err(Errno::EINVAL),
    }
}

/// Tells whether a symlink is one that the kernel follows by other means than its text, as those of `/proc/PID/fd`.
///
/// Only for links whose text is not a loop.
pub(super) fn is_magic_link(dir: BorrowedFd<'_>, name: &CStr) -> Result<bool, Errno> {
    let how = OpenHow {
        flags: (libc::O_PATH | libc::O_CLOEXEC) as u64,
        mode: 0,
        resolve: libc::RESOLVE_NO_MAGICLINKS | libc::RESOLVE_BENEATH,
    };
    let (dir, size) = (dir.as_raw_fd(), size_of::<OpenHow>());
    // SAFETY: the path is a C string and the struct as large as it is said to be.
    let opened = unsafe { libc::syscall(libc::SYS_openat2, dir, name.as_ptr(), &raw const how, size) };
    match Errno::result(opened) {
        Ok(fd) => {
            // SAFETY: the kernel just made this descriptor for us.
            drop(unsafe { OwnedFd::from_raw_fd(fd as RawFd) });
            Ok(false)
        }
        Err(Errno::ELOOP) => Ok(true),
        Err(Errno::ENOSYS) => Err(Errno::ENOSYS),
        Err(Errno::EPERM) => Err(Errno::EPERM),
        Err(_) => Ok(false),
    }
}

/// The path under which `/proc` has a descriptor of this process.
pub(super) fn own_link(fd: BorrowedFd<'_>) -> std::ffi::CString {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    std::ffi::CString::new(path).unwrap_or_default()
}

/// The text of a symlink; of the descriptor's own if the name is empty.
pub(super) fn read_link(dir: BorrowedFd<'_>, name: &CStr) -> Result<Vec<u8>, Errno> {
    read_link_from(dir.as_raw_fd(), name)
}

/// The text of a symlink by an absolute path of this process.
pub(super) fn read_absolute_link(path: &CStr) -> Result<Vec<u8>, Errno> {
    read_link_from(libc::AT_FDCWD, path)
}

fn read_link_from(dir: RawFd, name: &CStr) -> Result<Vec<u8>, Errno> {
    // As much as a link can hold.
    let mut text = vec![0_u8; libc::PATH_MAX as usize];
    // SAFETY: the kernel writes within the buffer.
    let length = unsafe { libc::readlinkat(dir, name.as_ptr(), text.as_mut_ptr().cast(), text.len()) };
    text.truncate(Errno::result(length)? as usize);
    Ok(text)
}

/// What `statx(2)` says of a descriptor.
pub(super) fn stat(fd: BorrowedFd<'_>) -> Result<libc::statx, Errno> {
    let mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME | libc::STATX_MNT_ID;
    // SAFETY: all fields are integers, for which zero is a value.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    let flags = libc::AT_EMPTY_PATH | libc::AT_NO_AUTOMOUNT;
    // SAFETY: the path is a C string and the kernel writes one struct.
    let done = unsafe { libc::statx(fd.as_raw_fd(), c"".as_ptr(), flags, mask, &raw mut stat) };
    Errno::result(done).map(|_| stat)
}

/// `struct statfs`, of which the C library's keeps the flags to itself.
#[repr(C)]
struct FileSystem {
    kind: i64,
    _size: [u64; 7],
    _name_length: i64,
    _fragment_size: i64,
    flags: i64,
    _spare: [i64; 4],
}

const _: () = assert!(size_of::<FileSystem>() == 120 && offset_of!(FileSystem, flags) == 80);

/// The type of the file system and the flags of the mount.
pub(super) fn file_system(fd: BorrowedFd<'_>) -> Result<(i64, i64), Errno> {
    // SAFETY: all fields are integers, for which zero is a value.
    let mut found: FileSystem = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one struct, which has the size of its own.
    Errno::result(unsafe { libc::syscall(libc::SYS_fstatfs, fd.as_raw_fd(), &raw mut found) })?;
    Ok((found.kind, found.flags))
}

/// Gives this thread a umask of its own, which stays this thread's.
pub(super) fn unshare_umask() -> Result<(), Errno> {
    // SAFETY: only the calling thread's relation to its file-system attributes changes.
    Errno::result(unsafe { libc::unshare(libc::CLONE_FS) }).map(drop)
}

/// Sets the umask, of all threads that share it.
pub(super) fn set_umask(mask: u32) {
    // SAFETY: it touches no memory, and can't fail.
    unsafe { libc::umask(mask) };
}

/// Sets the permissions of an open file.
pub(super) fn set_mode(fd: BorrowedFd<'_>, mode: u32) -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    Errno::result(unsafe { libc::fchmod(fd.as_raw_fd(), mode) }).map(drop)
}
