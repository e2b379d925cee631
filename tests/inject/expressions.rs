//! The expressions of strace, and what is said of wrong ones.

use std::process::Command;

use asm_tracer::inject::{Fault, FaultPlan, Occurrences};
use asm_tracer::{Errno, Signal, Sysno};
use std::time::Duration;

#[test]
fn an_expression_is_the_fault_that_it_says() {
    let write = || Fault::on(Sysno::write);
    for (expression, fault) in [
        (
            "write:error=ENOSPC:when=3+2",
            write()
                .occurrences(Occurrences::starting_at(3).every(2))
                .error(Errno::ENOSPC),
        ),
        ("write:error=28", write().error(Errno::ENOSPC)),
        ("write:error=enospc", write().error(Errno::ENOSPC)),
        ("1:error=0x1c", write().error(Errno::ENOSPC)),
        ("inject=write:retval=-1", write().returns(-1)),
        ("write:retval=0x10", write().returns(16)),
        ("write:retval=18446744073709551615", write().returns(-1)),
        ("fault=write", write().error(Errno::ENOSYS)),
        ("fault=write:error=EIO:when=2", write().nth(2).error(Errno::EIO)),
        ("write:signal=SIGUSR1", write().signal(Signal::SIGUSR1)),
        ("write:signal=term", write().signal(Signal::SIGTERM)),
        ("write:signal=SIGRT_3", write().signal(35)),
        ("write:signal=64", write().signal(64)),
        (
            "write:delay_enter=5",
            write().delay_before(Duration::from_micros(5)),
        ),
        (
            "write:delay_enter=1.5ms",
            write().delay_before(Duration::from_micros(1500)),
        ),
        ("write:delay_exit=2s", write().delay_after(Duration::from_secs(2))),
        (
            "write:delay_exit=3ns",
            write().delay_after(Duration::from_nanos(3)),
        ),
        (
            "write:delay_exit=1e3us",
            write().delay_after(Duration::from_millis(1)),
        ),
        (
            "write:error=EIO:when=1+",
            write().starting_at(1).error(Errno::EIO),
        ),
        (
            "write:error=EIO:when=2..4",
            write().starting_at(2).until(4).error(Errno::EIO),
        ),
        (
            "write:error=EIO:when=2..8+3",
            write()
                .occurrences(Occurrences::starting_at(2).until(8).every(3))
                .error(Errno::EIO),
        ),
        ("write:error=EIO:when=1:when=5", write().nth(5).error(Errno::EIO)),
        ("?nonsense,write,,write:error=EIO", write().error(Errno::EIO)),
        ("write@64,read@32::error=EIO", write().error(Errno::EIO)),
        ("write:syscall=getpid:error=EIO", write().error(Errno::EIO)),
        ("none:error=EIO", Fault::on(Vec::<i64>::new()).error(Errno::EIO)),
        (
            "%stat,%lstat:error=EIO",
            Fault::on([Sysno::lstat, Sysno::stat]).error(Errno::EIO),
        ),
    ] {
        let parsed: Fault = expression.parse().unwrap();
        assert_eq!(parsed, fault, "{expression}");
    }
    let all = |expression: &str| expression.parse::<FaultPlan>().unwrap().faults()[0].clone();
    assert_eq!(all("all:error=EIO"), all("!none:error=EIO"));
    assert_eq!(all("!write:error=EIO"), all("!1:error=EIO"));
    assert_eq!(all("file:error=EIO"), all("%file:error=EIO"));
}

#[test]
fn a_wrong_expression_is_told_with_the_place() {
    for (expression, place, message) in [
        (
            "write:error=ENOSPACE:when=3+2",
            "ENOSPACE",
            "there is no errno `ENOSPACE`; did you mean `ENOSPC`?",
        ),
        ("write:error=5000", "5000", "between 1 and 4095"),
        ("wirte:error=EIO", "wirte", "did you mean `write`?"),
        ("read,%fiel:error=EIO", "%fiel", "no system call or set"),
        ("read,/wr.*:error=EIO", "/wr.*", "regular expressions"),
        ("read@65:error=EIO", "65", "the ABIs"),
        ("", "", "a system call is missing"),
        ("!:error=EIO", "", "a system call is missing"),
        (":error=EIO", "", "a system call is missing"),
        ("write", "", "an effect is missing"),
        ("write:when=2", "", "an effect is missing"),
        ("write:syscall=getpid", "", "an effect is missing"),
        ("write:eror=EIO", "eror", "`eror` is no option"),
        ("write:error", "error", "has no value"),
        ("write:error=EIO:error=EIO", "error=EIO", "said twice"),
        ("write:error=EIO:retval=1", "retval=1", "exclude each other"),
        ("write:retval=one", "one", "a number"),
        ("write:retval=+1", "+1", "a number"),
        ("write:signal=SIGTERN", "SIGTERN", "did you mean `SIGTERM`?"),
        ("write:signal=65", "65", "between 1 and 64"),
        (
            "write:syscall=open:error=EIO",
            "open",
            "only calls without effects",
        ),
        ("write:delay_enter=5m", "5m", "a delay is a number"),
        ("write:delay_enter=-5", "-5", "a delay is a number"),
        ("write:delay_enter=inf", "inf", "a delay is a number"),
        ("write:delay_exit=", "", "a delay is a number"),
        ("write:error=EIO:when=0", "0", "between 1 and 65535"),
        ("write:error=EIO:when=5..2", "2", "before the first"),
        ("write:error=EIO:when=5..65535", "65535", "between 1 and 65534"),
        ("write:error=EIO:when=2+x", "x", "between 1 and 65535"),
        (
            "write:poke_enter=@arg1=00",
            "poke_enter=@arg1=00",
            "not supported",
        ),
        ("fault=write:signal=9", "signal", "`fault=` takes"),
        (
            "wr\u{fc}te\u{1b}:error=EIO",
            "wr\u{fc}te\u{1b}",
            "no system call or set",
        ),
    ] {
        let error = expression.parse::<Fault>().unwrap_err();
        assert_eq!(&expression[error.place()], place, "{error}");
        assert!(error.message().contains(message), "{error}");
        assert!(!error.to_string().contains('\u{1b}'), "{error:?}");
    }
    let error = "write:error=ENOSPACE:when=3+2".parse::<FaultPlan>().unwrap_err();
    let shown = "there is no errno `ENOSPACE`; did you mean `ENOSPC`?\n  write:error=ENOSPACE:when=3+2\n              ^^^^^^^^";
    assert_eq!(
        (error.to_string(), format!("{error:?}")),
        (shown.into(), shown.into())
    );
}

/// Whether strace takes an expression.
fn strace_takes(expression: &str) -> bool {
    let output = Command::new("strace")
        .args(["-o", "/dev/null", "-e", &format!("inject={expression}"), "true"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    !errors.contains("strace: invalid")
}

#[test]
fn strace_takes_the_same_expressions() {
    if Command::new("strace").arg("-V").output().is_err() {
        return println!("skipped: there is no strace");
    }
    for expression in [
        "write",
        "write:",
        "write:error=EIO",
        "write:error=eio",
        "write:error=0",
        "write:error=4095",
        "write:error=4096",
        "write:error=010",
        "write:error=ERESTARTSYS",
        "write:error=EIO:error=EIO",
        "write:error=EIO:retval=0",
        "write:retval=1",
        "write:retval=0x1",
        "write:retval=x",
        "write:signal=0",
        "write:signal=64",
        "write:signal=65",
        "write:signal=SEGV",
        "write:signal=sigsegv",
        "write:signal=SIGRTMIN",
        "write:signal=SIGRT_3",
        "write:signal=SIGX",
        "write:signal=1:signal=2",
        "write:delay_enter=1",
        "write:delay_enter=1.5ms",
        "write:delay_enter=1m",
        "write:delay_enter=-1",
        "write:delay_enter=",
        "write:delay_enter=1e3",
        "write:delay_enter=0x10",
        "write:delay_exit=1:delay_exit=2",
        "write:error=EIO:when=0",
        "write:error=EIO:when=65535",
        "write:error=EIO:when=65536",
        "write:error=EIO:when=3..2",
        "write:error=EIO:when=3..2+",
        "write:error=EIO:when=2+0",
        "write:error=EIO:when=2..65534",
        "write:error=EIO:when=2..65535",
        "write:error=EIO:when=2+3+4",
        "write:error=EIO:when=1..",
        "write:error=EIO:when=1:when=60000",
        "write:bogus=1",
        "write::error=EIO",
        "nosuch:error=EIO",
        "?nosuch:error=EIO",
        "write,,read:error=EIO",
        "0:error=EIO",
        "9999:error=EIO",
        ":error=EIO",
        "%file:error=EIO",
        "file:error=EIO",
        "%foo:error=EIO",
        "%pure:error=EIO",
        "pure:error=EIO",
        "%%stat:error=EIO",
        "clock:error=EIO",
        "%clock:error=EIO",
        "write@64:error=EIO",
        "none:error=EIO",
        "write:syscall=getpid",
        "write:syscall=getpid:error=EIO",
        "write:syscall=open:error=EIO",
        "write:when=1",
    ] {
        let ours = expression.parse::<Fault>();
        assert_eq!(ours.is_ok(), strace_takes(expression), "{expression}: {ours:?}");
    }
}
