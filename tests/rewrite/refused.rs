//! Targets that can't be borrowed, whose calls are answered in another way then.

use std::future::IntoFuture;
use std::process::Stdio;

use asm_tracer::{Errno, Error, Filter, Sysno};

use crate::support::target::{filter, on_each_runtime};
use crate::support::{in_process_of_its_own, within};
use crate::{printed, start, target};

const PRINTS: &str =
    "int main(void) { while (told()) { printf(\"%ld \", trap(1, 2, 3, 4)); fflush(stdout); } }";

#[test]
fn a_target_that_is_traced_already() {
    on_each_runtime(|| async {
        let (child, mut listener) = start(&mut target("prints", PRINTS, filter()), 2).await;
        let call = within("a call", listener.next()).await.unwrap();
        let pid = child.id().unwrap();
        let mut strace = tokio::process::Command::new("strace");
        strace.args(["-q", "-e", "trace=none", "-p", &pid.to_string()]);
        let Ok(mut strace) = strace.stderr(Stdio::null()).kill_on_drop(true).spawn() else {
            eprintln!("skipped: there is no strace");
            return;
        };
        crate::support::until("strace traces it", || crate::is_traced(pid)).await;
        let tracer = strace.id().unwrap() as i32;
        let refused = within("the refusal", call.continue_with([0; 6]).into_future())
            .await
            .unwrap_err();
        assert!(
            matches!(refused.error, Error::AlreadyTraced { tracer: by } if by == tracer),
            "{refused:?}"
        );
        assert!(refused.to_string().contains(&tracer.to_string()), "{refused}");
        assert_eq!(
            Error::from(
                within("the refusal", refused.notification.continue_and_observe())
                    .await
                    .unwrap_err()
            )
            .errno(),
            Some(Errno::EPERM)
        );
        within("the kill", strace.kill()).await.unwrap();
        crate::support::until("nobody traces it", || !crate::is_traced(pid)).await;
        let call = within("a call", listener.next()).await.unwrap();
        let rewritten = call.continue_as(Sysno::getpid, [0; 6]).into_future();
        assert!(within("the rewriting", rewritten).await.unwrap().is_delivered());
        assert_eq!(printed(child, listener).await, format!("-38 {pid} "));
    });
}

/// This very process, whose threads can't trace each other.
#[test]
fn a_thread_of_this_very_process() {
    in_process_of_its_own("refused::a_thread_of_this_very_process", || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (give, take) = std::sync::mpsc::channel();
            let thread = std::thread::spawn(move || {
                let listener = filter()
                    .install_with_listener(asm_tracer::filter::Threads::Calling)
                    .unwrap();
                give.send(listener).unwrap();
                nix::unistd::getppid().as_raw()
            });
            let mut listener = asm_tracer::Listener::attach(take.recv().unwrap()).unwrap();
            let call = within("a call", listener.next()).await.unwrap();
            let refused = within("the refusal", call.continue_and_observe())
                .await
                .unwrap_err();
            assert!(matches!(refused.error, Error::TracingDenied), "{refused:?}");
            refused.notification.respond(11).unwrap();
            assert_eq!(thread.join().unwrap(), 11);
        });
    });
}

/// What a container's filter does to the tracer.
#[test]
fn a_kernel_that_forbids_tracing() {
    for (errno, name) in [(Errno::EPERM, "EPERM"), (Errno::ENOSYS, "ENOSYS")] {
        const TEST: &str = "refused::a_kernel_that_forbids_tracing";
        if !crate::support::is_child() {
            let output = crate::support::rerun(TEST)
                .env("ASM_TRACER_TEST_ERRNO", name)
                .output()
                .unwrap();
            crate::support::assert_passed(&output);
            continue;
        }
        if std::env::var("ASM_TRACER_TEST_ERRNO").unwrap() != name {
            continue;
        }
        // The child that waits for descriptors is traced as well; later this process can't trace at all.
        on_each_runtime(|| async move {
            let (child, mut listener) = start(&mut target("prints", PRINTS, filter()), 2).await;
            // On a thread of its own, which is where the borrower is started from, and gets its filter from.
            let call = within("a call", listener.next()).await.unwrap();
            let refused = tokio::task::spawn_blocking(move || {
                let no_tracing = Filter::new().errno(Sysno::ptrace, errno);
                no_tracing.install().unwrap();
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(call.continue_and_observe()).unwrap_err()
            });
            let refused = within("the refusal", refused).await.unwrap();
            assert_eq!(refused.error.errno(), Some(errno), "{refused:?}");
            refused.notification.respond(3).unwrap();
            within("a call", listener.next())
                .await
                .unwrap()
                .respond(4)
                .unwrap();
            assert_eq!(printed(child, listener).await, "3 4 ");
            // The borrower that was started there is gone before the next one is needed.
            crate::support::until("the borrower has ended", || !crate::ends::borrower_runs()).await;
        });
    }
}

/// An unprivileged supervisor, and a target that may not be looked into.
#[test]
fn a_target_that_is_not_dumpable() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: not root, who becomes somebody else here");
    }
    in_process_of_its_own("refused::a_target_that_is_not_dumpable", || {
        // The programs are made while they can be.
        let body = "int main(void) { prctl(PR_SET_DUMPABLE, 0); while (told()) { printf(\"%ld \", trap(1, 2, 3, 4)); fflush(stdout); } }";
        let program = crate::support::target::program("not_dumpable", body);
        let own = tempfile::tempdir().unwrap();
        let copy = own.path().join("program");
        std::fs::copy(&program, &copy).unwrap();
        // Theirs, who have to remove it.
        std::os::unix::fs::chown(own.path(), Some(65534), Some(65534)).unwrap();
        nix::unistd::setgid(65534.into()).unwrap();
        nix::unistd::setuid(65534.into()).unwrap();
        nix::sys::prctl::set_dumpable(true).unwrap();
        on_each_runtime(|| async {
            let mut command = asm_tracer::Command::new(&copy);
            command
                .filter(filter())
                .stdin(asm_tracer::Stdio::piped())
                .stdout(asm_tracer::Stdio::piped());
            let (child, mut listener) = start(&mut command, 1).await;
            let call = within("a call", listener.next()).await.unwrap();
            let refused = within("the refusal", call.continue_with([0; 6]).into_future())
                .await
                .unwrap_err();
            assert!(matches!(refused.error, Error::TracingDenied), "{refused:?}");
            refused.notification.respond(3).unwrap();
            assert_eq!(printed(child, listener).await, "3 ");
        });
    });
}

#[test]
fn a_call_of_another_abi() {
    const BODY: &str = r#"
        int main(void) {
            told();
            long result;
            __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
            printf("%ld", result);
        }
    "#;
    on_each_runtime(|| async {
        let filter = Filter::new().foreign_abi(asm_tracer::filter::Action::Trap);
        let (child, mut listener) = start(&mut target("other_abi", BODY, filter), 1).await;
        let Some(call) = within("a call", listener.next()).await else {
            return eprintln!("skipped: this kernel has no 32-bit calls");
        };
        let refused = within("the refusal", call.continue_and_observe())
            .await
            .unwrap_err();
        assert!(matches!(refused.error, Error::NotBorrowable(_)), "{refused:?}");
        refused.notification.respond(5).unwrap();
        assert_eq!(printed(child, listener).await, "5");
    });
}
