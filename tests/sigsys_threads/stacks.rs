use std::arch::global_asm;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};

use asm_tracer::Sysno;
use asm_tracer::filter::Threads;
use asm_tracer::sigsys::Tracer;
use nix::libc;

use crate::probe::{Cpu, WAYS};
use crate::support::{is_child, rerun};
use crate::{count, every_call, handle, isolated, limit_this_process, rewriting, tracer};

/// An alternate stack of this thread, for as long as it lives.
pub(crate) struct AlternateStack {
    start: *mut libc::c_void,
    before: libc::stack_t,
}

impl AlternateStack {
    const SIZE: usize = 1 << 16;
    const PAGE: usize = 4096;

    pub(crate) fn set(flags: i32) -> Self {
        // SAFETY: the memory is nobody else's.
        unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let start = libc::mmap(std::ptr::null_mut(), Self::SIZE + Self::PAGE, access, kind, -1, 0);
            assert_ne!(start, libc::MAP_FAILED);
            let before = set_alternate_stack(&libc::stack_t {
                ss_sp: start,
                ss_flags: flags,
                ss_size: Self::SIZE,
            });
            Self { start, before }
        }
    }

    /// There is a page above it.
    pub(crate) fn end(&self) -> u64 {
        (self.start.addr() + Self::SIZE) as u64
    }
}

impl Drop for AlternateStack {
    fn drop(&mut self) {
        set_alternate_stack(&self.before);
        // SAFETY: it is not in use any more.
        unsafe { libc::munmap(self.start, Self::SIZE + Self::PAGE) };
    }
}

/// Sets it; gives the one before.
fn set_alternate_stack(stack: &libc::stack_t) -> libc::stack_t {
    // SAFETY: the kernel reads one description and writes another.
    unsafe {
        let mut before = std::mem::zeroed();
        assert_eq!(libc::sigaltstack(stack, &mut before), 0);
        before
    }
}

fn alternate_stack() -> libc::stack_t {
    // SAFETY: the kernel writes a description.
    unsafe {
        let mut present = std::mem::zeroed();
        assert_eq!(libc::sigaltstack(std::ptr::null(), &mut present), 0);
        present
    }
}

pub(crate) fn without_alternate_stack() {
    set_alternate_stack(&libc::stack_t {
        ss_sp: std::ptr::null_mut(),
        ss_flags: libc::SS_DISABLE,
        ss_size: 0,
    });
}

global_asm!(
    // Forks with the memory in common. The child calls what is traced, uses the stack, and ends with `status`.
    // Gives the child, or -1 if anything above the stack pointer has changed.
    ".globl vfork_child",
    "vfork_child:",
    "push rbx",
    "push r12",
    "push r13",
    "sub rsp, 512",
    "mov r12d, edi",
    "mov r13, rsi",
    "xor eax, eax",
    "2: mov [rsp + 8 * rax], rax",
    "inc eax",
    "cmp eax, 64",
    "jb 2b",
    "mov eax, 58", // vfork
    "syscall",
    "test rax, rax",
    "jnz 4f",
    "mov eax, 110", // getppid
    "xor r9d, r9d",
    "syscall",
    "mov eax, 110", // another call in its place
    "mov r9, r13",
    "syscall",
    "mov rbx, rax",
    "mov eax, 102", // getuid
    "syscall",
    "lea rdi, [rsp - 4096]",
    "mov ecx, 4096",
    "mov eax, 0x41",
    "rep stosb",
    "mov edi, r12d",
    "test rbx, rbx", // the group is no error and not 0
    "jg 3f",
    "mov edi, 1",
    "3: mov eax, 231", // exit_group
    "syscall",
    "ud2",
    "4: mov rbx, rax",
    "xor eax, eax",
    "5: cmp [rsp + 8 * rax], rax",
    "jne 6f",
    "inc eax",
    "cmp eax, 64",
    "jb 5b",
    "mov rax, rbx",
    "jmp 7f",
    "6: mov rax, -1",
    "7: add rsp, 512",
    "pop r13",
    "pop r12",
    "pop rbx",
    "ret",
);

unsafe extern "C" {
    fn vfork_child(status: i32, rewrite: u64) -> i64;
}

fn status_of(child: i32) -> i32 {
    let mut status = 0;
    // SAFETY: the kernel writes a status.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    status
}

fn fork_and_exit() {
    for round in 0..50 {
        // SAFETY: the child touches nothing but its stack.
        let child = unsafe { vfork_child(20 + round, crate::REWRITE) };
        assert!(child > 0, "{child}");
        assert_eq!(status_of(child as i32), (20 + round) << 8);
    }
}

// P18: the parent waits in the gate, while the child uses the stack below its stack pointer.
#[test]
fn a_vfork_child_leaves_the_stack_of_its_parent_alone() {
    isolated(
        "stacks::a_vfork_child_leaves_the_stack_of_its_parent_alone",
        || {
            let _tracer = Tracer::builder()
                .trap(every_call())
                .hook(rewriting)
                .capacity(1 << 12)
                .install()
                .unwrap();
            fork_and_exit();
            let stack = AlternateStack::set(0);
            fork_and_exit();
            drop(stack);
            without_alternate_stack();
            fork_and_exit();
            assert_eq!(crate::shown(Sysno::vfork), 150);
        },
    );
}

// P18, P8: what spawns by vfork hears of the refusal.
#[test]
fn spawning_fails_cleanly() {
    isolated("stacks::spawning_fails_cleanly", || {
        let _tracer = Tracer::builder().trap(every_call()).install().unwrap();
        for _ in 0..20 {
            let mut pid = 0;
            let arguments = [c"true".as_ptr().cast_mut(), std::ptr::null_mut()];
            // SAFETY: all of these are strings and lists of them that end in a null.
            let error = unsafe {
                libc::posix_spawn(
                    &mut pid,
                    c"/bin/true".as_ptr(),
                    std::ptr::null(),
                    std::ptr::null(),
                    arguments.as_ptr(),
                    std::ptr::null(),
                )
            };
            assert_eq!(error, libc::EPERM);
            let error = std::process::Command::new("/bin/true").status().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        }
        // No child is left behind.
        // SAFETY: there is nothing to write to.
        assert_eq!(unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) }, -1);
    });
}

global_asm!(
    // Starts a thread with nothing but a stack, which calls `body`, or if there is none, takes its stack away, and ends.
    ".globl raw_thread",
    "raw_thread:", // rdi = flags, rsi = end of the stack, rdx = where its id is until it ends, rcx = body, r8 = start, r9 = size
    "push rbx",
    "push r12",
    "push r13",
    "mov rbx, rcx",
    "mov r12, r8",
    "mov r13, r9",
    "mov r10, rdx",
    "xor edx, edx",
    "xor r8d, r8d",
    "xor r9d, r9d",
    "mov eax, 56", // clone
    "syscall",
    "test rax, rax",
    "jz 2f",
    "pop r13",
    "pop r12",
    "pop rbx",
    "ret",
    "2: xor ebp, ebp",
    "test rbx, rbx",
    "jz 3f",
    "call rbx",
    "jmp 4f",
    "3: mov eax, 11", // munmap
    "mov rdi, r12",
    "mov rsi, r13",
    "syscall",
    "4: xor edi, edi",
    "mov eax, 60", // exit
    "syscall",
    "ud2",
);

unsafe extern "C" {
    fn raw_thread(
        flags: i64,
        stack_end: u64,
        id: *const AtomicI32,
        body: Option<extern "C" fn()>,
        stack: *mut libc::c_void,
        size: usize,
    ) -> i64;
}

/// Starts such a thread on a stack of its own, and waits until the kernel says that it is gone.
fn run_raw_thread(size: usize, body: Option<extern "C" fn()>) {
    static ID: AtomicI32 = AtomicI32::new(0);
    let flags = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_CHILD_CLEARTID;
    ID.store(1, Relaxed);
    // SAFETY: the thread has its own stack, and uses no storage of this one's.
    unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let stack = libc::mmap(std::ptr::null_mut(), size, access, kind, -1, 0);
        assert_ne!(stack, libc::MAP_FAILED);
        let thread = raw_thread(flags.into(), (stack.addr() + size) as u64, &ID, body, stack, size);
        assert!(thread > 0, "{thread}");
        crate::support::until_blocking("the thread is gone", || ID.load(Relaxed) == 0);
        if body.is_some() {
            libc::munmap(stack, size);
        }
    }
}

// P20: the thread has no stack when it ends.
#[test]
fn a_thread_takes_its_stack_away_and_ends() {
    isolated("stacks::a_thread_takes_its_stack_away_and_ends", || {
        let tracer = Tracer::builder()
            .trap(every_call())
            .hook(rewriting)
            .install()
            .unwrap();
        for _ in 0..20 {
            run_raw_thread(1 << 16, None);
        }
        drop(tracer);
        run_raw_thread(1 << 16, None);
        assert!(crate::shown(Sysno::munmap) >= 20);
    });
}

// P19: such a thread has 16 KiB and no alternate stack.
#[test]
fn a_bare_thread_makes_traced_calls_on_16_kib() {
    static DONE: AtomicU64 = AtomicU64::new(0);
    extern "C" fn body() {
        for last in [0, crate::REWRITE, crate::RETURN] {
            let result: i64;
            // SAFETY: asks for a number.
            unsafe {
                std::arch::asm!(
                    "syscall", inlateout("rax") libc::SYS_getppid => result, in("r9") last,
                    out("rcx") _, out("r11") _,
                );
            }
            if result > 0 {
                DONE.fetch_add(1, Relaxed);
            }
        }
    }
    isolated("stacks::a_bare_thread_makes_traced_calls_on_16_kib", || {
        let tracer = tracer(&[Sysno::getppid, Sysno::clone]).install().unwrap();
        for _ in 0..20 {
            run_raw_thread(16 << 10, Some(body));
        }
        assert_eq!(DONE.load(Relaxed), 60);
        let events = tracer.drain().unwrap();
        assert_eq!(count(&events, Sysno::clone), 20);
        assert_eq!(count(&events, Sysno::getppid), 60);
    });
}

// P21: new threads have no alternate stack, and may have little stack at all.
#[test]
fn threads_with_the_smallest_stacks_make_traced_calls() {
    /// How many of the calls fail. It is small enough for such a stack itself.
    fn calls() -> usize {
        let lasts = [0, crate::REWRITE, crate::RETURN];
        // SAFETY: asks for a number.
        let call = |last: u64| unsafe { libc::syscall(libc::SYS_getppid, 0, 0, 0, 0, 0, last) };
        lasts.into_iter().filter(|last| call(*last) <= 0).count()
    }
    extern "C" fn body(_: *mut libc::c_void) -> *mut libc::c_void {
        std::ptr::without_provenance_mut(calls() + 1)
    }
    isolated(
        "stacks::threads_with_the_smallest_stacks_make_traced_calls",
        || {
            let _tracer = Tracer::builder()
                .trap(every_call())
                .hook(rewriting)
                .install()
                .unwrap();
            for _ in 0..20 {
                // SAFETY: the thread is joined before what it uses goes.
                unsafe {
                    let mut attributes = std::mem::zeroed();
                    assert_eq!(libc::pthread_attr_init(&mut attributes), 0);
                    let size = libc::sysconf(libc::_SC_THREAD_STACK_MIN) as usize;
                    assert_eq!(libc::pthread_attr_setstacksize(&mut attributes, size), 0);
                    let mut thread = 0;
                    let none = std::ptr::null_mut();
                    assert_eq!(libc::pthread_create(&mut thread, &attributes, body, none), 0);
                    let mut result = std::ptr::null_mut();
                    assert_eq!(libc::pthread_join(thread, &mut result), 0);
                    assert_eq!(result.addr(), 1);
                    libc::pthread_attr_destroy(&mut attributes);
                }
                let thread = std::thread::Builder::new().stack_size(16 << 10);
                assert_eq!(thread.spawn(calls).unwrap().join().unwrap(), 0);
            }
        },
    );
}

// P22: the handler of the standard library runs on 8 KiB, and what it writes is traced.
#[test]
fn the_overflow_of_a_stack_is_reported() {
    const NAME: &str = "stacks::the_overflow_of_a_stack_is_reported";
    #[allow(unconditional_recursion)]
    fn recurse(depth: u64) -> u64 {
        let room = std::hint::black_box([depth; 64]);
        recurse(room[0] + 1) + room[63]
    }
    if is_child() {
        limit_this_process();
        let _tracer = Tracer::builder()
            .trap(every_call())
            .hook(rewriting)
            .install()
            .unwrap();
        let thread = std::thread::Builder::new().name("deep".into());
        let _ = thread.spawn(|| recurse(0)).unwrap().join();
        return;
    }
    let output = rerun(NAME).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{text}");
    assert!(
        text.contains("'deep'") && text.contains("overflowed its stack"),
        "{text}"
    );
}

// P22: a handler of the program on that stack, in which calls are traced in all ways.
#[test]
fn a_handler_on_the_alternate_stack_of_the_standard_library_makes_traced_calls() {
    static RESULTS: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
    extern "C" fn on_signal(_: i32, _: *mut libc::siginfo_t, _: *mut libc::ucontext_t) {
        for (result, last) in RESULTS.iter().zip([0, crate::REWRITE, crate::RETURN]) {
            // SAFETY: asks for a number.
            let value = unsafe { libc::syscall(libc::SYS_getppid, 0, 0, 0, 0, 0, last) };
            result.store(value as u64, Relaxed);
        }
    }
    isolated(
        "stacks::a_handler_on_the_alternate_stack_of_the_standard_library_makes_traced_calls",
        || {
            let _tracer = tracer(&[Sysno::getppid, Sysno::rt_sigreturn]).install().unwrap();
            handle(libc::SIGSEGV, libc::SA_ONSTACK, on_signal);
            std::thread::spawn(|| {
                assert_eq!(alternate_stack().ss_flags, 0);
                // SAFETY: it has a handler, which returns, as it was no fault.
                unsafe { libc::raise(libc::SIGSEGV) };
            })
            .join()
            .unwrap();
            // SAFETY: asks for a number.
            let group = unsafe { libc::getpgrp() } as u64;
            let parent = u64::from(std::os::unix::process::parent_id());
            assert_eq!(
                RESULTS.each_ref().map(|result| result.load(Relaxed)),
                [parent, group, 4711]
            );
        },
    );
}

// P23: what is set is there afterwards, although the handler's return sets the stack as well.
#[test]
fn an_alternate_stack_is_what_the_program_set() {
    static FLAGS: AtomicI32 = AtomicI32::new(-1);
    static REFUSED: AtomicI32 = AtomicI32::new(0);
    static WRONG: AtomicU64 = AtomicU64::new(0);
    static CPU: std::sync::OnceLock<Cpu> = std::sync::OnceLock::new();
    extern "C" fn on_signal(_: i32, _: *mut libc::siginfo_t, _: *mut libc::ucontext_t) {
        FLAGS.store(alternate_stack().ss_flags, Relaxed);
        let none = libc::stack_t {
            ss_sp: std::ptr::null_mut(),
            ss_flags: libc::SS_DISABLE,
            ss_size: 0,
        };
        // SAFETY: the stack is in use, which the kernel does not allow to change, unless it disarms it.
        if unsafe { libc::sigaltstack(&none, std::ptr::null_mut()) } != 0 {
            REFUSED.fetch_add(1, Relaxed);
        }
        let wrong = WAYS
            .into_iter()
            .filter(|way| CPU.get().unwrap().call(*way, 9).is_err());
        WRONG.fetch_add(wrong.count() as u64, Relaxed);
    }
    isolated("stacks::an_alternate_stack_is_what_the_program_set", || {
        const AUTODISARM: i32 = 1 << 31;
        CPU.get_or_init(Cpu::look);
        let tracer = tracer(&[Sysno::getppid, Sysno::sigaltstack]).install().unwrap();
        handle(libc::SIGUSR1, libc::SA_ONSTACK, on_signal);
        let check = |stack: &AlternateStack, flags: i32| {
            let present = alternate_stack();
            let end = present.ss_sp.addr() + present.ss_size;
            assert_eq!((end as u64, present.ss_flags), (stack.end(), flags));
        };
        let probe = || {
            for way in WAYS {
                CPU.get().unwrap().call(way, 10).unwrap();
            }
        };
        let stack = AlternateStack::set(0);
        check(&stack, 0);
        probe();
        check(&stack, 0);
        // SAFETY: it has a handler.
        unsafe { libc::raise(libc::SIGUSR1) };
        assert_eq!(
            (FLAGS.load(Relaxed), REFUSED.load(Relaxed)),
            (libc::SS_ONSTACK, 1)
        );
        check(&stack, 0);
        drop(stack);

        let stack = AlternateStack::set(AUTODISARM);
        check(&stack, AUTODISARM);
        probe();
        check(&stack, AUTODISARM);
        // SAFETY: as above.
        unsafe { libc::raise(libc::SIGUSR1) };
        // Disarmed in the handler, armed again afterwards.
        assert_eq!(FLAGS.load(Relaxed) & !AUTODISARM, libc::SS_DISABLE);
        assert_eq!((REFUSED.load(Relaxed), WRONG.load(Relaxed)), (1, 0));
        check(&stack, AUTODISARM);
        drop(stack);

        without_alternate_stack();
        assert_eq!(alternate_stack().ss_flags, libc::SS_DISABLE);
        probe();
        assert_eq!(alternate_stack().ss_flags, libc::SS_DISABLE);
        assert!(count(&tracer.drain().unwrap(), Sysno::sigaltstack) >= 10);
    });
}

// P23: threads of the standard library set and unset theirs.
#[test]
fn threads_come_and_go_with_their_alternate_stacks() {
    isolated("stacks::threads_come_and_go_with_their_alternate_stacks", || {
        let _tracer = Tracer::builder()
            .trap([Sysno::sigaltstack, Sysno::mmap, Sysno::munmap])
            .threads(Threads::All)
            .install()
            .unwrap();
        for _ in 0..50 {
            let thread = std::thread::spawn(|| alternate_stack().ss_flags);
            assert_eq!(thread.join().unwrap(), 0);
        }
    });
}
