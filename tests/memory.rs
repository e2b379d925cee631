//! The memory of a frozen target: where it ends, what protects it, and what a hostile target claims about it.

mod support;

use std::os::unix::ffi::OsStrExt;

use asm_tracer::{Child, Error, Listener, Notification, RemoteSlice};
use support::target::{command, on_each_runtime};
use support::within;

/// Two pages of zeros before an unmapped one, a read-only page and an inaccessible one; told by its call.
/// If `argv[1]` is not empty, the first eight bytes must hold it after the call.
const PAGES: &str = r#"
int main(int argc, char **argv) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    char *pages = mmap(NULL, 5 * 4096, PROT_READ | PROT_WRITE, flags, -1, 0);
    check(pages != MAP_FAILED && !munmap(pages + 2 * 4096, 4096), "mmap");
    strcpy(pages + 3 * 4096, "constant");
    check(!mprotect(pages + 3 * 4096, 4096, PROT_READ), "mprotect");
    strcpy(pages + 4 * 4096, "hidden");
    check(!mprotect(pages + 4 * 4096, 4096, PROT_NONE), "mprotect");
    check(trap((long)pages, 0, 0, 0) == 1, "the answer");
    return *argv[1] && strncmp(pages, argv[1], 8) != 0;
}
"#;

const PAGE: u64 = 4096;

/// The target of [`PAGES`], frozen.
struct Target {
    child: Child,
    listener: Listener,
    call: Notification,
    /// Where the pages begin.
    pages: u64,
    /// Where the unmapped one begins.
    edge: u64,
    read_only: u64,
    hidden: u64,
}

impl Target {
    async fn new(expected: &str) -> Self {
        let (child, mut listener) = command("pages", PAGES).arg(expected).spawn().await.unwrap();
        let call = within("the call", listener.next()).await.unwrap();
        let pages = call.args()[0] as u64;
        Self {
            child,
            listener,
            call,
            pages,
            edge: pages + 2 * PAGE,
            read_only: pages + 3 * PAGE,
            hidden: pages + 4 * PAGE,
        }
    }

    /// Lets the target go on, which must find what it expects.
    async fn finish(mut self) {
        assert!(self.call.respond(1).unwrap().is_delivered());
        assert!(within("the end", self.listener.next()).await.is_none());
        assert!(self.child.wait().await.unwrap().success());
    }
}

/// Checks that an access failed at this address.
#[track_caller]
fn faulted<T: std::fmt::Debug>(outcome: Result<T, Error>, at: u64) {
    match outcome {
        Err(Error::Fault { address }) => assert_eq!(address, at),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn too_long<T: std::fmt::Debug>(outcome: Result<T, Error>, bytes: usize) {
    match outcome {
        Err(Error::TooLong { limit, .. }) => assert_eq!(limit, bytes),
        other => panic!("{other:?}"),
    }
}

// T39
#[test]
fn a_read_gives_what_there_is_before_the_edge() {
    on_each_runtime(|| async {
        let target = Target::new("").await;
        let Target { call, edge, .. } = &target;
        call.write_memory(edge - 6, b"sixth!").unwrap();
        let mut buffer = [b'.'; 256];
        assert_eq!(call.read_memory(edge - 6, &mut buffer).unwrap(), 6);
        assert_eq!(&buffer[..8], b"sixth!..");
        assert_eq!(target.child.read_memory(edge - 6, &mut buffer[100..]).unwrap(), 6);
        assert_eq!(&buffer[100..108], b"sixth!..");
        // Across pages that are there.
        let mut pages = vec![0; 3 * PAGE as usize];
        assert_eq!(
            call.read_memory(target.pages, &mut pages).unwrap(),
            2 * PAGE as usize
        );
        assert_eq!(call.read_memory(edge - 1, &mut []).unwrap(), 0);
        faulted(call.read_memory(*edge, &mut buffer), *edge);
        faulted(target.child.read_memory(*edge, &mut buffer), *edge);
        target.finish().await;
    });
}

// T39
#[test]
fn a_string_may_end_right_before_the_edge() {
    on_each_runtime(|| async {
        let target = Target::new("").await;
        let Target { call, edge, .. } = &target;
        call.write_memory(edge - 4, b"end\0").unwrap();
        assert_eq!(call.read_cstr(edge - 4, 4096).unwrap().as_bytes(), b"end");
        assert_eq!(call.read_path(edge - 4).unwrap().as_os_str(), "end");
        assert_eq!(call.read_path(edge - 1).unwrap().as_os_str(), "");
        // One byte further it has no end.
        call.write_memory(edge - 1, b"!").unwrap();
        faulted(call.read_cstr(edge - 4, 4096), *edge);
        faulted(call.read_path(edge - 4), *edge);
        // Unless nobody asks for more than there is.
        too_long(call.read_cstr(edge - 4, 4), 4);
        target.finish().await;
    });
}

#[test]
fn strings_have_a_limit_and_no_encoding() {
    on_each_runtime(|| async {
        let target = Target::new("").await;
        let Target { call, pages, .. } = &target;
        // Over the boundary of two pages.
        let address = pages + PAGE - 3;
        call.write_memory(address, b"\xff\xfe/\x80\n\0rest").unwrap();
        let bytes = b"\xff\xfe/\x80\n";
        assert_eq!(call.read_cstr(address, 6).unwrap().as_bytes(), bytes);
        assert_eq!(call.read_path(address).unwrap().as_os_str().as_bytes(), bytes);
        for limit in 0..6 {
            too_long(call.read_cstr(address, limit), limit);
        }
        // The longest path that the kernel takes, and one more byte.
        call.write_memory(*pages, &[b'x'; 4095]).unwrap();
        call.write_memory(pages + 4095, b"\0").unwrap();
        assert_eq!(call.read_path(*pages).unwrap().as_os_str().len(), 4095);
        call.write_memory(pages + 4095, b"x\0").unwrap();
        too_long(call.read_path(*pages), 4096);
        assert_eq!(call.read_cstr(*pages, 4097).unwrap().as_bytes().len(), 4096);
        target.finish().await;
    });
}

// T40
#[test]
fn page_protection_holds_for_the_supervisor_too() {
    on_each_runtime(|| async {
        let target = Target::new("").await;
        let Target {
            call,
            edge,
            read_only,
            hidden,
            ..
        } = &target;
        assert_eq!(call.read_path(*read_only).unwrap().as_os_str(), "constant");
        faulted(call.write_memory(*read_only, b"variable"), *read_only);
        assert_eq!(call.read_path(*read_only).unwrap().as_os_str(), "constant");
        faulted(call.read_memory(*hidden, &mut [0; 8]), *hidden);
        faulted(call.read_cstr(*hidden, 8), *hidden);
        faulted(call.write_memory(*hidden, b"x"), *hidden);
        // The protected page after the read-only one.
        assert_eq!(call.read_memory(hidden - 8, &mut [0; 16]).unwrap(), 8);
        // What could be written before the edge has been.
        faulted(call.write_memory(edge - 3, b"written"), *edge);
        let mut written = [0; 3];
        assert_eq!(call.read_memory(edge - 3, &mut written).unwrap(), 3);
        assert_eq!(&written, b"wri");
        target.finish().await;
    });
}

#[test]
fn values_and_vectors_are_read_whole_or_not_at_all() {
    on_each_runtime(|| async {
        let target = Target::new("").await;
        let Target {
            call, pages, edge, ..
        } = &target;
        let number = 0x0123_4567_89ab_cdef_u64;
        call.write_memory(edge - 8, &number.to_ne_bytes()).unwrap();
        assert_eq!(call.read_value::<u64>(edge - 8).unwrap(), number);
        assert_eq!(
            call.read_value::<[u32; 2]>(edge - 8).unwrap(),
            [0x89ab_cdef, 0x0123_4567]
        );
        faulted(call.read_value::<u64>(edge - 7), *edge);
        faulted(call.read_value::<[u64; 2]>(edge - 8), *edge);

        let mut entries = Vec::new();
        for word in [0x1000, 5, u64::MAX, u64::MAX - 1] {
            entries.extend(u64::to_ne_bytes(word));
        }
        call.write_memory(*pages, &entries).unwrap();
        let expected = [
            RemoteSlice {
                address: 0x1000,
                len: 5,
            },
            RemoteSlice {
                address: u64::MAX,
                len: u64::MAX - 1,
            },
        ];
        assert_eq!(call.read_iovec(*pages, 2).unwrap(), expected);
        assert_eq!(call.read_iovec(*pages, 0).unwrap(), []);
        // No more than two pages are there: 512 entries.
        assert_eq!(call.read_iovec(*pages, 512).unwrap().len(), 512);
        faulted(call.read_iovec(*pages, 513), *edge);
        faulted(call.read_iovec(*pages, 1024), *edge);
        for count in [1025, usize::MAX / 16 + 2, usize::MAX] {
            too_long(call.read_iovec(*pages, count), 1024 * 16);
        }
        target.finish().await;
    });
}

#[test]
fn the_target_sees_what_was_written() {
    on_each_runtime(|| async {
        let target = Target::new("replaced").await;
        target.call.write_memory(target.pages, b"replaced").unwrap();
        target.call.write_memory(target.pages, b"").unwrap();
        target.finish().await;
    });
}

// Nothing that a target claims makes its supervisor panic, wrap around or allocate without a bound.
#[test]
fn hostile_addresses_are_faults() {
    on_each_runtime(|| async {
        let target = Target::new("").await;
        let call = &target.call;
        let kernel = 0xffff_8000_0000_0000;
        let hostile = [
            0,
            1,
            4095,
            1 << 47,
            (1 << 47) - 1,
            1 << 63,
            kernel,
            u64::MAX - 4095,
            u64::MAX - 1,
            u64::MAX,
        ];
        for address in hostile {
            let mut buffer = vec![0; 8192];
            faulted(call.read_memory(address, &mut buffer), address);
            faulted(target.child.read_memory(address, &mut buffer), address);
            faulted(call.write_memory(address, &buffer), address);
            for limit in [1, 4096, 1 << 20, usize::MAX] {
                faulted(call.read_cstr(address, limit), address);
            }
            faulted(call.read_path(address), address);
            faulted(call.read_value::<[u64; 8]>(address), address);
            faulted(call.read_iovec(address, 1024), address);
            too_long(call.read_iovec(address, usize::MAX), 1024 * 16);
        }
        target.finish().await;
    });
}

// T42
#[test]
fn the_memory_of_a_killed_target_is_gone() {
    on_each_runtime(|| async {
        let mut target = Target::new("").await;
        target.child.kill().await.unwrap();
        let Target {
            call, pages, child, ..
        } = &target;
        assert!(matches!(call.read_memory(*pages, &mut [0; 8]), Err(Error::Gone)));
        assert!(matches!(call.read_cstr(*pages, 8), Err(Error::Gone)));
        assert!(matches!(call.read_path(*pages), Err(Error::Gone)));
        assert!(matches!(call.read_value::<u64>(*pages), Err(Error::Gone)));
        assert!(matches!(call.read_iovec(*pages, 1), Err(Error::Gone)));
        assert!(matches!(call.write_memory(*pages, b"x"), Err(Error::Gone)));
        assert!(matches!(child.read_memory(*pages, &mut [0; 8]), Err(Error::Gone)));
    });
}
