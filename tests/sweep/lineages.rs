//! Cases in threads and processes that a program makes.

use std::collections::BTreeMap;

use asm_tracer::sweep::{Sweep, Verdict};
use asm_tracer::{Command, Errno, Sysno};

use crate::support::target;
use crate::{run, shell, trial};

/// Two processes at once, of which it only matters what the second ends with.
const PROCESSES: &str = r#"
int main(void) {
    pid_t children[2];
    for (int i = 0; i < 2; i++) {
        children[i] = fork();
        check(children[i] >= 0, "fork");
        if (children[i] == 0) _exit(trap(0, 0, 0, 0) < 0);
    }
    for (int i = 0, status; i < 2; i++) {
        check(waitpid(children[i], &status, 0) == children[i], "waitpid");
        if (i == 1 && status) { fprintf(stderr, "the second has failed\n"); return 5; }
    }
    return 0;
}
"#;

#[tokio::test]
async fn each_process_is_swept_and_the_others_are_left_alone() {
    let command = Command::new(target::program("sweep_processes", PROCESSES));
    let cases = ["0.1:getppid#1=EPERM", "0.2:getppid#1=EPERM"];
    let sweep = Sweep::new(command).only(cases.map(|case| case.parse().unwrap()));
    let report = run(sweep).await;
    assert_eq!(report.baseline.threads, 3, "{report}");
    assert_eq!(trial(&report, cases[0]).verdict, Verdict::Same, "{report}");
    assert_eq!(
        trial(&report, cases[1]).verdict,
        Verdict::CleanFailure,
        "{report}"
    );
}

/// Four threads at once, each of which makes calls of its own.
const THREADS: &str = r#"
static void *work(void *number) {
    for (long i = 0; i < 5; i++) {
        if (trap(0, 0, 0, 0) < 0) {
            fprintf(stderr, "thread %ld, call %ld\n", (long)number, i + 1);
            _exit(1);
        }
    }
    return NULL;
}
int main(void) {
    pthread_t threads[4];
    for (long i = 0; i < 4; i++)
        check(pthread_create(&threads[i], NULL, work, (void *)(i + 1)) == 0, "pthread_create");
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
"#;

#[tokio::test]
async fn each_thread_has_its_own_calls_whichever_is_the_faster() {
    let command = || Command::new(target::program("sweep_threads", THREADS));
    let cases =
        (1..=4).flat_map(|thread| (1..=5).map(move |call| format!("0.{thread}:getppid#{call}=EPERM")));
    let cases = || cases.clone().map(|case| case.parse().unwrap());
    for _ in 0..3 {
        let report = run(Sweep::new(command()).calls(Sysno::getppid).only(cases())).await;
        assert_eq!(report.trials.len(), 20);
        for trial in &report.trials {
            let thread = trial.case.lineage().strip_prefix("0.").unwrap();
            let expected = format!("thread {thread}, call {}\n", trial.case.occurrence());
            assert_eq!(trial.message, expected, "{report}");
        }
    }
}

#[tokio::test]
async fn two_sweeps_of_one_program_come_to_the_same() {
    let sweep = || {
        let script = "echo a | tr a b >out; (umask 077; mkdir dir) && ls | sort";
        Sweep::new(shell(script))
            .errors([Errno::ENOMEM, Errno::EIO, Errno::EACCES])
            .limit(150)
    };
    let verdicts = |report: asm_tracer::sweep::Report| -> BTreeMap<String, Verdict> {
        let trials = report.trials.iter().filter(|trial| trial.steady);
        trials
            .map(|trial| (trial.case.to_string(), trial.verdict))
            .collect()
    };
    let (one, two) = (verdicts(run(sweep()).await), verdicts(run(sweep()).await));
    assert!(one.len() >= 120, "{one:?}");
    let differing: Vec<_> = one
        .iter()
        .filter(|(case, verdict)| two.get(*case).is_some_and(|other| other != *verdict))
        .collect();
    assert!(differing.is_empty(), "{differing:?}");
}
