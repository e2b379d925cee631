//! Targets whose memory stalls whoever reads it.

use asm_tracer::{Command, Notification, Sysno};

use super::target::{command, threads, waits_in};

/// Has a page behind which there is another process (`userfaultfd` or a file of a FUSE that it mounts over its own
/// program), which never serves it and ends with an `h` or the end of its standard input. Makes a call with the page's
/// address and the pid of that process, or with zero and the reason why there is no such page. It succeeds if the
/// answer is 1.
const STALLING: &str = r#"
#include <linux/fuse.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>

static void give_up(const char *why) {
    trap(0, (long)why, 0, 0);
    exit(0);
}

static void *fault_page(int *fd) {
    *fd = syscall(SYS_userfaultfd, O_CLOEXEC);
    if (*fd < 0) give_up("no permission for userfaultfd(2)");
    struct uffdio_api api = { .api = UFFD_API };
    check(!ioctl(*fd, UFFDIO_API, &api), "UFFDIO_API");
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register range = { .range = { (unsigned long)page, 4096 }, .mode = UFFDIO_REGISTER_MODE_MISSING };
    check(!ioctl(*fd, UFFDIO_REGISTER, &range), "UFFDIO_REGISTER");
    return page;
}

static int mount_file(const char *over) {
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fd < 0) give_up("no /dev/fuse");
    if (unshare(CLONE_NEWNS)) give_up("no right to make a mount namespace");
    check(!mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), "a private tree");
    char options[100];
    snprintf(options, sizeof options, "fd=%d,rootmode=100000,user_id=0,group_id=0", fd);
    if (mount("stalling", over, "fuse", MS_NOSUID | MS_NODEV, options)) give_up("no right to mount a FUSE");
    return fd;
}

static void reply(int fd, uint64_t unique, int error, const void *data, size_t length) {
    static struct { struct fuse_out_header header; char data[512]; } out;
    out.header = (struct fuse_out_header) { sizeof out.header + length, error, unique };
    if (length) memcpy(out.data, data, length);
    check(write(fd, &out, out.header.len) == (ssize_t)out.header.len, "a reply");
}

/* Everything but the contents of the one file that there is. */
static void serve(int fd) {
    static struct { struct fuse_in_header header; char data[1 << 17]; } in;
    check(read(fd, &in, sizeof in) >= (ssize_t)sizeof in.header, "a request");
    struct fuse_init_out init = { .major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION,
        .flags = FUSE_ASYNC_READ, .max_readahead = 4096, .max_write = 4096 };
    struct fuse_attr_out attributes = { .attr_valid = 1000,
        .attr = { .ino = 1, .size = 4096, .mode = S_IFREG | 0600, .nlink = 1, .blksize = 4096 } };
    struct fuse_open_out opened = { .fh = 1 };
    switch (in.header.opcode) {
    case FUSE_INIT: return reply(fd, in.header.unique, 0, &init, sizeof init);
    case FUSE_GETATTR: return reply(fd, in.header.unique, 0, &attributes, sizeof attributes);
    case FUSE_OPEN: return reply(fd, in.header.unique, 0, &opened, sizeof opened);
    case FUSE_READ: case FUSE_INTERRUPT: case FUSE_FORGET: case FUSE_RELEASE: return;
    default: return reply(fd, in.header.unique, -ENOSYS, NULL, 0);
    }
}

int main(int argc, char **argv) {
    int fuse = argv[1][0] == 'F', fd;
    void *page = NULL;
    if (fuse) fd = mount_file(argv[0]);
    else page = fault_page(&fd);
    pid_t helper = fork();
    if (helper == 0) {
        for (;;) {
            struct pollfd events[2] = { { .fd = 0, .events = POLLIN }, { .fd = fuse ? fd : -1, .events = POLLIN } };
            check(poll(events, 2, -1) > 0, "poll");
            int word = events[0].revents ? told() : 's';
            if (word == 0 || word == 'h') _exit(0);
            if (events[1].revents) serve(fd);
        }
    }
    close(fd);
    if (fuse) {
        int file = open(argv[0], O_RDONLY);
        struct stat known;
        check(file >= 0 && !fstat(file, &known) && known.st_size == 4096, "the file");
        page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, file, 0);
        check(page != MAP_FAILED, "mmap");
    }
    return trap((long)page, helper, 0, 0) != 1;
}
"#;

/// What is behind the memory.
pub(crate) const KINDS: [&str; 2] = ["userfaultfd", "FUSE"];

/// The program with such a page.
pub(crate) fn stalling(kind: &str) -> Command {
    let mut command = command("stalling", STALLING);
    command.arg(kind);
    command
}

/// Where the page is, and the pid of what is behind it. `None` if there is none here, for which the reason is printed.
pub(crate) fn page_of(call: &Notification) -> Option<(u64, u32)> {
    let [page, other, ..] = call.args();
    if page != 0 {
        return Some((page as u64, other as u32));
    }
    let why = call.read_cstr(other as u64, 100).unwrap();
    // CI is to have whatever a machine can be given; a device that the kernel lacks is none of that.
    let may_lack = std::env::var_os("ASM_TRACER_SKIP_NOTHING").is_none() || why.as_bytes() == b"no /dev/fuse";
    assert!(may_lack, "{why:?}");
    eprintln!("skipped: {why:?}");
    None
}

/// The threads of this process that look at targets.
pub(crate) fn lookers() -> Vec<u32> {
    let mut threads = threads(std::process::id());
    threads.retain(|tid| {
        let name = std::fs::read_to_string(format!("/proc/self/task/{tid}/comm"));
        name.is_ok_and(|name| name == "asm_tracer-look\n")
    });
    threads
}

/// How many of them wait for memory.
pub(crate) fn stalled() -> usize {
    let lookers = lookers().into_iter();
    lookers
        .filter(|tid| waits_in(*tid, Sysno::process_vm_readv))
        .count()
}
