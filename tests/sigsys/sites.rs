//! Calls from many places, from one place by many threads, and by many threads at once.

use std::arch::asm;
use std::collections::BTreeSet;
use std::sync::Barrier;

use asm_tracer::sigsys::{Decision, Tracer};
use asm_tracer::{Errno, Sysno};
use nix::libc;

use crate::common::{ANSWER, alone, answer, assert_traced, call, calls_of, error, everything};

/// How many places have an entry of their own in the gate, and how many of these are for calls that need one.
const ENTRIES: usize = 2048;
const RESERVED: usize = 128;

/// Places that make calls, made at run time: `syscall; ret`.
struct Places(*const u8, usize);

impl Places {
    const SIZE: usize = 4;

    fn new(count: usize) -> Self {
        // SAFETY: the memory is new, and nothing but this code is in it.
        unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let memory = libc::mmap(std::ptr::null_mut(), count * Self::SIZE, access, kind, -1, 0);
            assert_ne!(memory, libc::MAP_FAILED);
            for index in 0..count {
                memory
                    .cast::<[u8; 4]>()
                    .add(index)
                    .write([0x0f, 0x05, 0xc3, 0xcc]);
            }
            let access = libc::PROT_READ | libc::PROT_EXEC;
            assert_eq!(libc::mprotect(memory, count * Self::SIZE, access), 0);
            Self(memory.cast(), count)
        }
    }

    /// The address after the instruction.
    fn after(&self, index: usize) -> u64 {
        assert!(index < self.1);
        (self.0.addr() + index * Self::SIZE + 2) as u64
    }

    /// Makes a call from this place; gives its result and `rcx`, which tells where it was made in the end.
    fn call(&self, index: usize, number: Sysno, args: [i64; 3]) -> (i64, u64) {
        let (result, rcx);
        // SAFETY: there is code; the tests make calls that are harmless to Rust.
        unsafe {
            asm!(
                "call {place}",
                place = in(reg) self.after(index) - 2,
                inlateout("rax") i64::from(number.id()) => result,
                in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
                in("r10") 0, in("r8") 0,
                lateout("rcx") rcx, lateout("r11") _,
                clobber_abi("sysv64"),
            );
        }
        (result, rcx)
    }
}

fn own_group() -> i64 {
    // SAFETY: asks for a number.
    unsafe { libc::getpgrp() }.into()
}

// P44
#[test]
fn five_thousand_places_make_calls() {
    const PLACES: usize = 5000;
    alone(|| {
        let group = own_group();
        let builder = Tracer::builder().trap([Sysno::getpgrp, Sysno::getppid]);
        let tracer = builder.capacity(1 << 14).hook(answer).install().unwrap();
        let places = Places::new(PLACES);
        for _ in 0..2 {
            for index in 0..PLACES {
                assert_eq!(places.call(index, Sysno::getpgrp, [0; 3]).0, group);
            }
        }
        assert_eq!(places.call(PLACES - 1, Sysno::getppid, [0; 3]).0, ANSWER);
        let full = tracer.statistics().full_tables;
        // What the C library and these tests do takes entries as well.
        let least = 2 * (PLACES - (ENTRIES - RESERVED)) as u64;
        assert!((least..least + 100).contains(&full), "{full}");
        let calls = calls_of(&tracer);
        assert_eq!(calls.len(), 2 * PLACES + 1);
        for (index, call) in calls.iter().enumerate() {
            let place = if index == 2 * PLACES {
                PLACES - 1
            } else {
                index % PLACES
            };
            assert_eq!(call.instruction_pointer, places.after(place));
        }
    });
}

// P44
#[test]
fn arguments_arrive_from_places_without_an_entry() {
    alone(|| {
        let tracer = Tracer::builder()
            .trap([Sysno::getpgrp, Sysno::pread64])
            .install()
            .unwrap();
        let places = Places::new(3000);
        for index in 0..2500 {
            places.call(index, Sysno::getpgrp, [0; 3]);
        }
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, b"from far").unwrap();
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&file).into();
        for index in 2500..3000 {
            let mut bytes = [0_u8; 8];
            let args = [descriptor, bytes.as_mut_ptr() as i64, 8];
            let before = tracer.statistics().full_tables;
            assert_eq!(places.call(index, Sysno::pread64, args).0, 8);
            assert_eq!(&bytes, b"from far");
            assert!(tracer.statistics().full_tables > before);
        }
    });
}

// P44
#[test]
fn calls_that_need_an_entry_have_some_left() {
    alone(|| {
        let tracer = Tracer::builder()
            .trap([Sysno::getpgrp, Sysno::clone, Sysno::vfork, Sysno::munmap])
            .install()
            .unwrap();
        let places = Places::new(6000);
        for index in 0..5000 {
            places.call(index, Sysno::getpgrp, [0; 3]);
        }
        for index in 5000..5020 {
            let (child, _) = places.call(index, Sysno::clone, [libc::SIGCHLD.into(), 0, 0]);
            reap(child, 7);
        }
        for index in 5020..5040 {
            let child = vfork_from(places.after(index) - 2);
            reap(child, 9);
        }
        // Until there are none left, which is an error and no death.
        let unmap = |index| places.call(index, Sysno::munmap, [1, 4096, 0]).0;
        let refused = (5040..6000).find(|index| unmap(*index) != error(libc::EINVAL));
        let refused = refused.expect("there are more entries than there are places");
        assert!(refused <= 5000 + RESERVED, "{refused}");
        assert_eq!(unmap(refused), error(libc::EAGAIN));
        assert_eq!(unmap(5040), error(libc::EINVAL));
        let last = *calls_of(&tracer)
            .iter()
            .rfind(|call| call.decision != Decision::Run)
            .unwrap();
        assert_eq!(last.decision, Decision::Refused(Errno::EAGAIN));
        assert_eq!(last.instruction_pointer, places.after(refused));
    });
}

/// Ends in the child, at once, with this status; waits for that in the parent.
fn reap(child: i64, expected: i32) {
    if child == 0 {
        // SAFETY: ends the process.
        unsafe { libc::_exit(expected) };
    }
    assert!(child > 0, "{child}");
    let mut status = 0;
    // SAFETY: writes a status.
    let reaped = unsafe { libc::waitpid(child as i32, &raw mut status, 0) };
    assert_eq!(i64::from(reaped), child);
    assert!(libc::WIFEXITED(status));
    assert_eq!(libc::WEXITSTATUS(status), expected);
}

/// Makes a child by `vfork` at this place, which exits with 9 and leaves the stack alone, which it shares.
fn vfork_from(place: u64) -> i64 {
    let child;
    // SAFETY: the child makes one call and writes to nothing.
    unsafe {
        asm!(
            "call {place}",
            "test rax, rax",
            "jnz 2f",
            "mov edi, 9",
            "mov eax, 231",
            "syscall",
            "2:",
            place = in(reg) place,
            inlateout("rax") libc::SYS_vfork => child,
            clobber_abi("sysv64"),
        );
    }
    child
}

// P2, P44
#[test]
fn every_entry_of_the_gate_works() {
    alone(|| {
        let group = own_group();
        let tracer = Tracer::builder()
            .trap([Sysno::getpgrp, Sysno::munmap])
            .install()
            .unwrap();
        let places = Places::new(ENTRIES + 500);
        let mut entries = BTreeSet::new();
        for index in 0..ENTRIES {
            let full = tracer.statistics().full_tables;
            let (result, rcx) = places.call(index, Sysno::getpgrp, [0; 3]);
            assert_eq!(result, group);
            if tracer.statistics().full_tables == full {
                // The same one the next time.
                assert_eq!(places.call(index, Sysno::getpgrp, [0; 3]), (group, rcx));
                assert!(entries.insert(rcx), "two places share an entry");
            }
        }
        for index in ENTRIES..ENTRIES + 500 {
            let (result, rcx) = places.call(index, Sysno::munmap, [1, 4096, 0]);
            if result == error(libc::EAGAIN) {
                break;
            }
            assert_eq!(result, error(libc::EINVAL));
            assert!(entries.insert(rcx), "two places share an entry");
        }
        // Some are for the calls of the C library that are trapped in any case.
        assert!(
            entries.len() > ENTRIES - 50 && entries.len() <= ENTRIES,
            "{}",
            entries.len()
        );
        let (first, last) = (entries.first().unwrap(), entries.last().unwrap());
        assert!(last - first <= 8 * (ENTRIES as u64 - 1));
        // The range is allowed as a whole, which must not be across a boundary of 4 GiB.
        assert_eq!(first >> 32, last >> 32);
    });
}

// P46
#[test]
fn one_place_has_one_entry_whoever_comes_first() {
    const THREADS: usize = 64;
    const ROUNDS: usize = 200;
    alone(|| {
        let group = own_group();
        let tracer = Tracer::builder()
            .trap(Sysno::getpgrp)
            .capacity(1 << 16)
            .install()
            .unwrap();
        let places = Places::new(ROUNDS);
        let (shared, barrier) = (Shared(&places), Barrier::new(THREADS));
        let entries: Vec<Vec<u64>> = std::thread::scope(|scope| {
            let (places, barrier) = (&shared, &barrier);
            let threads: Vec<_> = (0..THREADS)
                .map(|_| {
                    scope.spawn(move || {
                        let entry = |index| {
                            barrier.wait();
                            let (result, rcx) = places.0.call(index, Sysno::getpgrp, [0; 3]);
                            assert_eq!(result, group);
                            rcx
                        };
                        (0..ROUNDS).map(entry).collect()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(entries.iter().all(|of_thread| *of_thread == entries[0]));
        assert_eq!(entries[0].iter().collect::<BTreeSet<_>>().len(), ROUNDS);
        assert_eq!(tracer.statistics().full_tables, 0);
        assert_eq!(calls_of(&tracer).len(), THREADS * ROUNDS);
    });
}

/// Code that nobody writes to.
struct Shared<'a>(&'a Places);
// SAFETY: see above.
unsafe impl Sync for Shared<'_> {}

// P6
#[test]
fn a_hundred_and_sixty_threads_with_everything_traced() {
    alone(|| {
        let builder = Tracer::builder().filter(everything()).hook(answer);
        let tracer = builder.capacity(1 << 16).install().unwrap();
        let mut sum = 0;
        for _ in 0..20 {
            let start = Barrier::new(8);
            sum += std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8)
                    .map(|number| {
                        let start = &start;
                        scope.spawn(move || {
                            start.wait();
                            for round in 0..50 {
                                // Too large for the heap, so that it is mapped.
                                let memory = std::hint::black_box(vec![1_u8; 200_000 + 100 * round]);
                                assert_eq!(memory[round], 1);
                                std::thread::yield_now();
                                assert_traced();
                            }
                            number
                        })
                    })
                    .collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .sum::<i32>()
            });
        }
        assert_eq!(sum, 20 * 28);
        let statistics = tracer.statistics();
        let events = tracer.drain().unwrap();
        assert!(statistics.attempts > 160 * 100, "{statistics:?}");
        assert!(!events.is_empty());
        assert_eq!(call(Sysno::getppid, &[]), ANSWER);
    });
}
