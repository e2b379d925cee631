//! Duplicates of the descriptors of a target: whose they are, and how the library does without what older kernels lack.

mod support;

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use asm_tracer::filter::int_arg;
use asm_tracer::{Action, Child, Errno, Error, Filter, Listener, Sysno};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use support::in_process_of_its_own;
use support::target::{command, next, on_each_runtime, succeeded};

/// `text_at` opens a file that holds a number, under another number.
const HELPERS: &str = r#"
static inline void text_at(int fd, long number) {
    char text[16];
    int file = memfd_create("text", 0);
    int length = sprintf(text, "%ld", number);
    check(write(file, text, length) == length && dup2(file, fd) == fd && !close(file), "text_at");
}
"#;

async fn start(name: &str, body: &str, arguments: &[&str]) -> (Child, Listener) {
    let body = format!("{HELPERS}\n{body}");
    let mut command = command(name, &body);
    command.args(arguments).spawn().await.unwrap()
}

/// What a file holds, whatever its offset.
fn text(fd: OwnedFd) -> String {
    let mut data = [0; 16];
    let n = std::fs::File::from(fd).read_at(&mut data, 0).unwrap();
    String::from_utf8(data[..n].to_vec()).unwrap()
}

// T22
#[test]
fn a_duplicate_is_another_descriptor_of_the_same_open_file() {
    const SHARES: &str = r#"
        int main(void) {
            text_at(40, 123456);
            check(lseek(40, 1, SEEK_SET) == 1, "lseek");
            check(trap(40, 0, 0, 0) == 0, "the answer");
            check(lseek(40, 0, SEEK_CUR) == 3, "the offset");
            check(fcntl(40, F_GETFL) & O_NONBLOCK, "O_NONBLOCK");
            char data[8] = "";
            check(pread(40, data, 7, 0) == 7 && !strcmp(data, "123x56!"), data);
        }
    "#;
    on_each_runtime(|| async {
        let (child, mut listener) = start("shares", SHARES, &[]).await;
        let call = next(&mut listener).await;
        let duplicate = call.target_fd(call.args()[0] as i32).unwrap();
        let flags = fcntl(&duplicate, FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags, FdFlag::FD_CLOEXEC.bits());
        fcntl(&duplicate, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let mut file = std::fs::File::from(duplicate);
        let mut data = [0; 2];
        file.read_exact(&mut data).unwrap();
        assert_eq!(&data, b"23");
        file.write_all(b"x").unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(b"!").unwrap();
        file.seek(SeekFrom::Start(3)).unwrap();
        drop(file);
        call.respond(0).unwrap();
        succeeded(child, listener).await;
    });
}

#[test]
fn what_is_not_open_is_told_and_the_call_still_waits() {
    on_each_runtime(|| async {
        let body = "int main(void) { close(0); return trap(1, 0, 0, 0) != 7; }";
        let (child, mut listener) = start("closed", body, &[]).await;
        let call = next(&mut listener).await;
        for wanted in [0, 900, 1 << 20, i32::MAX, -1, -100, i32::MIN] {
            let error = call.target_fd(wanted).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::EBADF));
            assert!(
                matches!(error, Error::BadFd { number } if number == wanted),
                "{error:?}"
            );
        }
        assert!(call.target_fd(1).is_ok());
        assert!(call.is_pending());
        assert!(call.respond(7).unwrap().is_delivered());
        succeeded(child, listener).await;
    });
}

/// Each thread has its file under number 40 of a table of its own if `argv[1]` is `own`, else under a number of its
/// own; the first one has another one under 40.
const THREADS: &str = r#"
static int own;
static void *call(void *number) {
    check(!own || !unshare(CLONE_FILES), "unshare");
    int fd = own ? 40 : 100 + (long)number;
    text_at(fd, (long)number);
    check(trap(fd, (long)number, 0, 0) == 7, "the answer");
    return NULL;
}
int main(int argc, char **argv) {
    own = !strcmp(argv[1], "own");
    int count = atoi(argv[2]);
    pthread_t threads[64];
    text_at(40, 999);
    for (long i = 0; i < count; i++) check(!pthread_create(&threads[i], NULL, call, (void *)i), "pthread_create");
    for (long i = 0; i < count; i++) pthread_join(threads[i], NULL);
    check(trap(40, 999, 0, 0) == 7, "the answer");
}
"#;

const UNSHARE: &str = "#include <sched.h>\n";

async fn start_threads(own: bool, count: usize) -> (Child, Listener) {
    let table = if own { "own" } else { "shared" };
    let body = format!("{UNSHARE}{THREADS}");
    start("threads", &body, &[table, &count.to_string()]).await
}

// T8
#[test]
fn each_of_many_threads_has_the_descriptors_of_its_own_table() {
    on_each_runtime(|| async {
        for own in [false, true] {
            let (child, mut listener) = start_threads(own, 64).await;
            // All of them wait at once.
            let mut calls = Vec::new();
            for _ in 0..64 {
                calls.push(next(&mut listener).await);
            }
            for call in calls.into_iter().rev() {
                assert_ne!(call.tid(), Some(call.pid().unwrap()));
                let [fd, number, ..] = call.args();
                assert_eq!(text(call.target_fd(fd as i32).unwrap()), number.to_string());
                assert!(call.respond(7).unwrap().is_delivered());
            }
            let call = next(&mut listener).await;
            assert_eq!(text(call.target_fd(40).unwrap()), "999");
            call.respond(7).unwrap();
            succeeded(child, listener).await;
        }
    });
}

/// Runs `body` in a process in which these calls fail.
fn where_refused(test: &str, refusing: Filter, body: impl AsyncFn()) {
    in_process_of_its_own(test, || {
        refusing.install().unwrap();
        on_each_runtime(|| body());
    });
}

/// `PIDFD_THREAD` of `linux/pidfd.h`.
const PIDFD_THREAD: i32 = libc::O_EXCL;

fn no_thread_pidfd() -> Filter {
    let condition = int_arg(1).masked_eq(PIDFD_THREAD, PIDFD_THREAD);
    Filter::new().rule(Sysno::pidfd_open, [condition], Action::Errno(Errno::EINVAL))
}

// T8
#[test]
fn before_thread_pidfds_a_thread_is_served_through_its_leader_if_they_share_their_table() {
    where_refused(
        "before_thread_pidfds_a_thread_is_served_through_its_leader_if_they_share_their_table",
        no_thread_pidfd(),
        async || {
            let (child, mut listener) = start_threads(false, 8).await;
            for _ in 0..8 {
                let call = next(&mut listener).await;
                let [fd, number, ..] = call.args();
                assert_eq!(text(call.target_fd(fd as i32).unwrap()), number.to_string());
                assert!(matches!(call.target_fd(-1), Err(Error::BadFd { number: -1 })));
                call.respond(7).unwrap();
            }
            let call = next(&mut listener).await;
            assert_eq!(text(call.target_fd(40).unwrap()), "999");
            call.respond(7).unwrap();
            succeeded(child, listener).await;
        },
    );
}

/// No thread but the leader is served, whether or not it has that number, and each is answerable.
async fn only_the_leader_is_served(own: bool, expected: impl Fn(&Error) -> bool) {
    let (child, mut listener) = start_threads(own, 8).await;
    let before = support::open_descriptors();
    for _ in 0..8 {
        let call = next(&mut listener).await;
        for fd in [40, 41, -1] {
            let error = call.target_fd(fd).unwrap_err();
            assert!(expected(&error), "{error:?}");
        }
        assert!(call.is_pending());
        call.respond(7).unwrap();
    }
    assert_eq!(support::open_descriptors(), before);
    let call = next(&mut listener).await;
    assert_eq!(text(call.target_fd(40).unwrap()), "999");
    call.respond(7).unwrap();
    succeeded(child, listener).await;
}

fn is_unsupported(error: &Error) -> bool {
    matches!(error, Error::Unsupported { since: "6.9", .. })
}

// T8
#[test]
fn before_thread_pidfds_a_thread_with_a_table_of_its_own_is_refused() {
    where_refused(
        "before_thread_pidfds_a_thread_with_a_table_of_its_own_is_refused",
        no_thread_pidfd(),
        async || only_the_leader_is_served(true, is_unsupported).await,
    );
}

// T8
#[test]
fn before_thread_pidfds_a_thread_whose_table_can_not_be_compared_is_refused() {
    where_refused(
        "before_thread_pidfds_a_thread_whose_table_can_not_be_compared_is_refused",
        no_thread_pidfd().errno(Sysno::kcmp, Errno::ENOSYS),
        async || only_the_leader_is_served(false, is_unsupported).await,
    );
}

// T8
#[test]
fn before_thread_pidfds_a_comparison_that_is_forbidden_is_no_access() {
    where_refused(
        "before_thread_pidfds_a_comparison_that_is_forbidden_is_no_access",
        no_thread_pidfd().errno(Sysno::kcmp, Errno::EPERM),
        async || only_the_leader_is_served(false, |error| matches!(error, Error::NoAccess)).await,
    );
}

/// Nobody is served, and every call is answerable.
async fn nobody_is_served(expected: impl Fn(&Error) -> bool) {
    let (child, mut listener) = start_threads(false, 1).await;
    let before = support::open_descriptors();
    for _ in 0..2 {
        let call = next(&mut listener).await;
        let error = call.target_fd(1).unwrap_err();
        assert!(expected(&error), "{error:?}");
        assert!(call.respond(7).unwrap().is_delivered());
    }
    assert_eq!(support::open_descriptors(), before);
    succeeded(child, listener).await;
}

#[test]
fn before_pidfd_getfd_a_duplicate_is_unsupported() {
    where_refused(
        "before_pidfd_getfd_a_duplicate_is_unsupported",
        no_thread_pidfd().errno(Sysno::pidfd_getfd, Errno::ENOSYS),
        async || nobody_is_served(|error| matches!(error, Error::Unsupported { .. })).await,
    );
}

#[test]
fn a_container_that_forbids_pidfd_getfd_gives_no_access() {
    where_refused(
        "a_container_that_forbids_pidfd_getfd_gives_no_access",
        Filter::new().errno(Sysno::pidfd_getfd, Errno::EPERM),
        async || nobody_is_served(|error| matches!(error, Error::NoAccess)).await,
    );
}

// What a target does to its table meanwhile never gives a descriptor of something else, and none is lost.
#[test]
fn a_table_that_changes_all_the_time_gives_what_was_there_or_nothing() {
    const CHANGES: &str = r#"
        static void *change(void *unused) {
            for (;;) { text_at(40, 1); text_at(40, 2); close(40); }
            return unused;
        }
        int main(void) {
            pthread_t thread;
            check(!pthread_create(&thread, NULL, change, NULL), "pthread_create");
            for (int i = 0; i < 500; i++) check(trap(40, 0, 0, 0) == 7, "the answer");
            _exit(0);
        }
    "#;
    const NAME: &str = "a_table_that_changes_all_the_time_gives_what_was_there_or_nothing";
    in_process_of_its_own(NAME, || {
        on_each_runtime(|| async {
            let (child, mut listener) = start("changes", CHANGES, &[]).await;
            let before = support::open_descriptors();
            for _ in 0..500 {
                let call = next(&mut listener).await;
                match call.target_fd(40) {
                    Ok(duplicate) => {
                        assert!(duplicate.as_raw_fd() > 2);
                        let text = text(duplicate);
                        assert!(text == "1" || text == "2", "{text}");
                    }
                    Err(error) => assert!(matches!(error, Error::BadFd { number: 40 }), "{error:?}"),
                }
                call.respond(7).unwrap();
            }
            assert_eq!(support::open_descriptors(), before);
            succeeded(child, listener).await;
        });
    });
}
