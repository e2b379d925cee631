//! Real programs, all of whose opens are emulated.

use std::path::Path;

use asm_tracer::Command;

use crate::common::{alone, assert_same, emulated};

/// Runs a program both ways and compares everything that it says; gives how many opens there were.
async fn same(program: &str, arguments: &[&str]) -> u64 {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let variables = [
        ("LC_ALL", "C.UTF-8"),
        ("HOME", "/nonexistent"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
    ];
    let mut command = std::process::Command::new(program);
    command.args(arguments).envs(variables).current_dir(&theirs);
    let kernel = alone(&mut command);
    let mut command = Command::new(program);
    command.args(arguments).envs(variables).current_dir(&ours);
    let (output, calls) = emulated(&mut command).await;
    let normalised = |bytes: &[u8], directory: &Path| {
        String::from_utf8_lossy(bytes).replace(directory.to_str().unwrap(), "HERE")
    };
    let said = normalised(&output.stdout, ours.path());
    assert_same(&said, &normalised(&kernel.stdout, theirs.path()));
    assert_same(
        &normalised(&output.stderr, ours.path()),
        &normalised(&kernel.stderr, theirs.path()),
    );
    assert_eq!(output.status, kernel.status);
    assert!(output.status.success(), "{output:?}");
    calls
}

fn is_there(program: &str) -> bool {
    let there = std::process::Command::new(program)
        .arg("--version")
        .output()
        .is_ok();
    if !there {
        eprintln!("skipped: there is no {program}");
    }
    there
}

#[tokio::test]
async fn shells() {
    const SCRIPT: &str = "
        umask 027
        mkdir -p a/b && echo one > a/b/file && cat < a/b/file >> a/other && ln -s b a/link
        cp -r a copy && mv copy/other copy/moved && ln -s ../a copy/up && ls -lR copy | sed 's/[A-Z][a-z][a-z] .*:.. //'
        cat copy/up/link/file /dev/fd/0 < a/other
        mkfifo fifo; (echo through > fifo) & cat fifo
        echo to stderr >/dev/stderr; echo to stdout >/dev/stdout
        cat /proc/self/comm; readlink /proc/self/exe; cat nothing 2>&1; wc -l < /proc/self/status > /dev/null
        tar cf - a | tar tf - | sort; find . | sort; rm -r a copy; wait";
    let calls = same("sh", &["-c", SCRIPT]).await;
    assert!(calls > 50, "{calls}");
}

#[tokio::test]
async fn python() {
    const SCRIPT: &str = r#"
import os, sys, tempfile, json, subprocess, shutil, pathlib, threading
with tempfile.TemporaryDirectory(dir='.') as d:
    p = pathlib.Path(d) / 'file'
    p.write_text('text'); print(p.read_text(), oct(p.stat().st_mode))
    fd = os.open(d, os.O_RDONLY | os.O_DIRECTORY)
    inner = os.open('file', os.O_RDWR | os.O_APPEND, dir_fd=fd)
    os.write(inner, b' more'); print(p.read_bytes(), sorted(os.listdir(fd)))
    shutil.copytree(d, 'copied'); shutil.rmtree('copied')
    results = []
    def work(n):
        for i in range(20):
            q = pathlib.Path(d) / f'{n}-{i}'
            q.write_text(str(i)); results.append(int(q.read_text()))
    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    [t.start() for t in threads]; [t.join() for t in threads]
    print(sum(results))
    print(open('/proc/self/comm').read(), subprocess.run(['cat', p], capture_output=True).stdout)
    for name in ['nothing', 'file/x', '']:
        try: open(name)
        except OSError as error: print(error)
"#;
    if is_there("python3") {
        let calls = same("python3", &["-B", "-c", SCRIPT]).await;
        assert!(calls > 200, "{calls}");
    }
}

#[tokio::test]
async fn git() {
    const SCRIPT: &str = "
        export GIT_AUTHOR_NAME=Somebody GIT_AUTHOR_EMAIL=somebody@example.org GIT_AUTHOR_DATE=2024-01-01T00:00:00Z
        export GIT_COMMITTER_NAME=Somebody GIT_COMMITTER_EMAIL=somebody@example.org GIT_COMMITTER_DATE=2024-01-01T00:00:00Z
        git init -q -b main && echo line > file && git add file && git commit -q -m first && git status
        git log --format='%H %s' && git gc -q && git fsck --strict && git checkout -q -b other && git diff main";
    if is_there("git") {
        let calls = same("sh", &["-c", SCRIPT]).await;
        assert!(calls > 100, "{calls}");
    }
}
