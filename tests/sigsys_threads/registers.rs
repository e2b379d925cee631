use std::arch::global_asm;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use asm_tracer::Sysno;
use asm_tracer::sigsys::{Decision, Event};
use nix::libc;

use crate::probe::{Cpu, WAYS, Way};
use crate::stacks::{AlternateStack, without_alternate_stack};
use crate::storm::{Storm, until_risen};
use crate::{handle, isolated, tracer};

static CPU: OnceLock<Cpu> = OnceLock::new();
static TICKS: AtomicU64 = AtomicU64::new(0);
/// What handlers found wrong.
static WRONG: AtomicU64 = AtomicU64::new(0);

fn cpu() -> &'static Cpu {
    CPU.get_or_init(Cpu::look)
}

/// Makes many calls in all ways, with the stack pointer at all distances from what the kernel aligns its frame to.
fn probe_all(what: &str, rounds: u64) {
    for seed in 1..=rounds {
        for way in WAYS {
            if let Err(wrong) = cpu().call(way, seed) {
                panic!("{what}: {wrong}");
            }
        }
    }
}

// P13, P14, P16, P17: the state of the vector units is on the stack that the handler's frame is on.
#[test]
fn no_register_changes_without_an_alternate_stack() {
    isolated(
        "registers::no_register_changes_without_an_alternate_stack",
        || {
            cpu();
            let tracer = tracer(&[Sysno::getppid]).install().unwrap();
            without_alternate_stack();
            probe_all("no alternate stack", 300);
            // They came about as they were meant to.
            let events = tracer.drain().unwrap();
            let decided = |wanted: fn(&Decision) -> bool| {
                let of_it = |event: &&Event| matches!(event, Event::Call(call) if wanted(&call.decision));
                events.iter().filter(of_it).count()
            };
            assert_eq!(events.len(), 900);
            assert_eq!(decided(|decision| *decision == Decision::Run), 300);
            assert_eq!(
                decided(|decision| matches!(decision, Decision::Rewritten(_))),
                300
            );
            assert_eq!(decided(|decision| *decision == Decision::Returned(4711)), 300);
        },
    );
}

// P13, P14, P16, P17
#[test]
fn no_register_changes_with_an_alternate_stack() {
    isolated("registers::no_register_changes_with_an_alternate_stack", || {
        cpu();
        let _tracer = tracer(&[Sysno::getppid]).install().unwrap();
        let _stack = AlternateStack::set(0);
        probe_all("alternate stack", 300);
    });
}

// P13, P14, P16, P17: the handler's frame comes onto the stack on which the program is already.
#[test]
fn no_register_changes_on_the_alternate_stack() {
    extern "C" fn on_signal(_: i32, _: *mut libc::siginfo_t, _: *mut libc::ucontext_t) {
        probe_all("on the alternate stack", 300);
        TICKS.fetch_add(1, Relaxed);
    }
    isolated("registers::no_register_changes_on_the_alternate_stack", || {
        cpu();
        let _tracer = tracer(&[Sysno::getppid]).install().unwrap();
        let _stack = AlternateStack::set(0);
        handle(libc::SIGUSR1, libc::SA_ONSTACK, on_signal);
        // SAFETY: it has a handler.
        unsafe { libc::raise(libc::SIGUSR1) };
        assert_eq!(TICKS.load(Relaxed), 1);
    });
}

// P13: at the very end of it the kernel takes the program to be on that stack.
#[test]
fn no_register_changes_at_the_end_of_the_alternate_stack() {
    isolated(
        "registers::no_register_changes_at_the_end_of_the_alternate_stack",
        || {
            cpu();
            let _tracer = tracer(&[Sysno::getppid]).install().unwrap();
            let stack = AlternateStack::set(0);
            for seed in 1..100 {
                for way in WAYS {
                    cpu().call_on(way, seed, stack.end()).unwrap();
                    cpu().call_on(way, seed, stack.end() - 8).unwrap();
                }
            }
        },
    );
}

extern "C" fn probe_in_handler(_: i32, _: *mut libc::siginfo_t, _: *mut libc::ucontext_t) {
    let tick = TICKS.fetch_add(1, Relaxed);
    let way = WAYS[tick as usize % WAYS.len()];
    if cpu().call(way, tick | 1 << 40).is_err() {
        WRONG.fetch_add(1, Relaxed);
    }
}

fn storm(flags: i32) {
    handle(libc::SIGUSR2, flags | libc::SA_RESTART, probe_in_handler);
    let _storm = Storm::over_this_thread(libc::SIGUSR2);
    until_risen(&TICKS, 2_000, |round| probe_all("in a storm", 1 + round % 4));
    assert_eq!(WRONG.load(Relaxed), 0);
}

// P13, P14, P15, P16: signals hit the gates, and their handlers go through the same ones.
#[test]
fn no_register_changes_in_a_storm_without_an_alternate_stack() {
    isolated(
        "registers::no_register_changes_in_a_storm_without_an_alternate_stack",
        || {
            cpu();
            let _tracer = tracer(&[Sysno::getppid]).install().unwrap();
            without_alternate_stack();
            storm(0);
        },
    );
}

// P13, P14, P15, P16
#[test]
fn no_register_changes_in_a_storm_with_an_alternate_stack() {
    isolated(
        "registers::no_register_changes_in_a_storm_with_an_alternate_stack",
        || {
            cpu();
            let _tracer = tracer(&[Sysno::getppid]).install().unwrap();
            let _stack = AlternateStack::set(0);
            storm(0);
            storm(libc::SA_ONSTACK);
        },
    );
}

// P13, P15: several threads with the same gates at once.
#[test]
fn no_register_changes_in_threads_in_storms() {
    isolated("registers::no_register_changes_in_threads_in_storms", || {
        cpu();
        let _tracer = tracer(&[Sysno::getppid, Sysno::rt_sigreturn]).install().unwrap();
        handle(libc::SIGUSR2, libc::SA_RESTART, probe_in_handler);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    if thread % 2 == 0 {
                        without_alternate_stack();
                    }
                    let _storm = Storm::over_this_thread(libc::SIGUSR2);
                    until_risen(&TICKS, 2_000, |_| probe_all("in a thread", 2));
                });
            }
        });
        assert_eq!(WRONG.load(Relaxed), 0);
    });
}

global_asm!(
    // Gives the results of four calls with junk in FS: a plain, a rewritten, an answered one, and a mask's.
    ".globl call_without_storage",
    "call_without_storage:",
    "push rbx",
    "push r12",
    "push r13",
    "sub rsp, 32",
    "mov rbx, rdi",
    "mov r12, rsi",
    "mov r13, rdx",
    "mov eax, 158",
    "mov edi, 0x1003", // ARCH_GET_FS
    "mov rsi, rsp",
    "syscall",
    "mov eax, 158",
    "mov edi, 0x1002", // ARCH_SET_FS
    "mov esi, 0x1000",
    "syscall",
    "mov [rbx + 32], rax",
    "mov eax, 110",
    "xor r9d, r9d",
    "syscall",
    "mov [rbx], rax",
    "mov eax, 110",
    "mov r9, r12",
    "syscall",
    "mov [rbx + 8], rax",
    "mov eax, 110",
    "mov r9, r13",
    "syscall",
    "mov [rbx + 16], rax",
    "mov eax, 14", // rt_sigprocmask(SIG_BLOCK, NULL, &mask, 8)
    "xor edi, edi",
    "xor esi, esi",
    "lea rdx, [rsp + 8]",
    "mov r10d, 8",
    "syscall",
    "mov [rbx + 24], rax",
    "mov eax, 158",
    "mov edi, 0x1002",
    "mov rsi, [rsp]",
    "syscall",
    "mov [rbx + 40], rax",
    "add rsp, 32",
    "pop r13",
    "pop r12",
    "pop rbx",
    "ret",
);

// P24: no thread-local storage is used between the call and its result.
#[test]
fn calls_are_traced_with_the_thread_pointer_anywhere() {
    unsafe extern "C" {
        fn call_without_storage(results: *mut [i64; 6], rewrite: u64, answer: u64);
    }
    isolated(
        "registers::calls_are_traced_with_the_thread_pointer_anywhere",
        || {
            // SAFETY: they ask for numbers.
            let (parent, group) = unsafe { (libc::getppid(), libc::getpgrp()) };
            let calls = [Sysno::getppid, Sysno::arch_prctl, Sysno::rt_sigprocmask];
            let tracer = tracer(&calls).install().unwrap();
            for alternate in [true, false] {
                let stack = alternate.then(|| AlternateStack::set(0));
                if !alternate {
                    without_alternate_stack();
                }
                let mut results = [-1; 6];
                // SAFETY: it puts back what it changes.
                unsafe { call_without_storage(&raw mut results, crate::REWRITE, crate::RETURN) };
                assert_eq!(results, [parent.into(), group.into(), 4711, 0, 0, 0]);
                drop(stack);
            }
            let events = tracer.drain().unwrap();
            assert_eq!(crate::count(&events, Sysno::arch_prctl), 6);
            assert_eq!(crate::count(&events, Sysno::getppid), 6);
        },
    );
}

// P15, P30: what is queued in the handler comes where the call is about to be made.
#[test]
fn a_signal_comes_right_before_the_call() {
    static PLACE: AtomicU64 = AtomicU64::new(0);
    fn queue(call: &mut asm_tracer::TrappedSyscall) -> Option<i64> {
        static IN_HANDLER: AtomicU64 = AtomicU64::new(0);
        if call.sysno() == Some(Sysno::getppid) && IN_HANDLER.swap(1, Relaxed) == 0 {
            let signal = libc::SIGUSR1.into();
            // SAFETY: it has a handler.
            unsafe {
                use asm_tracer::syscall::{raw_syscall0, raw_syscall3};
                let process = raw_syscall0(libc::SYS_getpid);
                raw_syscall3(libc::SYS_tgkill, process, raw_syscall0(libc::SYS_gettid), signal);
            }
            let answer = crate::rewriting(call);
            IN_HANDLER.store(0, Relaxed);
            return answer;
        }
        crate::rewriting(call)
    }
    /// Its own calls are shown to the hook too, which sends no signal for every second one.
    extern "C" fn on_signal(_: i32, _: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
        PLACE.store(crate::register(context, libc::REG_RIP), Relaxed);
        TICKS.fetch_add(1, Relaxed);
        // SAFETY: asks for a number.
        unsafe { libc::getppid() };
    }
    isolated("registers::a_signal_comes_right_before_the_call", || {
        cpu();
        // Within the handler the signal is blocked, so that its own call's comes when it has returned, and so on.
        let _tracer = tracer(&[Sysno::getppid]).hook(queue).install().unwrap();
        static LEFT: AtomicU64 = AtomicU64::new(0);
        extern "C" fn quiet(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
            if LEFT.swap(0, Relaxed) == 1 {
                on_signal(signal, info, context);
            }
        }
        handle(libc::SIGUSR1, 0, quiet);
        for alternate in [true, false] {
            let stack = alternate.then(|| AlternateStack::set(0));
            if !alternate {
                without_alternate_stack();
            }
            for way in [Way::Plain, Way::Rewritten] {
                for seed in 1..50 {
                    LEFT.store(1, Relaxed);
                    let before = TICKS.load(Relaxed);
                    cpu().call(way, seed).unwrap();
                    assert_eq!(TICKS.load(Relaxed), before + 1);
                    assert!(crate::in_gate(PLACE.load(Relaxed)));
                }
            }
            drop(stack);
        }
    });
}
