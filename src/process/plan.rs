//! Everything that the child needs, made before it exists.
#![allow(unsafe_code)]

use std::ffi::{CString, OsStr, c_char};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use syscalls::Sysno;

use super::Command;
use super::command::PreExec;
use super::environment::{candidates, strings};
use super::signals;
use super::stdio::duplicate_above;
use crate::error::{Error, Result, SpawnStep};
use crate::filter::{HandOver, Program, Purpose};
use crate::kernel::KernelSupport;
use crate::stack::Stack;

/// The value that lets the child's own last calls through the filter; see [`HandOver`].
pub(super) type Secret = [u64; 3];

/// What the child reads on its way to the program. It stays where it is until the child has executed or died.
pub(super) struct Plan {
    pub(super) candidates: Vec<CString>,
    pub(super) argv: Strings,
    pub(super) envp: Strings,
    pub(super) directory: Option<CString>,
    /// What becomes 0, 1 and 2; `None` for what is inherited.
    pub(super) stdio: [Option<RawFd>; 3],
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) process_group: Option<i32>,
    pub(super) signal_mask: u64,
    pub(super) pre_exec: Vec<PreExec>,
    /// The pid of the supervisor whose death is to be the child's.
    pub(super) dies_with: Option<u32>,
    pub(super) no_new_privs: bool,
    pub(super) ruleset: Option<Ruleset>,
    pub(super) program: Program,
    pub(super) filter_flags: libc::c_ulong,
    pub(super) trap_initial_exec: bool,
    pub(super) secret: Secret,
    pub(super) socket: RawFd,
    /// For a child that shares our memory; a forked one stays on its copy of the launcher's.
    pub(super) stack: Option<Stack>,
}

// SAFETY: the pointers in it lead to its own heap memory, and nobody changes that; the closures are `Send`.
unsafe impl Send for Plan {}

impl Plan {
    pub(super) fn new(command: &Command, stdio: [Option<RawFd>; 3], socket: &OwnedFd) -> Result<Box<Self>> {
        let support = KernelSupport::at_start();
        support.require_listener()?;
        support.require_pidfd()?;
        if command.wait_killable == Some(true) && !support.wait_killable {
            return Err(Error::Unsupported {
                feature: "WAIT_KILLABLE_RECV",
                since: "5.19",
            });
        }
        let mut filter_flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        if command.wait_killable != Some(false) && support.wait_killable {
            filter_flags |= libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
        }
        let secret = draw_secret()?;
        let exempt: &[Sysno] = if command.trap_initial_exec {
            &[Sysno::sendmsg, Sysno::exit_group, Sysno::close]
        } else {
            &[Sysno::sendmsg, Sysno::exit_group, Sysno::execve]
        };
        let variables = command.environment.capture()?;
        // The answer to a trapped execution may be preceded by writes to its memory, which must not be ours.
        let forked = command.trap_initial_exec
            || command.uid.is_some()
            || command.gid.is_some()
            || !command.pre_exec.is_empty();
        let out_of_memory = |errno| Error::spawn(SpawnStep::Prepare, errno);
        Ok(Box::new(Self {
            envp: Strings::new(strings(&variables)?),
            candidates: candidates(&command.program, &variables)?,
            argv: Strings::new(arguments(command)?),
            directory: command
                .directory
                .as_ref()
                .map(|path| string(path.as_os_str()))
                .transpose()?,
            stdio,
            uid: command.uid,
            gid: command.gid,
            process_group: command.process_group,
            signal_mask: signals::mask(),
            pre_exec: command.pre_exec.clone(),
            dies_with: command.kill_on_drop.then(std::process::id),
            no_new_privs: command.no_new_privs,
            ruleset: command.landlock.as_ref().map(Ruleset::new).transpose()?,
            program: command.filter.compile(Purpose::Start(&HandOver {
                secret,
                calls: exempt,
            }))?,
            filter_flags,
            trap_initial_exec: command.trap_initial_exec,
            secret,
            socket: socket.as_raw_fd(),
            stack: if forked {
                None
            } else {
                Some(Stack::new().map_err(out_of_memory)?)
            },
        }))
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        // The program can't be read back from the kernel; neither should the secret be from us.
        self.secret = std::hint::black_box([0; 3]);
        self.program.wipe();
    }
}

/// A Landlock ruleset, above the standard streams.
pub(super) struct Ruleset(Arc<OwnedFd>);

impl Ruleset {
    fn new(ruleset: &Arc<OwnedFd>) -> Result<Self> {
        if ruleset.as_raw_fd() > 2 {
            return Ok(Self(Arc::clone(ruleset)));
        }
        let above = duplicate_above(ruleset).map_err(|errno| Error::spawn(SpawnStep::Prepare, errno))?;
        Ok(Self(Arc::new(above)))
    }

    pub(super) fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A null-terminated array of strings, as `execve(2)` takes it.
pub(super) struct Strings {
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Strings {
    fn new(strings: Vec<CString>) -> Self {
        let null = std::iter::once(std::ptr::null());
        let pointers = strings.iter().map(|string| string.as_ptr()).chain(null).collect();
        Self {
            _strings: strings,
            pointers,
        }
    }

    pub(super) fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

fn arguments(command: &Command) -> Result<Vec<CString>> {
    let zeroth = command.arg0.as_ref().unwrap_or(&command.program);
    std::iter::once(zeroth)
        .chain(&command.args)
        .map(|arg| string(arg))
        .collect()
}

fn string(value: &OsStr) -> Result<CString> {
    let zero = |_| Error::InvalidCommand("an argument or the directory contains a zero byte");
    CString::new(value.as_bytes()).map_err(zero)
}

fn draw_secret() -> Result<Secret> {
    let mut secret = [0_u64; 3];
    let (bytes, size) = (secret.as_mut_ptr().cast(), size_of::<Secret>());
    // SAFETY: the kernel writes `size` bytes of integers. Requests of up to 256 bytes are never cut short.
    let drawn = unsafe { libc::getrandom(bytes, size, 0) };
    if drawn != size as isize {
        return Err(Error::spawn(SpawnStep::Prepare, nix::errno::Errno::last()));
    }
    Ok(secret)
}
