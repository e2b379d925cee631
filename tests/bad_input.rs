//! Commands that can't be started: each gets an error that says what is wrong, and the next start works.
#![allow(unsafe_code)]

mod support;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;

use asm_tracer::filter::arg;
use asm_tracer::{Command, Errno, Error, Filter, Listener, SpawnStep, Supervisor, Sysno};
use nix::libc;
use support::start::{Leftovers, Way, assert_a_start_works, current_thread, leaving_nothing, run};
use support::{in_process_of_its_own, within};

/// Starts a command that can't be started, checks that nothing is left and that the next start works.
async fn refused(before: &Leftovers, mut command: Command) -> Error {
    let error = within("the error", command.spawn()).await.unwrap_err();
    before.assert_none(&format!("{error:?}"));
    assert_a_start_works().await;
    error
}

#[test]
fn what_no_program_could_be_given_is_an_invalid_command() {
    let test = "what_no_program_could_be_given_is_an_invalid_command";
    leaving_nothing(test, async |before| {
        let cases: [(&str, &dyn Fn() -> Command); 12] = [
            ("the program is empty", &|| Command::new("")),
            ("the program contains a zero byte", &|| Command::new("tr\0ue")),
            ("the program contains a zero byte", &|| {
                Command::new("/bin/tr\0ue")
            }),
            ("an argument or the directory contains a zero byte", &|| {
                let mut command = Command::new("true");
                command.args(["good", "b\0d"]);
                command
            }),
            ("an argument or the directory contains a zero byte", &|| {
                let mut command = Command::new("true");
                command.arg0("\0");
                command
            }),
            ("an argument or the directory contains a zero byte", &|| {
                let mut command = Command::new("true");
                command.current_dir("/tmp\0");
                command
            }),
            ("an environment variable contains a zero byte", &|| {
                let mut command = Command::new("true");
                command.env("NAME", "val\0ue");
                command
            }),
            ("an environment variable contains a zero byte", &|| {
                let mut command = Command::new("true");
                command.env("NA\0ME", "value");
                command
            }),
            ("an environment variable contains a zero byte", &|| {
                let mut command = Command::new("true");
                command.env("PATH", "/bin\0");
                command
            }),
            ("an environment variable's name is empty or contains `=`", &|| {
                let mut command = Command::new("true");
                command.env("", "value");
                command
            }),
            ("an environment variable's name is empty or contains `=`", &|| {
                let mut command = Command::new("true");
                command.env("A=B", "value");
                command
            }),
            ("an environment variable's name is empty or contains `=`", &|| {
                let mut command = Command::new("true");
                command.env("=A", "value");
                command
            }),
        ];
        for (message, command) in cases {
            for way in Way::BOTH {
                let mut command = command();
                way.apply(&mut command);
                let error = refused(before, command).await;
                assert_eq!(error.to_string(), format!("invalid command: {message}"));
                assert_eq!(error.errno(), Some(Errno::EINVAL));
            }
        }
    });
}

#[test]
fn what_is_not_set_need_not_be_a_valid_variable() {
    let test = "what_is_not_set_need_not_be_a_valid_variable";
    leaving_nothing(test, async |_| {
        let mut command = Command::new("true");
        command
            .env("A=B", "value")
            .env_remove("A=B")
            .env_remove("")
            .env("\0", "value")
            .env_remove("\0");
        assert!(run(&mut command).await.unwrap().status.success());
    });
}

#[test]
fn a_filter_that_can_not_be_installed_is_an_error() {
    let test = "a_filter_that_can_not_be_installed_is_an_error";
    leaving_nothing(test, async |before| {
        let large = (0..3000_u64).fold(Filter::new(), |filter, value| {
            filter.trap_if(Sysno::read, [arg(0).eq(value << 20)])
        });
        for way in Way::BOTH {
            let with = |filter: &Filter| {
                let mut command = Command::new("true");
                way.apply(command.filter(filter.clone()));
                command
            };
            let error = refused(before, with(&large)).await;
            assert!(
                matches!(error, Error::FilterTooLarge { instructions, limit: 4096 } if instructions > 4096),
                "{error:?}"
            );
            let text = error.to_string();
            assert!(
                text.contains("the kernel takes 4096") && text.contains("use fewer rules"),
                "{text}"
            );
            for filter in [
                Filter::new().trap(-1_i64),
                Filter::new().trap(1_i64 << 40),
                Filter::new().errno(Sysno::read, Errno::UnknownErrno),
            ] {
                let error = refused(before, with(&filter)).await;
                assert!(matches!(error, Error::InvalidFilter(_)), "{error:?}");
            }
        }
    });
}

/// The largest filter that the kernel takes together with what the library adds.
#[test]
fn a_filter_as_large_as_the_kernel_takes_is_installed() {
    let test = "a_filter_as_large_as_the_kernel_takes_is_installed";
    leaving_nothing(test, async |_| {
        let filter = |rules: u64| {
            (0..rules).fold(Filter::new(), |filter, value| {
                filter.trap_if(Sysno::mkdir, [arg(0).eq(value << 20)])
            })
        };
        let (mut fits, mut too_many) = (1, 4096);
        while too_many - fits > 1 {
            let middle = (fits + too_many) / 2;
            match Command::new("true").filter(filter(middle)).spawn().await {
                Ok((child, listener)) => {
                    support::start::finish(child, listener).await.unwrap();
                    fits = middle;
                }
                Err(Error::FilterTooLarge { .. }) => too_many = middle,
                Err(error) => panic!("{middle} rules: {error:?}"),
            }
        }
        assert!(fits > 500, "{fits}");
    });
}

// A change of user gives up the permission as well.
#[test]
fn without_no_new_privs_it_takes_permission_to_install_a_filter() {
    let test = "without_no_new_privs_it_takes_permission_to_install_a_filter";
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: only root can give up a permission");
    }
    leaving_nothing(test, async |before| {
        if support::proc_status(std::process::id(), "NoNewPrivs").as_deref() != Some("0") {
            return println!("skipped: no_new_privs is set already");
        }
        let mut command = Command::new("true");
        command.no_new_privs(false).uid(54321);
        let error = refused(before, command).await;
        assert!(matches!(error, Error::FilterDenied), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("no_new_privs") && text.contains("CAP_SYS_ADMIN"),
            "{text}"
        );

        nix::unistd::setuid(54321.into()).unwrap();
        // SAFETY: makes /proc/self readable again.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
        for way in Way::BOTH {
            let mut command = Command::new("true");
            way.apply(command.no_new_privs(false));
            let error = refused(before, command).await;
            assert!(matches!(error, Error::FilterDenied), "{error:?}");
        }
    });
}

// T27
#[test]
fn a_child_that_dies_before_it_hands_over_the_listener_is_an_error() {
    let test = "a_child_that_dies_before_it_hands_over_the_listener_is_an_error";
    leaving_nothing(test, async |before| {
        let exit = || {
            // SAFETY: ends this very process, without any cleanup.
            unsafe { libc::_exit(3) }
        };
        let killed = || {
            // SAFETY: as above.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        };
        let signalled = || {
            // SAFETY: handlers are gone by now, and the default ends the process.
            unsafe { libc::raise(libc::SIGALRM) };
        };
        let deaths: [(fn(), _, _); 3] = [
            (exit, Some(3), None),
            (killed, None, Some(libc::SIGKILL)),
            (signalled, None, Some(libc::SIGALRM)),
        ];
        for (death, code, signal) in deaths {
            let mut command = Command::new("true");
            // SAFETY: the closure makes system calls only.
            unsafe {
                command.pre_exec(move || {
                    death();
                    Ok(())
                });
            }
            let error = refused(before, command).await;
            match &error {
                Error::DiedAtStart { status } => assert_eq!((status.code(), status.signal()), (code, signal)),
                other => panic!("{other:?}"),
            }
            assert!(error.to_string().starts_with("the child died before"), "{error}");
            assert_eq!(error.errno(), None);
        }
    });
}

// T27: the kernel has no seccomp to offer, or somebody forbids it.
#[test]
fn an_installation_that_is_refused_is_an_error_of_its_own_step() {
    let test = "an_installation_that_is_refused_is_an_error_of_its_own_step";
    leaving_nothing(test, async |before| {
        for (errno, refused_as) in [(Errno::EINVAL, "Spawn"), (Errno::ENOMEM, "OutOfMemory")] {
            let mut command = Command::new("true");
            let filter = Filter::new().errno(Sysno::seccomp, errno);
            let install = move || filter.install().map_err(std::io::Error::from);
            // SAFETY: this process has one more thread, which waits and holds no lock.
            unsafe { command.pre_exec(install) };
            let error = refused(before, command).await;
            assert_eq!(error.errno(), Some(errno), "{error:?}");
            assert!(format!("{error:?}").starts_with(refused_as), "{error:?}");
            assert!(
                format!("{error:?}{error}").to_lowercase().contains("filter"),
                "{error:?}"
            );
        }
    });
}

// T30: a child under a listener gets none of its own.
#[test]
fn a_second_listener_is_an_error_that_says_so() {
    let test = "a_second_listener_is_an_error_that_says_so";
    in_process_of_its_own(test, || {
        // The outer supervisor is in this process, the inner one in a process under its filter.
        if std::env::var_os("INNER").is_some() {
            return current_thread().block_on(async {
                for way in Way::BOTH {
                    let mut command = Command::new("true");
                    way.apply(&mut command);
                    let error = within("the error", command.spawn()).await.unwrap_err();
                    assert!(matches!(error, Error::NestedListener), "{error:?}");
                    assert!(error.to_string().contains("allows only one"), "{error}");
                    assert!(!support::start::has_children());
                }
            });
        }
        current_thread().block_on(async {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command
                .args([test, "--exact", "--nocapture", "--test-threads=1"])
                .env("INNER", "1")
                .stdout(asm_tracer::Stdio::piped())
                .stderr(asm_tracer::Stdio::piped());
            support::assert_passed(&run(&mut command).await.unwrap());
        });
    });
}

#[tokio::test]
async fn a_descriptor_that_is_no_listener_is_refused() {
    let (reader, _writer) = std::io::pipe().unwrap();
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let others: [OwnedFd; 5] = [
        reader.into(),
        socket.into(),
        File::open("/dev/null").unwrap().into(),
        File::open("/etc/passwd").unwrap().into(),
        File::open("/tmp").unwrap().into(),
    ];
    let supervisor = Supervisor::new();
    for fd in others {
        let again = fd.try_clone().unwrap();
        for error in [
            Listener::attach(fd).unwrap_err(),
            supervisor.attach(again).unwrap_err(),
        ] {
            assert!(matches!(error, Error::NotAListener), "{error:?}");
            assert!(error.to_string().contains("not a seccomp listener"), "{error}");
        }
    }
}

#[test]
fn an_error_is_an_io_error_of_the_kind_of_its_reason() {
    let error = current_thread()
        .block_on(Command::new("/nowhere/at/all").spawn())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "could not start the program: executing the program failed"
    );
    let error = std::io::Error::from(error);
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    assert!(matches!(
        error.downcast::<Error>().unwrap(),
        Error::Spawn {
            step: SpawnStep::Exec,
            ..
        }
    ));
}
