#![allow(unsafe_code)]

use nix::errno::Errno;

use super::{Action, Filter};
use crate::error::{Error, Result};

impl Filter {
    /// Applies the filter to the calling thread, and to all threads and processes that it starts from now on.
    ///
    /// It can't be taken off again. `no_new_privs` is set for the thread. Children are started under a filter by
    /// [`Command::filter`](crate::Command::filter); this is for a process that restricts itself.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidFilter`] if the filter traps anything: without a listener a trapped call fails with `ENOSYS`,
    /// and a thread can't answer itself. Those of [`program`](Self::program), and [`Error::Io`] if the kernel refuses.
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
        let mut actions = self
            .rules
            .iter()
            .map(|rule| rule.action)
            .chain([self.default, self.foreign_abi]);
        if actions.any(|action| action == Action::Trap) {
            let why =
                "a thread can't answer its own trapped calls; start a child under this filter with `Command`";
            return Err(Error::InvalidFilter(why.into()));
        }
        let program = self.program()?;
        let raw = program.as_sock_fprog();
        // SAFETY: sets a flag of this thread.
        let set = Errno::result(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) });
        set.map_err(|errno| Error::os("setting no_new_privs", errno))?;
        // SAFETY: the kernel reads the program, which is alive.
        let installed = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0_usize,
                &raw const raw,
            )
        };
        Errno::result(installed)
            .map(drop)
            .map_err(|errno| Error::os("installing the filter", errno))
    }
}
