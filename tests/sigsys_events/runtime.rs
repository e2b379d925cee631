use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use asm_tracer::filter::Threads;
use asm_tracer::sigsys::{Event, Tracer};
use asm_tracer::{Error, Sysno};
use tokio::runtime::{Builder, Runtime};

use crate::losses::drain_thread;
use crate::support::{BOUND, in_process_of_its_own, within};
use crate::{assert_accounted, getppid};

/// What a runtime sleeps and wakes by, and more.
const CALLS: [Sysno; 9] = [
    Sysno::futex,
    Sysno::epoll_wait,
    Sysno::epoll_pwait,
    Sysno::epoll_ctl,
    Sysno::read,
    Sysno::write,
    Sysno::eventfd2,
    Sysno::sched_yield,
    Sysno::getppid,
];

fn runtimes() -> [Runtime; 2] {
    [
        Builder::new_current_thread().enable_all().build().unwrap(),
        Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap(),
    ]
}

/// How long nothing must happen to call it rest.
const REST: Duration = Duration::from_millis(300);

/// Watches from a thread that makes no traced call, and waits until the process has come to rest.
fn wait_for_rest(attempts: &dyn Fn() -> u64) {
    let start = Instant::now();
    let (mut seen, mut since) = (attempts(), Instant::now());
    while since.elapsed() < REST {
        assert!(start.elapsed() < BOUND, "the process does not come to rest");
        std::thread::sleep(Duration::from_millis(10));
        let now = attempts();
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
    }
}

// P36, P37: on each runtime, in the task that is blocked on and in one that was spawned.
#[test]
fn an_idle_process_comes_to_rest() {
    for (index, spawned) in [(0, false), (0, true), (1, false), (1, true)] {
        let name = "runtime::an_idle_process_comes_to_rest";
        let variant = format!("{index}{spawned}");
        let key = "ASM_TRACER_TEST_VARIANT";
        if crate::support::is_child() {
            if std::env::var(key).as_deref() == Ok(&variant) {
                let [one, several] = runtimes();
                come_to_rest(if index == 0 { &one } else { &several }, spawned);
            }
            continue;
        }
        let output = crate::support::rerun(name).env(key, &variant).output().unwrap();
        crate::support::assert_passed(&output);
    }
}

fn come_to_rest(runtime: &Runtime, spawned: bool) {
    let tracer = Arc::new(
        Tracer::builder()
            .trap(CALLS)
            .threads(Threads::All)
            .install()
            .unwrap(),
    );
    let drain = drain_thread().unwrap();
    let seen = Arc::new(AtomicU64::new(0));
    let (counting, reading) = (Arc::clone(&seen), Arc::clone(&tracer));
    let read = async move {
        let mut events = reading.events().unwrap();
        while let Some(event) = events.next().await {
            if let Event::Call(call) = event {
                assert_ne!(call.thread, drain);
                if call.syscall.args[0] == 4711 {
                    counting.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    };
    let watching = Arc::clone(&tracer);
    let (end, ended) = tokio::sync::oneshot::channel();
    let watcher = std::thread::spawn(move || {
        for round in 1..=3 {
            wait_for_rest(&|| watching.statistics().attempts);
            // A call of another kind is told of at once, also of a process at rest.
            getppid(4711);
            let start = Instant::now();
            while seen.load(Ordering::SeqCst) < round {
                assert!(start.elapsed() < BOUND, "the call is not told of");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        wait_for_rest(&|| watching.statistics().attempts);
        let _ = end.send(());
    });
    runtime.block_on(async {
        match spawned {
            true => {
                tokio::spawn(read);
                let _ = ended.await;
            }
            false => tokio::select! {
                () = read => {}
                _ = ended => {}
            },
        }
    });
    watcher.join().unwrap();
}

// P38
#[test]
fn a_traced_runtime_loses_no_wake_up() {
    in_process_of_its_own("runtime::a_traced_runtime_loses_no_wake_up", || {
        let tracer = Tracer::builder().trap(CALLS).capacity(1 << 16).install().unwrap();
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let reader = tokio::spawn(read_all(tracer.events().unwrap()));
            let count = Arc::new(AtomicUsize::new(0));
            let tasks: Vec<_> = (0..10_000)
                .map(|number| {
                    let count = Arc::clone(&count);
                    tokio::spawn(async move {
                        if number % 100 == 0 {
                            let start = Instant::now();
                            let time = Duration::from_millis(number / 100 % 10);
                            tokio::time::sleep(time).await;
                            assert!(start.elapsed() >= time);
                        } else {
                            tokio::task::yield_now().await;
                        }
                        count.fetch_add(1, Ordering::Relaxed);
                    })
                })
                .collect();
            for task in tasks {
                within("a task", task).await.unwrap();
            }
            assert_eq!(count.load(Ordering::Relaxed), 10_000);
            // A ping-pong over channels between tasks of both workers.
            let (to, mut from) = tokio::sync::mpsc::channel::<u32>(1);
            let (back, mut answers) = tokio::sync::mpsc::channel::<u32>(1);
            tokio::spawn(async move {
                while let Some(number) = from.recv().await {
                    back.send(number + 1).await.unwrap();
                }
            });
            for number in 0..2000 {
                to.send(number).await.unwrap();
                assert_eq!(within("an answer", answers.recv()).await, Some(number + 1));
            }
            let statistics = tracer.statistics();
            drop(tracer);
            let events = within("the end of the events", reader).await.unwrap();
            assert!(statistics.attempts > 1000, "{statistics:?}");
            assert!(
                events.len() as u64 >= statistics.attempts - statistics.dropped,
                "{statistics:?}"
            );
        });
    });
}

async fn read_all(mut events: asm_tracer::sigsys::Events) -> Vec<Event> {
    let mut all = Vec::new();
    while let Some(event) = events.next().await {
        all.push(event);
    }
    all
}

#[test]
fn next_is_cancel_safe() {
    in_process_of_its_own("runtime::next_is_cancel_safe", || {
        let tracer = Tracer::builder().trap(Sysno::getppid).install().unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let all = runtime.block_on(async {
            let mut events = tracer.events().unwrap();
            let mut all = Vec::new();
            for number in 0..500 {
                // Given up before and after there was something.
                tokio::select! {
                    biased;
                    event = events.next() => all.extend(event),
                    () = tokio::task::yield_now() => {}
                }
                getppid(number);
            }
            while all.len() < 500 {
                all.extend(within("an event", events.next()).await);
            }
            all
        });
        let numbers: Vec<_> = all
            .iter()
            .map(|event| match event {
                Event::Call(call) => call.syscall.args[0],
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(numbers, (0..500).collect::<Vec<_>>());
        assert_accounted(tracer.statistics(), &all);
    });
}

#[test]
fn outside_of_a_runtime_there_is_no_stream_and_another_can_be_had() {
    in_process_of_its_own(
        "runtime::outside_of_a_runtime_there_is_no_stream_and_another_can_be_had",
        || {
            let tracer = Tracer::builder().trap(Sysno::getppid).install().unwrap();
            assert!(matches!(tracer.events(), Err(Error::NoRuntime)));
            getppid(1);
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut events = tracer.events().unwrap();
                assert!(matches!(
                    within("an event", events.next()).await,
                    Some(Event::Call(_))
                ));
                drop(events);
                getppid(2);
                let mut events = tracer.events().unwrap();
                let second = within("an event", events.next()).await;
                assert!(
                    matches!(second, Some(Event::Call(call)) if call.syscall.args[0] == 2),
                    "{second:?}"
                );
            });
        },
    );
}

#[test]
fn a_stream_can_be_had_as_soon_as_another_is_given_up() {
    in_process_of_its_own(
        "runtime::a_stream_can_be_had_as_soon_as_another_is_given_up",
        || {
            let tracer = Tracer::builder().trap(Sysno::getppid).install().unwrap();
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let taken = || loop {
                let _inside = runtime.enter();
                match tracer.events() {
                    Err(Error::EventsTaken) => std::hint::spin_loop(),
                    other => break other.unwrap(),
                }
            };
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| (0..20_000).for_each(|_| drop(taken())));
                }
            });
        },
    );
}
