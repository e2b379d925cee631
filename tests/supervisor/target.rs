//! A program whose trapped calls can be counted and told apart, and whose answers it checks itself.

use std::path::PathBuf;

use asm_tracer::{Child, Command, Filter, Notification, Supervisor, Sysno};

use crate::support::{c_program, within};

/// `getppid(index, who)` is the trapped call: it has no arguments of its own, and the C library never makes it.
/// The answer must be `index + 1000`, otherwise the program says what it got and exits with 1.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static long repeat;
static pthread_barrier_t together;

static void ask(long index, long who)
{
    long got = syscall(SYS_getppid, index, who);
    if (got == index + 1000)
        return;
    fprintf(stderr, "call %ld of %ld gave %ld (%s)\n", index, who, got, strerror(errno));
    _exit(1);
}

static void calls(long count, long who)
{
    for (long index = 0; index != count; index++)
        ask(index, who);
}

static void *thread(void *who)
{
    pthread_barrier_wait(&together);
    calls(repeat, (long)who);
    return NULL;
}

static void note(int signal)
{
    (void)signal;
}

/// Runs `count` threads, which begin together; `repeat` of -1 is for ever.
static void threads(long count)
{
    pthread_t started[count];
    struct sigaction interrupting = { .sa_handler = note };
    sigaction(SIGUSR1, &interrupting, NULL);
    pthread_barrier_init(&together, NULL, count);
    for (long who = 0; who < count; who++)
        pthread_create(&started[who], NULL, thread, (void *)who);
    for (long who = 0; who < count; who++)
        pthread_join(started[who], NULL);
}

static void expect_success(pid_t pid)
{
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
        _exit(2);
}

static char *self, *one_call[] = { "target", "calls", "1", NULL, NULL };
extern char **environ;

static void make_vfork(char *who)
{
    one_call[3] = who;
    pid_t pid = vfork();
    if (pid == 0) {
        execve(self, one_call, environ);
        _exit(3);
    }
    expect_success(pid);
}

static void make_spawn(char *who)
{
    pid_t pid;
    one_call[3] = who;
    if (posix_spawn(&pid, self, NULL, NULL, one_call, environ) != 0)
        _exit(3);
    expect_success(pid);
}

static void make_fork(long who)
{
    pid_t pid = fork();
    if (pid == 0) {
        ask(0, who);
        _exit(0);
    }
    expect_success(pid);
}

static void make_clone3(long who)
{
    struct clone_args args = { .exit_signal = SIGCHLD };
    pid_t pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0) {
        ask(0, who);
        _exit(0);
    }
    expect_success(pid);
}

/// Leaves a process of its own session behind, which makes its calls once its standard input ends.
static void daemonise(void)
{
    char byte;
    if (fork() != 0)
        return;
    setsid();
    if (fork() != 0)
        _exit(0);
    while (read(0, &byte, 1) > 0)
        ;
    calls(3, 9);
    _exit(0);
}

int main(int argc, char **argv)
{
    char *mode = argv[1];
    long count = argc > 2 ? atol(argv[2]) : 0;
    long who = argc > 3 ? atol(argv[3]) : 0;
    self = "/proc/self/exe";
    if (strcmp(mode, "calls") == 0) {
        calls(count, who);
    } else if (strcmp(mode, "threads") == 0) {
        repeat = who;
        threads(count);
    } else if (strcmp(mode, "tree") == 0) {
        make_fork(1);
        make_vfork("2");
        make_spawn("3");
        make_clone3(4);
        repeat = 1;
        threads(1);
        ask(0, 5);
    } else if (strcmp(mode, "vforks") == 0) {
        for (long index = 0; index < count; index++) {
            make_vfork("2");
            make_spawn("3");
        }
    } else if (strcmp(mode, "daemon") == 0) {
        daemonise();
    } else {
        return 4;
    }
    return 0;
}
"#;

pub(crate) fn program() -> PathBuf {
    c_program("target", SOURCE)
}

/// The target, with its own calls trapped and no others.
pub(crate) fn command(arguments: &str) -> Command {
    let mut command = Command::new(program());
    command
        .args(arguments.split(' '))
        .filter(Filter::new().trap(Sysno::getppid));
    command
}

pub(crate) async fn spawn(supervisor: &Supervisor, arguments: &str) -> Child {
    within("a spawn", supervisor.spawn(&mut command(arguments)))
        .await
        .unwrap()
}

/// What the target wants to hear.
pub(crate) fn answer(call: Notification) {
    let index = call.args()[0];
    assert!(call.respond(index + 1000).unwrap().is_delivered());
}

/// Serves until the stream ends; says how many calls there were.
pub(crate) async fn serve(supervisor: &mut Supervisor) -> usize {
    let mut calls = 0;
    while let Some(call) = within("a call", supervisor.next()).await {
        answer(call);
        calls += 1;
    }
    calls
}

pub(crate) async fn expect_success(mut child: Child) {
    let status = within("an exit", child.wait()).await.unwrap();
    assert!(status.success(), "{status}");
}

/// How many threads of a process wait in the trapped call.
pub(crate) fn waiting_threads(pid: u32) -> usize {
    let trapped = format!("{} ", Sysno::getppid.id());
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return 0;
    };
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("syscall")).ok())
        .filter(|call| call.starts_with(&trapped))
        .count()
}
