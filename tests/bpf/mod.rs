//! The kernel's side of a filter: its checks of a program, and the machine that runs it.
//!
//! Written from `linux/bpf_common.h`, `linux/seccomp.h` and `seccomp(2)`, independently of the compiler.
#![allow(dead_code)] // Each user uses a part of it.

pub(crate) mod spec;

use super::Instruction;

pub(crate) const X86_64: u32 = 0xc000_003e;
pub(crate) const I386: u32 = 0x4000_0003;
pub(crate) const AARCH64: u32 = 0xc000_00b7;

pub(crate) const KILL_PROCESS: u32 = 0x8000_0000;
pub(crate) const ERRNO: u32 = 0x0005_0000;
pub(crate) const USER_NOTIF: u32 = 0x7fc0_0000;
pub(crate) const LOG: u32 = 0x7ffc_0000;
pub(crate) const ALLOW: u32 = 0x7fff_0000;

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const XOR: u16 = 0xa4;
const RETURN: u16 = 0x06;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;

/// A system call as a filter sees it (`struct seccomp_data`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) nr: u32,
    pub(crate) arch: u32,
    pub(crate) instruction_pointer: u64,
    pub(crate) args: [u64; 6],
}

impl Call {
    pub(crate) fn new(nr: u32, args: [u64; 6]) -> Self {
        Self {
            nr,
            arch: X86_64,
            instruction_pointer: 0x7fff_1234_5678,
            args,
        }
    }

    fn word(&self, offset: u32) -> u32 {
        let half = |value: u64, offset: u32| (value >> (8 * (offset % 8))) as u32;
        match offset {
            0 => self.nr,
            4 => self.arch,
            8 | 12 => half(self.instruction_pointer, offset),
            _ => half(self.args[(offset as usize - 16) / 8], offset),
        }
    }
}

/// What a program did.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) value: u32,
    /// The offsets in `struct seccomp_data` that it looked at, in this order.
    pub(crate) loaded: Vec<u32>,
    pub(crate) steps: usize,
}

/// Checks a program as the kernel does before it takes one.
pub(crate) fn check(program: &[Instruction]) {
    assert!((1..=4096).contains(&program.len()), "{}", program.len());
    for (pc, instruction) in program.iter().enumerate() {
        let room = program.len() - pc - 1;
        let fits = match instruction.code {
            LOAD => instruction.k < 64 && instruction.k.is_multiple_of(4),
            JUMP => (instruction.k as usize) < room,
            JUMP_EQUAL | JUMP_GREATER | JUMP_GREATER_OR_EQUAL => {
                usize::from(instruction.jt) < room && usize::from(instruction.jf) < room
            }
            AND | XOR | RETURN => true,
            _ => false,
        };
        assert!(fits, "{pc}: {instruction:x?} of {}", program.len());
    }
    let last = program[program.len() - 1];
    assert_eq!(last.code, RETURN, "{last:x?}");
}

/// Runs a program that was checked.
pub(crate) fn run(program: &[Instruction], call: &Call) -> Run {
    let (mut pc, mut accumulator, mut loaded) = (0, None, Vec::new());
    for steps in 1.. {
        let Instruction { code, jt, jf, k } = program[pc];
        let value = || accumulator.expect("nothing was loaded");
        let branch = |holds| usize::from(if holds { jt } else { jf });
        pc += 1;
        match code {
            LOAD => {
                loaded.push(k);
                accumulator = Some(call.word(k));
            }
            AND => accumulator = Some(value() & k),
            XOR => accumulator = Some(value() ^ k),
            JUMP => pc += k as usize,
            JUMP_EQUAL => pc += branch(value() == k),
            JUMP_GREATER => pc += branch(value() > k),
            JUMP_GREATER_OR_EQUAL => pc += branch(value() >= k),
            RETURN => {
                return Run {
                    value: k,
                    loaded,
                    steps,
                };
            }
            _ => unreachable!("{code:#x} was checked"),
        }
    }
    unreachable!("every jump goes forward")
}

/// Whether the kernel remembers that this number is allowed, and doesn't run the program for it (since Linux 5.11).
///
/// It follows the program when it is installed, and gives up where the outcome may depend on more than the number.
pub(crate) fn is_remembered(program: &[Instruction], nr: u32) -> bool {
    let (mut pc, mut accumulator) = (0, 0);
    loop {
        let Instruction { code, jt, jf, k } = program[pc];
        let branch = |holds| usize::from(if holds { jt } else { jf });
        pc += 1;
        match (code, k) {
            (LOAD, 0) => accumulator = nr,
            (LOAD, 4) => accumulator = X86_64,
            (AND, _) => accumulator &= k,
            (JUMP, _) => pc += k as usize,
            (JUMP_EQUAL, _) => pc += branch(accumulator == k),
            (JUMP_GREATER, _) => pc += branch(accumulator > k),
            (JUMP_GREATER_OR_EQUAL, _) => pc += branch(accumulator >= k),
            (RETURN, _) => return k == ALLOW,
            _ => return false,
        }
    }
}
