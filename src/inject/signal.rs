//! A signal to one thread of a target.
#![allow(unsafe_code)]

use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::notify::Notification;
use crate::syscall::syscall3;

/// Sends a signal to the thread whose call waits, and to no other thread of its process.
pub(super) fn send_to_thread(call: &Notification, signal: i32) -> Result<()> {
    let pid = call.pid()?;
    let tid = call.tid().ok_or(Error::UnknownPid)?;
    // SAFETY: no memory is involved. The thread was found frozen just now, so that its numbers mean it.
    let sent = unsafe { syscall3(libc::SYS_tgkill, pid.into(), tid.into(), signal.into()) };
    match sent.map_err(Errno::from) {
        Ok(_) => Ok(()),
        Err(Errno::ESRCH) => Err(Error::Gone),
        Err(errno) => Err(Error::os("sending the signal of a fault", errno)),
    }
}
