//! Programs that nobody wrote for a supervisor do the same under one, with every call trapped and continued.

mod support;

use std::path::Path;
use std::process::Output;

use asm_tracer::{Command, Filter, Stdio, Supervisor};
use support::{c_program, within};

/// A program with all that its output may depend on.
struct Program<'a> {
    program: &'a str,
    arguments: Vec<&'a str>,
    variables: Vec<(&'a str, &'a str)>,
    directory: &'a Path,
}

impl<'a> Program<'a> {
    fn new(program: &'a str, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            program,
            arguments: arguments.into_iter().collect(),
            variables: Vec::new(),
            directory: Path::new("/"),
        }
    }

    /// A shell that repeats what a signal interrupts, where there is one.
    ///
    /// No kernel protects a call from signals before it is received (T10). `bash` has its handlers restart calls;
    /// `dash` has not, and gives up when a `fork` is interrupted, which happens on a busy machine.
    fn shell(script: &'a str) -> Self {
        let bash = Path::new("/bin/bash").exists();
        Self::new(if bash { "/bin/bash" } else { "sh" }, ["-c", script])
    }

    fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        // The compiler and git need a home and a place for temporary files.
        let path = option_env!("PATH").unwrap_or("/usr/local/bin:/usr/bin:/bin");
        let always = [("PATH", path), ("HOME", "/nonexistent"), ("LC_ALL", "C.UTF-8")];
        always.into_iter().chain(self.variables.iter().copied())
    }

    /// Runs it as it is.
    fn alone(&self) -> Output {
        std::process::Command::new(self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(self.variables())
            .current_dir(self.directory)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap()
    }

    /// Runs it with every call of every process trapped and continued.
    async fn supervised(&self) -> Output {
        let mut supervisor = Supervisor::new();
        let mut command = Command::new(self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(self.variables())
            .current_dir(self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .filter(Filter::trap_all());
        let child = within("a spawn", supervisor.spawn(&mut command)).await.unwrap();
        let output = tokio::spawn(child.wait_with_output());
        let mut calls = 0_u64;
        let serving = async {
            while let Some(call) = supervisor.next().await {
                call.continue_syscall().unwrap();
                calls += 1;
            }
        };
        within(&format!("the end of {}", self.program), serving).await;
        assert!(calls > 0);
        within("the output", output).await.unwrap().unwrap()
    }

    /// Runs it both ways, from the same start, and compares; gives what it wrote and how it ended.
    async fn same(&self, mut prepare: impl FnMut(), normalised: impl Fn(&str) -> String) -> Output {
        prepare();
        let alone = self.alone();
        prepare();
        let supervised = self.supervised().await;
        let text = |bytes: &[u8]| normalised(&String::from_utf8_lossy(bytes));
        assert_eq!(text(&supervised.stdout), text(&alone.stdout));
        assert_eq!(text(&supervised.stderr), text(&alone.stderr));
        assert_eq!(supervised.status, alone.status);
        supervised
    }

    async fn same_as_it_is(&self) -> Output {
        self.same(|| (), str::to_owned).await
    }
}

fn assert_success(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
}

#[tokio::test]
async fn a_pipeline_of_a_hundred_programs() {
    let script = format!("seq 1 500 {} | tail -n 2", "| cat ".repeat(100));
    let output = Program::shell(&script).same_as_it_is().await;
    assert_eq!(output.stdout, b"499\n500\n");
}

#[tokio::test]
async fn a_hundred_pipelines_at_once() {
    let script = "for i in $(seq 100); do (seq $i | tail -n 1 | wc -l) & done; wait; echo done";
    let output = Program::shell(script).same_as_it_is().await;
    assert_eq!(
        output.stdout,
        ["1\n".repeat(100), "done\n".into()].concat().as_bytes()
    );
}

#[tokio::test]
async fn exit_codes() {
    for code in [0, 1, 37, 255] {
        let output = Program::shell(&format!("echo out; echo err >&2; exit {code}"))
            .same_as_it_is()
            .await;
        assert_eq!(output.status.code(), Some(code));
    }
}

#[tokio::test]
async fn deaths_by_signal() {
    use std::os::unix::process::ExitStatusExt;
    for (name, number) in [("TERM", 15), ("KILL", 9), ("SEGV", 11), ("ABRT", 6), ("USR1", 10)] {
        let script = format!("ulimit -c 0; echo out; kill -{name} $$; echo not reached");
        let output = Program::shell(&script).same_as_it_is().await;
        assert_eq!(output.status.signal(), Some(number));
        assert_eq!(output.stdout, b"out\n");
    }
}

#[tokio::test]
async fn a_shell_that_traps_signals_and_waits_for_jobs() {
    const SCRIPT: &str = "
        trap 'echo usr1' USR1
        trap 'echo exit' EXIT
        (exit 3) & wait $!; echo $?
        sh -c 'kill $$' & wait $!; echo $?
        kill -USR1 $$
        (sleep 0.1; kill -USR1 $$) &
        wait; wait
        exit 5";
    let output = Program::shell(SCRIPT).same_as_it_is().await;
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(output.stdout, b"3\n143\nusr1\nusr1\nexit\n");
}

#[tokio::test]
async fn git_makes_the_same_commits() {
    const SCRIPT: &str = "
        set -e
        git init -b main
        for i in 1 2 3; do
            echo \"line $i\" >> file
            mkdir -p directory/$i && echo $i > directory/$i/file
            git add .
            git commit -m \"commit $i\"
        done
        git branch other HEAD^
        git gc -q
        git fsck --strict
        git status
        git log --stat --format='%H %T %an %ad %s'
        git diff other main";
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().join("repository");
    let mut program = Program::shell(SCRIPT);
    program.directory = &directory;
    program.variables = vec![
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_AUTHOR_NAME", "Somebody"),
        ("GIT_AUTHOR_EMAIL", "somebody@example.org"),
        ("GIT_AUTHOR_DATE", "2024-01-01T00:00:00Z"),
        ("GIT_COMMITTER_NAME", "Somebody"),
        ("GIT_COMMITTER_EMAIL", "somebody@example.org"),
        ("GIT_COMMITTER_DATE", "2024-01-01T00:00:00Z"),
    ];
    let prepare = || {
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir(&directory).unwrap();
    };
    let output = program.same(prepare, str::to_owned).await;
    assert_success(&output);
    assert!(String::from_utf8_lossy(&output.stdout).contains("commit 3"));
}

#[tokio::test]
async fn make_builds_in_parallel() {
    const SOURCES: usize = 8;
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().join("build");
    let prepare = || {
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir(&directory).unwrap();
        let objects: Vec<_> = (0..SOURCES).map(|number| format!("f{number}.o")).collect();
        let write = |name: &str, text: String| std::fs::write(directory.join(name), text).unwrap();
        let (mut declarations, mut sum) = (String::new(), String::from("0"));
        for number in 0..SOURCES {
            write(
                &format!("f{number}.c"),
                format!("int f{number}(void) {{ return {number}; }}\n"),
            );
            declarations += &format!("int f{number}(void);\n");
            sum += &format!(" + f{number}()");
        }
        write(
            "main.c",
            format!("#include <stdio.h>\n{declarations}int main(void) {{ printf(\"%d\\n\", {sum}); }}\n"),
        );
        let objects = objects.join(" ");
        write(
            "Makefile",
            format!("run: program\n\t./program\nprogram: main.o {objects}\n\tcc -o $@ $^\n.SILENT:\n"),
        );
    };
    let mut program = Program::new("make", ["-j4", "CC=cc"]);
    program.directory = &directory;
    let output = program.same(prepare, str::to_owned).await;
    assert_success(&output);
    assert_eq!(output.stdout, b"28\n");
}

// T2
#[tokio::test]
async fn sixty_four_threads_trap_at_once() {
    const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { THREADS = 64, ROUNDS = 20 };
static pthread_barrier_t together;
static long total;

static void *thread(void *number)
{
    long sum = 0;
    for (int round = 0; round < ROUNDS; round++) {
        pthread_barrier_wait(&together);
        int pipe_ends[2], got = 0;
        if (syscall(SYS_gettid) == 0 || pipe(pipe_ends) != 0)
            abort();
        if (write(pipe_ends[1], &round, sizeof round) != 4 || read(pipe_ends[0], &got, sizeof got) != 4)
            abort();
        close(pipe_ends[0]);
        close(pipe_ends[1]);
        char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        *page = 1;
        sum += got + *page;
        munmap(page, 4096);
    }
    __atomic_add_fetch(&total, sum + (long)number, __ATOMIC_RELAXED);
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    pthread_barrier_init(&together, NULL, THREADS);
    for (long number = 0; number < THREADS; number++)
        pthread_create(&threads[number], NULL, thread, (void *)number);
    for (int number = 0; number < THREADS; number++)
        pthread_join(threads[number], NULL);
    printf("%ld\n", total);
    return 37;
}
"#;
    let path = c_program("threads", SOURCE);
    let output = Program::new(path.to_str().unwrap(), []).same_as_it_is().await;
    let expected = 64 * (0..20).map(|got| got + 1).sum::<i32>() + (0..64).sum::<i32>();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{expected}\n"));
    assert_eq!(output.status.code(), Some(37));
}
