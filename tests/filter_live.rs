//! What the kernel makes of a filter: each action, and random rules against their plain statement.

mod bpf;
mod fixtures;
mod support;

use std::os::unix::process::ExitStatusExt;

use asm_tracer::filter::{Condition, Instruction, arg, int_arg};
use asm_tracer::{Action, Errno, Filter, Sysno};
use bpf::Call;
use bpf::spec::{Spec, aims, specs};
use fixtures::{UNKNOWN, calls_program, has_i386, numbers, run, unexpected};
use proptest::prelude::*;
use proptest::sample::select;

#[tokio::test]
async fn each_action_does_what_it_says() {
    let filter = Filter::new()
        .allow(Sysno::getppid)
        .log(Sysno::getpgrp)
        .trap(1001)
        .errno(1002, Errno::EXFULL)
        .kill(1003);
    let mut command = calls_program();
    command.args([
        "64:6e", "64:6f", "64:3e8", "64:3e9:5", "64:3ea", "64:3eb", "64:3e8",
    ]);
    let mut trapped = Vec::new();
    let output = run(&mut command, filter, |call| {
        trapped.push((call.nr(), call.args()[0], call.sysno()));
        assert!(call.respond(77).unwrap().is_delivered());
    })
    .await;
    let (parent, group) = (
        i64::from(std::process::id()),
        i64::from(nix::unistd::getpgrp().as_raw()),
    );
    let refused = -i64::from(Errno::EXFULL as i32);
    assert_eq!(numbers(&output), [parent, group, UNKNOWN, 77, refused]);
    assert_eq!(output.status.signal(), Some(libc::SIGSYS));
    assert_eq!(trapped, [(1001, 5, None)]);
}

#[tokio::test]
async fn a_killing_rule_kills_all_threads() {
    let mut command = calls_program();
    command.args(["64t:3e8", "64t:3eb", "64:3e8"]);
    let output = run(&mut command, Filter::new().kill(1003), unexpected).await;
    assert_eq!(numbers(&output), [UNKNOWN]);
    assert_eq!(output.status.signal(), Some(libc::SIGSYS));
}

fn argument(abi: &str, call: &Call) -> String {
    let args = call.args.map(|argument| format!(":{argument:x}")).concat();
    format!("{abi}:{:x}{args}", call.nr)
}

/// Which of these calls of number 1000, given by their first two arguments, are trapped under these conditions.
async fn trapped<const N: usize>(
    conditions: impl IntoIterator<Item = Condition>,
    calls: [[u64; 2]; N],
) -> [bool; N] {
    let mut command = calls_program();
    command.args(calls.map(|[a, b]| argument("64", &Call::new(1000, [a, b, 0, 0, 0, 0]))));
    let filter = Filter::new().trap_if(1000, conditions);
    let output = run(&mut command, filter, |call| {
        call.respond(1).unwrap();
    })
    .await;
    let results = numbers(&output).try_into().unwrap();
    <[i64; N]>::map(results, |result| match result {
        1 => true,
        UNKNOWN => false,
        other => panic!("{other}"),
    })
}

// T35
#[tokio::test]
async fn the_upper_half_counts_for_a_long_and_not_for_an_int() {
    let dirty = 0xdead_beef_0000_0000;
    assert_eq!(
        trapped([arg(0).eq(7)], [[7, 0], [dirty + 7, 0]]).await,
        [true, false]
    );
    assert_eq!(
        trapped([int_arg(0).eq(7)], [[7, 0], [dirty + 7, 0], [8, 0]]).await,
        [true, true, false]
    );
    let descriptor = libc::AT_FDCWD;
    let forms = [
        u64::from(descriptor as u32),
        i64::from(descriptor) as u64,
        dirty + u64::from(descriptor as u32),
    ];
    assert_eq!(
        trapped([int_arg(1).eq(descriptor)], forms.map(|form| [0, form])).await,
        [true; 3]
    );
    assert_eq!(
        trapped(
            [int_arg(0).lt(0), arg(1).ge(1 << 32)],
            [
                [0xffff_ffff, 1 << 32],
                [0x7fff_ffff, 1 << 32],
                [0xffff_ffff, (1 << 32) - 1],
                [dirty + 0x8000_0000, u64::MAX]
            ]
        )
        .await,
        [true, false, false, true]
    );
}

/// Rules on numbers that no kernel gives a meaning to, so that a call does nothing where it is allowed.
fn live_specs() -> impl Strategy<Value = Spec> {
    let errno = select(vec![Errno::EPERM, Errno::EACCES, Errno::EHWPOISON]).prop_map(Action::Errno);
    let actions = prop_oneof![Just(Action::Allow), Just(Action::Trap), errno];
    let numbers = prop_oneof![1000..1012_u32, 1000..2000_u32];
    let defaults = select(vec![Action::Allow, Action::Trap]);
    (specs(numbers, actions), defaults).prop_map(|(spec, default)| Spec { default, ..spec })
}

fn is_harmless(call: &Call) -> bool {
    call.nr & 0x3fff_ffff >= 1000
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    // T32, T33, T34, T35
    #[test]
    fn the_kernel_does_what_the_rules_say(spec in live_specs(), aims in prop::collection::vec(aims(), 1..60)) {
        let mut calls: Vec<_> = aims.iter().map(|aim| aim.at(&spec)).filter(is_harmless).collect();
        let has_i386 = has_i386();
        calls.retain(|call| call.arch == bpf::X86_64 || has_i386);
        let wanted: Vec<_> = calls.iter().map(|call| match spec.decide(call) {
            Action::Allow => UNKNOWN,
            Action::Trap => 4242,
            Action::Errno(errno) => -i64::from(errno as i32),
            other => unreachable!("{other}"),
        }).collect();
        let mut command = calls_program();
        command.args(calls.iter().map(|call| argument(if call.arch == bpf::X86_64 { "64" } else { "80" }, call)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let output = runtime.block_on(run(&mut command, spec.filter(), |call| {
            let harmless = call.nr() as u32 & 0x3fff_ffff >= 1000;
            if harmless { call.respond(4242) } else { call.continue_syscall() }.unwrap();
        }));
        prop_assert_eq!(numbers(&output), wanted);
        prop_assert!(output.status.success());
    }
}

// T38
#[tokio::test]
async fn io_uring_can_be_refused() {
    let setup = "64:1a9:1:0";
    let allowed = run(calls_program().arg(setup), Filter::new(), unexpected).await;
    let refusing = Filter::new().errno(Sysno::io_uring_setup, Errno::ELIBBAD);
    let refused = run(calls_program().arg(setup), refusing, unexpected).await;
    assert_ne!(numbers(&allowed), [-i64::from(Errno::ELIBBAD as i32)]);
    assert_eq!(numbers(&refused), [-i64::from(Errno::ELIBBAD as i32)]);
}
