//! A signal at short intervals to one thread.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use nix::libc;

/// Signals that the calling thread gets for as long as this lives.
pub(crate) struct Storm(libc::timer_t);

const INTERVAL: i64 = 70_000;

impl Storm {
    pub(crate) fn over_this_thread(signal: i32) -> Self {
        // SAFETY: the kernel reads an event and two times, and writes a timer.
        unsafe {
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = signal;
            event.sigev_notify_thread_id = libc::gettid();
            let mut timer = std::ptr::null_mut();
            let made = libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer);
            assert_eq!(made, 0);
            let interval = libc::timespec {
                tv_sec: 0,
                tv_nsec: INTERVAL,
            };
            let times = libc::itimerspec {
                it_interval: interval,
                it_value: interval,
            };
            assert_eq!(libc::timer_settime(timer, 0, &times, std::ptr::null_mut()), 0);
            Self(timer)
        }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        // SAFETY: it is ours.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// Does something again and again until `counter` has risen by so much.
pub(crate) fn until_risen(counter: &AtomicU64, by: u64, mut work: impl FnMut(u64)) {
    let start = counter.load(Relaxed);
    let mut round = 0;
    while counter.load(Relaxed) < start + by {
        work(round);
        round += 1;
    }
}
