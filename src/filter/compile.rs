//! From rules to a program: which leaf each number leads to, and a binary search over the numbers.

use std::collections::{BTreeMap, HashMap};

use syscalls::Sysno;

use super::assembler::{Assembler, Jump, Label};
use super::leaf::{self, Leaf};
use super::{Filter, Program};
use crate::error::{Error, Result};
use crate::notify::uapi::AUDIT_ARCH_X86_64;

/// Lets a child's own last calls pass: those of these numbers whose last three argument registers, which the calls
/// don't use, hold a secret that was drawn for this child.
pub(crate) struct HandOver<'a> {
    pub(crate) secret: [u64; 3],
    pub(crate) calls: &'a [Sysno],
}

/// Numbers with bit 30 are x32's; those with bit 31 as well are no calls at all.
const X32: u32 = 0x4000_0000;
const BEYOND_X32: u32 = 0x8000_0000;

/// What a number leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Destination {
    leaf: Leaf,
    /// The secret gets past it.
    exempt: bool,
}

impl Filter {
    pub(crate) fn compile(&self, hand_over: Option<&HandOver<'_>>) -> Result<Program> {
        let mut program = Assembler::default();
        let foreign = self.foreign_abi.return_value()?;
        let mut written = HashMap::new();
        let mut ranges = Vec::new();
        for (start, destination) in self.ranges(hand_over, foreign)? {
            let label = match written.get(&destination) {
                Some(label) => *label,
                None => write(&mut program, &destination, hand_over),
            };
            written.insert(destination, label);
            ranges.push((start, label));
        }
        let search = search(&mut program, &ranges);
        let number = program.load(leaf::NUMBER, search);
        let foreign = program.ret(foreign);
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
    fn ranges(&self, hand_over: Option<&HandOver<'_>>, foreign: u32) -> Result<Vec<(u32, Destination)>> {
        let plain = |value| Destination {
            leaf: Leaf::plain(value),
            exempt: false,
        };
        let default = plain(self.default.return_value()?);
        let mut ranges = vec![(0, default.clone())];
        for (number, destination) in self.destinations(hand_over)? {
            // What is at `number` already is the default that follows the number before.
            ranges.pop_if(|(start, _)| *start == number);
            ranges.push((number, destination));
            ranges.push((number + 1, default.clone()));
        }
        ranges.pop_if(|(start, _)| *start == X32);
        ranges.push((X32, plain(foreign)));
        ranges.push((BEYOND_X32, default));
        ranges.dedup_by(|later, earlier| later.1 == earlier.1);
        Ok(ranges)
    }

    /// The numbers that rules or the hand-over speak of.
    fn destinations(&self, hand_over: Option<&HandOver<'_>>) -> Result<BTreeMap<u32, Destination>> {
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
        let exempt: &[Sysno] = hand_over.map_or(&[], |hand_over| hand_over.calls);
        for call in exempt {
            rules.entry(call.id() as u32).or_default();
        }
        let allowed = Leaf::plain(libc::SECCOMP_RET_ALLOW);
        rules
            .into_iter()
            .map(|(number, rules)| {
                let mut leaf = Leaf::plain(self.default.return_value()?);
                for rule in rules {
                    let value = rule.action.return_value()?;
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
                let exempt = leaf != allowed && exempt.iter().any(|call| call.id() as u32 == number);
                Ok((number, Destination { leaf, exempt }))
            })
            .collect()
    }
}

fn write(program: &mut Assembler, destination: &Destination, hand_over: Option<&HandOver<'_>>) -> Label {
    let leaf = destination.leaf.write(program);
    match hand_over {
        Some(hand_over) if destination.exempt => {
            let allow = program.ret(libc::SECCOMP_RET_ALLOW);
            leaf::secret(program, hand_over.secret, allow, leaf)
        }
        _ => leaf,
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
