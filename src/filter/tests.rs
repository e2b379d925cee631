//! The hand-over: exactly its calls with exactly its secret get past the filter.

use proptest::prelude::*;
use proptest::sample::select;
use syscalls::Sysno;

use super::{Action, Condition, Filter, HandOver, Instruction, Program, Purpose, arg, int_arg};
use crate::error::{Error, Result};
use nix::errno::Errno;

#[path = "../../tests/bpf/mod.rs"]
mod bpf;

use bpf::spec::{Aim, Spec, actions, aims, numbers, specs};
use bpf::{ALLOW, Call, I386};

/// What a child needs on its way, with and without a trapped execution.
const CALLS: [&[Sysno]; 2] = [
    &[Sysno::sendmsg, Sysno::exit_group, Sysno::execve],
    &[Sysno::sendmsg, Sysno::exit_group, Sysno::close],
];

fn compile(filter: &Filter, secret: [u64; 3], calls: &[Sysno]) -> Result<Program> {
    let program = filter.compile(Purpose::Start(&HandOver { secret, calls }))?;
    bpf::check(&program);
    Ok(program)
}

fn value(program: &[Instruction], call: &Call) -> u32 {
    bpf::run(program, call).value
}

/// A call whose last three registers hold the secret.
fn exempt(sysno: Sysno, secret: [u64; 3]) -> Call {
    let [a, b, c] = secret;
    Call::new(sysno.id() as u32, [1, 2, 3, a, b, c])
}

fn case() -> impl Strategy<Value = (Spec, Vec<Aim>, [u64; 3], usize)> {
    let exempt = select(vec![
        Sysno::sendmsg,
        Sysno::exit_group,
        Sysno::execve,
        Sysno::close,
    ]);
    let numbers = prop_oneof![numbers(), exempt.prop_map(|sysno| sysno.id() as u32)];
    (
        specs(numbers, actions()),
        prop::collection::vec(aims(), 1..30),
        any::<[u64; 3]>(),
        0..CALLS.len(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    // T25
    #[test]
    fn the_secret_opens_its_calls_and_nothing_else((spec, aims, secret, calls) in case()) {
        let (filter, calls) = (spec.filter(), CALLS[calls]);
        let with = match compile(&filter, secret, calls) {
            Err(Error::FilterTooLarge { .. }) => return Ok(()),
            with => with.unwrap(),
        };
        let without = filter.program().unwrap();
        for aim in aims {
            let mut call = aim.at(&spec);
            prop_assert_eq!(value(&with, &call), value(&without, &call), "{:x?}", call);
            // All of the secret on a call of any kind.
            call.args[3..].copy_from_slice(&secret);
            let opened = call.arch == bpf::X86_64 && calls.iter().any(|sysno| sysno.id() as u32 == call.nr);
            let wanted = if opened { ALLOW } else { value(&without, &call) };
            prop_assert_eq!(value(&with, &call), wanted, "{:x?}", call);
        }
        for sysno in calls {
            let right = exempt(*sysno, secret);
            prop_assert_eq!(value(&with, &right), ALLOW);
            for bit in 0..192 {
                let mut wrong = right;
                wrong.args[3 + bit / 64] ^= 1 << (bit % 64);
                prop_assert_eq!(value(&with, &wrong), value(&without, &wrong), "{} {}", sysno, bit);
            }
            let foreign = [
                Call { nr: right.nr | 0x4000_0000, ..right },
                Call { nr: right.nr | 0x8000_0000, ..right },
                Call { arch: I386, ..right },
            ];
            for call in foreign {
                prop_assert_eq!(value(&with, &call), value(&without, &call), "{:x?}", call);
            }
        }
    }

    // T36
    #[test]
    fn the_hand_over_leaves_the_allowed_calls_alone((spec, _, secret, calls) in case()) {
        let Ok(program) = compile(&spec.filter(), secret, CALLS[calls]) else { return Ok(()) };
        for nr in (0..500).filter(|nr| spec.always_allows(*nr)) {
            prop_assert!(bpf::is_remembered(&program, nr), "{}", nr);
        }
    }
}

#[test]
fn the_registers_must_be_the_right_ones_in_the_right_order() {
    let secret = [
        0x1111_2222_3333_4444,
        0x5555_6666_7777_8888,
        0x9999_aaaa_bbbb_cccc,
    ];
    let program = compile(&Filter::new().otherwise(Action::Kill), secret, CALLS[0]).unwrap();
    let [a, b, c] = secret;
    let opens = |args| value(&program, &Call::new(Sysno::execve.id() as u32, args)) == ALLOW;
    assert!(opens([0, 0, 0, a, b, c]));
    for args in [
        [0, 0, 0, b, a, c],
        [0, 0, 0, c, b, a],
        [0, 0, 0, a, b, 0],
        [0, 0, 0, a, 0, c],
        [0, 0, 0, 0, b, c],
        [a, b, c, 0, 0, 0],
        [0, 0, a, b, c, 0],
        [0, 0, 0, a.rotate_left(32), b, c],
        [0, 0, 0, a as u32 as u64, b as u32 as u64, c as u32 as u64],
    ] {
        assert!(!opens(args), "{args:x?}");
    }
}

#[test]
fn a_hand_over_that_nothing_hinders_adds_no_instruction() {
    let filter = Filter::new().trap([Sysno::openat, Sysno::connect]);
    let program = compile(&filter, [1, 2, 3], CALLS[0]).unwrap();
    assert_eq!(program, filter.program().unwrap());
}
