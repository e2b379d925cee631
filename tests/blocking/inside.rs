//! What a hook may do with the library itself, and with its own child.

use std::sync::mpsc::{Receiver, channel};

use asm_tracer::blocking::{TracedChild, Tracer};
use asm_tracer::{Error, Signal};

use crate::support::{in_process_of_its_own, is_child, rerun, state, until_blocking};
use crate::{received, start, until_dropped};

/// Makes one call, and ends with its answer.
const ONE_CALL: &str = "int main(void) { long number = 4711; return trap((long)&number, 0, 0, 0); }";

#[test]
fn a_hook_starts_another_child() {
    let tracer = Tracer::new(|_| {
        let inner = start(Tracer::new(|_| Some(5)), "one_call", ONE_CALL);
        Some(i64::from(inner.wait().unwrap() >> 8) + 1)
    });
    let child = start(tracer, "one_call", ONE_CALL);
    assert_eq!(child.wait().unwrap(), 6 << 8);
}

/// Starts a child whose hook gets it, does this with it, and keeps what is given back. Gives its pid, and a receiver that
/// is disconnected with the hook.
fn with_its_own_child(
    act: impl FnOnce(TracedChild, i64) -> Option<TracedChild> + Send + 'static,
) -> (i32, Receiver<()>) {
    let ((children, own), (gone, hook)) = (channel::<TracedChild>(), channel::<()>());
    let mut act = Some(act);
    let mut kept = Vec::new();
    let tracer = Tracer::new(move |call| {
        let _ = &gone;
        if let Some(act) = act.take() {
            kept.extend(act(received("the child", &own), call.args[0]));
        }
        Some(0)
    });
    let child = start(tracer, "one_call", ONE_CALL);
    let pid = child.pid();
    children.send(child).unwrap();
    (pid, hook)
}

#[test]
fn a_hook_calls_the_methods_of_its_own_child() {
    let (results, result) = channel();
    let (_, hook) = with_its_own_child(move |child, address| {
        assert_eq!(
            child.read_memory(address as u64, 8).unwrap(),
            4711_i64.to_ne_bytes()
        );
        assert_eq!(child.drain_syscalls().len(), 1);
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill(Signal::SIGKILL).unwrap();
        assert_eq!(child.wait().unwrap(), Signal::SIGKILL as i32);
        assert!(matches!(child.read_memory(address as u64, 8), Err(Error::Gone)));
        results.send(()).unwrap();
        // It goes with the hook, on the thread that serves.
        Some(child)
    });
    received("what the hook saw", &result);
    until_dropped(&hook);
}

#[test]
fn a_hook_drops_its_own_child() {
    let (pid, hook) = with_its_own_child(|child, _| {
        drop(child);
        None
    });
    until_dropped(&hook);
    until_blocking("the child is reaped", || {
        !std::path::Path::new(&format!("/proc/{pid}")).exists()
    });
}

#[test]
fn a_hook_exits_the_process() {
    if is_child() {
        let (go, told) = channel::<()>();
        let tracer = Tracer::new(move |_| {
            told.recv().unwrap();
            std::process::exit(3)
        });
        let child = start(tracer, "one_call", ONE_CALL);
        eprintln!("child {}", child.pid());
        go.send(()).unwrap();
        let _ = child.wait();
        unreachable!("the process has exited");
    }
    let output = rerun("inside::a_hook_exits_the_process").output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    let pid = text.lines().find_map(|line| line.strip_prefix("child ")).unwrap();
    until_blocking("the child is dead", || {
        matches!(state(pid.parse().unwrap()), None | Some('Z'))
    });
}

/// Every thread that waits learns of the panic, whether it began before or after.
#[test]
fn all_that_wait_see_the_panic() {
    let (go, told) = channel::<()>();
    let tracer = Tracer::new(move |_| {
        told.recv().unwrap();
        std::panic::resume_unwind(Box::new("seen by all"))
    });
    let child = start(tracer, "one_call", ONE_CALL);
    std::thread::scope(|scope| {
        let wait = || scope.spawn(|| child.wait().unwrap_err().to_string());
        let mut waiters: Vec<_> = (0..8).map(|_| wait()).collect();
        go.send(()).unwrap();
        waiters.extend((0..8).map(|_| wait()));
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), "the hook panicked: seen by all");
        }
    });
}

/// Neither a hook that blocks nor a child that is never dropped is a reason for the process not to end.
#[test]
fn the_process_ends_while_a_hook_blocks() {
    in_process_of_its_own("inside::the_process_ends_while_a_hook_blocks", || {
        let (calls, call) = channel();
        let tracer = Tracer::new(move |_| {
            calls.send(()).unwrap();
            loop {
                std::thread::park();
            }
        });
        let child = start(tracer, "one_call", ONE_CALL);
        received("the call", &call);
        std::mem::forget(child);
    });
}
