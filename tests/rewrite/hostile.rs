//! Targets that change what they do between the decision and the call.

use std::future::IntoFuture;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use asm_tracer::{Action, Arch, Child, Errno, Filter, Observed, Signal, Sysno};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::dropped::blocked;
use crate::fixtures::has_i386;
use crate::support::target::{filter, on_each_runtime, threads, waits_in};
use crate::support::{until, within};
use crate::{printed, start, target};

/// Code that can be changed: prints where it is, and makes a call there with the arguments 0, its address + 2, 1, which
/// are the same ones for `int 0x80`.
const CODE: &str = r#"
    int main(int argc, char **argv) {
        int access = PROT_READ | PROT_WRITE | PROT_EXEC;
        char *code = mmap(NULL, 4096, access, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
        check(code != MAP_FAILED, "mmap");
        /* syscall; ret, and further below: mov eax, 102 (getuid); syscall; ret */
        memcpy(code, "\x0f\x05\xc3", 3);
        memcpy(code + 64, "\xb8\x66\0\0\0\x0f\x05\xc3", 8);
        check(write(1, &code, 8) == 8, "write");
        long result = atoi(argv[1]);
        register long r8 __asm__("r8") = 0, r10 __asm__("r10") = (long)code + 2;
        __asm__ volatile("mov %%rbp, %%r9; call *%[code]" : "+a"(result)
            : "D"(0L), "S"(r10), "d"(1L), "b"(0L), "r"(r8), "r"(r10), [code] "r"(code) : "rcx", "r9", "r11", "memory");
        printf("%ld", result);
    }
"#;

/// The address of the code, and the memory that it is in, which another thread of the target could change as well.
async fn code(child: &mut Child) -> (u64, std::fs::File) {
    let mut address = [0; 8];
    let stdout = child.stdout.as_mut().unwrap();
    within("the address", stdout.read_exact(&mut address))
        .await
        .unwrap();
    let memory = std::fs::File::options()
        .write(true)
        .open(format!("/proc/{}/mem", child.id().unwrap()));
    (u64::from_ne_bytes(address), memory.unwrap())
}

/// Another call than the one that was observed is not let through after the future is dropped.
#[test]
fn another_call_in_place_of_one_that_is_left() {
    on_each_runtime(|| async {
        let filter = Filter::new()
            .trap_if(Sysno::read, [asm_tracer::filter::arg(2).eq(1)])
            .trap(Sysno::getuid);
        let mut command = target("changed_code", CODE, filter);
        let read = Sysno::read.id().to_string();
        let (mut child, mut listener) = within("the start", command.arg(read).spawn()).await.unwrap();
        let (address, memory) = code(&mut child).await;
        let observed = within("a call", listener.next())
            .await
            .unwrap()
            .continue_and_observe();
        let observed = blocked(&child, observed, Sysno::read).await;
        // jmp to the other call
        memory.write_all_at(b"\xeb\x3e", address).unwrap();
        drop(observed);
        let other = within("the other call", listener.next()).await.unwrap();
        assert_eq!(other.sysno(), Some(Sysno::getuid));
        other.respond(7).unwrap();
        assert_eq!(printed(child, listener).await, "7");
    });
}

/// The number of a call that was decided about means another one to `int 0x80`.
#[test]
fn the_same_number_through_another_abi() {
    if !has_i386() {
        return;
    }
    on_each_runtime(|| async {
        let filter = Filter::new().trap(Sysno::writev).foreign_abi(Action::Trap);
        let mut command = target("changed_code", CODE, filter);
        let writev = Sysno::writev.id().to_string();
        let (mut child, mut listener) = within("the start", command.arg(writev).spawn()).await.unwrap();
        let (address, memory) = code(&mut child).await;
        let call = within("a call", listener.next()).await.unwrap();
        assert_eq!(call.sysno(), Some(Sysno::writev));
        memory.write_all_at(b"\xcd\x80", address).unwrap();
        let observed = tokio::spawn(call.continue_and_observe());
        let other = within("the other call", listener.next()).await.unwrap();
        assert_eq!(
            (other.arch(), other.nr()),
            (Arch::I386, Sysno::writev.id().into())
        );
        other.error(Errno::EXDEV).unwrap();
        assert_eq!(printed(child, listener).await, "-18");
        within("the result", observed).await.unwrap().unwrap();
    });
}

/// Calls that signals take back while nobody serves do not pile up.
#[test]
fn calls_that_are_taken_back_are_forgotten() {
    const TAKEN_BACK: &str = r#"
        static volatile int over;
        static void *run(void *unused) {
            while (!over) syscall(SYS_getuid);
            return unused;
        }
        static void *waits(void *unused) {
            syscall(SYS_getppid);
            return unused;
        }
        int main(void) {
            pthread_t other, thread;
            handle_signal(SIGUSR1, SA_RESTART);
            check(!pthread_create(&other, NULL, waits, NULL), "a thread");
            check(told(), "a byte");
            check(!pthread_create(&thread, NULL, run, NULL), "a thread");
            for (int i = 0; i < 6000; i++) {
                int before = handled;
                usleep(200);
                check(!pthread_kill(thread, SIGUSR1), "a signal");
                while (handled == before) usleep(10);
            }
            over = 1;
            check(write(1, "taken back", 10) == 10, "write");
            pthread_join(thread, NULL);
            pthread_join(other, NULL);
        }
    "#;
    on_each_runtime(|| async {
        let filter = Filter::new().trap([Sysno::getppid, Sysno::getuid]);
        let mut command = target("taken_back", TAKEN_BACK, filter);
        let (mut child, mut listener) = within("the start", command.wait_killable(false).spawn())
            .await
            .unwrap();
        let call = within("a call", listener.next()).await.unwrap();
        // A call that the filter lets pass, and that blocks: whether it is trapped is not known.
        let paused = tokio::spawn(call.continue_as(Sysno::pause, [0; 6]).observe());
        let mut text = [0; 10];
        child.stdin.take().unwrap().write_all(b"x").await.unwrap();
        let stdout = child.stdout.as_mut().unwrap();
        within("the text", stdout.read_exact(&mut text)).await.unwrap();
        let mut calls = 0;
        loop {
            let call = within("a call", listener.next()).await.unwrap();
            calls += 1;
            if call.respond(0).unwrap().is_delivered() {
                break;
            }
        }
        assert!(calls < 3000, "{calls} calls");
        drop((child, listener));
        let _ = within("the end", paused).await.unwrap();
    });
}

/// Threads are taken hold of while another one executes a program, which in the kernel may wait for the borrower: whatever
/// becomes of that target, the others are served.
#[test]
fn an_execution_beside_borrowed_threads_keeps_nobody_else() {
    const EXECUTES: &str = r#"
        static void *blocks(void *unused) {
            char byte;
            syscall(SYS_read, 0, &byte, 1, 0, 5);
            return unused;
        }
        static void *calls(void *unused) {
            for (;;) syscall(SYS_getppid);
            return unused;
        }
        int main(void) {
            pthread_t thread;
            check(!pthread_create(&thread, NULL, blocks, NULL), "a thread");
            for (int i = 0; i < 3; i++) check(!pthread_create(&thread, NULL, calls, NULL), "a thread");
            usleep(20000);
            execl("/bin/true", "true", NULL);
            return 1;
        }
    "#;
    on_each_runtime(|| async {
        for _ in 0..15 {
            let reads = [asm_tracer::filter::arg(2).eq(1), asm_tracer::filter::arg(4).eq(5)];
            let filter = Filter::new().trap(Sysno::getppid).trap_if(Sysno::read, reads);
            let mut command = target("executes", EXECUTES, filter);
            let (_child, mut listener) = within("the start", command.spawn()).await.unwrap();
            while let Some(call) = within("a call", listener.next()).await {
                if call.sysno() == Some(Sysno::read) {
                    tokio::spawn(call.continue_and_observe());
                } else {
                    let another = call.continue_as(Sysno::getpid, [0; 6]).into_future();
                    let _ = within("the rewriting", another).await;
                }
            }
        }
    });
}

/// Another thread of the target has the room for data fault in a way that nobody serves, as soon as it is there.
#[test]
fn room_that_stalls_its_writer_stalls_nobody_else() {
    const STALLS: &str = r#"
        #include <linux/userfaultfd.h>
        #include <sys/ioctl.h>
        static int faults;
        static char *room;
        static void *run(void *unused) {
            unsigned char pages;
            struct uffdio_register range = { .range = { (unsigned long)room, 4096 }, .mode = UFFDIO_REGISTER_MODE_MISSING };
            for (;;)
                if (!mincore(room, 4096, &pages)) ioctl(faults, UFFDIO_REGISTER, &range);
            return unused;
        }
        int main(void) {
            struct uffdio_api api = { .api = UFFD_API };
            pthread_t thread;
            faults = syscall(SYS_userfaultfd, O_CLOEXEC);
            if (faults < 0) { trap(-1, 0, 0, 0); return 0; }
            check(!ioctl(faults, UFFDIO_API, &api), "UFFDIO_API");
            pthread_attr_t attributes;
            static char stack[1 << 16] __attribute__((aligned(4096)));
            pthread_attr_init(&attributes);
            pthread_attr_setstack(&attributes, stack, sizeof stack);
            room = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            munmap(room, 4096);
            check(!pthread_create(&thread, &attributes, run, NULL), "a thread");
            for (;;) trap(1, 2, 3, 4);
        }
    "#;
    on_each_runtime(|| async {
        let (child, mut listener) = start(&mut target("stalls_writer", STALLS, filter()), 1).await;
        // Until the other thread was quick enough.
        loop {
            let call = within("a call", listener.next()).await.unwrap();
            if call.args()[0] == -1 {
                assert!(std::env::var_os("ASM_TRACER_SKIP_NOTHING").is_none());
                return eprintln!("skipped: no permission for userfaultfd(2)");
            }
            let rewritten = call.continue_as(Sysno::getpid, [0; 6]).data(1, "data").observe();
            let written = tokio::time::timeout(Duration::from_millis(500), rewritten).await;
            if written.is_err() && stalled_writers() > 0 {
                break;
            }
        }
        let hot = "int main(void) { told(); for (int i = 0; i < 100; i++) check(trap(1, 2, 3, 4) == getpid(), \"the result\"); }";
        let (other, mut calls) = start(&mut target("beside_stalled", hot, filter()), 1).await;
        while let Some(call) = within("a call", calls.next()).await {
            let another = call.continue_as(Sysno::getpid, [0; 6]).data(1, "data").observe();
            let observed = within("the result", another).await.unwrap();
            assert_eq!(observed, Observed::Returned(other.id().unwrap().into()));
        }
        assert_eq!(printed(other, calls).await, "");
        child.signal(Signal::SIGKILL).unwrap();
        let status = within("the end", child.wait_with_output()).await.unwrap().status;
        assert!(!status.success());
        until("nobody is stalled", || stalled_writers() == 0).await;
    });
}

/// How many threads of this process wait for memory that they write to.
fn stalled_writers() -> usize {
    let threads = threads(std::process::id());
    let waiting = threads
        .iter()
        .filter(|tid| waits_in(**tid, Sysno::process_vm_writev));
    waiting.count()
}
