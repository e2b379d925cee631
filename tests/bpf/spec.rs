//! What a filter is to do, said a second time and as plainly as possible; and random filters and calls.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::{Action, Condition, Errno, Filter, arg, int_arg};
use super::{AARCH64, ALLOW, Call, ERRNO, I386, KILL_PROCESS, LOG, USER_NOTIF, X86_64};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Test {
    Equal,
    NotEqual,
    Less,
    GreaterOrEqual,
    Masked,
}

/// A condition on one argument.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clause {
    pub(crate) index: usize,
    pub(crate) int: bool,
    pub(crate) test: Test,
    pub(crate) constant: u64,
    pub(crate) mask: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) number: u32,
    pub(crate) clauses: Vec<Clause>,
    pub(crate) action: Action,
}

/// A filter as plain data.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) rules: Vec<Rule>,
    pub(crate) default: Action,
    pub(crate) foreign_abi: Action,
}

impl Clause {
    fn holds(&self, args: &[u64; 6]) -> bool {
        let register = args[self.index];
        if self.int {
            let (value, constant, mask) = (register as i32, self.constant as i32, self.mask as i32);
            self.test.holds(value, constant, value & mask, constant & mask)
        } else {
            let (constant, mask) = (self.constant, self.mask);
            self.test
                .holds(register, constant, register & mask, constant & mask)
        }
    }

    fn condition(&self) -> Condition {
        macro_rules! condition {
            ($argument:expr, $constant:expr, $mask:expr) => {
                match self.test {
                    Test::Equal => $argument.eq($constant),
                    Test::NotEqual => $argument.ne($constant),
                    Test::Less => $argument.lt($constant),
                    Test::GreaterOrEqual => $argument.ge($constant),
                    Test::Masked => $argument.masked_eq($mask, $constant & $mask),
                }
            };
        }
        match self.int {
            true => condition!(int_arg(self.index), self.constant as i32, self.mask as i32),
            false => condition!(arg(self.index), self.constant, self.mask),
        }
    }
}

impl Test {
    fn holds<T: Ord>(self, value: T, constant: T, masked: T, wanted: T) -> bool {
        match self {
            Self::Equal => value == constant,
            Self::NotEqual => value != constant,
            Self::Less => value < constant,
            Self::GreaterOrEqual => value >= constant,
            Self::Masked => masked == wanted,
        }
    }
}

impl Spec {
    pub(crate) fn filter(&self) -> Filter {
        let filter = Filter::new()
            .otherwise(self.default)
            .foreign_abi(self.foreign_abi);
        self.rules.iter().fold(filter, |filter, rule| {
            let conditions = rule.clauses.iter().map(Clause::condition);
            filter.rule(i64::from(rule.number), conditions, rule.action)
        })
    }

    /// The first rule whose number and conditions fit decides.
    pub(crate) fn decide(&self, call: &Call) -> Action {
        if call.arch != X86_64 || (0x4000_0000..=0x7fff_ffff).contains(&call.nr) {
            return self.foreign_abi;
        }
        let fits = |rule: &&Rule| {
            rule.number == call.nr && rule.clauses.iter().all(|clause| clause.holds(&call.args))
        };
        self.rules
            .iter()
            .find(fits)
            .map_or(self.default, |rule| rule.action)
    }

    /// Whether calls of this number are allowed whatever their arguments are, and plainly so.
    pub(crate) fn always_allows(&self, number: u32) -> bool {
        let rules = self.rules.iter().filter(|rule| rule.number == number);
        for rule in rules {
            if rule.action != Action::Allow {
                return false;
            }
            if rule.clauses.is_empty() {
                return true;
            }
        }
        self.default == Action::Allow
    }
}

/// What a program returns for an action (`linux/seccomp.h`).
pub(crate) fn return_value(action: Action) -> u32 {
    match action {
        Action::Allow => ALLOW,
        Action::Log => LOG,
        Action::Trap => USER_NOTIF,
        Action::Errno(errno) => ERRNO + errno as u32,
        Action::Kill => KILL_PROCESS,
        #[allow(unreachable_patterns)] // Within the crate there is no other.
        other => unreachable!("{other:?} is new"),
    }
}

/// Numbers of any call that x86-64 could have.
pub(crate) fn numbers() -> impl Strategy<Value = u32> + Clone {
    prop_oneof![
        4 => 0..12_u32,
        4 => 0..600_u32,
        1 => 0..0x4000_0000_u32,
        1 => select(vec![0, 334, 335, 424, 1000, 0x3fff_fffe, 0x3fff_ffff]),
    ]
}

pub(crate) fn actions() -> impl Strategy<Value = Action> + Clone {
    let errno = select(vec![Errno::EPERM, Errno::ENOENT, Errno::EACCES, Errno::EHWPOISON]);
    prop_oneof![
        Just(Action::Allow),
        Just(Action::Log),
        Just(Action::Trap),
        Just(Action::Kill),
        errno.prop_map(Action::Errno),
    ]
}

fn constants() -> impl Strategy<Value = u64> + Clone {
    let half = || {
        prop_oneof![
            select(vec![0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff]),
            0..8_u32,
            any::<u32>()
        ]
    };
    (half(), half()).prop_map(|(high, low)| u64::from(high) << 32 | u64::from(low))
}

fn clauses() -> impl Strategy<Value = Clause> + Clone {
    let tests = select(vec![
        Test::Equal,
        Test::NotEqual,
        Test::Less,
        Test::GreaterOrEqual,
        Test::Masked,
    ]);
    (0..6_usize, any::<bool>(), tests, constants(), constants()).prop_map(
        |(index, int, test, constant, mask)| Clause {
            index,
            int,
            test,
            constant,
            mask,
        },
    )
}

/// Random filters: most are short and have many conditions, some are so long that jumps don't reach.
pub(crate) fn specs(
    numbers: impl Strategy<Value = u32> + Clone + 'static,
    actions: impl Strategy<Value = Action> + Clone + 'static,
) -> impl Strategy<Value = Spec> {
    let rules = |clause_counts: BoxedStrategy<Vec<Clause>>| {
        (numbers.clone(), clause_counts, actions.clone()).prop_map(|(number, clauses, action)| Rule {
            number,
            clauses,
            action,
        })
    };
    let short = prop::collection::vec(rules(prop::collection::vec(clauses(), 0..=4).boxed()), 0..40);
    let few = prop_oneof![9 => Just(Vec::new()), 1 => prop::collection::vec(clauses(), 1..=3)];
    let long = prop::collection::vec(rules(few.boxed()), 500..800);
    (prop_oneof![5 => short, 1 => long], actions.clone(), actions).prop_map(
        |(rules, default, foreign_abi)| Spec {
            rules,
            default,
            foreign_abi,
        },
    )
}

/// How a call differs from what a rule asks for.
#[derive(Debug, Clone, Copy)]
enum Twist {
    Exact,
    Above,
    Below,
    OneBit(u32),
    OtherUpperHalf,
    SignExtended,
    OtherLowerHalf,
    Unrelated,
}

/// A call that is near to a rule of whatever filter it is aimed at.
#[derive(Debug, Clone)]
pub(crate) struct Aim {
    rule: Index,
    number: (u32, u32),
    arch: u32,
    twists: [Twist; 6],
    noise: [u64; 6],
}

pub(crate) fn aims() -> impl Strategy<Value = Aim> + Clone {
    let twists = prop_oneof![
        6 => Just(Twist::Exact),
        1 => Just(Twist::Above),
        1 => Just(Twist::Below),
        1 => (0..64_u32).prop_map(Twist::OneBit),
        1 => Just(Twist::OtherUpperHalf),
        1 => Just(Twist::SignExtended),
        1 => Just(Twist::OtherLowerHalf),
        1 => Just(Twist::Unrelated),
    ];
    // Added, then flipped.
    let numbers = prop_oneof![
        12 => Just((0, 0)),
        1 => select(vec![1, u32::MAX]).prop_map(|by| (by, 0)),
        2 => select(vec![0x4000_0000, 0x8000_0000, 0xc000_0000, 0xffff_ffff]).prop_map(|bits| (0, bits)),
        1 => any::<(u32, u32)>(),
    ];
    (
        any::<Index>(),
        numbers,
        prop_oneof![8 => Just(X86_64), 1 => Just(I386), 1 => Just(AARCH64)],
        prop::array::uniform6(twists),
        prop::array::uniform6(constants()),
    )
        .prop_map(|(rule, number, arch, twists, noise)| Aim {
            rule,
            number,
            arch,
            twists,
            noise,
        })
}

impl Aim {
    pub(crate) fn at(&self, spec: &Spec) -> Call {
        let mut call = Call::new(self.number.0 ^ self.number.1, self.noise);
        if !spec.rules.is_empty() {
            let rule = self.rule.get(&spec.rules);
            call.nr = rule.number.wrapping_add(self.number.0) ^ self.number.1;
            for clause in &rule.clauses {
                call.args[clause.index] = self.near(clause);
            }
        }
        call.arch = self.arch;
        call
    }

    fn near(&self, clause: &Clause) -> u64 {
        const UPPER: u64 = 0xffff_ffff_0000_0000;
        let noise = self.noise[clause.index];
        let exact = match clause.test {
            Test::Masked => clause.constant & clause.mask | noise & !clause.mask,
            _ => clause.constant,
        };
        match self.twists[clause.index] {
            Twist::Exact => exact,
            Twist::Above => exact.wrapping_add(1),
            Twist::Below => exact.wrapping_sub(1),
            Twist::OneBit(bit) => exact ^ 1 << bit,
            Twist::OtherUpperHalf => exact & !UPPER | noise & UPPER,
            Twist::SignExtended => i64::from(exact as i32) as u64,
            Twist::OtherLowerHalf => exact & UPPER | noise & !UPPER,
            Twist::Unrelated => noise,
        }
    }
}
