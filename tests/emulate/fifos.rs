//! FIFOs, at which opens wait: for the other end, or for a signal.

use std::process::Output;

use asm_tracer::{Command, Stdio, Supervisor};

use crate::common::{emulated, opens, serve};
use crate::support::target::{program, waits_in};
use crate::support::{in_process_of_its_own, until, within};

async fn run(name: &str, body: &str) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let source = format!("#include <sys/stat.h>\n{body}");
    let (output, _) = emulated(Command::new(program(name, &source)).current_dir(directory.path())).await;
    assert!(output.status.success(), "{output:?}");
    output
}

#[tokio::test]
async fn both_ends_wait_for_each_other() {
    const BOTH: &str = r#"
        int main(void) {
            check(!mkfifo("fifo", 0600), "mkfifo");
            for (int round = 0; round < 50; round++) {
                pid_t pid = fork();
                int first = round % 2 ? O_WRONLY : O_RDONLY;
                if (!pid) {
                    if (round % 3 == 0) usleep(2000);
                    int fd = open("fifo", first);
                    char byte = 'x';
                    check(fd >= 0 && !(fcntl(fd, F_GETFL) & O_NONBLOCK), "open");
                    check(first == O_WRONLY ? write(fd, &byte, 1) == 1 : read(fd, &byte, 1) == 1 && byte == 'y', "transfer");
                    _exit(0);
                }
                if (round % 3 == 1) usleep(2000);
                int fd = open("fifo", first == O_WRONLY ? O_RDONLY : O_WRONLY), status;
                char byte = 'y';
                check(fd >= 0, "open");
                check(first == O_RDONLY ? write(fd, &byte, 1) == 1 : read(fd, &byte, 1) == 1 && byte == 'x', "transfer");
                check(waitpid(pid, &status, 0) == pid && !status && !close(fd), "waitpid");
            }
        }
    "#;
    run("fifo_both", BOTH).await;
}

#[tokio::test]
async fn many_wait_at_once() {
    const MANY: &str = r#"
        int main(void) {
            char name[16];
            for (int i = 0; i < 40; i++) {
                snprintf(name, sizeof name, "fifo%d", i);
                check(!mkfifo(name, 0600), "mkfifo");
                if (!fork()) _exit(open(name, O_RDONLY) < 0);
            }
            for (int i = 39; i >= 0; i--) {
                snprintf(name, sizeof name, "fifo%d", i);
                check(open(name, O_WRONLY) >= 0, "open");
            }
            int status, ended = 0;
            while (wait(&status) > 0) ended += !status;
            return ended != 40;
        }
    "#;
    run("fifo_many", MANY).await;
}

/// An alarm that comes again and again, so that one comes while the open waits.
const INTERRUPTED: &str = r#"
    int main(void) {
        check(!mkfifo("fifo", 0600), "mkfifo");
        handle_signal(SIGALRM, 0);
        for (int flags = O_RDONLY; flags <= O_WRONLY; flags++)
            for (int round = 0; round < 10; round++) {
                ualarm(20000, 20000);
                int fd = open("fifo", flags);
                check(fd == -1 && errno == EINTR, "open");
                ualarm(0, 0);
            }
        check(handled >= 20, "handled");
        /* As nobody has it open, it can be opened by nobody to write to, and holds nothing. */
        check(open("fifo", O_WRONLY | O_NONBLOCK) == -1 && errno == ENXIO, "nobody");
    }
"#;

#[test]
fn a_signal_ends_the_wait_and_leaves_nothing() {
    in_process_of_its_own("fifos::a_signal_ends_the_wait_and_leaves_nothing", || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            // What stays for good.
            run("fifo_nothing", "int main(void) { }").await;
            let descriptors = crate::support::open_descriptors();
            run("fifo_interrupted", INTERRUPTED).await;
            until("the threads are gone", || {
                threads() == ["asm_tracer-laun".to_owned()]
            })
            .await;
            until("the descriptors are closed", || {
                crate::support::open_descriptors() == descriptors
            })
            .await;
        });
    });
}

// Without privileges, this process may not open the end that would let its own thread go.
#[tokio::test]
async fn a_signal_ends_the_wait_at_a_fifo_of_one_direction() {
    const ONE_WAY: &str = r#"
        int main(void) {
            handle_signal(SIGALRM, 0);
            for (int flags = O_RDONLY; flags <= O_WRONLY; flags++) {
                char name[16];
                snprintf(name, sizeof name, "fifo%d", flags);
                check(!mkfifo(name, flags == O_RDONLY ? 0400 : 0200), "mkfifo");
                ualarm(20000, 20000);
                check(open(name, flags) == -1 && errno == EINTR, "open");
                ualarm(0, 0);
            }
        }
    "#;
    run("fifo_one_way", ONE_WAY).await;
}

/// The names of the library's threads, as far as the kernel keeps them.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    let names = names.map(|name| name.trim().to_owned());
    names.filter(|name| name.starts_with("asm_tracer")).collect()
}

#[tokio::test]
async fn an_open_that_is_restarted_waits_on() {
    const RESTARTED: &str = r#"
        static volatile int *interruptions;
        static void count(int signal) { (void)signal; ++*interruptions; }
        int main(void) {
            check(!mkfifo("fifo", 0600), "mkfifo");
            interruptions = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
            check(interruptions != MAP_FAILED, "mmap");
            struct sigaction action = { .sa_handler = count, .sa_flags = SA_RESTART };
            check(!sigaction(SIGALRM, &action, NULL), "sigaction");
            pid_t pid = fork();
            if (!pid) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                /* Nobody comes before the wait has been interrupted a few times. */
                while (*interruptions < 5) usleep(1000);
                if (open("fifo", O_WRONLY) >= 0) pause();
                _exit(1);
            }
            ualarm(20000, 20000);
            int fd = open("fifo", O_RDONLY), status;
            check(fd >= 0, "open");
            ualarm(0, 0);
            check(*interruptions >= 5, "interruptions");
            check(!kill(pid, SIGKILL) && waitpid(pid, &status, 0) == pid && WIFSIGNALED(status), "waitpid");
        }
    "#;
    run("fifo_restarted", RESTARTED).await;
}

#[test]
fn a_target_that_is_killed_while_it_waits_leaves_nothing() {
    in_process_of_its_own(
        "fifos::a_target_that_is_killed_while_it_waits_leaves_nothing",
        || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                const WAITS: &str = r#"
                int main(void) { mkfifo("fifo", 0600); open("fifo", O_RDONLY); return 1; }
            "#;
                run("fifo_nothing", "int main(void) { }").await;
                let descriptors = crate::support::open_descriptors();
                let directory = tempfile::tempdir().unwrap();
                let source = format!("#include <sys/stat.h>\n{WAITS}");
                let mut command = Command::new(program("fifo_waits", &source));
                command
                    .current_dir(directory.path())
                    .filter(opens())
                    .stdin(Stdio::null());
                let mut supervisor = Supervisor::new();
                let mut child = supervisor.spawn(&mut command).await.unwrap();
                let pid = child.id().unwrap();
                let serving = tokio::spawn(async move {
                    while let Some(call) = supervisor.next().await {
                        tokio::spawn(serve(call));
                    }
                });
                // A thread of ours waits in the open.
                let waiting = || {
                    let tasks = crate::support::target::threads(std::process::id());
                    let opening = |tid: u32| waits_in(tid, asm_tracer::Sysno::openat);
                    tasks.into_iter().any(opening)
                };
                until("the open waits", waiting).await;
                assert!(crate::support::state(pid).is_some());
                child.kill().await.unwrap();
                drop(child);
                within("the end", serving).await.unwrap();
                until("the threads are gone", || {
                    threads() == ["asm_tracer-laun".to_owned()]
                })
                .await;
                until("the descriptors are closed", || {
                    crate::support::open_descriptors() == descriptors
                })
                .await;
            });
        },
    );
}
