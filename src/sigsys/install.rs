//! Making this process trace itself, or leaving it as it was.
#![allow(unsafe_code)]

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};

use super::context::{SIGSYS, SIGSYS_BIT};
use super::doorbell::Doorbell;
use super::handler::{ALLOWED_CALLS, SERVED, SERVED_CALLS, TRACED, thread_id};
use super::record::{Record, Returned};
use super::ring::Ring;
use super::shared::{Consumer, Hook, Shared};
use super::spread::Spread;
use super::threads::Threads as ThreadSet;
use super::{drain, gate, masks, stacks};
use crate::error::{Error, Result};
use crate::filter::{Filter, Handler, Program, Purpose, Threads, install};
use crate::reaper::all_but_sigsys;
use crate::syscall::{MapFlags, Protection, SyscallError, mmap, pointer, syscall3, syscall4};

/// What is to be installed.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) filter: Filter,
    pub(super) hook: Option<Hook>,
    pub(super) capacity: usize,
    pub(super) threads: Threads,
    pub(super) allow_exec: bool,
    pub(super) results: bool,
    pub(super) alternate_stack: bool,
}

/// With 256 bytes for each record in the rings, and four times as much behind them.
const MAX_CAPACITY: usize = 1 << 20;

impl Plan {
    pub(super) fn install(self) -> Result<&'static Shared> {
        let program = self.program()?;
        let before = current_action()?;
        if self.threads == Threads::All {
            // Before anything is made for it: who tries again and again is to lose nothing.
            wait_for_open_threads()?;
        }
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| Error::os("making an eventfd", errno))?;
        let shared = Shared::publish(self.shared(before)?).ok_or(Error::AlreadyTracing)?;
        if let Some(results) = &shared.results {
            gate::record_results(results);
        }
        let installed = start_drain(shared).and_then(|drain| {
            let opened = open_this_thread()?;
            let mut handlers = Vec::new();
            let installed = self.apply(&program, &mut handlers);
            if installed.is_err() {
                masks::restore_handlers(handlers);
                let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&opened), None);
            }
            installed.map(|()| drain)
        });
        let stop = || {
            shared.recording.store(false, Ordering::SeqCst);
            shared.drain.ring();
        };
        let drain = installed.inspect_err(|_| {
            // In this order: nobody traps any more.
            let _ = set_action(before);
            Shared::withdraw();
            stop();
        })?;
        if self.threads == Threads::All {
            // Who has the filter already keeps it, and with it the handler.
            shared.spread.to_all(program, drain).inspect_err(|_| stop())?;
            // Without the restarts, which were for the calls that this has interrupted.
            set_action(self.action(0))?;
            // A thread that had no filter yet may have set another handler. Nobody can any more.
            masks::open_handlers(&mut Vec::new())
                .map_err(|error| Error::os("opening signal handlers", error.errno()))?;
        }
        let _ = shared.consumer.event.set(Arc::new(OwnedFd::from(event)));
        Ok(shared)
    }

    fn program(&self) -> Result<Program> {
        if !self.capacity.is_power_of_two() || self.capacity > MAX_CAPACITY {
            return Err(Error::InvalidCapacity(self.capacity));
        }
        let always: Vec<_> = masks::CARRIERS.into_iter().chain(SERVED_CALLS).collect();
        self.filter.compile(Purpose::Handler(&Handler {
            places: &gate::places(),
            allowed: &ALLOWED_CALLS,
            always: &always,
            refused_i386: &masks::CARRIERS_OF_I386,
            data: [TRACED, SERVED],
        }))
    }

    fn shared(&self, before: masks::Action) -> Result<Box<Shared>> {
        let parallel = std::thread::available_parallelism().map_or(1, usize::from);
        // Small rings are not worth dividing.
        let shards = parallel.next_power_of_two().min((self.capacity / 64).max(1));
        let per_shard = self.capacity / shards;
        Ok(Box::new(Shared {
            hook: self.hook,
            allow_exec: self.allow_exec,
            recording: AtomicBool::new(true),
            rings: (0..shards).map(|_| Ring::new(per_shard, Record::BLANK)).collect(),
            results: self.results.then(|| Ring::new(self.capacity, Returned::BLANK)),
            patience: (per_shard / 4).max(1) as u64,
            outbox: Ring::new((4 * self.capacity).max(1024), Record::BLANK),
            drain: Doorbell::new(),
            settled: AtomicU64::new(0),
            finished: AtomicBool::new(false),
            consumer: Consumer::new(),
            in_hook: ThreadSet::new(),
            quiet: ThreadSet::new(),
            spread: Spread::new(),
            process: std::process::id(),
            alive: wiped_on_fork().map_err(|error| match error.errno() {
                Errno::EINVAL => Error::Unsupported {
                    feature: "memory that a fork empties (`MADV_WIPEONFORK`)",
                    since: "4.14",
                },
                errno => Error::os("mapping a page", errno),
            })?,
            stacks: stacks::Stacks::new().map_err(|error| Error::os("mapping stacks", error.errno()))?,
            own_action: before.map(AtomicU64::new),
            refused_rewrites: AtomicU64::new(0),
            full_tables: AtomicU64::new(0),
        }))
    }

    fn apply(&self, program: &Program, handlers: &mut Vec<(i32, masks::Action)>) -> Result<()> {
        masks::open_handlers(handlers)
            .map_err(|error| Error::os("opening signal handlers", error.errno()))?;
        let restart = match self.threads {
            Threads::Calling => 0,
            Threads::All => libc::SA_RESTART,
        };
        set_action(self.action(restart))?;
        install(program, 0).map(drop)
    }

    fn action(&self, restart: i32) -> masks::Action {
        /// `SA_RESTORER` of `asm/signal.h`.
        const RESTORER: u64 = 0x0400_0000;
        let stack = if self.alternate_stack { libc::SA_ONSTACK } else { 0 };
        let flags = (libc::SA_SIGINFO | libc::SA_NODEFER | stack | restart) as u64;
        let synchronous = [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGILL,
            libc::SIGTRAP,
        ];
        let open = synchronous
            .iter()
            .fold(SIGSYS_BIT, |open, signal| open | 1 << (signal - 1));
        [
            gate::entry(stacks::enter as *mut ()),
            flags | RESTORER,
            gate::restorer(),
            !open,
        ]
    }
}

/// A page that a forked process finds empty.
fn wiped_on_fork() -> Result<&'static AtomicU32, SyscallError> {
    const PAGE: usize = 4096;
    let access = Protection::READ | Protection::WRITE;
    let page = mmap(None, PAGE, access, MapFlags::PRIVATE, None)?;
    // SAFETY: the page is ours; nobody unmaps it.
    unsafe {
        syscall3(
            libc::SYS_madvise,
            pointer(page.cast_const()),
            PAGE as i64,
            libc::MADV_WIPEONFORK.into(),
        )?;
        let flag = &*page.cast::<AtomicU32>();
        flag.store(1, Ordering::Relaxed);
        Ok(flag)
    }
}

/// The program's own handler must not be one already: it would be lost, or trapped calls would be.
fn current_action() -> Result<masks::Action> {
    let mut action: masks::Action = [0; 4];
    // SAFETY: the kernel writes an action.
    unsafe {
        syscall4(
            libc::SYS_rt_sigaction,
            SIGSYS.into(),
            0,
            pointer(&raw mut action),
            8,
        )
    }
    .map_err(|error| Error::os("looking at the SIGSYS handler", error.errno()))?;
    match action[0] as usize {
        libc::SIG_DFL | libc::SIG_IGN => Ok(action),
        _ if Shared::get().is_some() => Err(Error::AlreadyTracing),
        _ => Err(Error::SigsysTaken),
    }
}

fn set_action(action: masks::Action) -> Result<()> {
    // SAFETY: it is the handler for this signal, or what was there before.
    unsafe {
        syscall4(
            libc::SYS_rt_sigaction,
            SIGSYS.into(),
            pointer(&raw const action),
            0,
            8,
        )
    }
    .map(drop)
    .map_err(|error| Error::os("installing the SIGSYS handler", error.errno()))
}

/// Opens `SIGSYS` for this thread; gives the mask as it was.
fn open_this_thread() -> Result<SigSet> {
    let mut before = SigSet::empty();
    let sigsys = SigSet::from(Signal::SIGSYS);
    pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&sigsys), Some(&mut before))
        .map_err(|errno| Error::os("opening SIGSYS", errno))?;
    Ok(before)
}

/// How often the other threads are looked at, a millisecond apart: one that is just starting blocks everything (P7).
const LOOKS: u32 = 100;

fn wait_for_open_threads() -> Result<()> {
    let mut closed = Vec::new();
    for _ in 0..LOOKS {
        closed = threads_that_block_sigsys()?;
        if closed.is_empty() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(Error::SigsysBlocked { threads: closed })
}

/// But for the calling one, which is about to open it.
fn threads_that_block_sigsys() -> Result<Vec<i32>> {
    let failed = |source| Error::Io {
        operation: "reading /proc/self/task",
        source,
    };
    let here = thread_id().cast_signed();
    let mut closed = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").map_err(failed)? {
        let path = task.map_err(failed)?.path();
        // One that has ended meanwhile blocks nothing, nor does the first thread that has ended before the others.
        let status = std::fs::read_to_string(path.join("status")).unwrap_or_default();
        if status.contains("\nState:\tZ") {
            continue;
        }
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        let thread = path
            .file_name()
            .and_then(|name| name.to_str()?.parse::<i32>().ok());
        if mask.is_some_and(|mask| mask & SIGSYS_BIT != 0) {
            closed.extend(thread.filter(|thread| *thread != here));
        }
    }
    Ok(closed)
}

/// Starts the drain and waits until it is at its work, so that no call of its own is traced. Gives its thread.
fn start_drain(shared: &'static Shared) -> Result<i32> {
    let (sender, ready) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name("asm_tracer-drain".into());
    let started = thread.spawn(move || {
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&all_but_sigsys()), None);
        drain::run(shared, || {
            let _ = sender.send(thread_id().cast_signed());
        });
    });
    started.map_err(|source| Error::Io {
        operation: "starting the drain thread",
        source,
    })?;
    // It can't end without that.
    Ok(ready.recv().unwrap_or(0))
}
