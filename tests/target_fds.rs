//! Descriptors that a target is given.

mod support;

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd};

use asm_tracer::{Child, Delivery, Errno, Error, InstallFd, Listener, Notification, Sysno};
use support::target::{command, next, on_each_runtime, succeeded, threads, waits_in};
use support::{until, within};

/// An open file with this text, positioned at its beginning.
fn file(text: &str) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file
}

/// What comes before the programs: `expect` compares what is read from a descriptor, `is_open` asks whether there is one.
const HELPERS: &str = r#"
static inline void expect(int fd, const char *text) {
    char data[64] = "";
    check(read(fd, data, sizeof data - 1) == (ssize_t)strlen(text) && !strcmp(data, text), text);
}
static inline int is_open(int fd) { return fcntl(fd, F_GETFD) >= 0; }
/* Those that the target began with may be any: what started the tests may have left some open. */
static inline int count_open(void) {
    int count = 0;
    for (int fd = 0; fd < 1024; fd++) count += is_open(fd);
    return count;
}
"#;

async fn start(name: &str, body: &str) -> (Child, Listener) {
    let body = format!("{HELPERS}\n{body}");
    command(name, &body).spawn().await.unwrap()
}

/// The descriptors that a process has open.
fn open_in(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn delivered(answer: Result<Delivery, asm_tracer::AnswerError>) {
    assert_eq!(answer.unwrap(), Delivery::Delivered);
}

// user_notification_addfd
#[test]
fn a_call_returns_the_lowest_free_number_of_the_target() {
    const OPENS: &str = r#"
        int main(void) {
            close(0);
            check(trap(1, 0, 0, 0) == 0, "the lowest number");
            expect(0, "first");
            for (int fd = 3; fd < 6; fd++) close(fd);
            check(trap(2, 0, 0, 0) == 3, "the next number");
            expect(3, "second");
            check(fcntl(0, F_GETFD) == 0 && fcntl(3, F_GETFD) == FD_CLOEXEC, "the flags");
            check(trap(3, 0, 0, 0) == -1000000, "the answer");
            expect(4, "third");
            check(fcntl(4, F_GETFD) == 0, "the flags");
        }
    "#;
    on_each_runtime(|| async {
        let (child, mut listener) = start("opens", OPENS).await;
        let call = next(&mut listener).await;
        delivered(call.respond_with_fd(file("first"), InstallFd::new()));
        let call = next(&mut listener).await;
        let options = InstallFd::new().close_on_exec(true);
        delivered(call.respond_with_fd(file("second").as_fd(), options));
        let call = next(&mut listener).await;
        let number = call.install_fd(file("third"), InstallFd::default()).unwrap();
        assert_eq!((number.as_raw(), number.to_string().as_str()), (4, "4"));
        assert!(call.is_pending());
        delivered(call.respond(-1_000_000));
        succeeded(child, listener).await;
    });
}

#[test]
fn an_execution_closes_what_it_is_to_close() {
    const EXECUTES: &str = r#"
        int main(int argc, char **argv) {
            if (argc == 3) return !is_open(atoi(argv[1])) || is_open(atoi(argv[2]));
            char kept[16], closed[16];
            sprintf(kept, "%ld", trap(1, 0, 0, 0));
            sprintf(closed, "%ld", trap(2, 0, 0, 0));
            check(strcmp(kept, closed) && is_open(atoi(kept)) && is_open(atoi(closed)), "open");
            execl("/proc/self/exe", "again", kept, closed, NULL);
            check(0, "execl");
        }
    "#;
    on_each_runtime(|| async {
        let (child, mut listener) = start("executes", EXECUTES).await;
        // Ours are close-on-exec, and that does not matter.
        let call = next(&mut listener).await;
        delivered(call.respond_with_fd(file(""), InstallFd::new()));
        let call = next(&mut listener).await;
        delivered(call.respond_with_fd(file(""), InstallFd::new().close_on_exec(true)));
        succeeded(child, listener).await;
    });
}

// T21
#[test]
fn an_open_descriptor_is_replaced_only_if_it_is_named() {
    const REPLACED: &str = r#"
        int main(void) {
            struct stat before[3], after;
            check(dup2(open("/dev/null", O_RDONLY), 40) == 40, "dup2");
            for (int i = 0; i < 3; i++) check(!fstat(i, &before[i]), "fstat");
            int fd = trap(1, 0, 0, 0);
            check(fd > 2 && fd != 40, "a free number");
            expect(fd, "not named");
            expect(40, "");
            for (int i = 0; i < 3; i++)
                check(!fstat(i, &after) && after.st_ino == before[i].st_ino, "untouched");
            check(trap(2, 0, 0, 0) == 40, "the number that was named");
            expect(40, "named");
            check(fcntl(40, F_GETFD) == FD_CLOEXEC, "the flags");
            check(trap(3, 0, 0, 0) == 0, "standard input");
            expect(0, "input");
            check(trap(4, 0, 0, 0) == 7, "the answer");
            expect(0, "again");
            check(trap(5, 0, 0, 0) == 1000, "one that was free");
            expect(1000, "free");
            check(fcntl(1000, F_GETFD) == 0, "the flags");
        }
    "#;
    on_each_runtime(|| async {
        let body = format!("#include <sys/stat.h>\n{HELPERS}\n{REPLACED}");
        let mut command = command("replaced", &body);
        let (child, mut listener) = command.spawn().await.unwrap();
        let call = next(&mut listener).await;
        delivered(call.respond_with_fd(file("not named"), InstallFd::new()));
        let call = next(&mut listener).await;
        let options = InstallFd::new().replace(40).close_on_exec(true);
        delivered(call.respond_with_fd(file("named"), options));
        let call = next(&mut listener).await;
        delivered(call.respond_with_fd(file("input"), InstallFd::new().replace(0)));
        let call = next(&mut listener).await;
        let number = call.install_fd(file("again"), InstallFd::new().replace(0));
        assert_eq!(number.unwrap().as_raw(), 0);
        delivered(call.respond(7));
        let call = next(&mut listener).await;
        delivered(call.respond_with_fd(file("free"), InstallFd::new().replace(1000)));
        succeeded(child, listener).await;
    });
}

/// Tries both ways to give a descriptor, each of which is refused with this; the call comes back, and waits still.
fn refused(call: Notification, options: InstallFd, expected: (Option<i32>, Errno)) -> Notification {
    let of = |error| match error {
        Error::InstallFd { number, source } => (number, source),
        error => panic!("{error:?}"),
    };
    let refused = call.install_fd(file("x"), options).unwrap_err();
    assert_eq!(refused.errno(), Some(expected.1));
    assert_eq!(of(refused), expected);
    assert!(call.is_pending());
    let refused = call.respond_with_fd(file("x"), options).unwrap_err();
    assert_eq!(of(refused.error), expected);
    assert!(refused.notification.is_pending());
    *refused.notification
}

// T19, user_notification_addfd_rlimit
#[test]
fn what_the_target_can_not_take_is_refused_and_the_call_still_waits() {
    const LIMITED: &str = r#"
        #include <sys/resource.h>
        int main(void) {
            struct rlimit none = { 0, 100 }, some = { 20, 100 };
            int before = count_open();
            check(!setrlimit(RLIMIT_NOFILE, &none), "setrlimit");
            check(trap(1, 0, 0, 0) == -EMFILE, "the answer");
            check(count_open() == before, "unchanged");
            check(!setrlimit(RLIMIT_NOFILE, &some), "setrlimit");
            while (dup(0) != -1) { }
            check(errno == EMFILE && trap(2, 0, 0, 0) == 12, "the answer");
            expect(12, "fits");
        }
    "#;
    on_each_runtime(|| async {
        let (child, mut listener) = start("limited", LIMITED).await;
        let mut call = next(&mut listener).await;
        call = refused(call, InstallFd::new(), (None, Errno::EMFILE));
        for number in [0, 1, 20, 1 << 20, i32::MAX, -1, -100, i32::MIN] {
            call = refused(
                call,
                InstallFd::new().replace(number),
                (Some(number), Errno::EBADF),
            );
        }
        delivered(call.error(Errno::EMFILE));
        let mut call = next(&mut listener).await;
        call = refused(call, InstallFd::new(), (None, Errno::EMFILE));
        call = refused(call, InstallFd::new().replace(20), (Some(20), Errno::EBADF));
        call = refused(call, InstallFd::new().replace(-1), (Some(-1), Errno::EBADF));
        delivered(call.respond_with_fd(file("fits"), InstallFd::new().replace(12)));
        succeeded(child, listener).await;
    });
}

// T19: a number under which another thread is just opening something; here a pipe, for which it waits.
#[test]
fn a_number_that_is_being_opened_is_refused_and_the_call_still_waits() {
    const OPENING: &str = r#"
        #include <sys/stat.h>
        static void *open_pipe(void *path) {
            check(open(path, O_RDONLY) >= 0, "open");
            return NULL;
        }
        int main(int argc, char **argv) {
            int number = dup(0);
            check(!close(number) && !mkfifo(argv[1], 0600), "mkfifo");
            pthread_t thread;
            check(!pthread_create(&thread, NULL, open_pipe, argv[1]), "pthread_create");
            check(trap(number, 0, 0, 0) == 7, "the answer");
            check(open(argv[1], O_WRONLY) >= 0 && !pthread_join(thread, NULL), "the other end");
        }
    "#;
    on_each_runtime(|| async {
        let directory = tempfile::tempdir().unwrap();
        let mut command = command("opening", OPENING);
        command.arg(directory.path().join("pipe"));
        let (child, mut listener) = command.spawn().await.unwrap();
        let call = next(&mut listener).await;
        let pid = child.id().unwrap();
        let opens = || threads(pid).into_iter().any(|tid| waits_in(tid, Sysno::openat));
        until("the other thread opens the pipe", opens).await;
        let number = call.args()[0] as i32;
        let options = InstallFd::new().replace(number);
        let call = refused(call, options, (Some(number), Errno::EBUSY));
        delivered(call.respond(7));
        succeeded(child, listener).await;
    });
}

#[test]
fn a_killed_target_takes_no_descriptor() {
    on_each_runtime(|| async {
        for _ in 0..20 {
            let (mut child, mut listener) = start("waits", "int main(void) { trap(1, 0, 0, 0); }").await;
            let call = next(&mut listener).await;
            assert!(call.install_fd(file(""), InstallFd::new()).unwrap().as_raw() > 2);
            child.start_kill().unwrap();
            assert!(within("the end", listener.next()).await.is_none());
            let given = call.install_fd(file(""), InstallFd::new());
            assert!(matches!(given, Err(Error::Gone)), "{given:?}");
            assert!(matches!(call.target_fd(0), Err(Error::Gone)));
            let answer = call.respond_with_fd(file(""), InstallFd::new());
            assert_eq!(answer.unwrap(), Delivery::Gone);
        }
    });
}

// A target that dies while it is given descriptors, wherever that meets it.
#[test]
fn a_target_may_be_killed_while_it_takes_descriptors() {
    on_each_runtime(|| async {
        for attempt in 0..60 {
            let body = "int main(void) { for (;;) close(trap(1, 0, 0, 0)); }";
            let (mut child, mut listener) = start("takes", body).await;
            let source = file("");
            let call = next(&mut listener).await;
            delivered(call.respond_with_fd(&source, InstallFd::new()));
            let kills = tokio::task::spawn_blocking(move || {
                // At another moment each time.
                std::thread::sleep(std::time::Duration::from_micros(attempt * 20));
                child.start_kill().unwrap();
                child
            });
            while let Some(call) = within("a call or the end", listener.next()).await {
                if let Err(error) = call.install_fd(&source, InstallFd::new().replace(9)) {
                    assert!(matches!(error, Error::Gone), "{error:?}");
                }
                call.respond_with_fd(&source, InstallFd::new()).unwrap();
            }
            let mut child = kills.await.unwrap();
            within("the exit", child.wait()).await.unwrap();
        }
    });
}

// T22
#[test]
fn the_offset_and_the_status_flags_are_shared() {
    const SHARES: &str = r#"
        int main(void) {
            int fd = trap(1, 0, 0, 0);
            char data[4] = "";
            check(read(fd, data, 3) == 3 && !strcmp(data, "abc"), "read");
            check(!(fcntl(fd, F_GETFL) & O_NONBLOCK), "blocking");
            check(trap(2, 0, 0, 0) == 0, "the answer");
            check(read(fd, data, 3) == 3 && !strcmp(data, "efg"), "read");
            check(fcntl(fd, F_GETFL) & O_NONBLOCK, "not blocking");
            check(!fcntl(fd, F_SETFL, 0), "fcntl");
            check(trap(3, 0, 0, 0) == 0, "the answer");
        }
    "#;
    let is_non_blocking = |fd: &std::fs::File| {
        let flags = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFL).unwrap();
        flags & nix::fcntl::OFlag::O_NONBLOCK.bits() != 0
    };
    on_each_runtime(|| async {
        let (child, mut listener) = start("shares", SHARES).await;
        let mut file = file("abcdefgh");
        let call = next(&mut listener).await;
        delivered(call.respond_with_fd(&file, InstallFd::new()));
        let call = next(&mut listener).await;
        let mut byte = [0];
        file.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"d");
        let non_blocking = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
        nix::fcntl::fcntl(&file, non_blocking).unwrap();
        delivered(call.respond(0));
        let call = next(&mut listener).await;
        assert!(!is_non_blocking(&file));
        file.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"h");
        delivered(call.respond(0));
        succeeded(child, listener).await;
    });
}

#[test]
fn many_threads_are_given_descriptors_at_once() {
    const THREADS: &str = r#"
        static void *take(void *number) {
            char text[16];
            sprintf(text, "%ld", (long)number);
            for (int i = 0; i < 20; i++) {
                int fd = trap((long)number, 0, 0, 0);
                expect(fd, text);
                check(!close(fd), "close");
            }
            return NULL;
        }
        int main(void) {
            pthread_t threads[64];
            int before = count_open();
            for (long i = 0; i < 64; i++) check(!pthread_create(&threads[i], NULL, take, (void *)i), "pthread_create");
            for (long i = 0; i < 64; i++) pthread_join(threads[i], NULL);
            check(count_open() == before, "no leak");
        }
    "#;
    on_each_runtime(|| async {
        let (child, mut listener) = start("threads", THREADS).await;
        let mut answers = tokio::task::JoinSet::new();
        while let Some(call) = within("a call or the end", listener.next()).await {
            answers.spawn(async move {
                let text = file(&call.args()[0].to_string());
                delivered(call.respond_with_fd(text, InstallFd::new()));
            });
        }
        while let Some(answer) = answers.join_next().await {
            answer.unwrap();
        }
        succeeded(child, listener).await;
    });
}

#[test]
fn nothing_is_left_open_on_either_side() {
    const NAME: &str = "nothing_is_left_open_on_either_side";
    const CLOSES: &str = r#"
        int main(void) {
            for (int i = 0; i < 300; i++) {
                int fd = trap(1, 0, 0, 0);
                check(fd < 0 ? fd == -EPERM : !close(fd), "close");
            }
            trap(2, 0, 0, 0);
        }
    "#;
    support::in_process_of_its_own(NAME, || {
        on_each_runtime(|| async {
            let (child, mut listener) = start("closes", CLOSES).await;
            let pid = child.id().unwrap();
            let source = file("");
            let mut before = None;
            for i in 0..300 {
                let call = next(&mut listener).await;
                let now = (support::open_descriptors(), open_in(pid));
                assert_eq!(*before.get_or_insert(now), now);
                match i % 3 {
                    0 => delivered(call.respond_with_fd(&source, InstallFd::new())),
                    1 => {
                        let call = refused(call, InstallFd::new().replace(-1), (Some(-1), Errno::EBADF));
                        assert!(matches!(call.target_fd(77), Err(Error::BadFd { number: 77 })));
                        delivered(call.error(Errno::EPERM));
                    }
                    _ => {
                        let duplicate = call.target_fd(1).unwrap();
                        assert!(duplicate.as_raw_fd() > 2);
                        let number = call.install_fd(&source, InstallFd::new()).unwrap();
                        delivered(call.respond(number.as_raw().into()));
                    }
                }
            }
            let call = next(&mut listener).await;
            assert_eq!(before.unwrap(), (support::open_descriptors(), open_in(pid)));
            delivered(call.respond(0));
            succeeded(child, listener).await;
        });
    });
}
