//! What the paths of calls without an emulation of their own mean.

use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::Path;

use asm_tracer::emulate::Lookup;
use asm_tracer::{Errno, Error, Notification, Stdio, Supervisor};
use nix::libc;

use crate::support::target::{command, on_each_runtime};
use crate::support::within;

/// Traps with each path, relative to the working directory and to `directory`.
const PATHS: &str = r#"
int main(int count, char **paths) {
    int fd = open("directory", O_RDONLY);
    check(fd >= 0, "open");
    for (int i = 1; i < count; i++) {
        trap(AT_FDCWD, (long)paths[i], 0, 0);
        /* What is in the upper half of an int is nobody's business. */
        trap(fd | 0x500000000, (long)paths[i], 0, 0);
    }
    trap(AT_FDCWD, 16, 0, 0);
    trap(77, (long)"relative", 0, 0);
    trap(77, (long)"/", 0, 0);
}
"#;

async fn lookup(call: &Notification) -> Result<Lookup, Error> {
    Lookup::read(call, call.args()[0] as i32, call.args()[1] as u64).await
}

/// The path of the object, the directory and the name, below `top`.
async fn found(
    lookup: &Lookup,
    top: &Path,
    follow: bool,
) -> (Result<String, Errno>, Result<Option<String>, Errno>) {
    let below = |path: &Path| path.strip_prefix(top).unwrap_or(path).display().to_string();
    let object = lookup.object(follow).await;
    let object = object.map(|place| below(&place.path().unwrap()));
    let name = lookup.name().await.map(|place| {
        let (directory, name) = place.name()?;
        let directory = std::fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())).unwrap();
        Some(below(&directory.join(name)))
    });
    (object, name)
}

#[test]
fn objects_and_names_are_found() {
    on_each_runtime(|| async {
        let temporary = tempfile::tempdir().unwrap();
        let top = temporary.path().canonicalize().unwrap();
        std::fs::create_dir(top.join("directory")).unwrap();
        for file in ["file", "directory/file"] {
            std::fs::write(top.join(file), "").unwrap();
        }
        symlink("directory", top.join("link")).unwrap();
        symlink("nowhere", top.join("directory/link")).unwrap();
        let (object, name) = (|at: &str| Ok(at.to_owned()), |at: &str| Ok(Some(at.to_owned())));
        let missing = Errno::ENOENT;
        // Path, from the working directory, from `directory`: the object, not followed, and the name.
        let cases = [
            (
                "file",
                [
                    (object("file"), name("file")),
                    (object("directory/file"), name("directory/file")),
                ],
            ),
            (
                "link",
                [
                    (object("link"), name("link")),
                    (object("directory/link"), name("directory/link")),
                ],
            ),
            (
                "link/new",
                [
                    (Err(missing), name("directory/new")),
                    (Err(missing), Err(missing)),
                ],
            ),
            (
                "new///",
                [(Err(missing), name("new")), (Err(missing), name("directory/new"))],
            ),
            (
                "link/",
                [
                    (object("directory"), name("link")),
                    (Err(missing), name("directory/link")),
                ],
            ),
            (
                "file/x",
                [
                    (Err(Errno::ENOTDIR), Err(Errno::ENOTDIR)),
                    (Err(Errno::ENOTDIR), Err(Errno::ENOTDIR)),
                ],
            ),
            (
                "..",
                [
                    (object(top.parent().unwrap().to_str().unwrap()), Ok(None)),
                    (object(""), Ok(None)),
                ],
            ),
            ("/", [(object("/"), Ok(None)), (object("/"), Ok(None))]),
            ("", [(Err(missing), Err(missing)), (Err(missing), Err(missing))]),
        ];
        let mut command = command("lookups", PATHS);
        command
            .args(cases.iter().map(|(path, _)| *path))
            .current_dir(&top)
            .stdin(Stdio::null());
        let mut supervisor = Supervisor::new();
        let mut child = supervisor.spawn(&mut command).await.unwrap();
        for (path, expected) in &cases {
            for expected in expected {
                let call = within("a call", supervisor.next()).await.unwrap();
                let read = lookup(&call).await.unwrap();
                assert_eq!(read.path(), Path::new(path));
                assert_eq!(&found(&read, &top, false).await, expected, "{path}");
                call.respond(0).unwrap();
            }
        }
        let call = within("a call", supervisor.next()).await.unwrap();
        assert!(matches!(lookup(&call).await, Err(Error::Fault { address: 16 })));
        // Another path in its place, as if the target had written it, and the symlink followed.
        let other = Lookup::read(&call, libc::AT_FDCWD, call.args()[1] as u64).await;
        assert!(other.is_err());
        call.respond(0).unwrap();
        for errno in [Err(Errno::EBADF), Ok(())] {
            let call = within("a call", supervisor.next()).await.unwrap();
            let read = lookup(&call).await.unwrap();
            assert_eq!(read.object(true).await.map(drop), errno);
            let elsewhere = read.with_path(top.join("link"));
            assert_eq!(
                found(&elsewhere, &top, true).await,
                (object("directory"), name("link"))
            );
            call.respond(0).unwrap();
        }
        assert!(within("the end", supervisor.next()).await.is_none());
        assert!(child.wait().await.unwrap().success());
    });
}

#[tokio::test]
async fn this_process_is_nobodys_to_be_found() {
    const OWN: &str = r#"int main(int count, char **paths) { trap(AT_FDCWD, (long)paths[1], 0, 0); }"#;
    for (path, errno) in [
        ("mem", Err(Errno::EACCES)),
        ("fd/0", Err(Errno::EACCES)),
        ("cwd", Err(Errno::EACCES)),
        ("status", Ok(())),
    ] {
        let mut command = command("lookup_own", OWN);
        let path = format!("/proc/{}/{path}", std::process::id());
        command.arg(&path).stdin(Stdio::null());
        let mut supervisor = Supervisor::new();
        let _child = supervisor.spawn(&mut command).await.unwrap();
        let call = within("a call", supervisor.next()).await.unwrap();
        let read = lookup(&call).await.unwrap();
        assert_eq!(read.object(false).await.map(drop), errno, "{path}");
        assert_eq!(read.object(true).await.map(drop), errno, "{path}");
        call.respond(0).unwrap();
    }
}
