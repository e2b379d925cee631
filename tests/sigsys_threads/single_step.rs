use std::io::Read as _;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use asm_tracer::Sysno;
use nix::libc;

use crate::probe::{Cpu, WAYS, Way};
use crate::stacks::{AlternateStack, without_alternate_stack};
use crate::support::{is_child, proc_status, rerun, until_blocking};
use crate::{handle, limit_this_process, tracer};

static CPU: std::sync::OnceLock<Cpu> = std::sync::OnceLock::new();
static TICKS: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_signal(_: i32, _: *mut libc::siginfo_t, _: *mut libc::ucontext_t) {
    let tick = TICKS.fetch_add(1, Relaxed);
    for way in WAYS {
        CPU.get().unwrap().call(way, tick).unwrap();
    }
}

/// Tells the tracer where the gates are, and hears from it whether to go on.
fn mark() -> bool {
    unsafe extern "C" {
        fn asm_tracer_gate_start();
        fn asm_tracer_gate_end();
    }
    let go_on: u64;
    // SAFETY: the tracer changes one register.
    unsafe {
        std::arch::asm!(
            "int3",
            inlateout("rax") asm_tracer_gate_start as *const () as u64 => go_on,
            in("rdx") asm_tracer_gate_end as *const () as u64,
        );
    }
    go_on == 1
}

fn traced_child(results: bool) {
    CPU.get_or_init(Cpu::look);
    let _tracer = tracer(&[Sysno::getppid]).results(results).install().unwrap();
    handle(libc::SIGUSR1, 0, on_signal);
    // SAFETY: from here on, the parent sees each stop of this thread.
    assert_eq!(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) }, 0);
    for alternate in [true, false] {
        let stack = alternate.then(|| AlternateStack::set(0));
        if !alternate {
            without_alternate_stack();
        }
        for way in [Way::Plain, Way::Rewritten] {
            let mut rounds = 0;
            let before = TICKS.load(Relaxed);
            while mark() {
                CPU.get().unwrap().call(way, rounds).unwrap();
                rounds += 1;
            }
            println!("{way:?}: {} of {rounds}", TICKS.load(Relaxed) - before);
        }
        drop(stack);
    }
}

/// The thread of a process that has a tracer.
fn traced_thread(process: u32) -> Option<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let threads = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let is_traced =
        |thread: &i32| proc_status(*thread as u32, "TracerPid").is_some_and(|tracer| tracer != "0");
    threads.into_iter().find(is_traced)
}

/// The tracer's side: a thread of the child, which is stopped.
struct Stepped(i32);

impl Stepped {
    fn request(&self, request: u32, data: usize) {
        // SAFETY: it touches no memory of this process.
        let done = unsafe { libc::ptrace(request, self.0, std::ptr::null_mut::<u8>(), data) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }

    fn registers(&self) -> libc::user_regs_struct {
        // SAFETY: the kernel writes registers.
        unsafe {
            let mut registers = std::mem::zeroed();
            let none = std::ptr::null_mut::<u8>();
            let done = libc::ptrace(libc::PTRACE_GETREGS, self.0, none, &raw mut registers);
            assert_eq!(done, 0);
            registers
        }
    }

    fn answer(&self, go_on: bool) {
        let mut registers = self.registers();
        registers.rax = go_on.into();
        let none = std::ptr::null_mut::<u8>();
        // SAFETY: the kernel reads registers.
        let done = unsafe { libc::ptrace(libc::PTRACE_SETREGS, self.0, none, &raw mut registers) };
        assert_eq!(done, 0);
    }

    /// The signal of the next stop; `None` after the last.
    fn stop(&mut self) -> Option<i32> {
        let mut status = 0;
        // SAFETY: the kernel writes a status.
        let thread = unsafe { libc::waitpid(self.0, &mut status, libc::__WALL) };
        assert!(thread > 0, "{}", std::io::Error::last_os_error());
        if libc::WIFSTOPPED(status) {
            return Some(libc::WSTOPSIG(status));
        }
        assert_eq!(status, 0, "{:?}", std::process::ExitStatus::from_raw(status));
        None
    }

    /// Goes on to the next mark, delivering whatever comes before it.
    fn next_mark(&mut self, mut signal: i32) -> Option<std::ops::Range<u64>> {
        loop {
            self.request(libc::PTRACE_CONT, signal as usize);
            match self.stop()? {
                libc::SIGTRAP => {
                    let registers = self.registers();
                    return Some(registers.rax..registers.rdx);
                }
                other => signal = other,
            }
        }
    }

    /// Lets it make its call, and steps from there on until the gates have been on `before` instructions. Tells whether
    /// there are so many before the call is over.
    fn is_at(&mut self, gates: &std::ops::Range<u64>, before: u32) -> bool {
        self.request(libc::PTRACE_CONT, 0);
        assert_eq!(self.stop(), Some(libc::SIGSYS));
        // The instruction after the call.
        let site = self.registers().rip;
        // The first of the gates is where the handler returns to. It takes thousands of instructions to get there.
        self.break_at(gates.start);
        self.request(libc::PTRACE_CONT, libc::SIGSYS as usize);
        assert_eq!(self.stop(), Some(libc::SIGTRAP));
        assert_eq!(self.registers().rip, gates.start);
        self.break_at(0);
        let mut seen = 0;
        loop {
            let place = self.registers().rip;
            if place == site {
                return false;
            }
            if gates.contains(&place) {
                if seen == before {
                    return true;
                }
                seen += 1;
            }
            self.request(libc::PTRACE_SINGLESTEP, 0);
            assert_eq!(self.stop(), Some(libc::SIGTRAP));
        }
    }

    /// Has the CPU stop the thread at this instruction, or nowhere.
    fn break_at(&self, address: u64) {
        let registers = std::mem::offset_of!(libc::user, u_debugreg);
        let control = registers + 7 * size_of::<u64>();
        for (register, value) in [
            (control, 0),
            (registers, address),
            (control, u64::from(address != 0)),
        ] {
            // SAFETY: it touches no memory of this process.
            let done = unsafe { libc::ptrace(libc::PTRACE_POKEUSER, self.0, register, value) };
            assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        }
    }
}

// P15, P30: a signal comes at each instruction of the gates in turn, and its handler makes calls in all ways.
#[test]
fn a_signal_comes_at_each_instruction() {
    step_through("single_step::a_signal_comes_at_each_instruction", false);
}

// P15: also of those that write results down.
#[test]
fn a_signal_comes_at_each_instruction_where_results_are_recorded() {
    let name = "single_step::a_signal_comes_at_each_instruction_where_results_are_recorded";
    step_through(name, true);
}

fn step_through(test: &str, results: bool) {
    if is_child() {
        limit_this_process();
        return traced_child(results);
    }
    let mut child = rerun(test).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut traced = None;
    until_blocking("a thread of the child is traced", || {
        traced = traced_thread(child.id());
        traced.is_some() || child.try_wait().unwrap().is_some()
    });
    let mut stepped = Stepped(traced.expect("the child lives"));
    let mut injected = Vec::new();
    assert_eq!(stepped.stop(), Some(libc::SIGTRAP));
    let registers = stepped.registers();
    let mut gates = registers.rax..registers.rdx;
    'child: for _ in 0..4 {
        for before in 0.. {
            stepped.answer(true);
            let last = !stepped.is_at(&gates, before);
            gates = stepped
                .next_mark(if last { 0 } else { libc::SIGUSR1 })
                .expect("a mark");
            if last {
                injected.push(before);
                stepped.answer(false);
                match stepped.next_mark(0) {
                    Some(next) => gates = next,
                    None => break 'child,
                }
                break;
            }
        }
    }
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    for (way, count) in ["Plain", "Rewritten", "Plain", "Rewritten"].iter().zip(&injected) {
        // The gate, its return from the handler, and what it takes to write a result down.
        let least = if *way == "Plain" { 4 } else { 12 } + if results { 40 } else { 0 };
        assert!(*count >= least, "{injected:?}");
        let line = format!("{way}: {count} of {}", count + 1);
        assert!(text.contains(&line), "{injected:?}\n{text}");
    }
    assert_eq!(injected.len(), 4, "{injected:?}\n{text}");
}
