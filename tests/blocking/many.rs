//! Many children of many threads.

use std::sync::mpsc::channel;

use asm_tracer::blocking::Tracer;
use asm_tracer::{Error, Filter};

use crate::support::{in_process_of_its_own, open_descriptors, until_blocking};
use crate::{program, start};

/// Makes as many calls as its argument says, and checks the answers.
const CALLS: &str = r#"
    int main(int argc, char **argv) {
        for (long i = 0; i < 200; i++)
            check(trap(i, getpid(), 0, 0) == 3 * i + getpid(), "the answer");
        return 5;
    }
"#;

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn a_hundred_children_of_eight_threads() {
    in_process_of_its_own("many::a_hundred_children_of_eight_threads", || {
        let (gone, hooks) = channel::<()>();
        // The library's own threads and descriptors are there from now on.
        assert_eq!(
            start(
                Tracer::new(|call| Some(3 * call.args[0] + call.args[1])),
                "calls",
                CALLS
            )
            .wait()
            .unwrap(),
            5 << 8
        );
        let before = (threads(), open_descriptors());
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let gone = gone.clone();
                scope.spawn(move || {
                    let children: Vec<_> = (thread..100)
                        .step_by(8)
                        .map(|child| {
                            let gone = gone.clone();
                            let tracer = Tracer::new(move |call| {
                                let _ = &gone;
                                // One in ten has a hook that panics at its last call.
                                assert!(child % 10 != 0 || call.args[0] < 199, "child {child}");
                                Some(3 * call.args[0] + call.args[1])
                            });
                            start(tracer, "calls", CALLS)
                        })
                        .collect();
                    for (index, child) in children.iter().enumerate() {
                        let number = thread + 8 * index;
                        match child.wait() {
                            Ok(status) => assert!(number % 10 != 0 && status == 5 << 8, "{number}: {status}"),
                            Err(Error::HookPanicked { message, .. }) => {
                                assert_eq!(message, format!("child {number}"))
                            }
                            Err(error) => panic!("{number}: {error:?}"),
                        }
                        let calls = child.drain_syscalls();
                        assert_eq!(calls.len(), 200);
                        assert!(calls.iter().all(|call| call.args[1] == i64::from(child.pid())));
                    }
                });
            }
        });
        drop(gone);
        crate::until_dropped(&hooks);
        until_blocking("threads and descriptors are as before", || {
            threads() <= before.0 && open_descriptors() <= before.1
        });
        assert_eq!(nix::sys::wait::wait().unwrap_err(), nix::errno::Errno::ECHILD);
    });
}

/// A thread that starts and drops, drops, drops. What the program has started ends by itself.
#[test]
fn children_that_are_dropped_at_once_leave_nothing() {
    in_process_of_its_own("many::children_that_are_dropped_at_once_leave_nothing", || {
        let mut before = None;
        for _ in 0..100 {
            let mut command = program("/bin/sh", &["-c", "while :; do /bin/true & wait; done"]);
            command.filter(Filter::trap_all());
            drop(Tracer::without_hook().spawn(&mut command).unwrap());
            before.get_or_insert_with(|| (threads(), open_descriptors()));
        }
        let (most_threads, most_descriptors) = before.unwrap();
        until_blocking("threads and descriptors are as before", || {
            threads() <= most_threads && open_descriptors() <= most_descriptors
        });
        assert_eq!(nix::sys::wait::wait().unwrap_err(), nix::errno::Errno::ECHILD);
    });
}
