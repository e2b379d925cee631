use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use asm_tracer::sigsys::{Event, Tracer, drain_trapped_syscalls, enable_tracing};
use asm_tracer::{Error, Sysno, TrappedSyscall};

use crate::support::{in_process_of_its_own, until_blocking};
use crate::{assert_accounted, calls, drain_until, getppid, lost};

// P35
#[test]
fn sixty_four_threads_on_a_ring_of_four_run_on_and_their_losses_are_counted() {
    in_process_of_its_own(
        "losses::sixty_four_threads_on_a_ring_of_four_run_on_and_their_losses_are_counted",
        || {
            const EACH: i64 = 500;
            let tracer = Tracer::builder()
                .trap(Sysno::getppid)
                .capacity(4)
                .install()
                .unwrap();
            let tracer = Arc::new(tracer);
            let stop = Arc::new(AtomicBool::new(false));
            let draining = drain_until(Arc::clone(&tracer), Arc::clone(&stop));
            std::thread::scope(|scope| {
                for _ in 0..64 {
                    scope.spawn(|| (0..EACH).for_each(|number| assert!(getppid(number) > 0)));
                }
            });
            stop.store(true, Ordering::Relaxed);
            let events = draining.join().unwrap();
            assert_accounted(tracer.statistics(), &events);
            assert_eq!(tracer.statistics().attempts, 64 * EACH as u64);
            // Each thread's come in its order.
            let mut last = std::collections::HashMap::new();
            for event in &events {
                if let Event::Call(call) = event {
                    let number = call.syscall.args[0];
                    assert!(
                        last.insert(call.thread, number)
                            .is_none_or(|before| before < number)
                    );
                }
            }
        },
    );
}

// P35: nobody reads at all.
#[test]
fn a_process_whose_events_nobody_reads_runs_on() {
    in_process_of_its_own("losses::a_process_whose_events_nobody_reads_runs_on", || {
        let tracer = Tracer::builder()
            .trap(Sysno::getppid)
            .capacity(64)
            .install()
            .unwrap();
        (0..20_000).for_each(|number| assert!(getppid(number) > 0));
        let events = tracer.drain().unwrap();
        let more = tracer.drain().unwrap();
        let events = [events, more].concat();
        assert_accounted(tracer.statistics(), &events);
        assert!(lost(&events) > 0);
        assert_eq!(tracer.statistics().attempts, 20_000);
        // There is room again.
        getppid(7);
        let events = tracer.drain().unwrap();
        assert!(
            matches!(events[..], [Event::Call(call)] if call.syscall.args[0] == 7),
            "{events:?}"
        );
    });
}

#[test]
fn dropping_the_tracer_ends_the_recording_and_lets_calls_run() {
    fn hook(_: &mut TrappedSyscall) -> Option<i64> {
        Some(42)
    }
    in_process_of_its_own(
        "losses::dropping_the_tracer_ends_the_recording_and_lets_calls_run",
        || {
            let parent = getppid(0);
            let tracer = Tracer::builder()
                .trap(Sysno::getppid)
                .hook(hook)
                .install()
                .unwrap();
            assert_eq!(getppid(1), 42);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let mut events = runtime.block_on(async { tracer.events().unwrap() });
            assert!(matches!(tracer.events(), Err(Error::EventsTaken)));
            assert!(matches!(tracer.drain(), Err(Error::EventsTaken)));
            drop(tracer);
            assert_eq!(getppid(2), parent);
            runtime.block_on(async {
                let first = events.next().await;
                assert!(
                    matches!(first, Some(Event::Call(call)) if call.syscall.args[0] == 1),
                    "{first:?}"
                );
                assert_eq!(events.next().await, None);
                assert_eq!(events.next().await, None);
            });
            let again = Tracer::builder().trap(Sysno::getppid).install();
            assert!(matches!(again, Err(Error::AlreadyTracing)), "{again:?}");
            // The drain's thread has ended.
            until_blocking("the drain has ended", || drain_thread().is_none());
            assert_eq!(getppid(3), parent);
        },
    );
}

/// The thread id of the drain.
pub(crate) fn drain_thread() -> Option<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks.filter_map(Result::ok).find_map(|task| {
        // The kernel keeps fifteen bytes of a name.
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        (name.trim() == "asm_tracer-drai").then(|| task.file_name().to_str().unwrap().parse().unwrap())
    })
}

#[test]
fn the_synchronous_functions_trace_and_drain() {
    fn hook(call: &mut TrappedSyscall) -> Option<i64> {
        (call.args[0] == 5).then_some(55)
    }
    in_process_of_its_own("losses::the_synchronous_functions_trace_and_drain", || {
        assert!(drain_trapped_syscalls().is_empty());
        enable_tracing(&[Sysno::getppid.id().into()], Some(hook)).unwrap();
        assert_eq!(getppid(5), 55);
        assert_eq!(getppid(6), i64::from(std::os::unix::process::parent_id()));
        let numbers: Vec<_> = drain_trapped_syscalls()
            .iter()
            .map(|call| (call.nr, call.args[0]))
            .collect();
        let getppid = i64::from(Sysno::getppid.id());
        assert_eq!(numbers[..2], [(getppid, 5), (getppid, 6)]);
        assert!(drain_trapped_syscalls().is_empty());
        assert!(matches!(enable_tracing(&[0], None), Err(Error::AlreadyTracing)));
    });
}

#[test]
fn a_drain_gives_what_was_called_before() {
    in_process_of_its_own("losses::a_drain_gives_what_was_called_before", || {
        let tracer = Tracer::builder().trap(Sysno::getppid).install().unwrap();
        for number in 0..2000 {
            getppid(number);
            let events = tracer.drain().unwrap();
            assert!(
                matches!(events[..], [Event::Call(call)] if call.syscall.args[0] == number),
                "{number}: {events:?}"
            );
            assert_eq!(calls(&events, Sysno::getppid), 1);
        }
    });
}
