//! Signals to this process that are meant for the program.
//!
//! As long as the program runs, so does this: without its supervisor it could not even exit. `SIGINT` and its like
//! are therefore passed on, except for those of the terminal, which the program has got as well.

use std::io;
use std::thread;

use asm_tracer::Signal;
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const PASSED_ON: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];

/// Takes over the signals; to be called while no other thread would take them. It leaves the dispositions alone.
pub(crate) fn take() -> io::Result<UnboundedReceiver<Signal>> {
    let signals = SigSet::from_iter(PASSED_ON);
    signals.thread_block()?;
    let fd = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)?;
    let (sender, receiver) = unbounded_channel();
    thread::Builder::new().spawn(move || {
        while let Ok(Some(info)) = fd.read_signal() {
            // What the terminal sends comes from the kernel, and goes to all of the foreground.
            if info.ssi_code == libc::SI_KERNEL {
                continue;
            }
            let signal = Signal::try_from(info.ssi_signo as i32);
            if signal.is_ok_and(|signal| sender.send(signal).is_err()) {
                break;
            }
        }
    })?;
    Ok(receiver)
}
