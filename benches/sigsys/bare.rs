//! The least that a handler can do: give a number, or lead the thread to a place that makes the call.

use std::sync::atomic::{AtomicU64, Ordering};

use asm_tracer::Sysno;

std::arch::global_asm!(
    ".globl bench_gate",
    "bench_gate:",
    "syscall",
    "jmp *bench_slot(%rip)",
    ".globl bench_restorer",
    "bench_restorer:",
    "mov $15, %eax",
    "syscall",
    ".pushsection .bss",
    ".globl bench_slot",
    "bench_slot: .zero 8",
    ".popsection",
    options(att_syntax)
);

unsafe extern "C" {
    fn bench_gate();
    fn bench_restorer();
    safe static bench_slot: AtomicU64;
}

type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::ucontext_t);

pub(crate) extern "C" fn synthetic(_: i32, _: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    // SAFETY: the kernel passes the context.
    unsafe { (*context).uc_mcontext.gregs[libc::REG_RAX as usize] = 42 };
}

pub(crate) extern "C" fn gate(_: i32, _: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    // SAFETY: the kernel passes the context.
    let registers = unsafe { &mut (*context).uc_mcontext.gregs };
    let gate = bench_gate as *const () as i64;
    bench_slot.store(registers[libc::REG_RIP as usize] as u64, Ordering::Relaxed);
    registers[libc::REG_RIP as usize] = gate;
    registers[libc::REG_RCX as usize] = gate;
    registers[libc::REG_R11 as usize] = registers[libc::REG_EFL as usize];
}

/// Traps `getppid`, but for the gate's.
pub(crate) fn install(handler: Handler) {
    let action: [u64; 4] = [
        handler as *const () as u64,
        (libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK) as u64 | 0x0400_0000,
        bench_restorer as *const () as u64,
        !(1 << (libc::SIGSYS - 1)),
    ];
    let place = bench_gate as *const () as u64 + 2;
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let jump = |k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: 0x15,
        jt,
        jf,
        k,
    };
    let mut filter = [
        statement(0x20, 0),
        jump(Sysno::getppid as u32, 0, 4),
        statement(0x20, 12),
        jump((place >> 32) as u32, 0, 3),
        statement(0x20, 8),
        jump(place as u32, 0, 1),
        statement(0x06, libc::SECCOMP_RET_ALLOW),
        statement(0x06, libc::SECCOMP_RET_TRAP),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: a handler of this program's, and a program that is alive.
    unsafe {
        let set = libc::syscall(libc::SYS_rt_sigaction, libc::SIGSYS, &raw const action, 0, 8);
        assert_eq!(set, 0);
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        assert_eq!(libc::syscall(libc::SYS_seccomp, mode, 0, &raw const program), 0);
    }
}
