//! Whose pid it is: that of a thread, of a process, of one in another pid namespace.

mod support;

use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::Duration;

use asm_tracer::{Delivery, Errno, Error, InstallFd, Listener};
use support::foreign::Foreign;
use support::target::{command, on_each_runtime, program, threads};
use support::{assert_passed, is_child, rerun, within};

/// Whether this process may make a pid namespace, found out by trying; says so if it may not.
fn may_make_namespaces() -> bool {
    let mut tried = std::process::Command::new(program("in_namespace", IN_NAMESPACE));
    match tried.arg("/bin/true").status().unwrap().code() {
        Some(0) => true,
        Some(77) => {
            eprintln!("skipped: no right to make a pid namespace");
            false
        }
        code => panic!("{code:?}"),
    }
}

// T7, T8
#[test]
fn a_thread_has_its_own_tid_and_the_pid_of_its_process() {
    const THREAD: &str = r#"
        static void *run(void *unused) { return (void *)trap(gettid(), getpid(), 0, 0); }
        int main(void) {
            pthread_t thread;
            void *result;
            check(!pthread_create(&thread, NULL, run, NULL) && !pthread_join(thread, &result), "pthread");
            check(result == (void *)1, "the answer");
            check(trap(gettid(), getpid(), 0, 0) == 2, "the answer");
        }
    "#;
    on_each_runtime(|| async {
        let (mut child, mut listener) = command("thread", THREAD).spawn().await.unwrap();
        let pid = child.id().unwrap() as i32;
        let call = within("the thread's call", listener.next()).await.unwrap();
        let [tid, process, ..] = call.args();
        assert_eq!(process as i32, pid);
        assert_ne!(tid as i32, pid);
        assert_eq!(call.tid(), Some(tid as i32));
        assert_eq!(call.pid().unwrap(), pid);
        assert!(threads(pid as u32).contains(&(tid as u32)));
        assert!(call.respond(1).unwrap().is_delivered());
        let call = within("the process's call", listener.next()).await.unwrap();
        assert_eq!(call.tid(), Some(pid));
        assert_eq!(call.pid().unwrap(), pid);
        assert!(call.respond(2).unwrap().is_delivered());
        assert!(within("the end", listener.next()).await.is_none());
        assert!(child.wait().await.unwrap().success());
    });
}

// T7, user_notification_child_pid_ns
#[test]
fn a_target_in_a_namespace_below_has_the_pid_that_it_has_here() {
    const BELOW: &str = r#"
        #include <sched.h>
        static char text[] = "below";
        int main(void) {
            int gate[2];
            check(!pipe(gate) && !unshare(CLONE_NEWPID), "unshare");
            pid_t pid = fork();
            if (pid == 0) {
                /* Its pid here comes from the parent. */
                pid_t outside;
                check(read(gate[0], &outside, sizeof outside) == sizeof outside, "read");
                check(trap(getpid(), outside, (long)text, 0) == 5, "the answer");
                return 0;
            }
            int status;
            check(write(gate[1], &pid, sizeof pid) == sizeof pid, "write");
            check(waitpid(pid, &status, 0) == pid && status == 0, "waitpid");
        }
    "#;
    if !may_make_namespaces() {
        return;
    }
    on_each_runtime(|| async {
        let (mut child, mut listener) = command("below", BELOW).spawn().await.unwrap();
        let call = within("the call", listener.next()).await.unwrap();
        let [inside, outside, text, ..] = call.args();
        assert_eq!(inside, 1);
        assert_ne!(outside as u32, child.id().unwrap());
        assert_eq!(call.tid(), Some(outside as i32));
        assert_eq!(call.pid().unwrap(), outside as i32);
        assert_eq!(call.read_path(text as u64).unwrap().to_str(), Some("below"));
        assert_eq!(call.child(), child.key());
        assert!(call.respond(5).unwrap().is_delivered());
        assert!(within("the end", listener.next()).await.is_none());
        assert!(child.wait().await.unwrap().success());
    });
}

/// Runs `argv[1]` and its arguments in a pid namespace of its own; 77 if it may not.
const IN_NAMESPACE: &str = r#"
#include <sched.h>
int main(int argc, char **argv) {
    if (unshare(CLONE_NEWPID) && errno == EPERM) return 77;
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        check(getpid() == 1, "getpid");
        execv(argv[1], argv + 1);
        return 127;
    }
    int status;
    check(waitpid(pid, &status, 0) == pid, "waitpid");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
"#;

// T7, user_notification_sibling_pid_ns
#[test]
fn a_target_that_is_not_in_this_namespace_has_no_pid_and_is_still_answered() {
    const NAME: &str = "a_target_that_is_not_in_this_namespace_has_no_pid_and_is_still_answered";
    const TARGET: &str = r#"
        int main(void) {
            static char text[] = "elsewhere";
            send_listener(new_listener(0));
            check(trap((long)text, 0, 0, 0) == 5, "the answer");
            check(trap((long)text, 0, 0, 0) == -EACCES, "the answer");
            check(trap((long)text, 0, 0, 0) == -ENOSYS, "the answer");
        }
    "#;
    if is_child() {
        let listener = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
        // `/dev/null` takes its place, or the standard input would hold the listener beyond its end.
        nix::unistd::dup2_stdin(std::fs::File::open("/dev/null").unwrap()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        return runtime.block_on(async {
            served_from_another_namespace(Listener::attach(listener).unwrap()).await;
        });
    }
    if !may_make_namespaces() {
        return;
    }
    let (mut target, listener) = Foreign::start("elsewhere", TARGET);
    let test = rerun(NAME);
    let mut command = std::process::Command::new(program("in_namespace", IN_NAMESPACE));
    command.arg(test.get_program()).args(test.get_args());
    command.envs(test.get_envs().filter_map(|(key, value)| Some((key, value?))));
    // The child has the listener now, and this process none.
    let output = command.stdin(Stdio::from(listener)).output().unwrap();
    drop(command);
    assert_passed(&output);
    assert!(target.wait().success());
}

async fn served_from_another_namespace(mut listener: Listener) {
    let mut calls = 0;
    while let Some(call) = within("a call", listener.next()).await {
        let address = call.args()[0] as u64;
        assert_eq!(call.tid(), None);
        assert!(matches!(call.pid(), Err(Error::UnknownPid)));
        // 0 would mean this very process to the kernel.
        assert!(matches!(
            call.read_memory(address, &mut [0; 8]),
            Err(Error::UnknownPid)
        ));
        assert!(matches!(call.read_cstr(address, 8), Err(Error::UnknownPid)));
        assert!(matches!(call.read_path(address), Err(Error::UnknownPid)));
        assert!(matches!(call.read_value::<u8>(address), Err(Error::UnknownPid)));
        assert!(matches!(call.read_iovec(address, 1), Err(Error::UnknownPid)));
        assert!(matches!(call.write_memory(address, b"x"), Err(Error::UnknownPid)));
        assert!(matches!(call.target_fd(0), Err(Error::UnknownPid)));
        let interrupted = within("the refusal", call.interrupted()).await;
        assert!(matches!(interrupted, Err(Error::UnknownPid)));
        // What goes by the call alone works.
        assert!(call.install_fd(std::io::stdin(), InstallFd::new()).is_ok());
        let gone = tokio::time::timeout(Duration::from_millis(50), call.gone()).await;
        assert!(gone.is_err(), "{gone:?}");
        assert!(call.is_pending());
        calls += 1;
        match calls {
            1 => assert_eq!(call.respond(5).unwrap(), Delivery::Delivered),
            2 => assert_eq!(call.error(Errno::EACCES).unwrap(), Delivery::Delivered),
            _ => drop(call),
        }
    }
    assert_eq!(calls, 3);
}
