//! Makes descriptors something that `waitid(2)` waits for.
//!
//! A tracer has to block in `waitid(2)`, which no descriptor ends. So a child of its own polls the descriptors, and stops when
//! something happens to one, which is a stop like any other. It shares memory and descriptors with this process, so that
//! it is small and holds nothing open that is closed here.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicUsize, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::eventfd::EventFd;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::stack::Stack;
use crate::syscall::{
    Prctl, PtraceOptions, PtraceRequest, SignalNumber, kill, pointer, prctl, ptrace, raw, syscall0, syscall3,
};

/// A descriptor to be watched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watched {
    pub(super) fd: RawFd,
    /// What it is: a number that is closed is soon another one's.
    pub(super) name: u64,
}

pub(super) struct Bell {
    pid: Pid,
    /// Rung to have it stop.
    rope: Arc<EventFd>,
    /// What the child polls; changed only while it is stopped.
    fds: Vec<libc::pollfd>,
    /// What they are, but for the first, which is the rope.
    names: Vec<u64>,
    timeout: Option<Duration>,
    /// Tells whether there is more to watch.
    edition: u64,
    running: bool,
    watch: Box<Watch>,
    stack: Stack,
}

/// The same for the child.
struct Watch {
    fds: AtomicPtr<libc::pollfd>,
    count: AtomicUsize,
    milliseconds: AtomicI32,
}

impl Bell {
    /// Makes the child, which this thread traces from now on.
    pub(super) fn new(rope: Arc<EventFd>) -> Result<Self, Errno> {
        let stack = Stack::new()?;
        let mut bell = Self {
            pid: Pid::from_raw(0),
            rope,
            fds: Vec::new(),
            names: Vec::new(),
            timeout: None,
            edition: 0,
            running: true,
            watch: Box::new(Watch {
                fds: AtomicPtr::new(null_mut()),
                count: AtomicUsize::new(0),
                milliseconds: AtomicI32::new(0),
            }),
            stack,
        };
        bell.set(std::iter::empty(), None);
        let flags = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_FS;
        let watch = (&raw const *bell.watch).cast_mut().cast();
        let mut unused = 0;
        // SAFETY: the stack is the child's own, and it is gone before the bell frees stack and watch. It inherits the
        // blocked signals of this thread, so no handler of ours runs in it.
        let pid = unsafe { raw::clone(flags as usize, bell.stack.top(), &raw mut unused, ring, watch) };
        if pid < 0 {
            return Err(Errno::from_raw(-pid as i32));
        }
        bell.pid = Pid::from_raw(pid as i32);
        ptrace(
            pid as i32,
            PtraceRequest::Seize(PtraceOptions::EXITKILL | PtraceOptions::TRACEEXIT),
        )?;
        Ok(bell)
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Takes note that the child has stopped.
    pub(super) fn stopped(&mut self) {
        self.running = false;
        // It may have been rung or not.
        let _ = self.rope.read();
    }

    /// What has happened to, once it has stopped.
    pub(super) fn happened(&self) -> impl Iterator<Item = u64> {
        // Until then they are the child's.
        let fds = if self.running { &[] } else { &self.fds[..] };
        let watched = fds.iter().skip(1).zip(&self.names);
        watched.filter(|(fd, _)| fd.revents != 0).map(|(_, name)| *name)
    }

    /// Has it watch these, for no longer than the time, after which it stops anyway. If it watches fewer at present, or for
    /// longer, it stops now.
    pub(super) fn watch(
        &mut self,
        edition: u64,
        fds: impl Iterator<Item = Watched>,
        timeout: Option<Duration>,
    ) {
        if !self.running {
            self.edition = edition;
            self.set(fds, timeout);
            self.running = ptrace(self.pid.as_raw(), PtraceRequest::Continue(SignalNumber::NONE)).is_ok();
        } else {
            let sooner = timeout.is_some_and(|timeout| self.timeout.is_none_or(|longer| timeout < longer));
            if sooner || self.edition != edition {
                self.ring();
            }
        }
    }

    /// Has it stop.
    fn ring(&self) {
        let _ = self.rope.write(1);
    }

    fn set(&mut self, watched: impl Iterator<Item = Watched>, timeout: Option<Duration>) {
        let readable = |fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        self.names.clear();
        self.fds.clear();
        self.fds.push(readable(self.rope.as_raw_fd()));
        for Watched { fd, name } in watched {
            self.names.push(name);
            self.fds.push(readable(fd));
        }
        self.timeout = timeout;
        let milliseconds = timeout.map_or(-1, |timeout| timeout.as_millis().min(60_000) as i32);
        self.watch.fds.store(self.fds.as_mut_ptr(), Ordering::Release);
        self.watch.count.store(self.fds.len(), Ordering::Release);
        self.watch.milliseconds.store(milliseconds, Ordering::Release);
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        if self.pid.as_raw() > 0 {
            super::stops::end(self.pid);
        }
    }
}

/// The child: nothing of the C library, since it shares memory and thread-local storage with the thread that made it.
extern "C" fn ring(watch: *mut c_void) -> ! {
    // SAFETY: the bell keeps it until this process is gone.
    let watch = unsafe { &*watch.cast::<Watch>() };
    let _ = prctl(Prctl::SetParentDeathSignal(Signal::SIGKILL.into()));
    // SAFETY: asks for a number.
    let pid = unsafe { syscall0(libc::SYS_getpid) }.unwrap_or(0);
    loop {
        let fds = pointer(watch.fds.load(Ordering::Acquire));
        let count = watch.count.load(Ordering::Acquire) as i64;
        let milliseconds = watch.milliseconds.load(Ordering::Acquire).into();
        // SAFETY: the bell changes and frees the array only while this is stopped or gone.
        let _ = unsafe { syscall3(libc::SYS_poll, fds, count, milliseconds) };
        if pid > 0 {
            let _ = kill(pid as i32, Signal::SIGSTOP);
        }
    }
}
