//! Faults of threads by who made them, and the end of all descendants.

use std::collections::BTreeSet;
use std::time::Duration;

use asm_tracer::inject::{Fault, FaultPlan};
use asm_tracer::{Command, Errno, Signal, Sysno};

use super::support::{self, proc_status, until, within};
use super::{compiled, run, run_plan, shell, stdout};

fn python(script: &str) -> Command {
    let mut command = Command::new(support::python());
    command.args(["-c", script]);
    command
}

#[tokio::test]
async fn a_fault_concerns_the_process_of_that_lineage_only() {
    for (name, expected) in [
        ("0.1", "b\nc\n"),
        ("0.2", "a\nc\n"),
        ("0", "a\nb\n"),
        ("0.3", "a\nb\nc\n"),
    ] {
        let fault = Fault::on(Sysno::write).lineage(name).error(Errno::EIO);
        let outcome = run(fault, &mut shell("(echo a); (echo b); echo c")).await;
        assert_eq!(stdout(&outcome), expected, "{name}: {outcome}");
    }
}

#[tokio::test]
async fn the_names_are_the_same_in_each_run_however_fast_each_process_is() {
    let script = "
import os, threading
def below():
    os.getppid()
    pid = os.fork()
    os.getppid()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
children = []
for i in range(3):
    pid = os.fork()
    if pid == 0:
        below()
        thread = threading.Thread(target=os.getppid)
        thread.start()
        thread.join()
        os._exit(0)
    children.append(pid)
for pid in children:
    os.waitpid(pid, 0)
";
    let expected =
        ["0.1", "0.2", "0.3"].map(|name| [name.to_owned(), format!("{name}.1"), format!("{name}.2")]);
    let expected: BTreeSet<_> = expected.into_iter().flatten().collect();
    for _ in 0..5 {
        let plan = FaultPlan::new().watch(Sysno::getppid).follow_lineage();
        let outcome = run_plan(&plan, &mut python(script)).await;
        outcome.assert_success();
        let calls = outcome.last_calls().iter();
        let callers: Vec<_> = calls
            .filter(|call| call.sysno() == Some(Sysno::getppid))
            .map(|call| call.lineage().unwrap().to_owned())
            .collect();
        // Two of each forked process, one of its child and one of its thread.
        assert_eq!(callers.len(), 12, "{outcome}");
        assert_eq!(
            callers.into_iter().collect::<BTreeSet<_>>(),
            expected,
            "{outcome}"
        );
    }
}

/// Each end of a child is a signal, which takes the creation of the next one back now and then.
#[tokio::test]
async fn a_creation_that_is_made_again_counts_once() {
    let body = "
int main(void) {
    for (int i = 0; i < 100; i++) {
        pid_t child = fork();
        check(child >= 0, \"fork\");
        if (child == 0) {
            trap(0, 0, 0, 0);
            _exit(0);
        }
    }
    while (wait(NULL) > 0) { }
    return 0;
}";
    let expected: BTreeSet<_> = (1..=100).map(|child| format!("0.{child}")).collect();
    for _ in 0..5 {
        let plan = FaultPlan::new()
            .watch(Sysno::getppid)
            .follow_lineage()
            .history(1000);
        let outcome = run_plan(&plan, &mut compiled("inject_children", body)).await;
        outcome.assert_success();
        let calls = outcome.last_calls().iter();
        let callers: BTreeSet<_> = calls
            .filter(|call| call.sysno() == Some(Sysno::getppid))
            .map(|call| call.lineage().unwrap().to_owned())
            .collect();
        assert_eq!(callers, expected);
    }
}

#[tokio::test]
async fn a_child_of_vfork_is_known_before_its_creation_has_returned() {
    let script = "import subprocess; subprocess.run(['/bin/echo', 'hello'], check=True)";
    let plan = FaultPlan::from(Fault::on(Sysno::execve).lineage("0.1").error(Errno::ENOMEM));
    let outcome = run_plan(&plan, &mut python(script)).await;
    outcome.assert_hits(1).assert_code(1);
    assert!(
        String::from_utf8_lossy(outcome.stderr()).contains("Cannot allocate memory"),
        "{outcome}"
    );
}

#[tokio::test]
async fn creations_can_fail_themselves() {
    let fault = Fault::on([Sysno::clone, Sysno::clone3, Sysno::fork, Sysno::vfork])
        .lineage("0")
        .nth(2);
    let outcome = run(
        fault.error(Errno::EAGAIN),
        &mut shell("(echo a); (echo b); echo c"),
    )
    .await;
    outcome.assert_hits(1).assert_failure();
    assert_eq!(stdout(&outcome), "a\n");
}

#[tokio::test]
async fn creations_are_followed_whatever_else_is_done_to_them() {
    const CREATING: [Sysno; 4] = [Sysno::clone, Sysno::clone3, Sysno::fork, Sysno::vfork];
    let delay = Duration::from_millis(5);
    let fault = || Fault::on(CREATING).nth(1);
    for fault in [
        fault().delay_before(delay),
        fault().delay_after(delay),
        fault().signal(Signal::SIGWINCH),
    ] {
        let plan = FaultPlan::from(fault).watch(Sysno::chdir).follow_lineage();
        let outcome = run_plan(&plan, &mut shell("(cd /; true); (cd /tmp; true); cd /usr")).await;
        outcome.assert_success().assert_hits(1);
        let calls = outcome.last_calls().iter();
        let callers: Vec<_> = calls
            .filter(|call| call.sysno() == Some(Sysno::chdir))
            .map(|call| call.lineage().unwrap())
            .collect();
        assert_eq!(callers, ["0.1", "0.2", "0"], "{outcome}");
    }
}

/// A daemon in a session of its own, which has the standard output still, and says who it is.
const DAEMON: &str = "
import os, time
ready, told = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(1, b'%d\\n' % os.getpid())
        os.write(told, b'!')
        time.sleep(1000)
    os._exit(0)
os.wait()
os.read(ready, 1)
";

#[tokio::test]
async fn what_a_program_leaves_behind_ends_with_it() {
    let plan = FaultPlan::new().end_descendants();
    let outcome = run_plan(&plan, &mut python(DAEMON)).await;
    outcome.assert_success();
    let daemon = stdout(&outcome).trim().parse().unwrap();
    until("the daemon is gone", || {
        proc_status(daemon, "State").is_none_or(|state| state.starts_with('Z'))
    })
    .await;
}

#[tokio::test]
async fn what_a_dropped_program_leaves_behind_ends_as_well() {
    use tokio::io::AsyncBufReadExt;
    let plan = FaultPlan::new().end_descendants();
    let mut child = plan
        .spawn(python(&format!("{DAEMON}\ntime.sleep(1000)")).stdout(asm_tracer::Stdio::piped()))
        .await
        .unwrap();
    let mut line = String::new();
    let mut output = tokio::io::BufReader::new(child.stdout.take().unwrap());
    within("the message", output.read_line(&mut line)).await.unwrap();
    drop(child);
    let daemon = line.trim().parse().unwrap();
    until("the daemon is gone", || {
        proc_status(daemon, "State").is_none_or(|state| state.starts_with('Z'))
    })
    .await;
}

/// Two threads that make threads at the same time, each of which says at once whose and which it is.
const CREATORS: &str = r#"
struct who { long creator, number; };
static void *say(void *who) {
    trap(((struct who *)who)->creator, ((struct who *)who)->number, 0, 0);
    return NULL;
}
static void *create(void *creator) {
    struct who who[20];
    pthread_t threads[20];
    for (long i = 0; i < 20; i++) {
        who[i] = (struct who){ (long)creator, i + 1 };
        check(pthread_create(&threads[i], NULL, say, &who[i]) == 0, "pthread_create");
    }
    for (int i = 0; i < 20; i++)
        pthread_join(threads[i], NULL);
    return NULL;
}
int main(void) {
    pthread_t threads[2];
    for (long i = 0; i < 2; i++)
        check(pthread_create(&threads[i], NULL, create, (void *)(i + 1)) == 0, "pthread_create");
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
"#;

#[tokio::test]
async fn threads_that_are_made_at_the_same_time_are_told_apart() {
    for _ in 0..10 {
        let plan = FaultPlan::new()
            .watch(Sysno::getppid)
            .follow_lineage()
            .history(1000);
        let outcome = run_plan(&plan, &mut compiled("inject_creators", CREATORS)).await;
        outcome.assert_success();
        let calls = outcome.last_calls().iter();
        let calls: Vec<_> = calls
            .filter(|call| call.sysno() == Some(Sysno::getppid))
            .collect();
        assert_eq!(calls.len(), 40, "{outcome}");
        for call in calls {
            let [creator, number, ..] = call.syscall().args;
            assert_eq!(call.lineage(), Some(&*format!("0.{creator}.{number}")));
        }
    }
}
