//! Whose memory it is, and whose descriptors: targets that may not be looked into, and others that got the pid of one.

mod support;

use std::os::unix::fs::{FileExt, PermissionsExt};

use asm_tracer::{Command, Errno, Error, InstallFd};
use nix::unistd::{Gid, Uid, setresgid, setresuid};
use support::target::{command, filter, on_each_runtime, program};
use support::{assert_passed, is_child, rerun, within};

// T41
#[test]
fn a_target_that_may_not_be_read_is_no_access_and_still_answerable() {
    const HIDES: &str = r#"
        static char secret[] = "secret";
        int main(int argc, char **argv) {
            check(!prctl(PR_SET_DUMPABLE, argc > 1, 0, 0, 0), "prctl");
            check(trap((long)secret, 0, 0, 0) == -EACCES, "the answer");
        }
    "#;
    const NAME: &str = "a_target_that_may_not_be_read_is_no_access_and_still_answerable";
    const TARGET: &str = "ASM_TRACER_TEST_TARGET";
    if !is_child() {
        // A copy that any user may execute.
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let target = directory.path().join("target");
        std::fs::copy(program("hides", HIDES), &target).unwrap();
        return assert_passed(&rerun(NAME).env(TARGET, &target).output().unwrap());
    }
    if Uid::effective().is_root() {
        let (nobody, nogroup) = (Uid::from_raw(65534), Gid::from_raw(65534));
        setresgid(nogroup, nogroup, nogroup).unwrap();
        setresuid(nobody, nobody, nobody).unwrap();
    }
    let target = std::env::var_os(TARGET).unwrap();
    on_each_runtime(|| async {
        for dumpable in [true, false] {
            let mut command = Command::new(&target);
            command.filter(filter()).args(dumpable.then_some("dumpable"));
            let (mut child, mut listener) = command.spawn().await.unwrap();
            let call = within("the call", listener.next()).await.unwrap();
            let address = call.args()[0] as u64;
            let read = call.read_memory(address, &mut [0; 6]);
            if dumpable {
                assert_eq!(read.unwrap(), 6);
                assert!(call.target_fd(1).is_ok());
                call.write_memory(address, b"public").unwrap();
            } else {
                assert!(matches!(read, Err(Error::NoAccess)), "{read:?}");
                assert!(matches!(call.read_cstr(address, 8), Err(Error::NoAccess)));
                assert!(matches!(call.read_path(address), Err(Error::NoAccess)));
                assert!(matches!(call.read_value::<u8>(address), Err(Error::NoAccess)));
                assert!(matches!(call.read_iovec(address, 1), Err(Error::NoAccess)));
                assert!(matches!(call.write_memory(address, b"x"), Err(Error::NoAccess)));
                assert!(matches!(call.target_fd(1), Err(Error::NoAccess)));
                assert!(matches!(
                    child.read_memory(address, &mut [0; 6]),
                    Err(Error::NoAccess)
                ));
            }
            assert_eq!(call.pid().unwrap() as u32, child.id().unwrap());
            // Giving takes no such right.
            assert!(call.install_fd(std::io::stdin(), InstallFd::new()).is_ok());
            assert!(call.is_pending());
            assert!(call.error(Errno::EACCES).unwrap().is_delivered());
            assert!(within("the end", listener.next()).await.is_none());
            assert!(child.wait().await.unwrap().success());
        }
    });
}

/// Where both programs of the next test have something.
const ADDRESS: u64 = 0x1000_0000;

/// Maps `ADDRESS` and puts `argv[1]` there; without `argv[2]`, makes a call. Otherwise becomes the parent of a process
/// with that pid that does the same, until the standard input ends; 77 if it may not, 78 if the pid is taken.
const SAME_PID: &str = r#"
#include <linux/sched.h>
int main(int argc, char **argv) {
    void *page = mmap((void *)0x10000000, 4096, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    check(page != MAP_FAILED, "mmap");
    strcpy(page, argv[1]);
    if (argc == 2) return trap(1, 0, 0, 0);
    pid_t wanted = atoi(argv[2]);
    struct clone_args args = { .exit_signal = SIGCHLD, .set_tid = (uintptr_t)&wanted, .set_tid_size = 1 };
    long pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0) { prctl(PR_SET_PDEATHSIG, SIGKILL); for (;;) pause(); }
    if (pid < 0) return errno == EPERM || errno == ENOSYS ? 77 : errno == EEXIST ? 78 : 1;
    check(write(1, "x", 1) == 1, "write");
    told();
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return 0;
}
"#;

// T42
#[test]
fn the_memory_of_another_process_with_the_same_pid_is_never_given() {
    use std::io::Read;
    use std::process::Stdio;

    on_each_runtime(|| async {
        for _ in 0..10 {
            let (mut child, mut listener) = command("same_pid", SAME_PID).arg("mine").spawn().await.unwrap();
            let call = within("the call", listener.next()).await.unwrap();
            let mut data = [0; 4];
            assert_eq!(call.read_memory(ADDRESS, &mut data).unwrap(), 4);
            assert_eq!(&data, b"mine");
            let pid = child.id().unwrap();
            child.kill().await.unwrap();

            let mut other = std::process::Command::new(program("same_pid", SAME_PID))
                .args(["else", &pid.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            if other.stdout.as_mut().unwrap().read(&mut [0]).unwrap() == 0 {
                match other.wait().unwrap().code() {
                    Some(77) => return eprintln!("skipped: this needs the right to choose a pid"),
                    // Somebody else's process has got it.
                    Some(78) => continue,
                    code => panic!("{code:?}"),
                }
            }
            let mut theirs = [0; 4];
            let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
            memory.read_exact_at(&mut theirs, ADDRESS).unwrap();
            assert_eq!(&theirs, b"else");
            assert!(matches!(call.read_memory(ADDRESS, &mut data), Err(Error::Gone)));
            assert!(matches!(call.read_cstr(ADDRESS, 8), Err(Error::Gone)));
            assert!(matches!(call.write_memory(ADDRESS, b"evil"), Err(Error::Gone)));
            assert!(matches!(call.pid(), Err(Error::Gone)));
            assert!(matches!(child.read_memory(ADDRESS, &mut data), Err(Error::Gone)));
            memory.read_exact_at(&mut theirs, ADDRESS).unwrap();
            assert_eq!(&theirs, b"else");
            drop(other.stdin.take());
            assert!(other.wait().unwrap().success());
            return;
        }
        panic!("the pid is always taken");
    });
}
