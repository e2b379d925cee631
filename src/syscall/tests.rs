#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::errno::Errno;

use super::error::SyscallError;
use super::pointer;
use super::raw::*;

#[test]
fn each_stub_puts_every_argument_in_its_place() {
    let file = std::env::temp_dir().join(format!("asm_tracer-stub-{}", std::process::id()));
    std::fs::write(&file, "0123456789").unwrap();
    let path = std::ffi::CString::new(file.to_str().unwrap()).unwrap();
    let path = pointer(path.as_ptr());
    // SAFETY: every pointer is valid for its call, and every descriptor and mapping is one of this test's own.
    unsafe {
        assert_eq!(raw_syscall0(libc::SYS_getpid), i64::from(std::process::id()));
        assert_eq!(raw_syscall1(libc::SYS_close, -1), -i64::from(libc::EBADF));
        assert_eq!(raw_syscall2(libc::SYS_access, path, libc::R_OK.into()), 0);
        let at = libc::AT_FDCWD.into();
        let fd = raw_syscall4(libc::SYS_openat, at, path, libc::O_RDONLY.into(), 0);
        assert_eq!(raw_syscall3(libc::SYS_lseek, fd, 3, libc::SEEK_SET.into()), 3);
        let mut buffer = [0_u8; 4];
        let read = raw_syscall4(libc::SYS_pread64, fd, pointer(&raw mut buffer), 2, 5);
        assert_eq!((read, &buffer), (2, b"56\0\0"));
        // 5: flags select the xattr-free form of statx; its fifth argument is where the result goes.
        let mut statx = [0_u8; 256];
        let mask = libc::STATX_SIZE.into();
        assert_eq!(
            raw_syscall5(libc::SYS_statx, at, path, 0, mask, pointer(&raw mut statx)),
            0
        );
        assert_eq!(u64::from_ne_bytes(statx[40..48].try_into().unwrap()), 10);
        // 6: the offset is the sixth argument of mmap.
        let (access, flags) = (libc::PROT_READ.into(), libc::MAP_PRIVATE.into());
        assert_eq!(
            raw_syscall6(libc::SYS_mmap, 0, 4096, access, flags, fd, 1),
            -i64::from(libc::EINVAL)
        );
        let map = raw_syscall6(libc::SYS_mmap, 0, 4096, access, flags, fd, 0);
        assert_eq!(*(map as *const [u8; 10]), *b"0123456789");
        assert_eq!(raw_syscall2(libc::SYS_munmap, map, 4096), 0);
        assert_eq!(raw_syscall1(libc::SYS_close, fd), 0);
    }
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_failing_call_leaves_errno_alone() {
    // SAFETY: `errno` is this thread's own, and closing no descriptor does nothing.
    unsafe {
        *libc::__errno_location() = 12345;
        assert_eq!(raw_syscall1(libc::SYS_close, -1), -i64::from(libc::EBADF));
        assert_eq!(*libc::__errno_location(), 12345);
    }
}

#[test]
fn only_the_last_page_of_the_results_is_errors() {
    for result in [
        0,
        1,
        i64::MAX,
        i64::MIN,
        i64::MIN + 1,
        -4096,
        -4097,
        -65_537,
        -(1 << 32) - 1,
    ] {
        assert_eq!(SyscallError::check(result), Ok(result));
    }
    for errno in 1..=4095 {
        let error = SyscallError::check(-i64::from(errno)).unwrap_err();
        assert_eq!(error.raw_os_error(), errno);
        assert_eq!(error.errno(), Errno::from_raw(errno));
        assert_eq!(Errno::from(error), Errno::from_raw(errno));
        assert_eq!(std::io::Error::from(error).raw_os_error(), Some(errno));
    }
}

#[test]
fn errors_say_their_names_or_their_numbers() {
    let error = |errno: i32| SyscallError::check(-i64::from(errno)).unwrap_err();
    assert_eq!(error(libc::EBADF).to_string(), "EBADF: Bad file number");
    assert_eq!(format!("{:?}", error(libc::EBADF)), "SyscallError(EBADF)");
    // The kernel's own ERESTARTSYS, which tracers see.
    assert_eq!(error(512).to_string(), "errno 512");
    assert_eq!(format!("{:?}", error(512)), "SyscallError(512)");
    assert_eq!(error(512).errno(), Errno::UnknownErrno);
    assert_eq!(SyscallError::INVALID_ARGUMENT, error(libc::EINVAL));
}

struct Shared {
    written: AtomicUsize,
    alignment: AtomicUsize,
}

extern "C" fn entry(shared: *mut c_void) -> ! {
    let here = 0_u128;
    // SAFETY: the test keeps it until the child has exited.
    let shared = unsafe { &*shared.cast::<Shared>() };
    shared
        .alignment
        .store((&raw const here).addr() % align_of::<u128>(), Ordering::SeqCst);
    shared.written.store(4711, Ordering::SeqCst);
    loop {
        // SAFETY: ends this child.
        unsafe { raw_syscall1(libc::SYS_exit_group, 42) };
    }
}

#[test]
fn a_cloned_child_shares_memory_and_has_its_own_aligned_stack() {
    let shared = Shared {
        written: AtomicUsize::new(0),
        alignment: AtomicUsize::new(1),
    };
    let mut stack = vec![0_u128; 4096];
    let top = stack.as_mut_ptr_range().end.cast::<u8>();
    let (mut pidfd, mut status) = (-1, 0);
    let flags = (libc::CLONE_VM | libc::CLONE_PIDFD | libc::SIGCHLD) as usize;
    // SAFETY: stack and argument live until the child has been waited for; it makes system calls only. The signals
    // of a test process are never handled.
    unsafe {
        let pid = clone(
            flags,
            top,
            &raw mut pidfd,
            entry,
            (&raw const shared).cast_mut().cast(),
        );
        assert!(pid > 0 && pidfd > 2, "{pid} {pidfd}");
        assert_eq!(libc::waitpid(pid as i32, &raw mut status, 0), pid as i32);
        libc::close(pidfd);
    }
    assert!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 42,
        "{status:#x}"
    );
    assert_eq!(shared.written.load(Ordering::SeqCst), 4711);
    assert_eq!(shared.alignment.load(Ordering::SeqCst), 0);
}

fn fnv1a(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[test]
fn the_generated_text_is_that_of_the_sources() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("asm");
    let mut sources = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let source = entry.unwrap().path();
        if source.extension().is_some_and(|extension| extension == "asm") {
            sources += 1;
            let name = source.file_stem().unwrap().to_str().unwrap();
            let text = std::fs::read_to_string(directory.join(format!("generated/{name}.s"))).unwrap();
            let hash = format!(
                "# source-fnv1a: {:016x}\n",
                fnv1a(&std::fs::read(&source).unwrap())
            );
            assert!(
                text.contains(&hash),
                "asm/generated/{name}.s is stale: run asm/generate"
            );
        }
    }
    assert_eq!(
        sources,
        std::fs::read_dir(directory.join("generated")).unwrap().count()
    );
}
