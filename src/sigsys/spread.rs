//! Bringing the filter to all threads of the process.
//!
//! The kernel could do it at once (`SECCOMP_FILTER_FLAG_TSYNC`), also to a thread that blocks `SIGSYS` at that moment, as each
//! does while it starts or starts another one: its next call would kill the process (P7). So each thread is sent the
//! signal, and applies the filter in its handler, which runs when the signal is let through. The signal says whose it is,
//! since it may come when all is over: to a thread that was sent it once more, or that kept it blocked for too long.
#![allow(unsafe_code)]

use std::collections::HashSet;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use super::context::{Info, SIGSYS};
use super::drain::is_zombie;
use super::handler::thread_id;
use super::threads::Threads;
use crate::error::{Error, Result};
use crate::filter::Program;
use crate::syscall::{Prctl, pointer, prctl, syscall3, syscall4};

#[derive(Debug)]
pub(super) struct Spread {
    /// What threads are to apply, as long as it is being brought to them.
    program: AtomicPtr<libc::sock_fprog>,
    /// Those that have, until the sender takes note. Who finds no room here is sent the signal again.
    arrivals: Threads,
}

/// How long threads may take. One that keeps the signal blocked is found before that.
const LIMIT: Duration = Duration::from_secs(10);
/// After that, those that are missing may be dead: the first thread of a process stays until the last one ends.
const PROMPT: Duration = Duration::from_millis(50);

/// What the signal carries.
const MARK: u64 = 0x6173_6d5f_7370_7264;

/// An argument that the kernel does not look at, and what our handler makes of it.
const QUESTION: u64 = 0x6173_6d5f_7472_6163;
pub(super) const ANSWER: i64 = 0x6572_5f79_6573;

impl Spread {
    pub(super) fn new() -> Self {
        Self {
            program: AtomicPtr::new(std::ptr::null_mut()),
            arrivals: Threads::new(),
        }
    }

    /// Has all threads but `exempt` apply the program, and those that they start meanwhile.
    pub(super) fn to_all(&self, program: Program, exempt: i32) -> Result<()> {
        // For good: a thread may be about to apply it when the time is up.
        let program: &'static Program = Box::leak(Box::new(program));
        let program = Box::leak(Box::new(program.as_sock_fprog()));
        self.program.store(program, Release);
        let outcome = self.send_out(exempt);
        self.program.store(std::ptr::null_mut(), Release);
        outcome
    }

    fn send_out(&self, exempt: i32) -> Result<()> {
        let start = Instant::now();
        let mut done = HashSet::new();
        // A thread that was started by one that had not applied it yet may have been missed by the look that saw this one.
        let mut clean_looks = 0;
        while clean_looks < 2 {
            let mut missing = threads()?;
            done.extend(self.arrivals.take().map(u32::cast_signed));
            missing.retain(|thread| *thread != exempt && !done.contains(thread));
            if start.elapsed() > PROMPT {
                missing.retain(|thread| !is_zombie(thread.cast_unsigned()));
            }
            clean_looks = if missing.is_empty() { clean_looks + 1 } else { 0 };
            if start.elapsed() > LIMIT {
                return Err(Error::SigsysBlocked { threads: missing });
            }
            missing.iter().for_each(|thread| send_to(*thread));
            if !missing.is_empty() {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        Ok(())
    }

    /// Applies the program to this thread, in the handler, if it is still wanted.
    pub(super) fn arrived(&self) {
        let program = self.program.load(Acquire);
        if program.is_null() {
            return;
        }
        // It may have been started by a thread that has the filter, or the signal have come twice.
        if is_traced() || prctl(Prctl::SetNoNewPrivs).is_ok() && apply(program) {
            self.arrivals.insert(thread_id());
        }
    }
}

/// Tells whether the signal is one that was sent to have the program applied.
pub(super) fn is_sent_by_us(info: &Info) -> bool {
    info.sent_value() == Some(MARK)
}

fn send_to(thread: i32) {
    let info = Info::with_value(MARK);
    let process = std::process::id();
    // One that has ended is as good as done.
    // SAFETY: the handler for this signal is ours.
    let _ = unsafe {
        syscall4(
            libc::SYS_rt_tgsigqueueinfo,
            process.into(),
            thread.into(),
            SIGSYS.into(),
            pointer(&raw const info),
        )
    };
}

fn apply(program: *const libc::sock_fprog) -> bool {
    let mode = libc::SECCOMP_SET_MODE_FILTER.into();
    // SAFETY: the program is there for good.
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
