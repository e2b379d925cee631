//! What runs can touch.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use asm_tracer::sweep::{Sweep, Verdict};
use asm_tracer::{Command, Errno, Sysno};

use crate::support::{proc_status, python, target, until, until_blocking, within};
use crate::{begun, command, run, shell};

/// What tries to get at each of these, and says how often it has.
const ATTACK: &str = r#"
got=0
for way in 'echo x >$1/file' 'echo x >$1/new' 'rm -f $1/file' 'mv $1/file $1/gone' 'mkdir $1/dir' 'ln -s x $1/link' \
    'ln $1/file stolen && echo x >stolen' 'chmod 777 $1/file' 'touch $1/file' 'truncate -s 0 $1/file' 'mv $1/file here' 'cp x $1/copy'
do
    echo x >x
    (eval "$way") 2>/dev/null && got=$((got + 1)) && echo "$way"
done
exit $got
"#;

fn attack(on: &Path) -> asm_tracer::Command {
    let mut command = shell(ATTACK);
    command.args(["sh".as_ref(), on.as_os_str()]);
    command
}

fn victim() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), "untouched").unwrap();
    std::fs::set_permissions(directory.path().join("file"), PermissionsExt::from_mode(0o640)).unwrap();
    directory
}

#[tokio::test]
async fn nothing_outside_is_touched() {
    let victim = victim();
    let file = victim.path().join("file");
    let before = std::fs::metadata(&file).unwrap();
    let report = run(Sweep::new(attack(victim.path())).calls(Sysno::chdir)).await;
    assert_eq!(
        report.baseline.ending,
        asm_tracer::sweep::Ending::Exited(0),
        "{report}"
    );
    assert_eq!(std::fs::read_dir(victim.path()).unwrap().count(), 1);
    assert_eq!(std::fs::read(&file).unwrap(), b"untouched");
    let after = std::fs::metadata(&file).unwrap();
    assert_eq!(after.permissions(), before.permissions());
    assert_eq!(after.modified().unwrap(), before.modified().unwrap());
}

/// Tries to reach an address in each way there is, and says how that ends. A call without an address, or with half of one, is
/// none of the sweep's business.
const REACH: &str = r#"
import ctypes, errno, fcntl, os, socket, sys
said = []

def attempt(name, family, kind, call):
    try:
        with socket.socket(family, kind) as s: call(s)
        said.append(f'{name} reached')
    except OSError as error: said.append(f'{name} {errno.errorcode[error.errno]}')

def bogus(s):
    # No such family.
    if ctypes.CDLL(None, use_errno=True).connect(s.fileno(), bytes([99]) + bytes(15), 16) < 0:
        raise OSError(ctypes.get_errno(), '')

def many(s, address):
    # As long as sockaddr_in, in the second message.
    name = bytes([2, 0]) + address[1].to_bytes(2, 'big') + socket.inet_aton(address[0]) + bytes(8)
    local = bytes([2, 0]) + address[1].to_bytes(2, 'big') + socket.inet_aton('127.0.0.1') + bytes(8)
    buffers = [ctypes.create_string_buffer(local), ctypes.create_string_buffer(name)]
    headers = (ctypes.c_uint64 * 16)()
    for i, buffer in enumerate(buffers): headers[8 * i] = ctypes.addressof(buffer); headers[8 * i + 1] = 16
    if ctypes.CDLL(None, use_errno=True).syscall(307, s.fileno(), headers, 2, 0) < 0:
        raise OSError(ctypes.get_errno(), '')

inet, inet6, unix = socket.AF_INET, socket.AF_INET6, socket.AF_UNIX
stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
for host in ('192.0.2.1', '127.0.0.1'):
    there = (host, 9)
    attempt(f'connect {host}', inet, datagram, lambda s: s.connect(there))
    attempt(f'sendto {host}', inet, datagram, lambda s: s.sendto(b'x', there))
    attempt(f'sendmsg {host}', inet, datagram, lambda s: s.sendmsg([b'x'], [], 0, there))
    attempt(f'sendmmsg {host}', inet, datagram, lambda s: many(s, there))
attempt('fast open', inet, stream, lambda s: s.sendto(b'x', socket.MSG_FASTOPEN, ('192.0.2.1', 9)))
attempt('IPv6', inet6, datagram, lambda s: s.connect(('2001:db8::1', 9)))
attempt('mapped', inet6, datagram, lambda s: s.connect(('::ffff:192.0.2.1', 9)))
for path in sys.argv[2:]:
    attempt(path, unix, stream, lambda s: s.connect(path))
server = socket.socket(unix, stream); server.bind('own'); server.listen()
attempt('own', unix, stream, lambda s: s.connect('own'))
os.symlink(sys.argv[2], 'link')
attempt('link', unix, stream, lambda s: s.connect('link'))
attempt('bogus', inet, datagram, bogus)
attempt('no address', unix, stream, lambda s: s.send(b'x'))
def removexattrat(path):
    if ctypes.CDLL(None, use_errno=True).syscall(466, -100, path.encode(), 0, b'user.none') < 0:
        raise OSError(ctypes.get_errno(), '')

plain = sys.argv[2] + '.plain'
attempt('attributes', unix, stream, lambda s: fcntl.ioctl(os.open(plain, os.O_RDONLY), 0x40086602, bytes(8)))
attempt('extended attributes', unix, stream, lambda s: removexattrat(plain))
ctypes.CDLL(None, use_errno=True).syscall(425, 0, 0)
said.append(f'io_uring {errno.errorcode[ctypes.get_errno()]}')
open(f'{sys.argv[1]}/{os.getpid()}', 'w').write('\n'.join(said))
"#;

/// What all runs have said.
fn said_in(directory: &Path) -> HashMap<String, String> {
    let runs = std::fs::read_dir(directory).unwrap();
    let mut texts: Vec<_> = runs
        .map(|run| std::fs::read_to_string(run.unwrap().path()).unwrap())
        .collect();
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
    let lines = texts[0].lines().map(|line| line.rsplit_once(' ').unwrap());
    lines.map(|(name, end)| (name.into(), end.into())).collect()
}

#[tokio::test]
async fn nobody_outside_is_reached() {
    let directory = tempfile::tempdir().unwrap();
    let [socket, other] = ["socket", "other"].map(|name| directory.path().join(name));
    std::fs::write(directory.path().join("socket.plain"), "").unwrap();
    let servers = [&socket, &other].map(|path| std::os::unix::net::UnixListener::bind(path).unwrap());
    let reach = |to: &Path| {
        let mut command = command(python(), ["-c", REACH]);
        command.args([to, &socket, &other]);
        command
    };
    let said = async |change: &dyn Fn(Sweep) -> Sweep| {
        let to = tempfile::tempdir().unwrap();
        let sweep = Sweep::new(reach(to.path())).calls(Sysno::chdir);
        let report = run(change(sweep.writable(to.path()))).await;
        assert!(report.trials.is_empty(), "{report}");
        said_in(to.path())
    };
    let names = |path: &Path| path.to_str().unwrap().to_owned();
    let here = ["connect", "sendto", "sendmsg", "sendmmsg"];
    let closed = said(&|sweep| sweep).await;
    for call in here {
        assert_eq!(closed[&format!("{call} 192.0.2.1")], "ENETUNREACH", "{closed:?}");
        assert_eq!(closed[&format!("{call} 127.0.0.1")], "reached", "{closed:?}");
    }
    for name in ["fast open", "bogus"] {
        assert_eq!(closed[name], "ENETUNREACH", "{closed:?}");
    }
    for name in ["IPv6", "mapped"] {
        // Without IPv6, there is no socket for it.
        assert!(
            ["ENETUNREACH", "EAFNOSUPPORT"].contains(&&*closed[name]),
            "{closed:?}"
        );
    }
    for name in [names(&socket), names(&other), "link".into()] {
        assert_eq!(closed[&name], "EACCES", "{closed:?}");
    }
    assert_eq!((&*closed["own"], &*closed["no address"]), ("reached", "ENOTCONN"));
    assert_eq!(closed["io_uring"], "EPERM");
    for name in ["attributes", "extended attributes"] {
        assert_eq!(closed[name], "EROFS", "{closed:?}");
    }

    let asked = said(&|sweep| sweep.writable(&socket)).await;
    assert_eq!(asked[&names(&socket)], "reached", "{asked:?}");
    assert_eq!((&*asked["link"], &*asked[&names(&other)]), ("reached", "EACCES"));
    assert_eq!(asked["connect 192.0.2.1"], "ENETUNREACH");

    // Whatever this machine makes of it.
    let to = tempfile::tempdir().unwrap();
    let (alone, listener) = reach(to.path()).current_dir(to.path()).spawn().await.unwrap();
    drop(within("the end", alone.wait_with_output()).await.unwrap());
    drop(listener);
    std::fs::remove_file(to.path().join("own")).unwrap();
    std::fs::remove_file(to.path().join("link")).unwrap();
    let open = said_in(to.path());
    let reached = open.iter().find(|(name, _)| name.contains("192.0.2.1")).unwrap();
    let online = said(&Sweep::online).await;
    assert_eq!(
        (&online[reached.0], &*online["bogus"]),
        (reached.1, "EAFNOSUPPORT")
    );
    assert_eq!(online[&names(&socket)], "EACCES");
    assert_eq!(said(&Sweep::unconfined).await, open);
    drop(servers);
}

#[tokio::test]
async fn what_is_asked_for_is_touched() {
    for unconfined in [false, true] {
        let victim = victim();
        let script = "echo x >$1/file; chmod 600 $1/file";
        let mut command = shell(script);
        command.args(["sh".as_ref(), victim.path().as_os_str()]);
        let sweep = Sweep::new(command).calls(Sysno::chdir);
        run(if unconfined {
            sweep.unconfined()
        } else {
            sweep.writable(victim.path())
        })
        .await;
        let file = victim.path().join("file");
        assert_eq!(std::fs::read(&file).unwrap(), b"x\n");
        assert_eq!(
            std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}

#[tokio::test]
async fn nobody_outside_gets_a_signal() {
    let mut sleeper = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let report =
        run(Sweep::new(shell(&format!("kill -9 {} || exit 7", sleeper.id()))).calls(Sysno::chdir)).await;
    assert_eq!(
        report.baseline.ending,
        asm_tracer::sweep::Ending::Exited(7),
        "{report}"
    );
    assert!(sleeper.try_wait().unwrap().is_none());
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}

#[tokio::test]
async fn directories_are_removed_and_what_was_started_is_killed() {
    let scratch = tempfile::tempdir().unwrap();
    let pids = tempfile::tempdir().unwrap();
    // A process in a session of its own, which holds the output open.
    let script = format!(
        "mkfifo fifo; setsid bash -c 'echo $$ >{}/$$; echo >fifo; exec sleep 1000' & read line <fifo",
        pids.path().display()
    );
    let sweep = Sweep::new(shell(&script))
        .scratch(scratch.path())
        .writable(pids.path());
    let report = run(sweep.calls(Sysno::openat).errors([Errno::ENOENT]).limit(8)).await;
    assert_eq!(report.count(Verdict::Hang), 0, "{report}");
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    let pids = std::fs::read_dir(pids.path()).unwrap();
    let pids: Vec<u32> = pids
        .map(|pid| pid.unwrap().file_name().into_string().unwrap().parse().unwrap())
        .collect();
    assert!(pids.len() >= 5, "{report}");
    for pid in pids {
        until("it is gone", || {
            proc_status(pid, "State").is_none_or(|state| state.starts_with('Z'))
        })
        .await;
    }
}

#[tokio::test]
async fn a_sweep_that_is_dropped_leaves_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let sweep = Sweep::new(shell("cd /; sleep 0")).scratch(scratch.path());
    drop(begun(sweep, 3).await);
    until("the directories are gone", || {
        std::fs::read_dir(scratch.path()).unwrap().count() == 0
    })
    .await;
}

#[tokio::test]
async fn a_sweep_that_is_dropped_kills_what_runs_whatever_its_command_says() {
    let pids = tempfile::tempdir().unwrap();
    let file = pids.path().join("pid");
    let mut command = shell("echo $$ >$1; exec sleep 1000");
    command
        .args(["sh".as_ref(), file.as_os_str()])
        .kill_on_drop(false);
    let mut running = Box::pin(Sweep::new(command).writable(pids.path()).run());
    let pid = || std::fs::read_to_string(&file).ok()?.trim().parse().ok();
    tokio::select! {
        report = &mut running => panic!("{report:?}"),
        () = until("it runs", || pid().is_some()) => {}
    }
    drop(running);
    until("it is gone", || {
        proc_status(pid().unwrap(), "State").is_none_or(|state| state.starts_with('Z'))
    })
    .await;
}

/// When its call fails, it makes a process in a session of its own, which leaves its number, and waits for it.
const HANGING: &str = r#"
#include <sys/file.h>
int main(int argc, char **argv) {
    if (flock(0, LOCK_SH) == 0) return 0;
    if (fork() == 0) {
        setsid();
        char name[4096];
        snprintf(name, sizeof name, "%s/%d", argv[argc - 1], getpid());
        close(open(name, O_CREAT | O_WRONLY, 0600));
        for (;;) pause();
    }
    wait(NULL);
    return 1;
}
"#;

/// Where its tasks are dropped in any order.
#[test]
fn a_sweep_whose_runtime_ends_leaves_nothing() {
    for workers in [None, Some(2)] {
        let (scratch, pids) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut command = Command::new(target::program("sweep_hanging", HANGING));
        command.arg(pids.path());
        let sweep = Sweep::new(command)
            .scratch(scratch.path())
            .writable(pids.path())
            .jobs(4)
            .calls(Sysno::flock)
            .deadline(std::time::Duration::from_secs(1000));
        let mut builder = match workers {
            None => tokio::runtime::Builder::new_current_thread(),
            Some(_) => tokio::runtime::Builder::new_multi_thread(),
        };
        let runtime = builder
            .worker_threads(workers.unwrap_or(1))
            .enable_all()
            .build()
            .unwrap();
        let pids = || -> Vec<u32> {
            let files = std::fs::read_dir(pids.path()).unwrap();
            let pids = files.map(|file| file.unwrap().file_name().into_string().unwrap());
            pids.map(|pid| pid.parse().unwrap()).collect()
        };
        runtime.block_on(async {
            tokio::spawn(sweep.run());
            until("four runs hang", || pids().len() == 4).await;
        });
        drop(runtime);
        until_blocking("the directories are gone", || {
            std::fs::read_dir(scratch.path()).unwrap().count() == 0
        });
        for pid in pids() {
            until_blocking("it is gone", || {
                proc_status(pid, "State").is_none_or(|state| state.starts_with('Z'))
            });
        }
    }
}
