//! The names of flags and constants.

use std::fmt::Write;

/// An argument of named bits, or one of named values, or both at once as the flags of `open` are.
pub(crate) struct Flags {
    /// The bits that are a field: it holds one of the values. Without one, the values are what no bits at all mean.
    field: u32,
    values: &'static [(u32, &'static str)],
    bits: &'static [(u32, &'static str)],
}

impl Flags {
    /// `O_RDONLY|O_CLOEXEC`; bits without a name in hexadecimal.
    pub(crate) fn describe(&self, value: u32) -> String {
        let mut rest = value & !self.field;
        let mut names = Vec::new();
        if self.field != 0 || value == 0 {
            let held = value & self.field;
            match self.values.iter().find(|(number, _)| *number == held) {
                Some((_, name)) => names.push(*name),
                None => rest |= held,
            }
        }
        for (bits, name) in self.bits {
            if rest & bits == *bits {
                rest &= !bits;
                names.push(name);
            }
        }
        let mut text = names.join("|");
        if rest != 0 || text.is_empty() {
            let (separator, prefix) = (
                if text.is_empty() { "" } else { "|" },
                if rest == 0 { "" } else { "0x" },
            );
            // Writing to a string can't fail.
            let _ = write!(text, "{separator}{prefix}{rest:x}");
        }
        text
    }
}

/// A table of constants of `libc`, each with its name.
macro_rules! names {
    ($($name:ident)*) => { &[$((libc::$name as u32, stringify!($name))),*] };
}

/// An argument that is nothing but one of some values.
const fn one_of(values: &'static [(u32, &'static str)]) -> Flags {
    Flags {
        field: u32::MAX,
        values,
        bits: &[],
    }
}

/// An argument that is nothing but bits.
const fn any_of(bits: &'static [(u32, &'static str)]) -> Flags {
    Flags {
        field: 0,
        values: &[],
        bits,
    }
}

// Where one name has the bits of another and more (`O_SYNC`, `O_TMPFILE`), it comes first.
pub(crate) const OPEN: &Flags = &Flags {
    field: libc::O_ACCMODE as u32,
    values: names!(O_RDONLY O_WRONLY O_RDWR),
    bits: names!(O_CREAT O_EXCL O_NOCTTY O_TRUNC O_APPEND O_NONBLOCK O_SYNC O_DSYNC O_ASYNC O_DIRECT O_TMPFILE
        O_DIRECTORY O_NOFOLLOW O_NOATIME O_CLOEXEC O_PATH),
};
pub(crate) const DESCRIPTOR: &Flags = &any_of(names!(O_CLOEXEC O_NONBLOCK O_DIRECT));
/// `AT_REMOVEDIR` and `AT_EACCESS` are the same bit; the call tells.
pub(crate) const AT: &Flags = &any_of(&[
    (libc::AT_SYMLINK_NOFOLLOW as u32, "AT_SYMLINK_NOFOLLOW"),
    (libc::AT_REMOVEDIR as u32, "AT_REMOVEDIR"),
    (libc::AT_SYMLINK_FOLLOW as u32, "AT_SYMLINK_FOLLOW"),
    (libc::AT_NO_AUTOMOUNT as u32, "AT_NO_AUTOMOUNT"),
    (libc::AT_EMPTY_PATH as u32, "AT_EMPTY_PATH"),
]);
pub(crate) const ACCESS: &Flags = &Flags {
    field: 0,
    values: names!(F_OK),
    bits: names!(R_OK W_OK X_OK),
};
pub(crate) const PROT: &Flags = &Flags {
    field: 0,
    values: names!(PROT_NONE),
    bits: names!(PROT_READ PROT_WRITE PROT_EXEC PROT_GROWSDOWN PROT_GROWSUP),
};
pub(crate) const MAP: &Flags = &Flags {
    field: 0xf,
    values: names!(MAP_SHARED MAP_PRIVATE MAP_SHARED_VALIDATE),
    bits: names!(MAP_FIXED MAP_ANONYMOUS MAP_GROWSDOWN MAP_DENYWRITE MAP_EXECUTABLE MAP_LOCKED MAP_NORESERVE
        MAP_POPULATE MAP_NONBLOCK MAP_STACK MAP_HUGETLB MAP_FIXED_NOREPLACE),
};
pub(crate) const CLONE: &Flags = &Flags {
    // The signal at the child's end.
    field: 0xff,
    values: names!(SIGCHLD),
    bits: names!(CLONE_VM CLONE_FS CLONE_FILES CLONE_SIGHAND CLONE_PIDFD CLONE_PTRACE CLONE_VFORK CLONE_PARENT
        CLONE_THREAD CLONE_NEWNS CLONE_SYSVSEM CLONE_SETTLS CLONE_PARENT_SETTID CLONE_CHILD_CLEARTID
        CLONE_UNTRACED CLONE_CHILD_SETTID CLONE_NEWCGROUP CLONE_NEWUTS CLONE_NEWIPC CLONE_NEWUSER CLONE_NEWPID
        CLONE_NEWNET CLONE_IO),
};
pub(crate) const FUTEX: &Flags = &Flags {
    field: 0x7f,
    values: names!(FUTEX_WAIT FUTEX_WAKE FUTEX_REQUEUE FUTEX_CMP_REQUEUE FUTEX_WAKE_OP FUTEX_LOCK_PI
        FUTEX_UNLOCK_PI FUTEX_TRYLOCK_PI FUTEX_WAIT_BITSET FUTEX_WAKE_BITSET FUTEX_WAIT_REQUEUE_PI),
    bits: names!(FUTEX_PRIVATE_FLAG FUTEX_CLOCK_REALTIME),
};
pub(crate) const SOCKET: &Flags = &Flags {
    field: 0xf,
    values: names!(SOCK_STREAM SOCK_DGRAM SOCK_RAW SOCK_SEQPACKET),
    bits: names!(SOCK_CLOEXEC SOCK_NONBLOCK),
};
pub(crate) const SOCKET_BITS: &Flags = &any_of(names!(SOCK_CLOEXEC SOCK_NONBLOCK));
pub(crate) const DOMAIN: &Flags = &one_of(names!(AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET AF_VSOCK));
pub(crate) const WAIT: &Flags =
    &any_of(names!(WNOHANG WUNTRACED WEXITED WCONTINUED WNOWAIT __WNOTHREAD __WALL __WCLONE));
pub(crate) const WHENCE: &Flags = &one_of(names!(SEEK_SET SEEK_CUR SEEK_END SEEK_DATA SEEK_HOLE));
pub(crate) const FCNTL: &Flags = &one_of(
    names!(F_DUPFD F_GETFD F_SETFD F_GETFL F_SETFL F_GETLK F_SETLK F_SETLKW
    F_SETOWN F_GETOWN F_DUPFD_CLOEXEC F_SETPIPE_SZ F_GETPIPE_SZ F_ADD_SEALS F_GET_SEALS),
);
pub(crate) const ADVICE: &Flags = &one_of(names!(MADV_NORMAL MADV_RANDOM MADV_SEQUENTIAL MADV_WILLNEED
    MADV_DONTNEED MADV_FREE MADV_REMOVE MADV_DONTFORK MADV_DOFORK MADV_HUGEPAGE MADV_NOHUGEPAGE));
pub(crate) const EPOLL: &Flags = &one_of(names!(EPOLL_CTL_ADD EPOLL_CTL_DEL EPOLL_CTL_MOD));
pub(crate) const SIGPROCMASK: &Flags = &one_of(names!(SIG_BLOCK SIG_UNBLOCK SIG_SETMASK));
pub(crate) const RESOURCE: &Flags = &one_of(
    names!(RLIMIT_CPU RLIMIT_FSIZE RLIMIT_DATA RLIMIT_STACK RLIMIT_CORE
    RLIMIT_RSS RLIMIT_NPROC RLIMIT_NOFILE RLIMIT_MEMLOCK RLIMIT_AS),
);
pub(crate) const ARCH_PRCTL: &Flags = &one_of(&[
    (0x1001, "ARCH_SET_GS"),
    (0x1002, "ARCH_SET_FS"),
    (0x1003, "ARCH_GET_FS"),
    (0x1004, "ARCH_GET_GS"),
    (0x3001, "ARCH_CET_STATUS"),
]);
