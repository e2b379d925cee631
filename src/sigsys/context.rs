//! The context that a signal interrupted, and what the signal says of the call.
#![allow(unsafe_code)]

use crate::notify::TrappedSyscall;

/// The signal that the calls of this process raise.
pub(super) const SIGSYS: i32 = libc::SIGSYS;
/// Its bit in a mask.
pub(super) const SIGSYS_BIT: u64 = 1 << (SIGSYS - 1);

/// `si_code` of a filter's signal.
const SYS_SECCOMP: i32 = 1;

/// The kernel's `siginfo_t` of a filter's signal.
#[repr(C)]
pub(super) struct Info {
    signal: i32,
    /// The filter's data.
    errno: i32,
    code: i32,
    _padding: i32,
    /// The address after the instruction.
    call_address: u64,
    number: i32,
    arch: u32,
}

impl Info {
    /// The filter's data, if a filter has raised this signal.
    pub(super) fn data(&self) -> Option<u16> {
        (self.code == SYS_SECCOMP).then_some(self.errno as u16)
    }

    /// What a signal carries to another thread of this process (`rt_tgsigqueueinfo(2)`).
    pub(super) fn with_value(value: u64) -> SentInfo {
        SentInfo {
            info: Self {
                signal: SIGSYS,
                errno: 0,
                code: libc::SI_QUEUE,
                _padding: 0,
                call_address: u64::from(std::process::id()),
                number: value as u32 as i32,
                arch: (value >> 32) as u32,
            },
            _rest: [0; 12],
        }
    }

    /// What it carries, if it was sent so.
    pub(super) fn sent_value(&self) -> Option<u64> {
        // It is where a filter's signal has these two.
        let value = u64::from(self.number.cast_unsigned()) | u64::from(self.arch) << 32;
        (self.code == libc::SI_QUEUE).then_some(value)
    }

    /// The address after the instruction, by which alone a place is known: the kernel may have put the program back by
    /// two bytes for a number that looks like one of its own restart codes (P3).
    pub(super) fn site(&self) -> u64 {
        self.call_address
    }

    pub(super) fn number(&self) -> i64 {
        self.number.into()
    }
}

/// The whole of it, as the kernel reads it.
#[repr(C)]
pub(super) struct SentInfo {
    info: Info,
    _rest: [u64; 12],
}

const _: () = assert!(size_of::<SentInfo>() == size_of::<libc::siginfo_t>());

/// The registers, the mask and the stack that the return from the handler sets.
#[repr(transparent)]
pub(super) struct Context(libc::ucontext_t);

macro_rules! registers {
    ($($get:ident $set:ident $register:ident)*) => {
        $(
            pub(super) fn $get(&self) -> u64 {
                self.0.uc_mcontext.gregs[libc::$register as usize].cast_unsigned()
            }

            pub(super) fn $set(&mut self, value: u64) {
                self.0.uc_mcontext.gregs[libc::$register as usize] = value.cast_signed();
            }
        )*
    };
}

#[allow(dead_code)] // The macro makes both of each.
impl Context {
    registers! {
        rax set_rax REG_RAX
        rdi set_rdi REG_RDI
        rsi set_rsi REG_RSI
        rdx set_rdx REG_RDX
        r10 set_r10 REG_R10
        r8 set_r8 REG_R8
        r9 set_r9 REG_R9
        rcx set_rcx REG_RCX
        r11 set_r11 REG_R11
        rsp set_rsp REG_RSP
        rip set_rip REG_RIP
        flags set_flags REG_EFL
    }

    pub(super) fn args(&self) -> [i64; 6] {
        [
            self.rdi(),
            self.rsi(),
            self.rdx(),
            self.r10(),
            self.r8(),
            self.r9(),
        ]
        .map(u64::cast_signed)
    }

    /// Sets the registers of a call.
    pub(super) fn set_call(&mut self, call: &TrappedSyscall) {
        self.set_rax(call.nr.cast_unsigned());
        let [a, b, c, d, e, f] = call.args.map(i64::cast_unsigned);
        self.set_rdi(a);
        self.set_rsi(b);
        self.set_rdx(c);
        self.set_r10(d);
        self.set_r8(e);
        self.set_r9(f);
    }

    /// Goes on at a place that makes a call. With these two registers the kernel can return the fast way.
    pub(super) fn go_to(&mut self, place: u64) {
        self.set_rip(place);
        self.set_rcx(place);
        self.set_r11(self.flags());
    }

    /// What the thread blocks, once the handler has returned.
    pub(super) fn mask(&self) -> u64 {
        // SAFETY: the kernel's mask is the first eight bytes of the C library's.
        unsafe { (&raw const self.0.uc_sigmask).cast::<u64>().read() }
    }

    pub(super) fn set_mask(&mut self, mask: u64) {
        // SAFETY: as above.
        unsafe { (&raw mut self.0.uc_sigmask).cast::<u64>().write(mask) }
    }

    /// Tells whether the signal was delivered to the alternate stack while the program was not on it.
    pub(super) fn came_to_other_stack(&self) -> bool {
        self.above_start((&raw const self.0).addr()).is_some()
            && self.above_start(self.rsp() as usize).is_none()
    }

    /// How far an address is from where the alternate stack starts, if it is on it as the kernel sees it: a stack pointer
    /// at the very end is.
    pub(super) fn above_start(&self, address: usize) -> Option<usize> {
        let stack = &self.0.uc_stack;
        let above = address.checked_sub(stack.ss_sp.addr())?;
        (1..=stack.ss_size).contains(&above).then_some(above)
    }
}

/// Where the mask is in the frame that a handler of the program returns by.
pub(super) const MASK_OFFSET: u64 = std::mem::offset_of!(libc::ucontext_t, uc_sigmask) as u64;

const _: () = assert!(MASK_OFFSET == 296 && size_of::<Info>() == 32);
