//! Calls that are done by the handler fail, and succeed, as those of the kernel do.

use std::sync::mpsc::{Receiver, Sender, channel};

use asm_tracer::Sysno;
use nix::libc;

use crate::common::{
    KernelAction, RESTORER, SIGSYS_BIT, alone, assert_traced, at, at_mut, call, error, kernel_action,
    set_mask, trace_getppid,
};

/// A page that may be written to, one that may be read, and one that may not be touched, in this order.
struct Pages(usize);

const PAGE: usize = 4096;

impl Pages {
    fn new() -> Self {
        // SAFETY: the memory is new.
        unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let start = libc::mmap(std::ptr::null_mut(), 3 * PAGE, access, kind, -1, 0);
            assert_ne!(start, libc::MAP_FAILED);
            let page = |index: usize| start.byte_add(index * PAGE);
            assert_eq!(libc::mprotect(page(1), PAGE, libc::PROT_READ), 0);
            assert_eq!(libc::mprotect(page(2), PAGE, libc::PROT_NONE), 0);
            Self(start.addr())
        }
    }

    fn read_only(&self) -> i64 {
        (self.0 + PAGE + 64) as i64
    }

    fn closed(&self) -> i64 {
        (self.0 + 2 * PAGE + 64) as i64
    }

    /// The beginning may be read, and the end not.
    fn across(&self, inside: usize) -> i64 {
        (self.0 + 2 * PAGE - inside) as i64
    }
}

// P42
#[test]
fn bad_arguments_of_rt_sigprocmask_are_errors() {
    alone(|| {
        let _tracer = trace_getppid();
        let pages = Pages::new();
        let (set, mut old) = (0_u64, 0_u64);
        let (set, old) = (at(&set), at_mut(&mut old));
        let change = |args: [i64; 4]| call(Sysno::rt_sigprocmask, &args);
        for bad in [8, -1, i64::MIN, pages.closed(), pages.across(4), 1 << 47] {
            assert_eq!(change([0, bad, 0, 8]), error(libc::EFAULT), "{bad:#x}");
            assert_eq!(change([0, 0, bad, 8]), error(libc::EFAULT), "{bad:#x}");
            assert_eq!(change([77, bad, old, 8]), error(libc::EFAULT), "{bad:#x}");
        }
        assert_eq!(change([0, 0, pages.read_only(), 8]), error(libc::EFAULT));
        assert_eq!(change([0, pages.read_only(), 0, 8]), 0);
        for how in [3, -1, i64::MAX, 77] {
            assert_eq!(change([how, set, old, 8]), error(libc::EINVAL), "{how}");
            assert_eq!(change([how, 0, old, 8]), 0, "{how}");
        }
        // The kernel looks at the lower half of it.
        assert_eq!(change([1 << 32, set, old, 8]), 0);
        for size in [0, 4, 7, 9, 16, 128, -8] {
            assert_eq!(change([0, set, old, size]), error(libc::EINVAL), "{size}");
            assert_eq!(change([0, 8, 8, size]), error(libc::EINVAL), "{size}");
        }
        assert_traced();
    });
}

// P42
#[test]
fn a_bad_place_for_the_old_mask_does_not_undo_the_new_one() {
    alone(|| {
        let _tracer = trace_getppid();
        let new = 0xb00_u64;
        let how = libc::SIG_SETMASK.into();
        assert_eq!(
            call(Sysno::rt_sigprocmask, &[how, at(&new), 8, 8]),
            error(libc::EFAULT)
        );
        let mut present = 0_u64;
        assert_eq!(call(Sysno::rt_sigprocmask, &[how, 0, at_mut(&mut present), 8]), 0);
        assert_eq!(present, 0xa00, "but for SIGKILL and SIGSTOP");
    });
}

/// Numbers that look like random ones, the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[(self.next() >> 20) as usize % choice.len()]
    }
}

/// Changes a mask, in a way that may well be a mistake; gives the result, and what is in memory then.
fn change_mask(numbers: &mut Numbers, pages: &Pages) -> (i64, [u64; 2]) {
    let mut memory = [numbers.next() & !SIGSYS_BIT, 0];
    let [first, second] = [at_mut(&mut memory[0]), at_mut(&mut memory[1])];
    let how = numbers.of(&[0, 1, 2, 0, 1, 2, 0, 1, 2, 3, -1, 1 << 32]);
    let bad = [8, -1, pages.closed(), pages.across(3), pages.read_only()];
    let set = numbers.of(&[
        first,
        first,
        first,
        first,
        0,
        numbers.0 as i64 | 1 << 62,
        bad[0],
        bad[3],
        bad[4],
    ]);
    let old = numbers.of(&[second, second, first, 0, 0, bad[0], bad[1], bad[2], bad[4]]);
    let size = numbers.of(&[8, 8, 8, 8, 8, 8, 8, 0, 4, 16]);
    (call(Sysno::rt_sigprocmask, &[how, set, old, size]), memory)
}

/// A thread that does as it is told.
fn repeat<T: Send + 'static>(
    prepare: impl FnOnce() + Send + 'static,
    step: impl Fn(u64) -> T + Send + 'static,
) -> (Sender<u64>, Receiver<T>) {
    let (orders, order) = channel();
    let (results, result) = channel();
    let (ready, is_ready) = channel::<()>();
    std::thread::spawn(move || {
        prepare();
        drop(ready);
        for seed in order {
            results.send(step(seed)).unwrap();
        }
    });
    let _: Result<(), _> = is_ready.recv();
    (orders, result)
}

// P42
#[test]
fn masks_are_what_they_are_without_tracing() {
    const SEQUENCES: u64 = 200;
    alone(|| {
        let pages = Pages::new();
        let sequence = move |seed: u64| {
            let mut numbers = Numbers(seed);
            set_mask(0);
            let steps: Vec<_> = (0..100).map(|_| change_mask(&mut numbers, &pages)).collect();
            set_mask(0);
            steps
        };
        let sequence = std::sync::Arc::new(sequence);
        let again = std::sync::Arc::clone(&sequence);
        let trace = || {
            std::mem::forget(trace_getppid());
            assert_traced();
        };
        let (traced, results) = repeat(trace, move |seed| sequence(seed));
        let (untraced, expected) = repeat(|| (), move |seed| again(seed));
        for seed in 1..=SEQUENCES {
            let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            traced.send(seed).unwrap();
            untraced.send(seed).unwrap();
            assert_eq!(
                results.recv().unwrap(),
                expected.recv().unwrap(),
                "seed {seed:#x}"
            );
        }
    });
}

// P42
#[test]
fn actions_of_handlers_are_what_they_are_without_tracing() {
    const ACTIONS: u64 = 5000;
    alone(|| {
        let pages = std::sync::Arc::new(Pages::new());
        let change = move |seed: u64| {
            let mut numbers = Numbers(seed);
            let handler = numbers.of(&[libc::SIG_IGN as u64, libc::SIG_DFL as u64, 0x1234_5678]);
            let flags = numbers.next() & 0xd800_0003 | RESTORER;
            let mut memory: [KernelAction; 2] = [
                [handler, flags, numbers.next(), numbers.next() & !SIGSYS_BIT],
                [0; 4],
            ];
            let [first, second] = [at_mut(&mut memory[0]), at_mut(&mut memory[1])];
            let signal = numbers.of(&[10, 12, 33, 64, 10, 12, 33, 64, 9, 19, 0, -1, 65, 1 << 32 | 12]);
            let bad = [8, -1, pages.closed(), pages.across(20), pages.read_only()];
            let new = numbers.of(&[first, first, first, first, 0, 0, bad[0], bad[1], bad[2], bad[3]]);
            let old = numbers.of(&[second, second, second, first, 0, 0, bad[0], bad[2], bad[4]]);
            let size = numbers.of(&[8, 8, 8, 8, 8, 8, 0, 4, 16]);
            let result = call(Sysno::rt_sigaction, &[signal, new, old, size]);
            (result, memory, [10, 12, 33, 64].map(kernel_action))
        };
        let change = std::sync::Arc::new(change);
        let again = std::sync::Arc::clone(&change);
        let trace = || {
            std::mem::forget(trace_getppid());
            assert_traced();
        };
        let (traced, results) = repeat(trace, move |seed| change(seed));
        let (untraced, expected) = repeat(|| (), move |seed| again(seed));
        for seed in 1..=ACTIONS {
            // Handlers are those of the whole process.
            for number in [10, 12, 33, 64] {
                reset(number);
            }
            let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            untraced.send(seed).unwrap();
            let expected = expected.recv().unwrap();
            for number in [10, 12, 33, 64] {
                reset(number);
            }
            traced.send(seed).unwrap();
            let seen = results.recv().unwrap();
            assert_eq!(seen, expected, "seed {seed:#x}");
        }
    });
}

fn reset(signal: i32) {
    let default: KernelAction = [0, RESTORER, 0, 0];
    assert_eq!(call(Sysno::rt_sigaction, &[signal.into(), at(&default), 0, 8]), 0);
}
