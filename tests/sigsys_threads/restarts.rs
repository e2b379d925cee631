use std::arch::global_asm;
use std::ffi::c_void;
use std::io::Read as _;
use std::process::Stdio;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use asm_tracer::Sysno;
use asm_tracer::sigsys::Tracer;
use nix::libc;

use crate::support::{assert_passed, is_child, rerun, state, until_blocking};
use crate::{
    blocked_in, count, handle, in_gate, isolated, limit_this_process, pipe, register, send, thread_id,
    until_blocked_in, write_byte,
};

static TICKS: AtomicU64 = AtomicU64::new(0);

extern "C" fn tick(_: i32, _: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    if in_gate(register(context, libc::REG_RIP)) {
        TICKS.fetch_add(1, Relaxed);
    }
}

/// Reads a byte on a traced thread that `disturb` is told of; gives the result, the error and the number of events.
fn traced_read(reader: i32, disturb: impl FnOnce(i32)) -> (isize, i32, usize) {
    let id = AtomicI32::new(0);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let tracer = Tracer::builder().trap([Sysno::read]).install().unwrap();
            id.store(thread_id(), Relaxed);
            let mut byte = 0_u8;
            // SAFETY: the kernel writes one byte.
            let result = unsafe { libc::read(reader, (&raw mut byte).cast(), 1) };
            let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
            (result, error, count(&tracer.drain().unwrap(), Sysno::read))
        });
        until_blocking("the thread is there", || id.load(Relaxed) != 0);
        disturb(id.load(Relaxed));
        thread.join().unwrap()
    })
}

// P26: the kernel goes back to the gate's own instruction.
#[test]
fn a_call_is_restarted_without_another_event() {
    isolated("restarts::a_call_is_restarted_without_another_event", || {
        let [reader, writer] = pipe();
        handle(libc::SIGUSR1, libc::SA_RESTART, tick);
        let (result, _, events) = traced_read(reader, |thread| {
            for signal in 1..=20 {
                assert!(in_gate(until_blocked_in(thread, Sysno::read)));
                send(thread, libc::SIGUSR1);
                until_blocking("the handler has run", || TICKS.load(Relaxed) == signal);
            }
            until_blocked_in(thread, Sysno::read);
            write_byte(writer);
        });
        assert_eq!((result, events), (1, 1));
    });
}

// P27
#[test]
fn a_call_is_interrupted() {
    isolated("restarts::a_call_is_interrupted", || {
        let [reader, _writer] = pipe();
        handle(libc::SIGUSR1, 0, tick);
        let (result, error, events) = traced_read(reader, |thread| {
            until_blocked_in(thread, Sysno::read);
            send(thread, libc::SIGUSR1);
        });
        assert_eq!((result, error, events), (-1, libc::EINTR, 1));
        assert_eq!(TICKS.load(Relaxed), 1);
    });
}

// P28: the kernel makes `restart_syscall` in the gate.
#[test]
fn a_sleep_goes_on_after_a_stop() {
    const NAME: &str = "restarts::a_sleep_goes_on_after_a_stop";
    const SLEEP: Duration = Duration::from_millis(700);
    if is_child() {
        limit_this_process();
        let tracer = Tracer::builder()
            .trap([Sysno::nanosleep, Sysno::restart_syscall])
            .install()
            .unwrap();
        let time = libc::timespec {
            tv_sec: 0,
            tv_nsec: SLEEP.as_nanos() as i64,
        };
        let none: *mut libc::timespec = std::ptr::null_mut();
        let start = Instant::now();
        // SAFETY: the kernel reads a time.
        let slept = unsafe { libc::syscall(libc::SYS_nanosleep, &time, none) };
        let elapsed = start.elapsed();
        assert_eq!(slept, 0);
        assert!(elapsed >= SLEEP, "{elapsed:?}");
        println!("slept {}", elapsed.as_millis());
        let events = tracer.drain().unwrap();
        assert_eq!(count(&events, Sysno::nanosleep), 1);
        assert_eq!(count(&events, Sysno::restart_syscall), 0);
        return;
    }
    let start = Instant::now();
    let mut child = rerun(NAME)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let process = child.id();
    // SAFETY: they send signals to a child that has not been waited for.
    let signal = |signal| assert_eq!(unsafe { libc::kill(process as i32, signal) }, 0);
    let sleeper = || {
        let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
        let threads = tasks.map(|task| {
            task.unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .parse::<i32>()
                .unwrap()
        });
        let sleeps = |call: Option<(i64, u64)>| {
            matches!(call, Some((libc::SYS_nanosleep | libc::SYS_restart_syscall, _)))
        };
        threads
            .into_iter()
            .find(|thread| sleeps(blocked_in(process, *thread)))
    };
    let mut thread = None;
    until_blocking("the child sleeps", || {
        thread = sleeper();
        thread.is_some()
    });
    let before = start.elapsed();
    let mut restarted = 0;
    for _ in 0..3 {
        signal(libc::SIGSTOP);
        until_blocking("the child is stopped", || state(process) == Some('T'));
        signal(libc::SIGCONT);
        until_blocking("the child goes on", || state(process) != Some('T'));
        let is_in = blocked_in(process, thread.unwrap());
        restarted += u32::from(matches!(is_in, Some((libc::SYS_restart_syscall, _))));
    }
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    let total = start.elapsed();
    let mut result = child.wait_with_output().unwrap();
    result.stdout = output.clone().into_bytes();
    assert_passed(&result);
    let slept = output
        .lines()
        .find_map(|line| line.split("slept ").nth(1)?.parse::<u64>().ok());
    // It did not start anew each time.
    let slept = Duration::from_millis(slept.unwrap());
    let twice = SLEEP + Duration::from_millis(200);
    assert!(
        slept < twice || total - before > twice,
        "{slept:?}, restarted {restarted} times"
    );
}

global_asm!(
    // Reads a byte into `rsi`; gives 0 when it has, and 1 after a jump out of it. The frame is of assembly alone.
    ".globl read_or_jump",
    "read_or_jump:",
    "push rbx",
    "push r12",
    "push r13",
    "mov rbx, rdi",
    "mov r12, rsi",
    "mov rdi, rdx",
    "mov esi, 1", // with the mask
    "call __sigsetjmp@PLT",
    "test eax, eax",
    "jnz 2f",
    "mov rdi, rbx",
    "mov rsi, r12",
    "mov edx, 1",
    "xor r9d, r9d",
    "xor eax, eax",
    "syscall",
    "xor eax, eax",
    "2: pop r13",
    "pop r12",
    "pop rbx",
    "ret",
);

/// `sigjmp_buf`
#[repr(C, align(16))]
struct Jump([u64; 32]);

unsafe extern "C" {
    fn read_or_jump(fd: i64, buffer: *mut u8, jump: *mut Jump) -> i32;
    fn siglongjmp(jump: *mut Jump, value: i32) -> !;
}

// P29: nobody waits for a call to come back.
#[test]
fn a_handler_jumps_out_of_a_call() {
    static JUMP: AtomicU64 = AtomicU64::new(0);
    extern "C" fn jump(_: i32, _: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
        tick(0, std::ptr::null_mut(), context);
        // SAFETY: no frame between here and there has anything to drop.
        unsafe { siglongjmp(JUMP.load(Relaxed) as *mut Jump, 1) }
    }
    static FD: AtomicI32 = AtomicI32::new(-1);
    fn redirect(call: &mut asm_tracer::TrappedSyscall) -> Option<i64> {
        if call.sysno() == Some(Sysno::read) && call.args[0] == 1_000_000 {
            call.args[0] = FD.load(Relaxed).into();
        }
        None
    }
    isolated("restarts::a_handler_jumps_out_of_a_call", || {
        const JUMPS: u64 = 20;
        let [reader, writer] = pipe();
        FD.store(reader, Relaxed);
        handle(libc::SIGUSR1, 0, jump);
        let (id, round) = (AtomicI32::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let tracer = Tracer::builder()
                    .trap([Sysno::read])
                    .hook(redirect)
                    .install()
                    .unwrap();
                let mut buffer = Box::new(Jump([0; 32]));
                JUMP.store((&raw mut *buffer).expose_provenance() as u64, Relaxed);
                id.store(thread_id(), Relaxed);
                let mut byte = 0;
                for number in 1..=2 * JUMPS {
                    // Through the table, and from then on as another call.
                    let fd = if number <= JUMPS { reader.into() } else { 1_000_000 };
                    // SAFETY: the kernel writes one byte.
                    assert_eq!(unsafe { read_or_jump(fd, &mut byte, &raw mut *buffer) }, 1);
                    round.store(number, Relaxed);
                }
                // SAFETY: as above.
                assert_eq!(
                    unsafe { read_or_jump(reader.into(), &mut byte, &raw mut *buffer) },
                    0
                );
                count(&tracer.drain().unwrap(), Sysno::read)
            });
            until_blocking("the thread is there", || id.load(Relaxed) != 0);
            let id = id.load(Relaxed);
            for number in 1..=2 * JUMPS {
                until_blocked_in(id, Sysno::read);
                send(id, libc::SIGUSR1);
                until_blocking("it has jumped", || round.load(Relaxed) == number);
                assert_eq!(TICKS.load(Relaxed), number);
            }
            until_blocked_in(id, Sysno::read);
            write_byte(writer);
            assert_eq!(thread.join().unwrap(), 2 * JUMPS as usize + 1);
        });
    });
}

global_asm!(
    ".globl read_or_land",
    "read_or_land:", // rdi = fd, rsi = buffer
    "push rbx",
    "xor eax, eax",
    "mov edx, 1",
    "syscall",
    "xor eax, eax",
    "pop rbx",
    "ret",
    ".globl landing",
    "landing:",
    "mov eax, 1",
    "pop rbx",
    "ret",
);

// P29, P30: a handler that goes on elsewhere by changing what it returns to, which is in the gate.
#[test]
fn a_handler_sends_the_thread_elsewhere() {
    unsafe extern "C" {
        fn read_or_land(fd: i32, buffer: *mut c_void) -> i32;
        fn landing();
    }
    extern "C" fn land(_: i32, _: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
        tick(0, std::ptr::null_mut(), context);
        // SAFETY: through the table, the stack is as `read_or_land` has left it.
        unsafe {
            (&mut (*context).uc_mcontext.gregs)[libc::REG_RIP as usize] = landing as *const () as i64;
        }
    }
    isolated("restarts::a_handler_sends_the_thread_elsewhere", || {
        let [reader, _writer] = pipe();
        handle(libc::SIGUSR1, 0, land);
        let (id, round) = (AtomicI32::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let _tracer = Tracer::builder().trap([Sysno::read]).install().unwrap();
                id.store(thread_id(), Relaxed);
                let mut byte = 0_u8;
                for number in 1..=20 {
                    // SAFETY: the kernel writes one byte.
                    assert_eq!(unsafe { read_or_land(reader, (&raw mut byte).cast()) }, 1);
                    round.store(number, Relaxed);
                }
            });
            until_blocking("the thread is there", || id.load(Relaxed) != 0);
            let id = id.load(Relaxed);
            for number in 1..=20 {
                until_blocked_in(id, Sysno::read);
                send(id, libc::SIGUSR1);
                until_blocking("it has landed", || round.load(Relaxed) == number);
            }
            thread.join().unwrap();
        });
        assert_eq!(TICKS.load(Relaxed), 20);
    });
}
