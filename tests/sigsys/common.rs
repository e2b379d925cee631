//! What these tests share: processes of their own, raw calls, handlers, and looks at this process.

use std::any::type_name;
use std::arch::asm;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;

use asm_tracer::sigsys::{Call, Event, Tracer};
use asm_tracer::{Action, Filter, Sysno, TrappedSyscall};
use nix::libc;

use crate::support::{BOUND, assert_passed, is_child, proc_status, rerun};

/// What [`answer`] gives for `getppid`.
pub(crate) const ANSWER: i64 = 4711;
pub(crate) const SIGSYS_BIT: u64 = bit(libc::SIGSYS);

pub(crate) const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// The name of the test whose body this is.
fn test_of<F>() -> &'static str {
    let name = type_name::<F>().split_once("::").unwrap().1;
    name.strip_suffix("::{{closure}}").unwrap()
}

/// Kills a process that takes too long, which may block every signal that it could set itself.
pub(crate) fn output_of(command: &mut Command) -> Output {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id() as i32;
    let (done, ended) = channel::<()>();
    let guard = std::thread::spawn(move || {
        if ended.recv_timeout(BOUND) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            // SAFETY: it has not been waited for.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    });
    let output = child.wait_with_output().unwrap();
    drop(done);
    guard.join().unwrap();
    output
}

/// This test once more, in a process of its own, also if it is one that is ignored by default.
pub(crate) fn again(test: &str) -> Command {
    let mut command = rerun(test);
    command.arg("--include-ignored");
    command
}

/// Runs the body of a test in a process of its own.
pub(crate) fn alone<F: FnOnce()>(body: F) {
    match is_child() {
        true => body(),
        false => assert_passed(&output_of(&mut again(test_of::<F>()))),
    }
}

/// Runs the body of a test in a process of its own, which is to die of this signal at the last step of the body.
pub(crate) fn dies_of<F: FnOnce()>(signal: i32, body: F) {
    if is_child() {
        body();
        panic!("the process is still there");
    }
    let output = output_of(&mut again(test_of::<F>()));
    assert_eq!(output.status.signal(), Some(signal), "{output:?}");
}

/// Makes a system call from one place, with nothing in between.
#[inline(never)]
pub(crate) fn raw(number: i64, args: [i64; 6]) -> i64 {
    let result;
    // SAFETY: the tests make calls that are harmless to Rust.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

pub(crate) fn call(number: Sysno, args: &[i64]) -> i64 {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    raw(number.id().into(), all)
}

/// The address of something for a system call.
pub(crate) fn at<T>(thing: &T) -> i64 {
    std::ptr::from_ref(thing) as i64
}

pub(crate) fn at_mut<T>(thing: &mut T) -> i64 {
    std::ptr::from_mut(thing) as i64
}

pub(crate) fn error(errno: i32) -> i64 {
    -i64::from(errno)
}

/// Answers `getppid`, and lets everything else run.
pub(crate) fn answer(call: &mut TrappedSyscall) -> Option<i64> {
    (call.sysno() == Some(Sysno::getppid)).then_some(ANSWER)
}

/// The usual way to know that tracing works: only the hook gives this answer.
#[track_caller]
pub(crate) fn assert_traced() {
    assert_eq!(call(Sysno::getppid, &[]), ANSWER);
}

/// Traces `getppid`, which is [`answer`]ed.
pub(crate) fn trace_getppid() -> Tracer {
    let builder = Tracer::builder().trap(Sysno::getppid).hook(answer);
    builder.install().unwrap()
}

/// Everything, but for the calls through other ABIs.
pub(crate) fn everything() -> Filter {
    Filter::trap_all().foreign_abi(Action::Allow)
}

/// The calls that were traced since the last time.
pub(crate) fn calls_of(tracer: &Tracer) -> Vec<Call> {
    let events = tracer.drain().unwrap().into_iter();
    let calls = events.map(|event| match event {
        Event::Call(call) => call,
        other => panic!("{other:?}"),
    });
    calls.collect()
}

/// A hexadecimal mask of `/proc/thread-self/status`.
pub(crate) fn own_status(field: &str) -> Option<String> {
    // SAFETY: asks for a number.
    let thread = unsafe { libc::gettid() };
    proc_status(thread as u32, field)
}

/// The mask of this thread as the kernel has it.
pub(crate) fn blocked() -> u64 {
    u64::from_str_radix(&own_status("SigBlk").unwrap(), 16).unwrap()
}

/// The kernel's `struct sigaction`: handler, flags, restorer, mask.
pub(crate) type KernelAction = [u64; 4];

/// `SA_RESTORER` of `asm/signal.h`.
pub(crate) const RESTORER: u64 = 0x0400_0000;

pub(crate) fn kernel_action(signal: i32) -> KernelAction {
    let mut action = [0; 4];
    let result = call(Sysno::rt_sigaction, &[signal.into(), 0, at_mut(&mut action), 8]);
    assert_eq!(result, 0);
    action
}

/// Sets a handler through the C library, which blocks these signals while it runs.
pub(crate) fn handle(signal: i32, handler: usize, flags: i32, mask: u64) {
    // SAFETY: an action is plain data; the kernel's mask is the first eight bytes of the C library's.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        (&raw mut action.sa_mask).cast::<u64>().write(mask);
        assert_eq!(
            libc::sigaction(signal, &raw const action, std::ptr::null_mut()),
            0
        );
    }
}

/// Sends a signal to this thread, by a call that is not traced unless `tgkill` is.
pub(crate) fn raise(signal: i32) {
    // SAFETY: asks for numbers.
    let (process, thread) = unsafe { (libc::getpid(), libc::gettid()) };
    let sent = call(Sysno::tgkill, &[process.into(), thread.into(), signal.into()]);
    assert_eq!(sent, 0);
}

/// Sets the mask of this thread, by the raw call.
pub(crate) fn set_mask(mask: u64) {
    let how = libc::SIG_SETMASK.into();
    assert_eq!(call(Sysno::rt_sigprocmask, &[how, at(&mask), 0, 8]), 0);
}

/// Takes away the alternate stack that Rust gives its threads: two frames of a signal with AVX-512 and two handlers that
/// are not optimized don't fit into its 8 KiB (P22).
pub(crate) fn without_alternate_stack() {
    let none = libc::stack_t {
        ss_sp: std::ptr::null_mut(),
        ss_flags: libc::SS_DISABLE,
        ss_size: 0,
    };
    // SAFETY: nothing is on that stack.
    let changed = unsafe { libc::sigaltstack(&raw const none, std::ptr::null_mut()) };
    assert_eq!(changed, 0);
}
