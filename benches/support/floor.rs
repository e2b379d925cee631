//! The least that a supervised call can cost: a thread that blocks in RECV and answers with SEND.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use super::target::{ANSWER, Target};

/// `SECCOMP_IOCTL_NOTIF_RECV`, `_SEND` and `_SET_FLAGS` of `linux/seccomp.h`.
const RECV: libc::Ioctl = 0xc050_2100;
const SEND: libc::Ioctl = 0xc018_2101;
const SET_FLAGS: libc::Ioctl = 0x4008_2104;

/// Chooses whether the kernel hands the CPU over (`SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`).
pub(crate) fn set_sync_wake_up(target: &Target, on: bool) {
    // SAFETY: the argument is a number.
    let set = unsafe { libc::ioctl(target.as_raw_fd(), SET_FLAGS, libc::c_ulong::from(on)) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// Receives and answers so many calls.
pub(crate) fn serve(target: &Target, calls: u64) -> Duration {
    let listener = target.as_raw_fd();
    let start = Instant::now();
    for _ in 0..calls {
        answer_one(listener);
    }
    start.elapsed()
}

fn answer_one(listener: RawFd) {
    // SAFETY: integers; the kernel reads and writes its own structs, which these are.
    unsafe {
        let mut request: libc::seccomp_notif = std::mem::zeroed();
        assert_eq!(libc::ioctl(listener, RECV, &raw mut request), 0);
        let mut response: libc::seccomp_notif_resp = std::mem::zeroed();
        response.id = request.id;
        response.val = ANSWER;
        assert_eq!(libc::ioctl(listener, SEND, &raw mut response), 0);
    }
}
