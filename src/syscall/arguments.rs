//! What the arguments of the calls are: descriptors, paths, lengths.

use syscalls::Sysno;

/// A path argument, and the descriptor of the directory that it is relative to, where the call has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PathArgument {
    pub(crate) directory: Option<usize>,
    pub(crate) path: usize,
}

/// Where a call says how much is to be transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// In this argument, in bytes.
    Bytes(usize),
    /// In the array of `struct iovec` that argument 1 points to, of as many entries as argument 2 says.
    Vector,
}

const fn plain(path: usize) -> PathArgument {
    let directory = None;
    PathArgument { directory, path }
}

const fn at(directory: usize, path: usize) -> PathArgument {
    let directory = Some(directory);
    PathArgument { directory, path }
}

/// The path arguments of a call.
pub(crate) fn paths(sysno: Sysno) -> &'static [PathArgument] {
    use Sysno as S;
    match sysno {
        S::execve | S::access | S::open | S::stat | S::lstat | S::truncate | S::chdir | S::mkdir => {
            const { &[plain(0)] }
        }
        S::rmdir | S::creat | S::unlink | S::readlink | S::chmod | S::chown | S::lchown | S::utime => {
            const { &[plain(0)] }
        }
        S::mknod | S::statfs | S::chroot | S::acct | S::umount2 | S::swapon | S::swapoff | S::utimes => {
            const { &[plain(0)] }
        }
        S::setxattr | S::lsetxattr | S::getxattr | S::lgetxattr | S::listxattr | S::llistxattr => {
            const { &[plain(0)] }
        }
        S::removexattr | S::lremovexattr => const { &[plain(0)] },
        S::rename | S::link | S::symlink | S::pivot_root | S::mount => const { &[plain(0), plain(1)] },
        S::quotactl | S::inotify_add_watch => const { &[plain(1)] },
        S::openat | S::openat2 | S::newfstatat | S::statx | S::mkdirat | S::mknodat | S::fchownat => {
            const { &[at(0, 1)] }
        }
        S::futimesat
        | S::utimensat
        | S::unlinkat
        | S::readlinkat
        | S::fchmodat
        | S::fchmodat2
        | S::faccessat => const { &[at(0, 1)] },
        S::faccessat2 | S::name_to_handle_at | S::execveat | S::open_tree | S::fspick | S::mount_setattr => {
            const { &[at(0, 1)] }
        }
        S::setxattrat | S::getxattrat | S::listxattrat | S::removexattrat => const { &[at(0, 1)] },
        S::renameat | S::renameat2 | S::linkat | S::move_mount => const { &[at(0, 1), at(2, 3)] },
        S::symlinkat => const { &[plain(0), at(1, 2)] },
        S::fanotify_mark => const { &[at(3, 4)] },
        _ => &[],
    }
}

/// The arguments of a call that are descriptors, without those of directories that paths are relative to.
pub(crate) fn descriptors(sysno: Sysno) -> &'static [usize] {
    use Sysno as S;
    match sysno {
        S::read | S::pread64 | S::readv | S::preadv | S::preadv2 | S::write | S::pwrite64 | S::writev => &[0],
        S::pwritev | S::pwritev2 | S::close | S::fstat | S::lseek | S::ioctl | S::dup | S::fcntl => &[0],
        S::flock | S::fsync | S::fdatasync | S::syncfs | S::ftruncate | S::fallocate | S::getdents => &[0],
        S::getdents64 | S::fchdir | S::fchmod | S::fchown | S::fstatfs | S::readahead | S::fadvise64 => &[0],
        S::fsetxattr | S::fgetxattr | S::flistxattr | S::fremovexattr | S::sync_file_range => &[0],
        S::vmsplice | S::epoll_wait | S::epoll_pwait | S::epoll_pwait2 | S::inotify_add_watch => &[0],
        S::inotify_rm_watch | S::timerfd_settime | S::timerfd_gettime | S::signalfd | S::signalfd4 => &[0],
        S::connect | S::accept | S::accept4 | S::sendto | S::recvfrom | S::sendmsg | S::recvmsg => &[0],
        S::sendmmsg | S::recvmmsg | S::shutdown | S::bind | S::listen | S::getsockname => &[0],
        S::getpeername | S::setsockopt | S::getsockopt | S::setns | S::finit_module => &[0],
        S::pidfd_send_signal | S::pidfd_getfd | S::io_uring_enter | S::io_uring_register => &[0],
        S::mq_timedsend | S::mq_timedreceive | S::mq_notify | S::mq_getsetattr | S::openat => &[0],
        S::newfstatat | S::statx | S::utimensat => &[0],
        S::epoll_ctl | S::splice | S::copy_file_range => &[0, 2],
        S::sendfile | S::tee | S::dup2 | S::dup3 => &[0, 1],
        S::mmap => &[4],
        _ => &[],
    }
}

/// How a call says what it transfers at most.
pub(crate) fn length(sysno: Sysno) -> Option<Length> {
    use Sysno as S;
    Some(match sysno {
        S::read | S::write | S::pread64 | S::pwrite64 | S::recvfrom | S::sendto | S::tee => Length::Bytes(2),
        S::getrandom => Length::Bytes(1),
        S::sendfile => Length::Bytes(3),
        S::splice | S::copy_file_range => Length::Bytes(4),
        S::readv | S::writev | S::preadv | S::pwritev | S::preadv2 | S::pwritev2 => Length::Vector,
        _ => return None,
    })
}

/// Memory that a call hands to the kernel, and how much of it there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// A buffer, whose length another argument says in bytes.
    Buffer { argument: usize, length: usize },
    /// An address of a socket, as above.
    Address { argument: usize, length: usize },
    /// An array of `struct iovec` of as many entries as another argument says.
    Vector { argument: usize, count: usize },
    /// A `struct msghdr`.
    Message { argument: usize },
}

/// What a call hands to the kernel besides paths.
pub(crate) fn inputs(sysno: Sysno) -> &'static [Input] {
    use Sysno as S;
    const fn buffer(argument: usize, length: usize) -> Input {
        Input::Buffer { argument, length }
    }
    const fn address(argument: usize, length: usize) -> Input {
        Input::Address { argument, length }
    }
    const fn vector(argument: usize, count: usize) -> Input {
        Input::Vector { argument, count }
    }
    match sysno {
        S::write | S::pwrite64 | S::mq_timedsend => const { &[buffer(1, 2)] },
        S::writev | S::pwritev | S::pwritev2 | S::vmsplice | S::process_vm_writev => {
            const { &[vector(1, 2)] }
        }
        S::sendto => const { &[buffer(1, 2), address(4, 5)] },
        S::sendmsg => const { &[Input::Message { argument: 1 }] },
        S::connect | S::bind => const { &[address(1, 2)] },
        S::setsockopt => const { &[buffer(3, 4)] },
        S::setxattr | S::lsetxattr | S::fsetxattr => const { &[buffer(2, 3)] },
        S::sethostname | S::setdomainname => const { &[buffer(0, 1)] },
        _ => &[],
    }
}
