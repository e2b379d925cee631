//! A signal to one thread of a target.
#![allow(unsafe_code)]

use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::notify::Notification;
use crate::syscall::syscall3;

/// A thread whose call waits, or has until just now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recipient {
    pid: i32,
    tid: i32,
}

/// Sends a signal to the thread whose call waits, and to no other thread of its process.
pub(super) fn send_to_thread(call: &Notification, signal: i32) -> Result<()> {
    send(recipient(call)?, signal)
}

pub(super) fn recipient(call: &Notification) -> Result<Recipient> {
    let pid = call.pid()?;
    let tid = call.tid().ok_or(Error::UnknownPid)?;
    Ok(Recipient { pid, tid })
}

pub(super) fn send(Recipient { pid, tid }: Recipient, signal: i32) -> Result<()> {
    // SAFETY: no memory is involved. The thread was found frozen just now, so that its numbers mean it.
    let sent = unsafe { syscall3(libc::SYS_tgkill, pid.into(), tid.into(), signal.into()) };
    match sent.map_err(Errno::from) {
        Ok(_) => Ok(()),
        Err(Errno::ESRCH) => Err(Error::Gone),
        Err(errno) => Err(Error::os("sending the signal of a fault", errno)),
    }
}

/// Tells whether a signal, other than `SIGKILL`, would end the process without a core dump: at once, before a call of it could
/// run.
pub(super) fn ends_process(call: &Notification, signal: i32) -> bool {
    const DUMP: [i32; 10] = [
        libc::SIGQUIT,
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGABRT,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGSEGV,
        libc::SIGXCPU,
        libc::SIGXFSZ,
        libc::SIGSYS,
    ];
    const IGNORED: [i32; 4] = [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH];
    const STOP: [i32; 4] = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
    if signal == libc::SIGKILL || [&DUMP[..], &IGNORED, &STOP].concat().contains(&signal) {
        return false;
    }
    let masks = masks(call, ["SigBlk:", "SigIgn:", "SigCgt:"]);
    masks.is_some_and(|masks| masks.iter().all(|mask| mask & bit(signal) == 0))
}

/// Tells whether the thread is to die as soon as it wakes. The kernel turns any signal that ends the process without a core
/// dump into `SIGKILL` for each of its threads.
pub(super) fn is_being_killed(call: &Notification) -> bool {
    masks(call, ["SigPnd:"]).is_some_and(|[pending]| pending & bit(libc::SIGKILL) != 0)
}

fn bit(signal: i32) -> u64 {
    u32::try_from(signal - 1)
        .ok()
        .and_then(|shift| 1_u64.checked_shl(shift))
        .unwrap_or(0)
}

/// Sets of signals from `/proc/TID/status`.
fn masks<const N: usize>(call: &Notification, names: [&str; N]) -> Option<[u64; N]> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", call.tid()?)).ok()?;
    let mut masks = [0; N];
    for (mask, name) in masks.iter_mut().zip(names) {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        *mask = u64::from_str_radix(line.trim(), 16).ok()?;
    }
    Some(masks)
}
