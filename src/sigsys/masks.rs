//! Keeping `SIGSYS` open: a trapped call of a thread that blocks it kills the process (P4).
//!
//! Whatever sets a mask is trapped, and never gets to block this signal: not by `rt_sigprocmask`, which is done here on the
//! mask that the return from the handler sets; not for the time of a call; not for that of a handler; and not by a
//! handler that changes what it returns to (P5).
#![allow(unsafe_code)]

use nix::errno::Errno;
use syscalls::Sysno;

use super::context::{Context, MASK_OFFSET, SIGSYS, SIGSYS_BIT};
use super::frame::NewMask;
use super::user;
use crate::notify::TrappedSyscall;
use crate::syscall::{SyscallError, pointer, syscall4};

/// The calls that carry a mask, or a handler with one.
pub(super) const CARRIERS: [Sysno; 9] = [
    Sysno::rt_sigprocmask,
    Sysno::rt_sigaction,
    Sysno::rt_sigreturn,
    Sysno::rt_sigsuspend,
    Sysno::ppoll,
    Sysno::pselect6,
    Sysno::epoll_pwait,
    Sysno::epoll_pwait2,
    Sysno::io_pgetevents,
];

/// The same by their numbers of i386, which the handler can't serve: `sigaction`, `ssetmask`, `sigsuspend`, `sigreturn`,
/// `sigprocmask`, `rt_sigreturn`, `rt_sigaction`, `rt_sigprocmask`, `rt_sigsuspend`, `pselect6`, `ppoll`, `epoll_pwait`,
/// `io_pgetevents`, those of the last four that take 64-bit times or are newer, and `io_uring_enter`.
pub(super) const CARRIERS_OF_I386: [u32; 18] = [
    67, 69, 72, 119, 126, 173, 174, 175, 179, 308, 309, 319, 385, 413, 414, 416, 426, 441,
];

const MASK_SIZE: i64 = 8;
const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}
/// What the kernel takes out of every mask.
pub(super) const UNBLOCKABLE: u64 = bit(libc::SIGKILL) | bit(libc::SIGSTOP);
/// What no mask may have.
const NEVER: u64 = UNBLOCKABLE | SIGSYS_BIT;

const FAULT: i64 = -(Errno::EFAULT as i64);
const INVALID: i64 = -(Errno::EINVAL as i64);

/// Does what `rt_sigprocmask(2)` does, on the mask that the thread is to have.
pub(super) fn change_mask(context: &mut Context, call: &TrappedSyscall) -> i64 {
    let [how, new, old, size, ..] = call.args;
    if size != MASK_SIZE {
        return INVALID;
    }
    let before = context.mask();
    if new != 0 {
        let Some([set]) = user::read(new.cast_unsigned()) else {
            return FAULT;
        };
        let mask = match how as i32 {
            libc::SIG_BLOCK => before | set,
            libc::SIG_UNBLOCK => before & !set,
            libc::SIG_SETMASK => set,
            _ => return INVALID,
        };
        context.set_mask(mask & !NEVER);
    }
    // SAFETY: the kernel would write the same.
    if old != 0 && unsafe { user::write(old.cast_unsigned(), [before]) }.is_none() {
        return FAULT;
    }
    0
}

/// The kernel's `struct sigaction`: handler, flags, restorer, mask.
pub(super) type Action = [u64; 4];

/// Does what `rt_sigaction(2)` does, with a handler that lets this signal through.
pub(super) fn change_action(call: &TrappedSyscall) -> i64 {
    let [signal, new, old, size, ..] = call.args;
    // Without an action there is nothing to open, and with another size the kernel refuses.
    let opened = match new != 0 && size == MASK_SIZE {
        true => match user::read(new.cast_unsigned()) {
            Some([handler, flags, restorer, mask]) => Some([handler, flags, restorer, mask & !SIGSYS_BIT]),
            None => return FAULT,
        },
        false => None,
    };
    let new_at = opened.as_ref().map_or(new, |action: &Action| pointer(action));
    // SAFETY: the program's own call, but for the mask.
    let result = unsafe { syscall4(libc::SYS_rt_sigaction, signal, new_at, old, size) };
    result.unwrap_or_else(|error| -i64::from(error.raw_os_error()))
}

/// Opens what handlers from before the installation would block; notes those that it changes, as they were.
pub(super) fn open_handlers(changed: &mut Vec<(i32, Action)>) -> Result<(), SyscallError> {
    for signal in (1..=64).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP, SIGSYS].contains(signal)) {
        let mut present: Action = [0; 4];
        let place = pointer(&raw mut present);
        // SAFETY: the kernel writes an action.
        unsafe { syscall4(libc::SYS_rt_sigaction, signal.into(), 0, place, MASK_SIZE) }?;
        let [handler, flags, restorer, mask] = present;
        if mask & SIGSYS_BIT != 0 {
            set_handler(signal, [handler, flags, restorer, mask & !SIGSYS_BIT])?;
            changed.push((signal, present));
        }
    }
    Ok(())
}

/// Undoes that, after an installation that failed.
pub(super) fn restore_handlers(changed: Vec<(i32, Action)>) {
    for (signal, before) in changed {
        let _ = set_handler(signal, before);
    }
}

fn set_handler(signal: i32, action: Action) -> Result<(), SyscallError> {
    let place = pointer(&raw const action);
    // SAFETY: the same handler as before.
    unsafe { syscall4(libc::SYS_rt_sigaction, signal.into(), place, 0, MASK_SIZE) }.map(drop)
}

/// Opens what a handler of the program is about to return to. Its stack pointer leads to the frame.
pub(super) fn open_return(context: &Context) {
    let at = context.rsp().wrapping_add(MASK_OFFSET);
    if let Some([mask]) = user::read(at)
        && mask & SIGSYS_BIT != 0
    {
        // SAFETY: the frame is there for the kernel to read, which is to see this.
        let _ = unsafe { user::write(at, [mask & !SIGSYS_BIT]) };
    }
}

/// The mask that a call is to have instead of its own; `None` if that is good as it is.
pub(super) fn replacement(call: &TrappedSyscall) -> Option<NewMask> {
    let (argument, described) = match call.sysno()? {
        Sysno::rt_sigsuspend => (0, false),
        Sysno::ppoll => (3, false),
        Sysno::epoll_pwait | Sysno::epoll_pwait2 => (4, false),
        Sysno::pselect6 | Sysno::io_pgetevents => (5, true),
        Sysno::io_uring_enter => (4, call.args[3] & EXTENDED_ARGUMENT != 0),
        _ => return None,
    };
    let at = call.args.get(argument)?.cast_unsigned();
    let description = match described {
        true => Some(read_description(call, at)?),
        false => None,
    };
    let mask_at = description.map_or(at, |[mask, ..]| mask);
    let [mask] = user::read(mask_at).filter(|_| mask_at != 0)?;
    (mask & SIGSYS_BIT != 0).then_some(NewMask {
        mask: mask & !SIGSYS_BIT,
        argument,
        description,
    })
}

/// `IORING_ENTER_EXT_ARG`.
const EXTENDED_ARGUMENT: i64 = 8;

fn read_description(call: &TrappedSyscall, at: u64) -> Option<[u64; 3]> {
    match call.sysno()? {
        Sysno::io_uring_enter => user::read(at),
        _ => user::read::<2>(at).map(|[mask, size]| [mask, size, 0]),
    }
}
