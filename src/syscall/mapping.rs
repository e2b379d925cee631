//! Memory mappings.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::flags::flags;
use super::{SyscallError, pointer, syscall2, syscall6};

flags! {
    /// What the pages of a mapping may be used for; see `mmap(2)`.
    ///
    /// # Examples
    ///
    /// ```
    /// use asm_tracer::syscall::Protection;
    ///
    /// let both = Protection::READ | Protection::WRITE;
    /// assert!(both.contains(Protection::WRITE) && !both.contains(Protection::EXEC));
    /// ```
    pub struct Protection {
        /// Nothing: any access is a fault.
        #[doc(alias = "PROT_NONE")]
        NONE = libc::PROT_NONE;
        /// Reading.
        #[doc(alias = "PROT_READ")]
        READ = libc::PROT_READ;
        /// Writing.
        #[doc(alias = "PROT_WRITE")]
        WRITE = libc::PROT_WRITE;
        /// Executing.
        #[doc(alias = "PROT_EXEC")]
        EXEC = libc::PROT_EXEC;
    }
}

flags! {
    /// What kind of mapping is made, either shared or private; see `mmap(2)`.
    ///
    /// There is no `MAP_FIXED`, which replaces what is mapped at the address: that is [`mmap_fixed`]. `MAP_ANONYMOUS`
    /// is the absence of a file.
    ///
    /// # Examples
    ///
    /// ```
    /// use asm_tracer::syscall::MapFlags;
    ///
    /// let flags = MapFlags::PRIVATE | MapFlags::POPULATE;
    /// assert_eq!(format!("{flags:?}"), "MapFlags(PRIVATE | POPULATE)");
    /// ```
    pub struct MapFlags {
        /// Shared, and unknown flags are refused with `EOPNOTSUPP`, since Linux 4.15. It is `SHARED | PRIVATE`.
        #[doc(alias = "MAP_SHARED_VALIDATE")]
        SHARED_VALIDATE = libc::MAP_SHARED_VALIDATE;
        /// What is written reaches the file and whoever maps the same.
        #[doc(alias = "MAP_SHARED")]
        SHARED = libc::MAP_SHARED;
        /// What is written stays in a copy of this process.
        #[doc(alias = "MAP_PRIVATE")]
        PRIVATE = libc::MAP_PRIVATE;
        /// No swap space is set aside.
        #[doc(alias = "MAP_NORESERVE")]
        NORESERVE = libc::MAP_NORESERVE;
        /// The pages are there from the start, as far as memory goes.
        #[doc(alias = "MAP_POPULATE")]
        POPULATE = libc::MAP_POPULATE;
        /// At the address of the hint or, where something is mapped, not at all (`EEXIST`), since Linux 4.17.
        ///
        /// An older kernel takes it for a mere hint.
        #[doc(alias = "MAP_FIXED_NOREPLACE")]
        FIXED_NOREPLACE = libc::MAP_FIXED_NOREPLACE;
        /// For a stack.
        #[doc(alias = "MAP_STACK")]
        STACK = libc::MAP_STACK;
        /// The pages stay in memory.
        #[doc(alias = "MAP_LOCKED")]
        LOCKED = libc::MAP_LOCKED;
        /// Huge pages.
        #[doc(alias = "MAP_HUGETLB")]
        HUGETLB = libc::MAP_HUGETLB;
        /// Below 2 GiB.
        #[doc(alias = "MAP_32BIT")]
        LOW_2GIB = libc::MAP_32BIT;
        /// With `SHARED_VALIDATE`, on persistent memory: what is written survives a crash, since Linux 4.15.
        #[doc(alias = "MAP_SYNC")]
        SYNC = libc::MAP_SYNC;
    }
}

/// Maps memory, or a file from an offset on, where nothing is mapped yet; see `mmap(2)`.
///
/// The hint is where it should be if that is free. The kernel rounds the length up to whole pages, and fills the
/// memory, or the rest of a file's last page, with zeros.
///
/// What is mapped stays so until [`munmap`]. The pages behind the end of a file, which others may cut short, give
/// `SIGBUS`, and what others write to a file changes what is read here.
///
/// # Errors
///
/// Whatever the kernel returns, such as `EINVAL` for a length of 0, an offset that is not a multiple of the page size,
/// or neither of shared and private. `mmap(2)` knows no `EINTR`.
///
/// # Examples
///
/// ```
/// use asm_tracer::syscall::{self, MapFlags, Protection, SyscallError};
///
/// let access = Protection::READ | Protection::WRITE;
/// let memory = syscall::mmap(None, 4096, access, MapFlags::PRIVATE, None)?;
/// // SAFETY: these pages were just mapped, and are used by nobody afterwards.
/// unsafe {
///     memory.cast::<u64>().write(7);
///     syscall::munmap(memory, 4096)?;
/// }
/// # Ok::<(), SyscallError>(())
/// ```
pub fn mmap(
    hint: Option<usize>,
    length: usize,
    protection: Protection,
    flags: MapFlags,
    file: Option<(BorrowedFd<'_>, u64)>,
) -> Result<*mut c_void, SyscallError> {
    let hint = hint.unwrap_or(0) as i64;
    // SAFETY: without MAP_FIXED the kernel maps where nothing is, which is nobody's memory.
    unsafe { map(hint, length, protection, flags.bits(), file) }
}

/// Maps memory, or a file from an offset on, in place of whatever is mapped at the address; see `mmap(2)`.
///
/// # Errors
///
/// Those of [`mmap`], and `EINVAL` for an address that is not a multiple of the page size. After an error the old
/// mapping may be gone all the same.
///
/// # Safety
///
/// Nothing may rely on what was mapped in these pages.
///
/// # Examples
///
/// ```
/// use asm_tracer::syscall::{self, MapFlags, Protection, SyscallError};
///
/// let reserved = syscall::mmap(None, 1 << 20, Protection::NONE, MapFlags::PRIVATE, None)?;
/// // SAFETY: these pages are of a mapping that was made for this.
/// unsafe {
///     let page = syscall::mmap_fixed(reserved, 4096, Protection::READ, MapFlags::PRIVATE, None)?;
///     assert_eq!(page, reserved);
///     syscall::munmap(reserved, 1 << 20)?;
/// }
/// # Ok::<(), SyscallError>(())
/// ```
#[doc(alias = "MAP_FIXED")]
pub unsafe fn mmap_fixed(
    address: *mut c_void,
    length: usize,
    protection: Protection,
    flags: MapFlags,
    file: Option<(BorrowedFd<'_>, u64)>,
) -> Result<*mut c_void, SyscallError> {
    let flags = flags.bits() | libc::MAP_FIXED;
    // SAFETY: the caller gives these pages away.
    unsafe { map(pointer(address), length, protection, flags, file) }
}

/// # Safety
///
/// As for [`mmap_fixed`] if the flags say `MAP_FIXED`.
unsafe fn map(
    address: i64,
    length: usize,
    protection: Protection,
    flags: i32,
    file: Option<(BorrowedFd<'_>, u64)>,
) -> Result<*mut c_void, SyscallError> {
    let (flags, fd, offset) = match file {
        Some((fd, offset)) => (flags, fd.as_raw_fd(), offset.cast_signed()),
        None => (flags | libc::MAP_ANONYMOUS, -1, 0),
    };
    let (length, protection) = (length as i64, protection.bits().into());
    // SAFETY: the caller answers for what is replaced, if anything is.
    let mapped = unsafe {
        syscall6(
            libc::SYS_mmap,
            address,
            length,
            protection,
            flags.into(),
            fd.into(),
            offset,
        )
    };
    mapped.map(|address| std::ptr::with_exposed_provenance_mut(address as usize))
}

/// Takes mapped pages away; see `munmap(2)`.
///
/// Pages in the range that are not mapped are no error.
///
/// # Errors
///
/// `EINVAL` for a length of 0 or an address that is not a multiple of the page size, and `ENOMEM` if what is left would
/// be too many mappings. `munmap(2)` knows no `EINTR`.
///
/// # Safety
///
/// Nothing may use these pages afterwards.
///
/// # Examples
///
/// ```
/// use asm_tracer::syscall::{self, MapFlags, Protection, SyscallError};
///
/// let memory = syscall::mmap(None, 8192, Protection::READ, MapFlags::PRIVATE, None)?;
/// // SAFETY: the page was mapped for this, and nobody uses it.
/// unsafe { syscall::munmap(memory, 8192) }?;
/// # Ok::<(), SyscallError>(())
/// ```
pub unsafe fn munmap(address: *mut c_void, length: usize) -> Result<(), SyscallError> {
    // SAFETY: the caller gives these pages away.
    unsafe { syscall2(libc::SYS_munmap, pointer(address), length as i64) }.map(drop)
}
