//! Other stacks for the handler, for where a signal has left it too little.
//!
//! The standard library's alternate stacks have 8 KiB, of which the kernel takes more than 3 for each signal. A call that
//! is trapped in a handler that runs there, such as the one that reports an overflow (P22), leaves about one.
#![allow(unsafe_code)]

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::context::{Context, Info};
use super::frame::Room;
use super::gate::asm_tracer_sigsys_elsewhere;
use super::handler::handle;
use super::shared::Shared;
use crate::syscall::{MapFlags, Protection, SyscallError, mmap, pointer, syscall2, syscall3};

/// What is enough for the handler and a hook. The first signal on 8 KiB leaves more.
const ENOUGH: usize = 4096;

const STACKS: usize = 8;
const SIZE: usize = 1 << 16;
const PAGE: usize = 4096;

/// A few stacks for all threads.
pub(super) struct Stacks {
    /// The end of each, or 0 while it is in use.
    ends: [AtomicU64; STACKS],
}

impl Stacks {
    pub(super) fn new() -> Result<Self, SyscallError> {
        let access = Protection::READ | Protection::WRITE;
        let start = mmap(None, STACKS * SIZE, access, MapFlags::PRIVATE, None)?;
        let start = start.expose_provenance();
        for stack in 0..STACKS {
            let guard = (start + stack * SIZE) as i64;
            // SAFETY: it is ours, and nothing is there yet.
            unsafe { syscall3(libc::SYS_mprotect, guard, PAGE as i64, libc::PROT_NONE.into()) }?;
        }
        Ok(Self {
            ends: std::array::from_fn(|stack| AtomicU64::new((start + (stack + 1) * SIZE) as u64)),
        })
    }

    fn take(&self) -> Option<(&AtomicU64, u64)> {
        self.ends.iter().find_map(|place| {
            let end = place.load(Relaxed);
            let taken = end != 0 && place.compare_exchange(end, 0, Acquire, Relaxed).is_ok();
            taken.then_some((place, end))
        })
    }
}

/// Called by `asm_tracer_sigsys_entry`: handles the call here, or on another stack if there is not enough of this one.
///
/// # Safety
///
/// Those of [`handle`].
pub(super) unsafe extern "C" fn enter(signal: i32, info: *mut Info, context: *mut Context, room: *mut Room) {
    // SAFETY: the kernel made it for this handler.
    let left = unsafe { (*context).above_start(room.addr()) };
    if left.is_some_and(|left| left < ENOUGH)
        && let Some((place, end)) = Shared::get().and_then(|shared| shared.stacks.take())
    {
        // SAFETY: the stack is this thread's until it is given back.
        unsafe { asm_tracer_sigsys_elsewhere(signal, info, context, room, end, handle_elsewhere) };
        place.store(end, Release);
        return;
    }
    // SAFETY: the caller's.
    unsafe { handle(signal, info, context, room) }
}

/// Handles the call on a stack that is no alternate stack. The kernel would deliver the signal of a hook's own call to the
/// start of the one that this thread came from, over what it is to return by; until then there is none.
unsafe extern "C" fn handle_elsewhere(signal: i32, info: *mut Info, context: *mut Context, room: *mut Room) {
    let none = libc::stack_t {
        ss_sp: std::ptr::null_mut(),
        ss_flags: libc::SS_DISABLE,
        ss_size: 0,
    };
    // SAFETY: the return from the handler sets it again.
    unsafe {
        let _ = syscall2(libc::SYS_sigaltstack, pointer(&raw const none), 0);
        handle(signal, info, context, room);
    }
}
