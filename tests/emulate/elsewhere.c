/* Runs a program elsewhere: `c`: below another root, `m`: in a mount namespace of its own, `p`: in a pid namespace of its own with
   its own procfs. 77 if it may not. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void check(int holds, const char *what) {
    if (!holds) { perror(what); exit(errno == EPERM ? 77 : 101); }
}

/* argv: kinds, new root, directory there, program and its arguments. */
int main(int argc, char **argv) {
    const char *kinds = argv[1], *root = argv[2], *directory = argv[3];
    int flags = (strchr(kinds, 'm') ? CLONE_NEWNS : 0) | (strchr(kinds, 'p') ? CLONE_NEWPID : 0);
    check(!unshare(flags), "unshare");
    if (strchr(kinds, 'm')) {
        check(!mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private");
        if (strchr(kinds, 'c')) check(!mount("/", root, NULL, MS_BIND | MS_REC, NULL), "bind");
        /* Something that is not there outside. */
        check(!mount("tmpfs", "/mnt", "tmpfs", 0, NULL), "tmpfs");
    }
    if (strchr(kinds, 'p')) {
        pid_t pid = fork();
        if (pid) {
            int status;
            check(waitpid(pid, &status, 0) == pid, "waitpid");
            return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
        }
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        check(!mount("proc", "/proc", "proc", 0, NULL), "proc");
    }
    if (strchr(kinds, 'c')) check(!chroot(root), "chroot");
    check(!chdir(directory), directory);
    execv(argv[4], argv + 4);
    perror(argv[4]);
    return 127;
}
