//! What a container may forbid, or an older kernel lack.

use asm_tracer::{Command, Errno, Filter, Sysno};

use crate::common::emulated;
use crate::support::in_process_of_its_own;
use crate::support::target::program;

/// Follows links that are no text, and makes files with several umasks.
const PROGRAM: &str = r#"
#include <sys/stat.h>
static int mode(const char *name) {
    struct stat stat;
    check(!lstat(name, &stat), name);
    return stat.st_mode & 07777;
}
int main(int argc, char **argv) {
    check(!chdir(argv[1]), "chdir");
    umask(027);
    int fd = open("a", O_CREAT | O_RDWR, 0666);
    check(fd >= 0 && mode("a") == 0640, "a");
    umask(0);
    check(open("b", O_CREAT | O_EXCL | O_WRONLY, 07777) >= 0 && mode("b") == 07777, "b");
    umask(0111);
    check(open("c", O_CREAT | O_RDONLY, 0) >= 0 && mode("c") == 0, "c");
    int temporary = open(".", O_TMPFILE | O_RDWR, 0777);
    struct stat stat;
    check(temporary < 0 ? errno == EOPNOTSUPP : !fstat(temporary, &stat) && (stat.st_mode & 07777) == 0666, "temporary");
    char path[64], link[4096] = { 0 };
    check(write(fd, "text", 4) == 4, "write");
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = open(path, O_RDONLY);
    check(again >= 0 && read(again, link, 9) == 4 && !strcmp(link, "text"), "the same file");
    check(open("/proc/self/cwd/a", O_RDONLY) >= 0, "the working directory");
    check(open("/proc/thread-self/root/proc/mounts", O_RDONLY) >= 0, "the root");
    check(open("/proc/self/exe", O_RDONLY) >= 0, "the program");
}
"#;

async fn runs() {
    let temporary = tempfile::tempdir().unwrap();
    let mut command = Command::new(program("links_and_modes", PROGRAM));
    let (output, _) = emulated(command.arg(temporary.path())).await;
    assert!(output.status.success(), "{output:?}");
}

/// Runs it where these are refused.
fn where_refused(test: &str, calls: impl IntoIterator<Item = Sysno> + Clone, errno: Errno) {
    in_process_of_its_own(test, || {
        for call in calls.clone() {
            Filter::new().errno([call], errno).install().unwrap();
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(runs());
    });
}

#[tokio::test]
async fn with_all_of_it() {
    runs().await;
}

#[test]
fn without_a_umask_for_each_thread() {
    where_refused(
        "older_kernel::without_a_umask_for_each_thread",
        [Sysno::unshare],
        Errno::EPERM,
    );
}

#[test]
fn without_openat2() {
    where_refused("older_kernel::without_openat2", [Sysno::openat2], Errno::ENOSYS);
}
