//! Faults that can't be meant.

use std::time::Duration;

use asm_tracer::filter::arg;
use asm_tracer::inject::{Fault, FaultPlan, Occurrences};
use asm_tracer::{Command, Errno, Error, Filter, Sysno};

use crate::support::within;

async fn refusal(plan: FaultPlan, command: &mut Command) -> String {
    match within("the refusal", plan.run(command)).await {
        Err(Error::InvalidPlan(why) | Error::InvalidFilter(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_can_not_be_meant_is_refused_before_anything_starts() {
    let write = || Fault::on(Sysno::write);
    let fails = || write().error(Errno::EIO);
    for (fault, why) in [
        (write(), "write: no effect is said of it"),
        (write().argument(6, 1), "write: a call has the arguments 0 to 5"),
        (write().error(Errno::UnknownErrno), "errno 0 is no error"),
        (fails().nth(0), "counted from 1"),
        (
            fails().occurrences(Occurrences::starting_at(5).until(3)),
            "counted from 1",
        ),
        (fails().with_probability(1.5), "between 0 and 1"),
        (fails().with_probability(f64::NAN), "between 0 and 1"),
        (write().signal(65), "the signals 1 to 64"),
        (write().signal(0), "the signals 1 to 64"),
        (
            Fault::on([Sysno::write, Sysno::close]).short(1),
            "close has no length",
        ),
        (
            write().short(1).delay_after(Duration::from_secs(1)),
            "can't be held back as well",
        ),
        (
            Fault::on(Sysno::getpid).path("/tmp").error(Errno::EIO),
            "neither a path nor a descriptor",
        ),
        (
            Fault::on(Sysno::mkdir).fd(1).error(Errno::EIO),
            "no descriptor among",
        ),
        (
            Fault::on(Sysno::bind).remote().error(Errno::EIO),
            "no address among",
        ),
        (fails().when(arg(7).eq(1)), "the arguments 0 to 5"),
    ] {
        let refusal = refusal(fault.into(), &mut Command::new("/nonexistent")).await;
        assert!(refusal.contains(why), "{refusal}");
    }
}

#[tokio::test]
async fn a_command_with_a_filter_of_its_own_is_refused() {
    let mut command = Command::new("true");
    command.filter(Filter::new().errno(Sysno::mkdir, Errno::EROFS));
    let refusal = refusal(FaultPlan::new(), &mut command).await;
    assert!(refusal.contains("a filter of its own"), "{refusal}");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_the_error_of_the_start() {
    let plan = FaultPlan::from(Fault::on(Sysno::write).error(Errno::EIO));
    let error = within("the refusal", plan.run(&mut Command::new("/nonexistent")))
        .await
        .unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ENOENT));
}
