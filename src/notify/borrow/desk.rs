//! Where orders are left for the borrower.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::Pid;

use super::borrower::Borrower;
use super::order::{Order, Outcome, Reply};
use crate::error::Error;
use crate::per_process::PerProcess;

/// For how long the thread waits for more before it ends.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is to be done.
#[derive(Default)]
pub(super) struct Work {
    pub(super) orders: Vec<Order>,
    /// Whose outcomes nobody waits for any more.
    pub(super) abandoned: Vec<Arc<Reply>>,
    /// Whose data is in place, or why not.
    pub(super) filled: Vec<(Pid, Arc<Reply>, Result<(), Errno>)>,
    pub(super) look_around: bool,
}

impl Work {
    fn is_empty(&self) -> bool {
        self.orders.is_empty() && self.abandoned.is_empty() && self.filled.is_empty() && !self.look_around
    }
}

/// Where the thread is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attention {
    /// At work, after which it looks here.
    Busy,
    /// Waiting for stops, which the rope ends.
    AtTheStops,
    /// Waiting for calls, which the nudge ends.
    AtTheCalls,
    /// Gone for good.
    Gone,
}

pub(super) struct Desk {
    tray: Mutex<Tray>,
    arrival: Condvar,
    rope: OnceLock<Arc<EventFd>>,
    nudge: OnceLock<Arc<EventFd>>,
}

struct Tray {
    work: Work,
    attention: Attention,
}

impl Desk {
    fn tray(&self) -> MutexGuard<'_, Tray> {
        self.tray.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives what is to be done, or waits for it if nothing else is on; `None` if nothing comes.
    pub(super) fn take(&self, idle: bool) -> Option<Work> {
        let mut tray = self.tray();
        if idle && tray.work.is_empty() {
            let nothing = |tray: &mut Tray| tray.work.is_empty();
            let waited = self.arrival.wait_timeout_while(tray, PATIENCE, nothing);
            tray = waited.unwrap_or_else(PoisonError::into_inner).0;
            if tray.work.is_empty() {
                tray.attention = Attention::Gone;
                return None;
            }
        }
        Some(std::mem::take(&mut tray.work))
    }

    /// Begins to wait; false if there is something to be done first.
    fn begin_wait(&self, attention: Attention) -> bool {
        let mut tray = self.tray();
        if tray.work.is_empty() {
            tray.attention = attention;
        }
        tray.attention == attention
    }

    /// Begins to wait for stops; false if there is something to be done first.
    pub(super) fn wait_for_stops(&self) -> bool {
        self.begin_wait(Attention::AtTheStops)
    }

    /// Begins to wait for calls; false if there is something to be done first.
    pub(super) fn wait_for_calls(&self) -> bool {
        self.begin_wait(Attention::AtTheCalls)
    }

    pub(super) fn end_wait(&self) {
        self.tray().attention = Attention::Busy;
    }

    /// Says that the data of a loan is in place, or why not.
    pub(super) fn filled(&self, tid: Pid, reply: Arc<Reply>, filled: Result<(), Errno>) {
        self.leave(|work| work.filled.push((tid, reply, filled)));
    }

    /// What ends the wait for stops.
    pub(super) fn rope(&self) -> Result<&Arc<EventFd>, Errno> {
        made(&self.rope)
    }

    /// What ends the wait for calls.
    pub(super) fn nudge(&self) -> Result<&Arc<EventFd>, Errno> {
        made(&self.nudge)
    }

    /// Leaves work; false if the thread is gone.
    fn leave(&self, add: impl FnOnce(&mut Work)) -> bool {
        let mut tray = self.tray();
        if tray.attention == Attention::Gone {
            return false;
        }
        add(&mut tray.work);
        let bell = match tray.attention {
            Attention::AtTheStops => self.rope.get(),
            Attention::AtTheCalls => self.nudge.get(),
            Attention::Busy | Attention::Gone => None,
        };
        drop(tray);
        match bell {
            Some(bell) => drop(bell.write(1)),
            None => self.arrival.notify_one(),
        }
        true
    }
}

fn made(bell: &OnceLock<Arc<EventFd>>) -> Result<&Arc<EventFd>, Errno> {
    if let Some(bell) = bell.get() {
        return Ok(bell);
    }
    let made = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    Ok(bell.get_or_init(|| Arc::new(made)))
}

/// The desk of the thread that runs.
static PRESENT: PerProcess<Mutex<Option<Arc<Desk>>>> = PerProcess::new();

fn present() -> MutexGuard<'static, Option<Arc<Desk>>> {
    PRESENT.get().lock().unwrap_or_else(PoisonError::into_inner)
}

/// Leaves an order. It is refused if there is no thread to be had.
pub(in crate::notify) fn submit(order: Order) {
    let mut present = present();
    let mut order = Some(order);
    if let Some(desk) = &*present {
        desk.leave(|work| work.orders.extend(order.take()));
    }
    let Some(order) = order else { return };
    let desk = Arc::new(Desk {
        tray: Mutex::new(Tray {
            work: Work::default(),
            attention: Attention::Busy,
        }),
        arrival: Condvar::new(),
        rope: OnceLock::new(),
        nudge: OnceLock::new(),
    });
    let thread = std::thread::Builder::new()
        .name("asm_tracer-borrow".into())
        .stack_size(256 * 1024);
    let here = Arc::clone(&desk);
    let run = move || {
        Borrower::new(Arc::clone(&here)).run();
        forget(&here);
    };
    if let Err(source) = thread.spawn(run) {
        let error = Error::Io {
            operation: "starting the thread that borrows targets",
            source,
        };
        return order.reply.settle(Outcome::Refused(order.call.refuse(error)));
    }
    desk.leave(|work| work.orders.push(order));
    *present = Some(desk);
}

/// Gives up what the thread that has left this desk needed.
fn forget(desk: &Arc<Desk>) {
    present().take_if(|present| Arc::ptr_eq(present, desk));
}

/// Says that nobody waits for an outcome any more.
pub(in crate::notify) fn abandon(reply: Arc<Reply>) {
    if let Some(desk) = &*present() {
        desk.leave(|work| work.abandoned.push(reply));
    }
}

/// Has the thread look for what sends no stop.
pub(in crate::notify) fn look_around() {
    if let Some(desk) = &*present() {
        desk.leave(|work| work.look_around = true);
    }
}

/// Has the thread look again if it waits for a call, which somebody else has received.
pub(in crate::notify) fn call_passed() {
    if let Some(desk) = &*present()
        && desk.tray().attention == Attention::AtTheCalls
        && let Some(nudge) = desk.nudge.get()
    {
        let _ = nudge.write(1);
    }
}
