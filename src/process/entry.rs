//! What the child does between its clone and its program.
//!
//! It shares the supervisor's memory, whose locks other threads may hold, and the thread-local storage of the
//! thread that cloned it. So nothing here allocates, locks, panics, or calls the C library (which would write
//! `errno`): it reads the [`Plan`] and makes system calls through the stubs. The filter is installed halfway;
//! what comes after it carries the secret.
#![allow(unsafe_code)]

use std::convert::Infallible;
use std::ffi::{CStr, c_void};
use std::mem::zeroed;
use std::os::fd::RawFd;

use syscalls::Sysno;

use super::handover::Report;
use super::plan::{Plan, Ruleset};
use super::{inherited, signals};
use crate::error::SpawnStep;
use crate::syscall::{Prctl, SyscallError, pointer, prctl, syscall3, syscall6};

/// Where the child begins. `plan` is a [`Plan`] that outlives its use.
pub(super) extern "C" fn enter(plan: *mut c_void) -> ! {
    // SAFETY: the launcher passes a plan that nobody changes or frees while the child uses it.
    let plan = unsafe { &*plan.cast::<Plan>() };
    let Err((step, errno)) = start(plan);
    // If this fails too, the end of the socket says that the child died.
    let _ = report(
        plan,
        &Report {
            step: step as u32,
            errno,
        },
        None,
    );
    loop {
        let _ = exempt(plan, Sysno::exit_group, [127, 0, 0]);
    }
}

type Step<T = ()> = Result<T, (SpawnStep, i32)>;

/// Names the step that an error belongs to.
fn failed(step: SpawnStep) -> impl FnOnce(SyscallError) -> (SpawnStep, i32) {
    move |error| (step, error.raw_os_error())
}

fn start(plan: &Plan) -> Step<Infallible> {
    signals::reset().map_err(failed(SpawnStep::ResetSignals))?;
    for (number, source) in plan.stdio.iter().enumerate() {
        if let Some(source) = *source {
            call(Sysno::dup3, [source.into(), number as i64, 0]).map_err(failed(SpawnStep::RedirectStdio))?;
        }
    }
    change_identity(plan)?;
    if let Some(directory) = &plan.directory {
        call(Sysno::chdir, [pointer(directory.as_ptr()), 0, 0])
            .map_err(failed(SpawnStep::ChangeDirectory))?;
    }
    if let Some(group) = plan.process_group {
        call(Sysno::setpgid, [0, group.into(), 0]).map_err(failed(SpawnStep::SetProcessGroup))?;
    }
    signals::set_mask(plan.signal_mask);
    for closure in &plan.pre_exec {
        closure.run().map_err(|errno| (SpawnStep::PreExec, errno))?;
    }
    if let Some(supervisor) = plan.dies_with {
        // After every change of identity, each of which clears it.
        prctl(Prctl::SetParentDeathSignal(libc::SIGKILL.into()))
            .map_err(failed(SpawnStep::SetParentDeathSignal))?;
        // It may have died before that. A parent outside of the child's pid namespace is 0.
        if !matches!(call(Sysno::getppid, [0; 3]), Ok(parent) if parent == i64::from(supervisor) || parent == 0)
        {
            return Err((SpawnStep::SetParentDeathSignal, libc::ESRCH));
        }
    }
    if plan.trap_initial_exec {
        let _ = inherited::close_ahead_of_exec(plan.socket, plan.ruleset.as_ref().map(Ruleset::number));
    }
    if plan.no_new_privs {
        prctl(Prctl::SetNoNewPrivs).map_err(failed(SpawnStep::SetNoNewPrivs))?;
    }
    if let Some(ruleset) = &plan.ruleset {
        restrict(ruleset.number()).map_err(failed(SpawnStep::RestrictAccess))?;
    }
    let listener = install(plan).map_err(failed(SpawnStep::InstallFilter))?;
    report(
        plan,
        &Report {
            step: SpawnStep::HandOver as u32,
            errno: 0,
        },
        Some(listener as i32),
    )
    .map_err(failed(SpawnStep::HandOver))?;
    if plan.trap_initial_exec {
        // The call may wait for long, and must not keep its own listener open meanwhile (T24).
        let _ = exempt(plan, Sysno::close, [listener, 0, 0]);
    }
    Err((SpawnStep::Exec, execute(plan)))
}

/// Tries the candidates as `execvp(3)` does; returns why the program could not be executed.
fn execute(plan: &Plan) -> i32 {
    let (mut denied, mut last) = (false, libc::ENOENT);
    for candidate in &plan.candidates {
        last = execute_one(plan, candidate);
        match last {
            libc::EACCES => denied = true,
            // It is not there, or what is there can't be reached; another directory may have it.
            libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG => {}
            libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT => {}
            _ => return last,
        }
    }
    if denied { libc::EACCES } else { last }
}

fn execute_one(plan: &Plan, path: &CStr) -> i32 {
    let args = [
        pointer(path.as_ptr()),
        pointer(plan.argv.as_ptr()),
        pointer(plan.envp.as_ptr()),
    ];
    let outcome = if plan.trap_initial_exec {
        call(Sysno::execve, args)
    } else {
        exempt(plan, Sysno::execve, args)
    };
    outcome.err().map_or(0, SyscallError::raw_os_error)
}

/// Makes a call. Only kernel memory and the memory that the arguments lead to is touched.
pub(super) fn call(number: Sysno, [a, b, c]: [i64; 3]) -> Result<i64, SyscallError> {
    // SAFETY: every caller, here and in `inherited`, passes pointers that are valid for the call it names.
    unsafe { syscall3(number.id().into(), a, b, c) }
}

/// Makes a call that the filter lets through.
fn exempt(plan: &Plan, number: Sysno, [a, b, c]: [i64; 3]) -> Result<i64, SyscallError> {
    let [x, y, z] = plan.secret.map(u64::cast_signed);
    // SAFETY: as for `call`; the kernel ignores the last three registers of these calls.
    unsafe { syscall6(number.id().into(), a, b, c, x, y, z) }
}

fn change_identity(plan: &Plan) -> Step {
    if let Some(gid) = plan.gid {
        call(Sysno::setgid, [gid.into(), 0, 0]).map_err(failed(SpawnStep::SetGid))?;
    }
    if let Some(uid) = plan.uid {
        match call(Sysno::setgroups, [0, 0, 0]) {
            Ok(_) => {}
            // As `std::process`: who has no permission to drop groups keeps them.
            Err(error) if error.raw_os_error() == libc::EPERM => {}
            Err(error) => return Err(failed(SpawnStep::SetGid)(error)),
        }
        call(Sysno::setuid, [uid.into(), 0, 0]).map_err(failed(SpawnStep::SetUid))?;
    }
    Ok(())
}

/// Takes on the ruleset, which the program is not to have, whether or not its descriptor is closed by the exec.
fn restrict(ruleset: RawFd) -> Result<(), SyscallError> {
    call(Sysno::landlock_restrict_self, [ruleset.into(), 0, 0])?;
    // It is closed whatever this returns.
    let _ = call(Sysno::close, [ruleset.into(), 0, 0]);
    Ok(())
}

fn install(plan: &Plan) -> Result<i64, SyscallError> {
    let program = plan.program.as_sock_fprog();
    let operation = libc::SECCOMP_SET_MODE_FILTER.into();
    call(
        Sysno::seccomp,
        [operation, plan.filter_flags as i64, pointer(&raw const program)],
    )
}

/// A control message with one descriptor, as `cmsg(3)` lays it out.
#[repr(C)]
struct Rights {
    header: libc::cmsghdr,
    fd: i32,
}

/// Sends word to the supervisor, with the listener if there is one.
fn report(plan: &Plan, report: &Report, listener: Option<i32>) -> Result<(), SyscallError> {
    let data = libc::iovec {
        iov_base: (&raw const *report).cast_mut().cast(),
        iov_len: size_of::<Report>(),
    };
    // SAFETY: integers and pointers, for which zero is a value.
    let (mut message, mut rights): (libc::msghdr, Rights) = unsafe { (zeroed(), zeroed()) };
    message.msg_iov = (&raw const data).cast_mut();
    message.msg_iovlen = 1;
    if let Some(fd) = listener {
        rights.header.cmsg_len = size_of::<libc::cmsghdr>() + size_of::<i32>();
        rights.header.cmsg_level = libc::SOL_SOCKET;
        rights.header.cmsg_type = libc::SCM_RIGHTS;
        rights.fd = fd;
        message.msg_control = (&raw mut rights).cast();
        message.msg_controllen = size_of::<Rights>();
    }
    let arguments = [
        plan.socket.into(),
        pointer(&raw const message),
        libc::MSG_NOSIGNAL.into(),
    ];
    exempt(plan, Sysno::sendmsg, arguments).map(drop)
}
