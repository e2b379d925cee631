//! Memory that stalls its reader holds up nobody else.

mod support;

use std::path::Path;
use std::sync::Arc;

use support::target::{adopt_orphans, command, on_each_runtime, orphan_end};
use support::{until, until_blocking, within};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

/// Has a page whose readers wait for another process, which never serves them and ends with its standard input.
const STALLING: &str = r#"
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
int main(void) {
    int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
    if (fd < 0) { puts("no"); return 0; }
    struct uffdio_api api = { .api = UFFD_API };
    check(!ioctl(fd, UFFDIO_API, &api), "UFFDIO_API");
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register range = { .range = { (unsigned long)page, 4096 }, .mode = UFFDIO_REGISTER_MODE_MISSING };
    check(!ioctl(fd, UFFDIO_REGISTER, &range), "UFFDIO_REGISTER");
    pid_t helper = fork();
    if (helper == 0) {
        for (int word; (word = told()) && word != 'h'; ) { }
        _exit(0);
    }
    printf("%lu %d\n", (unsigned long)page, (int)helper);
    fflush(stdout);
    struct uffd_msg fault;
    check(read(fd, &fault, sizeof fault) == sizeof fault, "the fault");
    return 0;
}
"#;

/// Runs on a thread of its own, so that a runtime that is blocked fails the test and doesn't hang it.
fn unless_blocked(body: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(body);
    until_blocking("the runtime has got on", || thread.is_finished());
    thread.join().unwrap();
}

#[test]
fn a_stalled_read_of_a_child_blocks_neither_the_listener_nor_the_child() {
    adopt_orphans();
    unless_blocked(|| on_each_runtime(stalled_read));
}

async fn stalled_read() {
    let (mut child, mut listener) = command("stalling", STALLING).spawn().await.unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = within("a line", lines.next_line()).await.unwrap().unwrap();
    let Some((address, helper)) = line.split_once(' ') else {
        eprintln!("skipped: no permission for userfaultfd(2)");
        return;
    };
    let (address, helper): (u64, u32) = (address.parse().unwrap(), helper.parse().unwrap());
    let status = format!("/proc/{}", child.id().unwrap());
    let child = Arc::new(child);
    let reader = std::thread::spawn({
        let child = Arc::clone(&child);
        move || child.read_memory(address, &mut [0; 8])
    });
    // The program ends as soon as somebody reads, and its listener reaps it, while the helper lives on.
    let serving = tokio::spawn(async move { assert!(listener.next().await.is_none()) });
    until("the child is reaped", || !Path::new(&status).exists()).await;
    assert_eq!(child.id(), None);
    assert!(!reader.is_finished());
    stdin.write_all(b"h").await.unwrap();
    within("the end", serving).await.unwrap();
    orphan_end(helper);
    until("the read has ended", || reader.is_finished()).await;
    assert!(matches!(reader.join().unwrap(), Err(asm_tracer::Error::Gone)));
}
