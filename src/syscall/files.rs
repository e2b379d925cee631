//! Descriptors: opening, closing, reading and writing.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use super::flags::flags;
use super::{SyscallError, pointer, syscall1, syscall3};

flags! {
    /// How a file is opened: one of the three access modes, and flags; see `open(2)`.
    ///
    /// # Examples
    ///
    /// ```
    /// use asm_tracer::syscall::OpenFlags;
    ///
    /// let flags = OpenFlags::WRITE_ONLY | OpenFlags::CREATE | OpenFlags::CLOEXEC;
    /// assert!(flags.contains(OpenFlags::CREATE) && !flags.contains(OpenFlags::TRUNCATE));
    /// assert_eq!(format!("{flags:?}"), "OpenFlags(WRITE_ONLY | CREATE | CLOEXEC)");
    /// ```
    pub struct OpenFlags {
        /// For reading only. It is the absence of the other two access modes.
        #[doc(alias = "O_RDONLY")]
        READ_ONLY = libc::O_RDONLY;
        /// For writing only.
        #[doc(alias = "O_WRONLY")]
        WRITE_ONLY = libc::O_WRONLY;
        /// For reading and writing.
        #[doc(alias = "O_RDWR")]
        READ_WRITE = libc::O_RDWR;
        /// Creates the file, with the mode, unless it exists.
        #[doc(alias = "O_CREAT")]
        CREATE = libc::O_CREAT;
        /// With `CREATE`: fails with `EEXIST` if the file exists.
        #[doc(alias = "O_EXCL")]
        EXCLUSIVE = libc::O_EXCL;
        /// Empties the file.
        #[doc(alias = "O_TRUNC")]
        TRUNCATE = libc::O_TRUNC;
        /// Each write goes to the end of the file.
        #[doc(alias = "O_APPEND")]
        APPEND = libc::O_APPEND;
        /// Closes the descriptor when this process executes a program.
        #[doc(alias = "O_CLOEXEC")]
        CLOEXEC = libc::O_CLOEXEC;
        /// Neither opening nor what follows waits.
        #[doc(alias = "O_NONBLOCK")]
        #[doc(alias = "O_NDELAY")]
        NONBLOCK = libc::O_NONBLOCK;
        /// An unnamed file in the directory at the path, since Linux 3.11.
        #[doc(alias = "O_TMPFILE")]
        TMPFILE = libc::O_TMPFILE;
        /// Fails with `ENOTDIR` if it is not a directory.
        #[doc(alias = "O_DIRECTORY")]
        DIRECTORY = libc::O_DIRECTORY;
        /// Fails with `ELOOP` if the last component of the path is a symbolic link.
        #[doc(alias = "O_NOFOLLOW")]
        NOFOLLOW = libc::O_NOFOLLOW;
        /// A place in the file system that can't be read or written, since Linux 2.6.39.
        #[doc(alias = "O_PATH")]
        PATH = libc::O_PATH;
        /// A write returns once data and metadata are on the device.
        #[doc(alias = "O_SYNC")]
        SYNC = libc::O_SYNC;
        /// A write returns once the data is on the device, and the metadata to find it.
        #[doc(alias = "O_DSYNC")]
        DSYNC = libc::O_DSYNC;
        /// Does not become the controlling terminal.
        #[doc(alias = "O_NOCTTY")]
        NOCTTY = libc::O_NOCTTY;
        /// Reading does not update the time of the last access.
        #[doc(alias = "O_NOATIME")]
        NOATIME = libc::O_NOATIME;
        /// Passes the page cache by; buffers, lengths and offsets must be aligned as the file system demands.
        #[doc(alias = "O_DIRECT")]
        DIRECT = libc::O_DIRECT;
        /// Signals the owner of the descriptor when input or output becomes possible.
        #[doc(alias = "O_ASYNC")]
        ASYNC = libc::O_ASYNC;
    }
}

/// The permissions of a file that is created, before the umask takes its part.
#[doc(alias = "mode_t")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Mode(u32);

impl Mode {
    /// Takes the twelve permission bits `0o7777` and drops the rest.
    ///
    /// # Examples
    ///
    /// ```
    /// use asm_tracer::syscall::Mode;
    ///
    /// assert_eq!(Mode::new(0o100_644), Mode::new(0o644));
    /// ```
    pub const fn new(bits: u32) -> Self {
        Self(bits & 0o7777)
    }

    /// The permission bits.
    ///
    /// # Examples
    ///
    /// ```
    /// use asm_tracer::syscall::Mode;
    ///
    /// assert_eq!(Mode::new(0o644).bits(), 0o644);
    /// ```
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mode({:#o})", self.0)
    }
}

/// Opens a file, or creates it; see `open(2)`.
///
/// The mode only matters with [`CREATE`](OpenFlags::CREATE) and [`TMPFILE`](OpenFlags::TMPFILE).
///
/// # Errors
///
/// Whatever the kernel returns. A signal whose handler was installed without `SA_RESTART` ends a wait, such as that for
/// the other end of a FIFO, with `EINTR`, which is not retried here. A result that is no descriptor, which a tracer or
/// supervisor of this process can make up, is `EBADF`.
///
/// # Examples
///
/// ```
/// use asm_tracer::syscall::{self, Mode, OpenFlags, SyscallError};
///
/// let null = syscall::open(c"/dev/null", OpenFlags::READ_WRITE | OpenFlags::CLOEXEC, Mode::new(0))?;
/// syscall::close(null)?;
/// # Ok::<(), SyscallError>(())
/// ```
pub fn open(path: &CStr, flags: OpenFlags, mode: Mode) -> Result<OwnedFd, SyscallError> {
    let (path, flags) = (pointer(path.as_ptr()), flags.bits().into());
    // SAFETY: the kernel reads a string that ends.
    let fd = unsafe { syscall3(libc::SYS_open, path, flags, mode.0.into()) }?;
    match i32::try_from(fd) {
        // SAFETY: the kernel just made this descriptor for us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        // No kernel returns this, but a tracer or supervisor may, and `OwnedFd` panics at what is no descriptor.
        _ => Err(SyscallError::BAD_DESCRIPTOR),
    }
}

/// Closes a descriptor and says what the kernel had to say about it; see `close(2)`.
///
/// Dropping an [`OwnedFd`] closes it as well, but by the C library, which writes `errno`.
///
/// # Errors
///
/// The descriptor is gone whatever is returned, so that there is nothing to try again: `EINTR` says that a signal came,
/// `EIO`, `ENOSPC` and `EDQUOT` that earlier writes were lost.
///
/// # Examples
///
/// ```
/// let (reader, writer) = std::io::pipe()?;
/// asm_tracer::syscall::close(writer.into())?;
/// assert_eq!(asm_tracer::syscall::read(&reader, &mut [0; 8])?, 0);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn close(fd: OwnedFd) -> Result<(), SyscallError> {
    // SAFETY: the descriptor was owned, and nobody closes it again.
    unsafe { syscall1(libc::SYS_close, fd.into_raw_fd().into()) }.map(drop)
}

/// Reads into the buffer, and returns how many bytes there were; see `read(2)`.
///
/// That may be fewer than the buffer holds, and is 0 at the end of the file. The kernel transfers at most 0x7fff_f000
/// bytes at once. An owned descriptor that is passed by value is dropped, that is, closed by the C library.
///
/// # Errors
///
/// Whatever the kernel returns. A signal whose handler was installed without `SA_RESTART` ends a wait with `EINTR`,
/// which is not retried here; one that comes after the first byte makes the read a short one.
///
/// # Examples
///
/// ```
/// use asm_tracer::syscall;
///
/// let (reader, writer) = std::io::pipe()?;
/// syscall::write(&writer, b"hello")?;
/// let mut buffer = [0; 8];
/// let n = syscall::read(&reader, &mut buffer)?;
/// assert_eq!(&buffer[..n], b"hello");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn read(fd: impl AsFd, buffer: &mut [u8]) -> Result<usize, SyscallError> {
    let (fd, start, length) = (fd.as_fd().as_raw_fd(), buffer.as_mut_ptr(), buffer.len());
    // SAFETY: the kernel writes within the buffer.
    let read = unsafe { syscall3(libc::SYS_read, fd.into(), pointer(start), length as i64) };
    read.map(|length| length as usize)
}

/// Writes the data, and returns how many bytes of it were taken; see `write(2)`.
///
/// That may be fewer than there are. The kernel transfers at most 0x7fff_f000 bytes at once. An owned descriptor that
/// is passed by value is dropped, that is, closed by the C library.
///
/// # Errors
///
/// Whatever the kernel returns. A pipe or socket without a reader is `EPIPE`, and `SIGPIPE` comes as well unless it is
/// ignored, as it is in Rust programs. A signal whose handler was installed without `SA_RESTART` ends a wait with
/// `EINTR`, which is not retried here; one that comes after the first byte makes the write a short one.
///
/// # Examples
///
/// ```
/// use asm_tracer::{Errno, syscall};
///
/// let (reader, writer) = std::io::pipe()?;
/// assert_eq!(syscall::write(&writer, b"hello")?, 5);
/// drop(reader);
/// assert_eq!(syscall::write(&writer, b"hello").unwrap_err().errno(), Errno::EPIPE);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn write(fd: impl AsFd, data: &[u8]) -> Result<usize, SyscallError> {
    let (fd, start, length) = (fd.as_fd().as_raw_fd(), data.as_ptr(), data.len());
    // SAFETY: the kernel reads within the data.
    let written = unsafe { syscall3(libc::SYS_write, fd.into(), pointer(start), length as i64) };
    written.map(|length| length as usize)
}
