//! The typed system calls: what they do, and what they say when they can't.
#![allow(unsafe_code)]

mod support;

use std::ffi::CString;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use asm_tracer::syscall::*;
use asm_tracer::{Errno, Signal, SignalNumber};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use support::{in_process_of_its_own, proc_status, until_blocking};

const NO_MODE: Mode = Mode::new(0);
const READ_WRITE: Protection = Protection::READ.union(Protection::WRITE);

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, SyscallError>, errno: Errno) {
    assert_eq!(result.map_err(SyscallError::errno).unwrap_err(), errno);
}

fn c_path(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

/// A number that no descriptor has.
fn no_descriptor() -> BorrowedFd<'static> {
    // SAFETY: there is nothing behind it that anybody could rely on.
    unsafe { BorrowedFd::borrow_raw(i32::MAX) }
}

fn own_pid() -> i32 {
    std::process::id() as i32
}

/// A child that is killed and reaped at the end, unless the test has reaped it.
struct Running {
    child: Child,
    reaped: bool,
}

impl Running {
    fn new(command: &mut Command) -> Self {
        let child = command.spawn().unwrap();
        Self { child, reaped: false }
    }

    /// One that waits for input.
    fn cat() -> Self {
        let mut cat = Self::new(Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()));
        // Once it has answered, its execution is over.
        cat.child.stdin.as_mut().unwrap().write_all(b"?").unwrap();
        cat.child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        cat
    }

    fn shell(script: &str) -> Self {
        Self::new(Command::new("sh").args(["-c", script]))
    }

    fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    fn wait(&mut self, options: WaitOptions) -> Waited {
        let waited = wait4(self.pid(), options).unwrap().unwrap();
        assert_eq!(waited.pid, self.pid());
        let status = waited.status;
        self.reaped = status.code().is_some() || status.signal().is_some();
        waited
    }

    fn trace(&self, request: PtraceRequest<'_>) {
        assert_eq!(ptrace(self.pid(), request), Ok(0));
    }

    /// Seizes and stops it.
    fn stop(&mut self) {
        self.trace(PtraceRequest::Seize(PtraceOptions::EXITKILL));
        self.trace(PtraceRequest::Interrupt);
        let stop = self.wait(WaitOptions::ALL).status;
        assert_eq!(stop.stopped_signal(), Some(libc::SIGTRAP));
        assert_eq!(stop.into_raw() >> 16, libc::PTRACE_EVENT_STOP);
    }

    fn registers(&self) -> Registers {
        let mut registers = Registers::default();
        self.trace(PtraceRequest::GetRegisters(&mut registers));
        registers
    }

    fn peek(&self, address: u64) -> u64 {
        let mut word = 0;
        let word_at = &mut word;
        self.trace(PtraceRequest::PeekData {
            address,
            word: word_at,
        });
        word
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

// Files.

#[test]
fn a_file_is_created_with_its_mode_and_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = c_path(&directory.path().join("file"));
    let create = OpenFlags::WRITE_ONLY | OpenFlags::CREATE | OpenFlags::EXCLUSIVE;
    let fd = open(&path, create, Mode::new(0o100_751)).unwrap();
    let umask = u32::from_str_radix(&proc_status(std::process::id(), "Umask").unwrap(), 8).unwrap();
    let metadata = File::from(fd.try_clone().unwrap()).metadata().unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o751 & !umask);
    assert_eq!(write(&fd, b"0123456789"), Ok(10));
    refused(read(&fd, &mut [0; 4]), Errno::EBADF);
    close(fd).unwrap();
    refused(open(&path, create, NO_MODE), Errno::EEXIST);

    let fd = open(&path, OpenFlags::READ_ONLY, NO_MODE).unwrap();
    let mut buffer = [0; 16];
    assert_eq!(read(&fd, &mut buffer[..4]), Ok(4));
    assert_eq!(read(&fd, &mut buffer[4..]), Ok(6));
    assert_eq!(&buffer[..10], b"0123456789");
    assert_eq!((read(&fd, &mut buffer), read(&fd, &mut [])), (Ok(0), Ok(0)));
    refused(write(&fd, b"no"), Errno::EBADF);
    close(fd).unwrap();

    let fd = open(&path, OpenFlags::READ_WRITE | OpenFlags::APPEND, NO_MODE).unwrap();
    assert_eq!(write(&fd, b"ab"), Ok(2));
    let fd_2 = open(&path, OpenFlags::WRITE_ONLY | OpenFlags::TRUNCATE, NO_MODE).unwrap();
    assert_eq!(read(&fd, &mut buffer), Ok(0));
    close(fd).unwrap();
    close(fd_2).unwrap();
    assert_eq!(std::fs::read(directory.path().join("file")).unwrap(), b"");
}

#[test]
fn a_descriptor_is_closed_on_exec_if_that_is_wanted() {
    for (flags, expected) in [(OpenFlags::READ_ONLY, 0), (OpenFlags::CLOEXEC, libc::FD_CLOEXEC)] {
        let fd = open(c"/dev/null", flags, NO_MODE).unwrap();
        assert_eq!(fcntl(&fd, FcntlArg::F_GETFD).unwrap(), expected);
        close(fd).unwrap();
    }
}

#[test]
fn what_cannot_be_opened_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    refused(
        open(c"/nonexistent", OpenFlags::READ_ONLY, NO_MODE),
        Errno::ENOENT,
    );
    refused(open(c"", OpenFlags::READ_ONLY, NO_MODE), Errno::ENOENT);
    refused(open(c"/dev/null", OpenFlags::DIRECTORY, NO_MODE), Errno::ENOTDIR);
    refused(open(c"/", OpenFlags::WRITE_ONLY, NO_MODE), Errno::EISDIR);
    refused(open(&c_path(&link), OpenFlags::NOFOLLOW, NO_MODE), Errno::ELOOP);
    let place = open(&c_path(&link), OpenFlags::NOFOLLOW | OpenFlags::PATH, NO_MODE).unwrap();
    refused(read(&place, &mut [0]), Errno::EBADF);
    close(place).unwrap();
}

#[test]
fn descriptors_that_are_not_there_are_refused() {
    refused(read(no_descriptor(), &mut [0; 4]), Errno::EBADF);
    refused(write(no_descriptor(), b"data"), Errno::EBADF);
    // SAFETY: there is nothing behind it that anybody could rely on.
    refused(close(unsafe { OwnedFd::from_raw_fd(i32::MAX) }), Errno::EBADF);
}

#[test]
fn pipes_are_read_as_far_as_they_are_filled() {
    let (reader, writer) = std::io::pipe().unwrap();
    assert_eq!(write(writer.as_fd(), b"hello"), Ok(5));
    let mut buffer = [0; 16];
    assert_eq!(read(reader.as_fd(), &mut buffer), Ok(5));
    assert_eq!(&buffer[..5], b"hello");
    close(writer.into()).unwrap();
    assert_eq!(read(&reader, &mut buffer), Ok(0));

    let (reader, writer) = std::io::pipe().unwrap();
    close(reader.into()).unwrap();
    refused(write(&writer, b"hello"), Errno::EPIPE);
}

// Interrupted waits.

extern "C" fn do_nothing(_: i32) {}

/// Makes a call that waits, in a thread that signals without `SA_RESTART` come to until it has returned.
fn interrupt<T: Send>(call: impl FnOnce() -> Result<T, SyscallError> + Send) -> Result<T, SyscallError> {
    // SAFETY: all fields are integers or pointers, for which zero is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = do_nothing as *const () as usize;
    // SAFETY: the handler does nothing.
    let set = unsafe { libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut()) };
    assert_eq!(set, 0);
    let thread = AtomicI32::new(0);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            // SAFETY: it touches no memory.
            let tid = unsafe { syscall0(libc::SYS_gettid) }.unwrap();
            thread.store(tid as i32, Ordering::SeqCst);
            call()
        });
        until_blocking("the call is interrupted", || {
            let (pid, tid) = (own_pid(), thread.load(Ordering::SeqCst));
            if tid != 0 && !waiting.is_finished() {
                let (signal, number) = (libc::SIGUSR2.into(), libc::SYS_tgkill);
                // SAFETY: the signal has a handler, and goes to no other process.
                let _ = unsafe { syscall3(number, pid.into(), tid.into(), signal) };
            }
            waiting.is_finished()
        });
        waiting.join().unwrap()
    })
}

#[test]
fn a_signal_ends_a_read_and_a_write() {
    let (reader, writer) = std::io::pipe().unwrap();
    refused(interrupt(|| read(&reader, &mut [0; 4])), Errno::EINTR);
    // It takes what there is room for, and says so.
    let data = vec![0; 1 << 20];
    let written = interrupt(|| write(&writer, &data)).unwrap();
    assert!((1..1 << 20).contains(&written), "{written}");
    refused(interrupt(|| write(&writer, &data)), Errno::EINTR);
}

#[test]
fn a_signal_ends_the_opening_of_a_fifo() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let path = c_path(&fifo);
    refused(
        interrupt(|| open(&path, OpenFlags::READ_ONLY, NO_MODE)),
        Errno::EINTR,
    );
}

#[test]
fn a_signal_ends_a_wait() {
    let child = Running::cat();
    refused(
        interrupt(|| wait4(child.pid(), WaitOptions::empty())),
        Errno::EINTR,
    );
}

// Mappings.

/// The permissions of the page at an address, as `/proc` describes them.
fn permissions(address: usize) -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let [start, end] = [start, end].map(|edge| usize::from_str_radix(edge, 16).unwrap());
        (start..end).contains(&address).then(|| rest[..4].to_owned())
    })
}

/// In a process where no other test maps anything.
#[test]
fn memory_is_mapped_where_the_hint_says_if_that_is_free() {
    in_process_of_its_own("memory_is_mapped_where_the_hint_says_if_that_is_free", || {
        let taken = mmap(None, 4096, Protection::NONE, MapFlags::PRIVATE, None).unwrap();
        let hint = Some(taken.addr());
        let elsewhere = mmap(hint, 4096, READ_WRITE, MapFlags::PRIVATE, None).unwrap();
        assert_ne!(elsewhere, taken);
        let only_there = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE;
        refused(mmap(hint, 4096, READ_WRITE, only_there, None), Errno::EEXIST);
        // SAFETY: the pages were mapped here, and nobody else uses them.
        unsafe {
            assert_eq!(elsewhere.cast::<u64>().read(), 0);
            elsewhere.cast::<u64>().write(7);
            assert_eq!(elsewhere.cast::<u64>().read(), 7);
            munmap(elsewhere, 4096).unwrap();
            munmap(taken, 4096).unwrap();
        }
        assert_eq!(permissions(taken.addr()), None);
        for flags in [MapFlags::PRIVATE, MapFlags::SHARED, only_there] {
            let page = mmap(hint, 4096, READ_WRITE, flags, None).unwrap();
            assert_eq!(page, taken);
            // SAFETY: as above.
            unsafe { munmap(page, 4096) }.unwrap();
        }
    });
}

#[test]
fn a_file_is_mapped_from_an_offset_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, [[b'a'; 4096], [b'b'; 4096]].as_flattened()).unwrap();
    let file = open(&c_path(&path), OpenFlags::READ_WRITE, NO_MODE).unwrap();
    let second = Some((file.as_fd(), 4096));
    let private = mmap(None, 4096, READ_WRITE, MapFlags::PRIVATE, second).unwrap();
    let shared = mmap(
        None,
        4096,
        READ_WRITE,
        MapFlags::SHARED | MapFlags::POPULATE,
        second,
    )
    .unwrap();
    // SAFETY: the pages were mapped here, and the file is the test's own.
    unsafe {
        let (private, shared) = (private.cast::<u8>(), shared.cast::<u8>());
        assert_eq!((private.read(), shared.read()), (b'b', b'b'));
        private.write(b'x');
        shared.add(1).write(b'y');
        assert_eq!(std::fs::read(&path).unwrap()[4096..4099], *b"byb");
        munmap(private.cast(), 4096).unwrap();
        munmap(shared.cast(), 4096).unwrap();
    }
    let map = |file| mmap(None, 4096, Protection::READ, MapFlags::PRIVATE, Some(file)).map(drop);
    refused(map((file.as_fd(), 1)), Errno::EINVAL);
    refused(map((file.as_fd(), u64::MAX - 4095)), Errno::EOVERFLOW);
    refused(map((no_descriptor(), 0)), Errno::EBADF);
    let place = open(&c_path(directory.path()), OpenFlags::DIRECTORY, NO_MODE).unwrap();
    refused(map((place.as_fd(), 0)), Errno::ENODEV);
    let write_only = open(&c_path(&path), OpenFlags::WRITE_ONLY, NO_MODE).unwrap();
    refused(map((write_only.as_fd(), 0)), Errno::EACCES);
}

#[test]
fn a_mapping_is_replaced_and_taken_away_by_pages() {
    let pages = mmap(None, 3 * 4096, READ_WRITE, MapFlags::PRIVATE, None).unwrap();
    // SAFETY: the pages were mapped here, and nobody else uses them.
    unsafe {
        pages.cast::<[u8; 3 * 4096]>().write([1; 3 * 4096]);
        let second = pages.byte_add(4096);
        let replaced = mmap_fixed(second, 4096, Protection::READ, MapFlags::PRIVATE, None);
        assert_eq!(replaced, Ok(second));
        let bytes = pages.cast::<u8>().cast_const();
        let edges = [4095, 4096, 8191, 8192].map(|offset| bytes.add(offset).read());
        assert_eq!(edges, [1, 0, 0, 1]);
        let access = [0, 4096, 8192].map(|offset| permissions(pages.addr() + offset).unwrap());
        assert_eq!(access, ["rw-p", "r--p", "rw-p"]);
        refused(
            mmap_fixed(pages.byte_add(1), 4096, READ_WRITE, MapFlags::PRIVATE, None),
            Errno::EINVAL,
        );
        munmap(pages, 3 * 4096).unwrap();
    }
}

#[test]
fn impossible_mappings_are_refused() {
    refused(mmap(None, 0, READ_WRITE, MapFlags::PRIVATE, None), Errno::EINVAL);
    refused(
        mmap(None, 4096, READ_WRITE, MapFlags::empty(), None),
        Errno::EINVAL,
    );
    refused(
        mmap(None, usize::MAX, READ_WRITE, MapFlags::PRIVATE, None),
        Errno::ENOMEM,
    );
    let nowhere = std::ptr::without_provenance_mut(1);
    // SAFETY: nothing is mapped there, and no pages at all are meant.
    unsafe {
        refused(munmap(nowhere, 4096), Errno::EINVAL);
        refused(munmap(std::ptr::null_mut(), 0), Errno::EINVAL);
    }
}

// Signals and waits.

#[test]
fn what_is_no_process_is_refused() {
    let refused_ones = [0, -1, -own_pid(), i32::MIN]
        .map(Processes::One)
        .into_iter()
        .chain([0, 1, -1, -own_pid(), i32::MIN].map(Processes::Group));
    for processes in refused_ones {
        refused(kill(processes, SignalNumber::NONE), Errno::EINVAL);
        refused(wait4(processes, WaitOptions::NOHANG), Errno::EINVAL);
    }
    refused(kill(-1, SignalNumber::NONE), Errno::EINVAL);
    refused(kill(0, SignalNumber::NONE), Errno::EINVAL);
    assert_eq!(Processes::from(7), Processes::One(7));
}

#[test]
fn a_process_is_signalled() {
    let mut child = Running::cat();
    kill(child.pid(), SignalNumber::NONE).unwrap();
    refused(kill(child.pid(), 65), Errno::EINVAL);
    refused(kill(child.pid(), -1), Errno::EINVAL);
    refused(kill(i32::MAX, Signal::SIGTERM), Errno::ESRCH);
    kill(child.pid(), Signal::SIGTERM).unwrap();
    let status = child.wait(WaitOptions::empty()).status;
    assert_eq!(status.signal(), Some(libc::SIGTERM));
    refused(kill(child.pid(), SignalNumber::NONE), Errno::ESRCH);
}

#[test]
fn a_group_is_signalled_and_waited_for() {
    let mut first = Running::new(Command::new("cat").stdin(Stdio::piped()).process_group(0));
    let group = first.pid();
    let mut second = Running::new(Command::new("cat").stdin(Stdio::piped()).process_group(group));
    assert_eq!(wait4(Processes::Group(group), WaitOptions::NOHANG), Ok(None));
    kill(Processes::Group(group), libc::SIGKILL).unwrap();
    let mut ended = [(); 2].map(|()| {
        let waited = wait4(Processes::Group(group), WaitOptions::empty());
        let waited = waited.unwrap().unwrap();
        assert_eq!(waited.status.signal(), Some(libc::SIGKILL));
        waited.pid
    });
    (first.reaped, second.reaped) = (true, true);
    ended.sort_unstable();
    let mut expected = [first.pid(), second.pid()];
    expected.sort_unstable();
    assert_eq!(ended, expected);
    refused(
        wait4(Processes::Group(group), WaitOptions::empty()),
        Errno::ECHILD,
    );
}

static SIGNALLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_: i32) {
    SIGNALLED.fetch_add(1, Ordering::SeqCst);
}

#[test]
fn the_own_group_and_all_are_what_they_say() {
    in_process_of_its_own("the_own_group_and_all_are_what_they_say", || {
        nix::unistd::setpgid(nix::unistd::Pid::this(), nix::unistd::Pid::from_raw(0)).unwrap();
        // SAFETY: the handler only counts.
        unsafe { libc::signal(libc::SIGUSR1, count as *const () as libc::sighandler_t) };
        kill(Processes::OwnGroup, Signal::SIGUSR1).unwrap();
        until_blocking("the signal has come", || SIGNALLED.load(Ordering::SeqCst) == 1);
        // The parent, at least; nobody gets anything.
        kill(Processes::All, SignalNumber::NONE).unwrap();

        for which in [Processes::OwnGroup, Processes::All] {
            refused(wait4(which, WaitOptions::empty()), Errno::ECHILD);
            let mut child = Running::shell("exit 3");
            let waited = wait4(which, WaitOptions::empty()).unwrap().unwrap();
            assert_eq!((waited.pid, waited.status.code()), (child.pid(), Some(3)));
            child.reaped = true;
        }
    });
}

#[test]
fn a_wait_tells_how_a_child_stops_continues_and_ends() {
    let mut child = Running::cat();
    assert_eq!(wait4(child.pid(), WaitOptions::NOHANG), Ok(None));
    kill(child.pid(), Signal::SIGSTOP).unwrap();
    let stopped = child.wait(WaitOptions::UNTRACED).status;
    assert_eq!(stopped.stopped_signal(), Some(libc::SIGSTOP));
    kill(child.pid(), Signal::SIGCONT).unwrap();
    assert!(child.wait(WaitOptions::CONTINUED).status.continued());
    let cloned = WaitOptions::NOHANG | WaitOptions::CLONE;
    refused(wait4(child.pid(), cloned), Errno::ECHILD);
    drop(child.child.stdin.take());
    let ended = child.wait(WaitOptions::ALL);
    assert_eq!(ended.status.code(), Some(0));
    refused(wait4(child.pid(), WaitOptions::NOHANG), Errno::ECHILD);
    refused(wait4(own_pid(), WaitOptions::empty()), Errno::ECHILD);
}

#[test]
fn a_wait_tells_what_the_child_has_used() {
    let mut child = Running::shell("i=0; while [ $i -lt 30000 ]; do i=$((i + 1)); done; kill -9 $$");
    let Waited { status, usage, .. } = child.wait(WaitOptions::empty());
    assert_eq!(status.signal(), Some(libc::SIGKILL));
    let time = usage.user + usage.system;
    assert!(!time.is_zero() && time < support::BOUND, "{usage:?}");
    assert!((100 << 10..1 << 30).contains(&usage.max_resident), "{usage:?}");
    assert!(usage.minor_faults > 0, "{usage:?}");
    assert!(
        (usage.voluntary_switches | usage.involuntary_switches) < 1 << 32,
        "{usage:?}"
    );
}

// Tracing.

#[test]
fn a_seized_child_is_stopped_looked_at_and_changed() {
    let mut child = Running::cat();
    let running = child.pid();
    refused(
        ptrace(running, PtraceRequest::Continue(SignalNumber::NONE)),
        Errno::ESRCH,
    );
    refused(ptrace(own_pid(), PtraceRequest::Attach), Errno::EPERM);
    refused(ptrace(i32::MAX, PtraceRequest::Attach), Errno::ESRCH);
    child.stop();

    let registers = child.registers();
    assert!(
        registers.rip != 0 && registers.rsp != 0 && registers.cs == 0x33,
        "{registers:?}"
    );
    let mut changed = registers;
    changed.rbx = 0xfedc_ba98_7654_3210;
    child.trace(PtraceRequest::SetRegisters(&changed));
    assert_eq!(child.registers(), changed);
    let offset = std::mem::offset_of!(Registers, rbx) as u64;
    let mut word = 0;
    child.trace(PtraceRequest::PeekUser {
        offset,
        word: &mut word,
    });
    assert_eq!(word, changed.rbx);
    let word = registers.rbx;
    child.trace(PtraceRequest::PokeUser { offset, word });
    assert_eq!(child.registers(), registers);
    refused(
        ptrace(
            running,
            PtraceRequest::PeekUser {
                offset: 1,
                word: &mut 0,
            },
        ),
        Errno::EIO,
    );

    let address = registers.rsp;
    let before = child.peek(address);
    // A word that looks like an errno is still one.
    let word = u64::MAX - 8;
    child.trace(PtraceRequest::PokeData { address, word });
    assert_eq!(child.peek(address), word);
    let mut bytes = [0; 8];
    let remote = [RemoteSlice { address, len: 8 }];
    assert_eq!(
        process_vm_readv(running, &mut [IoSliceMut::new(&mut bytes)], &remote),
        Ok(8)
    );
    assert_eq!(u64::from_ne_bytes(bytes), word);
    child.trace(PtraceRequest::PokeData {
        address,
        word: before,
    });
    refused(
        ptrace(
            running,
            PtraceRequest::PeekData {
                address: 0,
                word: &mut 0,
            },
        ),
        Errno::EIO,
    );
    refused(
        ptrace(running, PtraceRequest::PokeData { address: 0, word: 0 }),
        Errno::EIO,
    );

    child.trace(PtraceRequest::Listen);
    child.trace(PtraceRequest::Interrupt);
    child.wait(WaitOptions::ALL);
    child.trace(PtraceRequest::Detach(SignalNumber::NONE));
    drop(child.child.stdin.take());
    assert!(child.wait(WaitOptions::empty()).status.success());
}

#[test]
fn a_child_that_asks_for_it_is_traced_to_its_end() {
    let mut command = Command::new("sh");
    command.args(["-c", "exit 7"]);
    // SAFETY: it makes one system call.
    unsafe { command.pre_exec(|| Ok(ptrace(0, PtraceRequest::TraceMe).map(drop)?)) };
    let mut child = Running::new(&mut command);
    assert_eq!(
        child.wait(WaitOptions::ALL).status.stopped_signal(),
        Some(libc::SIGTRAP)
    );
    let options = PtraceOptions::TRACESYSGOOD | PtraceOptions::TRACEEXIT | PtraceOptions::EXITKILL;
    child.trace(PtraceRequest::SetOptions(options));

    let first = child.registers().rip;
    child.trace(PtraceRequest::SingleStep(SignalNumber::NONE));
    assert_eq!(
        child.wait(WaitOptions::ALL).status.stopped_signal(),
        Some(libc::SIGTRAP)
    );
    assert_ne!(child.registers().rip, first);

    child.trace(PtraceRequest::Syscall(SignalNumber::NONE));
    let stop = child.wait(WaitOptions::ALL).status;
    assert_eq!(stop.stopped_signal(), Some(libc::SIGTRAP | 0x80));
    let registers = child.registers();
    assert_eq!(registers.rax.cast_signed(), -i64::from(libc::ENOSYS));
    assert!(registers.orig_rax < 1000, "{registers:?}");

    child.trace(PtraceRequest::Continue(SignalNumber::NONE));
    let stop = child.wait(WaitOptions::ALL).status;
    assert_eq!(stop.into_raw() >> 8, libc::SIGTRAP | libc::PTRACE_EVENT_EXIT << 8);
    let mut message = 0;
    child.trace(PtraceRequest::GetEventMessage(&mut message));
    assert_eq!(message, 7 << 8);
    child.trace(PtraceRequest::Continue(SignalNumber::NONE));
    assert_eq!(child.wait(WaitOptions::ALL).status.code(), Some(7));
}

#[test]
fn an_attached_child_gets_the_signal_it_is_continued_with() {
    let mut child = Running::cat();
    child.trace(PtraceRequest::Attach);
    assert_eq!(
        child.wait(WaitOptions::ALL).status.stopped_signal(),
        Some(libc::SIGSTOP)
    );
    child.trace(PtraceRequest::Continue(Signal::SIGTERM.into()));
    assert_eq!(child.wait(WaitOptions::ALL).status.signal(), Some(libc::SIGTERM));
}

// Properties.

/// Runs on a thread whose properties end with it.
fn on_a_thread(body: impl FnOnce() + Send) {
    std::thread::scope(|scope| scope.spawn(body).join().unwrap());
}

#[test]
fn a_thread_has_the_name_that_it_is_given() {
    on_a_thread(|| {
        let mut name = [0xff; 16];
        prctl(Prctl::SetName(c"a name that is too long")).unwrap();
        assert_eq!(prctl(Prctl::GetName(&mut name)), Ok(0));
        assert_eq!(&name, b"a name that is \0");
        prctl(Prctl::SetName(c"")).unwrap();
        assert_eq!(prctl(Prctl::GetName(&mut name)), Ok(0));
        assert_eq!(name[0], 0);
    });
}

#[test]
fn a_thread_gives_up_new_privileges() {
    on_a_thread(|| {
        prctl(Prctl::SetNoNewPrivs).unwrap();
        assert_eq!(prctl(Prctl::GetNoNewPrivs), Ok(1));
    });
}

#[test]
fn a_thread_has_its_timer_slack() {
    on_a_thread(|| {
        let default = prctl(Prctl::GetTimerSlack).unwrap();
        prctl(Prctl::SetTimerSlack(123_456)).unwrap();
        assert_eq!(prctl(Prctl::GetTimerSlack), Ok(123_456));
        prctl(Prctl::SetTimerSlack(0)).unwrap();
        assert_eq!(prctl(Prctl::GetTimerSlack), Ok(default));
    });
}

#[test]
fn a_process_has_the_properties_that_it_is_given() {
    in_process_of_its_own("a_process_has_the_properties_that_it_is_given", || {
        for dumpable in [false, true] {
            prctl(Prctl::SetDumpable(dumpable)).unwrap();
            assert_eq!(prctl(Prctl::GetDumpable), Ok(dumpable.into()));
        }
        for subreaper in [true, false] {
            let mut value = -1;
            prctl(Prctl::SetChildSubreaper(subreaper)).unwrap();
            assert_eq!(prctl(Prctl::GetChildSubreaper(&mut value)), Ok(0));
            assert_eq!(value, i32::from(subreaper));
        }
        for signal in [Signal::SIGTERM.into(), 34.into(), SignalNumber::NONE] {
            let mut number = -1;
            prctl(Prctl::SetParentDeathSignal(signal)).unwrap();
            assert_eq!(prctl(Prctl::GetParentDeathSignal(&mut number)), Ok(0));
            assert_eq!(number, signal.as_raw());
        }
        refused(prctl(Prctl::SetParentDeathSignal(65.into())), Errno::EINVAL);

        for pid in [0, -1, i32::MIN] {
            refused(prctl(Prctl::SetPtracer(Ptracer::Pid(pid))), Errno::EINVAL);
        }
        let yama = Path::new("/proc/sys/kernel/yama").exists();
        for ptracer in [Ptracer::Any, Ptracer::Pid(own_pid()), Ptracer::None] {
            match prctl(Prctl::SetPtracer(ptracer)) {
                Ok(answer) => assert_eq!((answer, yama), (0, true)),
                Err(error) => assert_eq!((error.errno(), yama), (Errno::EINVAL, false)),
            }
        }
    });
}

// Memory.

/// In a process where no other test maps anything.
#[test]
fn memory_is_read_and_written_up_to_its_edge() {
    in_process_of_its_own("memory_is_read_and_written_up_to_its_edge", || {
        let pages = mmap(None, 8192, READ_WRITE, MapFlags::PRIVATE, None).unwrap();
        let edge = pages.expose_provenance() as u64 + 4096;
        // SAFETY: the page was mapped for this.
        unsafe { munmap(pages.byte_add(4096), 4096) }.unwrap();
        access_the_end_before(edge);
    });
}

/// Where the memory that ends at the edge is the test's own.
fn access_the_end_before(edge: u64) {
    let last = |len| RemoteSlice {
        address: edge - 6,
        len,
    };
    let data = [IoSlice::new(b"0123"), IoSlice::new(b"456789")];
    let pid = own_pid();
    // SAFETY: the memory is the test's own.
    unsafe {
        assert_eq!(process_vm_writev(pid, &data, &[last(4), last(2)]), Ok(6));
        assert_eq!(process_vm_writev(pid, &data, &[last(100)]), Ok(6));
        let beyond = RemoteSlice {
            address: edge,
            len: 1,
        };
        refused(process_vm_writev(pid, &data, &[beyond]), Errno::EFAULT);
        assert_eq!(process_vm_writev(pid, &data, &[last(2), beyond]), Ok(2));
        refused(process_vm_writev(i32::MAX, &data, &[last(2)]), Errno::ESRCH);
    }

    let (mut first, mut second) = ([0; 2], [0; 100]);
    let mut local = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
    assert_eq!(process_vm_readv(pid, &mut local, &[last(100)]), Ok(6));
    assert_eq!((&first, &second[..5]), (b"01", b"2345\0".as_slice()));

    let mut here = [0; 8];
    let mut local = [IoSliceMut::new(&mut here)];
    let beyond = RemoteSlice {
        address: edge,
        len: 1,
    };
    refused(process_vm_readv(pid, &mut local, &[beyond]), Errno::EFAULT);
    assert_eq!(process_vm_readv(pid, &mut local, &[last(3), beyond]), Ok(3));
    assert_eq!(process_vm_readv(pid, &mut local, &[]), Ok(0));
    assert_eq!(process_vm_readv(pid, &mut [], &[last(3)]), Ok(0));
    refused(process_vm_readv(i32::MAX, &mut local, &[last(3)]), Errno::ESRCH);
    refused(process_vm_readv(pid, &mut local, &[last(0); 1025]), Errno::EINVAL);
    assert_eq!(process_vm_readv(pid, &mut local, &[last(0); 1024]), Ok(0));
    let endless = RemoteSlice {
        address: 0,
        len: u64::MAX,
    };
    refused(process_vm_readv(pid, &mut local, &[endless]), Errno::EINVAL);
}

// Values.

#[test]
fn errors_say_what_they_are() {
    let error = close(open(c"/dev/null", OpenFlags::PATH, NO_MODE).unwrap())
        .and_then(|()| write(no_descriptor(), b""))
        .unwrap_err();
    assert_eq!(error.to_string(), "EBADF: Bad file number");
    assert_eq!(format!("{error:?}"), "SyscallError(EBADF)");
    assert_eq!((error.errno(), error.raw_os_error()), (Errno::EBADF, libc::EBADF));
    assert_eq!(Errno::from(error), Errno::EBADF);
    assert_eq!(std::io::Error::from(error).raw_os_error(), Some(libc::EBADF));
}

/// Puts this thread under a filter with a verdict of its own on one call.
fn judge(number: i64, verdict: u32) {
    let statement = |code, k| libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    };
    let is_number = libc::sock_filter {
        jf: 1,
        ..statement(0x15, number as u32)
    };
    let allow = libc::SECCOMP_RET_ALLOW;
    let mut filter = [
        statement(0x20, 0),
        is_number,
        statement(0x06, verdict),
        statement(0x06, allow),
    ];
    let program = libc::sock_fprog {
        len: 4,
        filter: filter.as_mut_ptr(),
    };
    prctl(Prctl::SetNoNewPrivs).unwrap();
    let at = (&raw const program).expose_provenance() as i64;
    // SAFETY: the program is alive. The filter is this thread's.
    unsafe { syscall3(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER.into(), 0, at) }.unwrap();
}

#[test]
fn an_errno_without_a_name_is_kept() {
    on_a_thread(|| {
        judge(libc::SYS_getppid, libc::SECCOMP_RET_ERRNO | 512);
        // SAFETY: it touches no memory.
        let error = unsafe { syscall0(libc::SYS_getppid) }.unwrap_err();
        assert_eq!((error.errno(), error.raw_os_error()), (Errno::UnknownErrno, 512));
        assert_eq!(error.to_string(), "errno 512");
        assert_eq!(format!("{error:?}"), "SyscallError(512)");
        assert_eq!(std::io::Error::from(error).raw_os_error(), Some(512));
    });
}

/// Results that no kernel returns.
const MADE_UP: [i64; 3] = [u32::MAX as i64, -5000, i64::MIN];

extern "C" fn make_up(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes the context of the interrupted thread.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    registers[libc::REG_RAX as usize] = MADE_UP[SIGNALLED.fetch_add(1, Ordering::SeqCst) % 3];
}

/// As a supervisor of this process could make them up.
#[test]
fn a_result_that_is_no_descriptor_is_an_error() {
    in_process_of_its_own("a_result_that_is_no_descriptor_is_an_error", || {
        // SAFETY: all fields are integers or pointers, for which zero is a value.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = make_up as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: the handler changes one register, as a system call does.
        let set = unsafe { libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) };
        assert_eq!(set, 0);
        judge(libc::SYS_open, libc::SECCOMP_RET_TRAP);
        for _ in MADE_UP {
            refused(open(c"/dev/null", OpenFlags::READ_ONLY, NO_MODE), Errno::EBADF);
        }
        assert_eq!(SIGNALLED.load(Ordering::SeqCst), MADE_UP.len());
    });
}

#[test]
fn flags_are_sets_with_names() {
    let mut flags = OpenFlags::WRITE_ONLY | OpenFlags::SYNC;
    assert!(flags.contains(OpenFlags::DSYNC) && flags.contains(OpenFlags::empty()));
    assert!(!flags.contains(OpenFlags::SYNC | OpenFlags::CREATE));
    flags |= OpenFlags::CREATE;
    assert_eq!(flags.bits(), libc::O_WRONLY | libc::O_SYNC | libc::O_CREAT);
    assert_eq!(format!("{flags:?}"), "OpenFlags(WRITE_ONLY | CREATE | SYNC)");
    assert_eq!(format!("{:?}", OpenFlags::default()), "OpenFlags(READ_ONLY)");
    assert_eq!(format!("{:?}", OpenFlags::TMPFILE), "OpenFlags(TMPFILE)");
    assert_eq!(format!("{:?}", Protection::empty()), "Protection(NONE)");
    assert_eq!(format!("{:?}", READ_WRITE), "Protection(READ | WRITE)");
    assert_eq!(format!("{:?}", MapFlags::empty()), "MapFlags()");
    let both = MapFlags::SHARED | MapFlags::PRIVATE;
    assert_eq!(
        (both, format!("{both:?}")),
        (MapFlags::SHARED_VALIDATE, "MapFlags(SHARED_VALIDATE)".into())
    );
    // There is no way to it.
    assert_eq!(both.bits() & libc::MAP_FIXED, 0);
    assert_eq!(
        format!("{:?}", WaitOptions::ALL | WaitOptions::CLONE),
        "WaitOptions(ALL | CLONE)"
    );
    assert_eq!(format!("{:?}", Mode::new(u32::MAX)), "Mode(0o7777)");
}

#[test]
fn signals_are_numbers_with_names() {
    assert_eq!(SignalNumber::from(Signal::SIGKILL), 9.into());
    let text = |number: i32| format!("{:?}", SignalNumber::from(number));
    assert_eq!(text(0), "SignalNumber(NONE)");
    assert_eq!(text(9), "SignalNumber(SIGKILL)");
    assert_eq!([text(34), text(-3)], ["SignalNumber(34)", "SignalNumber(-3)"]);
}
