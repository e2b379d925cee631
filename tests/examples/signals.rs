//! Who gets which signal, and who survives whom.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::support::{c_program, proc_status, state, until, within};
use crate::trace;

/// Counts `SIGINT`s until one of the other signals comes, and exits with a status of both.
const COUNTER: &str = r#"
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
static void ignore(int signal) { (void)signal; }
int main(void) {
    int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT}, signal, interrupts = 0;
    sigset_t set;
    sigemptyset(&set);
    for (int i = 0; i < 4; i++) {
        struct sigaction action = {.sa_handler = ignore};
        sigaction(signals[i], &action, 0);
        sigaddset(&set, signals[i]);
    }
    sigprocmask(SIG_BLOCK, &set, 0);
    setvbuf(stdout, 0, _IOLBF, 0);
    printf("%d\n", getpid());
    for (;;) {
        sigwait(&set, &signal);
        if (signal != SIGINT) return 10 * signal + interrupts;
        interrupts++;
        puts("interrupted");
    }
}
"#;

fn quiet_trace() -> Command {
    trace(["-o", "/dev/null"])
}

type Output = Lines<tokio::io::BufReader<ChildStdout>>;

/// Starts a command that prints its pid first.
async fn start(command: &mut Command) -> (Child, Output, u32) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = tokio::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let pid = line(&mut output).await.parse().unwrap();
    (child, output, pid)
}

async fn line(output: &mut Output) -> String {
    within("a line", output.next_line())
        .await
        .unwrap()
        .expect("a line")
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().unwrap() as i32), signal).unwrap();
}

#[tokio::test]
async fn a_signal_that_is_sent_to_trace_goes_to_the_program() {
    let program = c_program("counter", COUNTER);
    for last in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        let (mut child, mut output, _) = start(quiet_trace().arg(&program)).await;
        send(&child, Signal::SIGINT);
        assert_eq!(line(&mut output).await, "interrupted");
        send(&child, last);
        let status = within("the exit", child.wait()).await.unwrap();
        assert_eq!(status.code(), Some((10 * last as i32 + 1) & 0xff), "{last}");
    }
}

#[tokio::test]
async fn the_program_gets_the_terminals_interrupt_once_and_trace_stays() {
    let (mut master, terminal) = terminal();
    let mut command = trace(["-e", "rt_sigtimedwait,write"]);
    command
        .arg(c_program("counter", COUNTER))
        .stdin(Stdio::from(terminal));
    // SAFETY: both calls are async-signal-safe and touch no memory.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()?;
            nix::errno::Errno::result(libc::ioctl(0, libc::TIOCSCTTY, 0))?;
            Ok(())
        });
    }
    command.stderr(Stdio::piped());
    let (mut child, mut output, pid) = start(&mut command).await;
    drop(command);
    let mut calls = tokio::io::BufReader::new(child.stderr.take().unwrap()).lines();
    while !within("a call", calls.next_line())
        .await
        .unwrap()
        .unwrap()
        .contains("] rt_sigtimedwait(")
    {}

    // While trace is stopped, the program takes its own signal, so that another one would count as well.
    send(&child, Signal::SIGSTOP);
    until("trace is stopped", || state(child.id().unwrap()) == Some('T')).await;
    master.write_all(b"\x03").unwrap();
    until("the program wants to write", || is_in_call(pid, 1)).await;
    send(&child, Signal::SIGCONT);
    assert_eq!(line(&mut output).await, "interrupted");
    send(&child, Signal::SIGTERM);
    let status = within("the exit", child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(10 * libc::SIGTERM + 1));
}

/// A terminal: what its user types on, and what programs read from.
fn terminal() -> (File, OwnedFd) {
    let master = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/ptmx")
        .unwrap();
    let unlocked = 0;
    // SAFETY: the kernel reads one integer, and returns a new descriptor that nobody else owns.
    let terminal = unsafe {
        assert_eq!(
            libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked),
            0
        );
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        let terminal = libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags);
        assert!(terminal >= 0, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(terminal)
    };
    (master, terminal)
}

// T29
#[tokio::test]
async fn the_program_does_not_survive_trace() {
    let (mut child, _output, pid) = start(quiet_trace().arg(c_program("counter", COUNTER))).await;
    assert_eq!(proc_status(pid, "PPid"), child.id().map(|id| id.to_string()));
    within("the kill", child.kill()).await.unwrap();
    until("the program is dead", || matches!(state(pid), None | Some('Z'))).await;
}

#[tokio::test]
async fn trace_stays_for_what_the_program_leaves_behind_until_it_is_told_to_go() {
    for told in [false, true] {
        let script = "exec 3<&0; echo $$; cat <&3 >/dev/null & echo $!; exit 4";
        let mut command = quiet_trace();
        command.args(["sh", "-c", script]);
        let (mut child, mut output, shell) = start(command.stdin(Stdio::piped())).await;
        let cat = line(&mut output).await.parse().unwrap();
        until("the shell has ended", || state(shell).is_none()).await;
        until("cat waits for its input", || {
            proc_status(cat, "Name").as_deref() == Some("cat") && is_in_call(cat, 0)
        })
        .await;
        assert!(child.try_wait().unwrap().is_none(), "trace left");
        if told {
            send(&child, Signal::SIGTERM);
        } else {
            drop(child.stdin.take());
        }
        let input = child.stdin.take();
        let status = within("the exit of trace", child.wait()).await.unwrap();
        assert_eq!(status.code(), Some(4));
        drop(input);
        until("cat is dead", || matches!(state(cat), None | Some('Z'))).await;
    }
}

/// Tells whether a process waits in the call of this number.
fn is_in_call(pid: u32, number: u32) -> bool {
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall"));
    call.is_ok_and(|call| call.starts_with(&format!("{number} ")))
}
