//! Data in the target: longer paths, results in memory, and none of it left.

use std::io::Write;

use asm_tracer::{Errno, Filter, Observed, Sysno};

use crate::support::target::on_each_runtime;
use crate::support::within;
use crate::{printed, start, target};

/// Opens a file under a short name in memory that can't be written, prints what is in it and how many mappings there are.
const OPENS: &str = r#"
static int mappings(void) {
    FILE *maps = fopen("/proc/self/maps", "r");
    int lines = 0, byte;
    while ((byte = fgetc(maps)) != EOF) lines += byte == '\n';
    fclose(maps);
    return lines;
}
static void show(const char *name) {
    char text[64] = "";
    int fd = syscall(SYS_openat, AT_FDCWD, name, O_RDONLY | O_NONBLOCK);
    if (fd < 0) { printf("%d ", errno); return; }
    ssize_t n = read(fd, text, sizeof text - 1);
    printf("%s ", n < 0 ? "?" : text);
    close(fd);
}
int main(void) {
    char *name = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    strcpy(name, "x");
    mprotect(name, 4096, PROT_READ);
    mappings();
    int before = mappings();
    while (told()) show(name);
    check(!strcmp(name, "x"), "the name");
    check(mappings() == before, "the mappings");
}
"#;

fn opens_x() -> Filter {
    use asm_tracer::filter::int_arg;
    Filter::new().trap_if(Sysno::openat, [int_arg(2).eq(0o4000)])
}

#[test]
fn a_path_is_replaced_by_a_longer_one() {
    let directory = tempfile::tempdir().unwrap();
    let long = directory.path().join("d".repeat(250)).join("e".repeat(250));
    std::fs::create_dir_all(&long).unwrap();
    let path = long.join("file");
    std::fs::write(&path, "contents").unwrap();
    for killable in [true, false] {
        on_each_runtime(|| async {
            let mut command = target("opens", OPENS, opens_x());
            let (child, mut listener) = start(command.wait_killable(killable), 30).await;
            let mut bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).to_vec();
            bytes.push(0);
            for _ in 0..30 {
                let call = within("a call", listener.next()).await.unwrap();
                let args = call.args();
                let observed = call.continue_with(args).data(1, &bytes).observe();
                let observed = within("the result", observed).await.unwrap();
                assert!(matches!(observed, Observed::Returned(3..)), "{observed:?}");
            }
            assert_eq!(printed(child, listener).await, "contents ".repeat(30));
        });
    }
}

#[test]
fn a_call_that_fails_leaves_nothing_either() {
    on_each_runtime(|| async {
        let mut command = target("opens", OPENS, opens_x());
        let (child, mut listener) = start(&mut command, 2).await;
        for _ in 0..2 {
            let call = within("a call", listener.next()).await.unwrap();
            let args = call.args();
            let observed = call.continue_with(args).data(1, "/nonexistent/file\0").observe();
            let observed = within("the result", observed).await.unwrap();
            assert_eq!(observed.result(), Some(Err(Errno::ENOENT)));
        }
        assert_eq!(printed(child, listener).await, "2 2 ");
    });
}

/// Several arguments, more than one page, and a call that writes to the room.
#[test]
fn each_argument_has_its_own() {
    const RESULTS: &str =
        "int main(void) { while (told()) { printf(\"%ld \", trap(1, 2, 3, 4)); fflush(stdout); } }";
    on_each_runtime(|| async {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        let mut command = target("results", RESULTS, crate::support::target::filter());
        let (child, mut listener) = start(&mut command, 2).await;
        std::fs::write(&from, "moved").unwrap();
        let call = within("a call", listener.next()).await.unwrap();
        let zero = |path: &std::path::Path| format!("{}\0", path.display());
        let rename = call
            .continue_as(Sysno::rename, [0; 6])
            .data(0, zero(&from))
            .data(1, zero(&to))
            .data(5, vec![7; 100_000]);
        let observed = within("the result", rename.observe()).await.unwrap();
        assert_eq!(observed, Observed::Returned(0));
        assert_eq!(std::fs::read(&to).unwrap(), b"moved");
        assert!(!from.exists());
        let call = within("a call", listener.next()).await.unwrap();
        let names = call.continue_as(Sysno::uname, [0; 6]).data(0, [0; 390]);
        assert_eq!(
            within("the result", names.observe()).await.unwrap(),
            Observed::Returned(0)
        );
        assert_eq!(printed(child, listener).await, "0 0 ");
    });
}

#[test]
fn a_target_without_room_sees_its_own_error() {
    const BODY: &str = r#"
        #include <sys/resource.h>
        int main(void) {
            struct rlimit none = { 0, 0 };
            told();
            check(!setrlimit(RLIMIT_AS, &none), "setrlimit");
            int fd = syscall(SYS_openat, AT_FDCWD, "x", O_RDONLY | O_NONBLOCK);
            dprintf(1, "%d", fd < 0 ? errno : 0);
        }
    "#;
    on_each_runtime(|| async {
        let (child, mut listener) = start(&mut target("no_room", BODY, opens_x()), 1).await;
        let call = within("a call", listener.next()).await.unwrap();
        let args = call.args();
        let observed = call.continue_with(args).data(1, "/etc/hostname\0").observe();
        let observed = within("the result", observed).await.unwrap();
        assert_eq!(observed.result(), Some(Err(Errno::ENOMEM)));
        assert_eq!(printed(child, listener).await, "12");
    });
}

#[test]
fn bad_data_is_refused_and_the_call_still_waits() {
    on_each_runtime(|| async {
        let mut command = target("opens", OPENS, opens_x());
        let (child, mut listener) = start(&mut command, 1).await;
        let call = within("a call", listener.next()).await.unwrap();
        let args = call.args();
        let refused = within("the refusal", call.continue_with(args).data(6, "x").observe())
            .await
            .unwrap_err();
        assert!(
            matches!(refused.error, asm_tracer::Error::InvalidAnswer(_)),
            "{refused:?}"
        );
        let call = *refused.notification;
        let large = vec![0; (16 << 20) + 1];
        let refused = within("the refusal", call.continue_with(args).data(1, large).observe())
            .await
            .unwrap_err();
        assert!(
            matches!(refused.error, asm_tracer::Error::InvalidAnswer(_)),
            "{refused:?}"
        );
        assert!(refused.notification.is_pending());
        refused.notification.error(Errno::EXDEV).unwrap();
        assert_eq!(printed(child, listener).await, "18 ");
    });
}

/// Nothing of the data can be seen by another call of the program, and the room of many threads is their own.
#[test]
fn sixty_four_threads_have_room_of_their_own() {
    const THREADS: &str = r#"
        static void *run(void *number) {
            for (int i = 0; i < 20; i++) {
                char text[32] = "", expected[32];
                sprintf(expected, "file %ld", (long)number);
                int fd = syscall(SYS_openat, (long)number, "x", O_RDONLY | O_NONBLOCK);
                check(fd >= 0 && read(fd, text, 31) > 0, "a file");
                close(fd);
                if (strcmp(text, expected)) { printf("%s, not %s\n", text, expected); exit(1); }
            }
            return NULL;
        }
        int main(void) {
            pthread_t threads[64];
            told();
            for (long i = 0; i < 64; i++) check(!pthread_create(&threads[i], NULL, run, (void *)(1000 + i)), "a thread");
            for (int i = 0; i < 64; i++) pthread_join(threads[i], NULL);
        }
    "#;
    let directory = tempfile::tempdir().unwrap();
    for number in 1000..1064 {
        let mut file = std::fs::File::create(directory.path().join(number.to_string())).unwrap();
        write!(file, "file {number}").unwrap();
    }
    on_each_runtime(|| async {
        let mut command = target("own_rooms", THREADS, opens_x());
        let (child, mut listener) = start(&mut command, 1).await;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..64 * 20 {
            let call = within("a call", listener.next()).await.unwrap();
            let args = call.args();
            let path = format!("{}/{}\0", directory.path().display(), args[0]);
            tasks.spawn(async move { call.continue_with(args).data(1, path).await.unwrap() });
        }
        while let Some(delivered) = within("a rewriting", tasks.join_next()).await {
            assert!(delivered.unwrap().is_delivered());
        }
        assert_eq!(printed(child, listener).await, "");
    });
}
