//! Programs that want to get out of `sandbox`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::finish;
use crate::sandbox::{place, sandbox};
use crate::support::target::program;
use crate::text;

/// Makes all kinds of calls with `path`, which means something else from one moment to the next.
const RACER: &str = r#"
#include <sys/stat.h>
#include <utime.h>
static volatile int done;
static char path[64];
static long succeeded;
static void attempt(void) {
    char text[8];
    struct stat status;
    struct timespec times[2] = {{0}, {0}};
    int fd = open(path, O_RDONLY);
    if (fd >= 0) {
        check(read(fd, text, 6) < 6 || memcmp(text, "SECRET", 6), "THE SECRET WAS READ");
        /* By the descriptor that was opened only to read. */
        fchmod(fd, 0640);
        close(fd);
        succeeded++;
    }
    if ((fd = open(path, O_WRONLY | O_TRUNC)) >= 0) {
        check(write(fd, "spoilt", 6) == 6, "write");
        close(fd);
        succeeded++;
    }
    if (!stat(path, &status)) {
        check(status.st_size != 4242, "THE SECRET WAS SEEN");
        succeeded++;
    }
    chmod(path, 0646);
    truncate(path, 3);
    utimensat(AT_FDCWD, path, times, 0);
    link(path, "allowed/stolen");
    symlink("anything", path);
    if (!rename(path, "allowed/stolen")) succeeded++;
    if (!unlink(path)) succeeded++;
    if ((fd = open(path, O_CREAT | O_WRONLY, 0600)) >= 0) close(fd);
    rename("allowed/stolen", path);
}
"#;

/// Every file of a directory: what is in it, and what is known of it.
fn all_of(directory: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let about = entry.metadata().unwrap();
        // Not when it was accessed, which is what we do here.
        let numbers = [about.ino(), about.nlink(), about.mode().into(), about.len()];
        let times = [about.mtime(), about.ctime(), about.ctime_nsec()];
        let begins = fs::read_to_string(entry.path()).unwrap()[..6].to_owned();
        (
            entry.file_name().into_string().unwrap(),
            format!("{numbers:?} {times:?} {begins}"),
        )
    });
    entries.collect()
}

/// A directory with `allowed/file` and `secrets/file` in it.
fn places() -> (tempfile::TempDir, std::path::PathBuf) {
    let (directory, allowed) = place();
    fs::write(allowed.join("file"), "mine").unwrap();
    fs::create_dir(directory.path().join("secrets")).unwrap();
    let secret = format!("SECRET{}", "x".repeat(4236));
    fs::write(directory.path().join("secrets/file"), secret).unwrap();
    (directory, allowed)
}

// T43
#[tokio::test]
async fn a_path_that_changes_in_memory_does_not_get_out() {
    const MAIN: &str = r#"
        static long flips;
        static void *flip(void *unused) {
            for (; !done || flips < 100000; flips++) {
                memcpy(path, flips % 2 ? "secrets" : "allowed", 7);
                if (flips % 64 == 0 || flips % 64 == 33) usleep(10);
            }
            return NULL;
        }
        int main(void) {
            pthread_t thread;
            strcpy(path, "allowed/file");
            check(!chdir(".."), "chdir");
            check(!pthread_create(&thread, NULL, flip, NULL), "pthread_create");
            for (int i = 0; i < 400; i++) attempt();
            done = 1;
            pthread_join(thread, NULL);
            printf("%ld %ld\n", succeeded, flips);
        }
    "#;
    let (directory, allowed) = places();
    let before = all_of(&directory.path().join("secrets"));
    let program = program("racer_memory", &format!("{RACER}{MAIN}"));
    let output = finish(sandbox(&allowed).arg("-r").arg(&program).arg(&program)).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(all_of(&directory.path().join("secrets")), before);
    let (succeeded, flips) = text(&output.stdout).trim().split_once(' ').unwrap();
    eprintln!("{succeeded} calls succeeded, {flips} changes");
    assert!(succeeded != "0" && flips.parse::<u64>().unwrap() >= 100_000);
}

// T43
#[tokio::test]
async fn a_symlink_that_changes_does_not_get_out() {
    const MAIN: &str = r#"
        int main(void) {
            strcpy(path, "allowed/link/file");
            check(!chdir(".."), "chdir");
            for (int i = 0; i < 400; i++) attempt();
            printf("%ld\n", succeeded);
        }
    "#;
    let (directory, allowed) = places();
    symlink(".", allowed.join("link")).unwrap();
    symlink("../secrets", allowed.join("other")).unwrap();
    let before = all_of(&directory.path().join("secrets"));
    let program = program("racer_symlink", &format!("{RACER}{MAIN}"));
    // From outside, where it is done faster than any program of the sandbox could.
    let (done, swaps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let swapper = std::thread::spawn({
        let (done, swaps, allowed) = (Arc::clone(&done), Arc::clone(&swaps), allowed.clone());
        move || {
            while !done.load(Ordering::Relaxed) || swaps.load(Ordering::Relaxed) < 100_000 {
                let (one, other) = (allowed.join("link"), allowed.join("other"));
                renameat2(AT_FDCWD, &one, AT_FDCWD, &other, RenameFlags::RENAME_EXCHANGE).unwrap();
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let output = finish(sandbox(&allowed).arg("-r").arg(&program).arg(&program)).await;
    done.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(all_of(&directory.path().join("secrets")), before);
    eprintln!(
        "{} calls succeeded, {swaps:?} changes",
        text(&output.stdout).trim()
    );
    assert_ne!(text(&output.stdout).trim(), "0");
}

#[tokio::test]
async fn nothing_is_executed_but_what_may_be() {
    const EXECUTOR: &str = r#"
        static char *path;
        static volatile int done;
        static void *flip(void *unused) {
            for (long flips = 0; !done; flips++) {
                strcpy(path, flips % 2 ? SECRET : "/usr/bin/true");
                if (flips % 64 == 0 || flips % 64 == 33) usleep(10);
            }
            return NULL;
        }
        int main(int count, char **arguments) {
            pthread_t thread;
            int succeeded = 0, refused = 0, status;
            path = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
            check(path != MAP_FAILED, "mmap");
            check(!pthread_create(&thread, NULL, flip, NULL), "pthread_create");
            char *none[] = {NULL};
            /* In a process that has a second thread, whatever it says. */
            execve("/usr/bin/true", none, none);
            check(errno == EAGAIN, "execve with threads");
            if (!vfork()) { execve("/usr/bin/true", none, none); _exit(errno == EAGAIN ? 0 : 1); }
            check(wait(&status) > 0 && status == 0, "execve after a vfork with threads");
            for (int i = 0; i < 150; i++) {
                pid_t child = fork();
                check(child >= 0, "fork");
                if (!child) { execve(path, none, none); _exit(77); }
                check(waitpid(child, &status, 0) == child && WIFEXITED(status), "waitpid");
                check(WEXITSTATUS(status) != 42, "THE SECRET WAS EXECUTED");
                if (WEXITSTATUS(status) == 77) refused++; else succeeded++;
            }
            done = 1;
            pthread_join(thread, NULL);
            printf("%d %d\n", succeeded, refused);
        }
    "#;
    let (directory, allowed) = place();
    let secret = directory.path().join("secret");
    fs::copy(program("secret", "int main(void) { return 42; }"), &secret).unwrap();
    fs::copy(&secret, allowed.join("own")).unwrap();
    let source = format!("#define SECRET \"{}\"\n{EXECUTOR}", secret.display());
    let path = directory.path().join("program");
    fs::copy(program("executor", &source), &path).unwrap();
    let output = finish(sandbox(&allowed).arg("-r").arg(&path).arg(&path)).await;
    assert!(output.status.success(), "{output:?}");
    let (succeeded, refused) = text(&output.stdout).trim().split_once(' ').unwrap();
    eprintln!("{succeeded} executions succeeded, {refused} were refused");
    assert!(succeeded != "0" && refused != "0");
}

#[tokio::test]
async fn there_is_no_way_around() {
    /// Says what should have failed.
    const WAYS: &str = r#"
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sched.h>
#include <sys/ptrace.h>
#define NEVER(call) do { errno = 0; if ((long)(call) != -1) printf("%s\n", #call); } while (0)
int main(void) {
    char text[4096], path[4096];
    int supervisor = getppid();
    struct rlimit limit;
    struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "\0abstract" };
    struct { long handle; char bytes[128]; } handle = { .handle = 128 };
    long io_uring[32] = {0};
    int fd = open("/etc/passwd", O_RDONLY), mount_id;
    check(fd >= 0, "open");
    NEVER(kill(supervisor, 0)); NEVER(kill(-1, 0)); NEVER(kill(1, 0)); NEVER(syscall(SYS_tkill, supervisor, 0));
    NEVER(syscall(SYS_tgkill, supervisor, supervisor, 0)); NEVER(syscall(SYS_pidfd_open, supervisor, 0));
    NEVER(syscall(SYS_rt_sigqueueinfo, supervisor, 0, text));
    NEVER(fcntl(fd, F_SETOWN, supervisor)); NEVER(fcntl(fd, 10 /* F_SETSIG */, SIGKILL));
    NEVER(prlimit(supervisor, RLIMIT_NOFILE, NULL, &limit));
    NEVER(ptrace(PTRACE_ATTACH, supervisor, 0, 0)); NEVER(syscall(SYS_process_vm_readv, supervisor, 0, 0, 0, 0, 0));
    NEVER(syscall(SYS_process_vm_writev, getpid(), 0, 0, 0, 0, 0)); NEVER(syscall(SYS_pidfd_getfd, fd, 0, 0));
    NEVER(syscall(SYS_io_uring_setup, 1, io_uring)); NEVER(syscall(SYS_userfaultfd, 0));
    NEVER(syscall(SYS_name_to_handle_at, AT_FDCWD, "..", &handle, &mount_id, 0));
    NEVER(syscall(SYS_open_by_handle_at, fd, &handle, O_RDONLY));
    NEVER(mount("none", ".", "tmpfs", 0, 0)); NEVER(umount2("/proc", MNT_DETACH)); NEVER(chroot("."));
    NEVER(syscall(SYS_pivot_root, ".", ".")); NEVER(unshare(CLONE_NEWNS)); NEVER(unshare(CLONE_NEWUSER));
    NEVER(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0)); NEVER(syscall(SYS_clone3, text, 88));
    NEVER(syscall(SYS_clone, CLONE_VM | SIGCHLD, 0, 0, 0, 0)); NEVER(syscall(SYS_clone, CLONE_PARENT, 0, 0, 0, 0));
    NEVER(prctl(PR_SET_CHILD_SUBREAPER, 1)); NEVER(prctl(PR_SET_DUMPABLE, 0)); NEVER(setuid(0)); NEVER(setgid(0));
    NEVER(syscall(SYS_seccomp, 1, 0, 0)); NEVER(syscall(SYS_bpf, 0, 0, 0)); NEVER(syscall(SYS_fsopen, "tmpfs", 0));
    NEVER(syscall(SYS_open_tree, AT_FDCWD, "..", 0)); NEVER(syscall(SYS_execveat, fd, "", 0, 0, AT_EMPTY_PATH));
    NEVER(ioctl(0, TIOCSTI, "x")); NEVER(ioctl(fd, _IOW('f', 2, long), text)); NEVER(fchmod(fd, 0777));
    NEVER(fchown(fd, -1, -1)); NEVER(futimens(fd, NULL)); NEVER(syscall(SYS_fsetxattr, fd, "user.a", "b", 1, 0));
    NEVER(mknod("device", S_IFCHR | 0666, 0x103)); NEVER(link("/etc/passwd", "stolen"));
    NEVER(syscall(SYS_linkat, fd, "", AT_FDCWD, "stolen", AT_EMPTY_PATH)); NEVER(rename("/etc/passwd", "stolen"));
    NEVER(symlink("x", "/etc/x")); NEVER(mkdir("/etc/x", 0777)); NEVER(rmdir("../allowed")); NEVER(rename(".", "../x"));
    NEVER(rename("../allowed", "inner")); NEVER(truncate("/etc/passwd", 0)); NEVER(chown("/etc/passwd", 0, 0));
    NEVER(socket(AF_INET, SOCK_STREAM, 0)); NEVER(socket(AF_UNIX, SOCK_DGRAM, 0)); NEVER(socket(AF_UNIX, SOCK_RAW, 0));
    NEVER(socket(AF_NETLINK, SOCK_RAW, 0)); NEVER(bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&address, 12));
    NEVER(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&address, 12));
    strcpy(address.sun_path, SOCKET);
    NEVER(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&address, sizeof address));
    const char *files[] = {"mem", "environ", "fd/0", "root", "cwd/secret", "maps", "task"};
    for (int i = 0; i < 7; i++) {
        sprintf(path, "/proc/%d/%s", supervisor, files[i]);
        NEVER(open(path, O_RDONLY));
        NEVER(open(path, O_PATH)); NEVER(readlink(path, text, sizeof text)); NEVER(chdir(path));
    }
    NEVER(open("/proc/self/mem", O_RDWR)); NEVER(open("/proc/self/root", O_RDONLY));
    NEVER(open("/proc/self/root/root", O_RDONLY)); NEVER(open("/proc/self/cwd/..", O_RDONLY));
    NEVER(open("/proc/kcore", O_RDONLY)); NEVER(open("/proc/sysrq-trigger", O_WRONLY)); NEVER(open("/dev/mem", O_RDONLY));
    NEVER(openat(fd, "/root", O_RDONLY)); NEVER(open("..", O_RDONLY)); NEVER(open("../secret", O_RDONLY));
    NEVER(open("../new", O_CREAT | O_WRONLY, 0600)); NEVER(open("..", O_TMPFILE | O_RDWR, 0600));
    NEVER(syscall(SYS_inotify_add_watch, 0, "..", -1)); NEVER(syscall(SYS_statfs, "..", text));
    NEVER(syscall(SYS_statx, AT_FDCWD, "../secret", 0, 0x7ff, text)); NEVER(access("../secret", F_OK));
    /* Calls of another ABI. */
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(5 /* open */), "b"("/"), "c"(0) : "memory");
    if (result >= 0) printf("int $0x80\n");
    NEVER(syscall(0x40000000 | SYS_open, "/", O_RDONLY));
    puts("done");
}
"#;
    let (directory, allowed) = place();
    fs::write(directory.path().join("secret"), "secret").unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let socket = directory.path().join("socket");
    let _server = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let path = directory.path().join("program");
    let source = format!("#define SOCKET \"{}\"\n{WAYS}", socket.display());
    // Its name has the directory in it, which is another one each time.
    fs::copy(program("ways", &source), &path).unwrap();
    let output = finish(sandbox(&allowed).arg(&path)).await;
    assert_eq!(text(&output.stdout), "done\n", "{output:?}");
}
