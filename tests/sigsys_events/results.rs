use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::time::Duration;

use asm_tracer::sigsys::{Decision, Event, Tracer};
use asm_tracer::{Errno, Sysno, TrappedSyscall};
use nix::libc;

use crate::support::in_process_of_its_own;
use crate::{assert_accounted, getppid};

fn time(event: &Event) -> Duration {
    match event {
        Event::Call(call) => call.time,
        Event::Returned(returned) => returned.time,
        _ => Duration::ZERO,
    }
}

/// What each call returned, in order, with the call: the last one of the thread from this place before that time.
fn answered(events: &[Event]) -> Vec<(TrappedSyscall, i64)> {
    let mut in_time = events.to_vec();
    in_time.sort_by_key(time);
    let mut open = HashMap::new();
    let mut answered = Vec::new();
    for event in in_time {
        match event {
            Event::Call(call) => {
                open.insert((call.thread, call.instruction_pointer), call.syscall);
            }
            Event::Returned(returned) => {
                let call = open.remove(&(returned.thread, returned.instruction_pointer));
                answered.push((call.expect("a call before"), returned.value));
            }
            _ => {}
        }
    }
    answered
}

/// All events so far, results too, which come a little later.
fn events_with(tracer: &Tracer, results: usize) -> Vec<Event> {
    let mut events = Vec::new();
    crate::support::until_blocking("the results have come", || {
        events.extend(tracer.drain().unwrap());
        events
            .iter()
            .filter(|event| matches!(event, Event::Returned(_)))
            .count()
            >= results
    });
    events
}

fn rewrites(call: &mut TrappedSyscall) -> Option<i64> {
    match (call.sysno(), call.args[0]) {
        // Another descriptor, for the calls on this one.
        (Some(Sysno::write), 999) => {
            call.args[0] = -1;
            None
        }
        (Some(Sysno::getppid), 7) => Some(77),
        _ => None,
    }
}

#[test]
fn results_are_those_of_the_kernel() {
    in_process_of_its_own("results::results_are_those_of_the_kernel", || {
        let (reader, writer) = std::io::pipe().unwrap();
        let tracer = Tracer::builder()
            .trap([Sysno::getppid, Sysno::read, Sysno::write])
            .hook(rewrites)
            .results(true)
            .install()
            .unwrap();
        let parent = getppid(1);
        assert_eq!(getppid(7), 77);
        let mut buffer = [0_u8; 16];
        // SAFETY: both buffers are there.
        unsafe {
            assert_eq!(libc::write(writer.as_raw_fd(), c"hello".as_ptr().cast(), 5), 5);
            assert_eq!(libc::read(reader.as_raw_fd(), buffer.as_mut_ptr().cast(), 16), 5);
            assert_eq!(libc::write(999, c"hello".as_ptr().cast(), 5), -1);
        }
        assert_eq!(Errno::last(), Errno::EBADF);
        let events = events_with(&tracer, 4);
        let results: Vec<_> = answered(&events)
            .iter()
            .map(|(call, value)| (call.sysno().unwrap(), *value))
            .collect();
        assert_eq!(
            results,
            [
                (Sysno::getppid, parent),
                (Sysno::write, 5),
                (Sysno::read, 5),
                (Sysno::write, -i64::from(Errno::EBADF as i32)),
            ]
        );
        let rewritten = |event: &&Event| matches!(event, Event::Call(call) if matches!(call.decision, Decision::Rewritten(other) if other.args[0] == -1));
        assert_eq!(events.iter().filter(rewritten).count(), 1);
        assert_accounted(tracer.statistics(), &events);
    });
}

#[test]
fn results_of_many_threads_find_their_calls() {
    in_process_of_its_own("results::results_of_many_threads_find_their_calls", || {
        const EACH: usize = 300;
        let tracer = Tracer::builder()
            .trap([Sysno::getppid, Sysno::lseek])
            .capacity(1 << 14)
            .results(true)
            .install()
            .unwrap();
        let file = std::fs::File::open("/dev/zero").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for number in 0..EACH as i64 {
                        // Flags and registers are the caller's own all along.
                        // SAFETY: moves no memory.
                        let offset = unsafe { libc::lseek(file.as_raw_fd(), number, libc::SEEK_SET) };
                        assert_eq!(offset, 0);
                    }
                });
            }
        });
        let events = events_with(&tracer, 8 * EACH);
        let answered = answered(&events);
        assert_eq!(answered.len(), 8 * EACH);
        assert!(
            answered
                .iter()
                .all(|(call, value)| call.sysno() == Some(Sysno::lseek) && *value == 0)
        );
        assert_accounted(tracer.statistics(), &events);
    });
}

/// Makes a trapped call with every register and flag set to something, and gives what is different afterwards.
fn different_registers() -> u64 {
    let different: u64;
    // SAFETY: asks for a number; the registers are declared.
    unsafe {
        std::arch::asm!(
            "mov rdi, 0x1111",
            "mov rsi, 0x2222",
            "mov rdx, 0x3333",
            "mov r10, 0x4444",
            "mov r8, 0x5555",
            "mov r9, 0x6666",
            "mov r12, 0x7777",
            "mov r13, 0x8888",
            "mov [rsp - 8], r12",
            "mov [rsp - 128], r13",
            "mov eax, 110",
            "stc",
            "syscall",
            "setnc al",
            "movzx r15d, al",
            "xor rdi, 0x1111",
            "or r15, rdi",
            "xor rsi, 0x2222",
            "or r15, rsi",
            "xor rdx, 0x3333",
            "or r15, rdx",
            "xor r10, 0x4444",
            "or r15, r10",
            "xor r8, 0x5555",
            "or r15, r8",
            "xor r9, 0x6666",
            "or r15, r9",
            "xor r12, [rsp - 8]",
            "or r15, r12",
            "xor r13, [rsp - 128]",
            "or r15, r13",
            out("rax") _, out("rdi") _, out("rsi") _, out("rdx") _, out("r10") _, out("r8") _, out("r9") _,
            out("rcx") _, out("r11") _, out("r12") _, out("r13") _, out("r15") different,
        );
    }
    different
}

// P14, P16, P17: nothing that is written down shows.
#[test]
fn recording_a_result_changes_no_register_no_flag_and_no_red_zone() {
    in_process_of_its_own(
        "results::recording_a_result_changes_no_register_no_flag_and_no_red_zone",
        || {
            let tracer = Tracer::builder()
                .trap(Sysno::getppid)
                .results(true)
                .install()
                .unwrap();
            for _ in 0..1000 {
                assert_eq!(different_registers(), 0);
            }
            let events = events_with(&tracer, 1000);
            assert_accounted(tracer.statistics(), &events);
        },
    );
}
