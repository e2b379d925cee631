use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use asm_tracer::Sysno;
use asm_tracer::filter::Threads;
use asm_tracer::sigsys::{Event, Tracer};
use nix::libc;

use crate::probe::{Cpu, WAYS};
use crate::storm::{Storm, until_risen};
use crate::{count, counting, every_call, handle, isolated, shown, tracer};

// P19, P6: each starts others, with every call of all of them traced.
#[test]
fn threads_start_threads_with_every_call_traced() {
    fn tree(depth: u32) -> u64 {
        if depth == 0 {
            drop(std::hint::black_box(vec![0_u8; 200_000]));
            std::thread::yield_now();
            return 1;
        }
        let threads = [(); 3].map(|()| std::thread::spawn(move || tree(depth - 1)));
        1 + threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum::<u64>()
    }
    isolated("threads::threads_start_threads_with_every_call_traced", || {
        let tracer = Tracer::builder()
            .trap(every_call())
            .hook(counting)
            .threads(Threads::All)
            .install()
            .unwrap();
        let before = shown(Sysno::clone3) + shown(Sysno::clone);
        let mut started = 0;
        for _ in 0..3 {
            // All but the first, which is this one.
            started += tree(4) - 1;
        }
        assert_eq!(started, 3 * (3 + 9 + 27 + 81));
        assert_eq!(shown(Sysno::clone3) + shown(Sysno::clone) - before, started);
        let statistics = tracer.statistics();
        assert_eq!((statistics.refused_rewrites, statistics.full_tables), (0, 0));
    });
}

// P19: of so few calls no event is lost.
#[test]
fn each_thread_that_is_started_is_an_event() {
    isolated("threads::each_thread_that_is_started_is_an_event", || {
        let tracer = tracer(&[Sysno::clone3, Sysno::clone]).install().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        std::thread::spawn(|| {}).join().unwrap();
                    }
                });
            }
        });
        let events = tracer.drain().unwrap();
        assert!(!events.iter().any(|event| matches!(event, Event::Lost(_))));
        assert_eq!(
            count(&events, Sysno::clone3) + count(&events, Sysno::clone),
            8 + 8 * 20
        );
    });
}

// P33: the C library's restartable sequences know the processor still.
#[test]
fn the_processor_is_known_in_a_storm() {
    static TICKS: AtomicU64 = AtomicU64::new(0);
    static CPU: std::sync::OnceLock<Cpu> = std::sync::OnceLock::new();
    static WRONG: AtomicU64 = AtomicU64::new(0);
    extern "C" fn on_signal(_: i32, _: *mut libc::siginfo_t, _: *mut libc::ucontext_t) {
        let tick = TICKS.fetch_add(1, Relaxed);
        let way = WAYS[tick as usize % WAYS.len()];
        WRONG.fetch_add(CPU.get().unwrap().call(way, tick).is_err().into(), Relaxed);
    }
    /// By a call, where the C library looks into memory that the kernel writes.
    fn asked() -> i32 {
        let mut processor = 0_u32;
        let none: *mut u8 = std::ptr::null_mut();
        // SAFETY: the kernel writes a number.
        let asked = unsafe { libc::syscall(libc::SYS_getcpu, &mut processor, none, none) };
        assert_eq!(asked, 0);
        processor.cast_signed()
    }
    fn pin(processors: &libc::cpu_set_t) {
        // SAFETY: the kernel reads a set.
        let set = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), processors) };
        assert_eq!(set, 0);
    }
    fn in_storm() {
        // SAFETY: these are sets of processors.
        let (mut all, mut one): (libc::cpu_set_t, libc::cpu_set_t) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        // SAFETY: the kernel writes a set.
        let got = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut all) };
        assert_eq!(got, 0);
        let _storm = Storm::over_this_thread(libc::SIGUSR2);
        for _ in 0..3 {
            // SAFETY: the numbers are within the sets.
            for processor in (0..1024).filter(|number| unsafe { libc::CPU_ISSET(*number, &all) }) {
                // SAFETY: as above.
                unsafe {
                    libc::CPU_ZERO(&mut one);
                    libc::CPU_SET(processor, &mut one);
                }
                pin(&one);
                until_risen(&TICKS, 200, |seed| {
                    let way = WAYS[seed as usize % WAYS.len()];
                    CPU.get().unwrap().call(way, seed).unwrap();
                    // SAFETY: asks for a number.
                    let known = unsafe { libc::sched_getcpu() };
                    assert_eq!((known, asked()), (processor as i32, processor as i32));
                });
            }
            pin(&all);
        }
    }
    isolated("threads::the_processor_is_known_in_a_storm", || {
        CPU.get_or_init(Cpu::look);
        let calls = [
            Sysno::getppid,
            Sysno::getcpu,
            Sysno::sched_setaffinity,
            Sysno::rseq,
        ];
        let _tracer = tracer(&calls).install().unwrap();
        handle(libc::SIGUSR2, libc::SA_RESTART, on_signal);
        in_storm();
        // A thread that the C library registers itself, by a traced call.
        std::thread::spawn(in_storm).join().unwrap();
        assert_eq!(WRONG.load(Relaxed), 0);
        assert!(shown(Sysno::rseq) > 0);
    });
}
