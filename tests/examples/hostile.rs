//! `trace` on programs that lie to it, or mean to drive the terminal.

use std::process::Command;

use crate::lines::parse;
use crate::support::c_program;
use crate::{finish, text, trace};

/// The calls between the two that mark the beginning and the end.
const CALLS: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#define BAD 0x10L
#define END 0x10001000L
static char *page = (char *)(END - 4096);
static void *put(long at, const void *bytes, long size) { return memcpy((char *)at, bytes, size); }
int main(void) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    if (mmap(page, 4096, PROT_READ | PROT_WRITE, flags, -1, 0) != page) return 1;
    if (mmap(page + 8192, 4096, PROT_NONE, flags, -1, 0) != page + 8192) return 1;
    memset(page, 'x', 4096);
    syscall(12345, 1, 2, 3, 4, 5, 6L << 60);

    syscall(SYS_creat, BAD, 0644);
    syscall(SYS_creat, 0, 0);
    syscall(SYS_creat, "/no/\33]0;owned\7\n\r\t\"\\\377\2001\302\233", 0600);
    syscall(SYS_creat, put(END - 3, "b/\0", 3), 0600);
    syscall(SYS_creat, put(END - 3, "/bc", 3), 0600);
    syscall(SYS_creat, END + 4096, 0600);
    syscall(SYS_creat, -1L, 0xdead00000180);

    syscall(SYS_pwrite64, -1, BAD, 1L << 60, -5L);
    syscall(SYS_pwrite64, -1, END - 3, 1L << 60, 0);
    syscall(SYS_pwrite64, -1, "\0\33", 2, 0);
    syscall(SYS_pwrite64, -1, BAD, 0, 0);

    long vector[] = {BAD, 5, (long)"hi", 2, END - 3, -1};
    syscall(SYS_writev, -1, BAD, 2);
    syscall(SYS_writev, -1, put(END - 48, vector, 48), 3);
    syscall(SYS_writev, -1, END - 48, 4);
    syscall(SYS_writev, -1, END - 48, -1L);
    syscall(SYS_readv, -1, END - 48, 2);

    syscall(SYS_connect, -1, BAD, 16);
    syscall(SYS_connect, -1, "\1\0/tmp/\33[2J", 12);
    syscall(SYS_connect, -1, "\1\0", 2);
    syscall(SYS_connect, -1, "\1\0\0a\0b", 6);
    syscall(SYS_connect, -1, "\1", 1);
    syscall(SYS_connect, -1, "\1", -1);
    syscall(SYS_connect, -1, put(END - 6, "\2\0\0\120\177\0", 6), 16);
    syscall(SYS_connect, -1, "\115\0\33", 3);
    syscall(SYS_connect, -1, "\2\0\0\120\177\0\0\1\0\0\0\0\0\0\0", 16);
    syscall(SYS_connect, -1, "\12\0\0\120\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0", 28);

    long strings[] = {BAD, (long)"/\7", 0};
    syscall(SYS_execve, "/nonexistent/x", BAD, BAD);
    syscall(SYS_execve, "/nonexistent/x", put(END - 32, strings, 24), 0);
    memset(page, 'x', 4096);
    syscall(SYS_execve, "/nonexistent/x", END - 16, END - 16);
    syscall(SYS_execve, "/nonexistent/x", page, page);

    long junk = 0xdeadbeefL << 32;
    syscall(SYS_dup3, junk | 7, junk | 0xffffffff, junk | O_CLOEXEC);
    syscall(SYS_openat, junk | 0xffffff9c, "/nonexistent/x", O_RDWR | O_CREAT | 0x80000000L, 0750);
    syscall(SYS_openat, 5, "x", 3, 0750);
    syscall(SYS_tgkill, -1, -1, 34);
    syscall(SYS_tgkill, -1, -1, 99);
    syscall(-1, 0L, 0L, 0L, 0L, 0L, 0L);
    syscall(0x40000000 | 555, 0L, 0L, 0L, 0L, 0L, 0L);

    syscall(12345, 0L, 0L, 0L, 0L, 0L, 0L);
    return 7;
}
"#;

const EXPECTED: &str = r#"
creat(0x10, 0644)
creat(NULL, 000)
creat("/no/\33]0;owned\7\n\r\t\"\\\377\2001\302\233", 0600)
creat("b/", 0600)
creat(0x10000ffd, 0600)
creat(0x10002000, 0600)
creat(0xffffffffffffffff, 0600)
pwrite64(-1, 0x10, 1152921504606846976, -5)
pwrite64(-1, "/bc"…, 1152921504606846976, 0)
pwrite64(-1, "\0\33", 2, 0)
pwrite64(-1, "", 0, 0)
writev(-1, 0x10, 2)
writev(-1, [{0x10, 5}, {"hi", 2}, {"\377\377\377"…, 18446744073709551615}], 3)
writev(-1, 0x10000fd0, 4)
writev(-1, 0x10000fd0, 18446744073709551615)
readv(-1, [{0x10, 5}, {HI, 2}], 2)
connect(-1, 0x10, 16)
connect(-1, {AF_UNIX, "/tmp/\33[2J"}, 12)
connect(-1, {AF_UNIX, unnamed}, 2)
connect(-1, {AF_UNIX, @"a\0b"}, 6)
connect(-1, HI, 1)
connect(-1, HI, -1)
connect(-1, 0x10000ffa, 16)
connect(-1, {family 77, "\33"}, 3)
connect(-1, {AF_INET, 127.0.0.1:80}, 16)
connect(-1, {AF_INET6, [::1]:80}, 28)
execve("/nonexistent/x", 0x10, 0x10)
execve("/nonexistent/x", [0x10, "/\7"], NULL)
execve("/nonexistent/x", 0x10000ff0, 0x10000ff0)
execve("/nonexistent/x", [SHOWN, …], 0x10000000)
dup3(7, -1, O_CLOEXEC)
openat(AT_FDCWD, "/nonexistent/x", O_RDWR|O_CREAT|0x80000000, 0750)
openat(5, "x", 0x3)
tgkill(-1, -1, SIGRT_2)
tgkill(-1, -1, 99)
syscall_-1(0x0, 0x0, 0x0, 0x0, 0x0, 0x0)
x32_syscall_555(0x0, 0x0, 0x0, 0x0, 0x0, 0x0)
"#;

// T33, T35, T39, T40
#[tokio::test]
async fn nothing_that_a_program_passes_breaks_the_trace() {
    let program = c_program("calls", CALLS);
    let output = finish(&mut trace([program])).await;
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    // That each character is printable is seen to there.
    let lines = parse(text(&output.stderr));
    let mut marks = (0..lines.len()).filter(|index| lines[*index].name == "syscall_12345");
    let (begin, end) = (marks.next().unwrap(), marks.next().unwrap());
    assert_eq!(
        lines[begin].arguments,
        "0x1, 0x2, 0x3, 0x4, 0x5, 0x6000000000000000"
    );

    // Addresses that the linker chose stand for themselves.
    let shown = vec!["0x7878787878787878"; 32].join(", ");
    let expected = EXPECTED.replace("SHOWN", &shown);
    let expected: Vec<_> = expected.trim().lines().collect();
    let seen = lines[begin + 1..end]
        .iter()
        .map(|line| format!("{}({})", line.name, line.arguments));
    let seen: Vec<_> = seen.collect();
    assert_eq!(seen.len(), expected.len(), "{seen:#?}");
    for (seen, expected) in seen.iter().zip(expected) {
        match expected.split_once("HI") {
            None => assert_eq!(seen, expected),
            Some((before, after)) => {
                let address = seen
                    .strip_prefix(before)
                    .and_then(|rest| rest.strip_suffix(after));
                assert!(
                    address.is_some_and(|address| address.starts_with("0x5") || address.starts_with("0x4")),
                    "{seen}"
                );
            }
        }
    }
}

/// Calls of the 32-bit ABI: `getpid`, which is 20 there, and `exit`.
const I386: &str = r#"
#include <unistd.h>
int main(void) {
    int pid;
    __asm__ volatile("int $0x80" : "=a"(pid) : "a"(20), "b"(0xabc) : "memory", "r8", "r9", "r10", "r11");
    return pid == getpid() ? 9 : 1;
}
"#;

// T32
#[tokio::test]
async fn calls_of_the_32_bit_abi_run_and_are_told_apart() {
    let program = c_program("i386", I386);
    let plain = Command::new(&program).status().unwrap();
    if plain.code() != Some(9) {
        return println!("skipped: this kernel has no 32-bit calls ({plain})");
    }
    let output = finish(&mut trace([&program])).await;
    assert_eq!(output.status.code(), Some(9));
    let lines = parse(text(&output.stderr));
    let call = lines.iter().find(|line| line.name == "i386_syscall_20").unwrap();
    assert!(call.arguments.starts_with("0xabc, "), "{call:?}");

    // Nobody asked for them here.
    let output = finish(trace(["-e", "getpid"]).arg(&program)).await;
    assert_eq!(output.status.code(), Some(9));
    let lines = parse(text(&output.stderr));
    assert!(lines.iter().all(|line| line.name == "getpid"), "{lines:#?}");
}

/// Kills 200 children while they make calls.
const KILLER: &str = r#"
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) {
    for (int i = 0; i < 200; i++) {
        pid_t child = fork();
        if (child == 0) for (;;) creat("/nonexistent/\33", 0600);
        int status;
        kill(child, SIGKILL);
        if (waitpid(child, &status, 0) != child || !WIFSIGNALED(status)) return 1;
    }
    return 0;
}
"#;

#[tokio::test]
async fn targets_that_die_during_a_look_are_ordinary() {
    let output = finish(trace(["-e", "creat,wait4"]).arg(c_program("killer", KILLER))).await;
    assert_eq!(output.status.code(), Some(0));
    let (mut calls, mut waits) = (0, 0);
    for line in text(&output.stderr).lines() {
        let (_, call) = line.split_once("] ").unwrap();
        let (call, _) = call.split_once(" <").unwrap();
        let (call, answer) = call.split_once(" = ").unwrap();
        assert!(["continued", "gone"].contains(&answer), "{line}");
        // A path that could not be read any more is an address.
        if call == r#"creat("/nonexistent/\33", 0600)"# || call.starts_with("creat(0x") {
            calls += 1;
        } else {
            assert!(call.starts_with("wait4("), "{line}");
            waits += 1;
        }
    }
    assert_eq!(waits, 200);
    println!("{calls} calls of the children were seen");
}
