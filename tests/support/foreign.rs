//! Targets that nobody here started: they make their own listener, and send it.
#![allow(unsafe_code)] // A received descriptor is a number until somebody owns it.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::target::program;

/// `new_listener(flags)` makes a listener for `trap`, `send_listener` sends and closes it.
const LISTENER: &str = r#"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/socket.h>
static inline int new_listener(unsigned flags) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof filter / sizeof *filter, filter };
    check(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl");
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags | SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}
static inline void send_listener(int listener) {
    union { struct cmsghdr header; char space[CMSG_SPACE(sizeof listener)]; } control = { { 0 } };
    struct iovec data = { "x", 1 };
    struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1,
        .msg_control = &control, .msg_controllen = sizeof control };
    control.header = (struct cmsghdr) { CMSG_LEN(sizeof listener), SOL_SOCKET, SCM_RIGHTS };
    memcpy(CMSG_DATA(&control.header), &listener, sizeof listener);
    check(sendmsg(0, &message, 0) == 1, "sendmsg");
    close(listener);
}
"#;

/// A foreign target; it is killed with its owner.
pub(crate) struct Foreign {
    process: Child,
    /// The other end of its standard input.
    pub(crate) socket: Option<UnixStream>,
}

impl Foreign {
    /// Starts a C program, and gives it with the listener that it sends.
    pub(crate) fn start(name: &str, body: &str) -> (Self, OwnedFd) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let process = Command::new(program(name, &format!("{LISTENER}\n{body}")))
            .stdin(OwnedFd::from(theirs))
            .spawn()
            .unwrap();
        let listener = receive(&ours);
        let socket = Some(ours);
        (Self { process, socket }, listener)
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits for its end, after closing its standard input.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        drop(self.socket.take());
        self.process.wait().unwrap()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn receive(socket: &UnixStream) -> OwnedFd {
    let mut byte = [0];
    let mut data = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut data, Some(&mut space), flags).unwrap();
    match message.cmsgs().unwrap().next() {
        // SAFETY: the kernel just made this descriptor for us.
        Some(ControlMessageOwned::ScmRights(numbers)) => unsafe { OwnedFd::from_raw_fd(numbers[0]) },
        other => panic!("no listener came: {other:?}"),
    }
}
