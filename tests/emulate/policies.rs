//! Policies: what they can know before anything is opened, and what nobody may open.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use asm_tracer::emulate::Open;
use asm_tracer::{Child, Command, Errno, Error, Filter, Notification, Stdio, Supervisor, Sysno};
use nix::sys::stat::fstat;

use crate::common::opens;
use crate::support::target::program;
use crate::support::within;

/// Opens its arguments: a number of flags and a path, again and again, and prints what came of each: an errno or what can
/// be read.
const OPENS: &str = r#"
#include <sys/stat.h>
int main(int argc, char **argv) {
    if (argc > 1) check(!chdir(argv[1]), "chdir");
    for (int i = 2; i + 1 < argc; i += 2) {
        char text[64] = { 0 };
        int fd = open(argv[i + 1], strtol(argv[i], NULL, 8), 0666);
        if (fd < 0) { puts(strerrorname_np(errno)); continue; }
        ssize_t n = read(fd, text, sizeof text - 1);
        printf("opened %s\n", n > 0 ? text : "");
        close(fd);
    }
}
"#;

/// Starts it, and gives the supervisor that has its opens and those of nobody else.
async fn start(directory: &Path, opened: &[(i32, &str)]) -> (Supervisor, Child) {
    let mut command = Command::new(program("opens_arguments", OPENS));
    command.arg(directory);
    for (flags, path) in opened {
        command.arg(format!("{flags:o}")).arg(path);
    }
    let supervisor = Supervisor::new();
    command
        .filter(opens())
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let child = within("the start", supervisor.spawn(&mut command)).await.unwrap();
    (supervisor, child)
}

/// Serves the calls, those of the loader as they are; gives what the target said of the others.
async fn run(
    directory: &Path,
    opened: &[(i32, &str)],
    mut answer: impl AsyncFnMut(Open, Notification),
) -> String {
    let (mut supervisor, child) = start(directory, opened).await;
    let output = tokio::spawn(child.wait_with_output());
    while let Some(call) = within("a call", supervisor.next()).await {
        match Open::read(&call).await {
            Ok(Some(open)) if opened.iter().any(|(_, path)| open.path() == Path::new(path)) => {
                answer(open, call).await;
            }
            Ok(Some(_)) => drop(call.continue_syscall().unwrap()),
            other => panic!("{other:?}"),
        }
    }
    let output = within("the end", output).await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A directory with a tree in it, by its real path.
fn tree() -> (tempfile::TempDir, PathBuf) {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().canonicalize().unwrap();
    fs::create_dir_all(path.join("open/below")).unwrap();
    fs::create_dir(path.join("secret")).unwrap();
    fs::write(path.join("open/file"), "public").unwrap();
    fs::write(path.join("secret/file"), "private").unwrap();
    std::os::unix::fs::symlink("../secret", path.join("open/way")).unwrap();
    (temporary, path)
}

#[tokio::test]
async fn a_place_is_known_by_its_real_path_before_it_is_opened() {
    let (_temporary, directory) = tree();
    let opened = [
        (libc::O_RDONLY, "open/file"),
        (libc::O_RDONLY, "open/way/file"),
        (libc::O_RDWR | libc::O_CREAT, "open/way/new"),
        (libc::O_RDWR | libc::O_CREAT, "open/below/../new"),
        (libc::O_RDONLY, "open/below/.."),
        (libc::O_WRONLY | libc::O_TRUNC, "open/way/file"),
        (libc::O_RDONLY, "nothing/at/all"),
    ];
    let mut places = Vec::new();
    let root = directory.clone();
    let said = run(&directory, &opened, async |open, call| {
        let places = &mut places;
        let answered = open.clone().answer_if(call, |place| {
            let path = place.path()?;
            assert_eq!(place.path_in_target()?.as_deref(), Some(path.as_path()));
            let below = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            if let Some(object) = place.object() {
                assert_eq!(fstat(object)?.st_ino, fs::metadata(&path).unwrap().ino());
            }
            if let Some((parent, name)) = place.name() {
                assert_eq!(path.file_name(), Some(name));
                assert_eq!(
                    fstat(parent)?.st_ino,
                    fs::metadata(path.parent().unwrap()).unwrap().ino()
                );
            }
            let secret = below.starts_with("secret");
            places.push((below, place.object().is_some(), open.writes()));
            match secret {
                true => Err(Errno::EACCES),
                false => Ok(()),
            }
        });
        answered.await.map(drop).unwrap();
    })
    .await;
    assert_eq!(
        said,
        "opened public\nEACCES\nEACCES\nopened \nopened \nEACCES\nENOENT\n"
    );
    let expected = [
        ("open/file", true, false),
        ("secret/file", true, false),
        ("secret/new", false, true),
        ("open/new", false, true),
        ("open", true, false),
        ("secret/file", true, true),
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|(path, exists, writes)| ((*path).to_owned(), *exists, *writes))
        .collect();
    assert_eq!(places, expected);
    assert_eq!(fs::read(directory.join("secret/file")).unwrap(), b"private");
    assert!(!directory.join("secret/new").exists());
    assert!(directory.join("open/new").exists());
}

#[tokio::test]
async fn an_open_can_be_performed_elsewhere_or_only_looked_at() {
    let (_temporary, directory) = tree();
    let opened = [(libc::O_RDONLY, "open/file"), (libc::O_RDONLY, "open/way/file")];
    let said = run(&directory, &opened, async |open, call| {
        assert_eq!(open.flags() & libc::O_ACCMODE, libc::O_RDONLY);
        assert_eq!(
            (open.mode(), open.resolve_flags(), open.close_on_exec()),
            (0, 0, false)
        );
        if open.path() == Path::new("open/file") {
            let fd = open.perform().await.unwrap();
            assert!(open.answer_with(call, fd).await.unwrap().is_delivered());
        } else {
            let place = open.resolve().await.unwrap();
            assert!(place.path().unwrap().ends_with("secret/file"));
            // What was found is opened even though its name means something else now.
            fs::rename(directory.join("secret"), directory.join("hidden")).unwrap();
            fs::create_dir(directory.join("secret")).unwrap();
            fs::write(directory.join("secret/file"), "planted").unwrap();
            let fd = open.perform_at(place).await.unwrap();
            let path = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd)));
            assert!(path.unwrap().ends_with("hidden/file"));
            drop(fd);
            let other = open.with_path("open/below/../file");
            other.answer(call).await.map(drop).unwrap();
        }
    })
    .await;
    assert_eq!(said, "opened public\nopened public\n");
}

#[tokio::test]
async fn a_redirected_path_that_stands_for_a_directory_is_an_ordinary_descriptor() {
    let (_temporary, directory) = tree();
    let opened = [
        (libc::O_PATH, "open"),
        (libc::O_PATH, "open/file"),
        (libc::O_PATH, "open/below"),
    ];
    let said = run(&directory, &opened, async |open, call| {
        let answered = match open.path().to_str().unwrap() {
            "open" => open.with_path("secret").answer(call).await,
            "open/file" => open.with_path("secret/file").answer(call).await,
            _ => open.answer_if(call, |_| Err(Errno::EPERM)).await,
        };
        answered.map(drop).unwrap();
    })
    .await;
    assert_eq!(said, "opened \nEOPNOTSUPP\nEPERM\n");
}

// A target must not get at its supervisor by asking it for its own memory.
#[tokio::test]
async fn the_supervisor_does_not_open_itself() {
    let own = std::process::id();
    let tid = nix::unistd::gettid();
    let temporary = tempfile::tempdir().unwrap();
    let names = [
        format!("/proc/{own}/mem"),
        format!("/proc/{own}/maps"),
        format!("/proc/{own}/environ"),
        format!("/proc/{own}/fd"),
        format!("/proc/{own}/fd/0"),
        format!("/proc/{own}/exe"),
        format!("/proc/{own}/root/etc"),
        format!("/proc/{own}/cwd"),
        format!("/proc/{own}/task/{tid}/mem"),
        format!("/proc/{tid}/mem"),
        format!("/proc/self/../{own}/mem"),
        format!("/proc/self/root/proc/{own}/task/{own}/fd/../mem"),
        // What everybody may know.
        format!("/proc/{own}"),
        format!("/proc/{own}/task"),
        format!("/proc/{own}/task/{own}"),
        format!("/proc/{own}/comm"),
        format!("/proc/{own}/task/{own}/stat"),
        "/proc".to_owned(),
        "/proc/self/mem".to_owned(),
        "/proc/sys/kernel/pid_max".to_owned(),
    ];
    let opened: Vec<_> = names.iter().map(|name| (libc::O_RDONLY, name.as_str())).collect();
    let said = run(temporary.path(), &opened, async |open, call| {
        open.answer(call).await.map(drop).unwrap();
    })
    .await;
    let results = said.lines().map(|line| line.split(' ').next().unwrap());
    let said: Vec<_> = results
        .filter(|word| ["opened", "EACCES"].contains(word))
        .collect();
    assert_eq!(said[..12], ["EACCES"; 12]);
    assert_eq!(said[12..], ["opened"; 8]);
    let writing = [
        (libc::O_WRONLY, names[15].as_str()),
        (libc::O_RDWR, names[0].as_str()),
    ];
    let said = run(temporary.path(), &writing, async |open, call| {
        open.answer(call).await.map(drop).unwrap();
    })
    .await;
    assert_eq!(said, "EACCES\nEACCES\n");
}

/// Opens `/proc/PID/mem` of its supervisor by its own descriptors, of the file itself and of directories on the way.
const INDIRECTLY: &str = r#"
int main(int argc, char **argv) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d", getppid());
    int directory = open(path, O_PATH), fds, memory;
    check(directory >= 0, "directory");
    check((fds = openat(directory, "fd", O_PATH)) >= 0, "fd");
    check((memory = openat(directory, "mem", O_PATH)) >= 0, "mem");
    check(openat(directory, "mem", O_RDONLY) == -1 && errno == EACCES, "by its directory");
    check(openat(fds, "../mem", O_RDONLY) == -1 && errno == EACCES, "by a directory below");
    check(openat(fds, "0", O_RDONLY) == -1 && errno == EACCES, "a descriptor");
    check(openat(fds, "0", O_PATH) == -1 && errno == EACCES, "a path to a descriptor");
    check(openat(fds, ".", O_RDONLY) == -1 && errno == EACCES, "the descriptors");
    snprintf(path, sizeof path, "/proc/self/fd/%d", memory);
    check(open(path, O_RDWR) == -1 && errno == EACCES, "again");
    check(!fchdir(directory), "fchdir");
    check(open("mem", O_RDONLY) == -1 && errno == EACCES, "by its working directory");
    check(open("stat", O_RDONLY) >= 0, "what everybody may know");
}
"#;

#[tokio::test]
async fn the_supervisor_does_not_open_itself_indirectly() {
    let mut command = Command::new(program("indirectly", INDIRECTLY));
    let (output, _) = crate::common::emulated(&mut command).await;
    assert!(output.status.success(), "{output:?}");
}

/// Says whether it has a terminal of its own, before and after an open.
const TERMINAL: &str = r#"
#include <sys/ioctl.h>
int main(void) {
    check(setsid() > 0, "setsid");
    check(open("/dev/tty", O_RDWR) == -1 && errno == ENXIO, "before");
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    check(master >= 0 && !grantpt(master) && !unlockpt(master), "a terminal");
    check(open(ptsname(master), O_RDWR) >= 0, "the other end");
    check(open("/dev/tty", O_RDWR) == -1 && errno == ENXIO, "after");
    check(open("/dev/tty", O_PATH) >= 0, "the name alone");
}
"#;

#[tokio::test]
async fn nobody_gets_a_terminal_by_opening_one() {
    let mut command = Command::new(program("terminal", TERMINAL));
    let (output, _) = crate::common::emulated(&mut command).await;
    assert!(output.status.success(), "{output:?}");
    assert!(fs::File::open("/dev/tty").is_err() || std::env::var_os("TERM").is_some());
}

/// Makes a file with every umask in a directory with a default ACL and in one without, where the supervisor has a umask of its own.
#[tokio::test]
async fn files_get_the_targets_umask_and_the_supervisors_stays() {
    const MAKES: &str = r#"
        #include <sys/stat.h>
        int main(int argc, char **argv) {
            check(!chdir(argv[1]), "chdir");
            umask(027);
            check(open("a", O_CREAT | O_WRONLY, 0666) >= 0, "a");
            umask(0);
            check(open("b", O_CREAT | O_WRONLY, 0666) >= 0, "b");
        }
    "#;
    let before = fs::read_to_string("/proc/self/status").unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let mut command = Command::new(program("makes", MAKES));
    let (output, _) = crate::common::emulated(command.arg(temporary.path())).await;
    assert!(output.status.success(), "{output:?}");
    let mode = |name| {
        let metadata = fs::metadata(temporary.path().join(name)).unwrap();
        metadata.permissions().mode() & 0o7777
    };
    assert_eq!((mode("a"), mode("b")), (0o640, 0o666));
    let umask = |status: &str| {
        status
            .lines()
            .find(|line| line.starts_with("Umask"))
            .map(str::to_owned)
    };
    let after = fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!(umask(&after), umask(&before));
}

#[tokio::test]
async fn other_calls_are_none_of_these() {
    let mut command = Command::new(program(
        "others",
        "int main(void) { return trap(1, 2, 3, 4) != 7; }",
    ));
    command.filter(Filter::new().trap(Sysno::getppid));
    let (mut child, mut listener) = command.spawn().await.unwrap();
    let call = within("a call", listener.next()).await.unwrap();
    assert!(Open::read(&call).await.unwrap().is_none());
    assert!(asm_tracer::emulate::Connect::read(&call).await.unwrap().is_none());
    call.respond(7).unwrap();
    assert!(within("the end", listener.next()).await.is_none());
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test]
async fn a_target_that_is_killed_meanwhile_is_gone() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut supervisor, mut child) = start(temporary.path(), &[(libc::O_RDONLY, "file")]).await;
    let call = within("a call", supervisor.next()).await.unwrap();
    child.kill().await.unwrap();
    assert!(matches!(Open::read(&call).await, Err(Error::Gone)));
}
