//! Listeners that others made.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};

use asm_tracer::{Error, Listener, Supervisor};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::support::{c_program, within};
use crate::target::{answer, expect_success, spawn};

/// Traps `getppid`, sends the listener over its standard input, closes it, and makes as many calls as it is told.
const SOURCE: &str = r#"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { .len = 4, .filter = code };
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    int fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    if (fd < 0)
        return 2;
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof fd)];
    } control = { .header = { CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS } };
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    struct iovec data = { "", 1 };
    struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1,
                              .msg_control = &control, .msg_controllen = sizeof control };
    if (sendmsg(0, &message, 0) != 1)
        return 3;
    close(fd);
    close(0);
    for (long index = 0; index < atol(argv[1]); index++)
        if (syscall(SYS_getppid, index, 0) != index + 1000)
            return 1;
    return 0;
}
"#;

/// A process that this crate did not start, and the listener for its calls.
struct Foreign(Child);

impl Foreign {
    fn start(calls: usize) -> (Self, OwnedFd) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = Command::new(c_program("attached", SOURCE))
            .arg(calls.to_string())
            .stdin(OwnedFd::from(theirs))
            .spawn()
            .unwrap();
        (Self(child), received(&ours))
    }

    fn expect_success(mut self) {
        let status = self.0.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn received(socket: &UnixStream) -> OwnedFd {
    let mut byte = [0];
    let mut data = [IoSliceMut::new(&mut byte)];
    let mut room = nix::cmsg_space!(std::os::fd::RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut data, Some(&mut room), flags).unwrap();
    for control in message.cmsgs().unwrap() {
        if let ControlMessageOwned::ScmRights(fds) = control {
            // SAFETY: the kernel just made this descriptor for us.
            #[allow(unsafe_code)]
            return unsafe { OwnedFd::from_raw_fd(fds[0]) };
        }
    }
    panic!("no descriptor came");
}

#[tokio::test]
async fn foreign_listeners_are_served_beside_children() {
    let mut supervisor = Supervisor::new();
    let (first, listener) = Foreign::start(100);
    let first_key = supervisor.attach(listener).unwrap();
    let own = spawn(&supervisor, "calls 100").await;
    let spawner = supervisor.spawner();
    let attaching = tokio::spawn(async move {
        let (second, listener) = Foreign::start(50);
        (second, spawner.attach(listener).unwrap())
    });
    let mut calls = std::collections::HashMap::new();
    while let Some(call) = within("a call", supervisor.next()).await {
        *calls.entry(call.child()).or_insert(0) += 1;
        answer(call);
    }
    let (second, second_key) = attaching.await.unwrap();
    let expected = [(first_key, 100), (own.key(), 100), (second_key, 50)];
    assert_eq!(calls, std::collections::HashMap::from(expected));
    first.expect_success();
    second.expect_success();
    expect_success(own).await;
}

#[tokio::test]
async fn a_lone_listener_serves_a_foreign_process() {
    let (process, fd) = Foreign::start(40);
    let mut listener = Listener::attach(fd).unwrap();
    let mut calls = 0;
    while let Some(call) = within("a call", listener.next()).await {
        assert_eq!(call.child(), listener.key());
        calls += 1;
        answer(call);
    }
    assert_eq!(calls, 40);
    process.expect_success();
}

// T23
#[tokio::test]
async fn a_foreign_process_outlives_the_supervisor() {
    let supervisor = Supervisor::new();
    let (mut process, listener) = Foreign::start(1);
    supervisor.attach(listener).unwrap();
    drop(supervisor);
    // Its call fails with `ENOSYS`, which it reports.
    assert_eq!(process.0.wait().unwrap().code(), Some(1));
}

#[tokio::test]
async fn anything_else_is_not_a_listener() {
    let supervisor = Supervisor::new();
    let refused = supervisor.attach(std::fs::File::open("/dev/null").unwrap().into());
    assert!(matches!(refused, Err(Error::NotAListener)), "{refused:?}");
    let (socket, _other) = UnixStream::pair().unwrap();
    let refused = Listener::attach(socket.into());
    assert!(matches!(refused, Err(Error::NotAListener)), "{refused:?}");
}
