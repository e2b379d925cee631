//! Targets that change what they have asked for while it is decided.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};

use asm_tracer::emulate::{Open, Place};
use asm_tracer::{Command, Errno, Stdio, Supervisor};
use nix::sys::stat::fstat;

use crate::common::opens;
use crate::support::target::program;
use crate::support::within;

/// Opens what `path` says until `flip()` was called often enough; what was opened must not be the secret. Then says how
/// many opens succeeded and how many were refused.
const OPENER: &str = r#"
#include <sys/stat.h>
static char path[16] = "allowed";
static int flags = O_RDONLY;
static volatile int done;
static void flip(int number);
static void *flipper(void *unused) {
    for (int number = 0; number < FLIPS; number++) flip(number);
    done = 1;
    return NULL;
}
int main(void) {
    pthread_t thread;
    struct stat secret, opened;
    long succeeded = 0, refused = 0, others = 0;
    prepare();
    check(!stat(SECRET, &secret), "stat");
    check(!pthread_create(&thread, NULL, flipper, NULL), "pthread_create");
    while (!done || succeeded + refused < 200) {
        int fd = open(path, flags, 0600);
        if (fd >= 0) {
            check(!fstat(fd, &opened), "fstat");
            check(opened.st_ino != secret.st_ino, "THE SECRET WAS OPENED");
            close(fd);
            succeeded++;
        }
        else if (errno == EACCES) refused++;
        else others++;
    }
    pthread_join(thread, NULL);
    printf("%ld %ld %ld\n", succeeded, refused, others);
}
"#;

/// Runs the opener with `flip` in it, in a directory with a file `allowed` and a file `secret`, and a policy; gives how many
/// opens succeeded, how many were refused, and how many failed in another way.
async fn race(
    name: &str,
    flip: &str,
    decide: impl Fn(&Place) -> Result<(), Errno> + Copy + Send + Sync + 'static,
) -> [u64; 3] {
    let source = format!("#include <sys/stat.h>\n{flip}\n{OPENER}");
    let directory = tempfile::tempdir().unwrap();
    for file in ["allowed", "secret!"] {
        std::fs::write(directory.path().join(file), file).unwrap();
    }
    let secret = std::fs::metadata(directory.path().join("secret!")).unwrap().ino();
    SECRET.store(secret, Ordering::Relaxed);
    let mut command = Command::new(program(name, &source));
    command
        .current_dir(directory.path())
        .filter(opens())
        .stdout(Stdio::piped());
    let mut supervisor = Supervisor::new();
    let child = supervisor.spawn(&mut command).await.unwrap();
    let output = tokio::spawn(child.wait_with_output());
    while let Some(call) = within("a call", supervisor.next()).await {
        match Open::read(&call).await {
            Ok(Some(open)) => open.answer_if(call, decide).await.map(drop).unwrap(),
            Ok(None) => panic!("{call:?}"),
            Err(error) => call.error(error.errno().unwrap()).map(drop).unwrap(),
        }
    }
    let output = within("the end", output).await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let numbers: Vec<u64> = text
        .split_whitespace()
        .map(|number| number.parse().unwrap())
        .collect();
    eprintln!("{name}: {numbers:?} opens succeeded, were refused, failed otherwise");
    numbers.try_into().unwrap()
}

static SECRET: AtomicU64 = AtomicU64::new(0);

/// By name: the policy that a race in memory would get around.
fn not_by_name(place: &Place) -> Result<(), Errno> {
    match place.path()?.ends_with("secret!") {
        true => Err(Errno::EACCES),
        false => Ok(()),
    }
}

// T43
#[tokio::test]
async fn what_was_looked_at_is_opened_while_the_path_changes_in_memory() {
    const FLIP: &str = r#"
        #define FLIPS 100000
        #define SECRET "secret!"
        static char path[16];
        static void prepare(void) { }
        static void flip(int number) {
            memcpy(path, number % 2 ? "allowed" : "secret!", 7);
            if (number % 64 == 0 || number % 64 == 33) usleep(10);
        }
    "#;
    let [succeeded, refused, _] = race("flip_memory", FLIP, not_by_name).await;
    assert!(succeeded > 0 && refused > 0);
}

#[tokio::test]
async fn what_was_looked_at_is_opened_while_a_symlink_changes() {
    const FLIP: &str = r#"
        #define FLIPS 20000
        #define SECRET "secret!"
        static char path[16];
        static void prepare(void) { strcpy(path, "link"); check(!symlink("allowed", "link"), "symlink"); }
        static void flip(int number) {
            check(!symlink(number % 2 ? "allowed" : "secret!", "next") && !rename("next", "link"), "rename");
        }
    "#;
    let [succeeded, refused, failed] = race("flip_symlink", FLIP, not_by_name).await;
    assert!(succeeded > 0 && refused > 0 && failed == 0);
}

#[tokio::test]
async fn what_was_looked_at_is_opened_while_directories_change_places() {
    // Only by what it is: names are of no use here.
    let by_object = |place: &Place| {
        let object = place.object().ok_or(Errno::ENOENT)?;
        match fstat(object)?.st_ino == SECRET_DIRECTORIES.load(Ordering::Relaxed) {
            true => Err(Errno::EACCES),
            false => Ok(()),
        }
    };
    const FLIP: &str = r#"
        #include <linux/fs.h>
        #define FLIPS 20000
        #define SECRET "secret!"
        static char path[16];
        static void prepare(void) {
            strcpy(path, "a/../a/file");
            check(!mkdir("a", 0700) && !mkdir("b", 0700), "mkdir");
            check(!link("secret!", "b/file") && !link("allowed", "a/file"), "link");
        }
        static void flip(int number) {
            (void)number;
            check(!syscall(SYS_renameat2, AT_FDCWD, "a", AT_FDCWD, "b", RENAME_EXCHANGE), "rename");
        }
    "#;
    static SECRET_DIRECTORIES: AtomicU64 = AtomicU64::new(0);
    // The number is known once the directory is there; until the first call it is that of this test alone.
    let decide = move |place: &Place| {
        if SECRET_DIRECTORIES.load(Ordering::Relaxed) == 0
            && let Some((parent, _)) = place.name()
        {
            let secret = nix::sys::stat::fstatat(parent.as_fd(), "../secret!", nix::fcntl::AtFlags::empty());
            if let Ok(secret) = secret {
                SECRET_DIRECTORIES.store(secret.st_ino, Ordering::Relaxed);
            }
        }
        by_object(place)
    };
    let [succeeded, refused, failed] = race("flip_directories", FLIP, decide).await;
    assert!(succeeded > 0 && refused > 0 && failed == 0);
}

#[tokio::test]
async fn a_file_is_made_where_it_was_permitted_while_a_symlink_is_put_there() {
    const FLIP: &str = r#"
        #define FLIPS 20000
        #define SECRET "secret!"
        static char path[16];
        static void prepare(void) {
            extern int flags_to_create(void);
            strcpy(path, "spot");
            check(!mkdir("outside", 0700), "mkdir");
            flags_to_create();
        }
        static void flip(int number) {
            unlink("spot");
            if (number % 2) check(!symlink("outside/planted", "next") && !rename("next", "spot"), "rename");
            check(access("outside/planted", F_OK) && errno == ENOENT, "IT WAS MADE OUTSIDE");
        }
        static int flags;
        int flags_to_create(void) { return flags = O_RDWR | O_CREAT; }
    "#;
    let inside = |place: &Place| match place.path()?.to_string_lossy().contains("/outside/") {
        true => Err(Errno::EACCES),
        false => Ok(()),
    };
    let [succeeded, refused, _] = race("flip_new", FLIP, inside).await;
    assert!(succeeded > 0 && refused > 0);
}
