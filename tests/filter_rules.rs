//! What a filter says of itself: printed rules, mistakes, limits.

use asm_tracer::filter::{Program, arg, int_arg};
use asm_tracer::{Action, Command, Errno, Error, Filter, Sysno};

#[test]
fn a_filter_prints_one_rule_a_line() {
    let filter = Filter::new()
        .trap([Sysno::openat, Sysno::connect])
        .trap_if(Sysno::write, [int_arg(0).eq(2), arg(2).ge(1 << 20)])
        .rule(
            Sysno::ioctl,
            [int_arg(1).ne(-1), arg(5).lt(u64::MAX)],
            Action::Log,
        )
        .rule(
            1000,
            [arg(3).masked_eq(0xf0, 0x10), int_arg(4).masked_eq(-16, 32)],
            Action::Kill,
        )
        .errno(Sysno::io_uring_setup, Errno::ENOSYS)
        .allow([-1, 400].as_slice())
        .log(Sysno::read)
        .otherwise(Action::Errno(Errno::EPERM))
        .foreign_abi(Action::Trap);
    assert_eq!(
        filter.to_string(),
        "openat: trap\n\
         connect: trap\n\
         write when int(arg0) == 2 and arg2 >= 0x100000: trap\n\
         ioctl when int(arg1) != -1 and arg5 < 0xffffffffffffffff: log\n\
         call 1000 when arg3 & 0xf0 == 0x10 and int(arg4) & 0xfffffff0 == 0x20: kill\n\
         io_uring_setup: ENOSYS\n\
         call -1: allow\n\
         call 400: allow\n\
         read: log\n\
         otherwise: EPERM\n\
         i386 and x32: trap"
    );
    assert_eq!(
        Filter::default().to_string(),
        "otherwise: allow\ni386 and x32: kill"
    );
    assert_eq!(
        Filter::trap_all().to_string(),
        "otherwise: trap\ni386 and x32: kill"
    );
    assert_eq!(int_arg(0).lt(-5).to_string(), "int(arg0) < -5");
}

/// What is wrong with a filter.
fn mistake(filter: &Filter) -> String {
    match filter.program() {
        Err(error @ Error::InvalidFilter(_)) => {
            assert_eq!(error.errno(), Some(Errno::EINVAL));
            error.to_string()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_rule_that_makes_no_sense_is_refused() {
    for (filter, says) in [
        (
            Filter::new().trap_if(Sysno::read, [arg(0).eq(1), arg(6).eq(1)]),
            "invalid filter: `arg6 == 0x1`: a system call has the arguments 0 to 5",
        ),
        (
            Filter::new().trap_if(Sysno::read, [int_arg(usize::MAX).lt(1)]),
            "invalid filter: `int(arg18446744073709551615) < 1`: a system call has the arguments 0 to 5",
        ),
        (
            Filter::new().trap_if(Sysno::read, [arg(0).masked_eq(0xf0, 0x1f)]),
            "invalid filter: `arg0 & 0xf0 == 0x1f` can never hold: the value has bits outside of the mask",
        ),
        (
            Filter::new().trap_if(Sysno::read, [int_arg(0).masked_eq(1, -1)]),
            "invalid filter: `int(arg0) & 0x1 == 0xffffffff` can never hold: the value has bits outside of the mask",
        ),
        (
            Filter::new().errno(Sysno::read, Errno::UnknownErrno),
            "invalid filter: errno 0 is no error; trap the call and respond with 0",
        ),
        (
            // Where it could have no effect, too.
            Filter::new()
                .trap(Sysno::read)
                .errno(Sysno::read, Errno::UnknownErrno),
            "invalid filter: errno 0 is no error; trap the call and respond with 0",
        ),
        (
            Filter::new()
                .kill(Sysno::read)
                .trap_if(Sysno::read, [arg(6).eq(0)]),
            "invalid filter: `arg6 == 0x0`: a system call has the arguments 0 to 5",
        ),
        (
            Filter::new().otherwise(Action::Errno(Errno::UnknownErrno)),
            "invalid filter: errno 0 is no error; trap the call and respond with 0",
        ),
        (
            Filter::new().foreign_abi(Action::Errno(Errno::UnknownErrno)),
            "invalid filter: errno 0 is no error; trap the call and respond with 0",
        ),
    ] {
        assert_eq!(mistake(&filter), says);
    }
}

// T33
#[test]
fn a_number_of_another_abi_is_refused() {
    for number in [
        -1,
        i64::MIN,
        0x4000_0000,
        0x4000_0027,
        0x8000_0000,
        1 << 32,
        i64::MAX,
    ] {
        assert_eq!(
            mistake(&Filter::new().trap(number)),
            format!(
                "invalid filter: {number} is not the number of an x86-64 system call; \
                 `foreign_abi` decides on those of other ABIs"
            )
        );
    }
    Filter::new().trap([0_i64, 0x3fff_ffff]).program().unwrap();
}

/// Refuses one number under `equal` conditions of two instructions each and `less` of three each.
fn sized(equal: i32, less: i32) -> Filter {
    let rules = (0..equal)
        .map(|value| int_arg(0).eq(value))
        .chain((0..less).map(|value| int_arg(1).lt(-value)));
    rules.fold(Filter::new(), |filter, condition| {
        filter.rule(1000, [condition], Action::Errno(Errno::EXFULL))
    })
}

/// A filter of the most instructions.
fn largest() -> Filter {
    of_size(Program::LIMIT)
}

fn of_size(wanted: usize) -> Filter {
    let size = |filter: &Filter| match filter.program() {
        Ok(program) => program.len(),
        Err(Error::FilterTooLarge { instructions, .. }) => instructions,
        Err(error) => panic!("{error}"),
    };
    let candidates: Vec<_> = (1900..2048).collect();
    let nearly = candidates[candidates.partition_point(|equal| size(&sized(*equal, 0)) < wanted - 6)];
    (0..9)
        .map(|index| sized(nearly + index % 3, index / 3))
        .find(|filter| size(filter) == wanted)
        .unwrap()
}

#[test]
fn the_kernel_takes_the_largest_filter_and_a_larger_one_is_refused_before() {
    let (fits, too_large) = (largest(), of_size(Program::LIMIT + 1));
    let installed = std::thread::spawn(move || fits.install());
    installed.join().unwrap().unwrap();
    let error = too_large.program().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the filter needs 4097 instructions and the kernel takes 4096; use fewer rules with argument conditions"
    );
    let installed = std::thread::spawn(move || too_large.install());
    assert!(matches!(
        installed.join().unwrap(),
        Err(Error::FilterTooLarge {
            instructions: 4097,
            limit: 4096
        })
    ));
}

#[tokio::test]
async fn a_filter_with_a_mistake_starts_no_program() {
    let mut command = Command::new("true");
    let error = command.filter(Filter::new().trap(-1)).spawn().await.unwrap_err();
    assert!(matches!(error, Error::InvalidFilter(_)), "{error:?}");
    // It would fit, but not together with what lets the child itself through.
    let error = command
        .filter(largest().otherwise(Action::Trap))
        .spawn()
        .await
        .unwrap_err();
    assert!(matches!(error, Error::FilterTooLarge { .. }), "{error:?}");
}
