//! Listeners that others made, and the settings of any.
#![allow(unsafe_code)] // To use a listener in ways that the library doesn't.

mod support;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;

use asm_tracer::filter::{arg, int_arg};
use asm_tracer::{
    Action, Delivery, Errno, Error, Filter, KernelSupport, Listener, Signal, Supervisor, Sysno, WakeUp,
};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use support::foreign::Foreign;
use support::target::{command, frozen, frozen_threads, on_each_runtime};
use support::{in_process_of_its_own, is_child, rerun, within};

/// Makes one call.
const ONE_CALL: &str = r#"
int main(void) {
    send_listener(new_listener(0));
    check(trap(1, 0, 0, 0) == 5, "the answer");
    check(trap(2, 0, 0, 0) == -EXDEV, "the answer");
}
"#;

// user_notification_basic
#[test]
fn a_foreign_listener_is_served_like_any_other() {
    on_each_runtime(|| async {
        let (mut target, listener) = Foreign::start("foreign_one_call", ONE_CALL);
        let mut supervisor = Supervisor::new();
        let key = supervisor.attach(listener).unwrap();
        let call = within("a call", supervisor.next()).await.unwrap();
        assert_eq!((call.child(), call.args()[0]), (key, 1));
        assert_eq!(call.pid().unwrap() as u32, target.id());
        assert_eq!(call.respond(5).unwrap(), Delivery::Delivered);
        let call = within("a call", supervisor.next()).await.unwrap();
        assert_eq!(call.error(Errno::EXDEV).unwrap(), Delivery::Delivered);
        assert!(within("the end", supervisor.next()).await.is_none());
        assert!(target.wait().success());
    });
}

// user_notification_with_tsync
#[test]
fn a_listener_for_all_threads_of_a_process_is_served() {
    const TSYNC: &str = r#"
        static void *run(void *unused) {
            while (told() == 'x') check(trap(1, 0, 0, 0) == 5, "the answer");
            return NULL;
        }
        int main(void) {
            pthread_t thread[3];
            for (int i = 0; i < 3; i++) check(!pthread_create(&thread[i], NULL, run, NULL), "pthread_create");
            check(new_listener(SECCOMP_FILTER_FLAG_TSYNC) == -1 && errno == EINVAL, "without TSYNC_ESRCH");
            int listener = new_listener(SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH);
            check(listener >= 0, "seccomp");
            send_listener(listener);
            for (int i = 0; i < 3; i++) pthread_join(thread[i], NULL);
        }
    "#;
    use std::io::Write;
    on_each_runtime(|| async {
        let (mut target, listener) = Foreign::start("foreign_tsync", TSYNC);
        let mut listener = Listener::attach(listener).unwrap();
        target.socket.as_mut().unwrap().write_all(b"xxx").unwrap();
        frozen_threads(target.id(), 3).await;
        let mut tids = std::collections::HashSet::new();
        let mut calls = Vec::new();
        for _ in 0..3 {
            let call = within("a call", listener.next()).await.unwrap();
            assert!(tids.insert(call.tid().unwrap()), "{tids:?}");
            assert_eq!(call.pid().unwrap() as u32, target.id());
            calls.push(call);
        }
        for call in calls {
            assert!(call.respond(5).unwrap().is_delivered());
        }
        drop(target.socket.take());
        assert!(within("the end", listener.next()).await.is_none());
        assert!(target.wait().success());
    });
}

/// `SECCOMP_IOCTL_NOTIF_RECV`, `_IOWR('!', 0, struct seccomp_notif)`.
fn raw_receive(listener: &OwnedFd, buffer: *mut [u64; 32]) -> Result<i32, Errno> {
    // SAFETY: the buffer is null, or larger than what the kernel writes.
    Errno::result(unsafe { libc::ioctl(listener.as_raw_fd(), 0xc050_2100, buffer) })
}

// T17, user_notification_fault_recv
#[test]
fn a_call_that_somebody_failed_to_receive_is_not_lost() {
    on_each_runtime(|| async {
        let (mut target, listener) = Foreign::start("foreign_one_call", ONE_CALL);
        frozen(target.id()).await;
        // The buffer must hold zeros, must be there, and neither takes the call away.
        assert_eq!(raw_receive(&listener, &mut [1; 32]), Err(Errno::EINVAL));
        assert_eq!(raw_receive(&listener, std::ptr::null_mut()), Err(Errno::EFAULT));
        let mut listener = Listener::attach(listener).unwrap();
        for answer in [5, -(Errno::EXDEV as i64)] {
            let call = within("a call", listener.next()).await.unwrap();
            let answered = match answer {
                0.. => call.respond(answer),
                _ => call.error(Errno::EXDEV),
            };
            assert!(answered.unwrap().is_delivered());
        }
        assert!(within("the end", listener.next()).await.is_none());
        assert!(target.wait().success());
    });
}

#[test]
fn what_is_no_listener_is_refused() {
    on_each_runtime(|| async {
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let regular = tempfile::tempfile().unwrap();
        for other in [socket.into(), file.into(), regular.into()] {
            assert!(matches!(Listener::attach(other), Err(Error::NotAListener)));
        }
    });
    let (_target, listener) = Foreign::start("foreign_one_call", ONE_CALL);
    assert!(matches!(Listener::attach(listener), Err(Error::NoRuntime)));
}

// A listener whose last user is gone already.
#[test]
fn a_listener_that_has_ended_ends_at_once() {
    on_each_runtime(|| async {
        let ends = "int main(void) { send_listener(new_listener(0)); }";
        let (mut target, listener) = Foreign::start("foreign_ends", ends);
        assert!(target.wait().success());
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::empty())];
        assert_eq!(poll(&mut fds, PollTimeout::from(60_000_u16)), Ok(1));
        let mut listener = Listener::attach(listener).unwrap();
        assert!(within("the end", listener.next()).await.is_none());
    });
}

/// `SECCOMP_IOCTL_NOTIF_SET_FLAGS`, `_IOW('!', 4, __u64)`.
const SET_FLAGS: i32 = 0x4008_2104;

/// Serves 100 calls under a policy for waking.
async fn serve(policy: WakeUp) {
    const HUNDRED: &str = r#"
        int main(void) {
            for (long i = 0; i < 100; i++) check(trap(i, 0, 0, 0) == i, "the answer");
        }
    "#;
    let (mut child, mut listener) = command("hundred", HUNDRED).spawn().await.unwrap();
    listener.set_wake_up(policy);
    for number in 0..100 {
        let call = within("a call", listener.next()).await.unwrap();
        assert_eq!(call.args()[0], number);
        assert!(call.respond(number).unwrap().is_delivered());
    }
    assert!(within("the end", listener.next()).await.is_none());
    assert!(child.wait().await.unwrap().success());
}

async fn serve_each_policy() {
    for policy in [WakeUp::Adaptive, WakeUp::Synchronous, WakeUp::Asynchronous] {
        serve(policy).await;
    }
}

// T18: a pointer would be far from 0 and 1.
#[test]
fn the_wake_up_flag_is_passed_by_value() {
    in_process_of_its_own("the_wake_up_flag_is_passed_by_value", || {
        let pointer = [int_arg(1).eq(SET_FLAGS), arg(2).ge(2)];
        Filter::new()
            .rule(Sysno::ioctl, pointer, Action::Kill)
            .install()
            .unwrap();
        on_each_runtime(serve_each_policy);
    });
}

// T18: that a flag is set at all; else the test above shows nothing.
#[test]
fn the_synchronous_wake_up_sets_the_flag() {
    if !KernelSupport::get().sync_wake_up {
        return eprintln!("skipped: this kernel has no SYNC_WAKE_UP");
    }
    if is_child() {
        // The support was tried out before. This process is going to be killed, and shall not leave a core file.
        nix::sys::prctl::set_dumpable(false).unwrap();
        let on = [int_arg(1).eq(SET_FLAGS), arg(2).eq(1)];
        Filter::new()
            .rule(Sysno::ioctl, on, Action::Kill)
            .install()
            .unwrap();
        return on_each_runtime(|| async {
            serve(WakeUp::Asynchronous).await;
            println!("\nasynchronous");
            serve(WakeUp::Synchronous).await;
        });
    }
    let output = rerun("the_synchronous_wake_up_sets_the_flag").output().unwrap();
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("asynchronous"),
        "{output:?}"
    );
    assert_eq!(output.status.signal(), Some(Signal::SIGSYS as i32), "{output:?}");
}

// T18
#[test]
fn a_kernel_without_the_wake_up_flag_serves_all_the_same() {
    in_process_of_its_own("a_kernel_without_the_wake_up_flag_serves_all_the_same", || {
        let set = [int_arg(1).eq(SET_FLAGS)];
        Filter::new()
            .rule(Sysno::ioctl, set, Action::Errno(Errno::EINVAL))
            .install()
            .unwrap();
        assert!(!KernelSupport::get().sync_wake_up);
        assert!(KernelSupport::get().listener);
        on_each_runtime(serve_each_policy);
    });
}
