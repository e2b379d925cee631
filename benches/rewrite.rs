//! A call that runs with other arguments, or whose result is asked for, beside a bare tracer that does the same to a call.
#![allow(missing_docs)] // Criterion's macros write a function without.
#![allow(unsafe_code)]

mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use asm_tracer::syscall::{
    PtraceOptions, PtraceRequest, Registers, SignalNumber, WaitOptions, ptrace, wait4,
};
use asm_tracer::{Listener, Sysno};
use criterion::{Criterion, criterion_group, criterion_main};
use support::paired::{median, paired};
use support::target::{ANSWER, Target};
use tokio::runtime::{Builder, Runtime};

/// A tracer that rewrites every call of its tracee: the stop at the entry, the stop at the exit.
struct Bare {
    pid: i32,
}

impl Bare {
    fn start() -> Self {
        // SAFETY: the child makes system calls only.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "{}", std::io::Error::last_os_error());
        if pid == 0 {
            // SAFETY: asks to die with its parent.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            support::target::call_for_ever(Duration::ZERO);
        }
        let options = PtraceOptions::TRACESYSGOOD | PtraceOptions::EXITKILL;
        ptrace(pid, PtraceRequest::Seize(options)).unwrap();
        ptrace(pid, PtraceRequest::Interrupt).unwrap();
        wait4(pid, WaitOptions::ALL).unwrap();
        Self { pid }
    }

    /// The registers at the next stop for a system call.
    fn next(&self) -> Registers {
        ptrace(self.pid, PtraceRequest::Syscall(SignalNumber::NONE)).unwrap();
        wait4(self.pid, WaitOptions::ALL).unwrap();
        let mut registers = Registers::default();
        ptrace(self.pid, PtraceRequest::GetRegisters(&mut registers)).unwrap();
        registers
    }

    fn serve(&self, calls: u64) -> Duration {
        let start = Instant::now();
        for _ in 0..calls {
            let mut entry = self.next();
            entry.rdi = 7;
            ptrace(self.pid, PtraceRequest::SetRegisters(&entry)).unwrap();
            let mut exit = self.next();
            exit.rax = ANSWER.cast_unsigned();
            exit.rdi = entry.rdi;
            ptrace(self.pid, PtraceRequest::SetRegisters(&exit)).unwrap();
        }
        start.elapsed()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // SAFETY: kills and reaps the child that `start` made.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}

fn rewrite(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rewrite");
    group.sample_size(20);
    let bare = Bare::start();
    let runtime = Builder::new_current_thread().enable_io().build().unwrap();
    type Subject = fn(&Runtime, &mut Listener, u64) -> Duration;
    let subjects: [(&str, Subject); 4] = [
        ("other arguments", other_arguments),
        ("observed", observed),
        ("other arguments, observed", both),
        ("other arguments and data", data),
    ];
    for (name, subject) in subjects {
        let target = Target::start_until(Duration::ZERO, i64::from(std::process::id()));
        let mut listener = runtime.block_on(async { Listener::attach(target.duplicate()).unwrap() });
        let subject = |calls| subject(&runtime, &mut listener, calls);
        paired(&mut group, name, |calls| bare.serve(calls), subject);
    }
    group.finish();
    strace();
}

/// Runs as many calls as are asked for, each answered by `serve`.
macro_rules! subject {
    ($name:ident, $call:ident => $answer:expr) => {
        fn $name(runtime: &Runtime, listener: &mut Listener, calls: u64) -> Duration {
            runtime.block_on(async {
                let start = Instant::now();
                for _ in 0..calls {
                    let $call = listener.next().await.unwrap();
                    $answer.await.unwrap();
                }
                start.elapsed()
            })
        }
    };
}

subject!(other_arguments, call => call.continue_with([7; 6]));
subject!(observed, call => call.continue_and_observe());
subject!(both, call => call.continue_as(Sysno::getppid, [7; 6]).observe());
subject!(data, call => call.continue_with([7; 6]).data(0, "/another/path\0"));

/// What strace takes for a call that it shows, with its own filter, and only that call.
fn strace() {
    const CALLS: u32 = 20_000;
    let script = format!("import os\nfor _ in range({CALLS}): os.getppid()");
    let run = |arguments: &[&str]| {
        let start = Instant::now();
        let (program, arguments) = arguments.split_first().unwrap();
        let mut command = Command::new(program);
        command.args(arguments).args(["python3", "-S", "-c", &script]);
        let status = command.stdin(Stdio::null()).status().ok()?;
        status.success().then(|| start.elapsed().as_secs_f64())
    };
    let mut differences = Vec::new();
    for _ in 0..5 {
        let plain = run(&["env"]);
        let traced = run(&[
            "strace",
            "-f",
            "--seccomp-bpf",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=getppid",
        ]);
        let (Some(plain), Some(traced)) = (plain, traced) else {
            return println!("no strace or no python3 to compare with");
        };
        differences.push((traced - plain) / f64::from(CALLS));
    }
    println!(
        "strace, for a call that it shows: {:.2} µs",
        median(differences.into_iter()) * 1e6
    );
}

criterion_group!(benches, rewrite);
criterion_main!(benches);
