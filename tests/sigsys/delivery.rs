//! How a trapped call arrives, and that nothing else is taken for one.

use std::arch::asm;
use std::ffi::c_void;
use std::process::Command;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize};

use asm_tracer::filter::Threads;
use asm_tracer::sigsys::{Decision, Tracer};
use asm_tracer::{Action, Filter, Sysno, TrappedSyscall};
use nix::libc;

use crate::common::{
    ANSWER, KernelAction, RESTORER, SIGSYS_BIT, alone, answer, assert_traced, at, at_mut, bit, blocked, call,
    calls_of, dies_of, error, everything, handle, kernel_action, output_of, own_status, raise, raw,
    trace_getppid, without_alternate_stack,
};
use crate::support::{assert_passed, is_child, rerun};

// P1
#[test]
fn the_event_has_the_address_after_the_instruction() {
    alone(|| {
        let tracer = trace_getppid();
        let (result, after): (i64, u64);
        // SAFETY: the call touches no memory.
        unsafe {
            asm!(
                "lea {after}, [rip + 2f]",
                "syscall",
                "2:",
                after = out(reg) after,
                inlateout("rax") libc::SYS_getppid => result,
                lateout("rcx") _, lateout("r11") _,
            );
        }
        assert_eq!(result, ANSWER);
        let calls = calls_of(&tracer);
        assert_eq!(calls.len(), 1);
        assert_eq!(calls[0].instruction_pointer, after);
        assert_eq!(calls[0].decision, Decision::Returned(ANSWER));
    });
}

/// What the program's own handler for `SIGSYS` saw.
static SEEN: [AtomicU64; 6] = [const { AtomicU64::new(0) }; 6];
static HANDLED: AtomicUsize = AtomicUsize::new(0);

/// Notes `si_signo`, `si_errno`, `si_code`, `si_call_addr`, `rip` and `rax`, and answers a call of a filter.
extern "C" fn note(_: i32, info: *mut c_void, context: *mut c_void) {
    // SAFETY: the kernel passes both to a handler with SA_SIGINFO.
    unsafe {
        let [signal, errno, code] = info.cast::<[i32; 3]>().read();
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let seen = [
            signal as u64,
            errno as u64,
            code as u64,
            info.cast::<u64>().add(2).read(),
            registers[libc::REG_RIP as usize] as u64,
            registers[libc::REG_RAX as usize] as u64,
        ];
        for (place, value) in SEEN.iter().zip(seen) {
            place.store(value, SeqCst);
        }
        if code == 1 {
            registers[libc::REG_RAX as usize] = 815;
        }
    }
    HANDLED.fetch_add(1, SeqCst);
    assert_traced();
}

extern "C" fn count(_: i32) {
    HANDLED.fetch_add(1, SeqCst);
    assert_traced();
}

/// Nothing is done with numbers below zero but this.
fn of_negative_numbers(call: &mut TrappedSyscall) -> Option<i64> {
    (call.nr < 0).then_some(1000 - call.nr)
}

/// Among them those that look like `-ERESTARTSYS` and its like to the kernel's signal delivery.
const NEGATIVE: [i64; 9] = [-1, -4, -38, -512, -513, -514, -516, -4095, i32::MIN as i64];

// P3
#[test]
fn a_negative_number_returns_what_the_hook_says_once() {
    alone(|| {
        let builder = Tracer::builder().filter(everything());
        let tracer = builder.hook(of_negative_numbers).install().unwrap();
        for number in NEGATIVE {
            assert_eq!(raw(number, [1, 2, 3, 4, 5, 6]), 1000 - number);
        }
        let calls = calls_of(&tracer);
        let negative: Vec<_> = calls.iter().filter(|call| call.syscall.nr < 0).collect();
        assert_eq!(negative.len(), NEGATIVE.len());
        for (call, number) in negative.iter().zip(NEGATIVE) {
            let syscall = TrappedSyscall {
                nr: number,
                args: [1, 2, 3, 4, 5, 6],
            };
            assert_eq!(call.syscall, syscall);
            assert_eq!(call.decision, Decision::Returned(1000 - number));
            assert_eq!(call.instruction_pointer, negative[0].instruction_pointer);
        }
    });
}

// P3
#[test]
fn a_negative_number_that_nobody_answers_fails_with_enosys() {
    alone(|| {
        let tracer = Tracer::builder().filter(everything()).install().unwrap();
        for number in NEGATIVE {
            assert_eq!(raw(number, [0; 6]), error(libc::ENOSYS), "{number}");
        }
        let calls = calls_of(&tracer);
        let numbers = calls.iter().map(|call| call.syscall.nr);
        assert!(numbers.filter(|number| *number < 0).eq(NEGATIVE));
    });
}

fn first_argument(call: &mut TrappedSyscall) -> Option<i64> {
    Some(call.args[0])
}

// P3
#[test]
fn a_result_that_looks_like_a_restart_is_a_result() {
    alone(|| {
        let builder = Tracer::builder().trap(Sysno::getppid);
        let tracer = builder.hook(first_argument).install().unwrap();
        let results = [-512, -513, -514, -516, -1, -4, i64::MIN, i64::MAX, 0];
        for result in results {
            assert_eq!(call(Sysno::getppid, &[result]), result);
        }
        assert_eq!(calls_of(&tracer).len(), results.len());
    });
}

// P10
#[test]
fn a_sigsys_from_elsewhere_kills_by_default() {
    dies_of(libc::SIGSYS, || {
        let _tracer = trace_getppid();
        raise(libc::SIGSYS);
    });
}

// P10
#[test]
fn a_sigsys_from_elsewhere_kills_by_default_after_the_handler_was_taken_away() {
    dies_of(libc::SIGSYS, || {
        without_alternate_stack();
        let _tracer = trace_getppid();
        handle(libc::SIGSYS, count as *const () as usize, 0, 0);
        raise(libc::SIGSYS);
        assert_eq!(HANDLED.load(SeqCst), 1);
        handle(libc::SIGSYS, libc::SIG_DFL, 0, 0);
        raise(libc::SIGSYS);
    });
}

// P10
#[test]
fn a_sigsys_of_a_filter_of_the_programs_kills_by_default() {
    dies_of(libc::SIGSYS, || {
        let _tracer = trace_getppid();
        trap(Sysno::getpgrp, 7);
        call(Sysno::getpgrp, &[]);
    });
}

// P10
#[test]
fn a_sigsys_from_elsewhere_is_ignored_where_the_program_says_so() {
    alone(|| {
        handle(libc::SIGSYS, libc::SIG_IGN, 0, 0);
        let _tracer = trace_getppid();
        raise(libc::SIGSYS);
        assert_traced();
        assert_eq!(kernel_action(libc::SIGSYS)[0], libc::SIG_IGN as u64);
    });
}

// P10
#[test]
fn a_sigsys_from_elsewhere_comes_to_the_handler_of_the_program() {
    alone(|| {
        without_alternate_stack();
        let tracer = trace_getppid();
        for round in 1..=3 {
            handle(
                libc::SIGSYS,
                note as *const () as usize,
                libc::SA_SIGINFO | libc::SA_RESTART,
                bit(libc::SIGUSR1),
            );
            raise(libc::SIGSYS);
            assert_eq!(HANDLED.load(SeqCst), 2 * round - 1);
            let seen = SEEN.each_ref().map(|place| place.load(SeqCst));
            assert_eq!(seen[0], libc::SIGSYS as u64);
            assert_eq!(seen[2] as i32, -6, "SI_TKILL");
            handle(libc::SIGSYS, count as *const () as usize, 0, 0);
            // SAFETY: sends a signal to this process, whose other threads block it or have no part in this.
            assert_eq!(unsafe { libc::raise(libc::SIGSYS) }, 0);
            assert_eq!(HANDLED.load(SeqCst), 2 * round);
            assert_traced();
        }
        // Two in the handlers, one here.
        assert_eq!(calls_of(&tracer).len(), 9);
    });
}

// P10
#[test]
fn the_programs_action_for_sigsys_reads_back_as_the_kernel_would_have_it() {
    let handler = count as *const () as u64;
    let actions: [KernelAction; 5] = [
        [handler, 0, 0, 0],
        [handler, RESTORER | libc::SA_SIGINFO as u64, 0x1234, u64::MAX],
        [handler, libc::SA_RESTART as u64, 0, SIGSYS_BIT | 1],
        [libc::SIG_IGN as u64, 0, 0, 0],
        [0; 4],
    ];
    alone(|| {
        let set_and_read = || {
            actions.map(|action| {
                let mut before = [0; 4];
                let signal = libc::SIGSYS.into();
                let (new, old) = (at(&action), at_mut(&mut before));
                assert_eq!(call(Sysno::rt_sigaction, &[signal, new, old, 8]), 0);
                [before, kernel_action(libc::SIGSYS)]
            })
        };
        let expected = set_and_read();
        let _tracer = trace_getppid();
        assert_eq!(set_and_read(), expected);
        assert_traced();
    });
}

// P10
#[test]
fn bad_actions_for_sigsys_fail_as_the_kernel_has_them_fail() {
    alone(|| {
        let attempts = || {
            let (new, mut old) = ([0_u64; 4], [0_u64; 4]);
            let (new, old) = (at(&new), at_mut(&mut old));
            let attempts = [
                [new, old, 7],
                [new, old, 0],
                [8, 0, 8],
                [8, 0, 16],
                [new, 8, 8],
                [0, 8, 8],
                [-1, -1, 8],
                [0, 0, 8],
            ];
            attempts.map(|[new, old, size]| call(Sysno::rt_sigaction, &[libc::SIGSYS.into(), new, old, size]))
        };
        let expected = attempts();
        let _tracer = trace_getppid();
        assert_eq!(attempts(), expected);
    });
}

/// Installs a filter of the program's own, which raises SIGSYS with this data.
fn trap(number: Sysno, data: u16) {
    let statement = |code, k| libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    };
    let mut filter = [
        statement(0x20, 0),
        libc::sock_filter {
            code: 0x15,
            jt: 0,
            jf: 1,
            k: number.id() as u32,
        },
        statement(0x06, libc::SECCOMP_RET_TRAP | u32::from(data)),
        statement(0x06, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: 4,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the kernel reads the program.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program), 0);
    }
}

// P1, P10
#[test]
fn a_second_filter_is_the_programs_own() {
    alone(|| {
        without_alternate_stack();
        let tracer = trace_getppid();
        handle(libc::SIGSYS, note as *const () as usize, libc::SA_SIGINFO, 0);
        trap(Sysno::getpgrp, 7);
        assert_eq!(call(Sysno::getpgrp, &[]), 815);
        assert_eq!(HANDLED.load(SeqCst), 1);
        let seen = SEEN.each_ref().map(|place| place.load(SeqCst));
        assert_eq!(seen[..3], [libc::SIGSYS as u64, 7, 1]);
        assert_eq!(seen[3], seen[4]);
        assert_eq!(seen[5], libc::SYS_getpgrp as u64);
        assert_traced();
        // The same place in the program, so that the addresses agree.
        let calls = calls_of(&tracer);
        assert!(calls.iter().all(|call| call.instruction_pointer == seen[3]));
        assert_eq!(calls.len(), 2);
    });
}

/// Returns to a mask that has everything.
extern "C" fn close(_: i32, _: *mut c_void, context: *mut c_void) {
    HANDLED.fetch_add(1, SeqCst);
    // SAFETY: as above; the kernel's mask is the first eight bytes of the C library's.
    unsafe {
        let mask = &raw mut (*context.cast::<libc::ucontext_t>()).uc_sigmask;
        mask.cast::<u64>().write(u64::MAX);
    }
}

// P5, P10
#[test]
fn a_handler_of_the_program_for_sigsys_can_not_block_it_by_what_it_returns_to() {
    alone(|| {
        let _tracer = trace_getppid();
        handle(libc::SIGSYS, close as *const () as usize, libc::SA_SIGINFO, 0);
        raise(libc::SIGSYS);
        assert_eq!(HANDLED.load(SeqCst), 1);
        assert_traced();
        let never = bit(libc::SIGKILL) | bit(libc::SIGSTOP) | SIGSYS_BIT;
        assert_eq!(blocked(), !never);
    });
}

// P10
#[test]
fn a_child_that_shares_the_memory_does_not_change_the_action_for_sigsys_of_its_parent() {
    alone(|| {
        without_alternate_stack();
        let _tracer = trace_getppid();
        handle(libc::SIGSYS, count as *const () as usize, 0, 0);
        let before = kernel_action(libc::SIGSYS);
        // The C library's child shares the memory and not the handlers, and is refused to execute the program.
        // SAFETY: the attributes are initialized by the first function that has them, and the strings end with a NUL.
        let spawned = unsafe {
            let (mut attributes, mut all, mut pid) = (std::mem::zeroed(), std::mem::zeroed(), 0);
            assert_eq!(libc::posix_spawnattr_init(&raw mut attributes), 0);
            assert_eq!(libc::sigfillset(&raw mut all), 0);
            libc::posix_spawnattr_setsigdefault(&raw mut attributes, &raw const all);
            let flags = libc::POSIX_SPAWN_SETSIGDEF as libc::c_short;
            libc::posix_spawnattr_setflags(&raw mut attributes, flags);
            let (path, none) = (c"/bin/true".as_ptr(), [std::ptr::null_mut()]);
            libc::posix_spawn(
                &raw mut pid,
                path,
                std::ptr::null(),
                &raw const attributes,
                none.as_ptr(),
                none.as_ptr(),
            )
        };
        assert_eq!(spawned, libc::EPERM);
        assert_eq!(kernel_action(libc::SIGSYS), before);
        raise(libc::SIGSYS);
        assert_eq!(HANDLED.load(SeqCst), 1);
    });
}

extern "C" fn emulate(_: i32, _: *mut c_void, context: *mut c_void) {
    HANDLED.fetch_add(1, SeqCst);
    // SAFETY: the kernel passes it to a handler with SA_SIGINFO.
    unsafe { (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_RAX as usize] = 815 };
}

// P10
#[test]
fn of_two_filters_for_a_call_the_newest_one_is_asked() {
    alone(|| {
        let tracer = trace_getppid();
        handle(libc::SIGSYS, emulate as *const () as usize, libc::SA_SIGINFO, 0);
        trap(Sysno::getppid, 7);
        assert_eq!(call(Sysno::getppid, &[]), 815);
        assert_eq!(HANDLED.load(SeqCst), 1);
        assert!(calls_of(&tracer).is_empty());
    });
}

/// Whether Syscall User Dispatch is to raise SIGSYS for the calls of this thread.
static DISPATCH: AtomicU8 = AtomicU8::new(0);

/// Ends the dispatch, as what a handler returns by would raise the signal as well.
extern "C" fn dispatched(signal: i32, info: *mut c_void, context: *mut c_void) {
    DISPATCH.store(0, SeqCst);
    // SAFETY: the kernel passes it to a handler with SA_SIGINFO.
    SEEN[2].store(unsafe { info.cast::<[i32; 3]>().read() }[2] as u64, SeqCst);
    emulate(signal, info, context);
}

// P10
#[test]
fn calls_that_are_dispatched_to_the_program_are_its_own() {
    alone(|| {
        const ON: i64 = 1;
        let set = |what: i64, selector| call(Sysno::prctl, &[59, what, 0, 0, selector]);
        let tracer = trace_getppid();
        handle(
            libc::SIGSYS,
            dispatched as *const () as usize,
            libc::SA_SIGINFO,
            0,
        );
        if set(ON, at(&DISPATCH)) != 0 {
            println!("skipped: this kernel has no Syscall User Dispatch");
            return;
        }
        for number in [Sysno::getpgrp, Sysno::getppid] {
            DISPATCH.store(1, SeqCst);
            // The dispatch comes before any filter.
            assert_eq!(call(number, &[]), 815);
            assert_eq!(SEEN[2].load(SeqCst), 2, "SYS_USER_DISPATCH");
        }
        assert_eq!(HANDLED.load(SeqCst), 2);
        assert_eq!(set(0, 0), 0);
        assert_traced();
        assert_eq!(calls_of(&tracer).len(), 1);
    });
}

// P10
#[test]
fn a_filter_from_before_is_the_programs_own_as_well() {
    alone(|| {
        trap(Sysno::getpgrp, 7);
        let tracer = trace_getppid();
        handle(libc::SIGSYS, emulate as *const () as usize, libc::SA_SIGINFO, 0);
        assert_eq!(call(Sysno::getpgrp, &[]), 815);
        assert_traced();
        assert_eq!(calls_of(&tracer).len(), 1);
    });
}

// P10
#[test]
fn rules_of_the_same_filter_keep_their_own_actions() {
    alone(|| {
        let filter = Filter::new()
            .foreign_abi(Action::Allow)
            .trap(Sysno::getppid)
            .errno(Sysno::getpgrp, asm_tracer::Errno::EXDEV)
            .rule(Sysno::getsid, [], Action::Sigsys);
        let tracer = Tracer::builder().filter(filter).hook(answer).install().unwrap();
        handle(libc::SIGSYS, emulate as *const () as usize, libc::SA_SIGINFO, 0);
        assert_traced();
        assert_eq!(call(Sysno::getpgrp, &[]), error(libc::EXDEV));
        assert_eq!(call(Sysno::getsid, &[0]), 815);
        assert_eq!(calls_of(&tracer).len(), 1);
    });
}

// P11: a filter of the caller's own keeps its default for them.
#[test]
fn calls_of_other_abis_die_where_the_filter_has_not_said_otherwise() {
    dies_of(libc::SIGSYS, || {
        let filter = asm_tracer::Filter::new().trap(Sysno::getppid);
        let _tracer = Tracer::builder().filter(filter).install().unwrap();
        // Of x32, of which every kernel knows the numbers.
        raw(0x4000_0000 | libc::SYS_getpid, [0; 6]);
    });
}

/// `getpid` of i386.
fn i386_getpid() -> i64 {
    let result: i64;
    // SAFETY: the call touches no memory.
    unsafe {
        asm!(
            "int 0x80",
            inlateout("rax") 20_i64 => result,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    result
}

/// Where there are no such calls, the instruction is a fault: goes on behind it.
extern "C" fn step_over(_: i32, _: *mut c_void, context: *mut c_void) {
    // SAFETY: the kernel passes it to a handler with SA_SIGINFO.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    registers[libc::REG_RIP as usize] += 2;
    registers[libc::REG_RAX as usize] = error(libc::ENOSYS);
}

// P11
#[test]
fn calls_of_other_abis_run_unseen() {
    alone(|| {
        handle(
            libc::SIGSEGV,
            step_over as *const () as usize,
            libc::SA_SIGINFO,
            0,
        );
        let i386_before = i386_getpid();
        if i386_before != i64::from(std::process::id()) {
            println!("this kernel has no i386 system calls");
        }
        let x32 = 0x4000_0000 | libc::SYS_getpid;
        let x32_before = raw(x32, [0; 6]);
        // The number of i386 is `writev` of x86-64.
        let builder = Tracer::builder().trap([Sysno::getpid, Sysno::writev]);
        let tracer = builder.hook(|_| Some(ANSWER)).install().unwrap();
        assert_eq!(i386_getpid(), i386_before);
        assert_eq!(raw(x32, [0; 6]), x32_before);
        assert!(calls_of(&tracer).is_empty());
        assert_eq!(call(Sysno::getpid, &[]), ANSWER);
        assert_eq!(calls_of(&tracer).len(), 1);
    });
}

// P43
#[test]
fn what_the_vdso_does_itself_is_no_call() {
    alone(|| {
        let tracer = Tracer::builder().trap(Sysno::clock_gettime).install().unwrap();
        let time = |clock| {
            let mut time = libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            // SAFETY: writes a time.
            assert_eq!(unsafe { libc::clock_gettime(clock, &raw mut time) }, 0);
            time
        };
        for _ in 0..100 {
            // The one that the vDSO has whatever the source of time is.
            time(libc::CLOCK_MONOTONIC_COARSE);
        }
        assert!(calls_of(&tracer).is_empty());
        let first = time(libc::CLOCK_THREAD_CPUTIME_ID);
        let second = time(libc::CLOCK_THREAD_CPUTIME_ID);
        assert!((first.tv_sec, first.tv_nsec) <= (second.tv_sec, second.tv_nsec));
        let calls = calls_of(&tracer);
        assert_eq!(calls.len(), 2);
        for call in calls {
            assert_eq!(call.syscall.sysno(), Some(Sysno::clock_gettime));
            assert_eq!(call.syscall.args[0], i64::from(libc::CLOCK_THREAD_CPUTIME_ID));
            assert_eq!(call.decision, Decision::Run);
        }
    });
}

/// Makes calls of all sorts with everything traced, some of them answered.
fn workload() {
    let builder = Tracer::builder()
        .filter(everything())
        .hook(answer)
        .capacity(1 << 14);
    let tracer = builder.threads(Threads::All).install().unwrap();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(|| {
                for _ in 0..20 {
                    assert_traced();
                    assert!(!std::fs::read("/proc/self/stat").unwrap().is_empty());
                    std::thread::yield_now();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(own_status("Seccomp").as_deref(), Some("2"));
    raise(libc::SIGCHLD);
    let answered = calls_of(&tracer)
        .iter()
        .filter(|call| call.decision == Decision::Returned(ANSWER))
        .count();
    assert_eq!(answered, 160);
}

// P45
#[test]
fn strace_changes_nothing() {
    if is_child() {
        return workload();
    }
    let test = "delivery::strace_changes_nothing";
    assert_passed(&output_of(&mut rerun(test)));
    let log = tempfile::NamedTempFile::new().unwrap();
    let again = rerun(test);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o"]).arg(log.path()).arg(again.get_program());
    strace.args(again.get_args());
    for (name, value) in again.get_envs() {
        strace.env(name, value.unwrap());
    }
    if Command::new("strace")
        .args(["-f", "-o", "/dev/null", "true"])
        .output()
        .is_ok_and(|o| o.status.success())
    {
        assert_passed(&output_of(&mut strace));
        let log = std::fs::read_to_string(log.path()).unwrap();
        assert!(log.contains("si_code=SYS_SECCOMP"));
    } else {
        println!("skipped: there is no strace that works here");
    }
}
