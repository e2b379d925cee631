//! Other arguments, other calls, and what a call returned.

mod support;

use asm_tracer::{Child, Delivery, Filter, Listener, Observed, Sysno};
use support::target::{command, on_each_runtime};
use support::within;

/// Checks, for as many calls as it is told, that each register but the result is as it was.
const REGISTERS: &str = r#"
static long six(long nr, const long *in, long *out, long *rcx, long *r11) {
    long result;
    register long r10 __asm__("r10") = in[3];
    register long r8 __asm__("r8") = in[4];
    register long r9 __asm__("r9") = in[5];
    long rdi = in[0], rsi = in[1], rdx = in[2], c, f;
    __asm__ volatile("syscall"
        : "=a"(result), "+D"(rdi), "+S"(rsi), "+d"(rdx), "+r"(r10), "+r"(r8), "+r"(r9), "=c"(c)
        : "a"(nr) : "r11", "memory");
    __asm__ volatile("mov %%r11, %0" : "=r"(f));
    out[0] = rdi; out[1] = rsi; out[2] = rdx; out[3] = r10; out[4] = r8; out[5] = r9;
    *rcx = c; *r11 = f;
    return result;
}
int main(void) {
    const long in[6] = { 999999, 0x1111222233334444, -3, 0x7fffffffffffffff, 5, -6 };
    while (told()) {
        long out[6], rcx, r11;
        long result = six(SYS_getpgid, in, out, &rcx, &r11);
        check(!memcmp(in, out, sizeof in), "the arguments");
        printf("%ld\n", result);
        fflush(stdout);
    }
}
"#;

async fn start(body: &str, filter: Filter, calls: usize) -> (Child, Listener) {
    use tokio::io::AsyncWriteExt;
    let (mut child, listener) = command("rewritten", body).filter(filter).spawn().await.unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&vec![b'x'; calls]).await.unwrap();
    (child, listener)
}

async fn printed(child: Child, mut listener: Listener) -> Vec<i64> {
    assert!(within("the end", listener.next()).await.is_none());
    let output = within("the output", child.wait_with_output()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn the_kernel_runs_the_call_with_other_arguments() {
    on_each_runtime(|| async {
        let (child, mut listener) = start(REGISTERS, Filter::new().trap(Sysno::getpgid), 100).await;
        let group = nix::unistd::getpgrp().as_raw();
        for _ in 0..100 {
            let call = within("a call", listener.next()).await.unwrap();
            assert_eq!(call.args()[0], 999999);
            let pid = call.pid().unwrap();
            let delivery = within("the rewriting", async {
                call.continue_with([pid.into(), 0, 0, 0, 0, 0]).await
            });
            assert_eq!(delivery.await.unwrap(), Delivery::Delivered);
        }
        assert_eq!(printed(child, listener).await, vec![i64::from(group); 100]);
    });
}

#[test]
fn the_result_is_what_the_kernel_returned() {
    on_each_runtime(|| async {
        let (child, mut listener) = start(REGISTERS, Filter::new().trap(Sysno::getpgid), 100).await;
        for _ in 0..100 {
            let call = within("a call", listener.next()).await.unwrap();
            let observed = within("the observation", call.continue_and_observe())
                .await
                .unwrap();
            assert_eq!(observed, Observed::Returned(-3));
        }
        assert_eq!(printed(child, listener).await, vec![-3; 100]);
    });
}
