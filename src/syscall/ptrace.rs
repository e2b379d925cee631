//! Tracing another process.
#![allow(unsafe_code)]

use super::flags::flags;
use super::{Registers, SignalNumber, SyscallError, pointer, syscall4};

flags! {
    /// What a tracer is told of, and what becomes of the tracee; see `ptrace(2)`.
    ///
    /// # Examples
    ///
    /// ```
    /// use asm_tracer::syscall::PtraceOptions;
    ///
    /// let options = PtraceOptions::EXITKILL | PtraceOptions::TRACEEXEC;
    /// assert!(options.contains(PtraceOptions::EXITKILL));
    /// ```
    pub struct PtraceOptions {
        /// A stop at a system call is reported as `SIGTRAP | 0x80`.
        #[doc(alias = "PTRACE_O_TRACESYSGOOD")]
        TRACESYSGOOD = libc::PTRACE_O_TRACESYSGOOD;
        /// Stops at `fork(2)`, and traces the child.
        #[doc(alias = "PTRACE_O_TRACEFORK")]
        TRACEFORK = libc::PTRACE_O_TRACEFORK;
        /// Stops at `vfork(2)`, and traces the child.
        #[doc(alias = "PTRACE_O_TRACEVFORK")]
        TRACEVFORK = libc::PTRACE_O_TRACEVFORK;
        /// Stops at `clone(2)`, and traces the new thread or process.
        #[doc(alias = "PTRACE_O_TRACECLONE")]
        TRACECLONE = libc::PTRACE_O_TRACECLONE;
        /// Stops at `execve(2)`, in the new program.
        #[doc(alias = "PTRACE_O_TRACEEXEC")]
        TRACEEXEC = libc::PTRACE_O_TRACEEXEC;
        /// Stops when the child of a `vfork(2)` has let go of the memory.
        #[doc(alias = "PTRACE_O_TRACEVFORKDONE")]
        TRACEVFORKDONE = libc::PTRACE_O_TRACEVFORKDONE;
        /// Stops at the exit, while the registers can still be looked at.
        #[doc(alias = "PTRACE_O_TRACEEXIT")]
        TRACEEXIT = libc::PTRACE_O_TRACEEXIT;
        /// Stops where a filter returns `SECCOMP_RET_TRACE`, since Linux 3.5.
        #[doc(alias = "PTRACE_O_TRACESECCOMP")]
        TRACESECCOMP = libc::PTRACE_O_TRACESECCOMP;
        /// Kills the tracee when the tracer ends, since Linux 3.8.
        #[doc(alias = "PTRACE_O_EXITKILL")]
        EXITKILL = libc::PTRACE_O_EXITKILL;
        /// Suspends the filters of the tracee, since Linux 4.3; only for who has `CAP_SYS_ADMIN` and no filter.
        #[doc(alias = "PTRACE_O_SUSPEND_SECCOMP")]
        SUSPEND_SECCOMP = libc::PTRACE_O_SUSPEND_SECCOMP;
    }
}

/// `linux/ptrace.h`: these take the size of the set as the address.
const PTRACE_GETSIGMASK: libc::c_uint = 0x420a;
const PTRACE_SETSIGMASK: libc::c_uint = 0x420b;
const MASK_SIZE: u64 = 8;

/// What is asked of a tracee; see `ptrace(2)`.
///
/// The variants are the requests that a tracer of any system call needs.
#[derive(Debug)]
#[non_exhaustive]
pub enum PtraceRequest<'a> {
    /// Has the parent trace this thread. The pid is not looked at.
    #[doc(alias = "PTRACE_TRACEME")]
    TraceMe,
    /// Traces the thread and stops it by `SIGSTOP`.
    #[doc(alias = "PTRACE_ATTACH")]
    Attach,
    /// Traces the thread without stopping it, since Linux 3.4.
    #[doc(alias = "PTRACE_SEIZE")]
    Seize(PtraceOptions),
    /// Stops a seized tracee, since Linux 3.4. The stop is to be waited for.
    #[doc(alias = "PTRACE_INTERRUPT")]
    Interrupt,
    /// Leaves a seized tracee in a group-stop, or a stop by `Interrupt`, and reports the next event, since Linux 3.4.
    #[doc(alias = "PTRACE_LISTEN")]
    Listen,
    /// Continues the tracee with this signal.
    #[doc(alias = "PTRACE_CONT")]
    Continue(SignalNumber),
    /// Continues the tracee with this signal until it enters or leaves a system call.
    #[doc(alias = "PTRACE_SYSCALL")]
    Syscall(SignalNumber),
    /// Continues the tracee with this signal for one instruction.
    #[doc(alias = "PTRACE_SINGLESTEP")]
    SingleStep(SignalNumber),
    /// Continues the tracee with this signal and lets go of it.
    #[doc(alias = "PTRACE_DETACH")]
    Detach(SignalNumber),
    /// Sets the options.
    #[doc(alias = "PTRACE_SETOPTIONS")]
    SetOptions(PtraceOptions),
    /// Stores what belongs to the event that the tracee stopped at: the new pid, the exit status, a filter's data.
    #[doc(alias = "PTRACE_GETEVENTMSG")]
    GetEventMessage(&'a mut u64),
    /// Reads a word of the tracee's memory, whatever protects it.
    #[doc(alias = "PTRACE_PEEKDATA")]
    #[doc(alias = "PTRACE_PEEKTEXT")]
    PeekData {
        /// Where in the tracee.
        address: u64,
        /// Where the word is stored.
        word: &'a mut u64,
    },
    /// Writes a word to the tracee's memory, whatever protects it.
    #[doc(alias = "PTRACE_POKEDATA")]
    #[doc(alias = "PTRACE_POKETEXT")]
    PokeData {
        /// Where in the tracee.
        address: u64,
        /// What is written.
        word: u64,
    },
    /// Reads a word of the tracee's `struct user`, which holds its registers.
    #[doc(alias = "PTRACE_PEEKUSER")]
    PeekUser {
        /// Where in `struct user`, a multiple of 8.
        offset: u64,
        /// Where the word is stored.
        word: &'a mut u64,
    },
    /// Writes a word of the tracee's `struct user`, which holds its registers.
    #[doc(alias = "PTRACE_POKEUSER")]
    PokeUser {
        /// Where in `struct user`, a multiple of 8.
        offset: u64,
        /// What is written.
        word: u64,
    },
    /// Stores the general registers.
    #[doc(alias = "PTRACE_GETREGS")]
    GetRegisters(&'a mut Registers),
    /// Sets the general registers.
    #[doc(alias = "PTRACE_SETREGS")]
    SetRegisters(&'a Registers),
    /// Stores the set of blocked signals, the first as the lowest bit, since Linux 3.11.
    #[doc(alias = "PTRACE_GETSIGMASK")]
    GetSignalMask(&'a mut u64),
    /// Sets the set of blocked signals, since Linux 3.11.
    #[doc(alias = "PTRACE_SETSIGMASK")]
    SetSignalMask(&'a u64),
}

/// Makes a request to the thread with this tid, which but for the first four must be a stopped tracee; see `ptrace(2)`.
///
/// A tracer is a thread: only the one that attached may make requests.
///
/// It is safe because a tracee is never a thread of this process, and what another process does is not the undefined
/// behaviour of this one. (One that shares this one's memory was made by unsafe code, which answers for it.)
///
/// # Errors
///
/// `ESRCH` if there is no such tracee or it is not stopped, `EPERM` if it may not be traced, as the Yama LSM or another
/// tracer has it, `EIO` for memory that is not there. Never `EINTR`: what a signal can interrupt, the kernel restarts
/// in any case.
///
/// # Examples
///
/// ```
/// use asm_tracer::syscall::{self, PtraceOptions, PtraceRequest, Registers, SignalNumber, WaitOptions};
///
/// let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn()?;
/// let pid = child.id() as i32;
/// syscall::ptrace(pid, PtraceRequest::Seize(PtraceOptions::EXITKILL))?;
/// syscall::ptrace(pid, PtraceRequest::Interrupt)?;
/// let stop = syscall::wait4(pid, WaitOptions::ALL)?;
/// assert!(std::os::unix::process::ExitStatusExt::stopped_signal(&stop.unwrap().status).is_some());
///
/// let mut registers = Registers::default();
/// syscall::ptrace(pid, PtraceRequest::GetRegisters(&mut registers))?;
/// assert_ne!(registers.rip, 0);
/// syscall::ptrace(pid, PtraceRequest::Detach(SignalNumber::NONE))?;
/// assert!(child.wait()?.success());
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn ptrace(pid: i32, request: PtraceRequest<'_>) -> Result<i64, SyscallError> {
    let (number, address, data): (_, u64, i64) = match request {
        PtraceRequest::TraceMe => (libc::PTRACE_TRACEME, 0, 0),
        PtraceRequest::Attach => (libc::PTRACE_ATTACH, 0, 0),
        PtraceRequest::Seize(options) => (libc::PTRACE_SEIZE, 0, options.bits().into()),
        PtraceRequest::Interrupt => (libc::PTRACE_INTERRUPT, 0, 0),
        PtraceRequest::Listen => (libc::PTRACE_LISTEN, 0, 0),
        PtraceRequest::Continue(signal) => (libc::PTRACE_CONT, 0, signal.as_raw().into()),
        PtraceRequest::Syscall(signal) => (libc::PTRACE_SYSCALL, 0, signal.as_raw().into()),
        PtraceRequest::SingleStep(signal) => (libc::PTRACE_SINGLESTEP, 0, signal.as_raw().into()),
        PtraceRequest::Detach(signal) => (libc::PTRACE_DETACH, 0, signal.as_raw().into()),
        PtraceRequest::SetOptions(options) => (libc::PTRACE_SETOPTIONS, 0, options.bits().into()),
        PtraceRequest::GetEventMessage(message) => (libc::PTRACE_GETEVENTMSG, 0, pointer(&raw mut *message)),
        PtraceRequest::PeekData { address, word } => {
            (libc::PTRACE_PEEKDATA, address, pointer(&raw mut *word))
        }
        PtraceRequest::PokeData { address, word } => (libc::PTRACE_POKEDATA, address, word.cast_signed()),
        PtraceRequest::PeekUser { offset, word } => (libc::PTRACE_PEEKUSER, offset, pointer(&raw mut *word)),
        PtraceRequest::PokeUser { offset, word } => (libc::PTRACE_POKEUSER, offset, word.cast_signed()),
        PtraceRequest::GetRegisters(registers) => (libc::PTRACE_GETREGS, 0, pointer(&raw mut *registers)),
        PtraceRequest::SetRegisters(registers) => (libc::PTRACE_SETREGS, 0, pointer(registers)),
        PtraceRequest::GetSignalMask(mask) => (PTRACE_GETSIGMASK, MASK_SIZE, pointer(&raw mut *mask)),
        PtraceRequest::SetSignalMask(mask) => (PTRACE_SETSIGMASK, MASK_SIZE, pointer(mask)),
    };
    let (pid, address) = (pid.into(), address.cast_signed());
    // SAFETY: the kernel reads or writes one word, set of signals or set of registers here, to which the request holds a reference.
    // No thread of this process can be the tracee.
    unsafe { syscall4(libc::SYS_ptrace, number.into(), pid, address, data) }
}
