//! Descriptors for a target while signals rain on the supervisor.
#![allow(unsafe_code)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use asm_tracer::{Delivery, Errno, InstallFd};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use support::target::{command, on_each_runtime, threads};
use support::{in_process_of_its_own, within};

static HANDLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn handle(_signal: i32) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

/// Sends `SIGALRM` to every thread of this process but its own, until it is dropped.
struct Storm {
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Storm {
    fn begin() -> Self {
        let action = SigAction::new(SigHandler::Handler(handle), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler counts.
        unsafe { sigaction(Signal::SIGALRM, &action) }.unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let over = Arc::clone(&over);
            move || {
                let (pid, own) = (std::process::id(), nix::unistd::gettid().as_raw() as u32);
                while !over.load(Ordering::Relaxed) {
                    for tid in threads(pid).into_iter().filter(|tid| *tid != own) {
                        // SAFETY: no memory is involved; a thread may have ended meanwhile.
                        unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, libc::SIGALRM) };
                    }
                }
            }
        });
        Self {
            over,
            thread: Some(thread),
        }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

const CALLS: usize = 4000;
const SIGNALS: usize = 1000;

/// Each descriptor must be open, and the file that was to be given; `EPERM` ends it.
const ASSERTS: &str = r#"
#include <sys/stat.h>
int main(void) {
    struct stat wanted, given;
    check(!stat("/dev/zero", &wanted), "stat");
    for (int i = 0;; i++) {
        int fd = trap(i, 0, 0, 0);
        if (fd == -EPERM) return 0;
        if (fd < 3 || fstat(fd, &given) || given.st_rdev != wanted.st_rdev) {
            fprintf(stderr, "call %d gave %d: %s\n", i, fd, strerror(errno));
            return 1;
        }
        close(fd);
    }
}
"#;

// T20, user_notification_addfd_send_interrupted
#[test]
fn signals_to_the_supervisor_come_between_no_answer_and_its_descriptor() {
    const NAME: &str = "signals_to_the_supervisor_come_between_no_answer_and_its_descriptor";
    in_process_of_its_own(NAME, || {
        on_each_runtime(|| async {
            let (mut child, mut listener) = command("asserts", ASSERTS).spawn().await.unwrap();
            let before = HANDLED.load(Ordering::Relaxed);
            let source = std::fs::File::open("/dev/zero").unwrap();
            let storm = Storm::begin();
            let mut calls = 0;
            while let Some(call) = within("a call, or the end", listener.next()).await {
                if calls >= CALLS && HANDLED.load(Ordering::Relaxed) - before >= SIGNALS {
                    call.error(Errno::EPERM).unwrap();
                } else if calls % 2 == 0 {
                    let answer = call.respond_with_fd(&source, InstallFd::new()).unwrap();
                    assert_eq!(answer, Delivery::Delivered);
                } else {
                    let number = call.install_fd(&source, InstallFd::new()).unwrap();
                    call.respond(number.as_raw().into()).unwrap();
                }
                calls += 1;
            }
            drop(storm);
            let status = within("the exit", child.wait()).await.unwrap();
            assert!(status.success(), "{status} after {calls} calls");
        });
    });
}

// The thread's mask is the program's own, before and after.
#[test]
fn the_signal_mask_is_as_it_was() {
    on_each_runtime(|| async {
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGUSR2);
        let before = blocked
            .thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_SETMASK)
            .unwrap();
        let (mut child, mut listener) = command("asserts", ASSERTS).spawn().await.unwrap();
        let call = within("a call", listener.next()).await.unwrap();
        let zero = std::fs::File::open("/dev/zero").unwrap();
        assert!(call.install_fd(&zero, InstallFd::new().replace(-1)).is_err());
        call.respond_with_fd(&zero, InstallFd::new()).unwrap();
        assert_eq!(SigSet::thread_get_mask().unwrap(), blocked);
        before.thread_set_mask().unwrap();
        let call = within("a call", listener.next()).await.unwrap();
        call.error(Errno::EPERM).unwrap();
        assert!(within("the end", listener.next()).await.is_none());
        assert!(child.wait().await.unwrap().success());
    });
}
