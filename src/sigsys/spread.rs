//! Bringing the filter to all threads of the process.
//!
//! The kernel could do it at once (`SECCOMP_FILTER_FLAG_TSYNC`), also to a thread that blocks `SIGSYS` at that moment, as each
//! does while it starts or starts another one: its next call would kill the process (P7). So each thread is sent the
//! signal, and applies the filter in its handler, which runs when the signal is let through.
#![allow(unsafe_code)]

use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use super::context::SIGSYS;
use super::handler::thread_id;
use super::threads::Threads;
use crate::error::{Error, Result};
use crate::filter::Program;
use crate::syscall::{Prctl, pointer, prctl, syscall3};

#[derive(Debug)]
pub(super) struct Spread {
    /// What threads are to apply, as long as it is being brought to them.
    program: AtomicPtr<libc::sock_fprog>,
    /// Those that have.
    done: Threads,
}

/// How long threads may take. One that keeps the signal blocked is found before that.
const LIMIT: Duration = Duration::from_secs(10);

/// An argument that the kernel does not look at, and what our handler makes of it.
const QUESTION: u64 = 0x6173_6d5f_7472_6163;
pub(super) const ANSWER: i64 = 0x6572_5f79_6573;

impl Spread {
    pub(super) fn new() -> Self {
        Self {
            program: AtomicPtr::new(std::ptr::null_mut()),
            done: Threads::new(),
        }
    }

    /// Has all threads but `exempt` apply the program, and those that they start meanwhile.
    pub(super) fn to_all(&self, program: &Program, exempt: i32) -> Result<()> {
        let mut program = program.as_sock_fprog();
        self.program.store(&raw mut program, Release);
        let outcome = self.send_out(exempt);
        self.program.store(std::ptr::null_mut(), Release);
        outcome
    }

    fn send_out(&self, exempt: i32) -> Result<()> {
        let process = std::process::id();
        let start = Instant::now();
        // A thread that was started by one that had not applied it yet may have been missed by the look that saw this one.
        let mut clean_looks = 0;
        while clean_looks < 2 {
            let missing: Vec<_> = threads()?
                .into_iter()
                .filter(|thread| *thread != exempt && !self.done.contains(thread.cast_unsigned()))
                .collect();
            clean_looks = if missing.is_empty() { clean_looks + 1 } else { 0 };
            if start.elapsed() > LIMIT {
                return Err(Error::SigsysBlocked { threads: missing });
            }
            for thread in &missing {
                // One that has ended is as good as done.
                // SAFETY: the handler for this signal is ours.
                let _ =
                    unsafe { syscall3(libc::SYS_tgkill, process.into(), (*thread).into(), SIGSYS.into()) };
            }
            if !missing.is_empty() {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        Ok(())
    }

    /// Applies the program to this thread, in the handler, if that is what the signal was sent for.
    pub(super) fn arrived(&self) -> bool {
        let program = self.program.load(Acquire);
        if program.is_null() {
            return false;
        }
        let thread = thread_id();
        // It may have been started by a thread that has the filter, or the signal have come twice.
        let applied = self.done.contains(thread)
            || is_traced()
            || prctl(Prctl::SetNoNewPrivs).is_ok() && apply(program);
        if applied {
            self.done.insert(thread);
        }
        true
    }
}

fn apply(program: *const libc::sock_fprog) -> bool {
    let mode = libc::SECCOMP_SET_MODE_FILTER.into();
    // SAFETY: the program is there until every thread has applied it.
    unsafe { syscall3(libc::SYS_seccomp, mode, 0, pointer(program)) }.is_ok()
}

/// Asks our handler, by a call that nobody else makes, and the kernel gives another answer to.
fn is_traced() -> bool {
    let answer: i64;
    // SAFETY: without a filter, it asks for a mask and has it written nowhere.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") libc::SYS_rt_sigprocmask => answer,
            in("rdi") 0, in("rsi") 0, in("rdx") 0, in("r10") 8, in("r8") QUESTION,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    answer == ANSWER
}

/// Tells whether a call of that number is the question.
pub(super) fn is_question(args: [i64; 6]) -> bool {
    args[..5] == [0, 0, 0, 8, QUESTION.cast_signed()]
}

fn threads() -> Result<Vec<i32>> {
    let failed = |source| Error::Io {
        operation: "reading /proc/self/task",
        source,
    };
    let tasks = std::fs::read_dir("/proc/self/task").map_err(failed)?;
    let numbers = tasks.map(|task| Ok(task?.file_name().to_str().and_then(|name| name.parse().ok())));
    let numbers: std::io::Result<Vec<Option<i32>>> = numbers.collect();
    Ok(numbers.map_err(failed)?.into_iter().flatten().collect())
}
