//! Plans beside the work of a test: switched on and off, waited for, and what they tell.

use asm_tracer::inject::{Fault, FaultPlan, FaultyChild};
use asm_tracer::{Command, Errno, Error, Stdio, Sysno};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::support::{state, until, within};
use crate::{compiled, run, run_plan, shell, stdout};

/// Makes a call for each byte that it is told, and says whether it failed.
const ANSWERS: &str = r#"
int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (told()) puts(trap(0, 0, 0, 0) < 0 ? "failed" : "worked");
}
"#;

struct Told {
    child: FaultyChild,
    stdout: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl Told {
    async fn start(plan: &FaultPlan) -> Self {
        let mut command = compiled("answers_bytes", ANSWERS);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = within("the start", plan.spawn(&mut command)).await.unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, stdout }
    }

    async fn call(&mut self) -> String {
        self.child.stdin.as_mut().unwrap().write_all(b"x").await.unwrap();
        within("a line", self.stdout.next_line()).await.unwrap().unwrap()
    }
}

fn plan() -> FaultPlan {
    FaultPlan::from(Fault::on(Sysno::getppid).error(Errno::EPERM))
}

#[tokio::test]
async fn faults_are_switched_on_and_off_while_the_program_runs() {
    let plan = plan();
    plan.disarm();
    let mut told = Told::start(&plan).await;
    assert_eq!(told.call().await, "worked");
    plan.arm();
    assert!(plan.is_armed());
    assert_eq!(told.call().await, "failed");
    told.child.disarm();
    assert!(!plan.is_armed());
    assert_eq!(told.call().await, "worked");
    told.child.arm();
    assert_eq!(told.call().await, "failed");
    let outcome = within("the end", told.child.outcome()).await.unwrap();
    outcome.assert_success().assert_hits(2);
    // What is not injected is recorded still.
    assert_eq!(outcome.last_calls().len(), 4);
    // What runs while the plan is disarmed is not counted.
    assert_eq!(
        outcome
            .hits()
            .iter()
            .map(|hit| hit.occurrence())
            .collect::<Vec<_>>(),
        [1, 2]
    );
}

#[tokio::test]
async fn hits_are_waited_for_and_come_once() {
    let plan = plan();
    let mut told = Told::start(&plan).await;
    for n in 1..=3 {
        told.call().await;
        for hit in [plan.hit().await, told.child.hit().await] {
            let hit = hit.unwrap();
            assert_eq!((hit.occurrence(), hit.call().sysno()), (n, Some(Sysno::getppid)));
            assert_eq!(hit.call().tid(), told.child.id().unwrap() as i32);
        }
    }
    drop(told.child.stdin.take());
    for error in [
        within("no hit", plan.hit()).await.unwrap_err(),
        within("no hit", told.child.hit()).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::NotHit { .. }), "{error}");
        // What it did last.
        assert_eq!(error.to_string().matches("getppid(").count(), 3, "{error}");
    }
    assert!(told.child.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_serves_several_programs_at_once() {
    let plan = FaultPlan::from(Fault::on(Sysno::getppid).nth(1).error(Errno::EPERM));
    let (mut one, mut two) = (Told::start(&plan).await, Told::start(&plan).await);
    assert_eq!(
        (one.call().await, two.call().await),
        ("failed".into(), "failed".into())
    );
    assert_eq!(
        (two.call().await, one.call().await),
        ("worked".into(), "worked".into())
    );
    for told in [one, two] {
        within("the end", told.child.outcome())
            .await
            .unwrap()
            .assert_success()
            .assert_hits(1);
    }
    within("a hit", plan.hit()).await.unwrap();
    within("a hit", plan.hit()).await.unwrap();
    assert!(matches!(
        within("no hit", plan.hit()).await,
        Err(Error::NotHit { .. })
    ));
}

#[tokio::test]
async fn what_followed_a_hit_is_there_where_it_is_watched() {
    let fault = || Fault::on(Sysno::write).fd(1).nth(1).error(Errno::EIO);
    let outcome = run_plan(
        &FaultPlan::from(fault()).watch_all(),
        &mut shell("exec cat /etc/passwd"),
    )
    .await;
    outcome.assert_failure().assert_hits(1);
    let followed: Vec<_> = outcome.hits()[0]
        .followed_by()
        .iter()
        .filter_map(|call| call.sysno())
        .collect();
    // It complains, and ends.
    assert!(followed.contains(&Sysno::write), "{outcome}");
    assert_eq!(
        outcome.last_calls().last().unwrap().sysno(),
        Some(Sysno::exit_group),
        "{outcome}"
    );

    let watched = FaultPlan::from(fault()).watch(Sysno::exit_group);
    let outcome = run_plan(&watched, &mut shell("exec cat /etc/passwd")).await;
    let ends = outcome.hits()[0].followed_by().last().unwrap().sysno();
    assert_eq!(ends, Some(Sysno::exit_group), "{outcome}");

    // Only what the fault is about is trapped otherwise.
    let outcome = run(fault(), &mut shell("exec cat /etc/passwd")).await;
    assert!(
        outcome
            .last_calls()
            .iter()
            .all(|call| call.sysno() == Some(Sysno::write)),
        "{outcome}"
    );
}

#[tokio::test]
async fn what_is_kept_is_bounded() {
    const LOOPS: &str = "int main(void) { for (int i = 0; i < 6000; i++) trap(i, 0, 0, 0); }";
    let plan = plan().history(10);
    let outcome = run_plan(&plan, &mut compiled("six_thousand", LOOPS)).await;
    outcome.assert_success().assert_hits(6000);
    assert_eq!((outcome.hits().len(), outcome.last_calls().len()), (4096, 10));
    let last = outcome.last_calls().last().unwrap().syscall().args[0];
    assert_eq!(last, 5999);
    assert!(outcome.hits().iter().all(|hit| hit.followed_by().len() == 16));
}

#[tokio::test]
async fn a_dropped_child_is_killed() {
    let plan = plan();
    let mut told = Told::start(&plan).await;
    told.call().await;
    let pid = told.child.id().unwrap();
    drop(told);
    until("the child is gone", || state(pid).is_none()).await;
    plan.hit().await.unwrap();
    assert!(matches!(
        within("no hit", plan.hit()).await,
        Err(Error::NotHit { .. })
    ));
}

#[tokio::test]
async fn the_command_is_left_as_it_was() {
    let mut command = Command::new("/bin/echo");
    command.arg("hello");
    let outcome = run_plan(&"write:error=EIO".parse().unwrap(), &mut command).await;
    outcome.assert_failure();
    // It has no filter now, so that nothing needs serving; its output is inherited.
    let (mut child, _listener) = within("the start", command.stdout(Stdio::null()).spawn())
        .await
        .unwrap();
    assert!(within("the end", child.wait()).await.unwrap().success());
    // What the command says of its streams holds.
    let outcome = run_plan(&FaultPlan::new(), &mut command).await;
    assert_eq!(stdout(outcome.assert_success()), "");
}

/// What a test that fails prints.
fn message(assertion: impl FnOnce() + std::panic::UnwindSafe) -> String {
    *std::panic::catch_unwind(assertion)
        .unwrap_err()
        .downcast()
        .unwrap()
}

#[tokio::test]
async fn assertions_tell_what_the_program_did() {
    let outcome = run(
        Fault::on(Sysno::write).fd(1).error(Errno::ENOSPC),
        &mut shell("exec cat /etc/passwd"),
    )
    .await;
    outcome
        .assert_failure()
        .assert_code(1)
        .assert_ended()
        .assert_hit()
        .assert_hits(1);
    for (message, expected) in [
        (message(|| _ = outcome.assert_success()), "the program succeeds"),
        (message(|| _ = outcome.assert_code(7)), "the program exits with 7"),
        (message(|| _ = outcome.assert_hits(7)), "faults hit 7 calls"),
        (
            message(|| _ = outcome.assert(false, "the sun shines")),
            "the sun shines",
        ),
    ] {
        assert!(
            message.starts_with(&format!("expected that {expected}, but:\n")),
            "{message}"
        );
        for part in [
            "exit status: 1",
            "failed with ENOSPC",
            "write(1",
            "its last calls were",
            "No space left",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
}
