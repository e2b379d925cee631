use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, fence};
use std::sync::{Arc, Mutex, OnceLock};

use super::doorbell::Doorbell;
use super::record::{Record, Returned};
use super::ring::{Reader, Ring};
use super::spread::Spread;
use super::stacks::Stacks;
use super::threads::Threads;
use crate::notify::TrappedSyscall;

/// A hook: it may change the call, and gives what the call is to return instead of running.
///
/// It runs in signal context, in the middle of whatever the thread was doing, and so must be async-signal-safe
/// (`signal-safety(7)`): no allocation, no lock, no thread-local storage; the calls of [`syscall`](crate::syscall) are. A
/// traced call of its own runs and is recorded, and isn't shown to the hook. A panic aborts the process with its message.
///
/// # Security
///
/// What a hook returns or changes stands in for the kernel: the process breaks if its code relies on what is only pretended,
/// such as a mapping or a length read.
pub type Hook = fn(&mut TrappedSyscall) -> Option<i64>;

/// What the handler, the drain and the tracer share. There is one, for good, as there is one handler.
pub(super) struct Shared {
    pub(super) hook: Option<Hook>,
    pub(super) allow_exec: bool,
    /// Whether calls are shown to the hook and recorded.
    pub(super) recording: AtomicBool,
    /// By the thread's id.
    pub(super) rings: Box<[Ring<Record>]>,
    /// What the gate writes to, if it is asked to.
    pub(super) results: Option<Ring<Returned>>,
    /// A power of two; so many records without a wake-up are too many.
    pub(super) patience: u64,
    /// What the drain has collected for the consumer.
    pub(super) outbox: Ring<Record>,
    pub(super) drain: Doorbell,
    /// How much of what was to be recorded has been dealt with.
    pub(super) settled: AtomicU64,
    pub(super) finished: AtomicBool,
    pub(super) consumer: Consumer,
    /// Threads that are in the hook.
    pub(super) in_hook: Threads,
    /// Threads that the consumer runs on.
    pub(super) quiet: Threads,
    pub(super) spread: Spread,
    /// The process that was traced.
    pub(super) process: u32,
    /// Not 0 in the process that was traced; a forked one finds 0.
    pub(super) alive: &'static AtomicU32,
    pub(super) stacks: Stacks,
    /// The SIGSYS handler that the program believes to have: handler, flags, restorer, mask.
    pub(super) own_action: [AtomicU64; 4],
    pub(super) refused_rewrites: AtomicU64,
    pub(super) full_tables: AtomicU64,
}

/// Who reads the outbox.
pub(super) struct Consumer {
    /// There is one at a time.
    pub(super) taken: AtomicBool,
    sleeping: AtomicBool,
    /// Readable once there is something for a consumer that sleeps. It is here once the installation has succeeded, so that
    /// one that fails keeps no descriptor open.
    pub(super) event: OnceLock<Arc<OwnedFd>>,
    pub(super) reader: Mutex<Reader>,
    /// For one that blocks.
    pub(super) bell: Doorbell,
}

impl Consumer {
    pub(super) fn new() -> Self {
        Self {
            taken: AtomicBool::new(false),
            sleeping: AtomicBool::new(false),
            event: OnceLock::new(),
            reader: Mutex::default(),
            bell: Doorbell::new(),
        }
    }

    /// Announces that it is about to sleep; it must look once more then.
    pub(super) fn rest(&self) {
        self.sleeping.store(true, SeqCst);
        fence(SeqCst);
    }

    pub(super) fn wake(&self) {
        fence(SeqCst);
        if self.sleeping.load(Relaxed)
            && self.sleeping.swap(false, SeqCst)
            && let Some(event) = self.event.get()
        {
            // It is never full: it is read before the next sleep.
            let _ = crate::syscall::write(event, &1_u64.to_ne_bytes());
        }
        self.bell.ring();
    }
}

static SHARED: AtomicPtr<Shared> = AtomicPtr::new(std::ptr::null_mut());

#[allow(unsafe_code)]
impl Shared {
    /// What was published, if anything was.
    pub(super) fn get() -> Option<&'static Self> {
        let shared = SHARED.load(std::sync::atomic::Ordering::Acquire);
        // SAFETY: what was published is never freed or changed but through atomics.
        unsafe { shared.as_ref() }
    }

    /// Publishes it, unless something is published.
    pub(super) fn publish(self: Box<Self>) -> Option<&'static Self> {
        let new = Box::into_raw(self);
        let null = std::ptr::null_mut();
        match SHARED.compare_exchange(null, new, SeqCst, Relaxed) {
            // SAFETY: it is never freed.
            Ok(_) => Some(unsafe { &*new }),
            Err(_) => {
                // SAFETY: nobody has seen it.
                drop(unsafe { Box::from_raw(new) });
                None
            }
        }
    }

    /// Makes room for another installation after one that failed. What was published stays where it is.
    pub(super) fn withdraw() {
        SHARED.store(std::ptr::null_mut(), SeqCst);
    }

    /// Whether calls are recorded in this process, which may be a forked one.
    pub(super) fn is_recording(&self) -> bool {
        self.recording.load(Relaxed) && self.is_original()
    }

    /// Whether this is the process that was traced, and not a forked one.
    pub(super) fn is_original(&self) -> bool {
        self.alive.load(Relaxed) != 0
    }

    pub(super) fn ring_of(&self, thread: u32) -> Option<&Ring<Record>> {
        self.rings.get(thread as usize & (self.rings.len() - 1))
    }

    pub(super) fn attempts(&self) -> u64 {
        let results = self.results.as_ref().map_or(0, Ring::attempts);
        self.rings.iter().map(Ring::attempts).sum::<u64>() + results
    }

    pub(super) fn dropped(&self) -> u64 {
        let results = self.results.as_ref().map_or(0, Ring::dropped);
        self.rings.iter().map(Ring::dropped).sum::<u64>() + results
    }
}
