//! Executing programs.
//!
//! The kernel alone can do it, and reads the path from the target's memory. So it is given the path of what was decided on, in
//! memory that is the process's own, and only if nobody else has that memory. The path leads there still: it is in a tree
//! that no process of the sandbox can change. And it is no program that one of them wrote, which could name an
//! interpreter for the kernel to open.
#![allow(unsafe_code)]

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use asm_tracer::{AnswerError, Delivery, Errno, Notification};

use crate::policy::Use;
use crate::serve::Served;
use crate::signal::status;

pub(crate) async fn decide(served: &Served<'_>) -> Result<PathBuf, Errno> {
    let path = served.call.args()[0];
    let place = served.object(libc::AT_FDCWD, path, true, Use::Execute).await?;
    let path = place.path()?;
    if !has_memory_alone(served.pid) || !served.call.is_pending() {
        served
            .sandbox
            .tell(asm_tracer::Sysno::execve, &path, Errno::EAGAIN);
        return Err(Errno::EAGAIN);
    }
    Ok(path)
}

pub(crate) async fn execute(call: Notification, path: &Path) -> Result<Delivery, AnswerError> {
    let args = call.args();
    let path = [path.as_os_str().as_bytes(), b"\0"].concat();
    match call.continue_with(args).data(0, path).await {
        Ok(delivery) => Ok(delivery),
        // It can't be borrowed, from a debugger for example.
        Err(refused) => refused.notification.error(Errno::EPERM),
    }
}

/// Tells whether only this process's one thread can run in its memory until it executes something.
///
/// Who shares it must be waiting for that: a `vfork(2)` suspends the parent until then, and the parent's parent in the same
/// way. The filter lets nobody share memory in another way, but as a thread.
fn has_memory_alone(pid: i32) -> bool {
    let mut waiting = vec![pid];
    let mut here = pid;
    while status(here, "Threads").as_deref() == Some("1") {
        let parent = status(here, "PPid").and_then(|parent| parent.parse().ok());
        match parent {
            Some(parent) if share_memory(pid, parent) => {
                waiting.push(parent);
                here = parent;
            }
            Some(_) => return sharers(pid).is_some_and(|all| all.iter().all(|one| waiting.contains(one))),
            None => return false,
        }
    }
    false
}

/// All processes that have the same memory; `None` if that can't be found out.
fn sharers(pid: i32) -> Option<Vec<i32>> {
    // Where the kernel can't compare, not even this is the same.
    if !share_memory(pid, pid) {
        return None;
    }
    let processes = std::fs::read_dir("/proc").ok()?;
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Some(pids.filter(|other| share_memory(pid, *other)).collect())
}

fn share_memory(one: i32, other: i32) -> bool {
    const KCMP_VM: i32 = 1;
    // SAFETY: no memory of this process is involved.
    unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_VM, 0, 0) == 0 }
}
