//! Calls through the other ABIs of x86-64: `int 0x80`, 32-bit programs, and x32.

mod fixtures;
mod support;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;

use asm_tracer::{Action, Arch, Command, Errno, Filter, Notification, Sysno};
use fixtures::{UNKNOWN, calls_program, has_i386, numbers, run, unexpected};

/// `getpid` of i386, where x86-64 has `writev`; in hexadecimal 14.
const I386_GETPID: i64 = 20;
/// `getpid` of x32; in hexadecimal 40000027.
const X32_GETPID: i64 = 0x4000_0000 + 39;

/// Lets everything through, for the tests where only the filter matters.
fn go_on(call: Notification) {
    call.continue_syscall().unwrap();
}

// T32
#[tokio::test]
async fn int_80_kills_by_default() {
    if !has_i386() {
        return;
    }
    for filter in [
        Filter::new(),
        Filter::trap_all(),
        Filter::new().allow([I386_GETPID, 1000]),
    ] {
        let output = run(calls_program().args(["64:3e8", "80:14", "64:3e8"]), filter, go_on).await;
        assert_eq!(numbers(&output), [UNKNOWN]);
        assert_eq!(output.status.signal(), Some(libc::SIGSYS));
    }
}

// T33
#[tokio::test]
async fn an_x32_call_kills_by_default() {
    for filter in [
        Filter::new(),
        Filter::trap_all(),
        Filter::new().trap(Sysno::getpid),
        Filter::new().allow(Sysno::getpid),
    ] {
        let output = run(calls_program().args(["64:3e8", "64:40000027"]), filter, go_on).await;
        assert_eq!(numbers(&output), [UNKNOWN]);
        assert_eq!(output.status.signal(), Some(libc::SIGSYS));
    }
}

// T32
#[tokio::test]
async fn a_trapped_i386_call_is_told_apart_and_can_be_answered() {
    if !has_i386() {
        return;
    }
    let mut command = calls_program();
    // The kernel takes the lower halves, whatever it reports.
    command.args([
        "80:14:fffffffff0000001:deadbeef00000002:3:4:5",
        "80:14",
        "64:14:ffffffff",
        "64:3e8",
    ]);
    let mut calls = Vec::new();
    let filter = Filter::new().foreign_abi(Action::Trap).trap(Sysno::writev);
    let output = run(&mut command, filter, |call| {
        calls.push((call.arch(), call.nr(), call.sysno()));
        match calls.len() {
            1 => {
                assert_eq!(call.args()[..5], [0xf000_0001, 2, 3, 4, 5]);
                call.respond(42)
            }
            2 => call.continue_syscall(),
            _ => call.error(Errno::EXFULL),
        }
        .unwrap();
    })
    .await;
    let i386 = (Arch::I386, I386_GETPID, None);
    assert_eq!(
        calls,
        [i386, i386, (Arch::X86_64, I386_GETPID, Some(Sysno::writev))]
    );
    let results = numbers(&output);
    assert_eq!(results[0], 42);
    assert!(results[1] > 0, "the child's pid: {results:?}");
    assert_eq!(results[2..], [-i64::from(Errno::EXFULL as i32), UNKNOWN]);
}

// T33
#[tokio::test]
async fn a_trapped_x32_call_is_told_apart_and_can_be_answered() {
    let mut command = calls_program();
    command.args(["64:40000027:1:2", "64:40000027", "64:27", "64:3e8"]);
    let mut calls = Vec::new();
    let filter = Filter::new().foreign_abi(Action::Trap).trap(Sysno::getpid);
    let output = run(&mut command, filter, |call| {
        calls.push((call.arch(), call.nr(), call.sysno()));
        match calls.len() {
            1 => {
                assert_eq!(call.args()[..2], [1, 2]);
                call.respond(42)
            }
            2 => call.error(Errno::EXFULL),
            _ => call.respond(43),
        }
        .unwrap();
    })
    .await;
    let x32 = (Arch::X32, X32_GETPID, None);
    assert_eq!(calls, [x32, x32, (Arch::X86_64, 39, Some(Sysno::getpid))]);
    let refused = -i64::from(Errno::EXFULL as i32);
    assert_eq!(numbers(&output), [42, refused, 43, UNKNOWN]);
}

// T33
#[tokio::test]
async fn a_number_beyond_x32_is_a_call_of_x86_64_that_does_not_exist() {
    let mut command = calls_program();
    command.args(["64:80000027", "64:c0000027", "64:ffffffff"]);
    let mut calls = Vec::new();
    let output = run(&mut command, Filter::trap_all(), |call| {
        if call.nr() < 0 {
            calls.push((call.arch(), call.nr() as u32, call.sysno()));
        }
        go_on(call);
    })
    .await;
    assert_eq!(
        calls,
        [0x8000_0027, 0xc000_0027, u32::MAX].map(|nr| (Arch::X86_64, nr, None))
    );
    assert_eq!(numbers(&output), [UNKNOWN; 3]);
}

// T32, T33
#[tokio::test]
async fn foreign_calls_can_be_refused_or_allowed_whatever_the_rules_say() {
    let refusing = Filter::new()
        .allow([Sysno::getpid.id().into(), I386_GETPID])
        .foreign_abi(Action::Errno(Errno::EXFULL));
    let output = run(
        calls_program().args(["64:40000027", "64:3e8"]),
        refusing.clone(),
        unexpected,
    )
    .await;
    let refused = -i64::from(Errno::EXFULL as i32);
    assert_eq!(numbers(&output), [refused, UNKNOWN]);
    if !has_i386() {
        return;
    }
    let output = run(calls_program().args(["80:14", "64:3e8"]), refusing, unexpected).await;
    assert_eq!(numbers(&output), [refused, UNKNOWN]);
    let allowing = Filter::new()
        .kill([Sysno::getpid.id().into(), I386_GETPID])
        .foreign_abi(Action::Allow);
    let output = run(calls_program().args(["80:14", "64:3e8"]), allowing, unexpected).await;
    assert!(numbers(&output)[0] > 0, "{output:?}");
}

/// A 32-bit program that ends with status 7: an ELF header, one segment, and three instructions.
fn program_of_32_bits() -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const CODE: &[u8] = b"\xbb\x07\0\0\0\xb8\x01\0\0\0\xcd\x80"; // mov ebx, 7; mov eax, 1 (exit); int 0x80
    let headers = 52 + 32;
    let size = headers + CODE.len() as u32;
    let mut program = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut half = |values: &[u16]| program.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    half(&[2, 3]); // an executable for i386
    let mut word = |values: &[u32]| program.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    word(&[1, BASE + headers, 52, 0, 0]); // the entry; the program header follows this one
    let mut half = |values: &[u16]| program.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    half(&[52, 32, 1, 0, 0, 0]);
    let mut word = |values: &[u32]| program.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    word(&[1, 0, BASE, BASE, size, size, 5, 0x1000]); // all of the file, readable and executable
    program.extend(CODE);
    program
}

// T32
#[tokio::test]
async fn a_32_bit_program_is_killed_or_supervised() {
    if !has_i386() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("program");
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(&program_of_32_bits()).unwrap();
    file.set_permissions(PermissionsExt::from_mode(0o755)).unwrap();
    drop(file);

    let killed = run(&mut Command::new(&path), Filter::new(), unexpected).await;
    assert_eq!(killed.status.signal(), Some(libc::SIGSYS));

    let mut calls = Vec::new();
    let filter = Filter::new().trap(Sysno::write).foreign_abi(Action::Trap);
    let exited = run(&mut Command::new(&path), filter, |call| {
        calls.push((call.arch(), call.nr(), call.sysno(), call.args()[0]));
        go_on(call);
    })
    .await;
    assert_eq!(calls, [(Arch::I386, 1, None, 7)]);
    assert_eq!(exited.status.code(), Some(7));
}
