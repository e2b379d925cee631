//! Processes by descriptor: no other process can be taken for one of them, even if it gets the same pid.
#![allow(unsafe_code)]

use std::mem::{offset_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use asm_tracer::{Errno, Signal};

/// `struct pidfd_info` of `<linux/pidfd.h>` in its first size.
#[repr(C)]
struct Info {
    mask: u64,
    cgroup: u64,
    /// The pid and its like.
    ids: [u32; 11],
    exit_code: i32,
}

const _: () = assert!(size_of::<Info>() == 64 && offset_of!(Info, exit_code) == 60);

/// `_IOWR(0xff, 11, struct pidfd_info)`, since Linux 6.13.
const GET_INFO: u64 = 0xc040_ff0b;
/// How a process has ended is told once it was waited for, since Linux 6.15.
const EXIT: u64 = 1 << 3;

pub(crate) struct Process {
    pub(crate) pid: i32,
    fd: OwnedFd,
}

impl Process {
    pub(crate) fn open(pid: i32) -> Result<Self, Errno> {
        // SAFETY: no memory is involved.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
        // SAFETY: the kernel just made this descriptor for us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        Ok(Self { pid, fd })
    }

    pub(crate) fn kill(&self) {
        let (fd, nothing) = (self.fd.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
        // SAFETY: a null pointer stands for the information that kill(2) would give. It fails only if there is none to kill.
        let _ = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, nothing, 0) };
    }

    /// The signal of which it died, if it did and that can be told.
    pub(crate) fn death(&self) -> Option<Signal> {
        // SAFETY: all fields are integers, for which zero is a value.
        let mut info: Info = unsafe { zeroed() };
        info.mask = EXIT;
        // SAFETY: the kernel reads and writes one struct, of the size that is part of the request.
        let told = unsafe { libc::ioctl(self.fd.as_raw_fd(), GET_INFO, &raw mut info) };
        let ended = told == 0 && info.mask & EXIT != 0 && libc::WIFSIGNALED(info.exit_code);
        ended
            .then(|| Signal::try_from(libc::WTERMSIG(info.exit_code)).ok())
            .flatten()
    }

    /// Its threads, by tid, and the call in which each of them is.
    pub(crate) fn threads(&self) -> Vec<(i32, String)> {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", self.pid)) else {
            return Vec::new();
        };
        let tids = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
        let mut threads: Vec<_> = tids.map(|tid| (tid, whereabouts(tid))).collect();
        threads.sort();
        threads
    }
}

fn whereabouts(tid: i32) -> String {
    let read = |file| std::fs::read_to_string(format!("/proc/{tid}/{file}")).unwrap_or_default();
    let call = read("syscall");
    let number = call.split_whitespace().next().unwrap_or_default();
    let stat = read("stat");
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    match (state, number.parse().ok().and_then(asm_tracer::Sysno::new)) {
        (Some('Z' | 'X') | None, _) => "ended".into(),
        (Some('T'), _) => "stopped".into(),
        (_, Some(sysno)) => format!("in {sysno}"),
        _ => "running".into(),
    }
}
