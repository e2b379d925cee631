//! The program that a filter compiles to, run by an interpreter of our own.

mod bpf;

use asm_tracer::filter::{Condition, Instruction, Program, arg, int_arg};
use asm_tracer::{Action, Errno, Error, Filter, Sysno};
use bpf::spec::{Aim, Spec, actions, aims, numbers, return_value, specs};
use bpf::{AARCH64, ALLOW, Call, ERRNO, I386, KILL_PROCESS, USER_NOTIF};
use proptest::prelude::*;

const X32: u32 = 0x4000_0000;

fn checked(filter: &Filter) -> Program {
    let program = filter.program().unwrap();
    bpf::check(&program);
    program
}

/// What the program says to a call of this number with these arguments.
fn value(program: &Program, nr: u32, args: [u64; 6]) -> u32 {
    bpf::run(program, &Call::new(nr, args)).value
}

fn number(sysno: Sysno) -> u32 {
    sysno.id() as u32
}

/// The rules as data, for those that have a program.
fn compile(spec: &Spec) -> Option<Program> {
    match spec.filter().program() {
        Ok(program) => {
            bpf::check(&program);
            Some(program)
        }
        Err(Error::FilterTooLarge {
            instructions,
            limit: 4096,
        }) if instructions > 4096 => None,
        Err(error) => panic!("{error}"),
    }
}

fn random() -> impl Strategy<Value = (Spec, Vec<Aim>)> {
    (specs(numbers(), actions()), prop::collection::vec(aims(), 1..60))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    // T32, T33, T34, T35
    #[test]
    fn the_first_rule_that_fits_decides((spec, aims) in random()) {
        let Some(program) = compile(&spec) else { return Ok(()) };
        for aim in &aims {
            let call = aim.at(&spec);
            let run = bpf::run(&program, &call);
            prop_assert_eq!(run.value, return_value(spec.decide(&call)), "{:x?}", call);
            // First of all which ABI, then which number; never where from.
            prop_assert_eq!(run.loaded[0], 4);
            if let Some(next) = run.loaded.get(1) {
                prop_assert_eq!(*next, 0);
            }
            prop_assert!(run.loaded.iter().skip(2).all(|offset| *offset >= 16), "{:?}", run.loaded);
        }
    }

    // T36
    #[test]
    fn the_kernel_can_remember_every_allowed_number(spec in specs(numbers(), actions())) {
        let Some(program) = compile(&spec) else { return Ok(()) };
        let spoken_of = spec.rules.iter().map(|rule| rule.number);
        for nr in spoken_of.chain(0..500) {
            if spec.always_allows(nr) {
                prop_assert!(bpf::is_remembered(&program, nr), "{}", nr);
                let run = bpf::run(&program, &Call::new(nr, [0; 6]));
                prop_assert_eq!((run.value, run.loaded), (ALLOW, vec![4, 0]));
            }
        }
    }
}

/// One of 37 errnos.
fn errno_of(number: u32) -> Errno {
    Errno::from_raw((number % 37 + 1) as i32)
}

// T34
#[test]
fn six_hundred_calls_lead_each_to_a_place_of_its_own() {
    let filter = (0..620).fold(Filter::trap_all(), |filter, number| {
        filter
            .rule(
                i64::from(number),
                [arg(1).eq(number.into())],
                Action::Errno(errno_of(number)),
            )
            .kill(i64::from(number))
    });
    let program = checked(&filter);
    assert!(program.len() > 620 * 5, "{}", program.len());
    for number in 0..620 {
        let fits = ERRNO + errno_of(number) as u32;
        let args = |second| [0, second, 0, 0, 0, 0];
        assert_eq!(value(&program, number, args(number.into())), fits, "{number}");
        assert_eq!(value(&program, number, args(1000)), KILL_PROCESS, "{number}");
    }
    assert_eq!(value(&program, 620, [0; 6]), USER_NOTIF);
}

// T34
#[test]
fn six_hundred_conditions_on_one_call_are_tried_one_after_the_other() {
    let filter = (0..600_u64).fold(Filter::new(), |filter, index| {
        let action = Action::Errno(errno_of(index as u32));
        filter.rule(Sysno::read, [arg(2).eq(index << 20)], action)
    });
    let filter = filter.trap(Sysno::read).kill(1000);
    let program = checked(&filter);
    for index in 0..600_u64 {
        assert_eq!(
            value(&program, 0, [9, 9, index << 20, 9, 9, 9]),
            ERRNO + errno_of(index as u32) as u32
        );
    }
    assert_eq!(value(&program, 0, [0, 0, 1, 0, 0, 0]), USER_NOTIF);
    assert_eq!(value(&program, 1000, [0; 6]), KILL_PROCESS);
    assert_eq!(value(&program, 1, [0; 6]), ALLOW);
}

/// Whether a filter that traps under this condition does so for this first argument.
fn traps(condition: Condition, argument: u64) -> bool {
    let program = checked(&Filter::new().trap_if(Sysno::dup, [condition]));
    match value(&program, number(Sysno::dup), [argument, 0, 0, 0, 0, 0]) {
        USER_NOTIF => true,
        ALLOW => false,
        other => panic!("{other:#x}"),
    }
}

// T35
#[test]
fn an_argument_is_compared_with_both_of_its_halves() {
    let edge = 0x0000_0002_0000_0003_u64;
    for (argument, order) in [
        (0x0000_0002_0000_0003, 0),
        (0x0000_0002_0000_0004, 1),
        (0x0000_0002_0000_0002, -1),
        (0x0000_0003_0000_0000, 1),
        (0x0000_0001_ffff_ffff, -1),
        (0xffff_ffff_0000_0000, 1),
        (0x0000_0000_0000_0003, -1),
        (0x0000_0003_0000_0003, 1),
    ] {
        assert_eq!(traps(arg(0).eq(edge), argument), order == 0, "{argument:#x}");
        assert_eq!(traps(arg(0).ne(edge), argument), order != 0, "{argument:#x}");
        assert_eq!(traps(arg(0).lt(edge), argument), order < 0, "{argument:#x}");
        assert_eq!(traps(arg(0).ge(edge), argument), order >= 0, "{argument:#x}");
    }
    for (argument, fits) in [
        (0x8000_0000_0000_0001, true),
        (0x8fff_fff0_ffff_fff1, true),
        (0x0000_0000_0000_0001, false),
        (0x8000_0000_0000_0003, false),
        (0x8000_0001_0000_0001, false),
    ] {
        let condition = arg(0).masked_eq(0x8000_000f_0000_000f, 0x8000_0000_0000_0001);
        assert_eq!(traps(condition, argument), fits, "{argument:#x}");
    }
}

// T35
#[test]
fn an_int_argument_has_no_upper_half_and_a_sign() {
    for upper in [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff_u64] {
        let dirty = |int: i32| upper << 32 | u64::from(int as u32);
        assert!(traps(int_arg(0).eq(-100), dirty(-100)), "{upper:#x}");
        assert!(!traps(int_arg(0).eq(-100), dirty(100)), "{upper:#x}");
        assert!(!traps(int_arg(0).ne(2), dirty(2)), "{upper:#x}");
        assert!(traps(int_arg(0).lt(0), dirty(i32::MIN)), "{upper:#x}");
        assert!(traps(int_arg(0).lt(0), dirty(-1)), "{upper:#x}");
        assert!(!traps(int_arg(0).lt(0), dirty(0)), "{upper:#x}");
        assert!(traps(int_arg(0).ge(-1), dirty(-1)), "{upper:#x}");
        assert!(traps(int_arg(0).ge(-1), dirty(i32::MAX)), "{upper:#x}");
        assert!(!traps(int_arg(0).ge(-1), dirty(-2)), "{upper:#x}");
        assert!(traps(int_arg(0).masked_eq(i32::MIN | 1, i32::MIN), dirty(-2)));
        assert!(!traps(int_arg(0).masked_eq(i32::MIN | 1, i32::MIN), dirty(2)));
    }
}

// T32, T33
#[test]
fn calls_through_other_abis_are_never_taken_for_those_of_x86_64() {
    for (filter, foreign) in [
        (Filter::new(), KILL_PROCESS),
        (Filter::trap_all(), KILL_PROCESS),
        (Filter::new().foreign_abi(Action::Trap), USER_NOTIF),
        (
            Filter::trap_all().foreign_abi(Action::Errno(Errno::EPERM)),
            ERRNO + 1,
        ),
    ] {
        let filter = filter.allow([Sysno::getpid, Sysno::read]).allow(0x3fff_ffff);
        let program = checked(&filter);
        for nr in [number(Sysno::getpid), 0, 1, 20, 0x3fff_ffff, X32, u32::MAX] {
            for arch in [I386, AARCH64, 0] {
                let call = Call {
                    arch,
                    ..Call::new(nr, [1; 6])
                };
                assert_eq!(bpf::run(&program, &call).value, foreign, "{call:x?}\n{filter}");
            }
        }
        for nr in [0, 1, number(Sysno::getpid), 512, 0x3fff_ffff] {
            assert_eq!(value(&program, nr | X32, [1; 6]), foreign, "{nr:#x}\n{filter}");
        }
        assert_eq!(value(&program, number(Sysno::getpid), [1; 6]), ALLOW);
    }
}

#[test]
fn a_number_that_is_no_call_gets_the_default() {
    let program = checked(&Filter::trap_all().allow([Sysno::read, Sysno::write]));
    for nr in [
        0x8000_0000,
        0x8000_0001,
        0xc000_0000,
        0xffff_ffff,
        0x3fff_ffff,
        335,
    ] {
        assert_eq!(value(&program, nr, [0; 6]), USER_NOTIF, "{nr:#x}");
    }
}

#[test]
fn the_path_grows_with_the_logarithm_of_the_number_of_rules() {
    let longest = |rules: u32| {
        // Every second number, so that none of them merge.
        let all = (0..rules).map(|index| index * 2);
        let filter = all.clone().fold(Filter::new(), |filter, nr| {
            filter.errno(i64::from(nr), errno_of(nr))
        });
        let program = checked(&filter);
        let steps = |nr| bpf::run(&program, &Call::new(nr, [0; 6])).steps;
        all.flat_map(|nr| [steps(nr), steps(nr + 1)]).max().unwrap()
    };
    for (rules, bits) in [(1, 2), (10, 5), (100, 8), (1000, 11)] {
        let steps = longest(rules);
        // Two loads, the ABI and the return; then a comparison for each bit, some of which need a far jump.
        assert!(steps <= 4 + bits + bits / 2, "{rules} rules: {steps} steps");
    }
}

#[test]
fn an_unreachable_rule_costs_nothing() {
    let plain = Filter::new().trap(Sysno::read);
    let verbose = Filter::new()
        .trap([Sysno::read, Sysno::read])
        .errno(Sysno::read, Errno::EPERM)
        .trap_if(Sysno::read, [arg(0).eq(1)])
        .rule(Sysno::write, [arg(0).eq(1)], Action::Allow)
        .allow(Sysno::close);
    assert_eq!(verbose.program().unwrap(), plain.program().unwrap());
}
