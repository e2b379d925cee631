//! What the running kernel offers, found out by trying.
//!
//! By its version only where trying would block: distributions backport features, and containers forbid some.
#![allow(unsafe_code)]

use std::fmt;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::utsname::uname;
use nix::unistd::Pid;

use crate::error::{Error, Result};
use crate::notify::uapi;
use crate::{memory, pidfd};

/// What the running kernel offers to supervisors, tried out once per process.
///
/// Without [`listener`](Self::listener) and [`pidfd`](Self::pidfd), spawning is an [`Error::Unsupported`]; without
/// [`process_memory`](Self::process_memory), calls are served but can't be looked into. The others are done without,
/// silently: the answers mean the same.
///
/// # Examples
///
/// ```
/// let kernel = asm_tracer::KernelSupport::get();
/// println!("{kernel}");
/// assert!(kernel.listener);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KernelSupport {
    /// Listeners with `CONTINUE` and an end-of-filter event: the minimum. Since Linux 5.9.
    ///
    /// Also true where another listener supervises this very process, so that it could not be tried.
    pub listener: bool,
    /// Children can be signalled and waited for by a descriptor. Since Linux 5.4, but containers may forbid it.
    pub pidfd: bool,
    /// Answers and notifications can hand over the CPU ([`WakeUp`](crate::WakeUp)). Since Linux 6.6.
    pub sync_wake_up: bool,
    /// Only fatal signals interrupt a received call. Since Linux 5.19; see
    /// [`Command::wait_killable`](crate::Command::wait_killable) for what other signals do without it.
    pub wait_killable: bool,
    /// The memory of other processes can be accessed in one system call that honours their page protection. Since
    /// Linux 3.2, but containers may forbid it: then looking into a target gives [`Error::NoAccess`] or
    /// [`Error::Unsupported`]. `/proc/PID/mem` would be no substitute, since it reads and writes what the target
    /// itself can't.
    pub process_memory: bool,
}

impl KernelSupport {
    /// What this kernel offers.
    ///
    /// If this process was supervised itself, or out of descriptors, threads or memory, when that was to be found out,
    /// it is assumed to offer a listener and to lack what could not be tried, until the next start finds out.
    pub fn get() -> &'static Self {
        FOUND
            .get()
            .or_else(|| ASSUMED.get())
            .unwrap_or_else(|| Self::probe())
    }

    /// The same at the beginning of a start, which tries again what could not be tried.
    pub(crate) fn at_start() -> &'static Self {
        FOUND.get().unwrap_or_else(|| Self::probe())
    }

    /// Refuses a kernel that lacks what all supervision rests on.
    pub(crate) fn require_listener(&self) -> Result<()> {
        require(
            self.listener,
            "a seccomp listener with an end-of-filter event",
            "5.9",
        )
    }

    /// Refuses one that can't see a child to its end.
    pub(crate) fn require_pidfd(&self) -> Result<()> {
        require(self.pidfd, "signalling and waiting by pidfd", "5.4")
    }

    fn probe() -> &'static Self {
        match probe_listener() {
            Some((listener, sync_wake_up)) => FOUND.get_or_init(|| Self::with(listener, sync_wake_up)),
            // The start's own attempt will tell what is missing.
            None => ASSUMED.get_or_init(|| Self::with(true, false)),
        }
    }

    fn with(listener: bool, sync_wake_up: bool) -> Self {
        Self {
            listener,
            pidfd: pidfd::is_supported(),
            sync_wake_up,
            wait_killable: has_filter_flags(
                libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
            ),
            process_memory: memory::read(Pid::this(), (&raw const PROBE_BYTE).addr() as u64, &mut [0])
                .is_ok(),
        }
    }
}

static FOUND: OnceLock<KernelSupport> = OnceLock::new();
static ASSUMED: OnceLock<KernelSupport> = OnceLock::new();

static PROBE_BYTE: u8 = 1;

impl fmt::Display for KernelSupport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let features = [
            ("listener", self.listener),
            ("pidfd", self.pidfd),
            ("sync wake-up", self.sync_wake_up),
            ("wait killable", self.wait_killable),
            ("process memory", self.process_memory),
        ];
        for (index, (name, present)) in features.into_iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{name}: {}", if present { "yes" } else { "no" })?;
        }
        Ok(())
    }
}

fn require(present: bool, feature: &'static str, since: &'static str) -> Result<()> {
    match present {
        true => Ok(()),
        false => Err(Error::Unsupported { feature, since }),
    }
}

/// Tells whether RECV returns once nobody uses the filter any more (T4), as it does since Linux 6.11.
///
/// This alone goes by the version, since trying it would block for ever where it is missing. A kernel that has it as a
/// backport is served the other way, which is slower and just as good.
pub(crate) fn receiving_ends() -> bool {
    static ENDS: OnceLock<bool> = OnceLock::new();
    *ENDS.get_or_init(|| {
        let release = uname().map(|name| name.release().to_string_lossy().into_owned());
        let release = release.unwrap_or_default();
        let mut numbers = release
            .split(|character: char| !character.is_ascii_digit())
            .map(|number| number.parse::<u32>().unwrap_or(0));
        (numbers.next(), numbers.next()) >= (Some(6), Some(11))
    })
}

/// Tries the flags without a program: `EFAULT` says that they were understood (T48).
fn has_filter_flags(flags: libc::c_ulong) -> bool {
    install(flags, std::ptr::null()) == Err(Errno::EFAULT)
}

fn install(flags: libc::c_ulong, program: *const libc::sock_fprog) -> Result<RawFd, Errno> {
    // SAFETY: the program is null, or valid for the kernel's reading.
    Errno::result(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, program) })
        .map(|fd| fd as RawFd)
}

/// Makes a listener on a thread that lives for nothing else, since a filter can't be taken off again.
///
/// Gives whether listeners are good enough, and whether they know the synchronous wake-up; `None` if it can't be tried
/// at present.
fn probe_listener() -> Option<(bool, bool)> {
    let fits = uapi::sizes()
        .is_ok_and(|(request, response)| request <= uapi::CAPACITY.0 && response <= uapi::CAPACITY.1);
    if !fits || !has_filter_flags(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER) {
        return Some((false, false));
    }
    let thread = std::thread::Builder::new().stack_size(64 * 1024).spawn(|| {
        let mut allow_all = libc::sock_filter {
            code: 0x06,
            jt: 0,
            jf: 0,
            k: libc::SECCOMP_RET_ALLOW,
        };
        let program = libc::sock_fprog {
            len: 1,
            filter: &raw mut allow_all,
        };
        // SAFETY: sets a flag of this thread alone, which ends right away.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        let fd = install(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER, &raw const program)?;
        // SAFETY: the kernel just made this descriptor for us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    });
    match thread.map(std::thread::JoinHandle::join) {
        Ok(Ok(Ok(listener))) => Some((
            hangs_up(&listener),
            uapi::set_sync_wake_up(listener.as_fd(), true).is_ok(),
        )),
        // Nested, for as long as the other listener is open, or short of something.
        Ok(Ok(Err(Errno::EBUSY | Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM))) | Err(_) => None,
        Ok(Ok(Err(_)) | Err(_)) => Some((false, false)),
    }
}

/// Whether the listener says that the only task of its filter is gone; the join may come a moment before that.
fn hangs_up(listener: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(listener.as_fd(), PollFlags::empty())];
    loop {
        match poll(&mut fds, PollTimeout::from(1000_u16)) {
            Err(Errno::EINTR) => {}
            // What a signal makes of the listener's answer while another thread is in it (T14).
            Ok(1) if fds[0].revents() == Some(PollFlags::POLLERR) => {}
            polled => {
                return polled == Ok(1)
                    && fds[0]
                        .revents()
                        .is_some_and(|events| events.contains(PollFlags::POLLHUP));
            }
        }
    }
}
