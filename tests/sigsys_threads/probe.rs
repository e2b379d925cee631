//! A system call with every register known before and after it.

use std::arch::{global_asm, is_x86_feature_detected};
use std::mem::offset_of;

use asm_tracer::Sysno;
use nix::libc;

use crate::{ANSWER, RETURN, REWRITE};

/// The registers that a call must leave alone, and `rax`. The red zone is the 128 bytes below the stack pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct General {
    rax: u64,
    /// rdi, rsi, rdx, r10, r8, r9.
    args: [u64; 6],
    /// rbx, rbp, r12, r13, r14, r15.
    saved: [u64; 6],
    flags: u64,
    red_zone: [u64; 16],
    rsp: u64,
}

/// What is more than 64 bits wide, with its controls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Extended {
    vectors: [[u64; 8]; 32],
    opmasks: [u64; 8],
    mxcsr: u32,
    x87_control: u32,
    x87_top: u64,
    pkru: u32,
    padding: u32,
}

#[repr(C)]
struct Probe {
    general: General,
    extended: Extended,
    /// Where the call is to be made: 0 for the present stack, lowered by `shift`, or another one's end.
    stack: u64,
    shift: u64,
    /// What the CPU has: 1 for XMM, 2 for YMM, 3 for ZMM registers.
    width: u64,
    keys: u64,
    own_stack: u64,
    rcx: u64,
    r11: u64,
    site: u64,
}

unsafe extern "C" {
    fn probe_call(probe: *mut Probe);
}

global_asm!(
    ".macro probe_each_vector operation, prefix, store",
    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
    ".if \\store",
    "\\operation [rcx + {vectors} + 64 * \\n], \\prefix\\n",
    ".else",
    "\\operation \\prefix\\n, [rcx + {vectors} + 64 * \\n]",
    ".endif",
    ".endr",
    ".endm",
    ".macro probe_high_vectors store",
    ".irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
    ".if \\store",
    "vmovdqu64 [rcx + {vectors} + 64 * \\n], zmm\\n",
    ".else",
    "vmovdqu64 zmm\\n, [rcx + {vectors} + 64 * \\n]",
    ".endif",
    ".endr",
    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7",
    ".if \\store",
    "kmovq [rcx + {opmasks} + 8 * \\n], k\\n",
    ".else",
    "kmovq k\\n, [rcx + {opmasks} + 8 * \\n]",
    ".endif",
    ".endr",
    ".endm",
    ".macro probe_vectors store",
    "cmp qword ptr [rcx + {width}], 2",
    "je 2f",
    "ja 3f",
    "probe_each_vector movdqu, xmm, \\store",
    "jmp 4f",
    "2: probe_each_vector vmovdqu, ymm, \\store",
    "jmp 4f",
    "3: probe_each_vector vmovdqu64, zmm, \\store",
    "probe_high_vectors \\store",
    "4:",
    ".endm",
    ".text",
    ".balign 16",
    ".globl probe_call",
    "probe_call:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov rcx, rdi",
    "mov [rcx + {own_stack}], rsp",
    "lea rax, [rip + 7f]",
    "mov [rcx + {site}], rax",
    "probe_vectors 0",
    "ldmxcsr [rcx + {mxcsr}]",
    "fldcw [rcx + {x87_control}]",
    "fild qword ptr [rcx + {x87_top}]",
    "cmp qword ptr [rcx + {keys}], 0",
    "je 5f",
    "mov r8, rcx",
    "mov eax, [rcx + {pkru}]",
    "xor ecx, ecx",
    "xor edx, edx",
    "wrpkru",
    "mov rcx, r8",
    "5:",
    "cmp qword ptr [rcx + {stack}], 0",
    "je 6f",
    "mov rsp, [rcx + {stack}]",
    "mov [rsp], rcx", // The room above the end of another stack is ours.
    "jmp 8f",
    "6: sub rsp, [rcx + {shift}]",
    "sub rsp, 16",
    "mov [rsp], rcx",
    "8: mov [rcx + {rsp}], rsp",
    "push qword ptr [rcx + {flags}]",
    "popfq",
    // No instruction from here on touches the flags, until they are saved.
    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
    "mov rax, [rcx + {red_zone} + 8 * \\n]",
    "mov [rsp - 128 + 8 * \\n], rax",
    ".endr",
    "mov rdi, [rcx + {args}]",
    "mov rsi, [rcx + {args} + 8]",
    "mov rdx, [rcx + {args} + 16]",
    "mov r10, [rcx + {args} + 24]",
    "mov r8, [rcx + {args} + 32]",
    "mov r9, [rcx + {args} + 40]",
    "mov rbx, [rcx + {saved}]",
    "mov rbp, [rcx + {saved} + 8]",
    "mov r12, [rcx + {saved} + 16]",
    "mov r13, [rcx + {saved} + 24]",
    "mov r14, [rcx + {saved} + 32]",
    "mov r15, [rcx + {saved} + 40]",
    "mov rax, [rcx + {rax}]",
    "syscall",
    "7: mov [rsp + 8], rcx",
    "mov rcx, [rsp]",
    "mov [rcx + {rax}], rax",
    "mov rax, [rsp + 8]",
    "mov [rcx + {rcx}], rax",
    "mov [rcx + {r11}], r11",
    "mov [rcx + {args}], rdi",
    "mov [rcx + {args} + 8], rsi",
    "mov [rcx + {args} + 16], rdx",
    "mov [rcx + {args} + 24], r10",
    "mov [rcx + {args} + 32], r8",
    "mov [rcx + {args} + 40], r9",
    "mov [rcx + {saved}], rbx",
    "mov [rcx + {saved} + 8], rbp",
    "mov [rcx + {saved} + 16], r12",
    "mov [rcx + {saved} + 24], r13",
    "mov [rcx + {saved} + 32], r14",
    "mov [rcx + {saved} + 40], r15",
    "mov [rcx + {rsp}], rsp",
    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
    "mov rax, [rsp - 128 + 8 * \\n]",
    "mov [rcx + {red_zone} + 8 * \\n], rax",
    ".endr",
    "pushfq",
    "pop qword ptr [rcx + {flags}]",
    "cld",
    "mov rsp, [rcx + {own_stack}]",
    "stmxcsr [rcx + {mxcsr}]",
    "fnstcw [rcx + {x87_control}]",
    "fistp qword ptr [rcx + {x87_top}]",
    "cmp qword ptr [rcx + {keys}], 0",
    "je 5f",
    "mov r8, rcx",
    "xor ecx, ecx",
    "rdpkru",
    "mov rcx, r8",
    "mov [rcx + {pkru}], eax",
    "5:",
    "probe_vectors 1",
    "cmp qword ptr [rcx + {width}], 2",
    "jb 5f",
    "vzeroupper",
    "5:",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    rax = const offset_of!(Probe, general.rax),
    args = const offset_of!(Probe, general.args),
    saved = const offset_of!(Probe, general.saved),
    flags = const offset_of!(Probe, general.flags),
    red_zone = const offset_of!(Probe, general.red_zone),
    rsp = const offset_of!(Probe, general.rsp),
    vectors = const offset_of!(Probe, extended.vectors),
    opmasks = const offset_of!(Probe, extended.opmasks),
    mxcsr = const offset_of!(Probe, extended.mxcsr),
    x87_control = const offset_of!(Probe, extended.x87_control),
    x87_top = const offset_of!(Probe, extended.x87_top),
    pkru = const offset_of!(Probe, extended.pkru),
    stack = const offset_of!(Probe, stack),
    shift = const offset_of!(Probe, shift),
    width = const offset_of!(Probe, width),
    keys = const offset_of!(Probe, keys),
    own_stack = const offset_of!(Probe, own_stack),
    rcx = const offset_of!(Probe, rcx),
    r11 = const offset_of!(Probe, r11),
    site = const offset_of!(Probe, site),
);

/// What becomes of the probe's call, which is `getppid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Through the table, as it is.
    Plain,
    /// As another one, with other arguments.
    Rewritten,
    /// The hook's result.
    Returned,
}

pub(crate) const WAYS: [Way; 3] = [Way::Plain, Way::Rewritten, Way::Returned];

/// CF, PF, AF, ZF, SF, DF, OF.
const FLAGS: u64 = 0xcd5;

/// What the CPU has. It is asked once, outside of handlers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpu {
    width: u64,
    keys: Option<u32>,
    parent: u64,
    group: u64,
}

impl Cpu {
    /// Before anything is traced.
    pub(crate) fn look() -> Self {
        let width = if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
            3
        } else if is_x86_feature_detected!("avx") {
            2
        } else {
            1
        };
        // OSPKE: the kernel has turned protection keys on.
        let has_keys = std::arch::x86_64::__cpuid_count(7, 0).ecx & 1 << 4 != 0;
        let keys = has_keys.then(|| {
            let keys: u32;
            // SAFETY: the CPU has it.
            unsafe { std::arch::asm!("rdpkru", in("ecx") 0, out("eax") keys, out("edx") _) };
            keys
        });
        // SAFETY: they ask for numbers.
        let (parent, group) = unsafe { (libc::getppid() as u64, libc::getpgrp() as u64) };
        Self {
            width,
            keys,
            parent,
            group,
        }
    }

    /// Makes a call with registers made from `seed`; says what came out wrong.
    ///
    /// It may be used in signal handlers, as long as nothing is wrong.
    pub(crate) fn call(&self, way: Way, seed: u64) -> Result<(), String> {
        self.call_on(way, seed, 0)
    }

    /// The same on the stack with this end, above which there are 16 bytes; 0 for the present one.
    pub(crate) fn call_on(&self, way: Way, seed: u64, stack: u64) -> Result<(), String> {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let mut args = std::array::from_fn(|_| next());
        args[5] = match way {
            Way::Plain => next() | 1,
            Way::Rewritten => REWRITE,
            Way::Returned => RETURN,
        };
        let general = General {
            rax: Sysno::getppid.id() as u64,
            args,
            saved: std::array::from_fn(|_| next()),
            flags: next() & FLAGS | 0x202,
            red_zone: std::array::from_fn(|_| next()),
            rsp: 0,
        };
        // What the CPU does not have stays as it is.
        let extended = Extended {
            vectors: std::array::from_fn(|_| std::array::from_fn(|_| next())),
            opmasks: std::array::from_fn(|_| next()),
            // Everything masked; rounding and flushing as it comes.
            mxcsr: 0x1f80 | next() as u32 & 0xe000,
            x87_control: 0x037f | next() as u32 & 0x0c00,
            x87_top: next() >> 2,
            // Nothing has the key 1.
            pkru: self.keys.map_or(0, |keys| keys | (next() as u32 & 3) << 2),
            padding: 0,
        };
        let mut probe = Probe {
            general,
            extended,
            stack,
            shift: next() % 32 * 8,
            width: self.width,
            keys: self.keys.is_some().into(),
            own_stack: 0,
            rcx: 0,
            r11: 0,
            site: 0,
        };
        // SAFETY: it leaves alone what it does not save, and makes a call that asks for a number.
        unsafe { probe_call(&raw mut probe) };
        // SAFETY: these are what Rust expects, as is the key.
        unsafe {
            let (control, status) = (0x037f_u16, 0x1f80_u32);
            std::arch::asm!("fldcw [{}]", "ldmxcsr [{}]", in(reg) &control, in(reg) &status);
            if let Some(keys) = self.keys {
                std::arch::asm!("wrpkru", in("eax") keys, in("ecx") 0, in("edx") 0);
            }
        }
        let result = match way {
            Way::Plain => self.parent,
            Way::Rewritten => self.group,
            Way::Returned => ANSWER,
        };
        let expected = General {
            rax: result,
            flags: general.flags,
            rsp: probe.general.rsp,
            ..general
        };
        // One who steps through it sees TF.
        probe.general.flags &= !0x100;
        probe.r11 &= !0x100;
        if probe.general != expected {
            return Err(format!(
                "{way:?}, {seed}: {:#x?} instead of {expected:#x?}",
                probe.general
            ));
        }
        if probe.r11 != general.flags {
            return Err(format!("{way:?}, {seed}: r11 is {:#x}", probe.r11));
        }
        // From the table it is where the call was made after all, as `rcx` is nobody's after a call.
        if way != Way::Plain && probe.rcx != probe.site {
            return Err(format!("{way:?}, {seed}: rcx is {:#x}", probe.rcx));
        }
        if probe.extended != extended {
            return Err(format!(
                "{way:?}, {seed}: {:#x?} instead of {extended:#x?}",
                probe.extended
            ));
        }
        Ok(())
    }
}
