//! Calls that a hook must not change.

use asm_tracer::sigsys::{Decision, Tracer};
use asm_tracer::{Errno, Sysno, TrappedSyscall};

use crate::common::{alone, call, calls_of};

/// A first argument by which the hook knows the call that it is to make another one.
const INTO_ANOTHER: i64 = 4711;

/// Changes every call that it sees: an argument that none of them looks at, or the number.
fn change(call: &mut TrappedSyscall) -> Option<i64> {
    match call.args[0] {
        INTO_ANOTHER => call.nr = Sysno::munmap.id().into(),
        _ => call.args[5] ^= 1,
    }
    None
}

#[test]
fn what_can_not_be_rewritten_is_refused_and_counted() {
    alone(|| {
        let refused = [
            Sysno::clone,
            Sysno::clone3,
            Sysno::vfork,
            Sysno::munmap,
            Sysno::mremap,
        ];
        let builder = Tracer::builder().trap(refused).trap(Sysno::getppid);
        let tracer = builder.hook(change).install().unwrap();
        let unsupported = -(Errno::EOPNOTSUPP as i64);
        for number in refused {
            // None of them is made: there is neither a child nor another error.
            assert_eq!(call(number, &[]), unsupported, "{number}");
        }
        assert_eq!(call(Sysno::getppid, &[INTO_ANOTHER]), unsupported);
        // Others can be changed.
        assert_eq!(
            call(Sysno::getppid, &[]),
            i64::from(std::os::unix::process::parent_id())
        );
        let statistics = tracer.statistics();
        assert_eq!(statistics.refused_rewrites, refused.len() as u64 + 1);
        let decisions: Vec<_> = calls_of(&tracer).iter().map(|call| call.decision).collect();
        let (last, others) = decisions.split_last().unwrap();
        assert!(matches!(last, Decision::Rewritten(_)), "{decisions:?}");
        let is_refused = |decision: &&Decision| **decision == Decision::Refused(Errno::EOPNOTSUPP);
        let refused = others.iter().filter(is_refused).count() as u64;
        assert_eq!(refused, statistics.refused_rewrites, "{decisions:?}");
    });
}
