//! Starting a program and seeing it end, from a small and from a 4 GiB supervisor, beside `posix_spawn`.
#![allow(unsafe_code)]
#![allow(missing_docs)] // Criterion's macros write a function without.

mod support;

use std::ffi::CString;
use std::time::{Duration, Instant};

use asm_tracer::{Command, Filter, Supervisor, Sysno};
use criterion::{Criterion, criterion_group, criterion_main};
use support::paired::paired;
use tokio::runtime::{Builder, Runtime};

const PROGRAM: &str = "/bin/true";
const GIB: usize = 1 << 30;

fn spawn(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("spawn");
    group.sample_size(20);
    let runtime = Builder::new_current_thread().enable_io().build().unwrap();
    let mut supervisor = Supervisor::new();
    let mut subject = |starts| supervised(&runtime, &mut supervisor, starts);
    paired(&mut group, "from a small process", posix_spawn, &mut subject);
    let memory = Memory::new(4 * GIB);
    paired(&mut group, "from a 4 GiB process", posix_spawn, &mut subject);
    drop(memory);
    group.finish();
}

/// Spawns under a filter, waits for the end of the program and for that of its calls.
fn supervised(runtime: &Runtime, supervisor: &mut Supervisor, starts: u64) -> Duration {
    let mut command = Command::new(PROGRAM);
    command.filter(Filter::new().trap(Sysno::ptrace));
    runtime.block_on(async {
        let start = Instant::now();
        for _ in 0..starts {
            let mut child = supervisor.spawn(&mut command).await.unwrap();
            while let Some(call) = supervisor.next().await {
                call.continue_syscall().unwrap();
            }
            assert!(child.wait().await.unwrap().success());
        }
        start.elapsed()
    })
}

fn posix_spawn(starts: u64) -> Duration {
    let program = CString::new(PROGRAM).unwrap();
    let mut argv = [program.as_ptr().cast_mut(), std::ptr::null_mut()];
    let environment: Vec<CString> = std::env::vars()
        .map(|(key, value)| CString::new(format!("{key}={value}")).unwrap())
        .collect();
    let mut envp: Vec<_> = environment
        .iter()
        .map(|entry| entry.as_ptr().cast_mut())
        .collect();
    envp.push(std::ptr::null_mut());
    let start = Instant::now();
    for _ in 0..starts {
        let (mut pid, mut status) = (0, 0);
        // SAFETY: the arrays are alive and end with a null; the child is this function's own.
        unsafe {
            let (argv, envp) = (argv.as_mut_ptr(), envp.as_mut_ptr());
            let (actions, attributes) = (std::ptr::null(), std::ptr::null());
            let error = libc::posix_spawn(&raw mut pid, program.as_ptr(), actions, attributes, argv, envp);
            assert_eq!(error, 0);
            assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
        }
        assert_eq!(status, 0);
    }
    start.elapsed()
}

/// Memory in small pages, all of them touched.
struct Memory {
    base: *mut libc::c_void,
    size: usize,
}

impl Memory {
    fn new(size: usize) -> Self {
        let (access, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a mapping of its own, within which it writes.
        let base = unsafe {
            let base = libc::mmap(std::ptr::null_mut(), size, access, flags, -1, 0);
            assert_ne!(base, libc::MAP_FAILED, "{size} bytes of memory");
            libc::madvise(base, size, libc::MADV_NOHUGEPAGE);
            for page in 0..size / 4096 {
                *base.cast::<u8>().add(page * 4096) = 1;
            }
            base
        };
        Self { base, size }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: its own mapping.
        unsafe { libc::munmap(self.base, self.size) };
    }
}

criterion_group!(benches, spawn);
criterion_main!(benches);
