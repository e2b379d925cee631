//! What the kernel offers, and how the library does without: each newer feature is made to fail by a filter of our own.

mod support;

use asm_tracer::filter::{arg, int_arg};
use asm_tracer::{Action, Command, Errno, Error, Filter, KernelSupport, Stdio, Supervisor, Sysno, WakeUp};
use support::{in_process_of_its_own, within};

/// Runs `body` in a process in which `refusing` was installed before anything else.
fn where_refused(test: &str, refusing: Filter, body: impl AsyncFnOnce()) {
    in_process_of_its_own(test, || {
        refusing.install().unwrap();
        runtime().block_on(body());
    });
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

/// `SECCOMP_IOCTL_NOTIF_SET_FLAGS`.
const SET_FLAGS: i32 = 0x4008_2104;

fn no_sync_wake_up() -> Filter {
    let action = Action::Errno(Errno::EINVAL);
    Filter::new().rule(Sysno::ioctl, [int_arg(1).eq(SET_FLAGS)], action)
}

fn no_wait_killable() -> Filter {
    let flag = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let action = Action::Errno(Errno::EINVAL);
    Filter::new().rule(Sysno::seccomp, [arg(1).masked_eq(flag, flag)], action)
}

fn no_process_memory(errno: Errno) -> Filter {
    Filter::new().errno([Sysno::process_vm_readv, Sysno::process_vm_writev], errno)
}

/// A program that starts others. No shell: SIGCHLD makes its trapped fork fail with `EINTR` now and then (T10).
const PROGRAM: &str = "find";

/// Runs programs with every call trapped, and sees that they do what they do.
async fn programs_run(supervisor: &mut Supervisor, command: &mut Command) {
    command
        .args(["/dev/null", "/dev/zero", "-exec", "echo", "found", "{}", ";"])
        .stdout(Stdio::piped())
        .filter(Filter::trap_all());
    let child = supervisor.spawn(command).await.unwrap();
    let output = tokio::spawn(child.wait_with_output());
    while let Some(call) = within("a call", supervisor.next()).await {
        call.continue_syscall().unwrap();
    }
    let output = within("the end", output).await.unwrap().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "found /dev/null\nfound /dev/zero\n"
    );
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn this_kernel_offers_everything() {
    let support = KernelSupport::get();
    assert_eq!(
        support.to_string(),
        "listener: yes, pidfd: yes, sync wake-up: yes, wait killable: yes, process memory: yes"
    );
    assert!(support.listener && support.pidfd && support.sync_wake_up);
    assert!(support.wait_killable && support.process_memory);
}

#[test]
fn trying_leaves_nothing_behind() {
    in_process_of_its_own("trying_leaves_nothing_behind", || {
        let state = || {
            let fields = ["Threads", "NoNewPrivs", "Seccomp", "Seccomp_filters"];
            let values = fields.map(|field| support::proc_status(std::process::id(), field));
            (support::open_descriptors(), values)
        };
        let before = state();
        KernelSupport::get();
        support::until_blocking("the thread is gone", || state() == before);
    });
}

// T48, user_notification_with_tsync
#[test]
#[allow(unsafe_code)]
fn flags_are_tried_together_with_those_that_they_need() {
    let tried = |flags: libc::c_ulong| {
        let program = std::ptr::null::<libc::sock_fprog>();
        // SAFETY: there is no program, so that nothing is installed.
        let result =
            unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, program) };
        Errno::result(result).unwrap_err()
    };
    let (listener, killable) = (
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
        libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
    );
    let (all_threads, esrch) = (
        libc::SECCOMP_FILTER_FLAG_TSYNC,
        libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH,
    );
    assert_eq!(tried(killable), Errno::EINVAL);
    assert_eq!(tried(listener | killable), Errno::EFAULT);
    assert_eq!(tried(listener | all_threads), Errno::EINVAL);
    assert_eq!(tried(listener | all_threads | esrch), Errno::EFAULT);
    assert!(KernelSupport::get().wait_killable);
}

// T18
#[test]
fn without_sync_wake_up_programs_run_all_the_same() {
    where_refused(
        "without_sync_wake_up_programs_run_all_the_same",
        no_sync_wake_up(),
        async || {
            assert_eq!(
                KernelSupport::get().to_string(),
                "listener: yes, pidfd: yes, sync wake-up: no, wait killable: yes, process memory: yes"
            );
            for policy in [WakeUp::Adaptive, WakeUp::Synchronous, WakeUp::Asynchronous] {
                let mut supervisor = Supervisor::new();
                supervisor.set_wake_up(policy);
                programs_run(&mut supervisor, &mut Command::new(PROGRAM)).await;
            }
        },
    );
}

#[test]
fn without_wait_killable_programs_run_unless_they_insist_on_it() {
    where_refused(
        "without_wait_killable_programs_run_unless_they_insist_on_it",
        no_wait_killable(),
        async || {
            assert_eq!(
                KernelSupport::get().to_string(),
                "listener: yes, pidfd: yes, sync wake-up: yes, wait killable: no, process memory: yes"
            );
            let mut supervisor = Supervisor::new();
            programs_run(&mut supervisor, &mut Command::new(PROGRAM)).await;
            programs_run(&mut supervisor, Command::new(PROGRAM).wait_killable(false)).await;
            let error = supervisor
                .spawn(Command::new(PROGRAM).wait_killable(true))
                .await
                .unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::Unsupported {
                        feature: "WAIT_KILLABLE_RECV",
                        since: "5.19"
                    }
                ),
                "{error:?}"
            );
        },
    );
}

#[test]
fn without_any_of_the_newer_features_programs_run_all_the_same() {
    where_refused(
        "without_any_of_the_newer_features_programs_run_all_the_same",
        no_sync_wake_up(),
        async || {
            no_wait_killable().install().unwrap();
            no_process_memory(Errno::ENOSYS).install().unwrap();
            assert_eq!(
                KernelSupport::get().to_string(),
                "listener: yes, pidfd: yes, sync wake-up: no, wait killable: no, process memory: no"
            );
            let mut supervisor = Supervisor::new();
            programs_run(&mut supervisor, &mut Command::new(PROGRAM)).await;
        },
    );
}

/// Looks into a child in each way; the error is the same, and the call stays answerable.
async fn memory_is_refused(is_expected: impl Fn(&Error) -> bool) {
    assert!(!KernelSupport::get().process_memory);
    let mut supervisor = Supervisor::new();
    programs_run(&mut supervisor, &mut Command::new(PROGRAM)).await;
    let mut command = Command::new("echo");
    command
        .arg("hello")
        .stdout(Stdio::piped())
        .filter(Filter::new().trap(Sysno::write));
    let mut child = supervisor.spawn(&mut command).await.unwrap();
    let call = within("a call", supervisor.next()).await.unwrap();
    let address = call.args()[1] as u64;
    let errors = [
        call.read_memory(address, &mut [0; 6]).unwrap_err(),
        call.read_cstr(address, 6).unwrap_err(),
        call.read_value::<u8>(address).unwrap_err(),
        call.write_memory(address, b"HELLO").unwrap_err(),
        child.read_memory(address, &mut [0; 6]).unwrap_err(),
    ];
    for error in errors {
        assert!(is_expected(&error), "{error:?}");
    }
    assert!(call.continue_syscall().unwrap().is_delivered());
    let output = tokio::spawn(async move {
        let mut text = String::new();
        let mut stdout = child.stdout.take().unwrap();
        tokio::io::AsyncReadExt::read_to_string(&mut stdout, &mut text)
            .await
            .unwrap();
        (text, child.wait().await.unwrap().success())
    });
    assert!(within("the end", supervisor.next()).await.is_none());
    assert_eq!(
        within("the output", output).await.unwrap(),
        ("hello\n".to_owned(), true)
    );
}

// T40, T41
#[test]
fn without_permission_for_memory_the_calls_are_served_and_looking_is_no_access() {
    where_refused(
        "without_permission_for_memory_the_calls_are_served_and_looking_is_no_access",
        no_process_memory(Errno::EPERM),
        async || memory_is_refused(|error| matches!(error, Error::NoAccess)).await,
    );
}

// T40
#[test]
fn without_access_to_memory_the_calls_are_served_and_looking_is_unsupported() {
    where_refused(
        "without_access_to_memory_the_calls_are_served_and_looking_is_unsupported",
        no_process_memory(Errno::ENOSYS),
        async || memory_is_refused(|error| matches!(error, Error::Unsupported { since: "3.2", .. })).await,
    );
}
