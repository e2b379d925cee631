#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

use super::{Action, Filter, Program};
use crate::error::{Error, Result};
use crate::kernel::KernelSupport;

/// Which threads of this process a filter is applied to. Those that they start later have it in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Threads {
    /// The calling one.
    Calling,
    /// All of them at once (`SECCOMP_FILTER_FLAG_TSYNC`).
    All,
}

impl Filter {
    /// Applies the filter to the calling thread, and to all threads and processes that it starts from now on.
    ///
    /// It can't be taken off again. `no_new_privs` is set for the thread. Children are started under a filter by
    /// [`Command::filter`](crate::Command::filter); this is for a process that restricts itself.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidFilter`] if the filter traps anything: without a listener a trapped call fails with `ENOSYS`; see
    /// [`install_with_listener`](Self::install_with_listener). Those of [`program`](Self::program), and [`Error::Io`] if
    /// the kernel refuses.
    ///
    /// # Kernel support
    ///
    /// `SECCOMP_SET_MODE_FILTER`, since Linux 3.17.
    ///
    /// # Examples
    ///
    /// ```
    /// use asm_tracer::{Errno, Filter, Sysno};
    ///
    /// let refused = std::thread::spawn(|| {
    ///     Filter::new().errno(Sysno::mkdir, Errno::EROFS).install()?;
    ///     Ok::<_, asm_tracer::Error>(std::fs::create_dir("/tmp/never").map_err(|error| error.kind()))
    /// });
    /// assert_eq!(refused.join().unwrap()?, Err(std::io::ErrorKind::ReadOnlyFilesystem));
    /// # Ok::<(), asm_tracer::Error>(())
    /// ```
    pub fn install(&self) -> Result<()> {
        if self.has(Action::Trap) {
            let why = "nobody would answer the trapped calls; start a child under this filter with `Command`, or \
                       install it with a listener";
            return Err(Error::InvalidFilter(why.into()));
        }
        install(&self.program()?, 0).map(drop)
    }

    /// Applies the filter to the calling thread, or to all threads of this process, and gives the listener for the calls
    /// that it traps. Threads and processes that these start have the filter as well.
    ///
    /// It can't be taken off again. `no_new_privs` is set for the threads. Once the listener is closed, trapped calls
    /// fail with `ENOSYS`.
    ///
    /// A thread can't answer its own calls: the listener must be served by a thread or process that makes no trapped
    /// call for that, or has no such filter ([`Listener::attach`](crate::Listener::attach),
    /// [`Supervisor::attach`](crate::Supervisor::attach), [`Tracer::serve`](crate::blocking::Tracer::serve)). How it gets
    /// there must not be trapped either.
    ///
    /// Whoever answers stands in for the kernel: the process breaks if its code relies on what an answer only pretends, such
    /// as a mapping or a length read.
    ///
    /// # Errors
    ///
    /// [`Error::NestedListener`] if there is a listener for this process already, [`Error::DifferentFilters`] if the
    /// filter is for all threads and one of them has a filter that the calling one has not. Those of
    /// [`program`](Self::program); [`Error::Unsupported`] on a kernel before 5.9; [`Error::Io`] if the kernel refuses.
    /// No filter is installed then.
    ///
    /// # Kernel support
    ///
    /// `SECCOMP_FILTER_FLAG_NEW_LISTENER`, since Linux 5.0, and here 5.9 as for every listener. Only fatal signals
    /// interrupt a received call where [`KernelSupport::wait_killable`] is there.
    ///
    /// # Examples
    ///
    /// ```
    /// use asm_tracer::filter::Threads;
    /// use asm_tracer::{Filter, Listener, Sysno};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (sender, listener) = tokio::sync::oneshot::channel();
    /// let plugin = std::thread::spawn(move || {
    ///     let listener = Filter::new().trap(Sysno::mkdir).install_with_listener(Threads::Calling)?;
    ///     sender.send(listener).unwrap();
    ///     Ok::<_, asm_tracer::Error>(std::fs::create_dir("/tmp/never").is_err())
    /// });
    /// let mut listener = Listener::attach(listener.await?)?;
    /// while let Some(call) = listener.next().await {
    ///     call.error(asm_tracer::Errno::EROFS)?;
    /// }
    /// assert!(plugin.join().unwrap()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn install_with_listener(&self, threads: Threads) -> Result<OwnedFd> {
        let support = KernelSupport::at_start();
        support.require_listener()?;
        let mut flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        if support.wait_killable {
            flags |= libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
        }
        if threads == Threads::All {
            // The second one is what makes the first go with a listener (T48).
            flags |= libc::SECCOMP_FILTER_FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH;
        }
        let fd = install(&self.program()?, flags)?;
        // SAFETY: the kernel just made this descriptor for us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// Gives a listener, or the id of a thread that stands in the way, or 0.
pub(crate) fn install(program: &Program, flags: libc::c_ulong) -> Result<RawFd> {
    let program = program.as_sock_fprog();
    // SAFETY: sets a flag of this thread.
    let set = Errno::result(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) });
    set.map_err(|errno| Error::os("setting no_new_privs", errno))?;
    let operation = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: the kernel reads the program, which is alive.
    let installed = unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, &raw const program) };
    match Errno::result(installed) {
        Ok(fd) => Ok(fd as RawFd),
        Err(Errno::EBUSY) => Err(Error::NestedListener),
        Err(Errno::ESRCH) => Err(Error::DifferentFilters),
        Err(Errno::ENOSYS) => Err(Error::Unsupported {
            feature: "filters for system calls (`seccomp(2)`)",
            since: "3.17",
        }),
        Err(errno) => Err(Error::os("installing the filter", errno)),
    }
}

/// Makes these calls of the calling thread, and of whatever it starts from now on, raise `SIGSYS`.
///
/// It is [`Filter::install`] of a filter with [`Action::Sigsys`] for these numbers. The process dies at the first such
/// call unless it has a handler for that signal, which finds the call in its `siginfo_t` and sets what it returns.
///
/// # Errors
///
/// Those of [`Filter::install`].
///
/// # Examples
///
/// ```no_run
/// use asm_tracer::Sysno;
///
/// asm_tracer::install_filter(&[Sysno::socket.id().into()])?;
/// // From here on, `socket(2)` on this thread raises SIGSYS.
/// # Ok::<(), asm_tracer::Error>(())
/// ```
pub fn install_filter(syscalls: &[i64]) -> Result<()> {
    Filter::new().rule(syscalls, [], Action::Sigsys).install()
}

/// Traps these calls of the calling thread, and of whatever it starts from now on, and gives their listener.
///
/// It is [`Filter::install_with_listener`] for these numbers, which can do the same for all threads of this process
/// ([`Threads::All`]).
///
/// # Errors
///
/// Those of [`Filter::install_with_listener`].
///
/// # Examples
///
/// See [`Tracer::serve`](crate::blocking::Tracer::serve), which answers the calls.
pub fn install_filter_with_notifs(syscalls: &[i64]) -> Result<OwnedFd> {
    Filter::new()
        .trap(syscalls)
        .install_with_listener(Threads::Calling)
}
