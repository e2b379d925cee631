//! What comes over the socket from a child: its listener, or why there is none.
#![allow(unsafe_code)]

use std::mem::zeroed;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

use crate::error::SpawnStep;

/// One message from the child: the step that it is about, and the errno if it failed.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Report {
    pub(super) step: u32,
    pub(super) errno: i32,
}

/// What the child said.
#[derive(Debug)]
pub(super) enum Word {
    /// Here is the listener.
    Listener(OwnedFd),
    /// A step failed.
    Failed(SpawnStep, Errno),
    /// It has closed the socket: it executed the program, or died.
    End,
}

/// Room for a few descriptors, so that a surplus one would be closed and not be kept by the kernel.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Takes the next word without waiting; `EAGAIN` if there is none yet.
pub(super) fn receive(socket: BorrowedFd<'_>) -> Result<Word, Errno> {
    match receive_once(socket)? {
        // The kernel looks for a message first and for the end second, and tells the end of a child that spoke and
        // exited in between. After the end nothing comes any more, so the second look is certain.
        Word::End => receive_once(socket),
        word => Ok(word),
    }
}

fn receive_once(socket: BorrowedFd<'_>) -> Result<Word, Errno> {
    let mut report = Report { step: 0, errno: 0 };
    let mut control = Control([0; 64]);
    let mut data = libc::iovec {
        iov_base: (&raw mut report).cast(),
        iov_len: size_of::<Report>(),
    };
    // SAFETY: integers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut data;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>();
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    let length = loop {
        // SAFETY: the kernel writes to `report` and `control`, within the lengths given.
        match Errno::result(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) }) {
            Err(Errno::EINTR) => {}
            // The child died with a message of ours unread, which there is none of; treat it as its end.
            Err(Errno::ECONNRESET) => break 0,
            other => break other?,
        }
    };
    // SAFETY: `message` is as the kernel left it, and `control` is still there.
    let listener = unsafe { first_descriptor(&message) };
    match listener {
        _ if length == 0 => Ok(Word::End),
        Some(listener) => Ok(Word::Listener(listener)),
        // The descriptor was there, but no number for it was free here.
        None if message.msg_flags & libc::MSG_CTRUNC != 0 => Err(Errno::EMFILE),
        None => {
            let step = SpawnStep::from_number(report.step).unwrap_or(SpawnStep::HandOver);
            Ok(Word::Failed(step, Errno::from_raw(report.errno)))
        }
    }
}

/// The first descriptor of a received message; any other is closed.
///
/// # Safety
///
/// The message must have been filled in by `recvmsg(2)`, and its descriptors not been taken yet.
unsafe fn first_descriptor(message: &libc::msghdr) -> Option<OwnedFd> {
    let mut first = None;
    // SAFETY: the macros of cmsg(3) walk what the kernel wrote and stay within `msg_controllen`.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            let (level, kind) = ((*header).cmsg_level, (*header).cmsg_type);
            if (level, kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let bytes = (*header).cmsg_len - libc::CMSG_LEN(0) as usize;
                let numbers = libc::CMSG_DATA(header).cast::<RawFd>();
                for index in 0..bytes / size_of::<RawFd>() {
                    let fd = OwnedFd::from_raw_fd(numbers.add(index).read_unaligned());
                    first.get_or_insert(fd);
                }
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::os::fd::AsFd;
    use std::sync::mpsc::channel;

    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, sendmsg, socketpair};

    use super::*;

    /// A race, so it takes many rounds; on one CPU it hardly ever happens.
    #[test]
    fn the_last_word_comes_before_the_end() {
        let (sender, sockets) = channel::<OwnedFd>();
        let child = std::thread::spawn(move || {
            for socket in sockets {
                let said = [SpawnStep::Exec as i32, libc::ENOENT].map(i32::to_ne_bytes);
                let data = [IoSlice::new(said.as_flattened())];
                sendmsg::<()>(socket.as_raw_fd(), &data, &[], MsgFlags::empty(), None).unwrap();
            }
        });
        for round in 0..20_000 {
            let flags = SockFlag::SOCK_CLOEXEC;
            let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
            sender.send(theirs).unwrap();
            let mut looks = 0;
            let word = loop {
                match receive(ours.as_fd()) {
                    // Looks must be frequent, but the other thread may need this CPU.
                    Err(Errno::EAGAIN) if looks < 100 => looks += 1,
                    Err(Errno::EAGAIN) => std::thread::yield_now(),
                    word => break word.unwrap(),
                }
            };
            assert!(
                matches!(word, Word::Failed(SpawnStep::Exec, Errno::ENOENT)),
                "{round}: {word:?}"
            );
        }
        drop(sender);
        child.join().unwrap();
    }
}
