//! Looking at a frozen target's memory, in place and from another thread, beside a bare `process_vm_readv(2)` of the same.
#![allow(missing_docs)] // Criterion's macros write a function without.
#![allow(unsafe_code)]

mod support;

use std::hint::black_box;
use std::time::{Duration, Instant};

use asm_tracer::{Listener, Notification};
use criterion::{Criterion, criterion_group, criterion_main};
use support::paired::paired;
use support::target::Target;
use tokio::runtime::{Builder, Runtime};

/// A page that the target has too, at the same address, as it is a copy of this process.
#[repr(align(4096))]
struct Page([u8; 4096]);

static PAGE: Page = {
    let mut page = [0xa5; 4096];
    let path = b"/usr/lib/x86_64-linux-gnu/libc.so.6\0";
    let mut n = 0;
    while n < path.len() {
        page[n] = path[n];
        n += 1;
    }
    Page(page)
};

/// The least that reading so much can cost.
fn floor(pid: i32, length: usize, iterations: u64) -> Duration {
    let mut buffer = [0_u8; 4096];
    let local = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: length,
    };
    let remote = libc::iovec {
        iov_base: PAGE.0.as_ptr().cast_mut().cast(),
        iov_len: length,
    };
    let start = Instant::now();
    for _ in 0..iterations {
        // SAFETY: the kernel writes so much to the buffer.
        let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
        assert_eq!(read, length as isize);
    }
    let took = start.elapsed();
    black_box(&buffer);
    took
}

fn timed(iterations: u64, mut once: impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..iterations {
        once();
    }
    start.elapsed()
}

/// One look after another, each of which does so many accesses.
fn looks<T: Send + 'static>(
    runtime: &Runtime,
    call: &Notification,
    iterations: u64,
    read: impl Fn(&asm_tracer::Target) -> asm_tracer::Result<T> + Copy + Send + 'static,
) -> Duration {
    runtime.block_on(async {
        let start = Instant::now();
        for _ in 0..iterations {
            black_box(call.look(read).await.unwrap());
        }
        start.elapsed()
    })
}

fn memory(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("memory");
    group.sample_size(30);
    let address = PAGE.0.as_ptr().expose_provenance() as u64;
    let current_thread = Builder::new_current_thread().enable_io().build().unwrap();
    let multi_thread = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_io()
        .build()
        .unwrap();
    let target = Target::start(Duration::ZERO);
    let mut listener = current_thread.block_on(async { Listener::attach(target.duplicate()).unwrap() });
    let call = current_thread.block_on(listener.next()).unwrap();
    let pid = call.pid().unwrap();

    let sixteen = move |iterations| floor(pid, 16, iterations);
    let subject = |iterations| {
        timed(iterations, || {
            black_box(call.read_value::<[u8; 16]>(address).unwrap());
        })
    };
    paired(&mut group, "16 bytes in place", sixteen, subject);
    let path = move |iterations| floor(pid, 4096, iterations);
    let subject = |iterations| {
        timed(iterations, || {
            black_box(call.read_path(address).unwrap());
        })
    };
    paired(&mut group, "a path in place", path, subject);
    let page = path;
    let mut buffer = vec![0; 4096];
    let subject = |iterations| {
        timed(iterations, || {
            call.read_memory(address, &mut buffer).unwrap();
        })
    };
    paired(&mut group, "4 KiB in place", page, subject);

    for (name, runtime) in [
        ("current_thread", &current_thread),
        ("multi_thread", &multi_thread),
    ] {
        let subject = |iterations| looks(runtime, &call, iterations, |_| Ok(()));
        paired(
            &mut group,
            &format!("nothing, a look on {name}"),
            sixteen,
            subject,
        );
        let read = move |target: &asm_tracer::Target| target.read_value::<[u8; 16]>(address);
        let subject = |iterations| looks(runtime, &call, iterations, read);
        paired(
            &mut group,
            &format!("16 bytes, a look on {name}"),
            sixteen,
            subject,
        );
        let subject = |iterations| {
            looks(runtime, &call, iterations, move |target| {
                target.read_path(address)
            })
        };
        paired(&mut group, &format!("a path, a look on {name}"), path, subject);
        let read = move |target: &asm_tracer::Target| {
            let mut buffer = vec![0; 4096];
            target.read_memory(address, &mut buffer).map(|_| buffer)
        };
        let subject = |iterations| looks(runtime, &call, iterations, read);
        paired(&mut group, &format!("4 KiB, a look on {name}"), page, subject);
        // For comparison: the runtime's own threads.
        let target = current_thread
            .block_on(call.look(|target| Ok(target.clone())))
            .unwrap();
        let subject = |iterations| {
            runtime.block_on(async {
                let start = Instant::now();
                for _ in 0..iterations {
                    let target = target.clone();
                    let read = tokio::task::spawn_blocking(move || target.read_path(address));
                    black_box(read.await.unwrap().unwrap());
                }
                start.elapsed()
            })
        };
        paired(
            &mut group,
            &format!("a path, spawn_blocking on {name}"),
            path,
            subject,
        );
    }
    group.finish();
}

criterion_group!(benches, memory);
criterion_main!(benches);
