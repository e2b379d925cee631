//! Every call of `syscall` in a signal handler that has interrupted the allocator and can't use thread-local storage.
//!
//! The allocator of this program raises the signal in the middle of its work. While its handler runs, it counts what
//! anybody else wants of it, and the thread has no thread-local storage: any use of it is a segmentation fault.
#![allow(unsafe_code)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::{self, Write as _};
use std::hint::black_box;
use std::io::{IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::offset_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicPtr, AtomicU64, AtomicUsize, Ordering::SeqCst};

use asm_tracer::syscall::*;
use asm_tracer::{Errno, Signal, SignalNumber};
use nix::libc;
use support::{in_process_of_its_own, is_child, rerun};

/// The thread that is to be interrupted in the allocator, and the one whose handler runs; 0 for none.
static ARMED: AtomicI64 = AtomicI64::new(0);
static BUSY: AtomicI64 = AtomicI64::new(0);
/// What came to the allocator while it was busy.
static WHILE_BUSY: AtomicUsize = AtomicUsize::new(0);

struct Interrupted;

#[global_allocator]
static ALLOCATOR: Interrupted = Interrupted;

impl Interrupted {
    /// Raises the signal if this thread is to be interrupted. Tells whether the handler may go on to the allocator.
    fn enter(&self) -> bool {
        if ARMED.load(SeqCst) == 0 && BUSY.load(SeqCst) == 0 {
            return true;
        }
        // SAFETY: these touch no memory, and the signal has a handler.
        let thread = unsafe { raw_syscall0(libc::SYS_gettid) };
        if BUSY.load(SeqCst) == thread {
            WHILE_BUSY.fetch_add(1, SeqCst);
            return false;
        }
        if ARMED.compare_exchange(thread, 0, SeqCst, SeqCst).is_ok() {
            BUSY.store(thread, SeqCst);
            let signal = libc::SIGUSR1.into();
            // SAFETY: as above.
            unsafe {
                let process = raw_syscall0(libc::SYS_getpid);
                raw_syscall3(libc::SYS_tgkill, process, thread, signal);
            }
            BUSY.store(0, SeqCst);
        }
        true
    }
}

// SAFETY: it is the system's allocator, or has no memory left.
unsafe impl GlobalAlloc for Interrupted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.enter() {
            // SAFETY: the caller keeps the promises.
            true => unsafe { System.alloc(layout) },
            false => std::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if self.enter() {
            // SAFETY: the caller keeps the promises.
            unsafe { System.dealloc(memory, layout) }
        }
    }
}

const ARCH_SET_FS: i64 = 0x1002;
const ARCH_GET_FS: i64 = 0x1003;

/// What `errno` is before the handler's work.
const ERRNO: i32 = 12345;
/// What it is afterwards; 0 if the handler did not run.
static ERRNO_AFTERWARDS: AtomicI32 = AtomicI32::new(0);

/// What the handler does.
static WORK: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());

extern "C" fn on_signal(_: i32) {
    // SAFETY: it is a `fn()` that `interrupt` put there.
    let work: fn() = unsafe { std::mem::transmute(WORK.load(SeqCst)) };
    let mut storage = 0_u64;
    // SAFETY: this thread's `errno` and thread-local storage are as they were when it goes on.
    unsafe {
        let errno = libc::__errno_location();
        let before = errno.replace(ERRNO);
        let to = (&raw mut storage).expose_provenance() as i64;
        raw_syscall2(libc::SYS_arch_prctl, ARCH_GET_FS, to);
        raw_syscall2(libc::SYS_arch_prctl, ARCH_SET_FS, 0);
        work();
        raw_syscall2(libc::SYS_arch_prctl, ARCH_SET_FS, storage.cast_signed());
        ERRNO_AFTERWARDS.store(errno.replace(before), SeqCst);
    }
}

/// Does the work in the handler, in the middle of an allocation of this thread.
fn interrupt(work: fn()) {
    WORK.store(work as *mut (), SeqCst);
    // SAFETY: all fields are integers or pointers, for which zero is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as *const () as usize;
    // SAFETY: the handler does what each test is about.
    let set = unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) };
    assert_eq!(set, 0);
    // SAFETY: it touches no memory.
    ARMED.store(unsafe { raw_syscall0(libc::SYS_gettid) }, SeqCst);
    drop(black_box(Box::new(0_u64)));
    assert_eq!((ARMED.load(SeqCst), BUSY.load(SeqCst)), (0, 0));
}

/// The numbers that the handler needs: this process, a `cat` that waits for input, and the ends of a pipe.
static PROCESS: AtomicI32 = AtomicI32::new(0);
static CAT: AtomicI32 = AtomicI32::new(0);
static READER: AtomicI32 = AtomicI32::new(-1);
static WRITER: AtomicI32 = AtomicI32::new(-1);
/// What one call found out for a later one.
static STACK: AtomicU64 = AtomicU64::new(0);
static WORD: AtomicU64 = AtomicU64::new(0);

/// A result as the kernel would have returned it.
fn raw<T>(result: Result<T, SyscallError>, value: impl FnOnce(T) -> i64) -> i64 {
    match result {
        Ok(result) => value(result),
        Err(error) => -i64::from(error.raw_os_error()),
    }
}

fn done(result: Result<(), SyscallError>) -> i64 {
    raw(result, |()| 0)
}

fn number(result: Result<i64, SyscallError>) -> i64 {
    raw(result, |number| number)
}

fn length(result: Result<usize, SyscallError>) -> i64 {
    raw(result, |length| length as i64)
}

/// 0 for what must be so, 1 for what is not.
fn check(holds: bool) -> i64 {
    i64::from(!holds)
}

fn process() -> i64 {
    PROCESS.load(SeqCst).into()
}

fn cat() -> i32 {
    CAT.load(SeqCst)
}

fn descriptor(number: &AtomicI32) -> BorrowedFd<'_> {
    // SAFETY: the test keeps it open.
    unsafe { BorrowedFd::borrow_raw(number.load(SeqCst)) }
}

fn no_descriptor() -> BorrowedFd<'static> {
    // SAFETY: there is none with this number.
    unsafe { BorrowedFd::borrow_raw(i32::MAX) }
}

fn trace(request: PtraceRequest<'_>) -> i64 {
    number(ptrace(cat(), request))
}

/// Waits for the tracee's stop: 0 if it has.
fn stopped() -> i64 {
    raw(wait4(cat(), WaitOptions::ALL), |waited| {
        check(waited.is_some_and(|waited| waited.status.stopped_signal().is_some()))
    })
}

/// Stops the tracee where it waits for input, once it has been there.
fn interrupted() -> i64 {
    match trace(PtraceRequest::Interrupt) {
        0 => stopped(),
        error => error,
    }
}

/// What is formatted, without memory of the allocator.
struct Text {
    bytes: [u8; 64],
    length: usize,
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        let room = self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// 0 if that is what it looks like.
fn reads(arguments: fmt::Arguments<'_>, expected: &str) -> i64 {
    let mut text = Text {
        bytes: [0; 64],
        length: 0,
    };
    let written = text.write_fmt(arguments).is_ok();
    check(written && text.bytes.get(..text.length) == Some(expected.as_bytes()))
}

const READ_WRITE: Protection = Protection::READ.union(Protection::WRITE);
const EBADF: i64 = -(Errno::EBADF as i64);
const EINVAL: i64 = -(Errno::EINVAL as i64);
const ENOENT: i64 = -(Errno::ENOENT as i64);
const EPERM: i64 = -(Errno::EPERM as i64);
const ESRCH: i64 = -(Errno::ESRCH as i64);
const ECHILD: i64 = -(Errno::ECHILD as i64);
const EFAULT: i64 = -(Errno::EFAULT as i64);

/// A call, what it does, and what comes of it.
type Case = (&'static str, fn() -> i64, i64);

/// In the order in which they are made.
#[expect(
    clippy::undocumented_unsafe_blocks,
    reason = "the calls by number touch no memory, and what is closed or unmapped is not there"
)]
static CASES: &[Case] = &[
    (
        "raw_syscall0",
        || unsafe { raw_syscall0(libc::SYS_getpid) } - process(),
        0,
    ),
    (
        "raw_syscall1",
        || unsafe { raw_syscall1(libc::SYS_close, -1) },
        EBADF,
    ),
    (
        "raw_syscall2",
        || unsafe { raw_syscall2(libc::SYS_kill, process(), 0) },
        0,
    ),
    (
        "raw_syscall3",
        || unsafe { raw_syscall3(libc::SYS_write, -1, 0, 0) },
        EBADF,
    ),
    (
        "raw_syscall4",
        || unsafe { raw_syscall4(libc::SYS_pread64, -1, 0, 0, 0) },
        EBADF,
    ),
    (
        "raw_syscall5",
        || unsafe { raw_syscall5(libc::SYS_prctl, -1, 0, 0, 0, 0) },
        EINVAL,
    ),
    (
        "raw_syscall6",
        || unsafe { raw_syscall6(libc::SYS_mmap, 0, 0, 0, 0x22, -1, 0) },
        EINVAL,
    ),
    (
        "syscall0",
        || number(unsafe { syscall0(libc::SYS_getpid) }) - process(),
        0,
    ),
    (
        "syscall1",
        || number(unsafe { syscall1(libc::SYS_close, -1) }),
        EBADF,
    ),
    (
        "syscall2",
        || number(unsafe { syscall2(libc::SYS_kill, process(), 0) }),
        0,
    ),
    (
        "syscall3",
        || number(unsafe { syscall3(libc::SYS_write, -1, 0, 0) }),
        EBADF,
    ),
    (
        "syscall4",
        || number(unsafe { syscall4(libc::SYS_pread64, -1, 0, 0, 0) }),
        EBADF,
    ),
    (
        "syscall5",
        || number(unsafe { syscall5(libc::SYS_prctl, -1, 0, 0, 0, 0) }),
        EINVAL,
    ),
    (
        "syscall6",
        || number(unsafe { syscall6(libc::SYS_mmap, 0, 0, 0, 0x22, -1, 0) }),
        EINVAL,
    ),
    ("open, close", opens_and_closes, 0),
    (
        "open nothing",
        || raw(open(c"/nonexistent", OpenFlags::READ_ONLY, Mode::new(0)), keep),
        ENOENT,
    ),
    (
        "close nothing",
        || done(close(unsafe { OwnedFd::from_raw_fd(i32::MAX) })),
        EBADF,
    ),
    ("write", || length(write(descriptor(&WRITER), b"hello")), 5),
    (
        "write nowhere",
        || length(write(no_descriptor(), b"hello")),
        EBADF,
    ),
    ("read", reads_what_was_written, 5),
    (
        "read nowhere",
        || length(read(no_descriptor(), &mut [0; 8])),
        EBADF,
    ),
    ("mmap, mmap_fixed, munmap", maps_and_unmaps, 0),
    ("mmap of a file", maps_a_file, 0),
    (
        "mmap of nothing",
        || raw(mmap(None, 0, READ_WRITE, MapFlags::PRIVATE, None), |_| 0),
        EINVAL,
    ),
    (
        "munmap of nothing",
        || done(unsafe { munmap(std::ptr::null_mut(), 0) }),
        EINVAL,
    ),
    ("kill", || done(kill(cat(), SignalNumber::NONE)), 0),
    ("kill nobody", || done(kill(i32::MAX, Signal::SIGTERM)), ESRCH),
    ("kill refused", || done(kill(-1, SignalNumber::NONE)), EINVAL),
    (
        "wait4, at once",
        || {
            raw(wait4(cat(), WaitOptions::NOHANG), |waited| {
                check(waited.is_none())
            })
        },
        0,
    ),
    (
        "wait4 for nobody",
        || raw(wait4(process() as i32, WaitOptions::NOHANG), |_| 0),
        ECHILD,
    ),
    (
        "wait4 refused",
        || raw(wait4(Processes::Group(1), WaitOptions::NOHANG), |_| 0),
        EINVAL,
    ),
    ("ptrace TraceMe, wait4", is_traced_by_its_parent, 0),
    (
        "ptrace Continue nobody",
        || trace(PtraceRequest::Continue(SignalNumber::NONE)),
        ESRCH,
    ),
    (
        "ptrace Seize",
        || trace(PtraceRequest::Seize(PtraceOptions::EXITKILL)),
        0,
    ),
    ("ptrace Attach", || trace(PtraceRequest::Attach), EPERM),
    ("ptrace Interrupt, wait4", interrupted, 0),
    (
        "ptrace SetOptions",
        || trace(PtraceRequest::SetOptions(PtraceOptions::TRACESYSGOOD)),
        0,
    ),
    ("ptrace Listen", || trace(PtraceRequest::Listen), 0),
    ("ptrace Listen, Interrupt, wait4", interrupted, 0),
    (
        "ptrace GetEventMessage",
        || trace(PtraceRequest::GetEventMessage(&mut 0)),
        0,
    ),
    ("ptrace GetRegisters, SetRegisters", gets_and_sets_registers, 0),
    ("ptrace PeekData, PokeData", peeks_and_pokes_data, 0),
    ("ptrace PeekUser, PokeUser", peeks_and_pokes_user, 0),
    ("process_vm_readv", reads_the_stack_of_the_tracee, 8),
    ("process_vm_readv nothing", reads_nothing, EFAULT),
    (
        "ptrace Syscall",
        || trace(PtraceRequest::Syscall(SignalNumber::NONE)),
        0,
    ),
    ("ptrace Syscall, wait4", stopped, 0),
    (
        "ptrace Continue",
        || trace(PtraceRequest::Continue(SignalNumber::NONE)),
        0,
    ),
    ("ptrace Continue, Interrupt, wait4", interrupted, 0),
    // What is left of the step may kill it once it is let go.
    (
        "ptrace SingleStep",
        || trace(PtraceRequest::SingleStep(SignalNumber::NONE)),
        0,
    ),
    ("ptrace SingleStep, Interrupt, wait4", interrupted, 0),
    (
        "ptrace Detach",
        || trace(PtraceRequest::Detach(SignalNumber::NONE)),
        0,
    ),
    ("process_vm_writev", writes_memory, 0),
    ("prctl SetNoNewPrivs", || number(prctl(Prctl::SetNoNewPrivs)), 0),
    ("prctl GetNoNewPrivs", || number(prctl(Prctl::GetNoNewPrivs)), 1),
    (
        "prctl SetDumpable",
        || number(prctl(Prctl::SetDumpable(false))),
        0,
    ),
    ("prctl GetDumpable", || number(prctl(Prctl::GetDumpable)), 0),
    (
        "prctl SetParentDeathSignal",
        || number(prctl(Prctl::SetParentDeathSignal(9.into()))),
        0,
    ),
    (
        "prctl GetParentDeathSignal",
        || gets(|signal| Prctl::GetParentDeathSignal(signal)),
        9,
    ),
    ("prctl SetName, GetName", has_a_name, 0),
    (
        "prctl SetChildSubreaper",
        || number(prctl(Prctl::SetChildSubreaper(true))),
        0,
    ),
    (
        "prctl GetChildSubreaper",
        || gets(|subreaper| Prctl::GetChildSubreaper(subreaper)),
        1,
    ),
    (
        "prctl SetTimerSlack",
        || number(prctl(Prctl::SetTimerSlack(70_000))),
        0,
    ),
    (
        "prctl GetTimerSlack",
        || number(prctl(Prctl::GetTimerSlack)),
        70_000,
    ),
    ("prctl SetPtracer", may_be_traced, 0),
    (
        "prctl refused",
        || number(prctl(Prctl::SetPtracer(Ptracer::Pid(-1)))),
        EINVAL,
    ),
    ("an error's texts", error_has_texts, 0),
    ("an error's conversions", error_converts, 0),
    ("the texts of flags", flags_have_texts, 0),
];

static RESULTS: [AtomicI64; 128] = [const { AtomicI64::new(i64::MIN) }; 128];

/// Makes them up to the first whose result is not the expected one: later ones may wait for what it should have done.
fn make_every_call() {
    for ((_, call, expected), result) in CASES.iter().zip(&RESULTS) {
        let returned = call();
        result.store(returned, SeqCst);
        if returned != *expected {
            break;
        }
    }
}

/// A descriptor that is not to be dropped here.
fn keep(fd: OwnedFd) -> i64 {
    std::mem::forget(fd);
    0
}

fn opens_and_closes() -> i64 {
    let flags = OpenFlags::READ_WRITE | OpenFlags::CLOEXEC;
    done(open(c"/dev/null", flags, Mode::new(0)).and_then(close))
}

fn reads_what_was_written() -> i64 {
    let mut buffer = [0; 8];
    match read(descriptor(&READER), &mut buffer) {
        Ok(5) if !buffer.starts_with(b"hello") => 0,
        result => length(result),
    }
}

fn maps_and_unmaps() -> i64 {
    raw(mmap(None, 8192, READ_WRITE, MapFlags::PRIVATE, None), |pages| {
        // SAFETY: the pages were just mapped.
        unsafe {
            pages.cast::<u64>().write(7);
            let replaced = mmap_fixed(pages, 4096, READ_WRITE, MapFlags::PRIVATE, None);
            let zeroed = replaced == Ok(pages) && pages.cast::<u64>().read() == 0;
            let unmapped = munmap(pages, 8192).is_ok();
            check(zeroed && unmapped)
        }
    })
}

fn maps_a_file() -> i64 {
    let file = match open(c"/proc/self/exe", OpenFlags::READ_ONLY, Mode::new(0)) {
        Ok(file) => std::mem::ManuallyDrop::new(file),
        Err(error) => return raw(Err::<(), _>(error), |()| 0),
    };
    let flags = MapFlags::SHARED | MapFlags::NORESERVE;
    let from = Some((std::os::fd::AsFd::as_fd(&*file), 0));
    let mapped = mmap(None, 4096, Protection::READ, flags, from);
    let closed = close(std::mem::ManuallyDrop::into_inner(file)).is_ok();
    raw(mapped, |page| {
        // SAFETY: the page was just mapped, and programs don't change.
        let program = unsafe { page.cast::<[u8; 4]>().read() } == *b"\x7fELF";
        // SAFETY: nobody uses it any more.
        check(unsafe { munmap(page, 4096) }.is_ok() && program && closed)
    })
}

/// A forked child, whose parent is this process.
fn is_traced_by_its_parent() -> i64 {
    // SAFETY: the child makes system calls only.
    match unsafe { syscall0(libc::SYS_fork) } {
        Ok(0) => loop {
            let code = ptrace(0, PtraceRequest::TraceMe).map_or_else(SyscallError::raw_os_error, |_| 42);
            // SAFETY: ends the child.
            unsafe { raw_syscall1(libc::SYS_exit_group, code.into()) };
        },
        Ok(pid) => raw(wait4(pid as i32, WaitOptions::ALL), |waited| {
            check(waited.is_some_and(|waited| {
                i64::from(waited.pid) == pid
                    && waited.status.code() == Some(42)
                    && waited.usage.max_resident > 0
            }))
        }),
        forked => number(forked),
    }
}

fn gets_and_sets_registers() -> i64 {
    let mut registers = Registers::default();
    let got = trace(PtraceRequest::GetRegisters(&mut registers));
    STACK.store(registers.rsp, SeqCst);
    match got {
        0 if registers.rip == 0 => 1,
        0 => trace(PtraceRequest::SetRegisters(&registers)),
        error => error,
    }
}

fn peeks_and_pokes_data() -> i64 {
    let (address, mut word) = (STACK.load(SeqCst), 0);
    let peeked = trace(PtraceRequest::PeekData {
        address,
        word: &mut word,
    });
    WORD.store(word, SeqCst);
    match peeked {
        0 => trace(PtraceRequest::PokeData { address, word }),
        error => error,
    }
}

fn peeks_and_pokes_user() -> i64 {
    let (offset, mut word) = (offset_of!(Registers, rsp) as u64, 0);
    let peeked = trace(PtraceRequest::PeekUser {
        offset,
        word: &mut word,
    });
    match peeked {
        0 if word != STACK.load(SeqCst) => 1,
        0 => trace(PtraceRequest::PokeUser { offset, word }),
        error => error,
    }
}

fn reads_the_stack_of_the_tracee() -> i64 {
    let mut bytes = [0; 8];
    let remote = [RemoteSlice {
        address: STACK.load(SeqCst),
        len: 8,
    }];
    let read = process_vm_readv(cat(), &mut [IoSliceMut::new(&mut bytes)], &remote);
    match read {
        Ok(8) if u64::from_ne_bytes(bytes) != WORD.load(SeqCst) => 1,
        read => length(read),
    }
}

fn reads_nothing() -> i64 {
    let remote = [RemoteSlice { address: 0, len: 8 }];
    length(process_vm_readv(
        cat(),
        &mut [IoSliceMut::new(&mut [0; 8])],
        &remote,
    ))
}

fn writes_memory() -> i64 {
    let mut there = [0_u8; 5];
    let remote = [RemoteSlice {
        address: (&raw mut there).expose_provenance() as u64,
        len: 5,
    }];
    // SAFETY: the memory is a buffer of this function's own.
    let written = unsafe { process_vm_writev(PROCESS.load(SeqCst), &[IoSlice::new(b"hello")], &remote) };
    raw(written, |written| check(written == 5 && there == *b"hello"))
}

fn gets(request: fn(&mut i32) -> Prctl<'_>) -> i64 {
    let mut value = -1;
    match number(prctl(request(&mut value))) {
        0 => value.into(),
        error => error,
    }
}

fn has_a_name() -> i64 {
    let mut name = [0; 16];
    let set = prctl(Prctl::SetName(c"in a handler"));
    let got = prctl(Prctl::GetName(&mut name));
    check(set == Ok(0) && got == Ok(0) && name.starts_with(b"in a handler\0"))
}

/// Without Yama it is refused.
fn may_be_traced() -> i64 {
    let allowed = number(prctl(Prctl::SetPtracer(Ptracer::Any)));
    check(allowed == 0 || allowed == EINVAL)
}

fn failure() -> Option<SyscallError> {
    open(c"/nonexistent", OpenFlags::PATH, Mode::new(0)).err()
}

fn error_has_texts() -> i64 {
    match failure() {
        Some(error) => {
            reads(format_args!("{error}"), "ENOENT: No such file or directory")
                + reads(format_args!("{error:?}"), "SyscallError(ENOENT)")
        }
        None => 1,
    }
}

fn error_converts() -> i64 {
    check(failure().is_some_and(|error| {
        let (errno, io) = (Errno::from(error), std::io::Error::from(error));
        errno == Errno::ENOENT && io.raw_os_error() == Some(Errno::ENOENT as i32)
    }))
}

fn flags_have_texts() -> i64 {
    let mut flags = OpenFlags::READ_WRITE | OpenFlags::CREATE;
    flags |= OpenFlags::CLOEXEC;
    reads(
        format_args!("{flags:?}"),
        "OpenFlags(READ_WRITE | CREATE | CLOEXEC)",
    ) + reads(format_args!("{:?}", Mode::new(0o640)), "Mode(0o640)")
        + reads(
            format_args!("{:?}", SignalNumber::from(Signal::SIGTERM)),
            "SignalNumber(SIGTERM)",
        )
        + reads(format_args!("{:?}", WaitOptions::empty()), "WaitOptions()")
}

/// A program that waits for input; it ends with this process at the latest.
struct Waiting(Child);

impl Waiting {
    fn start() -> Self {
        let mut command = Command::new("cat");
        let mut cat = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Once it has answered, its execution is over.
        cat.stdin.as_mut().unwrap().write_all(b"?").unwrap();
        cat.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        Self(cat)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_call_works_in_a_handler_without_the_allocator_or_thread_local_storage() {
    in_process_of_its_own(
        "every_call_works_in_a_handler_without_the_allocator_or_thread_local_storage",
        || {
            let cat = Waiting::start();
            let (reader, writer) = std::io::pipe().unwrap();
            PROCESS.store(std::process::id() as i32, SeqCst);
            CAT.store(cat.0.id() as i32, SeqCst);
            READER.store(reader.as_raw_fd(), SeqCst);
            WRITER.store(writer.as_raw_fd(), SeqCst);
            let descriptors = support::open_descriptors();

            interrupt(make_every_call);

            assert!(CASES.len() <= RESULTS.len());
            for ((name, _, expected), result) in CASES.iter().zip(&RESULTS) {
                assert_eq!(result.load(SeqCst), *expected, "{name}");
            }
            assert_eq!(WHILE_BUSY.load(SeqCst), 0);
            assert_eq!(ERRNO_AFTERWARDS.load(SeqCst), ERRNO);
            prctl(Prctl::SetDumpable(true)).unwrap();
            assert_eq!(support::open_descriptors(), descriptors);
        },
    );
}

#[test]
fn an_allocation_in_the_handler_would_be_noticed() {
    fn allocate() {
        // SAFETY: the size is not zero. Nothing is there to be freed.
        black_box(unsafe { std::alloc::alloc(Layout::new::<u64>()) });
    }
    in_process_of_its_own("an_allocation_in_the_handler_would_be_noticed", || {
        interrupt(allocate);
        assert_eq!(WHILE_BUSY.load(SeqCst), 1);
        assert_eq!(ERRNO_AFTERWARDS.load(SeqCst), ERRNO);
    });
}

#[test]
fn thread_local_storage_in_the_handler_would_be_noticed() {
    fn write_errno() {
        // SAFETY: there is no such descriptor.
        unsafe { libc::close(-1) };
    }
    if is_child() {
        // No core dump.
        prctl(Prctl::SetDumpable(false)).unwrap();
        return interrupt(write_errno);
    }
    let output = rerun("thread_local_storage_in_the_handler_would_be_noticed")
        .output()
        .unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{output:?}");
}
