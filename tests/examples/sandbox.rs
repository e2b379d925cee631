//! `sandbox` on programs that everybody has; what it is for, `escapes.rs` tests.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::{example, finish, text};

/// A directory to be allowed, in one that is not.
pub(crate) fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let allowed = directory.path().join("allowed");
    std::fs::create_dir(&allowed).unwrap();
    (directory, allowed)
}

/// `sandbox` with what most programs need and this one directory, in which it starts.
pub(crate) fn sandbox(allowed: &Path) -> Command {
    let mut command = example("sandbox");
    command.args(["--system", "--allow"]).arg(allowed);
    command
        .current_dir(allowed)
        .env("HOME", allowed)
        .env("LC_ALL", "C");
    command
}

#[tokio::test]
async fn a_script_does_what_it_does_outside_where_it_may() {
    const SCRIPT: &str = r#"
        umask 027
        mkdir -p a/b && echo one >a/b/file && cat <a/b/file >>a/other && ln -s b a/link && ln a/other a/hard
        cp -rp a copy && mv copy/other copy/moved && chmod 600 copy/moved && touch -d @1000000000 copy/moved
        truncate -s 3 a/hard && cat a/other && mkfifo fifo && (echo through >fifo &) && cat fifo
        find . -printf '%p %y %m %s %l\n' | sort; stat -c '%Y %n' copy/moved; cat a/link/file; readlink a/link
        test -w a/other && test ! -e a/nothing && rmdir a 2>&1; (cd a/link && pwd)
        sh -c 'kill -TERM $$' || echo $?; sleep 100 & kill $!; wait $!; echo $?
        rm -r a copy fifo; ls -A"#;
    let ((_one, allowed), (_other, other)) = (place(), place());
    let inside = finish(sandbox(&allowed).args(["sh", "-c", SCRIPT])).await;
    let mut outside = Command::new("sh");
    let outside = outside
        .args(["-c", SCRIPT])
        .current_dir(&other)
        .env("LC_ALL", "C");
    let outside = finish(outside).await;
    let normalised = |bytes: &[u8], here: &Path| text(bytes).replace(here.to_str().unwrap(), "HERE");
    assert!(outside.stdout.len() > 200, "{outside:?}");
    assert_eq!(
        normalised(&inside.stdout, &allowed),
        normalised(&outside.stdout, &other),
        "{inside:?}"
    );
    assert_eq!((inside.status, inside.stderr), (outside.status, outside.stderr));
}

#[tokio::test]
async fn git_works_in_a_tree_that_is_allowed() {
    const SCRIPT: &str =
        "git init -q repository && cd repository && git config user.email a@b && git config user.name n
        echo one >file && git add file && git commit -qm first && echo two >>file && git commit -qam second
        git log --format=%s && git status --short && git gc -q && git fsck && git show HEAD:file";
    let (_directory, allowed) = place();
    let output = finish(sandbox(&allowed).args(["sh", "-c", SCRIPT])).await;
    assert_eq!(text(&output.stdout), "second\nfirst\none\ntwo\n", "{output:?}");
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn python_works_in_a_tree_that_is_allowed() {
    const SCRIPT: &str = "
import os, shutil, sqlite3, subprocess, sys, tempfile, threading
os.makedirs('a/b')
open('a/b/file', 'w').write('text')
shutil.copytree('a', 'copy')
assert open('copy/b/file').read() == 'text'
shutil.rmtree('a')
with tempfile.NamedTemporaryFile(dir='.') as file: assert os.stat(file.name).st_size == 0
database = sqlite3.connect('database'); database.execute('create table t (a)'); database.commit()
print(subprocess.run(['echo', 'from a child'], capture_output=True).stdout.decode(), end='')
for path in ['/etc/shadow', '..', '../secret']:
    for how in [open, os.listdir, os.remove, os.mkdir, lambda path: open(path + '/new', 'w')]:
        try: print(path, how(path))
        except OSError: pass
print(sorted(os.listdir('.')))";
    let prefix = "import sys; print(sys.base_prefix); print(sys.executable)";
    let python = finish(Command::new("python3").args(["-c", prefix])).await;
    let (prefix, program) = text(&python.stdout).trim().split_once('\n').unwrap();
    let (directory, allowed) = place();
    std::fs::write(directory.path().join("secret"), "secret").unwrap();
    let mut command = sandbox(&allowed);
    let output = finish(command.args(["-r", prefix, program, "-c", SCRIPT])).await;
    assert_eq!(
        text(&output.stdout),
        "from a child\n['copy', 'database']\n",
        "{output:?}"
    );
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn rules_are_about_places_and_the_longest_counts() {
    let (directory, allowed) = place();
    let top = directory.path();
    for path in ["allowed/secret", "allowed/fixed", "allowed/fixed/open"] {
        std::fs::create_dir(top.join(path)).unwrap();
        std::fs::write(top.join(path).join("file"), "hello\n").unwrap();
    }
    let path = |below: &str| allowed.join(below).display().to_string();
    let redirect = format!("{}={}", path("gone"), path("fixed"));
    for (script, passes) in [
        ("cat fixed/file $PWD/gone/file $PWD/gone/open/file", true),
        ("cat secret/file", false),
        ("ls secret", false),
        ("echo x >fixed/file", false),
        ("rm fixed/file", false),
        ("chmod 777 fixed/file", false),
        ("ln fixed/file stolen", false),
        ("echo x >fixed/open/file", true),
        ("mv secret elsewhere", false),
        ("mkdir a; mv fixed a/fixed", false),
        ("mkdir b; mv -T b fixed/open", false),
        ("rmdir fixed/open/empty fixed/open", false),
        ("ln -s secret link; cat link/file", false),
        ("ln -s fixed/open way; cat way/file", true),
        ("cp /bin/true own; ./own", false),
        ("ls ..", false),
        ("cd ..; cat allowed/fixed/file", true),
        ("cat /proc/self/status", true),
        ("cat /proc/$PPID/status", false),
        ("cat /proc/$PPID/root/etc/hostname", false),
        ("ls /root", false),
        ("echo x >/dev/null", true),
        ("echo x >/etc/sandboxed", false),
    ] {
        let mut command = sandbox(&allowed);
        command.args([
            "-d",
            &path("secret"),
            "-r",
            &path("fixed"),
            "-a",
            &path("fixed/open"),
        ]);
        command.args(["--redirect", &redirect, "sh", "-c", script]);
        let output = finish(&mut command).await;
        assert_eq!(output.status.success(), passes, "{script}: {output:?}");
    }
    assert_eq!(std::fs::read(allowed.join("fixed/file")).unwrap(), b"hello\n");
}

#[tokio::test]
async fn sandbox_passes_the_status_on_and_says_what_it_does_not_understand() {
    for (arguments, status, message) in [
        (vec!["--system", "sh", "-c", "exit 37"], 37, ""),
        (vec!["--system", "sh", "-c", "kill -KILL $$"], 128 + 9, ""),
        // Not even its libraries.
        (
            vec!["cat", "/etc/passwd"],
            127,
            "error while loading shared libraries",
        ),
        (
            vec!["-v", "--system", "cat", "/etc/shadow"],
            1,
            "sandbox: openat /etc/shadow: Permission denied\n",
        ),
        (vec![], 2, "no program to run"),
        (
            vec!["--allow", "/no/such/path", "true"],
            2,
            "`/no/such/path`: No such file",
        ),
        (vec!["--redirect", "/etc", "true"], 2, "`/etc` is not FROM=TO"),
        (vec!["no-such-program"], 127, "No such file or directory"),
    ] {
        let output = finish(example("sandbox").args(&arguments)).await;
        assert_eq!(output.status.code(), Some(status), "{arguments:?} {output:?}");
        assert!(
            text(&output.stderr).contains(message),
            "{arguments:?}: {output:?}"
        );
    }
}
