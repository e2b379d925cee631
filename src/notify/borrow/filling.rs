//! Writing data to the room in a target, from a thread that may stall: another thread of the target can have put memory behind
//! FUSE or `userfaultfd(2)` there, and would stall all targets with the one that borrows.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::desk::Desk;
use super::order::{Data, Reply};
use super::scratch::ALIGNMENT;
use crate::memory;
use crate::notify::lane::Job;

/// The data of one loan, on its way to the target, which is stopped meanwhile.
pub(super) struct Filling {
    tid: Pid,
    address: u64,
    data: Mutex<Vec<Data>>,
    /// Who is told of the end, and whose.
    desk: Arc<Desk>,
    reply: Arc<Reply>,
}

impl Filling {
    pub(super) fn new(tid: Pid, address: u64, data: Vec<Data>, desk: Arc<Desk>, reply: Arc<Reply>) -> Self {
        let data = Mutex::new(data);
        Self {
            tid,
            address,
            data,
            desk,
            reply,
        }
    }

    /// Gives up what has not begun: the thread may be gone, and its number another one's.
    pub(super) fn cancel(&self) {
        self.take();
    }

    fn take(&self) -> Vec<Data> {
        std::mem::take(&mut *self.data.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Job for Filling {
    fn run(&self) -> Option<Waker> {
        let data = self.take();
        let mut at = self.address;
        let filled = data.iter().try_for_each(|data| {
            write(self.tid, at, &data.bytes)?;
            at += data.bytes.len().next_multiple_of(ALIGNMENT) as u64;
            Ok(())
        });
        self.desk.filled(self.tid, Arc::clone(&self.reply), filled);
        None
    }
}

fn write(tid: Pid, address: u64, bytes: &[u8]) -> Result<(), Errno> {
    let mut done = 0;
    while done < bytes.len() {
        done += memory::write(tid, address + done as u64, &bytes[done..])?;
    }
    Ok(())
}
