//! Programs that build something: version control, compilers, threads.

use crate::program::{Program, assert_success};
use crate::support::c_program;

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
    let mut program = Program::new("sh", ["-c", SCRIPT]);
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
