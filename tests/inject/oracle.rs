//! `strace -e inject=` as the oracle: the same expression on the same program is to have the same effect to see.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command as Plain, ExitStatus, Stdio};

use asm_tracer::Command;
use asm_tracer::inject::FaultPlan;

use crate::support::within;

/// What an expression is tried on. Files are in the working directory.
const PROGRAMS: &[&[&str]] = &[
    &["/bin/cat", "one", "two"],
    &["/bin/cp", "one", "copy"],
    &["/bin/ls", "-1"],
    &["/bin/sh", "-c", "echo begin; /bin/cat one >made; echo end $?"],
    &[
        "python3",
        "-c",
        "import os,sys\nd=open('one').read()\nopen('py','w').write(d)\nprint(len(d), sorted(os.listdir('.')))",
    ],
    &["/bin/dd", "if=two", "of=dd", "bs=100", "status=none"],
];

const EXPRESSIONS: &[&str] = &[
    "write:error=ENOSPC:when=1",
    "write:error=ENOSPC",
    "write:error=EIO:when=2+",
    "write:error=EINTR:when=1..3+2",
    "write:retval=0:when=3",
    "write:retval=1:when=1",
    "read:error=EIO:when=2",
    "read:error=EIO:when=3",
    "read:error=EISDIR:when=2+2",
    "read:retval=0:when=3+",
    "read,write:error=EBADF:when=2",
    "openat:error=ENOENT:when=3",
    "openat:error=EACCES:when=3+",
    "openat:error=EMFILE:when=4..6",
    "close:error=EIO:when=1",
    "close:error=EIO:when=2+3",
    "%file:error=ENOENT:when=2",
    "%fstat:error=EOVERFLOW:when=3",
    "newfstatat:error=13:when=2+",
    "getdents64:error=ENOTDIR",
    "getdents64:retval=0:when=1",
    "mmap:error=ENOMEM:when=3",
    "brk:error=ENOMEM:when=2+",
    "execve:error=ENOENT:when=2+",
    "execve:error=EACCES:when=1..5",
    "clone,vfork,fork,clone3:error=EAGAIN",
    "openat:signal=SIGTERM:when=3",
    "write:signal=SIGKILL:when=1",
    "write:signal=SIGPIPE:error=EPIPE:when=1",
    "read:signal=SIGSEGV:when=2",
    "write:delay_enter=2ms:when=1",
    "read:delay_exit=2000:when=2",
    "copy_file_range,ioctl:error=ENOSYS",
    "fadvise64:error=EINVAL:syscall=getpid",
    "write:signal=SIGTERM:when=1",
    "openat:signal=SIGHUP:when=2:delay_exit=3ms",
    "read:signal=SIGCHLD:when=1+",
    "close:signal=36:when=3",
    "wait4:error=EINTR:when=1",
    "?no_such_call,dup2:error=EBADF",
    "!read,write,openat,close,mmap,execve,exit_group,brk,mprotect,munmap,pread64,arch_prctl,futex,rt_sigaction,rt_sigprocmask:error=ENOSYS:when=2",
    "fault=lseek:when=1",
];

/// What there is to see of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    status: ExitStatus,
    stdout: String,
    stderr: String,
    files: BTreeMap<String, String>,
    /// How many calls got another result, where that is all that was to happen.
    hits: Option<u64>,
}

/// A call of a process that dies is not always written down.
fn counts(expression: &str) -> bool {
    !expression.contains("signal=") && !expression.contains("delay_")
}

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("one"), "the first file\n").unwrap();
    std::fs::write(directory.path().join("two"), "0123456789".repeat(50)).unwrap();
    directory
}

fn files(directory: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let contents = std::fs::read(entry.path()).unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, String::from_utf8_lossy(&contents).into_owned())
        })
        .collect()
}

/// Addresses and ids differ from run to run.
fn comparable(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    text.lines()
        .filter(|line| !line.contains("0x"))
        .map(|line| format!("{line}\n"))
        .collect()
}

fn environment() -> [(&'static str, &'static str); 4] {
    [
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("LC_ALL", "C"),
        ("PYTHONHASHSEED", "0"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
    ]
}

fn with_strace(expression: &str, program: &[String]) -> Seen {
    let directory = directory();
    let log = tempfile::NamedTempFile::new().unwrap();
    let option = match expression.strip_prefix("fault=") {
        Some(fault) => format!("fault={fault}"),
        None => format!("inject={expression}"),
    };
    let output = Plain::new("strace")
        .args(["-f", "-qq", "-e", &option, "-o"])
        .arg(log.path())
        .arg("--")
        .args(program)
        .current_dir(directory.path())
        .env_clear()
        .envs(environment())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Seen {
        status: output.status,
        stdout: comparable(&output.stdout),
        stderr: comparable(&output.stderr),
        files: files(directory.path()),
        hits: counts(expression).then(|| {
            let log = std::fs::read(log.path()).unwrap();
            String::from_utf8_lossy(&log).matches(" (INJECTED)").count() as u64
        }),
    }
}

async fn with_plan(expression: &str, program: &[String]) -> Seen {
    let directory = directory();
    let plan: FaultPlan = expression.parse().unwrap();
    let mut command = Command::new(&program[0]);
    command
        .args(&program[1..])
        .current_dir(directory.path())
        .env_clear()
        .envs(environment());
    let outcome = within(expression, plan.run(&mut command)).await.unwrap();
    outcome.assert_ended();
    Seen {
        status: outcome.status(),
        stdout: comparable(outcome.stdout()),
        stderr: comparable(outcome.stderr()),
        files: files(directory.path()),
        hits: counts(expression).then(|| outcome.hit_count()),
    }
}

/// The programs that are there, by their own paths: a search of `PATH` is a call for each directory.
fn programs() -> Vec<Vec<String>> {
    let found = |name: &str| {
        let directories = ["", "/usr/bin/", "/usr/local/bin/"].into_iter();
        let mut paths = directories.map(|directory| format!("{directory}{name}"));
        paths.find(|path| path.starts_with('/') && Path::new(path).exists())
    };
    let mut programs = Vec::new();
    for program in PROGRAMS {
        match found(program[0]) {
            Some(path) => {
                let rest = program[1..].iter().map(|argument| (*argument).to_owned());
                programs.push(std::iter::once(path).chain(rest).collect());
            }
            None => println!("skipped: there is no {}", program[0]),
        }
    }
    programs
}

#[tokio::test]
async fn each_expression_has_the_effect_that_it_has_in_strace() {
    let strace = Plain::new("strace").args(["-o", "/dev/null", "true"]).status();
    if !strace.is_ok_and(|status| status.success()) {
        return println!("skipped: strace does not run here");
    }
    assert!(EXPRESSIONS.len() >= 30);
    let (mut different, mut effects) = (Vec::new(), 0);
    let programs = programs();
    let mut plain = Vec::new();
    for program in &programs {
        plain.push(with_plan("none:error=EIO", program).await);
    }
    for expression in EXPRESSIONS {
        for (program, plain) in programs.iter().zip(&plain) {
            let ours = with_plan(expression, program).await;
            let strace = {
                let (expression, program) = (expression.to_string(), program.clone());
                tokio::task::spawn_blocking(move || with_strace(&expression, &program))
                    .await
                    .unwrap()
            };
            effects += usize::from(
                plain.status != ours.status || plain.stderr != ours.stderr || plain.files != ours.files,
            );
            if ours != strace {
                different.push(format!(
                    "{expression} on {program:?}:\n  ours   {ours:?}\n  strace {strace:?}"
                ));
            }
        }
    }
    println!(
        "{effects} of {} runs were not as without",
        EXPRESSIONS.len() * programs.len()
    );
    assert!(effects >= 10 * programs.len(), "{effects}");
    assert!(
        different.is_empty(),
        "{} differ:\n{}",
        different.len(),
        different.join("\n")
    );
}
