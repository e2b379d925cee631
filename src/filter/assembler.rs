//! Instructions, written from the last one to the first, so that every jump's target is known when it is written.

use std::collections::HashMap;

use super::Instruction;

/// An instruction that was written already, by its distance from the end of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Label(usize);

#[derive(Debug, Default)]
pub(super) struct Assembler {
    /// The last instruction comes first.
    reversed: Vec<Instruction>,
    /// The nearest return of each value.
    returns: HashMap<u32, Label>,
}

/// `linux/bpf_common.h` and `linux/filter.h`, as far as seccomp takes them.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const XOR: u16 = 0xa4;
const RETURN: u16 = 0x06;
const JUMP: u16 = 0x05;

/// A conditional jump; all compare as unsigned numbers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Jump {
    Equal = 0x15,
    Greater = 0x25,
    GreaterOrEqual = 0x35,
}

/// The farthest that a conditional jump reaches (T34).
const REACH: usize = 255;

impl Assembler {
    /// Ends the program with this value.
    pub(super) fn ret(&mut self, value: u32) -> Label {
        match self.returns.get(&value) {
            Some(present) => *present,
            None => {
                let label = self.push(Instruction {
                    code: RETURN,
                    jt: 0,
                    jf: 0,
                    k: value,
                });
                self.returns.insert(value, label);
                label
            }
        }
    }

    /// Loads a word of `struct seccomp_data`, and goes on at `next`.
    pub(super) fn load(&mut self, offset: u32, next: Label) -> Label {
        self.straight(LOAD, offset, next)
    }

    /// Keeps the bits of `mask`, and goes on at `next`.
    pub(super) fn and(&mut self, mask: u32, next: Label) -> Label {
        self.straight(AND, mask, next)
    }

    /// Flips the bits of `mask`, and goes on at `next`.
    pub(super) fn xor(&mut self, mask: u32, next: Label) -> Label {
        self.straight(XOR, mask, next)
    }

    /// Compares with `value`, and goes on at one of two places.
    pub(super) fn jump(&mut self, jump: Jump, value: u32, then: Label, otherwise: Label) -> Label {
        if then == otherwise {
            return then;
        }
        let then = self.within_reach(then);
        let otherwise = self.within_reach(otherwise);
        let (jt, jf) = (self.distance(then) as u8, self.distance(otherwise) as u8);
        self.push(Instruction {
            code: jump as u16,
            jt,
            jf,
            k: value,
        })
    }

    /// The program, which begins at `entry`.
    pub(super) fn finish(mut self, entry: Label) -> Vec<Instruction> {
        self.fall_into(entry);
        self.reversed.reverse();
        self.reversed
    }

    fn straight(&mut self, code: u16, k: u32, next: Label) -> Label {
        self.fall_into(next);
        self.push(Instruction {
            code,
            jt: 0,
            jf: 0,
            k,
        })
    }

    /// Makes the next instruction that is written be followed by the one at `label`.
    fn fall_into(&mut self, label: Label) {
        if self.distance(label) > 0 {
            self.hop(label);
        }
    }

    /// A place that leads to `label` and that the next instruction, or the one before it, reaches with 8 bits.
    fn within_reach(&mut self, label: Label) -> Label {
        if self.distance(label) < REACH {
            label
        } else {
            self.hop(label)
        }
    }

    /// Goes to `label` from here: by a copy if it is a return, otherwise by a jump of 32 bits.
    fn hop(&mut self, label: Label) -> Label {
        let target = self.reversed[label.0];
        if target.code == RETURN {
            let copy = self.push(target);
            self.returns.insert(target.k, copy);
            return copy;
        }
        let k = self.distance(label) as u32;
        self.push(Instruction {
            code: JUMP,
            jt: 0,
            jf: 0,
            k,
        })
    }

    /// How many instructions lie between the next one to be written and `label`.
    fn distance(&self, label: Label) -> usize {
        self.reversed.len() - label.0 - 1
    }

    fn push(&mut self, instruction: Instruction) -> Label {
        self.reversed.push(instruction);
        Label(self.reversed.len() - 1)
    }
}
