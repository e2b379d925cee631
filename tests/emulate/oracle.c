/* Makes a tree in its directory, then opens of every kind in it, and prints what came of each. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define TMPFILE 020000000

static void check(int holds, const char *what) {
    if (!holds) { perror(what); exit(101); }
}

struct how { uint64_t flags, mode, resolve; };

static char here[4096], pid[32];
static const char *known[] = { ".", "dir", "dir/sub", "dir/file", "file", "fifo", "socket", "/", "/dev/null",
    "dir/up", "link", "locked", "sticky", "sticky/file", "sub\xff\n" };
static struct stat known_stat[COUNT(known)];

/* What changes from run to run is replaced. */
static void print_text(const char *text) {
    size_t length = strlen(here);
    while (*text) {
        if (length > 1 && !strncmp(text, here, length)) { printf("HERE"); text += length; }
        else if (!strncmp(text, pid, strlen(pid)) && text[-1] == '/') { printf("PID"); text += strlen(pid); }
        else if (*text == '[' || *text == '#') { printf("%c...", *text); return; }
        else if (*text < ' ' || *text > '~') { printf("\\x%02x", (unsigned char)*text++); }
        else putchar(*text++);
    }
}

static void print_object(int fd) {
    struct stat stat;
    check(!fstat(fd, &stat), "fstat");
    printf("mode %o size %ld dev %x", stat.st_mode, S_ISREG(stat.st_mode) ? (long)stat.st_size : 0,
        S_ISCHR(stat.st_mode) ? (unsigned)stat.st_rdev : 0);
    int flags = fcntl(fd, F_GETFL);
    printf(" flags %o cloexec %d", flags & ~O_NOFOLLOW, fcntl(fd, F_GETFD));
    for (size_t i = 0; i < COUNT(known); i++)
        if (known_stat[i].st_ino == stat.st_ino && known_stat[i].st_dev == stat.st_dev) {
            printf(" is "); print_text(known[i]); return;
        }
    char name[64], text[8192] = { 0 };
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    if (readlink(name, text + 1, sizeof text - 2) > 0) { printf(" at "); print_text(text + 1); }
}

static void tidy(void) {
    static const char *made[] = { "new", "dir/new", "dir/sub/new", "target", "made\xff", "sticky/new" };
    for (size_t i = 0; i < COUNT(made); i++) unlink(made[i]);
    check(!truncate("file", 4) && !truncate("dir/file", 4), "truncate");
}

/* What a process may do to its own files in /proc, and what comes first where two things are wrong, is not the same for
   another process without privileges. Both fail. */
static int unlike(const char *path, int flags) {
    return (strstr(path, "/fd") && flags & TMPFILE) || (!strcmp(path, "/dev/tty") && flags & O_NOATIME);
}

static int calls;
static void report(const char *name, long dirfd, const char *path, const struct how *how, long result) {
    int error = errno;
    calls++;
    printf("%s(%ld, ", name, (long)(int)dirfd);
    if (path) { if (strlen(path) > 100) printf("%zu bytes", strlen(path)); else print_text(path); }
    printf(", %lo, %lo, %lx) = ", (long)how->flags, (long)how->mode, (long)how->resolve);
    if (result < 0) printf("%s\n", strerrorname_np(error));
    else { print_object(result); printf("\n"); close(result); }
    tidy();
}

static void openat_(long dirfd, const char *path, long flags, long mode) {
    struct how how = { flags, mode, 0 };
    report("openat", dirfd, path, &how, syscall(SYS_openat, dirfd, path, flags, mode));
}
static void openat2_(long dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve) {
    struct how how = { flags, mode, resolve };
    long result;
    /* A rename anywhere in the system makes the kernel give up where it must not leave a directory. */
    do result = syscall(SYS_openat2, dirfd, path, &how, sizeof how); while (result == -1 && errno == EAGAIN);
    report("openat2", dirfd, path, &how, result);
}

static void make_tree(void) {
    struct sockaddr_un address = { AF_UNIX, "socket" };
    check(!mkdir("dir", 0755) && !mkdir("dir/sub", 0755) && !mkdir("locked", 0) && !mkdir("sub\xff\n", 0755), "mkdir");
    check(!mkdir("sticky", 0) && !chmod("sticky", 01777), "mkdir");
    check(!mknod("file", S_IFREG | 0644, 0) && !mknod("dir/file", S_IFREG | 0600, 0), "mknod");
    check(!mknod("sticky/file", S_IFREG | 0666, 0), "mknod");
    check(!truncate("file", 4) && !truncate("dir/file", 4), "truncate");
    check(!mkfifo("fifo", 0644), "mkfifo");
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    check(fd >= 0 && !bind(fd, (void *)&address, sizeof address) && !close(fd), "bind");
    static const char *links[][2] = {
        { "file", "link" }, { "dir", "dirlink" }, { "dir/", "dirlink_slash" }, { "nothing", "dangling" },
        { "target", "maker" }, { "dir/new", "maker2" }, { "loop", "loop" }, { "pong", "ping" }, { "ping", "pong" },
        { "..", "dir/up" }, { "../file", "dir/upfile" }, { "/", "rootlink" }, { "/dev/null", "nulllink" },
        { ".", "selflink" }, { "link", "link2" }, { "dirlink/../link2", "link3" }, { "file/", "filelink_slash" },
        { "/proc/self/cwd/file", "proclink" }, { "/proc/self", "proc_self" }, { "../../../../../..", "dir/sub/top" },
        { "dir/sub/../up/dir", "windy" }, { "new/", "maker_slash" }, { "//dev///null", "slashes" },
        { "../sticky/file", "sticky/link" }, { "socket", "socketlink" }, { "fifo", "fifolink" },
    };
    for (size_t i = 0; i < COUNT(links); i++) check(!symlink(links[i][0], links[i][1]), links[i][1]);
    /* What others put where everybody may: see fs.protected_symlinks and its siblings. */
    check(!mkdir("shared", 0) && !chmod("shared", 01770), "mkdir");
    static const char *places[] = { "sticky", "shared" };
    for (int i = 0; i < 2; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s/theirs", places[i]);
        check(!mknod(name, S_IFREG | 0666, 0), "mknod");
        if (chown(name, 65534, 65534)) check(errno == EPERM, name);
        snprintf(name, sizeof name, "%s/their_fifo", places[i]);
        check(!mkfifo(name, 0666), "mkfifo");
        if (chown(name, 65534, 65534)) check(errno == EPERM, name);
        snprintf(name, sizeof name, "%s/their_link", places[i]);
        check(!symlink("../file", name), "symlink");
        if (lchown(name, 65534, 65534)) check(errno == EPERM, name);
    }
    /* Forty links can be followed, and no more. */
    char from[32], to[32];
    check(!symlink("file", "chain1"), "symlink");
    for (int i = 2; i <= 42; i++) {
        snprintf(from, sizeof from, "chain%d", i);
        snprintf(to, sizeof to, "chain%d", i - 1);
        check(!symlink(to, from), "symlink");
    }
}

int main(int argc, char **argv) {
    setsid();
    umask(022);
    check(getcwd(here, sizeof here) != NULL, "getcwd");
    /* As the procfs here numbers it. */
    check(readlink("/proc/self", pid, sizeof pid - 1) > 0, "/proc/self");
    make_tree();
    for (size_t i = 0; i < COUNT(known); i++) lstat(known[i], &known_stat[i]);

    /* So that nobody waits for the other end. */
    int fifo = syscall(SYS_open, "fifo", O_RDWR);
    int dir = syscall(SYS_open, "dir", O_RDONLY | O_DIRECTORY);
    int pathdir = syscall(SYS_open, "dir", O_PATH);
    int file = syscall(SYS_open, "file", O_RDWR);
    int pathlink = syscall(SYS_open, "link", O_PATH | O_NOFOLLOW);
    check(fifo >= 0 && dir >= 0 && pathdir >= 0 && file >= 0 && pathlink >= 0, "open");
    int ends[2];
    check(!pipe(ends), "pipe");
    check(dup2(dir, 50) == 50 && dup2(file, 51) == 51 && dup2(ends[0], 52) == 52 && dup2(pathdir, 53) == 53
        && dup2(fifo, 54) == 54 && dup2(pathlink, 55) == 55, "dup2");

    static char component[257], longest[4200], whole[4097], deep[4096];
    memset(component, 'c', 256);
    memset(whole, 'x', 4096);
    for (int i = 0; i < 2047; i++) memcpy(longest + 2 * i, "./", 2);
    for (int i = 0; i < 1000; i++) memcpy(deep + 4 * i, "dir/", 2), memcpy(deep + 4 * i, "./..", 4);
    char fits[4097];
    memcpy(fits, longest, 4090); memcpy(fits + 4090, "file", 5);

    const char *paths[] = {
        "file", "./file", ".//file", "dir/../file", "dir/file", "dir/sub/../file", "dir/sub/../../file", "file/", "file/.",
        "file/..", "file/x", "nothing", "nothing/", "nothing/x", "nothing/..", "dir", "dir/", "dir/.", "dir/..", ".", "..",
        "./", "/", "//", "/.", "/..", "/../..", "", "new", "new/", "dir/new", "dirlink/new", "link", "link/", "link2",
        "link3", "dirlink", "dirlink/", "dirlink/.", "dirlink/file", "dirlink_slash", "dirlink_slash/file", "dangling",
        "dangling/", "maker", "maker2", "maker_slash", "loop", "loop/", "loop/x", "ping", "dir/up", "dir/up/file",
        "dir/upfile", "rootlink", "rootlink/dev/null", "nulllink", "slashes", "selflink", "selflink/selflink/file",
        "filelink_slash", "proclink", "dir/sub/top", "dir/sub/top/dev/null", "windy", "windy/file", "chain1", "chain39",
        "chain40", "chain41", "chain42", "socket", "socketlink", "fifo", "fifolink", "/dev/null", "/dev/zero", "/dev/tty",
        "/dev/full/x", "locked", "locked/x", "sub\xff\n", "sub\xff\n/nothing", "made\xff", component, "dir/../nothing/../file",
        longest, whole, fits, deep, "sticky/file", "sticky/link", "sticky/new", "sticky/theirs",
        "sticky/their_link", "sticky/their_link/x", "shared/theirs", "shared/their_link",
        "/proc/self", "/proc/self/", "/proc/self/status", "/proc/thread-self", "/proc/thread-self/comm", "/proc/mounts",
        "/proc/net", "/proc/net/dev", "/proc/self/fd", "/proc/self/fd/50", "/proc/self/fd/50/file", "/proc/self/fd/50/",
        "/proc/self/fd/50/..", "/proc/self/fd/51", "/proc/self/fd/51/", "/proc/self/fd/51/x", "/proc/self/fd/53",
        "/proc/self/fd/53/file", "/proc/self/fd/54", "/proc/self/fd/55", "/proc/self/fd/99", "/proc/self/exe",
        "/proc/self/cwd", "/proc/self/cwd/file", "/proc/self/root", "/proc/self/root/dev/null", "/proc/self/ns/mnt",
        "/proc/self/task", "/proc/self/comm", "/dev/fd", "/dev/fd/51", "/dev/fd/50/sub", "proc_self/cwd/dir/file",
        "proc_self/fd/51", "/proc/self/../self/comm", "/proc/1/comm", "/proc/sys/kernel/ostype", "/proc/version",
        "/proc/self/mem", "/proc/self/maps",
    };
    static const int flags[] = {
        O_RDONLY, O_WRONLY, O_RDWR, 3, O_RDONLY | O_CLOEXEC, O_WRONLY | O_TRUNC, O_RDONLY | O_TRUNC, O_RDWR | O_APPEND,
        O_RDONLY | O_NOFOLLOW, O_WRONLY | O_NOFOLLOW, O_RDONLY | O_DIRECTORY, O_RDONLY | O_DIRECTORY | O_NOFOLLOW,
        O_WRONLY | O_DIRECTORY, O_PATH, O_PATH | O_NOFOLLOW, O_PATH | O_DIRECTORY, O_PATH | O_DIRECTORY | O_NOFOLLOW,
        O_PATH | O_CREAT | O_RDWR, O_PATH | O_CLOEXEC | O_TRUNC, O_WRONLY | O_CREAT, O_RDONLY | O_CREAT,
        O_RDWR | O_CREAT | O_EXCL, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, O_RDWR | O_CREAT | O_NOFOLLOW,
        O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, O_RDONLY | O_CREAT | O_DIRECTORY, O_TMPFILE | O_RDWR,
        O_TMPFILE | O_WRONLY | O_EXCL, O_TMPFILE | O_RDONLY, TMPFILE | O_RDWR, O_TMPFILE | O_CREAT | O_RDWR,
        O_RDONLY | O_NONBLOCK, O_RDWR | O_SYNC | O_NOATIME, O_RDONLY | O_DSYNC | O_NOCTTY, O_WRONLY | O_DIRECT | O_ASYNC,
        O_RDONLY | O_EXCL, O_RDWR | (1 << 30),
    };
    /* All of them, or every so manieth. */
    size_t step = argc > 1 ? atoi(argv[1]) : 1, number = 0;
    for (size_t i = 0; i < COUNT(paths); i++)
        for (size_t j = 0; j < COUNT(flags); j++)
            if (number++ % step == 0 && !unlike(paths[i], flags[j])) openat_(AT_FDCWD, paths[i], flags[j], 0640);

    /* Where relative paths begin. The upper half of an int is anything. */
    const long dirty = (long)0xdeadbeef00000000;
    const long dirs[] = { AT_FDCWD, dirty | (AT_FDCWD & 0xffffffffL), dir, dirty | dir, pathdir, file, ends[0], fifo, pathlink, 99, -1,
        -2, INT32_MAX, INT32_MIN };
    const char *from_dirs[] = { "file", "sub", "../file", ".", "..", "", "/dev/null", "up", "new", "nothing/x", "/nothing" };
    for (size_t i = 0; i < COUNT(dirs); i++)
        for (size_t j = 0; j < COUNT(from_dirs); j++) {
            openat_(dirs[i], from_dirs[j], O_RDONLY, 0);
            /* Nothing is made outside of this directory. */
            int outside = *from_dirs[j] == '/' || ((int)dirs[i] == AT_FDCWD && !strncmp(from_dirs[j], "../", 3));
            openat_(dirs[i], from_dirs[j], dirty | (outside ? 0 : O_CREAT) | O_WRONLY, dirty | 0600);
            openat2_(dirs[i], from_dirs[j], O_PATH, 0, 0);
        }

    /* Without waiting, or for both ends. */
    static const int fifo_flags[] = { O_RDWR, O_RDWR | O_CREAT, O_RDONLY | O_NONBLOCK, O_RDONLY | O_NONBLOCK | O_CREAT, O_PATH,
        O_WRONLY | O_NONBLOCK, O_WRONLY | O_NONBLOCK | O_CREAT };
    for (size_t i = 0; i < COUNT(fifo_flags); i++) {
        openat_(AT_FDCWD, "sticky/their_fifo", fifo_flags[i], 0600);
        openat_(AT_FDCWD, "shared/their_fifo", fifo_flags[i], 0600);
    }

    static const int masks[] = { 0, 022, 027, 077, 0777, 0111 };
    static const int modes[] = { 0, 0777, 0666, 04755, 02711, 01777, 07777, 0170000 | 0644, ~0 };
    for (size_t i = 0; i < COUNT(masks); i++)
        for (size_t j = 0; j < COUNT(modes); j++) {
            struct how how = { masks[i], modes[j], 0 };
            umask(masks[i]);
            openat_(AT_FDCWD, "new", O_CREAT | O_RDWR, modes[j]);
            openat_(dir, "new", O_CREAT | O_EXCL | O_WRONLY, modes[j]);
            openat_(AT_FDCWD, "maker2", O_CREAT | O_WRONLY, modes[j]);
            openat_(AT_FDCWD, "dir", O_TMPFILE | O_RDWR, modes[j]);
            openat2_(AT_FDCWD, "new", O_CREAT | O_RDWR, modes[j], 0);
            report("creat", 0, "new", &how, syscall(SYS_creat, "new", dirty | modes[j]));
            report("creat", 0, "file", &how, syscall(SYS_creat, "file", modes[j]));
            report("open", 0, "new", &how, syscall(SYS_open, "new", O_CREAT | O_WRONLY, modes[j]));
            report("open", 0, "link", &how, syscall(SYS_open, "link", O_RDONLY, modes[j]));
        }
    umask(022);

    /* openat2(2) */
    static const uint64_t resolve[] = { 0, 1, 2, 4, 8, 16, 24, 5, 6, 9, 10, 12, 18, 20, 64, 128, 1ull << 32, 1ull << 63 };
    const char *resolved[] = {
        "file", "dir/file", "dir/../file", "dir/sub/../../file", "..", "../..", "dir/../..", "dir/../../x", "/", "/file", "/dir/file",
        "/dev/null", "/../file", "link", "link/", "dirlink/file", "dir/up", "dir/up/file", "dir/upfile", "rootlink",
        "rootlink/file", "rootlink/dev/null", "nulllink", "dir/sub/top", "dir/sub/top/file", "loop", "dangling", "proclink",
        "/proc/self", "/proc/self/status", "/proc/self/fd/51", "/proc/self/cwd/file", "/proc/self/exe", "/proc", "/dev/fd/51",
        "new", "dir/new", "/new", "maker", "maker2", "chain40", "chain41", ".", "windy", "selflink/dir/../file", "nothing/..",
    };
    static const uint64_t open_flags[] = { O_RDONLY, O_PATH, O_PATH | O_NOFOLLOW, O_WRONLY | O_CREAT, O_RDONLY | O_NOFOLLOW };
    for (size_t i = 0; i < COUNT(resolved); i++)
        for (size_t j = 0; j < COUNT(resolve); j++)
            for (size_t k = 0; k < COUNT(open_flags); k++) {
                /* Nothing is made outside of this directory. */
                int outside = *resolved[i] == '/' || strstr(resolved[i], "root") || strstr(resolved[i], "top")
                    || strstr(resolved[i], "../..");
                if ((open_flags[k] & O_CREAT && outside && !(resolve[j] & 24)) || number++ % step) continue;
                openat2_(AT_FDCWD, resolved[i], open_flags[k], open_flags[k] & O_CREAT ? 0640 : 0, resolve[j]);
                openat2_(dir, resolved[i], open_flags[k], open_flags[k] & O_CREAT ? 0640 : 0, resolve[j]);
            }
    static const uint64_t odd[][2] = { { O_RDONLY, 0640 }, { O_CREAT | O_RDWR, 0100640 }, { O_CREAT | O_RDWR, 1ull << 40 },
        { 1ull << 32, 0 }, { 1ull << 63, 0 }, { 1 << 30, 0 }, { O_PATH | O_RDWR, 0 }, { O_PATH | O_CREAT, 0640 },
        { O_TMPFILE | O_RDWR, 0600 }, { TMPFILE, 0600 }, { O_DIRECTORY | O_CREAT, 0600 }, { O_CLOEXEC, 0 }, { 3, 0 },
        { O_CREAT | O_RDWR, 07777 }, { O_PATH | O_TRUNC, 0 } };
    for (size_t i = 0; i < COUNT(odd); i++) {
        openat2_(AT_FDCWD, "file", odd[i][0], odd[i][1], 0);
        openat2_(AT_FDCWD, "dir", odd[i][0], odd[i][1], 0);
        openat2_(AT_FDCWD, "new", odd[i][0], odd[i][1], 0);
        openat2_(AT_FDCWD, "", odd[i][0], odd[i][1], 0);
        openat2_(AT_FDCWD, NULL, odd[i][0], odd[i][1], 0);
    }
    /* Two pages, of which the second can't be read. */
    char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(pages != MAP_FAILED && !mprotect(pages + 4096, 4096, PROT_NONE), "mmap");
    static const size_t sizes[] = { 0, 8, 16, 23, 24, 25, 32, 64, 4096, 4097, 1 << 20 };
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (size_t at = 0; at < 4; at++) {
            struct how how = { O_RDONLY, sizes[i], at };
            memset(pages, 0, 4096);
            char *start = at == 3 ? pages + 4096 - 24 : pages;
            if (at == 1) pages[24] = 1;
            if (at == 2) pages[40] = 1;
            report("size", AT_FDCWD, "file", &how, syscall(SYS_openat2, AT_FDCWD, "file", start, sizes[i]));
        }
    struct how how = { O_RDONLY, 0, 0 };
    report("null", 0, "", &how, syscall(SYS_openat2, AT_FDCWD, "file", NULL, sizeof how));
    report("null", 0, "", &how, syscall(SYS_openat, AT_FDCWD, NULL, O_RDONLY));
    report("fault", 0, "", &how, syscall(SYS_open, pages + 4096, O_RDONLY));
    strcpy(pages + 4096 - 5, "file");
    report("edge", 0, "", &how, syscall(SYS_open, pages + 4096 - 5, O_RDONLY));
    memcpy(pages + 4096 - 4, "file", 4);
    report("edge", 0, "", &how, syscall(SYS_open, pages + 4096 - 4, O_RDONLY));
    report("both", 0, "", &how, syscall(SYS_openat, 99, NULL, O_TMPFILE));

    printf("%d calls\n", calls);
    return 0;
}
