//! What a target has opened, nobody else has once it goes on: not its supervisor either.

use asm_tracer::Command;

use crate::common::emulated;
use crate::support::in_process_of_its_own;
use crate::support::target::program;

/// In a process that starts nothing else: a child that is just being started has copies of all descriptors for a moment.
fn run(test: &str, body: &str) {
    let test = format!("sole_owner::{test}");
    in_process_of_its_own(&test, || {
        let directory = tempfile::tempdir().unwrap();
        let source = format!("#include <sys/file.h>\n#include <sys/stat.h>\n{body}");
        let mut command = Command::new(program("sole_owner", &source));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (output, _) = runtime.block_on(emulated(command.current_dir(directory.path())));
        assert!(output.status.success(), "{output:?}");
    });
}

#[test]
fn what_was_written_can_be_executed_at_once() {
    const EXECUTES: &str = r#"
        int main(int argc, char **argv) {
            static char program[1 << 20];
            int self = open("/proc/self/exe", O_RDONLY);
            ssize_t size = read(self, program, sizeof program);
            if (argc > 1) return 0;
            check(size > 0 && size < sizeof program, "read");
            for (int i = 0; i < 100; i++) {
                int fd = open("copy", O_CREAT | O_TRUNC | O_WRONLY, 0700), status;
                check(fd >= 0 && write(fd, program, size) == size && !close(fd), "write");
                pid_t pid = vfork();
                if (!pid) { execl("./copy", "copy", "x", NULL); _exit(errno); }
                check(waitpid(pid, &status, 0) == pid, "waitpid");
                errno = WEXITSTATUS(status);
                check(!status, "execl");
            }
        }
    "#;
    run("what_was_written_can_be_executed_at_once", EXECUTES);
}

#[test]
fn a_lock_ends_with_the_targets_own_descriptor() {
    const LOCKS: &str = r#"
        int main(void) {
            for (int i = 0; i < 500; i++) {
                int fd = open("file", O_CREAT | O_RDWR, 0600);
                check(fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB) && !close(fd), "flock");
            }
        }
    "#;
    run("a_lock_ends_with_the_targets_own_descriptor", LOCKS);
}

#[test]
fn a_fifo_has_the_ends_that_the_target_has() {
    const ENDS: &str = r#"
        int main(void) {
            check(!mkfifo("fifo", 0600), "mkfifo");
            for (int i = 0; i < 500; i++) {
                int fd = open("fifo", O_RDONLY | O_NONBLOCK);
                check(fd >= 0 && !close(fd), "open");
                check(open("fifo", O_WRONLY | O_NONBLOCK) == -1 && errno == ENXIO, "nobody");
            }
        }
    "#;
    run("a_fifo_has_the_ends_that_the_target_has", ENDS);
}

#[test]
fn a_file_system_can_be_unmounted_at_once() {
    const UNMOUNTS: &str = r#"
        #include <sched.h>
        #include <sys/mount.h>
        int main(void) {
            if (unshare(CLONE_NEWNS)) return 0;
            check(!mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) && !mkdir("mounted", 0700), "private");
            for (int i = 0; i < 100; i++) {
                check(!mount("tmpfs", "mounted", "tmpfs", 0, NULL), "mount");
                int directory = open("mounted", O_RDONLY | O_DIRECTORY);
                int fd = openat(directory, "file", O_CREAT | O_RDWR, 0600);
                check(directory >= 0 && fd >= 0 && !close(fd), "open");
                check(openat(directory, "nothing", O_RDONLY) == -1 && errno == ENOENT, "nothing");
                fd = openat(directory, ".", O_PATH);
                check(fd >= 0 && !close(fd) && !close(directory), "close");
                check(!umount("mounted"), "umount");
            }
        }
    "#;
    run("a_file_system_can_be_unmounted_at_once", UNMOUNTS);
}
