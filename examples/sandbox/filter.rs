//! Which calls the kernel runs without asking, which are served, and which are refused.
//!
//! Nothing is forgotten, because what is not in a list does not exist (`ENOSYS`), of which most programs make the best.

use asm_tracer::filter::{Action, arg, int_arg};
use asm_tracer::{Errno, Filter, Sysno};

/// They concern what a process has already: its memory, its descriptors, its children, time.
#[rustfmt::skip]
const HARMLESS: &[Sysno] = &[
    // Descriptors, which it got through calls that were decided on.
    Sysno::read, Sysno::write, Sysno::pread64, Sysno::pwrite64, Sysno::readv, Sysno::writev, Sysno::preadv,
    Sysno::pwritev, Sysno::preadv2, Sysno::pwritev2, Sysno::close, Sysno::close_range, Sysno::fstat, Sysno::fstatfs,
    Sysno::lseek, Sysno::dup, Sysno::dup2, Sysno::dup3, Sysno::pipe, Sysno::pipe2, Sysno::sendfile, Sysno::splice,
    Sysno::tee, Sysno::vmsplice, Sysno::copy_file_range, Sysno::flock, Sysno::fsync, Sysno::fdatasync,
    Sysno::sync_file_range, Sysno::ftruncate, Sysno::fallocate, Sysno::fadvise64, Sysno::readahead, Sysno::getdents,
    Sysno::getdents64, Sysno::fchdir, Sysno::getcwd, Sysno::umask, Sysno::memfd_create, Sysno::eventfd, Sysno::eventfd2,
    Sysno::signalfd, Sysno::signalfd4, Sysno::timerfd_create, Sysno::timerfd_settime, Sysno::timerfd_gettime,
    Sysno::poll, Sysno::ppoll, Sysno::select, Sysno::pselect6, Sysno::epoll_create, Sysno::epoll_create1,
    Sysno::epoll_ctl, Sysno::epoll_wait, Sysno::epoll_pwait, Sysno::epoll_pwait2,
    // Sockets: which there can be is decided when they are made and connected.
    Sysno::accept, Sysno::accept4, Sysno::sendto, Sysno::recvfrom, Sysno::sendmsg, Sysno::recvmsg, Sysno::sendmmsg,
    Sysno::recvmmsg, Sysno::shutdown, Sysno::getsockname, Sysno::getpeername, Sysno::setsockopt, Sysno::getsockopt,
    // Memory.
    Sysno::mmap, Sysno::mprotect, Sysno::munmap, Sysno::mremap, Sysno::brk, Sysno::msync, Sysno::mincore, Sysno::madvise,
    Sysno::mlock, Sysno::mlock2, Sysno::munlock, Sysno::membarrier, Sysno::pkey_alloc, Sysno::pkey_free,
    Sysno::pkey_mprotect,
    // Signals to itself, and waiting.
    Sysno::rt_sigaction, Sysno::rt_sigprocmask, Sysno::rt_sigreturn, Sysno::rt_sigpending, Sysno::rt_sigtimedwait,
    Sysno::rt_sigsuspend, Sysno::sigaltstack, Sysno::pause, Sysno::nanosleep, Sysno::clock_nanosleep, Sysno::alarm,
    Sysno::getitimer, Sysno::setitimer, Sysno::timer_create, Sysno::timer_settime, Sysno::timer_gettime,
    Sysno::timer_getoverrun, Sysno::timer_delete, Sysno::wait4, Sysno::waitid, Sysno::futex, Sysno::futex_waitv,
    Sysno::restart_syscall, Sysno::sched_yield,
    // Itself and its children.
    Sysno::fork, Sysno::vfork, Sysno::exit, Sysno::exit_group, Sysno::set_tid_address, Sysno::set_robust_list,
    Sysno::rseq, Sysno::arch_prctl, Sysno::getpid, Sysno::gettid, Sysno::getppid, Sysno::getuid, Sysno::geteuid,
    Sysno::getgid, Sysno::getegid, Sysno::getresuid, Sysno::getresgid, Sysno::getgroups, Sysno::getpgrp, Sysno::getpgid,
    Sysno::setpgid, Sysno::getsid, Sysno::setsid, Sysno::capget, Sysno::getrlimit, Sysno::getrusage, Sysno::times,
    Sysno::getpriority, Sysno::sched_getaffinity, Sysno::sched_getparam, Sysno::sched_getscheduler,
    Sysno::sched_get_priority_max, Sysno::sched_get_priority_min, Sysno::getcpu, Sysno::uname, Sysno::sysinfo,
    Sysno::gettimeofday, Sysno::time, Sysno::clock_gettime, Sysno::clock_getres, Sysno::getrandom,
];

/// They have a path or name a process, and become notifications.
#[rustfmt::skip]
const SERVED: &[Sysno] = &[
    Sysno::open, Sysno::openat, Sysno::openat2, Sysno::creat, Sysno::connect, Sysno::execve, Sysno::chdir,
    Sysno::stat, Sysno::lstat, Sysno::newfstatat, Sysno::access, Sysno::faccessat, Sysno::faccessat2, Sysno::readlink,
    Sysno::readlinkat, Sysno::mkdir, Sysno::mkdirat, Sysno::mknod, Sysno::mknodat, Sysno::unlink, Sysno::unlinkat,
    Sysno::rmdir, Sysno::rename, Sysno::renameat, Sysno::renameat2, Sysno::link, Sysno::linkat, Sysno::symlink,
    Sysno::symlinkat, Sysno::chmod, Sysno::fchmod, Sysno::fchmodat, Sysno::chown, Sysno::lchown, Sysno::fchown,
    Sysno::fchownat, Sysno::truncate, Sysno::utimensat, Sysno::kill, Sysno::tkill, Sysno::tgkill,
];

/// They get around it all, or change what paths mean.
#[rustfmt::skip]
const REFUSED: &[Sysno] = &[
    Sysno::ptrace, Sysno::process_vm_readv, Sysno::process_vm_writev, Sysno::pidfd_getfd, Sysno::name_to_handle_at,
    Sysno::open_by_handle_at, Sysno::mount, Sysno::umount2, Sysno::pivot_root, Sysno::chroot, Sysno::unshare, Sysno::setns,
    Sysno::seccomp, Sysno::setuid, Sysno::setgid, Sysno::setreuid, Sysno::setregid, Sysno::setresuid, Sysno::setresgid,
    Sysno::setfsuid, Sysno::setfsgid, Sysno::setgroups, Sysno::capset, Sysno::bind,
];

const ATTRIBUTES: &[Sysno] = &[
    Sysno::getxattr,
    Sysno::lgetxattr,
    Sysno::fgetxattr,
    Sysno::setxattr,
    Sysno::lsetxattr,
    Sysno::fsetxattr,
    Sysno::listxattr,
    Sysno::llistxattr,
    Sysno::flistxattr,
    Sysno::removexattr,
    Sysno::lremovexattr,
    Sysno::fremovexattr,
];

/// What terminals and descriptors are asked for. Other requests change files, or type into terminals (`TIOCSTI`).
const IOCTLS: [u64; 17] = [
    libc::TCGETS,
    libc::TCSETS,
    libc::TCSETSW,
    libc::TCSETSF,
    libc::TIOCGWINSZ,
    libc::TIOCSWINSZ,
    libc::TIOCGPGRP,
    libc::TIOCSPGRP,
    libc::TIOCGSID,
    libc::TIOCOUTQ,
    libc::TIOCEXCL,
    libc::TIOCNXCL,
    libc::FIONREAD,
    libc::FIONBIO,
    libc::FIOASYNC,
    libc::FIOCLEX,
    libc::FIONCLEX,
];

const PRCTLS: [i32; 9] = [
    libc::PR_SET_NAME,
    libc::PR_GET_NAME,
    libc::PR_SET_PDEATHSIG,
    libc::PR_GET_PDEATHSIG,
    libc::PR_GET_DUMPABLE,
    libc::PR_SET_NO_NEW_PRIVS,
    libc::PR_GET_NO_NEW_PRIVS,
    libc::PR_CAPBSET_READ,
    libc::PR_SET_VMA,
];

pub(crate) fn filter(network: bool) -> Filter {
    let mut filter = Filter::new()
        .allow(HARMLESS)
        .trap(SERVED)
        .errno(REFUSED, Errno::EPERM)
        .errno(ATTRIBUTES, Errno::EOPNOTSUPP)
        // Its own limits alone.
        .rule(Sysno::prlimit64, [int_arg(0).eq(0)], Action::Allow);
    for request in IOCTLS {
        filter = filter.rule(Sysno::ioctl, [int_arg(1).eq(request as i32)], Action::Allow);
    }
    for option in PRCTLS {
        filter = filter.rule(Sysno::prctl, [int_arg(0).eq(option)], Action::Allow);
    }
    // These would have the kernel send signals to anybody.
    for command in [libc::F_SETOWN, F_SETOWN_EX, F_SETSIG] {
        filter = filter.rule(
            Sysno::fcntl,
            [int_arg(1).eq(command)],
            Action::Errno(Errno::EPERM),
        );
    }
    sockets(processes(filter), network)
        .allow(Sysno::fcntl)
        .errno(Sysno::ioctl, Errno::ENOTTY)
        .errno(Sysno::prctl, Errno::EINVAL)
        .otherwise(Action::Errno(Errno::ENOSYS))
        .foreign_abi(Action::Errno(Errno::ENOSYS))
}

const F_SETOWN_EX: i32 = 15;
const F_SETSIG: i32 = 10;

/// New processes in the same namespaces, of which only threads, and who waits for an execution, share the memory: the check
/// before an execution relies on it. `clone3(2)` has its flags in memory, and is not there.
fn processes(filter: Filter) -> Filter {
    let never = (libc::CLONE_NEWNS | libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWNET) as u64
        | (libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP | libc::CLONE_PARENT) as u64
        | libc::CLONE_PTRACE as u64;
    let [memory, thread, waits] =
        [libc::CLONE_VM, libc::CLONE_THREAD, libc::CLONE_VFORK].map(|flag| flag as u64);
    let mut filter = filter;
    for (flags, value) in [
        (memory, 0),
        (memory | thread, memory | thread),
        (memory | waits, memory | waits),
    ] {
        let fits = arg(0).masked_eq(never | flags, value);
        filter = filter.rule(Sysno::clone, [fits], Action::Allow);
    }
    filter.errno(Sysno::clone, Errno::EPERM)
}

/// Sockets of the kinds that reach nobody without a `connect(2)`: a datagram on a Unix socket has its path with it.
fn sockets(filter: Filter, network: bool) -> Filter {
    const KIND: i32 = 0xf;
    let mut filter = filter;
    for kind in [libc::SOCK_STREAM, libc::SOCK_SEQPACKET] {
        let fits = [int_arg(0).eq(libc::AF_UNIX), int_arg(1).masked_eq(KIND, kind)];
        filter = filter.rule([Sysno::socket, Sysno::socketpair], fits, Action::Allow);
    }
    for family in [libc::AF_INET, libc::AF_INET6].into_iter().filter(|_| network) {
        filter = filter.rule(Sysno::socket, [int_arg(0).eq(family)], Action::Allow);
    }
    filter.errno([Sysno::socket, Sysno::socketpair], Errno::EACCES)
}
