//! What a call with changed registers finds its way back by (`asm_tracer_gate_rewritten`).
#![allow(unsafe_code)]

use super::context::Context;
use crate::notify::TrappedSyscall;

/// Below the stack pointer of the call, which is lowered to it for as long as it takes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Frame {
    return_to: u64,
    args: [i64; 6],
    stack_pointer: u64,
    /// A mask in place of the program's, and a description of it in place of the program's.
    mask: u64,
    description: [u64; 3],
    _spare: [u64; 2],
}

/// The room that the entry leaves (`gate.asm`).
pub(super) type Room = std::mem::MaybeUninit<Frame>;

/// The System V ABI's red zone, which a handler must not touch.
const RED_ZONE: u64 = 128;

/// Where the mask of a call is to be replaced.
pub(super) struct NewMask {
    pub(super) mask: u64,
    /// The argument that leads to it.
    pub(super) argument: usize,
    /// What the argument leads to, if that is a description: the mask's address is its first word.
    pub(super) description: Option<[u64; 3]>,
}

/// Has the thread make a call other than the one that it tried, and go on as if it had been that. `gate` is where.
///
/// # Safety
///
/// `room` must lead to room for a frame right below that of the signal.
pub(super) unsafe fn go_through(
    context: &mut Context,
    site: u64,
    call: &TrappedSyscall,
    mask: Option<NewMask>,
    room: *mut Room,
    gate: u64,
) {
    let stack_pointer = context.rsp();
    // Where the program is not on the signal's stack, the room would be used again before the call is over.
    let place = match context.came_to_other_stack() {
        true => ((stack_pointer - RED_ZONE - size_of::<Frame>() as u64) & !15) as *mut Frame,
        false => room.cast::<Frame>(),
    };
    let mut frame = Frame {
        return_to: site,
        args: context.args(),
        stack_pointer,
        mask: 0,
        description: [0; 3],
        _spare: [0; 2],
    };
    let mut call = *call;
    if let Some(new) = mask {
        let address = |field: usize| (place.addr() + field) as u64;
        let mask_at = address(std::mem::offset_of!(Frame, mask));
        frame.mask = new.mask;
        let argument = match new.description {
            None => mask_at,
            Some([_, size, rest]) => {
                frame.description = [mask_at, size, rest];
                address(std::mem::offset_of!(Frame, description))
            }
        };
        if let Some(place) = call.args.get_mut(new.argument) {
            *place = argument.cast_signed();
        }
    }
    // SAFETY: either place is stack that is dead until the thread gets there.
    unsafe { place.write_unaligned(frame) };
    context.set_call(&call);
    context.set_rsp(place.addr() as u64);
    context.go_to(gate);
}

const _: () = assert!(size_of::<Frame>() == 112 && std::mem::offset_of!(Frame, stack_pointer) == 56);
