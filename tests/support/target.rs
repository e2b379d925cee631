//! Targets: small C programs that make a trapped call when they are told to.

use std::future::Future;
use std::path::PathBuf;

use asm_tracer::{Child, Command, Filter, KernelSupport, Listener, Notification, Stdio, Sysno};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{c_program, until, until_blocking, within};

/// `trap(a, b, c, d)` is a raw `getppid`, whose arguments the kernel ignores and whose filter traps nothing else
/// that a C library does; it gives the register as it came back.
const PRELUDE: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static inline long trap(long a, long b, long c, long d) {
    register long r10 __asm__("r10") = d;
    long result;
    __asm__ volatile("syscall" : "=a"(result)
        : "a"((long)SYS_getppid), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
}

static inline void check(int holds, const char *what) {
    if (!holds) { perror(what); exit(101); }
}

/* Waits for one byte of the standard input; 0 at its end. */
static inline int told(void) {
    char byte;
    ssize_t n;
    while ((n = read(0, &byte, 1)) < 0 && errno == EINTR) { }
    return n == 1 ? byte : 0;
}

static volatile sig_atomic_t handled;
static inline void handle(int signal) { (void)signal; handled++; }
static inline void handle_signal(int signal, int flags) {
    struct sigaction action = { .sa_handler = handle, .sa_flags = flags };
    check(sigaction(signal, &action, NULL) == 0, "sigaction");
}
"#;

/// Compiles a target; `body` comes after the prelude.
pub(crate) fn program(name: &str, body: &str) -> PathBuf {
    c_program(name, &format!("{PRELUDE}\n{body}"))
}

/// The filter for `trap`.
pub(crate) fn filter() -> Filter {
    Filter::new().trap(Sysno::getppid)
}

/// A target under that filter, with pipes to its standard input and output.
pub(crate) fn command(name: &str, body: &str) -> Command {
    let mut command = Command::new(program(name, body));
    command
        .filter(filter())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

/// The next call.
pub(crate) async fn next(listener: &mut Listener) -> Notification {
    within("a call", listener.next()).await.unwrap()
}

/// Fails unless the target has ended well, with no further call.
pub(crate) async fn succeeded(mut child: Child, mut listener: Listener) {
    assert!(within("the end", listener.next()).await.is_none());
    let status = within("the exit", child.wait()).await.unwrap();
    assert!(status.success(), "{status}");
}

/// Tells whether a thread waits in the kernel in this call, as it does from the trap to the answer.
pub(crate) fn waits_in(tid: u32, call: Sysno) -> bool {
    let Ok(line) = std::fs::read_to_string(format!("/proc/{tid}/syscall")) else {
        return false;
    };
    line.split_whitespace().next() == Some(&call.id().to_string())
}

/// Waits until a thread is frozen in `trap`.
pub(crate) async fn frozen(tid: u32) {
    until("the thread is frozen", || waits_in(tid, Sysno::getppid)).await;
}

/// The threads of a process.
pub(crate) fn threads(pid: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let tids = tasks.map_while(|task| task.ok()?.file_name().to_str()?.parse().ok());
    tids.collect()
}

/// Whether this process has a thread with this name, of which the kernel keeps 15 characters.
pub(crate) fn thread_runs(name: &str) -> bool {
    threads(std::process::id()).iter().any(|tid| {
        let comm = std::fs::read_to_string(format!("/proc/self/task/{tid}/comm"));
        comm.is_ok_and(|comm| comm.trim_end() == name)
    })
}

/// Waits until this many threads of a process are frozen in `trap`.
pub(crate) async fn frozen_threads(pid: u32, count: usize) {
    until("the threads are frozen", || are_frozen(pid, count)).await;
}

/// The same without a runtime.
pub(crate) fn frozen_threads_blocking(pid: u32, count: usize) {
    until_blocking("the threads are frozen", || are_frozen(pid, count));
}

fn are_frozen(pid: u32, count: usize) -> bool {
    let tids = threads(pid).into_iter();
    tids.filter(|tid| waits_in(*tid, Sysno::getppid)).count() == count
}

/// Runs a test body on a runtime of one thread, then on one of several.
pub(crate) fn on_each_runtime<F: Future<Output = ()>>(body: impl Fn() -> F) {
    let mut one = tokio::runtime::Builder::new_current_thread();
    let mut several = tokio::runtime::Builder::new_multi_thread();
    for runtime in [one.enable_all(), several.worker_threads(2).enable_all()] {
        runtime.build().unwrap().block_on(body());
    }
}

/// Tells whether this kernel protects received calls from signals, and prints the reason to skip if it doesn't.
pub(crate) fn killable() -> bool {
    let present = KernelSupport::get().wait_killable;
    if !present {
        eprintln!("skipped: this kernel has no WAIT_KILLABLE_RECV");
    }
    present
}

/// Makes this process the parent of what its descendants leave behind, so that [`orphan_end`] can reap it.
pub(crate) fn adopt_orphans() {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
}

/// Waits for an adopted orphan, and says how it ended.
pub(crate) fn orphan_end(pid: u32) -> WaitStatus {
    let mut end = None;
    until_blocking("the orphan has ended", || {
        // Until its parent is gone, it isn't ours.
        let waited = waitpid(Pid::from_raw(pid as i32), Some(WaitPidFlag::WNOHANG));
        end = waited.ok().filter(|status| *status != WaitStatus::StillAlive);
        end.is_some()
    });
    end.unwrap()
}
