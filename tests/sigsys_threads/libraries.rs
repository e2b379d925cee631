use std::arch::global_asm;
use std::ffi::c_void;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed};

use asm_tracer::sigsys::{Event, Tracer};
use asm_tracer::{Sysno, TrappedSyscall};
use nix::libc;

use crate::{counting, handle, in_gate, isolated, pipe, register, send, shown, until_blocked_in, write_byte};

global_asm!(
    // What a thread of C would be: the C library unwinds it when it is cancelled.
    ".globl cancelled_reader",
    "cancelled_reader:",
    ".cfi_startproc",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "mov rbp, rsp",
    ".cfi_def_cfa_register rbp",
    "sub rsp, 16",
    "mov rsi, rsp",
    "mov edx, 1",
    "call read@PLT",
    "leave",
    ".cfi_def_cfa rsp, 8",
    "ret",
    ".cfi_endproc",
    // A call from a function with a frame pointer: read(rdi, rsi, 1), with the last argument from rdx.
    "framed_read:",
    "push rbp",
    "mov rbp, rsp",
    "mov r9, rdx",
    "mov edx, 1",
    "xor eax, eax",
    "syscall",
    ".globl framed_read_returns",
    "framed_read_returns:",
    "pop rbp",
    "ret",
    // And one that calls it.
    ".globl framed_caller",
    "framed_caller:",
    "push rbp",
    "mov rbp, rsp",
    "call framed_read",
    ".globl framed_caller_goes_on",
    "framed_caller_goes_on:",
    "pop rbp",
    "ret",
);

unsafe extern "C" {
    fn cancelled_reader(fd: *mut c_void) -> *mut c_void;
    fn framed_caller(fd: i32, buffer: *mut u8, last: u64) -> i64;
    fn framed_read_returns();
    fn framed_caller_goes_on();
    fn pthread_cancel(thread: libc::pthread_t) -> i32;
}

// P31: the C library of up to 2.40 has a thread that may be cancelled at any place run its clean-up wherever it is. From 2.41
// on it does that only between two marks around its own instruction, and a read that is blocked in the gate goes on
// until it returns. This test is for the former.
#[test]
fn a_thread_is_cancelled_in_a_traced_call() {
    isolated("libraries::a_thread_is_cancelled_in_a_traced_call", || {
        // SAFETY: it is a string.
        let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
        let minor = version
            .to_str()
            .unwrap()
            .split('.')
            .nth(1)
            .unwrap()
            .parse::<u32>();
        if minor.unwrap() >= 41 {
            eprintln!("not run with {version:?}");
            return;
        }
        let _tracer = Tracer::builder()
            .trap(crate::every_call())
            .hook(crate::rewriting)
            .install()
            .unwrap();
        for _ in 0..20 {
            let [reader, writer] = pipe();
            let before = threads();
            // SAFETY: the thread is joined before the pipe is closed.
            unsafe {
                let mut thread = 0;
                let fd = std::ptr::without_provenance_mut(reader as usize);
                let body: extern "C" fn(*mut c_void) -> *mut c_void =
                    std::mem::transmute(cancelled_reader as *const ());
                assert_eq!(libc::pthread_create(&mut thread, std::ptr::null(), body, fd), 0);
                let new = threads().into_iter().find(|thread| !before.contains(thread));
                assert!(in_gate(until_blocked_in(new.unwrap(), Sysno::read)));
                assert_eq!(pthread_cancel(thread), 0);
                let mut result = std::ptr::null_mut();
                assert_eq!(libc::pthread_join(thread, &mut result), 0);
                // PTHREAD_CANCELED
                assert_eq!(result.addr(), usize::MAX);
                libc::close(reader);
                libc::close(writer);
            }
        }
    });
}

fn threads() -> Vec<i32> {
    let directory = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
    directory
        .map(|entry| name(entry).to_str().unwrap().parse().unwrap())
        .collect()
}

// P32: a handler finds the stack of the program as if the call had been made in its place, but for the innermost address,
// which is in the gate. So frame pointers lead to the caller of the function that made the call, which itself is missing.
// An unwinder that goes by tables ends at the gate, which has none.
#[test]
fn a_handler_sees_the_frames_of_a_traced_call() {
    static PLACE: AtomicU64 = AtomicU64::new(0);
    static RETURNS_TO: AtomicU64 = AtomicU64::new(0);
    static TOP: AtomicU64 = AtomicU64::new(0);
    static UNWOUND: AtomicU64 = AtomicU64::new(0);
    unsafe extern "C" {
        fn _Unwind_Backtrace(
            each: extern "C" fn(*mut c_void, *mut c_void) -> i32,
            argument: *mut c_void,
        ) -> i32;
    }
    extern "C" fn each(_: *mut c_void, _: *mut c_void) -> i32 {
        // An endless one is stopped.
        i32::from(UNWOUND.fetch_add(1, Relaxed) > 100)
    }
    extern "C" fn on_signal(_: i32, _: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
        // SAFETY: in these calls, rbp leads to the frame of what made them.
        unsafe {
            let frame = register(context, libc::REG_RBP) as *const u64;
            RETURNS_TO.store(frame.add(1).read(), Relaxed);
            TOP.store((register(context, libc::REG_RSP) as *const u64).read(), Relaxed);
            // The thread is in a call of its own and holds no lock of the unwinder's.
            _Unwind_Backtrace(each, std::ptr::null_mut());
        }
        PLACE.store(register(context, libc::REG_RIP), Relaxed);
    }
    static FD: AtomicI32 = AtomicI32::new(-1);
    /// Another descriptor in place of one that is none.
    fn redirect(call: &mut TrappedSyscall) -> Option<i64> {
        if call.args[5].cast_unsigned() == crate::REWRITE {
            call.args[0] = FD.load(Relaxed).into();
        }
        None
    }
    isolated("libraries::a_handler_sees_the_frames_of_a_traced_call", || {
        let [reader, writer] = pipe();
        FD.store(reader, Relaxed);
        handle(libc::SIGUSR1, libc::SA_RESTART, on_signal);
        let id = AtomicI32::new(0);
        // The unwinder reads its tables before it is in a handler.
        // SAFETY: it goes over this stack.
        unsafe { _Unwind_Backtrace(each, std::ptr::null_mut()) };
        std::thread::scope(|scope| {
            let blocked = scope.spawn(|| {
                let _tracer = Tracer::builder()
                    .trap([Sysno::read])
                    .hook(redirect)
                    .install()
                    .unwrap();
                id.store(crate::thread_id(), Relaxed);
                for (fd, last) in [(reader, 0), (-1, crate::REWRITE)] {
                    let mut byte = 0;
                    // SAFETY: the kernel writes one byte.
                    assert_eq!(unsafe { framed_caller(fd, &mut byte, last) }, 1);
                }
            });
            crate::support::until_blocking("the thread is there", || id.load(Relaxed) != 0);
            for rewritten in [false, true] {
                let thread = id.load(Relaxed);
                UNWOUND.store(0, Relaxed);
                PLACE.store(0, Relaxed);
                assert!(in_gate(until_blocked_in(thread, Sysno::read)));
                send(thread, libc::SIGUSR1);
                crate::support::until_blocking("the handler has run", || PLACE.load(Relaxed) != 0);
                assert!(in_gate(PLACE.load(Relaxed)));
                assert_eq!(
                    RETURNS_TO.load(Relaxed),
                    framed_caller_goes_on as *const () as u64
                );
                if rewritten {
                    // On top there is the frame that the gate goes back by.
                    assert_eq!(TOP.load(Relaxed), framed_read_returns as *const () as u64);
                }
                let unwound = UNWOUND.load(Relaxed);
                assert!((1..100).contains(&unwound), "{unwound} frames");
                until_blocked_in(thread, Sysno::read);
                write_byte(writer);
                if !rewritten {
                    // Not to send the second signal to the first call.
                    crate::support::until_blocking("the byte was read", || unread(reader) == 0);
                }
            }
            blocked.join().unwrap();
        });
    });
}

fn unread(fd: i32) -> i32 {
    let mut bytes = 0;
    // SAFETY: the kernel writes a number.
    assert_eq!(unsafe { libc::ioctl(fd, libc::FIONREAD, &mut bytes) }, 0);
    bytes
}

/// Delivered and lost, as the events say.
fn accounted(events: &[Event]) -> u64 {
    let of = |event: &Event| match event {
        Event::Lost(calls) => *calls,
        _ => 1,
    };
    events.iter().map(of).sum()
}

// P34: locks that threads wait for by traced calls, with a hook that only counts, and a consumer that allocates.
#[test]
fn threads_contend_for_locks_with_traced_futexes() {
    isolated("libraries::threads_contend_for_locks_with_traced_futexes", || {
        const THREADS: u64 = 8;
        const ROUNDS: u64 = 5_000;
        let tracer = Tracer::builder()
            .trap([Sysno::futex, Sysno::sched_yield])
            .hook(counting)
            .install()
            .unwrap();
        let (sum, done) = (Mutex::new(0_u64), AtomicBool::new(false));
        let delivered = std::thread::scope(|scope| {
            let consumer = scope.spawn(|| {
                let mut delivered = 0;
                while !done.load(Relaxed) {
                    delivered += accounted(&tracer.drain().unwrap());
                }
                delivered
            });
            let threads = [(); THREADS as usize].map(|()| {
                scope.spawn(|| {
                    for round in 0..ROUNDS {
                        let mut sum = sum.lock().unwrap();
                        if round % 16 == 0 {
                            // Others come to wait.
                            std::thread::yield_now();
                        }
                        *sum += 1;
                    }
                })
            });
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            done.store(true, Relaxed);
            consumer.join().unwrap()
        });
        assert_eq!(*sum.lock().unwrap(), THREADS * ROUNDS);
        assert!(shown(Sysno::futex) > 0);
        assert!(shown(Sysno::sched_yield) >= THREADS * ROUNDS / 16);
        let delivered = delivered + accounted(&tracer.drain().unwrap());
        let statistics = tracer.statistics();
        assert_eq!(statistics.settled, statistics.attempts);
        assert_eq!(delivered, statistics.attempts);
    });
}

// P34: the allocator is in the middle of its work when its calls are traced.
#[test]
fn threads_allocate_with_the_calls_of_the_allocator_traced() {
    isolated(
        "libraries::threads_allocate_with_the_calls_of_the_allocator_traced",
        || {
            let calls = [
                Sysno::brk,
                Sysno::mmap,
                Sysno::munmap,
                Sysno::mremap,
                Sysno::mprotect,
                Sysno::madvise,
                Sysno::futex,
            ];
            let tracer = Tracer::builder().trap(calls).hook(counting).install().unwrap();
            let done = AtomicBool::new(false);
            let delivered = std::thread::scope(|scope| {
                let consumer = scope.spawn(|| {
                    let mut delivered = 0;
                    while !done.load(Relaxed) {
                        delivered += accounted(&tracer.drain().unwrap());
                    }
                    delivered
                });
                let threads = [0_u8, 1, 2, 3, 4, 5, 6, 7].map(|thread| {
                    scope.spawn(move || {
                        let mut kept = Vec::new();
                        for round in 0..600_usize {
                            // Of the allocator's own memory, and of mappings of their own, which grow.
                            kept.push(vec![thread; 1 + round * 37 % 3_000]);
                            let mut large = vec![thread; 150_000 + round];
                            large.resize(400_000, thread);
                            assert!(large.iter().all(|byte| *byte == thread));
                            if round % 64 == 63 {
                                assert!(kept.iter().flatten().all(|byte| *byte == thread));
                                kept.clear();
                            }
                        }
                    })
                });
                threads.into_iter().for_each(|thread| thread.join().unwrap());
                done.store(true, Relaxed);
                consumer.join().unwrap()
            });
            assert!(shown(Sysno::mmap) > 0 && shown(Sysno::mprotect) > 0);
            let delivered = delivered + accounted(&tracer.drain().unwrap());
            let statistics = tracer.statistics();
            assert_eq!(statistics.settled, statistics.attempts);
            assert_eq!(delivered, statistics.attempts);
        },
    );
}
