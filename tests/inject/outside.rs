//! Files, sockets and machines that a fault is about because they are somewhere else.

use asm_tracer::inject::Fault;
use asm_tracer::{Command, Errno, Sysno};

use crate::support::in_process_of_its_own;
use crate::support::target::program;
use crate::{compiled, run, shell, stderr, stdout};

#[tokio::test]
async fn a_fault_concerns_files_outside_of_directories_only_wherever_links_lead() {
    let inside = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let (inside, outside) = (inside.path(), outside.path());
    std::fs::write(inside.join("file"), "").unwrap();
    std::fs::write(outside.join("file"), "").unwrap();
    std::os::unix::fs::symlink(outside.join("file"), inside.join("out")).unwrap();
    std::os::unix::fs::symlink(inside.join("file"), outside.join("in")).unwrap();
    std::fs::create_dir(outside.join("sub")).unwrap();
    std::os::unix::fs::symlink(outside.join("sub"), inside.join("to")).unwrap();
    let changes = [Sysno::chmod, Sysno::fchmodat, Sysno::fchmodat2, Sysno::utimensat];
    let (here, there) = (inside.display(), outside.display());
    for (script, hit) in [
        (format!("chmod 600 {here}/file"), false),
        (format!("chmod 600 {there}/file"), true),
        (format!("chmod 600 {here}/out"), true),
        (format!("chmod 600 {there}/in"), false),
        (format!("cd {there}; chmod 600 file"), true),
        (format!("cd {here}; chmod 600 ../$(basename {there})/file"), true),
        // The link itself.
        (format!("touch -h {here}/out"), false),
        (format!("touch -h {there}/in"), true),
        // What is behind a link to a directory.
        (format!("touch -h {here}/to/"), true),
        (format!("touch -h {here}/to/."), true),
        (format!("touch -h {here}/to/../file"), true),
        (format!("touch -h {here}/to"), false),
        // By a descriptor.
        (format!("touch {here}/file"), false),
        (format!("touch {there}/file"), true),
    ] {
        let fault = Fault::on(changes).outside(inside).error(Errno::EROFS);
        let outcome = run(fault, &mut shell(&script)).await;
        outcome.assert(outcome.status().success() != hit, &script);
        outcome.assert_hits(hit.into());
    }
}

/// Names the socket in each way that there is.
const NAMES: &str = r#"
#include <sys/socket.h>
#include <sys/un.h>
int main(int count, char **arguments) {
    struct sockaddr_un address = { AF_UNIX };
    strcpy(address.sun_path, arguments[1]);
    struct iovec buffer = { "x", 1 };
    struct mmsghdr messages[2] = { { { NULL, 0, &buffer, 1 } }, { { &address, sizeof address, &buffer, 1 } } };
    int s = socket(AF_UNIX, SOCK_DGRAM, 0);
    printf("%d ", sendto(s, "x", 1, 0, (void *)&address, sizeof address) < 0 ? errno : 0);
    printf("%d ", sendmsg(s, &messages[1].msg_hdr, 0) < 0 ? errno : 0);
    printf("%d ", sendmmsg(s, messages + 1, 1, 0) < 0 ? errno : 0);
    printf("%d ", sendmmsg(s, messages, 2, 0) < 0 ? errno : 0);
    printf("%d ", connect(s, (void *)&address, sizeof address) < 0 ? errno : 0);
    // Nobody is named, or nobody who can be read.
    printf("%d ", send(s, "x", 1, 0) < 0 ? errno : 0);
    printf("%d ", sendto(s, "x", 1, 0, (void *)8, sizeof address) < 0 ? errno : 0);
    printf("%d ", sendmsg(s, (void *)8, 0) < 0 ? errno : 0);
    printf("%d ", connect(s, (void *)&address, -1) < 0 ? errno : 0);
    printf("%d", sendmmsg(s, (void *)8, -1, 0) < 0 ? errno : 0);
}
"#;
const REACHES: [Sysno; 4] = [Sysno::connect, Sysno::sendto, Sysno::sendmsg, Sysno::sendmmsg];

#[tokio::test]
async fn a_socket_is_known_by_its_names() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let server = std::os::unix::net::UnixDatagram::bind(here.join("socket")).unwrap();
    server.set_nonblocking(true).unwrap();
    std::os::unix::fs::symlink("socket", here.join("link")).unwrap();
    std::fs::create_dir(here.join("sub")).unwrap();
    let fault = || Fault::on(REACHES).error(Errno::EPERM);
    let socket = here.join("socket");
    // The kernel refuses the second message of the two only after it has sent the first, to nobody.
    let (hit, missed) = ("1 1 1 1 1 107 14 14 22 14", "0 0 0 107 0 0 14 14 22 14");
    for name in [socket.to_str().unwrap(), "socket", "link", "./sub/../socket"] {
        for (fault, expected) in [
            (fault().path(&socket), hit),
            (fault().under(here), hit),
            (fault().path(here.join("other")), missed),
            (fault().outside(here), missed),
            (fault().outside(here.join("sub")), hit),
            (fault().remote(), missed),
        ] {
            let mut command = compiled("names_a_socket", NAMES);
            let outcome = run(fault, command.arg(name).current_dir(here)).await;
            assert_eq!(stdout(&outcome), expected, "{name}: {outcome}");
            // It takes a few only.
            while server.recv(&mut [0]).is_ok() {}
        }
    }
}

#[tokio::test]
async fn another_machine_is_known_by_its_address() {
    let reach = "exec 3<>/dev/udp/$1/9 && echo x >&3; echo $?";
    for (host, hit) in [
        ("127.0.0.1", 0),
        ("::1", 0),
        ("0.0.0.0", 0),
        ("192.0.2.1", 1),
        ("2001:db8::1", 1),
        ("255.255.255.255", 1),
    ] {
        if host.contains(':') && std::net::UdpSocket::bind("[::1]:0").is_err() {
            eprintln!("skipped: {host}, without IPv6");
            continue;
        }
        let fault = Fault::on(REACHES).remote().error(Errno::ENETDOWN);
        let mut command = Command::new("/bin/bash");
        let outcome = run(
            fault,
            command.args(["-c", reach, "bash", host]).env("LC_ALL", "C"),
        )
        .await;
        outcome.assert_hits(hit);
        assert_eq!(
            stderr(&outcome).contains("Network is down"),
            hit == 1,
            "{host}: {outcome}"
        );
    }
}

/// Sends to an address in ways that are not plain to see.
const HIDES: &str = r#"
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
int main(int count, char **arguments) {
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in there = { AF_INET, htons(9) }, nobody = { AF_UNSPEC, htons(9) };
    there.sin_addr.s_addr = nobody.sin_addr.s_addr = inet_addr(arguments[1]);
    struct iovec buffer = { "x", 1 };
    struct mmsghdr messages[2] = { { { &there, sizeof there, &buffer, 1 } }, { { (void *)8, sizeof there, &buffer, 1 } } };
    // To send to, it is an address of IPv4; to connect to, it is nobody.
    printf("%d ", sendto(s, "x", 1, 0, (void *)&nobody, sizeof nobody) < 0 ? errno : 0);
    printf("%d ", connect(s, (void *)&nobody, sizeof nobody) < 0 ? errno : 0);
    // The first is sent before the kernel sees that the second can't be.
    printf("%d ", sendmmsg(s, messages, 2, 0) < 0 ? errno : 0);
    // Now nobody without privileges can read it.
    prctl(PR_SET_DUMPABLE, 0);
    printf("%d", connect(s, (void *)&there, sizeof there) < 0 ? errno : 0);
}
"#;

#[test]
fn an_address_that_may_be_elsewhere_is_taken_to_be() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: not root, who becomes somebody else here");
    }
    in_process_of_its_own("outside::an_address_that_may_be_elsewhere_is_taken_to_be", || {
        let program = program("hides_whom_it_reaches", HIDES);
        // Where others can execute it.
        let place = tempfile::tempdir().unwrap();
        let copy = place.path().join("program");
        std::fs::copy(program, &copy).unwrap();
        std::os::unix::fs::chown(place.path(), Some(65534), Some(65534)).unwrap();
        nix::unistd::setgid(65534.into()).unwrap();
        nix::unistd::setuid(65534.into()).unwrap();
        nix::sys::prctl::set_dumpable(true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let fault = || Fault::on(REACHES).error(Errno::ENETDOWN);
            for (fault, address, expected) in [
                (fault().remote(), "192.0.2.1", "100 0 100 100"),
                (fault().remote(), "127.0.0.1", "0 0 0 100"),
                (fault().outside("/"), "127.0.0.1", "0 0 0 100"),
                (fault().path("/nowhere"), "127.0.0.1", "0 0 0 0"),
            ] {
                let outcome = run(fault, Command::new(&copy).arg(address)).await;
                assert_eq!(stdout(&outcome), expected, "{address}: {outcome}");
            }
        });
    });
}

#[tokio::test]
async fn what_is_no_file_is_outside_of_no_directory() {
    const CHANGES: &str = r#"
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
int main(int count, char **arguments) {
    int ends[2];
    check(!pipe(ends), "a pipe");
    printf("%d ", fchmod(ends[0], 0600) < 0 ? errno : 0);
    printf("%d ", fchmod(memfd_create("name", 0), 0600) < 0 ? errno : 0);
    printf("%d ", fchownat(ends[0], "", getuid(), getgid(), AT_EMPTY_PATH) < 0 ? errno : 0);
    printf("%d ", fchownat(open(arguments[1], O_RDONLY), "", getuid(), getgid(), AT_EMPTY_PATH) < 0 ? errno : 0);
    // Not a socket at all.
    printf("%d ", sendto(open(arguments[1], O_RDONLY), "x", 1, 0, NULL, 0) < 0 ? errno : 0);
    printf("%d ", fchmod(open(arguments[1], O_RDONLY), 0600) < 0 ? errno : 0);
    printf("%d", fchmod(-1, 0600) < 0 ? errno : 0);
}
"#;
    let (inside, outside) = (
        tempfile::tempdir().unwrap(),
        tempfile::NamedTempFile::new().unwrap(),
    );
    let calls = [Sysno::fchmod, Sysno::fchownat, Sysno::sendto];
    let fault = Fault::on(calls).outside(inside.path()).error(Errno::EROFS);
    let outcome = run(fault, compiled("changes_no_file", CHANGES).arg(outside.path())).await;
    assert_eq!(stdout(&outcome), "0 0 0 30 88 30 9", "{outcome}");
}

#[tokio::test]
async fn names_that_mean_something_else_to_each_process_are_the_targets() {
    let inside = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let (here, there) = (inside.path().display(), outside.path().display());
    std::fs::write(inside.path().join("file"), "").unwrap();
    std::fs::create_dir(outside.path().join("sub")).unwrap();
    std::fs::write(outside.path().join("file"), "").unwrap();
    std::os::unix::fs::symlink(outside.path().join("sub"), inside.path().join("link")).unwrap();
    for (script, hit) in [
        (format!("cd {here}; chmod 600 /proc/self/cwd/file"), false),
        (format!("cd {there}; chmod 600 /proc/thread-self/cwd/file"), true),
        (format!("chmod 600 /dev/fd/3 3<{here}/file"), false),
        (format!("chmod 600 /proc/self/fd/3 3<{there}/file"), true),
        (format!("cd /proc; chmod 600 self/fd/3 3<{here}/file"), false),
        (format!("cd /proc; chmod 600 self/fd/3 3<{there}/file"), true),
        (format!("chmod 600 /dev/stdin <{there}/file"), true),
        // No file at all.
        ("true | chmod 600 /dev/stdin".into(), false),
        // Not the directory where the link is.
        (format!("chmod 600 {here}/link/../file"), true),
    ] {
        let changes = [Sysno::chmod, Sysno::fchmodat, Sysno::fchmodat2];
        let fault = Fault::on(changes).outside(inside.path()).error(Errno::EROFS);
        let outcome = run(fault, &mut shell(&script)).await;
        outcome.assert(outcome.status().success() != hit, &script);
        outcome.assert_hits(hit.into());
    }
}
