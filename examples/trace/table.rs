//! What the arguments of each call are.

use asm_tracer::Sysno as S;

use crate::flags::{self, Flags};

/// How an argument reads. The numbers are the indices of other arguments.
pub(crate) enum Kind {
    /// A descriptor.
    Fd,
    /// A descriptor of a directory, or `AT_FDCWD`.
    DirFd,
    /// A C `int`.
    Int,
    /// A C `unsigned int`.
    Uint,
    /// A size or a count of 64 bits.
    Size,
    /// An offset.
    Offset,
    /// A number of no particular meaning, in hexadecimal.
    Hex,
    /// An address, such as that of a buffer which the kernel is going to fill.
    Pointer,
    /// A string that ends with a zero: a path, for the most part.
    Text,
    /// Bytes that the kernel is going to read; their count is another argument.
    Data(usize),
    /// The permissions of a file.
    Mode,
    /// The same if the flags in another argument make a file; otherwise there is no such argument.
    ModeIfCreated(usize),
    Flags(&'static Flags),
    Signal,
    /// Strings, as `execve` takes them.
    Strings,
    /// The environment, of which only the size is shown.
    Environment,
    /// The buffers of a vectored write; their count is another argument.
    Vector(usize),
    /// Those of a vectored read, whose contents mean nothing yet.
    EmptyVector(usize),
    /// A socket's address; its size is another argument.
    Address(usize),
    Timespec,
}

/// The arguments of a call, if it is one of the common ones.
#[rustfmt::skip]
pub(crate) fn arguments(call: S) -> Option<&'static [Kind]> {
    use Kind::*;
    Some(match call {
        // Files and paths
        S::open => &[Text, Flags(flags::OPEN), ModeIfCreated(1)],
        S::openat => &[DirFd, Text, Flags(flags::OPEN), ModeIfCreated(2)],
        S::openat2 => &[DirFd, Text, Pointer, Size],
        S::creat | S::mkdir | S::chmod => &[Text, Mode],
        S::mkdirat | S::fchmodat => &[DirFd, Text, Mode],
        S::fchmod => &[Fd, Mode],
        S::mknod => &[Text, Mode, Hex],
        S::mknodat => &[DirFd, Text, Mode, Hex],
        S::umask => &[Mode],
        S::stat | S::lstat | S::statfs => &[Text, Pointer],
        S::newfstatat => &[DirFd, Text, Pointer, Flags(flags::AT)],
        S::statx => &[DirFd, Text, Flags(flags::AT), Hex, Pointer],
        S::access => &[Text, Flags(flags::ACCESS)],
        S::faccessat => &[DirFd, Text, Flags(flags::ACCESS)],
        S::faccessat2 => &[DirFd, Text, Flags(flags::ACCESS), Flags(flags::AT)],
        S::readlink => &[Text, Pointer, Size],
        S::readlinkat => &[DirFd, Text, Pointer, Size],
        S::unlink | S::rmdir | S::chdir | S::chroot => &[Text],
        S::unlinkat => &[DirFd, Text, Flags(flags::AT)],
        S::rename | S::link | S::symlink => &[Text, Text],
        S::renameat => &[DirFd, Text, DirFd, Text],
        S::renameat2 => &[DirFd, Text, DirFd, Text, Hex],
        S::linkat => &[DirFd, Text, DirFd, Text, Flags(flags::AT)],
        S::symlinkat => &[Text, DirFd, Text],
        S::chown | S::lchown => &[Text, Int, Int],
        S::fchownat => &[DirFd, Text, Int, Int, Flags(flags::AT)],
        S::utimensat => &[DirFd, Text, Pointer, Flags(flags::AT)],
        S::truncate => &[Text, Offset],
        S::getcwd => &[Pointer, Size],
        S::mount => &[Text, Text, Text, Hex, Pointer],
        // Descriptors
        S::read | S::getdents64 => &[Fd, Pointer, Size],
        S::write => &[Fd, Data(2), Size],
        S::pread64 => &[Fd, Pointer, Size, Offset],
        S::pwrite64 => &[Fd, Data(2), Size, Offset],
        S::readv => &[Fd, EmptyVector(2), Size],
        S::writev => &[Fd, Vector(2), Size],
        S::close | S::fsync | S::fdatasync | S::fchdir | S::dup => &[Fd],
        S::dup2 => &[Fd, Fd],
        S::dup3 => &[Fd, Fd, Flags(flags::DESCRIPTOR)],
        S::close_range => &[Uint, Uint, Hex],
        S::fstat | S::fstatfs => &[Fd, Pointer],
        S::lseek => &[Fd, Offset, Flags(flags::WHENCE)],
        S::ftruncate => &[Fd, Offset],
        S::fadvise64 => &[Fd, Offset, Size, Int],
        S::fcntl => &[Fd, Flags(flags::FCNTL), Hex],
        S::ioctl => &[Fd, Hex, Hex],
        S::flock => &[Fd, Hex],
        S::sendfile => &[Fd, Fd, Pointer, Size],
        S::copy_file_range => &[Fd, Pointer, Fd, Pointer, Size, Hex],
        S::pipe => &[Pointer],
        S::pipe2 => &[Pointer, Flags(flags::DESCRIPTOR)],
        S::memfd_create => &[Text, Hex],
        S::poll => &[Pointer, Uint, Int],
        S::ppoll => &[Pointer, Uint, Timespec, Pointer, Size],
        S::select => &[Int, Pointer, Pointer, Pointer, Pointer],
        S::epoll_create1 => &[Flags(flags::DESCRIPTOR)],
        S::epoll_ctl => &[Fd, Flags(flags::EPOLL), Fd, Pointer],
        S::epoll_wait => &[Fd, Pointer, Int, Int],
        S::eventfd2 => &[Uint, Flags(flags::DESCRIPTOR)],
        // Memory
        S::mmap => &[Pointer, Size, Flags(flags::PROT), Flags(flags::MAP), Fd, Hex],
        S::mprotect => &[Pointer, Size, Flags(flags::PROT)],
        S::munmap => &[Pointer, Size],
        S::mremap => &[Pointer, Size, Size, Hex, Pointer],
        S::madvise => &[Pointer, Size, Flags(flags::ADVICE)],
        S::brk => &[Pointer],
        // Processes and threads
        S::execve => &[Text, Strings, Environment],
        S::execveat => &[DirFd, Text, Strings, Environment, Flags(flags::AT)],
        S::clone => &[Flags(flags::CLONE), Pointer, Pointer, Pointer, Pointer],
        S::clone3 => &[Pointer, Size],
        S::exit | S::exit_group => &[Int],
        S::wait4 => &[Int, Pointer, Flags(flags::WAIT), Pointer],
        S::waitid => &[Int, Int, Pointer, Flags(flags::WAIT), Pointer],
        S::fork | S::vfork | S::getpid | S::gettid | S::getppid | S::getpgrp | S::setsid | S::getuid | S::geteuid
        | S::getgid | S::getegid | S::sched_yield | S::rt_sigreturn | S::restart_syscall | S::pause | S::sync => &[],
        S::getpgid | S::getsid => &[Int],
        S::setpgid | S::setreuid | S::setregid => &[Int, Int],
        S::setuid | S::setgid => &[Int],
        S::setresuid | S::setresgid => &[Int, Int, Int],
        S::futex => &[Pointer, Flags(flags::FUTEX), Uint, Pointer, Pointer, Uint],
        S::set_tid_address => &[Pointer],
        S::set_robust_list => &[Pointer, Size],
        S::rseq => &[Pointer, Uint, Hex, Hex],
        S::prctl => &[Int, Hex, Hex, Hex, Hex],
        S::arch_prctl => &[Flags(flags::ARCH_PRCTL), Pointer],
        S::prlimit64 => &[Int, Flags(flags::RESOURCE), Pointer, Pointer],
        S::getrandom => &[Pointer, Size, Hex],
        S::uname | S::sysinfo | S::times => &[Pointer],
        // Time
        S::nanosleep => &[Timespec, Pointer],
        S::clock_nanosleep => &[Int, Hex, Timespec, Pointer],
        S::clock_gettime => &[Int, Pointer],
        S::alarm => &[Uint],
        // Signals
        S::kill => &[Int, Signal],
        S::tkill => &[Int, Signal],
        S::tgkill => &[Int, Int, Signal],
        S::rt_sigaction => &[Signal, Pointer, Pointer, Size],
        S::rt_sigprocmask => &[Flags(flags::SIGPROCMASK), Pointer, Pointer, Size],
        S::rt_sigsuspend => &[Pointer, Size],
        S::sigaltstack => &[Pointer, Pointer],
        // Sockets
        S::socket => &[Flags(flags::DOMAIN), Flags(flags::SOCKET), Int],
        S::socketpair => &[Flags(flags::DOMAIN), Flags(flags::SOCKET), Int, Pointer],
        S::connect | S::bind => &[Fd, Address(2), Int],
        S::listen | S::shutdown => &[Fd, Int],
        S::accept | S::getsockname | S::getpeername => &[Fd, Pointer, Pointer],
        S::accept4 => &[Fd, Pointer, Pointer, Flags(flags::SOCKET_BITS)],
        S::sendto => &[Fd, Data(2), Size, Hex, Address(5), Int],
        S::recvfrom => &[Fd, Pointer, Size, Hex, Pointer, Pointer],
        S::sendmsg | S::recvmsg => &[Fd, Pointer, Hex],
        S::setsockopt | S::getsockopt => &[Fd, Int, Int, Pointer, Hex],
        _ => return None,
    })
}
