//! Which calls faults are about.

use asm_tracer::filter::{arg, int_arg};
use asm_tracer::inject::{Fault, FaultPlan};
use asm_tracer::{Command, Errno, Sysno};

use crate::support::target::program;
use crate::{compiled, run, run_plan, shell, stderr, stdout};

fn files() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in ["one", "two"] {
        std::fs::write(directory.path().join(name), format!("{name}\n")).unwrap();
    }
    std::fs::create_dir(directory.path().join("sub")).unwrap();
    std::os::unix::fs::symlink("two", directory.path().join("link")).unwrap();
    directory
}

#[tokio::test]
async fn a_file_is_known_by_each_of_its_names_and_by_its_descriptors() {
    let directory = files();
    let two = directory.path().join("two");
    for (script, calls) in [
        ("cat one two", Sysno::read),
        ("cat one ./sub/../two", Sysno::openat),
        ("cd sub; cat ../one ../two", Sysno::openat),
        ("cat one link", Sysno::openat),
        ("cat one link", Sysno::read),
        ("cat one; cat <two", Sysno::read),
    ] {
        let fault = Fault::on(calls).path(&two).error(Errno::EIO);
        let outcome = run(fault, shell(script).current_dir(directory.path())).await;
        outcome.assert_failure().assert_hits(1);
        assert_eq!(stdout(&outcome), "one\n", "{script}: {outcome}");
        let file = outcome.hits()[0].call().file().unwrap();
        assert!(file.starts_with(directory.path()), "{outcome}");
    }
    let under = Fault::on([Sysno::openat, Sysno::read])
        .under(directory.path())
        .error(Errno::EIO);
    let outcome = run(under, shell("cat one two").current_dir(directory.path())).await;
    outcome.assert_failure().assert_hits(2);
}

#[tokio::test]
async fn a_descriptor_is_known_by_its_number() {
    let fault = Fault::on(Sysno::write).fd(2).error(Errno::EIO);
    let outcome = run(fault, &mut shell("echo out; ls /nonexistent; echo out")).await;
    outcome.assert_success().assert_hit();
    assert_eq!(
        (stdout(&outcome).matches("out").count(), stderr(&outcome)),
        (2, "")
    );
}

#[tokio::test]
async fn conditions_on_arguments_are_those_of_the_filter() {
    let long = "x".repeat(100);
    let script = format!("echo short; echo {long}; echo short");
    let fault = Fault::on(Sysno::write)
        .when(int_arg(0).eq(1))
        .when(arg(2).ge(50))
        .returns(101);
    let outcome = run(fault, &mut shell(&script)).await;
    outcome.assert_success().assert_hits(1);
    assert_eq!(stdout(&outcome), "short\nshort\n");
}

#[tokio::test]
async fn a_program_is_known_by_its_name_and_by_its_path() {
    let directory = files();
    let cat = std::fs::canonicalize("/bin/cat").unwrap();
    for program in ["cat".into(), cat.into_os_string()] {
        let fault = Fault::on(Sysno::read)
            .path(directory.path().join("one"))
            .after_exec_of(program)
            .error(Errno::EIO);
        let script = "head -n 1 one; cat one; sh -c 'head -n 1 one'; exec cat one";
        let outcome = run(fault, shell(script).current_dir(directory.path())).await;
        outcome.assert_failure().assert_hits(2);
        assert_eq!(stdout(&outcome), "one\none\n", "{outcome}");
    }
}

/// Three threads, of which each makes four calls and counts those that fail.
const THREADS: &str = r#"
static void *calls(void *name) {
    if (name) prctl(PR_SET_NAME, name);
    long failed = 0;
    for (int i = 0; i < 4; i++) failed += trap(0, 0, 0, 0) < 0;
    return (void *)failed;
}
int main(void) {
    char *names[2] = { "worker-a", "worker-b" };
    pthread_t threads[2];
    void *failed[2];
    for (int i = 0; i < 2; i++) check(!pthread_create(&threads[i], NULL, calls, names[i]), "thread");
    for (int i = 0; i < 2; i++) pthread_join(threads[i], &failed[i]);
    printf("%ld %ld %ld", (long)failed[0], (long)failed[1], (long)calls(NULL));
}
"#;

// T7: the kernel tells of a thread, which need not be the first of its process.
#[tokio::test]
async fn threads_are_known_by_name_and_counted_by_themselves() {
    let call = || Fault::on(Sysno::getppid).error(Errno::EPERM);
    for (fault, failed) in [
        (call(), "4 4 4"),
        (call().nth(3), "1 1 1"),
        (call().starting_at(2), "3 3 3"),
        (call().starting_at(2).until(3), "2 2 2"),
        (call().every(2), "2 2 2"),
        (call().main_thread(), "0 0 4"),
        (call().thread_named("worker-b").nth(1), "0 1 0"),
        (call().thread(1), "0 0 0"),
    ] {
        let outcome = run(fault.clone(), &mut compiled("three_threads", THREADS)).await;
        outcome.assert_success();
        assert_eq!(stdout(&outcome), failed, "{fault:?}");
    }
}

// The chance depends on the seed and the occurrence alone.
#[tokio::test]
async fn a_probability_gives_the_same_faults_each_time() {
    const MANY: &str = r#"
int main(void) { for (int i = 0; i < 400; i++) putchar(trap(0, 0, 0, 0) < 0 ? 'x' : '.'); }
"#;
    let run = async |seed| {
        let fault = Fault::on(Sysno::getppid)
            .with_probability(0.25)
            .error(Errno::EPERM);
        let plan = FaultPlan::from(fault).seed(seed);
        let outcome = run_plan(&plan, &mut compiled("many_calls", MANY)).await;
        stdout(outcome.assert_success()).to_owned()
    };
    let one = run(1).await;
    assert_eq!(one, run(1).await);
    assert_ne!(one, run(2).await);
    let hits = one.matches('x').count();
    assert!((60..140).contains(&hits), "{hits} of 400");
}

#[tokio::test]
async fn a_name_that_cannot_be_read_is_no_match_and_holds_nobody_up() {
    const BAD: &str = r#"
int main(void) {
    long result = syscall(SYS_openat, AT_FDCWD, (char *)8, O_RDONLY);
    printf("%ld %d", result, errno);
}
"#;
    let fault = Fault::on(Sysno::openat).path("/nonexistent").error(Errno::EIO);
    let outcome = run(fault, &mut compiled("bad_name", BAD)).await;
    outcome.assert_success().assert_hits(0);
    assert_eq!(stdout(&outcome), "-1 14");
}

#[tokio::test]
async fn a_thread_that_comes_later_begins_at_one() {
    // Each `true` of the shell is a process of its own.
    let fault = Fault::on(Sysno::execve).nth(1).error(Errno::ENOENT);
    let outcome = run(fault, &mut shell("/bin/true; echo $?; /bin/true; echo $?")).await;
    outcome.assert_hits(2);
    assert_eq!(stdout(&outcome), "127\n127\n");
    let never = Fault::on(Sysno::execve).nth(2).error(Errno::ENOENT);
    run(never, Command::new("/bin/true").arg("x"))
        .await
        .assert_success()
        .assert_hits(0);
}

#[tokio::test]
async fn calls_of_other_abis_run_unless_they_are_refused() {
    const CALL: &str = r#"
int main(void) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
    printf("%d", result == getpid() ? 0 : (int)-result);
}
"#;
    let mut alone = std::process::Command::new(program("another_abi", CALL));
    if !alone
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap()
        .success()
    {
        return eprintln!("skipped: this kernel has no 32-bit calls");
    }
    let outcome = run_plan(&FaultPlan::new(), &mut compiled("another_abi", CALL)).await;
    assert_eq!(stdout(&outcome), "0");
    let plan = FaultPlan::new().refuse_other_abis();
    let outcome = run_plan(&plan, &mut compiled("another_abi", CALL)).await;
    assert_eq!(stdout(&outcome), "38");
}
