use std::ops::Deref;

/// One instruction of classic BPF (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Instruction {
    /// The operation (`linux/bpf_common.h`).
    pub code: u16,
    /// How many instructions a conditional jump skips if its condition holds.
    pub jt: u8,
    /// How many it skips if not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

const _: () = assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>());

/// A compiled filter: a slice of [`Instruction`]s, as `seccomp(2)` takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    instructions: Vec<Instruction>,
}

impl Program {
    /// The most instructions that the kernel takes (`BPF_MAXINSNS`).
    pub const LIMIT: usize = 4096;

    pub(super) fn new(instructions: Vec<Instruction>) -> Self {
        Self { instructions }
    }

    /// Forgets the operands, of which some may be secret.
    pub(crate) fn wipe(&mut self) {
        for instruction in &mut self.instructions {
            instruction.k = 0;
        }
        std::hint::black_box(&self.instructions);
    }

    /// The program as the kernel takes it. It leads into `self` and is only good for reading.
    pub(crate) fn as_sock_fprog(&self) -> libc::sock_fprog {
        let filter = self.instructions.as_ptr().cast::<libc::sock_filter>().cast_mut();
        libc::sock_fprog {
            len: self.instructions.len() as u16,
            filter,
        }
    }
}

impl Deref for Program {
    type Target = [Instruction];

    fn deref(&self) -> &[Instruction] {
        &self.instructions
    }
}
