#![allow(missing_docs, unsafe_code)]
mod support;
use asm_tracer::filter::Threads;
use asm_tracer::sigsys::{Event, Tracer};
use asm_tracer::{Sysno, TrappedSyscall};
use support::in_process_of_its_own;

fn hook(call: &mut TrappedSyscall) -> Option<i64> {
    match call.sysno() {
        Some(Sysno::getppid) if call.args[0] == 7 => Some(4711),
        Some(Sysno::write) if call.args[0] == 999 => {
            call.args[0] = 2;
            None
        }
        _ => None,
    }
}

#[test]
fn smoke() {
    in_process_of_its_own("smoke", || {
        let tracer = Tracer::builder()
            .trap([
                Sysno::getppid,
                Sysno::write,
                Sysno::openat,
                Sysno::clone3,
                Sysno::mmap,
                Sysno::futex,
                Sysno::read,
            ])
            .hook(hook)
            .results(true)
            .install()
            .unwrap();
        assert_eq!(unsafe { libc::syscall(libc::SYS_getppid, 7) }, 4711);
        let p = std::os::unix::process::parent_id();
        assert!(p > 0);
        assert_eq!(
            unsafe { libc::syscall(libc::SYS_write, 999, c"hi\n".as_ptr(), 3) },
            3
        );
        std::thread::spawn(|| {
            std::fs::read("/etc/passwd").unwrap();
        })
        .join()
        .unwrap();
        assert!(std::process::Command::new("true").status().is_err());
        for event in tracer.drain().unwrap() {
            eprintln!("{event:?}");
        }
        eprintln!("{tracer:?}");
    });
}

#[test]
fn all() {
    in_process_of_its_own("all", || {
        let every: Vec<i64> = (0..462).filter(|n| Sysno::new(*n as usize).is_some()).collect();
        let tracer = Tracer::builder()
            .trap(every)
            .threads(Threads::All)
            .install()
            .unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut events = tracer.events().unwrap();
            let t = tokio::spawn(async { for _ in 0..10 { tokio::time::sleep(std::time::Duration::from_millis(2)).await; } });
            let mut n = 0;
            let end = tokio::time::sleep(std::time::Duration::from_millis(300));
            tokio::pin!(end);
            let mut late = 0;
            let start = std::time::Instant::now();
            loop {
                tokio::select! { e = events.next() => { n += 1; if start.elapsed().as_millis() > 200 { late += 1; } if let Some(Event::Lost(k)) = e { eprintln!("lost {k}"); } } _ = &mut end => break }
            }
            t.await.unwrap();
            eprintln!("{n} events, {late} late, {tracer:?}");
        });
    });
}
