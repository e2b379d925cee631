//! When the thread ends, and that it does.

use std::sync::mpsc::channel;

use asm_tracer::blocking::Tracer;
use asm_tracer::{Error, Filter, Sysno, install_filter_with_notifs};

use crate::support::in_process_of_its_own;
use crate::{number, program, received, start, until_dropped};

#[test]
fn it_serves_descendants_that_outlive_the_child() {
    const LEAVES_ONE: &str = r#"
        int main(void) {
            int ready[2];
            check(!pipe(ready), "pipe");
            if (!fork()) {
                check(write(ready[1], "x", 1) == 1, "write");
                told();
                long answer = trap(2, 0, 0, 0);
                return dprintf(1, "%ld", answer) < 0;
            }
            char byte;
            check(read(ready[0], &byte, 1) == 1, "read");
            return trap(1, 0, 0, 0);
        }
    "#;
    let (calls, call) = channel();
    let child = start(
        Tracer::new(move |call| {
            calls.send(call.args[0]).unwrap();
            Some(10 * call.args[0])
        }),
        "leaves_one",
        LEAVES_ONE,
    );
    let (stdin, stdout) = (child.take_stdin(), child.take_stdout().unwrap());
    assert_eq!(child.wait().unwrap(), 10 << 8);
    assert_eq!(received("the child's call", &call), 1);
    drop(child);
    drop(stdin);
    assert_eq!(std::io::read_to_string(stdout).unwrap(), "20");
    assert_eq!(received("the descendant's call", &call), 2);
    until_dropped(&call);
}

#[test]
fn it_ends_where_there_never_was_a_call() {
    let (gone, hook) = channel::<()>();
    let tracer = Tracer::new(move |_| {
        let _ = &gone;
        None
    });
    let child = tracer
        .spawn(program("true", &[]).filter(Filter::new().trap(1000)))
        .unwrap();
    assert_eq!(child.wait().unwrap(), 0);
    until_dropped(&hook);
}

#[test]
fn it_ends_where_there_is_no_child() {
    let (gone, hook) = channel::<()>();
    let tracer = Tracer::new(move |_| {
        let _ = &gone;
        None
    });
    tracer.spawn(&mut program("/no/such/program", &[])).unwrap_err();
    until_dropped(&hook);
}

#[test]
fn a_listener_from_elsewhere_is_served_on_the_spot() {
    in_process_of_its_own("ends::a_listener_from_elsewhere_is_served_on_the_spot", || {
        let (listeners, listener) = channel();
        let caller = std::thread::spawn(move || {
            let calls = [number(Sysno::getppid), number(Sysno::getpgrp)];
            listeners
                .send(install_filter_with_notifs(&calls).unwrap())
                .unwrap();
            (nix::unistd::getppid().as_raw(), nix::unistd::getpgrp().as_raw())
        });
        let hook = |call: &asm_tracer::TrappedSyscall| match call.sysno() {
            Some(Sysno::getppid) => Some(42),
            _ => panic!("not that one"),
        };
        let error = Tracer::new(hook)
            .serve(received("the listener", &listener))
            .unwrap_err();
        assert!(
            matches!(&error, Error::HookPanicked { message, status: None } if message == "not that one"),
            "{error:?}"
        );
        assert_eq!(caller.join().unwrap(), (42, -(asm_tracer::Errno::ENOSYS as i32)));

        let file = std::fs::File::open("/dev/null").unwrap();
        let refused = Tracer::without_hook().serve(file.into());
        assert!(matches!(refused, Err(Error::NotAListener)), "{refused:?}");
    });
}
