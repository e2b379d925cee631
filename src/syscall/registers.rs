use std::mem::offset_of;

/// The general registers of a traced thread, as `struct user_regs_struct` of `sys/user.h` lays them out.
///
/// # Examples
///
/// ```
/// use asm_tracer::syscall::Registers;
///
/// let mut registers = Registers::default();
/// registers.rax = 7;
/// assert_eq!((registers.rax, registers.rip), (7, 0));
/// ```
#[doc(alias = "user_regs_struct")]
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[expect(missing_docs, reason = "each is the register of its name")]
pub struct Registers {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    /// At the stop before a system call −`ENOSYS`, at the one after it the result.
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// The number of the system call that the thread is in, or −1.
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub eflags: u64,
    pub rsp: u64,
    pub ss: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    pub ds: u64,
    pub es: u64,
    pub fs: u64,
    pub gs: u64,
}

const _: () = {
    use libc::user_regs_struct as Kernel;
    assert!(size_of::<Registers>() == size_of::<Kernel>() && size_of::<Kernel>() == 27 * 8);
    assert!(offset_of!(Registers, rax) == offset_of!(Kernel, rax));
    assert!(offset_of!(Registers, orig_rax) == offset_of!(Kernel, orig_rax));
    assert!(offset_of!(Registers, rip) == offset_of!(Kernel, rip));
    assert!(offset_of!(Registers, rsp) == offset_of!(Kernel, rsp));
    assert!(offset_of!(Registers, fs_base) == offset_of!(Kernel, fs_base));
    assert!(offset_of!(Registers, gs) == offset_of!(Kernel, gs));
};
