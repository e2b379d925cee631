//! Programs that keep whoever looks at them from it.

use std::path::Path;
use std::time::{Duration, Instant};

use asm_tracer::record::{MemoryKind, Missing, Record, Recorder};
use asm_tracer::{Command, Errno, Filter, Supervisor, Sysno};

use crate::support::stalling::stalled;
use crate::support::target::program;
use crate::support::{until, within};
use crate::{EITHER_WAY, builder, finished, record, records_of, to_channel};

const BAD: &str = r#"
#include <sys/socket.h>
#include <sys/uio.h>
int main(void) {
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(page != MAP_FAILED && !munmap(page + 4096, 4096), "a page");
    memset(page, 'a', 4096);
    char *end = page + 4090;
    syscall(SYS_access, 8L, 0);
    syscall(SYS_access, -1L, 0);
    syscall(SYS_access, 0L, 0);
    syscall(SYS_access, end, 0);
    syscall(SYS_pwrite64, 1, end, 1L << 62, 0);
    syscall(SYS_pwrite64, 1, end, -1L, 0);
    syscall(SYS_pwrite64, 1, 8L, 100, 0);
    struct iovec parts[] = { { end, 2 }, { (void *)8, 0 }, { end, -1L }, { end, 1 } };
    syscall(SYS_writev, -1, parts, 4);
    syscall(SYS_writev, -1, parts, -1L);
    syscall(SYS_writev, -1, end, 3);
    syscall(SYS_connect, -1, page, -1);
    syscall(SYS_connect, -1, page, 1 << 30);
    struct msghdr message = { .msg_name = (void *)8, .msg_namelen = 16, .msg_iov = (void *)16, .msg_iovlen = 1 };
    syscall(SYS_sendmsg, -1, &message, 0);
    syscall(SYS_sendmsg, -1, end, 0);
    return 0;
}
"#;

#[tokio::test]
async fn bad_pointers_are_recorded_as_such() {
    let calls = [
        Sysno::access,
        Sysno::pwrite64,
        Sysno::writev,
        Sysno::connect,
        Sysno::sendmsg,
    ];
    for in_place in EITHER_WAY {
        let mut command = Command::new(program("bad_pointers", BAD));
        let mut records = records_of(
            builder().buffers(8).in_place(in_place),
            &mut command,
            Filter::new().trap(calls),
        )
        .await;
        let first = records.iter().position(|record| record.args[0] == 8).unwrap();
        records.drain(..first);
        let seen = |record: &Record| {
            let parts = record.memory.iter();
            parts
                .map(|memory| (memory.bytes.len(), memory.truncated, memory.missing))
                .collect::<Vec<_>>()
        };
        let fault = Some(Missing::Fault);
        let expected: [&[_]; 14] = [
            &[(0, false, fault)],
            &[(0, false, fault)],
            &[],
            &[(0, false, fault)],
            &[(6, false, fault)],
            &[(6, false, fault)],
            &[(0, false, fault)],
            &[(8, true, None)],
            &[(0, false, Some(Missing::TooLong))],
            &[(0, false, fault)],
            &[(0, false, None)],
            &[(128, true, None)],
            &[(0, false, fault), (0, false, fault)],
            &[(0, false, fault), (0, false, fault)],
        ];
        let all: Vec<_> = records.iter().map(seen).collect();
        assert_eq!(all, expected);
    }
}

/// Looks at its page wait until it has ended. It makes calls with it until one succeeds.
const STALLS: &str = r#"
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
int main(void) {
    int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
    if (fd < 0) { syscall(SYS_access, "no permission for userfaultfd(2)", 0); return 0; }
    struct uffdio_api api = { .api = UFFD_API };
    check(!ioctl(fd, UFFDIO_API, &api), "UFFDIO_API");
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register range = { .range = { (unsigned long)page, 4096 }, .mode = UFFDIO_REGISTER_MODE_MISSING };
    check(!ioctl(fd, UFFDIO_REGISTER, &range), "UFFDIO_REGISTER");
    while (syscall(SYS_renameat2, -100, "/a/friendly/path", -100, page, 0)) { }
    return 0;
}
"#;

#[tokio::test]
async fn memory_that_stalls_holds_its_call_for_the_limit_once() {
    let limit = Duration::from_secs(1);
    let (recorder, trace) = to_channel(Recorder::builder().look_limit(limit));
    let mut supervisor = Supervisor::new();
    let mut command = Command::new(program("stalls", STALLS));
    command.filter(Filter::new().trap([Sysno::renameat2, Sysno::access]));
    let mut child = supervisor.spawn(&mut command).await.unwrap();
    let start = Instant::now();
    let mut count = 0;
    while let Some(call) = within("a call", supervisor.next()).await {
        if call.sysno() == Some(Sysno::access) {
            let why = call.read_path(call.args()[0] as u64).unwrap();
            if why.to_str().unwrap().starts_with("no permission") {
                assert!(std::env::var_os("ASM_TRACER_SKIP_NOTHING").is_none(), "{why:?}");
                eprintln!("skipped: {why:?}");
            }
            call.continue_syscall().unwrap();
            continue;
        }
        let call = recorder.begin(call).await;
        count += 1;
        match count {
            30 => call.respond(0).unwrap(),
            _ => call.error(Errno::ENOENT).unwrap(),
        };
    }
    assert!(within("the end", child.wait()).await.unwrap().success());
    if count == 0 {
        return;
    }
    // Thirty limits are half a minute.
    assert!(start.elapsed() < 10 * limit, "{:?}", start.elapsed());
    until("the thread is let go", || stalled() == 0).await;

    // The other children are looked at as ever.
    let mut other = Command::new("cat");
    crate::pass_all(
        &recorder,
        other.arg("/etc/passwd"),
        Filter::new().trap(Sysno::openat),
    )
    .await;
    let records = finished(recorder, trace).await;
    let (stalled, others) = records.split_at(count);
    for record in stalled {
        let [friendly, hostile] = &record.memory[..] else {
            panic!("{record:?}")
        };
        assert_eq!((friendly.argument, hostile.argument), (1, 3));
        assert_eq!(
            (hostile.missing, hostile.bytes.len()),
            (Some(Missing::Stalled), 0)
        );
        assert_eq!(friendly.kind, MemoryKind::Path);
    }
    // What was read before is kept, and no second look is begun.
    assert_eq!(stalled[0].paths().next(), Some(Path::new("/a/friendly/path")));
    assert!(stalled[0].held >= limit);
    assert_eq!(stalled[1].paths().next(), None);
    assert!(
        others
            .iter()
            .flat_map(Record::paths)
            .any(|path| path == "/etc/passwd")
    );
}

/// So many descriptors that there is none for a timer.
#[test]
fn a_supervisor_without_descriptors_still_serves() {
    let test = "hostile::a_supervisor_without_descriptors_still_serves";
    crate::support::in_process_of_its_own(test, || {
        crate::support::start::current_thread().block_on(async {
            let (recorder, trace) = to_channel(builder());
            let mut command = Command::new("cat");
            command.arg("/etc/passwd").stdout(asm_tracer::Stdio::null());
            command.filter(Filter::new().trap(Sysno::openat));
            let (mut child, mut listener) = command.spawn().await.unwrap();
            let mut open = Vec::new();
            while let Ok(file) = std::fs::File::open("/dev/null") {
                open.push(file);
            }
            let call = within("a call", listener.next()).await.unwrap();
            let held = within("the record", recorder.begin(call)).await;
            open.clear();
            held.continue_syscall().unwrap();
            while let Some(call) = within("a call", listener.next()).await {
                recorder.pass(call).await.unwrap();
            }
            assert!(child.wait().await.unwrap().success());
            let _ = recorder.finish().await;
            let first = record(trace.iter().next().unwrap());
            // Either it took no time, or there was no timer.
            let missing = first.memory[0].missing;
            assert!(matches!(missing, None | Some(Missing::Failed)), "{missing:?}");
        });
    });
}
