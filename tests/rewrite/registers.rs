//! To the program it looks as if nothing had happened.

use std::future::IntoFuture;
use std::io::Write;
use std::sync::mpsc::channel;

use asm_tracer::{Delivery, Filter, Observed, Sysno};

use crate::support::target::on_each_runtime;
use crate::support::within;
use crate::{printed, start, target};

/// Makes as many calls as it is told, each with other values, and checks every register that came back.
///
/// `rcx` is the address after the instruction and `r11` the flags, as the ABI has them; the others are as they were.
const REGISTERS: &str = r#"
struct frame { uint64_t r[16]; };
/* rax rcx rdx rbx rbp rsi rdi r8..r15, flags */
static void six(struct frame *f) {
    __asm__ volatile(
        "push %%rbp\n push %%rbx\n push %%r12\n push %%r13\n push %%r14\n push %%r15\n push %0\n"
        "mov 0x00(%0), %%rax\n mov 0x10(%0), %%rdx\n mov 0x18(%0), %%rbx\n mov 0x20(%0), %%rbp\n"
        "mov 0x28(%0), %%rsi\n mov 0x38(%0), %%r8\n mov 0x40(%0), %%r9\n mov 0x48(%0), %%r10\n"
        "mov 0x58(%0), %%r12\n mov 0x60(%0), %%r13\n mov 0x68(%0), %%r14\n mov 0x70(%0), %%r15\n"
        "mov 0x30(%0), %%rdi\n"
        "syscall\n"
        "1:\n"
        "xchg (%%rsp), %%rdi\n"
        "mov %%rax, 0x00(%%rdi)\n mov %%rdx, 0x10(%%rdi)\n mov %%rbx, 0x18(%%rdi)\n mov %%rbp, 0x20(%%rdi)\n"
        "mov %%rsi, 0x28(%%rdi)\n mov %%r8, 0x38(%%rdi)\n mov %%r9, 0x40(%%rdi)\n mov %%r10, 0x48(%%rdi)\n"
        "mov %%r11, 0x78(%%rdi)\n"
        "mov %%r12, 0x58(%%rdi)\n mov %%r13, 0x60(%%rdi)\n mov %%r14, 0x68(%%rdi)\n mov %%r15, 0x70(%%rdi)\n"
        "lea 1b(%%rip), %%rbx\n sub %%rbx, %%rcx\n mov %%rcx, 0x08(%%rdi)\n"
        "pop %%rbx\n mov %%rbx, 0x30(%%rdi)\n"
        "pop %%r15\n pop %%r14\n pop %%r13\n pop %%r12\n pop %%rbx\n pop %%rbp\n"
        : : "D"(f)
        : "rax", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "memory", "cc");
}
int main(void) {
    for (uint64_t round = 1; told(); round++) {
        struct frame before, after;
        for (int i = 0; i < 16; i++)
            before.r[i] = round * 0x9e3779b97f4a7c15u * (i + 1);
        /* Junk in the upper half, which the kernel doesn't look at. */
        before.r[0] = (uint64_t)SYS_getpgid | round << 40;
        before.r[6] = 999999;
        after = before;
        six(&after);
        printf("%ld ", (long)after.r[0]);
        /* Interrupts are on, and bit 1 is always set. */
        check((after.r[15] & 0x202) == 0x202 && !(after.r[15] & 0x100), "the flags");
        check(after.r[1] == 0, "rcx");
        after.r[0] = before.r[0]; after.r[1] = before.r[1]; after.r[15] = before.r[15]; after.r[10] = before.r[10];
        for (int i = 0; i < 16; i++)
            if (after.r[i] != before.r[i]) { printf("register %d\n", i); exit(1); }
    }
}
"#;

fn filter() -> Filter {
    Filter::new().trap(Sysno::getpgid)
}

#[test]
fn the_kernel_runs_the_call_with_other_arguments() {
    for killable in [true, false] {
        on_each_runtime(|| async move {
            let mut command = target("registers", REGISTERS, filter());
            let (child, mut listener) = start(command.wait_killable(killable), 200).await;
            for _ in 0..200 {
                let call = within("a call", listener.next()).await.unwrap();
                assert_eq!(call.args()[0], 999999);
                let pid = call.pid().unwrap().into();
                let rewritten = within(
                    "the rewriting",
                    call.continue_with([pid, 1, 2, 3, 4, 5]).into_future(),
                );
                assert_eq!(rewritten.await.unwrap(), Delivery::Delivered);
            }
            let group = format!("{} ", nix::unistd::getpgrp());
            assert_eq!(printed(child, listener).await, group.repeat(200));
        });
    }
}

#[test]
fn the_kernel_runs_another_call() {
    for killable in [true, false] {
        on_each_runtime(|| async move {
            let mut command = target("registers", REGISTERS, filter());
            let (child, mut listener) = start(command.wait_killable(killable), 100).await;
            let pid = child.id().unwrap();
            for _ in 0..100 {
                let call = within("a call", listener.next()).await.unwrap();
                let another = call.continue_as(Sysno::getpid, [0; 6]).observe();
                let observed = within("the result", another).await.unwrap();
                assert_eq!(observed, Observed::Returned(pid.into()));
            }
            assert_eq!(printed(child, listener).await, format!("{pid} ").repeat(100));
        });
    }
}

#[test]
fn the_result_is_what_the_kernel_returned() {
    for killable in [true, false] {
        on_each_runtime(|| async move {
            let mut command = target("registers", REGISTERS, filter());
            let (child, mut listener) = start(command.wait_killable(killable), 200).await;
            for _ in 0..200 {
                let call = within("a call", listener.next()).await.unwrap();
                let observed = within("the result", call.continue_and_observe()).await.unwrap();
                assert_eq!(observed, Observed::Returned(-3));
                assert_eq!(observed.result(), Some(Err(asm_tracer::Errno::ESRCH)));
            }
            assert_eq!(printed(child, listener).await, "-3 ".repeat(200));
        });
    }
}

#[test]
fn it_works_where_every_call_is_trapped() {
    on_each_runtime(|| async {
        let mut command = target("registers", REGISTERS, Filter::trap_all());
        let (child, mut listener) = start(&mut command, 3).await;
        let pid = child.id().unwrap();
        let mut rewritten = 0;
        while let Some(call) = within("a call", listener.next()).await {
            match call.sysno() {
                Some(Sysno::getpgid) => {
                    rewritten += 1;
                    let another = call.continue_as(Sysno::getpid, [0; 6]).data(3, "some data");
                    let observed = within("the result", another.observe()).await.unwrap();
                    assert_eq!(observed, Observed::Returned(pid.into()));
                }
                Some(Sysno::read) => {
                    let observed = within("the result", call.continue_and_observe()).await.unwrap();
                    assert!(matches!(observed, Observed::Returned(0..)), "{observed:?}");
                }
                _ => drop(call.continue_syscall().unwrap()),
            }
        }
        assert_eq!(rewritten, 3);
        assert_eq!(printed(child, listener).await, format!("{pid} ").repeat(3));
    });
}

/// The filter decides about the call that runs, and may let it pass without a notification.
#[test]
fn it_works_where_the_filter_does_not_trap_the_other_arguments() {
    use asm_tracer::filter::int_arg;
    on_each_runtime(|| async {
        let filter = Filter::new().trap_if(Sysno::getpgid, [int_arg(0).eq(999999)]);
        let mut command = target("registers", REGISTERS, filter);
        let (child, mut listener) = start(&mut command, 50).await;
        for _ in 0..50 {
            let call = within("a call", listener.next()).await.unwrap();
            within("the rewriting", call.continue_with([0; 6]).into_future())
                .await
                .unwrap();
        }
        let group = format!("{} ", nix::unistd::getpgrp());
        assert_eq!(printed(child, listener).await, group.repeat(50));
    });
}

#[test]
fn the_filter_refuses_what_it_refuses() {
    on_each_runtime(|| async {
        let filter = filter().errno(Sysno::getpid, asm_tracer::Errno::EDQUOT);
        let mut command = target("registers", REGISTERS, filter);
        let (child, mut listener) = start(&mut command, 1).await;
        let call = within("a call", listener.next()).await.unwrap();
        let another = call.continue_as(Sysno::getpid, [0; 6]).observe();
        let observed = within("the result", another).await.unwrap();
        assert_eq!(observed.result(), Some(Err(asm_tracer::Errno::EDQUOT)));
        assert_eq!(printed(child, listener).await, "-122 ");
    });
}

/// A program without a runtime, on the thread that serves the calls.
#[test]
fn a_hook_waits_for_it() {
    let mut command = asm_tracer::Command::new(crate::support::target::program("registers", REGISTERS));
    command
        .filter(filter())
        .stdin(asm_tracer::Stdio::piped())
        .stdout(asm_tracer::Stdio::piped());
    let (results, seen) = channel();
    let tracer = asm_tracer::blocking::Tracer::with_notifications(move |call| {
        let observed = call.continue_as(Sysno::getpid, [0; 6]).observe().wait();
        results.send(observed.unwrap()).unwrap();
    });
    let child = tracer.spawn(&mut command).unwrap();
    child.take_stdin().unwrap().write_all(&[b'x'; 20]).unwrap();
    let pid = child.pid();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("{pid} ").repeat(20)
    );
    assert_eq!(
        seen.iter().collect::<Vec<_>>(),
        vec![Observed::Returned(pid.into()); 20]
    );
}
