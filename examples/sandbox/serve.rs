//! One call after another, each decided on what it means.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use asm_tracer::emulate::{Address, Connect, Lookup, Open, Place};
use asm_tracer::{AnswerError, Delivery, Errno, Error, Notification, Sysno};

use crate::common::say;
use crate::policy::{Policy, Use};
use crate::{change, execute, look, signal};

pub(crate) struct Sandbox {
    pub(crate) policy: Policy,
    pub(crate) verbose: bool,
}

/// A call while it is served.
pub(crate) struct Served<'a> {
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) call: &'a Notification,
    /// The process that has made it.
    pub(crate) pid: i32,
}

/// A directory, held by a descriptor, and a name in it.
pub(crate) struct Name {
    place: Place,
    /// Where that is, free of symlinks.
    pub(crate) path: PathBuf,
}

impl Sandbox {
    /// Answers a call. It is never let through unless that is said and explained.
    pub(crate) async fn serve(&self, call: Notification) -> Result<Delivery, AnswerError> {
        let pid = match call.pid() {
            Ok(pid) => pid,
            Err(error) => return call.error(errno(error)),
        };
        let Some(sysno) = call.sysno() else {
            return call.error(Errno::ENOSYS);
        };
        let served = Served {
            sandbox: self,
            call: &call,
            pid,
        };
        let result = match sysno {
            _ if Open::emulates(sysno) => return self.open(call, pid).await,
            Sysno::connect => return self.connect(call, pid).await,
            Sysno::execve => match execute::decide(&served).await {
                Ok(path) => return execute::execute(call, &path).await,
                Err(errno) => Err(errno),
            },
            // Where a thread stands permits nothing by itself: each call that begins there is decided on what it leads to. So
            // it does no harm if this leads elsewhere by now.
            Sysno::chdir => match look::decide(&served, libc::AT_FDCWD, call.args()[0], true).await {
                Ok(_) => return call.continue_syscall(),
                Err(errno) => Err(errno),
            },
            // Whom it is for is in registers, which nobody can change.
            Sysno::kill | Sysno::tkill | Sysno::tgkill => match signal::decide(&served, sysno) {
                Ok(()) => return call.continue_syscall(),
                Err(errno) => Err(errno),
            },
            _ if look::serves(sysno) => look::serve(&served, sysno).await,
            _ => change::serve(&served, sysno).await,
        };
        match result {
            Ok(value) => call.respond(value),
            Err(errno) => call.error(errno),
        }
    }

    async fn open(&self, call: Notification, pid: i32) -> Result<Delivery, AnswerError> {
        let mut open = match Open::read(&call).await {
            Ok(Some(open)) => open,
            Ok(None) => return call.error(Errno::ENOSYS),
            Err(error) => return call.error(errno(error)),
        };
        if let Some(to) = self.policy.redirected(open.path()) {
            open = open.with_path(to);
        } else if let Ok(place) = open.resolve().await
            && let Some(to) = place.path().ok().and_then(|path| self.policy.redirected(&path))
        {
            open = open.with_path(to);
        }
        let (writes, named) = (open.writes(), open.flags() & libc::O_PATH != 0);
        let decide = |place: &Place| {
            let wanted = match named {
                // Nothing is read by it. To open what it stands for takes another call.
                true => Use::Look,
                false if writes || place.object().is_none() => Use::Write,
                false => Use::Read,
            };
            let decided = self.policy.decide_place(place, wanted, pid);
            decided.inspect_err(|errno| self.tell(Sysno::openat, &place.path().unwrap_or_default(), *errno))
        };
        open.answer_if(call, decide).await
    }

    async fn connect(&self, call: Notification, pid: i32) -> Result<Delivery, AnswerError> {
        let connect = match Connect::read(&call).await {
            Ok(Some(connect)) => connect,
            Ok(None) => return call.error(Errno::ENOSYS),
            Err(error) => return call.error(errno(error)),
        };
        let other = match connect.address() {
            Address::V4(_) | Address::V6(_) | Address::Unspecified if self.policy.network => Ok(()),
            _ => Err(Errno::EACCES),
        };
        let decide = |place: Option<&Place>| match place {
            Some(place) => self.policy.decide_place(place, Use::Write, pid),
            None => other,
        };
        connect.answer_if(call, decide).await
    }

    pub(crate) fn tell(&self, call: Sysno, path: &Path, errno: Errno) {
        if self.verbose {
            say(&format!("sandbox: {call} {}: {}", path.display(), errno.desc()));
        }
    }
}

impl Served<'_> {
    async fn lookup(&self, dirfd: i32, address: i64) -> Result<Lookup, Errno> {
        let lookup = Lookup::read(self.call, dirfd, address as u64)
            .await
            .map_err(errno)?;
        Ok(match self.sandbox.policy.redirected(lookup.path()) {
            Some(to) => lookup.with_path(to),
            None => lookup,
        })
    }

    /// What a path of the call means, if it may be used so.
    pub(crate) async fn object(
        &self,
        dirfd: i32,
        address: i64,
        follow: bool,
        wanted: Use,
    ) -> Result<Place, Errno> {
        let lookup = self.lookup(dirfd, address).await?;
        let mut place = lookup.object(follow).await?;
        if let Some(to) = self.sandbox.policy.redirected(&place.path()?) {
            place = lookup.with_path(to).object(follow).await?;
        }
        self.decide(&place.path()?, wanted)?;
        Ok(place)
    }

    /// The directory and the name that a path of the call means, if that may be changed.
    pub(crate) async fn name(&self, dirfd: i32, address: i64) -> Result<Name, Errno> {
        let place = self.lookup(dirfd, address).await?.name().await?;
        let (directory, name) = place.name().ok_or(Errno::EBUSY)?;
        let path = std::fs::read_link(own_link(directory)).map_err(|_| Errno::EACCES)?;
        let path = path.join(name);
        self.decide(&path, Use::Write)?;
        Ok(Name { place, path })
    }

    pub(crate) fn decide(&self, path: &Path, wanted: Use) -> Result<(), Errno> {
        let decided = self.sandbox.policy.decide(path, wanted, self.pid);
        decided.inspect_err(|errno| {
            if let Some(sysno) = self.call.sysno() {
                self.sandbox.tell(sysno, path, *errno);
            }
        })
    }
}

impl Name {
    pub(crate) fn parts(&self) -> Result<(BorrowedFd<'_>, OsString), Errno> {
        let (directory, name) = self.place.name().ok_or(Errno::EBUSY)?;
        Ok((directory, name.to_owned()))
    }
}

/// Does something that may take as long as a file system likes, off the runtime.
pub(crate) async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Errno> + Send + 'static,
) -> Result<T, Errno> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Errno::EIO))
}

/// A path by which this process can use an object that it has a descriptor of, and no other.
pub(crate) fn own_link(fd: impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()).into()
}

/// What the target is told when a call can't be read: never that it may go on.
pub(crate) fn errno(error: Error) -> Errno {
    error.errno().unwrap_or(Errno::EACCES)
}
