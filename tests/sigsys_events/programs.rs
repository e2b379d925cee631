//! Real uses: a server and a pool of threads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use asm_tracer::Sysno;
use asm_tracer::sigsys::{Event, Tracer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::drain_until;
use crate::support::{in_process_of_its_own, within};

#[test]
fn a_thousand_connections_are_served_by_a_traced_server() {
    in_process_of_its_own(
        "programs::a_thousand_connections_are_served_by_a_traced_server",
        || {
            const CONNECTIONS: usize = 1000;
            // Two descriptors each.
            let (_, most) =
                nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
            nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, most.min(8192), most)
                .unwrap();
            let calls = [
                Sysno::read,
                Sysno::write,
                Sysno::sendto,
                Sysno::recvfrom,
                Sysno::futex,
                Sysno::epoll_wait,
                Sysno::clone3,
                Sysno::mmap,
            ];
            let tracer = Tracer::builder().trap(calls).capacity(1 << 16).install().unwrap();
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            let (events, statistics) = runtime.block_on(async {
                let mut stream = tracer.events().unwrap();
                let reader = tokio::spawn(async move {
                    let mut events = Vec::new();
                    while let Some(event) = stream.next().await {
                        events.push(event);
                    }
                    events
                });
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                tokio::spawn(async move {
                    loop {
                        let (mut connection, _) = listener.accept().await.unwrap();
                        tokio::spawn(async move {
                            let (mut reading, mut writing) = connection.split();
                            tokio::io::copy(&mut reading, &mut writing).await
                        });
                    }
                });
                let mut open = Vec::new();
                for number in 0..CONNECTIONS {
                    let mut connection = within("a connection", TcpStream::connect(address)).await.unwrap();
                    connection
                        .write_all(format!("{number:08}").as_bytes())
                        .await
                        .unwrap();
                    open.push(connection);
                }
                // All of them are open, and each gets its own.
                for (number, connection) in open.iter_mut().enumerate() {
                    let mut echo = [0; 8];
                    within("the echo", connection.read_exact(&mut echo))
                        .await
                        .unwrap();
                    assert_eq!(echo, *format!("{number:08}").as_bytes());
                }
                drop(open);
                let statistics = tracer.statistics();
                drop(tracer);
                (within("the end of the events", reader).await.unwrap(), statistics)
            });
            assert!(events.len() >= 4 * CONNECTIONS, "{statistics:?}");
            let delivered = events
                .iter()
                .filter(|event| matches!(event, Event::Call(_)))
                .count() as u64;
            let lost: u64 = crate::lost(&events);
            // What came after the count is there as well.
            assert!(
                delivered + lost >= statistics.attempts,
                "{delivered} {lost} {statistics:?}"
            );
        },
    );
}

/// A pool of threads, with a queue and a condition.
#[test]
fn a_traced_pool_of_threads_does_all_of_its_work() {
    in_process_of_its_own("programs::a_traced_pool_of_threads_does_all_of_its_work", || {
        const JOBS: u64 = 20_000;
        let calls = [
            Sysno::futex,
            Sysno::clone3,
            Sysno::mmap,
            Sysno::munmap,
            Sysno::sched_yield,
        ];
        let tracer = Arc::new(Tracer::builder().trap(calls).capacity(1 << 16).install().unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let draining = drain_until(Arc::clone(&tracer), Arc::clone(&stop));
        let (queue, ready, sum) = (Mutex::new(Vec::new()), Condvar::new(), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    loop {
                        let mut jobs = queue.lock().unwrap();
                        let job = loop {
                            match jobs.pop() {
                                Some(job) => break job,
                                None => jobs = ready.wait(jobs).unwrap(),
                            }
                        };
                        drop(jobs);
                        if job == 0 {
                            break;
                        }
                        sum.fetch_add(job, Ordering::Relaxed);
                    }
                });
            }
            for job in 1..=JOBS {
                queue.lock().unwrap().push(job);
                ready.notify_one();
            }
            while !queue.lock().unwrap().is_empty() {
                std::thread::yield_now();
            }
            queue.lock().unwrap().extend([0; 8]);
            ready.notify_all();
        });
        assert_eq!(sum.load(Ordering::Relaxed), JOBS * (JOBS + 1) / 2);
        stop.store(true, Ordering::Relaxed);
        let events = draining.join().unwrap();
        // The thread that drains is traced as well, so that some come after its last look.
        let rest = tracer.drain().unwrap();
        let events = [events, rest].concat();
        assert!(events.len() > 8);
        let statistics = tracer.statistics();
        assert!(statistics.settled <= statistics.attempts);
    });
}
