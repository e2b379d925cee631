//! Threads, which may have a working directory, a umask and descriptors of their own; limits; what is left behind.

use asm_tracer::Command;

use crate::common::emulated;
use crate::support::target::program;
use crate::support::{in_process_of_its_own, open_descriptors, until};

async fn run(name: &str, body: &str) {
    let directory = tempfile::tempdir().unwrap();
    let source = format!("#include <sched.h>\n#include <sys/resource.h>\n#include <sys/stat.h>\n{body}");
    let (output, _) = emulated(Command::new(program(name, &source)).current_dir(directory.path())).await;
    assert!(output.status.success(), "{output:?}");
}

// T8
#[tokio::test]
async fn each_thread_has_what_is_its_own() {
    const THREADS: &str = r#"
        static int directory, theirs;
        static int mode(int fd) { struct stat stat; check(fd >= 0 && !fstat(fd, &stat), "fstat"); return stat.st_mode & 07777; }
        static void *thread(void *unused) {
            check(!unshare(CLONE_FS | CLONE_FILES) && !chdir("elsewhere"), "unshare");
            umask(077);
            check(mode(open("made", O_CREAT | O_RDWR, 0666)) == 0600, "its umask");
            /* The number means something else here than in the other thread. */
            check(!close(directory) && open("below", O_RDONLY | O_DIRECTORY) == directory, "its directory");
            theirs = openat(directory, "in_below", O_CREAT | O_RDWR, 0600);
            check(theirs >= 0 && !access("below/in_below", F_OK), "its descriptor");
            char text[32] = { 0 }, expected[32];
            check(!prctl(PR_SET_NAME, "other"), "prctl");
            int comm = open("/proc/thread-self/comm", O_RDONLY);
            check(comm >= 0 && read(comm, text, 31) == 6 && !strcmp(text, "other\n"), "its name");
            comm = open("/proc/self/comm", O_RDONLY);
            memset(text, 0, sizeof text);
            check(comm >= 0 && read(comm, text, 31) > 0 && strcmp(text, "other\n"), "the name of its process");
            snprintf(expected, sizeof expected, "/proc/self/task/%d/comm", gettid());
            check(open(expected, O_RDONLY) >= 0, "by its number");
            return NULL;
        }
        int main(void) {
            pthread_t other;
            umask(0);
            check(!mkdir("elsewhere", 0700) && !mkdir("elsewhere/below", 0700), "mkdir");
            directory = open(".", O_RDONLY | O_DIRECTORY);
            check(!pthread_create(&other, NULL, thread, NULL) && !pthread_join(other, NULL), "pthread");
            check(mode(open("made", O_CREAT | O_RDWR, 0666)) == 0666, "the first umask");
            check(openat(directory, "elsewhere/made", O_RDONLY) >= 0, "the first directory");
            check(open("/proc/thread-self/comm", O_RDONLY) >= 0, "the first name");
        }
    "#;
    run("threads_own", THREADS).await;
}

// T19
#[tokio::test]
async fn a_target_that_can_take_no_more_is_told_so() {
    const LIMITED: &str = r#"
        int main(void) {
            struct rlimit limit = { 8, 8 };
            check(!setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
            int fd, last = -1;
            while ((fd = open("/dev/null", O_RDWR)) >= 0) last = fd;
            check(errno == EMFILE && last == 7, "open");
            check(!close(5) && open("/dev/null", O_RDONLY) == 5, "the lowest that is free");
        }
    "#;
    run("limited", LIMITED).await;
}

#[tokio::test]
async fn many_threads_open_at_once() {
    const MANY: &str = r#"
        static void *thread(void *number) {
            char name[32];
            for (long i = 0; i < 50; i++) {
                snprintf(name, sizeof name, "%ld-%ld", (long)number, i);
                int fd = open(name, O_CREAT | O_EXCL | O_RDWR, 0600);
                check(fd >= 0 && write(fd, &i, sizeof i) == sizeof i && !close(fd), "make");
                long read_back = -1;
                fd = open(name, O_RDONLY);
                check(fd >= 0 && read(fd, &read_back, sizeof i) == sizeof i && !close(fd) && read_back == i, "read");
            }
            return NULL;
        }
        int main(void) {
            pthread_t threads[64];
            for (long i = 0; i < 64; i++) check(!pthread_create(&threads[i], NULL, thread, (void *)i), "pthread_create");
            for (long i = 0; i < 64; i++) pthread_join(threads[i], NULL);
        }
    "#;
    run("threads_many", MANY).await;
}

#[test]
fn opening_leaves_nothing() {
    in_process_of_its_own("threads::opening_leaves_nothing", || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            run("nothing", "int main(void) { }").await;
            let descriptors = open_descriptors();
            const MIXED: &str = r#"
                int main(void) {
                    for (int i = 0; i < 300; i++) {
                        static const char *names[] = { ".", "nothing", "/dev/null", "/proc/self/fd/0", "made", "/dev/tty", "/proc/self" };
                        int fd = open(names[i % 7], i % 3 ? O_RDONLY : O_RDWR | O_CREAT, 0600);
                        if (fd >= 0) close(fd);
                        fd = openat(i % 5 ? 99 : AT_FDCWD, "x", O_PATH);
                    }
            
                }
            "#;
            run("mixed", MIXED).await;
            until("the descriptors are closed", || open_descriptors() == descriptors).await;
        });
    });
}
