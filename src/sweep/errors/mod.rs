//! Which errnos a system call documents.

mod table;

use nix::errno::Errno;
use syscalls::Sysno;

/// The errnos that the manual page of a call lists, each once, in alphabetical order; none for a call that lists none.
///
/// They come from the ERRORS sections of section 2 of the Linux man-pages, version 6.03, and of the few pages of section 3 that it
/// links to. Where a page is about several calls and
/// says which of them an error belongs to, only those have it: `openat(2)` can give `EBADF`, `open(2)` can't. Where it says that
/// a call fails as another does, as `pread(2)` of `read(2)` and `lseek(2)`, the errors of both are there. Aliases
/// go by one name: `EWOULDBLOCK` is `EAGAIN`, `ENOTSUP` is `EOPNOTSUPP`, `EDEADLOCK` is `EDEADLK`. What only the kernel
/// and a tracer see, like `ERESTARTSYS`, is left out.
///
/// A few are there though no page lists them; `src/sweep/errors/generate`, which makes the table, says which, and why.
///
/// # What is not there
///
/// - Calls whose pages list no errors. Of those, `brk(2)` is the one to know: the call returns where the break is, and
///   `ENOMEM` is what the C library makes of it.
/// - Calls that these pages don't know, among them those of `io_uring` but `io_uring_setup`, `futex_waitv`, and the calls of the
///   newer mount interface.
/// - What drivers, file systems, sockets of one family, and security modules give beyond that, and `ENOSYS`, which any call gives
///   that a kernel or a filter does without.
///
/// # Examples
///
/// ```
/// use asm_tracer::sweep::documented_errors;
/// use asm_tracer::{Errno, Sysno};
///
/// assert_eq!(documented_errors(Sysno::fstat), [Errno::EBADF, Errno::EFAULT, Errno::ENOMEM, Errno::EOVERFLOW]);
/// assert!(documented_errors(Sysno::openat).contains(&Errno::EACCES));
/// assert!(documented_errors(Sysno::getpid).is_empty());
/// ```
pub fn documented_errors(call: Sysno) -> &'static [Errno] {
    table::listed(call)
}

#[cfg(test)]
mod tests {
    use super::documented_errors;
    use nix::errno::Errno::{self, *};
    use syscalls::Sysno;

    fn assert_lists(call: Sysno, present: &[Errno], absent: &[Errno]) {
        let listed = documented_errors(call);
        for errno in present {
            assert!(listed.contains(errno), "{call:?} lacks {errno:?}: {listed:?}");
        }
        for errno in absent {
            assert!(!listed.contains(errno), "{call:?} has {errno:?}: {listed:?}");
        }
    }

    #[test]
    fn each_is_listed_once_in_alphabetical_order() {
        for call in Sysno::iter() {
            let names: Vec<String> = documented_errors(call)
                .iter()
                .map(|errno| format!("{errno:?}"))
                .collect();
            assert!(names.is_sorted_by(|one, next| one < next), "{call:?}: {names:?}");
        }
    }

    #[test]
    fn the_calls_of_most_programs_are_there() {
        use Sysno::*;
        let calls = [
            accept4,
            bind,
            chmod,
            chown,
            clone,
            close,
            connect,
            copy_file_range,
            dup2,
            epoll_ctl,
            epoll_wait,
            execve,
            fallocate,
            fchmodat,
            fcntl,
            fork,
            fstat,
            fsync,
            ftruncate,
            futex,
            getdents64,
            getrandom,
            ioctl,
            lseek,
            mkdir,
            mmap,
            mprotect,
            munmap,
            newfstatat,
            open,
            openat,
            pipe2,
            poll,
            prctl,
            read,
            rename,
            renameat2,
            rt_sigaction,
            rt_sigprocmask,
            sendfile,
            set_robust_list,
            sigaltstack,
            socket,
            stat,
            statx,
            unlink,
            unlinkat,
            utimensat,
            vfork,
            wait4,
            write,
        ];
        for call in calls {
            assert!(!documented_errors(call).is_empty(), "{call:?}");
        }
    }

    #[test]
    fn calls_that_give_no_error_have_none() {
        for call in [
            Sysno::brk,
            Sysno::exit_group,
            Sysno::getpid,
            Sysno::getpgrp,
            Sysno::gettid,
            Sysno::umask,
        ] {
            assert_eq!(documented_errors(call), [], "{call:?}");
        }
    }

    // As read in the pages, not as generated.
    #[test]
    fn short_lists_are_whole() {
        let whole: [(Sysno, &[Errno]); 26] = [
            (Sysno::clone, &[EAGAIN, EINVAL, ENOMEM, ENOSPC, EPERM, EUSERS]),
            (Sysno::close, &[EBADF, EDQUOT, EINTR, EIO, ENOSPC]),
            (Sysno::dup, &[EBADF, EMFILE]),
            (Sysno::dup2, &[EBADF, EBUSY, EINTR, EMFILE]),
            (
                Sysno::epoll_ctl,
                &[EBADF, EEXIST, EINVAL, ELOOP, ENOENT, ENOMEM, ENOSPC, EPERM],
            ),
            (Sysno::epoll_wait, &[EBADF, EFAULT, EINTR, EINVAL]),
            (Sysno::fchdir, &[EACCES, EBADF, ENOTDIR]),
            (Sysno::fork, &[EAGAIN, ENOMEM, ENOSYS]),
            (Sysno::fstat, &[EBADF, EFAULT, ENOMEM, EOVERFLOW]),
            (Sysno::fsync, &[EBADF, EDQUOT, EINTR, EINVAL, EIO, ENOSPC, EROFS]),
            (Sysno::getdents64, &[EBADF, EFAULT, EINVAL, ENOENT, ENOTDIR]),
            (Sysno::getrandom, &[EAGAIN, EFAULT, EINTR, EINVAL, ENOSYS]),
            (Sysno::ioctl, &[EBADF, EFAULT, EINVAL, ENOTTY]),
            (Sysno::lseek, &[EBADF, EINVAL, ENXIO, EOVERFLOW, ESPIPE]),
            (Sysno::mprotect, &[EACCES, EINVAL, ENOMEM]),
            (Sysno::munmap, &[EINVAL, ENOMEM]),
            (Sysno::pipe, &[EFAULT, EMFILE, ENFILE]),
            (Sysno::pipe2, &[EFAULT, EINVAL, EMFILE, ENFILE, ENOPKG]),
            (Sysno::poll, &[EFAULT, EINTR, EINVAL, ENOMEM]),
            (Sysno::read, &[EAGAIN, EBADF, EFAULT, EINTR, EINVAL, EIO, EISDIR]),
            (Sysno::rt_sigaction, &[EFAULT, EINVAL]),
            (Sysno::rt_sigprocmask, &[EFAULT, EINVAL]),
            (
                Sysno::sendfile,
                &[EAGAIN, EBADF, EFAULT, EINVAL, EIO, ENOMEM, EOVERFLOW, ESPIPE],
            ),
            (Sysno::set_robust_list, &[EINVAL]),
            (Sysno::sigaltstack, &[EFAULT, EINVAL, ENOMEM, EPERM]),
            (Sysno::wait4, &[ECHILD, EINTR, EINVAL, ESRCH]),
        ];
        for (call, errors) in whole {
            assert_eq!(documented_errors(call), errors, "{call:?}");
        }
    }

    #[test]
    fn of_a_page_about_several_calls_each_has_its_own() {
        assert_lists(
            Sysno::open,
            &[EACCES, EAGAIN, EMFILE, ENOENT, ENOSPC, ENOTDIR, ETXTBSY],
            &[EBADF],
        );
        assert_lists(Sysno::openat, &[EACCES, EBADF, EMFILE, ENOENT, ENOTDIR], &[EXDEV]);
        assert_lists(
            Sysno::stat,
            &[EACCES, ELOOP, ENOENT, ENOTDIR],
            &[EBADF, EINVAL, EINTR],
        );
        assert_lists(Sysno::newfstatat, &[EBADF, EINVAL, ENOENT], &[EINTR]);
        assert_lists(Sysno::access, &[EACCES, EROFS, ETXTBSY], &[EBADF]);
        assert_lists(
            Sysno::chmod,
            &[EACCES, ENOENT, EPERM, EROFS],
            &[EBADF, EINVAL, EOPNOTSUPP],
        );
        assert_lists(
            Sysno::fchmod,
            &[EBADF, EIO, EPERM, EROFS],
            &[EACCES, EFAULT, EINVAL, ENOENT, ENOTDIR],
        );
        assert_lists(Sysno::fchmodat, &[EBADF, EINVAL, EOPNOTSUPP], &[]);
        assert_lists(Sysno::chown, &[EACCES, ENOENT, EPERM], &[EBADF, EINVAL, EIO]);
        assert_lists(Sysno::fchown, &[EBADF, EIO, EPERM], &[ENOENT, ENOTDIR]);
        assert_lists(Sysno::mkdir, &[EEXIST, EMLINK, ENOSPC], &[EBADF]);
        assert_lists(Sysno::mkdirat, &[EBADF, EEXIST], &[]);
        assert_lists(Sysno::mknod, &[EEXIST], &[EBADF]);
        assert_lists(Sysno::symlink, &[EEXIST], &[EBADF]);
        assert_lists(Sysno::readlink, &[EINVAL, ENOENT], &[EBADF]);
        assert_lists(Sysno::link, &[EMLINK, EXDEV], &[EBADF, EINVAL]);
        assert_lists(Sysno::unlink, &[EISDIR, EPERM], &[EBADF, EINVAL, ENOTEMPTY]);
        assert_lists(Sysno::rename, &[EEXIST, EINVAL, ENOTEMPTY, EXDEV], &[EBADF]);
        assert_lists(Sysno::renameat, &[EBADF], &[]);
        assert_lists(
            Sysno::ftruncate,
            &[EBADF, EFBIG, EINVAL, EIO],
            &[EFAULT, ELOOP, ENOENT],
        );
        assert_lists(Sysno::clone3, &[EACCES, EBUSY, EEXIST, EOPNOTSUPP], &[]);
        assert_lists(Sysno::msgsnd, &[EAGAIN, ENOMEM], &[E2BIG, ENOMSG]);
        assert_lists(Sysno::timerfd_settime, &[EBADF, ECANCELED], &[EMFILE]);
    }

    #[test]
    fn errors_of_pages_referred_to_are_taken_over() {
        assert_lists(Sysno::pread64, &[EINTR, EISDIR, ESPIPE], &[ENOSPC]);
        assert_lists(Sysno::pwritev2, &[EDQUOT, ENOSPC, EOPNOTSUPP, ESPIPE], &[EISDIR]);
        assert_lists(Sysno::unlinkat, &[EBADF, EINVAL, EISDIR, ENOTEMPTY], &[]);
        assert_lists(Sysno::openat2, &[E2BIG, EAGAIN, EBADF, EMFILE, EXDEV], &[]);
        assert_lists(Sysno::execveat, &[E2BIG, EBADF, ENOEXEC], &[]);
        assert_lists(Sysno::fgetxattr, &[EBADF, ENODATA], &[EACCES, ENOENT]);
        assert_lists(Sysno::lgetxattr, &[EACCES, ENODATA, ENOENT], &[EBADF]);
    }

    #[test]
    fn long_lists_have_what_their_pages_have() {
        assert_lists(
            Sysno::accept4,
            &[EAGAIN, ECONNABORTED, ENOBUFS, ENOMEM, ETIMEDOUT],
            &[EISCONN],
        );
        assert_lists(
            Sysno::bind,
            &[EACCES, EADDRINUSE, EADDRNOTAVAIL, EINVAL, EROFS],
            &[ECONNREFUSED],
        );
        assert_lists(
            Sysno::connect,
            &[ECONNREFUSED, EINPROGRESS, ENETUNREACH, EPERM],
            &[EPIPE],
        );
        assert_lists(Sysno::socket, &[EAFNOSUPPORT, EMFILE, ENOBUFS, ENOMEM], &[EBADF]);
        assert_lists(
            Sysno::copy_file_range,
            &[EFBIG, ENOSPC, EOPNOTSUPP, ETXTBSY, EXDEV],
            &[EAGAIN],
        );
        assert_lists(Sysno::execve, &[E2BIG, ELIBBAD, ENOEXEC, ETXTBSY], &[EBADF]);
        assert_lists(
            Sysno::fallocate,
            &[EFBIG, EINTR, ENOSPC, ENOSYS, EOPNOTSUPP],
            &[EAGAIN],
        );
        assert_lists(
            Sysno::fcntl,
            &[EACCES, EAGAIN, EDEADLK, EMFILE, ENOLCK],
            &[ENOSPC],
        );
        assert_lists(
            Sysno::futex,
            &[EAGAIN, EDEADLK, EINTR, ESRCH, ETIMEDOUT],
            &[EBADF],
        );
        assert_lists(Sysno::mincore, &[EAGAIN, ENOMEM], &[]);
        assert_lists(
            Sysno::mmap,
            &[EACCES, EAGAIN, EEXIST, ENODEV, ENOMEM, ETXTBSY],
            &[EINTR],
        );
        assert_lists(Sysno::prctl, &[EACCES, EFAULT, EINVAL, EPERM], &[ENOENT]);
        assert_lists(Sysno::statx, &[EBADF, EINVAL, ENOENT], &[EOVERFLOW]);
        assert_lists(Sysno::utimensat, &[EACCES, EBADF, EROFS, ESRCH], &[EIO]);
        assert_lists(
            Sysno::write,
            &[EDQUOT, EFBIG, EINTR, EIO, ENOSPC, EPIPE],
            &[EISDIR],
        );
    }
}
