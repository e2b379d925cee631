//! A child that makes trapped calls for ever, and its listener.
//!
//! It shares the descriptor table, so that the listener needs no hand-over, and never executes a program: what is
//! measured is the same for the floor and for the library.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use asm_tracer::{Filter, Sysno};

/// What each call returns, so that the target can tell an answer from the kernel's own.
pub(crate) const ANSWER: i64 = 42;

pub(crate) struct Target {
    pid: i32,
    listener: OwnedFd,
}

impl Target {
    /// Starts a child that calls `getppid` and then computes for `work`, again and again.
    pub(crate) fn start(work: Duration) -> Self {
        Self::start_until(work, ANSWER)
    }

    /// The same, for as long as the calls return this.
    pub(crate) fn start_until(work: Duration, answer: i64) -> Self {
        let program = Filter::new().trap(Sysno::getppid).program().unwrap();
        let program = libc::sock_fprog {
            len: program.len() as u16,
            filter: program.as_ptr().cast_mut().cast(),
        };
        let shared = shared_number();
        // SAFETY: the child runs in a copy of this memory and makes system calls only.
        let pid = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_FILES | libc::SIGCHLD, 0, 0, 0, 0) };
        assert!(pid >= 0, "{}", std::io::Error::last_os_error());
        if pid == 0 {
            run(&program, shared, work, answer);
        }
        let fd = loop {
            match shared.load(Ordering::Acquire) {
                -1 => std::thread::yield_now(),
                fd => break fd,
            }
        };
        // SAFETY: the child made it in the table that we share, and doesn't touch it again.
        let listener = unsafe { OwnedFd::from_raw_fd(fd) };
        Self {
            pid: pid as i32,
            listener,
        }
    }

    pub(crate) fn listener(&self) -> &OwnedFd {
        &self.listener
    }

    /// A descriptor of its own for the same listener.
    pub(crate) fn duplicate(&self) -> OwnedFd {
        self.listener.try_clone().unwrap()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // SAFETY: kills and reaps the child that `start` made.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}

impl AsRawFd for Target {
    fn as_raw_fd(&self) -> i32 {
        self.listener.as_raw_fd()
    }
}

/// A number in memory that is shared with the child. It is never freed.
fn shared_number() -> &'static AtomicI32 {
    let (access, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED | libc::MAP_ANONYMOUS,
    );
    // SAFETY: a mapping of its own, which is never unmapped and is large and aligned enough.
    let number = unsafe {
        let page = libc::mmap(std::ptr::null_mut(), 4096, access, flags, -1, 0);
        assert_ne!(page, libc::MAP_FAILED);
        &*page.cast::<AtomicI32>()
    };
    number.store(-1, Ordering::Relaxed);
    number
}

fn run(program: &libc::sock_fprog, shared: &AtomicI32, work: Duration, answer: i64) -> ! {
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    // SAFETY: plain system calls; the program is alive.
    let fd = unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, program)
    };
    if fd < 0 {
        // SAFETY: ends the child.
        unsafe { libc::_exit(1) };
    }
    shared.store(fd as i32, Ordering::Release);
    call_for(work, answer)
}

/// Makes trapped calls, with so much work between them.
pub(crate) fn call_for_ever(work: Duration) -> ! {
    call_for(work, ANSWER)
}

fn call_for(work: Duration, answer: i64) -> ! {
    loop {
        // SAFETY: asks for a number.
        if unsafe { libc::syscall(libc::SYS_getppid) } != answer {
            // SAFETY: ends the child.
            unsafe { libc::_exit(1) };
        }
        if !work.is_zero() {
            let start = Instant::now();
            while start.elapsed() < work {
                std::hint::spin_loop();
            }
        }
    }
}
