//! What a number leads to: the rules that speak of it, as instructions.

use std::ops::RangeInclusive;

use super::assembler::{Assembler, Jump, Label};
use super::condition::{Condition, Test};

/// Offsets in `struct seccomp_data`.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCH: u32 = 4;
const INSTRUCTION_POINTER: u32 = 8;
const ARGS: u32 = 16;

/// The rules for one number, up to the first without conditions, which is the return value at the end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Leaf {
    pub(super) cases: Vec<(Vec<Condition>, u32)>,
    pub(super) otherwise: u32,
}

impl Leaf {
    /// A leaf that decides without a look at the arguments.
    pub(super) fn plain(value: u32) -> Self {
        Self {
            cases: Vec::new(),
            otherwise: value,
        }
    }

    /// Has it return another value wherever it returns this one.
    pub(super) fn replace(&mut self, value: u32, by: u32) {
        let cases = self.cases.iter_mut().map(|(_, returned)| returned);
        for returned in cases.chain([&mut self.otherwise]) {
            if *returned == value {
                *returned = by;
            }
        }
    }

    pub(super) fn write(&self, program: &mut Assembler) -> Label {
        let mut next = program.ret(self.otherwise);
        for (conditions, value) in self.cases.iter().rev() {
            let mut holds = program.ret(*value);
            for condition in conditions.iter().rev() {
                holds = test(program, condition, holds, next);
            }
            next = holds;
        }
        next
    }
}

/// Goes to `then` if all three of the last argument registers are what they should be, otherwise to `otherwise`.
pub(super) fn secret(program: &mut Assembler, secret: [u64; 3], then: Label, otherwise: Label) -> Label {
    let registers = secret.into_iter().zip([3, 4, 5]).rev();
    registers.fold(then, |then, (value, index)| {
        test(
            program,
            &Condition {
                index,
                wide: true,
                test: Test::Equal(value),
            },
            then,
            otherwise,
        )
    })
}

/// Goes to `then` if the call was made within these addresses, which have one upper half, otherwise to `otherwise`.
pub(super) fn instruction_pointer(
    program: &mut Assembler,
    range: &RangeInclusive<u64>,
    then: Label,
    otherwise: Label,
) -> Label {
    let (first, last) = (*range.start(), *range.end());
    let below = program.jump(Jump::Greater, last as u32, otherwise, then);
    let within = compare(
        program,
        Jump::GreaterOrEqual,
        INSTRUCTION_POINTER,
        first as u32,
        below,
        otherwise,
    );
    let upper = INSTRUCTION_POINTER + 4;
    compare(
        program,
        Jump::Equal,
        upper,
        (first >> 32) as u32,
        within,
        otherwise,
    )
}

fn test(program: &mut Assembler, condition: &Condition, then: Label, otherwise: Label) -> Label {
    let lower = ARGS + 8 * condition.index as u32;
    match condition.wide {
        true => wide(program, condition.test, lower, then, otherwise),
        false => narrow(program, condition.test, lower, then, otherwise),
    }
}

/// Both halves: the upper one decides unless it is equal (T35).
fn wide(program: &mut Assembler, test: Test, lower: u32, then: Label, otherwise: Label) -> Label {
    let upper = lower + 4;
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    match test {
        Test::Equal(value) => {
            let (high, low) = halves(value);
            let rest = compare(program, Jump::Equal, lower, low, then, otherwise);
            compare(program, Jump::Equal, upper, high, rest, otherwise)
        }
        Test::NotEqual(value) => wide(program, Test::Equal(value), lower, otherwise, then),
        Test::GreaterOrEqual(value) => {
            let (high, low) = halves(value);
            let rest = compare(program, Jump::GreaterOrEqual, lower, low, then, otherwise);
            let equal = program.jump(Jump::Equal, high, rest, otherwise);
            compare(program, Jump::Greater, upper, high, then, equal)
        }
        Test::Less(value) => wide(program, Test::GreaterOrEqual(value), lower, otherwise, then),
        Test::Masked { mask, value } => {
            let ((high_mask, low_mask), (high, low)) = (halves(mask), halves(value));
            let rest = masked(program, lower, low_mask, low, then, otherwise);
            masked(program, upper, high_mask, high, rest, otherwise)
        }
    }
}

/// The lower half as a signed number: with the sign bit flipped, signed order becomes unsigned order.
fn narrow(program: &mut Assembler, test: Test, lower: u32, then: Label, otherwise: Label) -> Label {
    const SIGN: u32 = 1 << 31;
    match test {
        Test::Equal(value) => compare(program, Jump::Equal, lower, value as u32, then, otherwise),
        Test::NotEqual(value) => compare(program, Jump::Equal, lower, value as u32, otherwise, then),
        Test::GreaterOrEqual(value) => {
            let jump = program.jump(Jump::GreaterOrEqual, value as u32 ^ SIGN, then, otherwise);
            let flip = program.xor(SIGN, jump);
            program.load(lower, flip)
        }
        Test::Less(value) => narrow(program, Test::GreaterOrEqual(value), lower, otherwise, then),
        Test::Masked { mask, value } => masked(program, lower, mask as u32, value as u32, then, otherwise),
    }
}

fn compare(
    program: &mut Assembler,
    jump: Jump,
    offset: u32,
    value: u32,
    then: Label,
    otherwise: Label,
) -> Label {
    let jump = program.jump(jump, value, then, otherwise);
    program.load(offset, jump)
}

fn masked(
    program: &mut Assembler,
    offset: u32,
    mask: u32,
    value: u32,
    then: Label,
    otherwise: Label,
) -> Label {
    let jump = program.jump(Jump::Equal, value, then, otherwise);
    let and = program.and(mask, jump);
    program.load(offset, and)
}
