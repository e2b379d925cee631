//! One system call through the stubs, beside the same through the C library.
#![allow(missing_docs)] // Criterion's macros write a function without.
#![allow(unsafe_code)]

mod support;

use std::fs::File;
use std::hint::black_box;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use asm_tracer::{Sysno, syscall};
use criterion::{Criterion, criterion_group, criterion_main};
use support::paired::paired;

/// The time that so many calls take.
fn timed(calls: u64, mut call: impl FnMut() -> i64) -> Duration {
    let start = Instant::now();
    for _ in 0..calls {
        assert!(black_box(call()) > 0);
    }
    start.elapsed()
}

fn syscalls(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("syscalls");
    // SAFETY: asks for a number.
    let libc_getppid = |calls| timed(calls, || unsafe { libc::getppid() }.into());
    let getppid = Sysno::getppid.id().into();
    // SAFETY: asks for a number.
    let stub_getppid = |calls| timed(calls, || unsafe { syscall::syscall0(getppid) }.unwrap());
    paired(&mut group, "getppid", libc_getppid, stub_getppid);

    let zero = File::open("/dev/zero").unwrap();
    let (mut buffer, mut other) = ([0_u8; 4096], [0_u8; 4096]);
    let libc_read = |calls| {
        timed(calls, || {
            // SAFETY: the kernel writes within the buffer.
            let read = unsafe { libc::read(zero.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
            read as i64
        })
    };
    let stub_read = |calls| timed(calls, || syscall::read(&zero, &mut other).unwrap() as i64);
    paired(&mut group, "read of 4 KiB", libc_read, stub_read);
    group.finish();
}

criterion_group!(benches, syscalls);
criterion_main!(benches);
