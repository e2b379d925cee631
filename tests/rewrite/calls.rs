//! The calls that are different: executions, ends, new threads.

use std::future::IntoFuture;

use asm_tracer::{Errno, Error, Filter, Observed, Sysno};

use crate::support::target::on_each_runtime;
use crate::support::within;
use crate::{printed, start, target};

/// Executes `false` from the thread that its first argument says, with a path of its own.
const EXECUTES: &str = r#"
    static void *run(void *path) {
        char *argv[] = { "sh", "-c", "echo $0 $1", path, NULL };
        execve(path, argv, (char *[]){ NULL });
        printf("%s", strerror(errno)); fflush(stdout);
        return NULL;
    }
    int main(int argc, char **argv) {
        pthread_t thread;
        told();
        if (!strcmp(argv[1], "leader")) { run("/nonexistent"); return 0; }
        check(!pthread_create(&thread, NULL, run, "/nonexistent"), "a thread");
        pthread_join(thread, NULL);
    }
"#;

#[test]
fn an_execution_is_rewritten() {
    for (thread, killable) in [
        ("leader", true),
        ("leader", false),
        ("other", true),
        ("other", false),
    ] {
        on_each_runtime(|| async move {
            let filter = Filter::new().trap([Sysno::execve, Sysno::getuid]);
            let mut command = target("executes", EXECUTES, filter);
            let (child, mut listener) = start(command.arg(thread).wait_killable(killable), 1).await;
            let call = within("a call", listener.next()).await.unwrap();
            assert_eq!(call.sysno(), Some(Sysno::execve));
            let args = call.args();
            let shell = call.continue_with(args).data(0, "/bin/sh\0").observe();
            let observed = within("the execution", shell).await.unwrap();
            assert_eq!(observed, Observed::Returned(0));
            let mut calls = 0;
            // The new program is served as ever, and its own calls can be rewritten.
            while let Some(call) = within("a call", listener.next()).await {
                calls += 1;
                let observed = call.continue_as(Sysno::getpid, [0; 6]).observe();
                let observed = within("the result", observed).await.unwrap();
                assert_eq!(observed, Observed::Returned(child.id().unwrap().into()));
                if calls > 100 {
                    panic!("a call that is repeated");
                }
            }
            assert_eq!(printed(child, listener).await, "/nonexistent\n");
        });
    }
}

#[test]
fn an_execution_that_fails_is_observed() {
    for thread in ["leader", "other"] {
        on_each_runtime(|| async move {
            let mut command = target("executes", EXECUTES, Filter::new().trap(Sysno::execve));
            let (child, mut listener) = start(command.arg(thread), 1).await;
            let call = within("a call", listener.next()).await.unwrap();
            let observed = within("the execution", call.continue_and_observe())
                .await
                .unwrap();
            assert_eq!(observed.result(), Some(Err(Errno::ENOENT)));
            assert_eq!(printed(child, listener).await, "No such file or directory");
        });
    }
}

/// While a thread that blocks is observed, another one executes a program, in which it is gone.
#[test]
fn an_execution_ends_the_other_threads() {
    const BODY: &str = r#"
        static void *block(void *unused) { (void)unused; sigset_t none; sigemptyset(&none); sigsuspend(&none); return NULL; }
        static void *run(void *unused) {
            (void)unused;
            told();
            execl("/bin/echo", "echo", "executed", NULL);
            return NULL;
        }
        int main(int argc, char **argv) {
            pthread_t thread;
            void *(*first)(void *) = atoi(argv[1]) ? run : block, *(*second)(void *) = atoi(argv[1]) ? block : run;
            check(!pthread_create(&thread, NULL, first, NULL), "a thread");
            second(NULL);
        }
    "#;
    for who in ["0", "1"] {
        on_each_runtime(|| async move {
            let filter = Filter::new().trap([Sysno::rt_sigsuspend, Sysno::execve]);
            let mut command = target("executes_beside", BODY, filter);
            let (mut child, mut listener) = within("the start", command.arg(who).spawn()).await.unwrap();
            let blocks = within("a call", listener.next()).await.unwrap();
            assert_eq!(blocks.sysno(), Some(Sysno::rt_sigsuspend));
            let blocked = tokio::spawn(blocks.continue_and_observe());
            drop(child.stdin.take());
            child.stdin = None;
            let executes = within("a call", listener.next()).await;
            if let Some(executes) = executes {
                let observed = within("the execution", executes.continue_and_observe())
                    .await
                    .unwrap();
                assert_eq!(observed, Observed::Returned(0));
            }
            match within("the other", blocked).await.unwrap() {
                Ok(observed) => assert_eq!(observed, Observed::Gone),
                // It was gone before it was taken hold of.
                Err(refused) => assert!(matches!(refused.error, Error::Gone), "{refused:?}"),
            }
            assert_eq!(printed(child, listener).await, "executed\n");
        });
    }
}

#[test]
fn an_end_has_no_result() {
    const ENDS: &str = r#"
        static void *run(void *unused) { syscall(SYS_exit, 3); return NULL; }
        int main(void) {
            pthread_t thread;
            told();
            check(!pthread_create(&thread, NULL, run, NULL), "a thread");
            pthread_join(thread, NULL);
            syscall(SYS_exit_group, 5);
        }
    "#;
    for (rewritten, code) in [(false, 5), (true, 9)] {
        on_each_runtime(|| async move {
            let filter = Filter::new().trap([Sysno::exit, Sysno::exit_group]);
            let (mut child, mut listener) = start(&mut target("ends", ENDS, filter), 1).await;
            for name in [Sysno::exit, Sysno::exit_group] {
                let call = within("a call", listener.next()).await.unwrap();
                assert_eq!(call.sysno(), Some(name));
                let observed = match rewritten {
                    true => call.continue_with([9; 6]).data(1, "unused").observe(),
                    false => call.continue_and_observe(),
                };
                assert_eq!(within("the end", observed).await.unwrap(), Observed::Gone);
            }
            assert!(within("the end", listener.next()).await.is_none());
            assert_eq!(within("the exit", child.wait()).await.unwrap().code(), Some(code));
        });
    }
}

/// Observed, they are as they are; the children start with registers of their own program.
#[test]
fn new_threads_and_processes_are_observed_and_not_rewritten() {
    const MAKES: &str = r#"
        static void *run(void *unused) { return unused; }
        int main(void) {
            pthread_t thread;
            told();
            check(!pthread_create(&thread, NULL, run, NULL), "a thread");
            pthread_join(thread, NULL);
            pid_t child = fork();
            if (!child) _exit(0);
            check(waitpid(child, NULL, 0) == child, "the child");
            printf("%d", (int)child);
        }
    "#;
    on_each_runtime(|| async {
        let makes = [Sysno::clone, Sysno::clone3, Sysno::fork, Sysno::vfork];
        let (child, mut listener) = start(&mut target("makes", MAKES, Filter::new().trap(makes)), 1).await;
        let mut last = 0;
        for _ in 0..2 {
            let call = within("a call", listener.next()).await.unwrap();
            let args = call.args();
            let refused = within("the refusal", call.continue_with([1; 6]).into_future())
                .await
                .unwrap_err();
            assert!(matches!(refused.error, Error::NotBorrowable(_)), "{refused:?}");
            let refused = refused.notification.continue_with(args).data(0, "x");
            let refused = within("the refusal", refused.into_future()).await.unwrap_err();
            assert!(matches!(refused.error, Error::NotBorrowable(_)), "{refused:?}");
            let refused = refused
                .notification
                .continue_as(Sysno::getpid, args)
                .into_future();
            let refused = within("the refusal", refused).await.unwrap_err();
            assert!(refused.notification.is_pending());
            // The same arguments are no rewriting.
            let observed = refused.notification.continue_with(args).observe();
            match within("the result", observed).await.unwrap() {
                Observed::Returned(pid @ 1..) => last = pid,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(printed(child, listener).await, last.to_string());
    });
}

#[test]
fn a_return_from_a_handler_is_refused() {
    const HANDLES: &str =
        "int main(void) { told(); handle_signal(SIGUSR1, 0); raise(SIGUSR1); printf(\"%d\", handled); }";
    on_each_runtime(|| async {
        let filter = Filter::new().trap(Sysno::rt_sigreturn);
        let (child, mut listener) = start(&mut target("handles", HANDLES, filter), 1).await;
        let call = within("a call", listener.next()).await.unwrap();
        let refused = within("the refusal", call.continue_and_observe())
            .await
            .unwrap_err();
        assert!(matches!(refused.error, Error::NotBorrowable(_)), "{refused:?}");
        let refused = refused.notification.continue_with([0; 6]).into_future();
        let refused = within("the refusal", refused).await.unwrap_err();
        refused.notification.continue_syscall().unwrap();
        assert_eq!(printed(child, listener).await, "1");
    });
}

/// Nor can one be made of another call.
#[test]
fn no_other_call_becomes_one_of_them() {
    const CALLS: &str = "int main(void) { told(); printf(\"%ld\", trap(1, 2, 3, 4)); }";
    on_each_runtime(|| async {
        let (child, mut listener) =
            start(&mut target("calls", CALLS, crate::support::target::filter()), 1).await;
        let mut call = within("a call", listener.next()).await.unwrap();
        for sysno in [
            Sysno::rt_sigreturn,
            Sysno::clone,
            Sysno::clone3,
            Sysno::fork,
            Sysno::vfork,
        ] {
            let refused = within("the refusal", call.continue_as(sysno, [0; 6]).into_future()).await;
            let refused = refused.unwrap_err();
            assert!(matches!(refused.error, Error::NotBorrowable(_)), "{refused:?}");
            call = *refused.notification;
        }
        call.respond(4).unwrap();
        assert_eq!(printed(child, listener).await, "4");
    });
}
