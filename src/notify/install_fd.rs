//! Descriptors for the target.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;

use super::uapi::{self, AddFd, Response};
use super::{AnswerError, Delivery, Notification};
use crate::error::{Error, Result};
use crate::signal_mask::Blocked;

/// The number of a descriptor in the target's table, where alone it means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetFd(i32);

impl TargetFd {
    /// The number, as the target would use it.
    pub const fn as_raw(self) -> i32 {
        self.0
    }
}

impl fmt::Display for TargetFd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a descriptor is installed in a target.
///
/// Unless told otherwise it gets the lowest free number, as `open(2)` would give, and stays open when the target executes
/// another program.
///
/// # Examples
///
/// ```
/// use asm_tracer::InstallFd;
///
/// let as_accept4_would = InstallFd::new().close_on_exec(true);
/// let as_standard_input = InstallFd::new().replace(0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[must_use = "it says how, and does nothing by itself"]
pub struct InstallFd {
    close_on_exec: bool,
    number: Option<i32>,
}

impl InstallFd {
    /// The lowest free number, which an execution leaves open.
    pub const fn new() -> Self {
        Self {
            close_on_exec: false,
            number: None,
        }
    }

    /// Says whether the target's next execution closes it (`O_CLOEXEC`). The flag of this process's own descriptor
    /// does not matter.
    #[doc(alias = "O_CLOEXEC")]
    pub const fn close_on_exec(mut self, yes: bool) -> Self {
        self.close_on_exec = yes;
        self
    }

    /// Chooses the number, and closes whatever the target has open there, as `dup2(2)` does. 0 is its standard
    /// input.
    ///
    /// # Security
    ///
    /// Closing a file of the target's can take as long as the target likes, for example behind FUSE, and this process's
    /// thread waits for it. Choose numbers that the target has no say in, or install off the runtime
    /// (`tokio::task::spawn_blocking`).
    #[doc(alias = "SECCOMP_ADDFD_FLAG_SETFD")]
    pub const fn replace(mut self, number: i32) -> Self {
        self.number = Some(number);
        self
    }

    /// Adds the descriptor, and gives its number or the kernel's reason.
    fn add(self, call: &Notification, fd: BorrowedFd<'_>, flags: u32) -> Result<i32, Errno> {
        let (number, replace) = match self.number {
            Some(number) => (
                u32::try_from(number).map_err(|_| Errno::EBADF)?,
                uapi::ADD_FD_REPLACE,
            ),
            None => (0, 0),
        };
        let request = AddFd {
            id: call.id,
            flags: flags | replace,
            source: fd.as_raw_fd() as u32,
            number,
            descriptor_flags: if self.close_on_exec {
                libc::O_CLOEXEC as u32
            } else {
                0
            },
        };
        // A signal in the middle would leave the target with an answer and no descriptor (T20).
        let _blocked = Blocked::new();
        uapi::add_fd(call.source.as_fd(), request)
    }

    /// What it means that the descriptor was not added.
    fn error(self, errno: Errno) -> Error {
        match errno {
            errno if is_gone(errno) => Error::Gone,
            // The kernel has no other reason for this one: the flags and the descriptor are what it asks for.
            Errno::EINVAL => Error::Unsupported {
                feature: "descriptors for a target (SECCOMP_IOCTL_NOTIF_ADDFD)",
                since: "5.9",
            },
            source => Error::InstallFd {
                number: self.number,
                source,
            },
        }
    }
}

/// `ESRCH` says that the target went while it was to take the descriptor.
fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::EINPROGRESS | Errno::ESRCH)
}

/// Giving descriptors to the target, and taking duplicates of its own.
///
/// A descriptor that was given or taken is another one for the same open file (`open(2)` calls it the open file
/// description): the offset and flags such as `O_NONBLOCK` are shared, and whoever changes them changes them for both sides.
/// Of a file that both sides use, open it once for each.
///
/// The kernel gives a descriptor by having the target's own thread take it, for which this process's thread waits with
/// its signals blocked. That is a matter of microseconds unless the target's machine time is rationed, or something is
/// [replaced](InstallFd::replace).
impl Notification {
    /// Installs a duplicate of `fd` in the target, and leaves the call to be answered.
    ///
    /// If the target is gone before it learns the number, the descriptor stays in its table: see
    /// [`respond_with_fd`](Self::respond_with_fd).
    ///
    /// # Errors
    ///
    /// [`Error::InstallFd`] if the target can't take it, [`Error::Gone`] if the target no longer waits. The call
    /// stays answerable.
    ///
    /// # Kernel support
    ///
    /// `SECCOMP_IOCTL_NOTIF_ADDFD`, since Linux 5.9.
    ///
    /// # Examples
    ///
    /// ```
    /// # use asm_tracer::{InstallFd, Notification, Result};
    /// # fn give(call: Notification, socket: std::net::TcpStream) -> Result<()> {
    /// // What the target's pipe2(2) would have done, with a socket as both ends.
    /// let end = call.install_fd(&socket, InstallFd::new())?.as_raw();
    /// let ends = [end, end].map(i32::to_ne_bytes).concat();
    /// call.write_memory(call.args()[0] as u64, &ends)?;
    /// call.respond(0)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn install_fd(&self, fd: impl AsFd, options: InstallFd) -> Result<TargetFd> {
        let added = options.add(self, fd.as_fd(), 0);
        added.map(TargetFd).map_err(|errno| options.error(errno))
    }

    /// Makes the call return a duplicate of `fd`, in one step: the target has the descriptor if and only if the call
    /// returns its number.
    ///
    /// # Errors
    ///
    /// [`Error::InstallFd`] if the target can't take it. The notification comes back in the error, and still waits for an
    /// answer.
    ///
    /// # Security
    ///
    /// This is the way to open something for a target after an inspection: open it here, where the target can't
    /// exchange what was inspected, and give it the result.
    ///
    /// # Kernel support
    ///
    /// `SECCOMP_ADDFD_FLAG_SEND`, since Linux 5.14. Before, it is done in two steps: where a signal takes the call back, or
    /// another thread of the target looks, in between, the target has a descriptor that no call has returned.
    ///
    /// Until commit 832b9b176be0, the call returns 0 without a descriptor, and this gives [`Delivery::Gone`], if in this very
    /// moment this process is stopped (`SIGSTOP`) or traced, or an `io_uring` of this thread has something for it. All
    /// other signals are blocked meanwhile. Where that matters, [`install_fd`](Self::install_fd) and then
    /// [`respond`](Self::respond) are not affected.
    ///
    /// # Examples
    ///
    /// ```
    /// # use asm_tracer::{InstallFd, Notification};
    /// # fn open(call: Notification) -> std::io::Result<()> {
    /// let file = std::fs::File::open("/etc/hostname")?;
    /// call.respond_with_fd(&file, InstallFd::new().close_on_exec(true))?;
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "SECCOMP_ADDFD_FLAG_SEND")]
    pub fn respond_with_fd(mut self, fd: impl AsFd, options: InstallFd) -> Result<Delivery, AnswerError> {
        match options.add(&self, fd.as_fd(), uapi::ADD_FD_SEND) {
            Ok(_) => {
                self.answered = true;
                Ok(Delivery::Delivered)
            }
            Err(errno) if is_gone(errno) => {
                self.answered = true;
                Ok(Delivery::Gone)
            }
            Err(Errno::EINVAL) => self.install_then_respond(fd.as_fd(), options),
            Err(errno) => Err(self.refuse(options.error(errno))),
        }
    }

    /// The same for a kernel that takes two steps.
    fn install_then_respond(
        mut self,
        fd: BorrowedFd<'_>,
        options: InstallFd,
    ) -> Result<Delivery, AnswerError> {
        let number = match options.add(&self, fd, 0) {
            Ok(number) => number,
            Err(errno) if is_gone(errno) => {
                self.answered = true;
                return Ok(Delivery::Gone);
            }
            Err(errno) => return Err(self.refuse(options.error(errno))),
        };
        let response = Response {
            id: self.id,
            value: number.into(),
            error: 0,
            flags: 0,
        };
        self.answer(response)
    }
}
