//! The places of `asm/gate.asm`, and which of them a call goes through.
#![allow(unsafe_code)]

use std::ops::RangeInclusive;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicPtr, AtomicU64};

use super::context::{Context, Info};
use super::frame::Room;
use super::record::Returned;
use super::ring::Ring;
use crate::syscall::raw;

/// What `asm_tracer_sigsys_entry` calls.
pub(super) type Handler = unsafe extern "C" fn(i32, *mut Info, *mut Context, *mut Room);

#[cfg(not(asm_tracer_nasm))]
std::arch::global_asm!(include_str!("../../asm/generated/gate.s"), options(raw));

unsafe extern "C" {
    safe static asm_tracer_gate_slots: [AtomicU64; SITES];
    safe static asm_tracer_gate_results: [AtomicPtr<()>; 2];
    safe static asm_tracer_gate_recorder: AtomicU64;
    safe static asm_tracer_sigsys_handler: AtomicPtr<()>;
    fn asm_tracer_gate_start();
    fn asm_tracer_gate_end();
    fn asm_tracer_gate_restorer();
    fn asm_tracer_gate_rewritten();
    fn asm_tracer_gate_rewritten_recorded();
    fn asm_tracer_gate_record();
    fn asm_tracer_gate_table();
    fn asm_tracer_gate_recording_table();
    fn asm_tracer_sigsys_entry();
    pub(super) fn asm_tracer_sigsys_elsewhere(
        signal: i32,
        info: *mut Info,
        context: *mut Context,
        room: *mut Room,
        stack: u64,
        handler: Handler,
    );
}

/// How many places of the program that make calls have an entry of their own; see `gate.asm`.
const SITES: usize = 2048;
/// How many of the entries any call may take.
const ORDINARY: usize = SITES - 128;
const ENTRY_SIZE: u64 = 8;
const RECORDING_ENTRY_SIZE: u64 = 16;

fn address(function: unsafe extern "C" fn()) -> u64 {
    function as usize as u64
}

/// The addresses after the instructions that make calls: those of the gate, and those of the raw calls.
pub(super) fn places() -> [RangeInclusive<u64>; 3] {
    let stubs = raw::places();
    [
        address(asm_tracer_gate_start) + 1..=address(asm_tracer_gate_end),
        stubs[0].clone(),
        stubs[1].clone(),
    ]
}

pub(super) fn restorer() -> u64 {
    address(asm_tracer_gate_restorer)
}

/// Where the kernel is to deliver the signal, which goes on to `handler`.
pub(super) fn entry(handler: *mut ()) -> u64 {
    asm_tracer_sigsys_handler.store(handler, Relaxed);
    address(asm_tracer_sigsys_entry)
}

/// Has the places that record results write them to this ring, which must never go away.
pub(super) fn record_results(ring: &'static Ring<Returned>) {
    asm_tracer_gate_results[1].store(ring.slots().cast_mut(), Relaxed);
    asm_tracer_gate_results[0].store(std::ptr::from_ref(ring).cast_mut().cast(), Relaxed);
    asm_tracer_gate_recorder.store(address(asm_tracer_gate_record), Relaxed);
}

/// Where a call with changed registers is made.
pub(super) fn rewritten(record_result: bool) -> u64 {
    match record_result {
        true => address(asm_tracer_gate_rewritten_recorded),
        false => address(asm_tracer_gate_rewritten),
    }
}

/// Where the calls of one place are made, known by the address after its instruction. The last entries are for calls that
/// can't do without one.
///
/// Entries are never given up. `None` if there is none left.
pub(super) fn entry_of(site: u64, needed: bool, record_result: bool) -> Option<u64> {
    let start = (site.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as usize;
    let ordinary = (0..ORDINARY).map(|step| (start + step) % ORDINARY);
    let reserved = ORDINARY..if needed { SITES } else { ORDINARY };
    for index in ordinary.chain(reserved) {
        let slot = asm_tracer_gate_slots.get(index)?;
        let present = match slot.load(Acquire) {
            0 => slot
                .compare_exchange(0, site, AcqRel, Acquire)
                .map_or_else(|other| other, |_| site),
            present => present,
        };
        if present == site {
            return Some(match record_result {
                true => address(asm_tracer_gate_recording_table) + RECORDING_ENTRY_SIZE * index as u64,
                false => address(asm_tracer_gate_table) + ENTRY_SIZE * index as u64,
            });
        }
    }
    None
}
