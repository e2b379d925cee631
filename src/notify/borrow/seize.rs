//! Taking hold of a thread.

use nix::errno::Errno;
use nix::unistd::Pid;

use super::order::Order;
use crate::error::Error;
use crate::syscall::{PtraceOptions, PtraceRequest, ptrace};

/// Takes hold of a thread whose call waits for its answer. If that can't be done, it still waits.
pub(super) fn seize(order: &Order) -> Result<Pid, Error> {
    let mut options = PtraceOptions::TRACESYSGOOD | PtraceOptions::TRACEEXEC | PtraceOptions::TRACEEXIT;
    if order.wish.rewrites() {
        // A program is not to go on with registers that nobody puts back.
        options |= PtraceOptions::EXITKILL;
    }
    let tid = order.call.target()?;
    // So that it is this thread, and not another that has got its number.
    order.call.check_pending()?;
    match ptrace(tid.as_raw(), PtraceRequest::Seize(options)) {
        Ok(_) => Ok(tid),
        Err(error) => {
            // A thread that has died since is refused as if it were forbidden (`ptrace_attach` in the kernel).
            order.call.check_pending()?;
            Err(refused(tid, error.into()))
        }
    }
}

/// What it means that a thread can't be traced.
fn refused(tid: Pid, errno: Errno) -> Error {
    match errno {
        Errno::ESRCH => Error::Gone,
        Errno::EPERM => match tracer_of(tid) {
            Some(tracer) => Error::AlreadyTraced { tracer },
            None => Error::TracingDenied,
        },
        Errno::ENOSYS => Error::Unsupported {
            feature: "tracing of other processes (`ptrace`)",
            since: "3.4",
        },
        errno => Error::os("taking hold of the target", errno),
    }
}

/// Who traces a thread.
fn tracer_of(tid: Pid) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    line?.trim().parse().ok().filter(|tracer| *tracer != 0)
}
