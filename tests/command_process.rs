//! Signals, groups, users and closures of the child: the same as with `tokio::process`.
#![allow(unsafe_code)]

mod support;

use std::io;
use std::os::unix::process::ExitStatusExt;

use asm_tracer::{Command, Errno, Error, Filter, SpawnStep, Stdio};
use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, pthread_sigmask, signal};
use support::side_by_side::side_by_side;
use support::start::{Way, assert_a_start_works, current_thread, leaving_nothing, run};
use support::{c_program, in_process_of_its_own, proc_status, within};

extern "C" fn handle(_: i32) {}

/// Prints what is blocked, ignored and handled, but for the two signals that the C library keeps to itself.
const PRINT_SIGNALS: &str = r#"
#include <signal.h>
#include <stdio.h>

int main(void) {
    sigset_t mask;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    for (int number = 1; number <= 64; number++) {
        struct sigaction action;
        if (sigismember(&mask, number) == 1)
            printf("blocked %d\n", number);
        if (sigaction(number, NULL, &action) == 0 && action.sa_handler != SIG_DFL)
            printf("%s %d\n", action.sa_handler == SIG_IGN ? "ignored" : "handled", number);
    }
}
"#;

#[test]
fn the_child_has_the_mask_of_the_thread_and_ignores_what_is_ignored() {
    let test = "the_child_has_the_mask_of_the_thread_and_ignores_what_is_ignored";
    leaving_nothing(test, async |_| {
        // The launcher exists before the mask is what it is.
        assert_a_start_works().await;
        // SAFETY: the handler does nothing.
        unsafe {
            signal(Signal::SIGINT, SigHandler::SigIgn).unwrap();
            signal(Signal::SIGUSR2, SigHandler::Handler(handle)).unwrap();
        }
        for blocked in [&[][..], &[Signal::SIGUSR1, Signal::SIGWINCH]] {
            let mask: SigSet = blocked.iter().copied().collect();
            pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&mask), None).unwrap();
            let outcome = side_by_side!(c_program("signals", PRINT_SIGNALS));
            let found: Vec<_> = outcome.stdout().lines().collect();
            let has = |what: &str, signal: Signal| found.contains(&&*format!("{what} {}", signal as i32));
            for signal in [Signal::SIGUSR1, Signal::SIGWINCH, Signal::SIGTERM] {
                assert_eq!(has("blocked", signal), blocked.contains(&signal), "{found:?}");
            }
            assert!(has("ignored", Signal::SIGINT), "{found:?}");
            assert!(
                !has("ignored", Signal::SIGPIPE),
                "Rust programs ignore it: {found:?}"
            );
            assert!(!found.iter().any(|line| line.starts_with("handled")), "{found:?}");
        }
    });
}

#[tokio::test]
async fn a_closure_finds_everything_done_that_the_command_asks_for() {
    let directory = tempfile::tempdir().unwrap();
    let expected = directory.path().canonicalize().unwrap();
    let path = std::ffi::CString::new(expected.to_str().unwrap()).unwrap();
    let outcome = side_by_side!("cat", |command| {
        let path = path.clone();
        command
            .current_dir(&expected)
            .process_group(0)
            .uid(54321)
            .gid(54322);
        let look = move || {
            let mut cwd = [0; 4096];
            // SAFETY: each call writes within what it is given.
            let mut mask = unsafe {
                libc::getcwd(cwd.as_mut_ptr(), cwd.len());
                std::mem::zeroed::<libc::sigset_t>()
            };
            // SAFETY: as above; the text is written as it is.
            let found = unsafe {
                libc::sigprocmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut mask);
                [
                    std::ffi::CStr::from_ptr(cwd.as_ptr()) == path.as_c_str(),
                    libc::getpgrp() == libc::getpid(),
                    (libc::getuid(), libc::geteuid()) == (54321, 54321),
                    (libc::getgid(), libc::getegid()) == (54322, 54322),
                    libc::getgroups(0, std::ptr::null_mut()) == 0,
                    libc::sigismember(&raw const mask, libc::SIGTERM) == 0,
                    libc::signal(libc::SIGPIPE, libc::SIG_DFL) == libc::SIG_DFL,
                ]
            };
            let text = found.map(|found| if found { b'y' } else { b'n' });
            // SAFETY: the text is as long as that.
            unsafe { libc::write(1, text.as_ptr().cast(), text.len()) };
            Ok(())
        };
        // SAFETY: it makes system calls and touches its own memory.
        unsafe { command.pre_exec(look) };
    });
    assert_eq!(outcome.stdout(), "yyyyyyy");
}

#[tokio::test]
async fn closures_run_in_order_up_to_the_first_that_fails() {
    fn say(text: &'static str, result: Result<(), i32>) -> impl FnMut() -> io::Result<()> + Send + Sync {
        move || {
            // SAFETY: the text is as long as that.
            unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
            result.map_err(io::Error::from_raw_os_error)
        }
    }
    let file = tempfile::tempfile().unwrap();
    let outcome = side_by_side!("true", |command| {
        command.stderr(file.try_clone().unwrap());
        // SAFETY: they write static text.
        unsafe {
            command.pre_exec(say("1", Ok(())));
            command.pre_exec(say("2", Ok(())));
            command.pre_exec(say("3", Err(libc::EDOM)));
            command.pre_exec(say("4", Ok(())));
        }
    });
    assert_eq!(outcome.errno(), libc::EDOM);
    let text = {
        use std::io::{Read, Seek};
        let mut text = String::new();
        (&file).rewind().unwrap();
        (&file).read_to_string(&mut text).unwrap();
        text
    };
    assert_eq!(text, "123".repeat(1 + support::side_by_side::variants().count()));
}

#[tokio::test]
async fn a_closure_that_fails_is_an_error_of_its_own_step() {
    for (error, errno) in [
        (io::Error::from_raw_os_error(libc::EDOM), Errno::EDOM),
        (io::Error::from_raw_os_error(0), Errno::EINVAL),
        (io::ErrorKind::Other.into(), Errno::EINVAL),
    ] {
        let error = std::sync::Mutex::new(Some(error));
        let mut command = Command::new("true");
        // SAFETY: nobody else has the lock.
        unsafe { command.pre_exec(move || Err(error.lock().unwrap().take().unwrap())) };
        // The closure's state is a copy of its own for each child.
        for _ in 0..2 {
            let error = within("the error", command.spawn()).await.unwrap_err();
            assert!(
                matches!(&error, Error::Spawn { step: SpawnStep::PreExec, source } if *source == errno),
                "{error:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_closure_may_choose_the_mask_of_the_program() {
    let outcome = side_by_side!(c_program("signals", PRINT_SIGNALS), |command| {
        let block = || {
            let mask: SigSet = [Signal::SIGHUP].into_iter().collect();
            pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
            Ok(())
        };
        // SAFETY: it makes one system call.
        unsafe { command.pre_exec(block) };
    });
    let hangup = format!("blocked {}", libc::SIGHUP);
    assert!(outcome.stdout().lines().any(|line| line == hangup), "{outcome:?}");
}

#[tokio::test]
async fn the_process_group_is_the_one_asked_for() {
    const SCRIPT: &str = "set -- $(cat /proc/$$/stat); test $1 = $5 && echo leads || echo $5";
    let leader = side_by_side!("/bin/sh", |command| {
        command.args(["-c", SCRIPT]).process_group(0);
    });
    assert_eq!(leader.stdout(), "leads\n");
    let own = side_by_side!("/bin/sh", |command| {
        command.args(["-c", SCRIPT]);
    });
    // SAFETY: asks for a number.
    assert_eq!(own.stdout(), format!("{}\n", unsafe { libc::getpgrp() }));

    let mut sleeper = tokio::process::Command::new("sleep");
    let mut sleeper = sleeper
        .arg("1000")
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let group = sleeper.id().unwrap() as i32;
    let joined = side_by_side!("/bin/sh", |command| {
        command.args(["-c", SCRIPT]).process_group(group);
    });
    assert_eq!(joined.stdout(), format!("{group}\n"));
    sleeper.kill().await.unwrap();

    for (group, errno) in [(i32::MAX, Errno::EPERM), (-5, Errno::EINVAL)] {
        let outcome = side_by_side!("true", |command| {
            command.process_group(group);
        });
        assert_eq!(outcome.errno(), errno as i32);
        let error = Command::new("true")
            .process_group(group)
            .spawn()
            .await
            .unwrap_err();
        assert!(
            matches!(&error, Error::Spawn { step: SpawnStep::SetProcessGroup, source } if *source == errno),
            "{error:?}"
        );
    }
}

/// Prints the ids and groups of the process.
const IDS: [&str; 3] = ["-E", "^(Uid|Gid|Groups)", "/proc/self/status"];

#[tokio::test]
async fn the_program_runs_as_the_user_asked_for() {
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: only root may change the user");
    }
    let lines = |outcome: &str| outcome.replace(['\t', ' '], "").replace('\n', ",");
    let both = side_by_side!("grep", |command| {
        command.args(IDS).uid(54321).gid(54322);
    });
    assert!(lines(both.stdout()).starts_with("Uid:54321543215432154321,Gid:54322543225432254322,Groups:,"));
    let user = side_by_side!("grep", |command| {
        command.args(IDS).uid(54321);
    });
    assert!(lines(user.stdout()).starts_with("Uid:54321543215432154321,Gid:0000,Groups:,"));
    let group = side_by_side!("grep", |command| {
        command.args(IDS).gid(54322);
    });
    assert!(lines(group.stdout()).starts_with("Uid:0000,Gid:54322543225432254322,Groups:"));
}

#[test]
fn who_may_not_change_the_user_gets_the_error() {
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: only root can become somebody who is not");
    }
    let test = "who_may_not_change_the_user_gets_the_error";
    leaving_nothing(test, async |_| {
        nix::unistd::setgroups(&[]).unwrap();
        nix::unistd::setgid(54322.into()).unwrap();
        nix::unistd::setuid(54321.into()).unwrap();
        for (uid, gid, step) in [
            (Some(0), None, SpawnStep::SetUid),
            (None, Some(0), SpawnStep::SetGid),
            (Some(0), Some(0), SpawnStep::SetGid),
        ] {
            let outcome = side_by_side!("/bin/true", |command| {
                uid.map(|uid| command.uid(uid));
                gid.map(|gid| command.gid(gid));
            });
            assert_eq!(outcome.errno(), libc::EPERM);
            let mut command = Command::new("/bin/true");
            uid.map(|uid| command.uid(uid));
            gid.map(|gid| command.gid(gid));
            let error = command.spawn().await.unwrap_err();
            let found = match &error {
                Error::Spawn { step, .. } => Some(*step),
                _ => None,
            };
            assert_eq!(found, Some(step), "{error:?}");
        }
        // What changes nothing is allowed.
        let same = side_by_side!("/bin/true", |command| {
            command.uid(54321).gid(54322);
        });
        assert_eq!(same.stdout(), "");
    });
}

/// Somebody who is not root can have the capabilities that it takes. The groups must go all the same.
#[test]
fn a_change_of_user_drops_the_groups_with_the_capability_alone() {
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: only root can hand out capabilities");
    }
    // Capabilities belong to a thread, and threads have those of the one that started them. So nothing is started
    // before.
    in_process_of_its_own(
        "a_change_of_user_drops_the_groups_with_the_capability_alone",
        || {
            nix::unistd::setgroups(&[7.into(), 8.into()]).unwrap();
            // SAFETY: keeps the permitted capabilities across the change of user.
            assert_eq!(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) }, 0);
            nix::unistd::setresuid(54321.into(), 54321.into(), 54321.into()).unwrap();
            raise_capabilities();
            current_thread().block_on(async {
                let outcome = side_by_side!("/bin/grep", |command| {
                    command.args(IDS).uid(54323);
                });
                assert!(outcome.stdout().contains("54323"), "{outcome:?}");
                assert_eq!(outcome.stdout().lines().last().unwrap().trim(), "Groups:");
            });
        },
    );
}

/// Makes effective what is permitted.
fn raise_capabilities() {
    #[repr(C)]
    struct Header(u32, i32);
    let (header, mut sets) = (Header(0x2008_0522, 0), [[0_u32; 3]; 2]);
    // SAFETY: both are as the kernel expects them for this version: a header and two triples.
    unsafe {
        let (header, sets) = (&raw const header, sets.as_mut_ptr());
        assert_eq!(libc::syscall(libc::SYS_capget, header, sets), 0);
        (*sets)[0] = (*sets)[1];
        (*sets.add(1))[0] = (*sets.add(1))[1];
        assert_eq!(libc::syscall(libc::SYS_capset, header, sets), 0);
    }
}

#[tokio::test]
async fn no_new_privs_is_set_unless_told_otherwise() {
    let print = |set: Option<bool>, way: Way| async move {
        let mut command = Command::new("grep");
        command
            .args(["NoNewPrivs", "/proc/self/status"])
            .stdout(Stdio::piped())
            .filter(Filter::trap_all());
        set.map(|set| command.no_new_privs(set));
        way.apply(&mut command);
        run(&mut command).await
    };
    let own = proc_status(std::process::id(), "NoNewPrivs").unwrap();
    for way in Way::BOTH {
        for set in [None, Some(true)] {
            assert_eq!(print(set, way).await.unwrap().stdout, b"NoNewPrivs:\t1\n");
        }
        match print(Some(false), way).await {
            Ok(output) => assert_eq!(
                String::from_utf8(output.stdout).unwrap(),
                format!("NoNewPrivs:\t{own}\n")
            ),
            Err(Error::FilterDenied) => println!("skipped: no permission to do without it"),
            Err(error) => panic!("{error:?}"),
        }
    }
}

// A signal that a closure sends to its own process is not held back until the program runs.
#[tokio::test]
async fn a_closure_that_kills_its_process_ends_the_start() {
    let mut command = Command::new("true");
    // SAFETY: it makes one system call.
    unsafe {
        command.pre_exec(|| {
            libc::raise(libc::SIGTERM);
            Ok(())
        });
    }
    let error = within("the error", command.spawn()).await.unwrap_err();
    match error {
        Error::DiedAtStart { status } => assert_eq!(status.signal(), Some(libc::SIGTERM)),
        other => panic!("{other:?}"),
    }
}
