//! From rules to a program: which leaf each number leads to, and a binary search over the numbers.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;

use syscalls::Sysno;

use super::assembler::{Assembler, Jump, Label};
use super::leaf::{self, Leaf};
use super::{Action, Filter, Program};
use crate::error::{Error, Result};
use crate::notify::uapi::AUDIT_ARCH_X86_64;

/// What a filter is compiled for, beyond its rules.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose<'a> {
    Rules,
    /// A child that is to start under it.
    Start(&'a HandOver<'a>),
    /// This process itself, which handles the `SIGSYS` of its own calls.
    Handler(&'a Handler<'a>),
}

/// Lets a child's own last calls pass: those of these numbers whose last three argument registers, which the calls
/// don't use, hold a secret that was drawn for this child.
#[derive(Debug)]
pub(crate) struct HandOver<'a> {
    pub(crate) secret: [u64; 3],
    pub(crate) calls: &'a [Sysno],
}

/// What a process that handles the `SIGSYS` of its own calls needs to get through. Its trapped calls raise that signal.
#[derive(Debug)]
pub(crate) struct Handler<'a> {
    /// Where calls are let through: the handler makes them there. The addresses are those after the instructions, and
    /// each range has the same upper half throughout.
    pub(crate) places: &'a [RangeInclusive<u64>],
    /// Calls that never raise it.
    pub(crate) allowed: &'a [Sysno],
    /// Calls that raise it whether they are trapped or allowed.
    pub(crate) always: &'a [Sysno],
    /// Numbers of i386 that don't exist for this process, where calls of i386 are allowed.
    pub(crate) refused_i386: &'a [u32],
    /// What the handler finds in `si_errno` for a call that is trapped, and for one that raises it in any case.
    pub(crate) data: [u16; 2],
}

impl Purpose<'_> {
    /// What a program returns for an action.
    fn value(self, action: Action) -> Result<u32> {
        match (self, action) {
            (Self::Handler(handler), Action::Trap) => Ok(libc::SECCOMP_RET_TRAP | u32::from(handler.data[0])),
            _ => action.return_value(),
        }
    }

    /// The numbers that it speaks of itself.
    fn calls(self) -> impl Iterator<Item = u32> {
        let (first, second): (&[Sysno], &[Sysno]) = match self {
            Self::Rules => (&[], &[]),
            Self::Start(hand_over) => (hand_over.calls, &[]),
            Self::Handler(handler) => (handler.allowed, handler.always),
        };
        let calls: Vec<_> = first.iter().chain(second).map(|call| call.id() as u32).collect();
        calls.into_iter()
    }

    /// What comes of the rules for a number, and whether there is a way past it.
    fn destination(self, number: u32, mut leaf: Leaf) -> Destination {
        let allowed = Leaf::plain(libc::SECCOMP_RET_ALLOW);
        let among = |calls: &[Sysno]| calls.iter().any(|call| call.id() as u32 == number);
        match self {
            Self::Rules => Destination { leaf, exempt: false },
            Self::Start(hand_over) => Destination {
                exempt: leaf != allowed && among(hand_over.calls),
                leaf,
            },
            Self::Handler(handler) if among(handler.allowed) => Destination {
                leaf: allowed,
                exempt: false,
            },
            Self::Handler(handler) => {
                if among(handler.always) {
                    // One that is logged would run just as well.
                    for runs in [libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_LOG] {
                        leaf.replace(runs, libc::SECCOMP_RET_TRAP | u32::from(handler.data[1]));
                    }
                }
                // The handler is to get through whatever the rules say of its calls: it returns by one.
                Destination {
                    exempt: leaf != allowed,
                    leaf,
                }
            }
        }
    }

    /// Writes what happens to calls of i386.
    fn write_foreign(self, program: &mut Assembler, value: u32) -> Label {
        let leaf = program.ret(value);
        let Self::Handler(handler) = self else {
            return leaf;
        };
        // A handler can't answer them, and some would keep it from ever being called again.
        let refused = program.ret(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
        let numbers = handler
            .refused_i386
            .iter()
            .filter(|_| value == libc::SECCOMP_RET_ALLOW);
        let chain = numbers.fold(leaf, |next, number| {
            program.jump(Jump::Equal, *number, refused, next)
        });
        match chain == leaf {
            true => leaf,
            false => program.load(leaf::NUMBER, chain),
        }
    }

    /// Writes a way past a leaf.
    fn write_exemption(self, program: &mut Assembler, leaf: Label) -> Label {
        let allow = program.ret(libc::SECCOMP_RET_ALLOW);
        match self {
            Self::Rules => leaf,
            Self::Start(hand_over) => leaf::secret(program, hand_over.secret, allow, leaf),
            Self::Handler(handler) => handler.places.iter().fold(leaf, |next, place| {
                leaf::instruction_pointer(program, place, allow, next)
            }),
        }
    }
}

/// Numbers with bit 30 are x32's; those with bit 31 as well are no calls at all.
const X32: u32 = 0x4000_0000;
const BEYOND_X32: u32 = 0x8000_0000;

/// What a number leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Destination {
    leaf: Leaf,
    /// There is a way past it.
    exempt: bool,
}

impl Filter {
    pub(crate) fn compile(&self, purpose: Purpose<'_>) -> Result<Program> {
        let mut program = Assembler::default();
        let foreign = purpose.value(self.foreign_abi)?;
        let mut written = HashMap::new();
        let mut ranges = Vec::new();
        for (start, destination) in self.ranges(purpose, foreign)? {
            let label = match written.get(&destination) {
                Some(label) => *label,
                None => {
                    let leaf = destination.leaf.write(&mut program);
                    match destination.exempt {
                        true => purpose.write_exemption(&mut program, leaf),
                        false => leaf,
                    }
                }
            };
            written.insert(destination, label);
            ranges.push((start, label));
        }
        let search = search(&mut program, &ranges);
        let number = program.load(leaf::NUMBER, search);
        let foreign = purpose.write_foreign(&mut program, foreign);
        let arch = program.jump(Jump::Equal, AUDIT_ARCH_X86_64, number, foreign);
        let entry = program.load(leaf::ARCH, arch);
        let instructions = program.finish(entry);
        if instructions.len() > Program::LIMIT {
            return Err(Error::FilterTooLarge {
                instructions: instructions.len(),
                limit: Program::LIMIT,
            });
        }
        Ok(Program::new(instructions))
    }

    /// The first number of each range of numbers that lead to the same place, and that place.
    fn ranges(&self, purpose: Purpose<'_>, foreign: u32) -> Result<Vec<(u32, Destination)>> {
        // No call has the greatest number, so that it stands for those that nothing is said of.
        let default = purpose.destination(u32::MAX, Leaf::plain(purpose.value(self.default)?));
        let foreign = Destination {
            leaf: Leaf::plain(foreign),
            exempt: false,
        };
        let mut ranges = vec![(0, default.clone())];
        for (number, destination) in self.destinations(purpose)? {
            // What is at `number` already is the default that follows the number before.
            ranges.pop_if(|(start, _)| *start == number);
            ranges.push((number, destination));
            ranges.push((number + 1, default.clone()));
        }
        ranges.pop_if(|(start, _)| *start == X32);
        ranges.push((X32, foreign));
        ranges.push((BEYOND_X32, default));
        ranges.dedup_by(|later, earlier| later.1 == earlier.1);
        Ok(ranges)
    }

    /// The numbers that rules or the purpose speak of.
    fn destinations(&self, purpose: Purpose<'_>) -> Result<BTreeMap<u32, Destination>> {
        let mut rules: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for rule in &self.rules {
            let number = u32::try_from(rule.number).ok().filter(|number| *number < X32).ok_or_else(|| {
                Error::InvalidFilter(format!(
                    "{} is not the number of an x86-64 system call; `foreign_abi` decides on those of other ABIs",
                    rule.number
                ))
            })?;
            for condition in &rule.conditions {
                condition.check()?;
            }
            // Also where an earlier rule hides it.
            rule.action.return_value()?;
            rules.entry(number).or_default().push(rule);
        }
        for number in purpose.calls() {
            rules.entry(number).or_default();
        }
        rules
            .into_iter()
            .map(|(number, rules)| {
                let mut leaf = Leaf::plain(purpose.value(self.default)?);
                for rule in rules {
                    let value = purpose.value(rule.action)?;
                    if rule.conditions.is_empty() {
                        leaf.otherwise = value;
                        break;
                    }
                    // A rule that repeats an earlier one's conditions can't be reached.
                    if !leaf
                        .cases
                        .iter()
                        .any(|(conditions, _)| *conditions == rule.conditions)
                    {
                        leaf.cases.push((rule.conditions.clone(), value));
                    }
                }
                // Cases that do what happens anyway.
                while leaf.cases.pop_if(|(_, value)| *value == leaf.otherwise).is_some() {}
                Ok((number, purpose.destination(number, leaf)))
            })
            .collect()
    }
}

/// Finds the range that a number is in: the last one that begins at or before it.
fn search(program: &mut Assembler, ranges: &[(u32, Label)]) -> Label {
    match ranges {
        [(_, only)] => *only,
        _ => {
            let middle = ranges.len() / 2;
            let upper = search(program, &ranges[middle..]);
            let lower = search(program, &ranges[..middle]);
            program.jump(Jump::GreaterOrEqual, ranges[middle].0, upper, lower)
        }
    }
}
