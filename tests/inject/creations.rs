//! Processes that are made while others end.

use std::time::Duration;

use asm_tracer::inject::{Fault, FaultPlan};
use asm_tracer::{Command, Errno, Stdio, Sysno};

use crate::support::{state, until, within};
use crate::{compiled, run_plan, stdout};

/// Makes 24 processes in turn, in each way, while those before them end and it has a handler for that, whose flags are its
/// argument. Prints the places of those that could not execute a program.
const MAKES: &str = r#"
int main(int argc, char **argv) {
    char *const arguments[] = { "true", NULL }, *const variables[] = { NULL };
    pid_t made[24];
    handle_signal(SIGCHLD, atoi(argv[1]));
    for (int i = 0; i < 24; i++) {
        do {
            switch (i % 3) {
            case 0: made[i] = fork(); break;
            case 1: made[i] = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); break;
            case 2: made[i] = vfork(); break;
            }
        } while (made[i] < 0 && errno == EINTR);
        if (made[i] == 0) {
            execve("/bin/true", arguments, variables);
            _exit(errno == ENOMEM ? 100 : 101);
        }
        check(made[i] > 0, "a process");
    }
    for (int i = 0; i < 24; i++) {
        int status;
        while (waitpid(made[i], &status, 0) < 0) check(errno == EINTR, "waitpid");
        if (status != 0) printf("%d:%d ", i + 1, WEXITSTATUS(status));
    }
    printf("%d", handled > 0);
}
"#;

// T9, T10: a creation that a signal takes back and that is made again gives one process, and no name is left out for it.
#[tokio::test]
async fn each_child_has_its_name_however_often_its_creation_was_interrupted() {
    for protected in [true, false] {
        for flags in [libc::SA_RESTART, 0] {
            for place in [2, 9, 16, 24] {
                let fault = Fault::on(Sysno::execve).lineage(format!("0.{place}"));
                let plan = FaultPlan::from(fault.error(Errno::ENOMEM)).history(200);
                let mut command = compiled("makes_processes", MAKES);
                command.arg(flags.to_string()).wait_killable(protected);
                let outcome = run_plan(&plan, &mut command).await;
                outcome.assert_success().assert_hits(1);
                assert_eq!(
                    stdout(&outcome),
                    format!("{place}:100 1"),
                    "{protected} {flags}: {outcome}"
                );
            }
        }
    }
}

// T9, T10: those that fail make none, and take a name.
#[tokio::test]
async fn creations_fail_by_their_number_while_children_end() {
    const COUNTS: &str = r#"
int main(void) {
    handle_signal(SIGCHLD, SA_RESTART);
    for (int i = 1; i <= 30; i++) {
        pid_t made = i % 2 ? vfork() : (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
        if (made == 0) _exit(0);
        if (made < 0) { printf("%d:%d ", i, errno); fflush(stdout); }
    }
}
"#;
    for protected in [true, false] {
        // A call that has been taken back is another occurrence, so that the numbers say at most what the program counts.
        let fault = Fault::on(Sysno::vfork)
            .lineage("0")
            .starting_at(3)
            .error(Errno::EAGAIN);
        let mut command = compiled("counts_creations", COUNTS);
        let outcome = run_plan(&fault.into(), command.wait_killable(protected)).await;
        outcome.assert_success().assert_hit();
        let failed: Vec<_> = stdout(&outcome).split_whitespace().collect();
        assert_eq!(failed.last().copied(), Some("29:11"), "{outcome}");
        assert!((13..=15).contains(&failed.len()), "{outcome}");
        assert!(failed.iter().all(|failed| failed.ends_with(":11")), "{outcome}");
    }
}

/// A process that makes another and ends, which makes another, and so on; the two hundredth waits for ever.
const CHAIN: &str = r#"
int main(void) {
    for (int generation = 0; generation < 200; generation++) {
        pid_t made = fork();
        check(made >= 0, "fork");
        if (made > 0) _exit(0);
        if (generation == 3) check(write(1, "!", 1) == 1, "write");
    }
    for (;;) pause();
}
"#;

/// The processes that live and have this argument.
fn living(argument: &str) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap();
    let processes = processes.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let ours = |process: &u32| {
        let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        words.any(|word| word == argument.as_bytes()) && state(*process).is_some_and(|state| state != 'Z')
    };
    processes.filter(ours).collect()
}

fn chain(marker: &str, protected: bool) -> Command {
    let mut command = compiled("chain_of_forks", CHAIN);
    command
        .arg(marker)
        .stdout(Stdio::piped())
        .wait_killable(protected);
    command
}

#[tokio::test]
async fn a_chain_of_forks_ends_with_the_program() {
    for protected in [true, false] {
        for round in 0..5 {
            let marker = format!("chain-{}-{protected}-{round}", std::process::id());
            let plan = FaultPlan::new().end_descendants();
            run_plan(&plan, &mut chain(&marker, protected))
                .await
                .assert_success();
            until("the chain has ended", || living(&marker).is_empty()).await;
        }
    }
}

#[tokio::test]
async fn a_chain_of_forks_ends_as_its_program_is_stopped_or_dropped() {
    use tokio::io::AsyncReadExt;
    for protected in [true, false] {
        for stopped in [true, false] {
            let marker = format!("broken-{}-{protected}-{stopped}", std::process::id());
            let plan = FaultPlan::new().end_descendants();
            let mut command = chain(&marker, protected);
            let mut child = within("the start", plan.spawn(&mut command)).await.unwrap();
            let mut byte = [0];
            let output = child.stdout.as_mut().unwrap();
            within("the fourth", output.read_exact(&mut byte)).await.unwrap();
            match stopped {
                true => _ = within("the stop", child.stop()).await.unwrap(),
                false => drop(child),
            }
            until("the chain has ended", || living(&marker).is_empty()).await;
        }
    }
}

// T7: ids are those that the receiver of a notification sees, and not those of the caller's namespace.
#[tokio::test]
async fn processes_of_another_namespace_are_told_apart() {
    const NAMESPACE: &str = r#"
#include <sched.h>
int main(void) {
    if (unshare(CLONE_NEWUSER | CLONE_NEWPID)) { printf("skipped: unshare: %s", strerror(errno)); return 0; }
    pid_t first = fork();
    check(first >= 0, "fork");
    if (first == 0) {
        if (getpid() != 1) _exit(1);
        for (int i = 1; i <= 3; i++) {
            pid_t made = fork();
            check(made >= 0, "fork");
            int failed = trap(0, 0, 0, 0) == -EPERM;
            if (made == 0) _exit(failed != (i == 2));
            int status;
            check(waitpid(made, &status, 0) == made, "waitpid");
            if (status != 0 || failed) _exit(1);
        }
        _exit(0);
    }
    int status;
    check(waitpid(first, &status, 0) == first, "waitpid");
    return status != 0;
}
"#;
    for protected in [true, false] {
        let fault = Fault::on(Sysno::getppid).lineage("0.1.2").error(Errno::EPERM);
        let plan = FaultPlan::from(fault.delay_before(Duration::from_millis(1)));
        let mut command = compiled("other_namespace", NAMESPACE);
        let outcome = run_plan(&plan, command.wait_killable(protected)).await;
        outcome.assert_success();
        if stdout(&outcome).starts_with("skipped") {
            println!("{}", stdout(&outcome));
        } else {
            outcome.assert_hits(1);
        }
    }
}
