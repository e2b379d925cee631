//! What is recorded of real programs.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use asm_tracer::record::{Answer, MemoryKind, Record};
use asm_tracer::{Command, Filter, Sysno};

use crate::support::in_process_of_its_own;
use crate::support::target::thread_runs;
use crate::{EITHER_WAY, builder, python, records_of, shell};

fn opens() -> Filter {
    Filter::new().trap(Sysno::openat)
}

fn of<'a>(records: &'a [Record], name: &'a str) -> impl Iterator<Item = &'a Record> {
    records
        .iter()
        .filter(move |record| record.name.as_deref() == Some(name))
}

#[tokio::test]
async fn paths_are_what_the_program_has_named() {
    for in_place in EITHER_WAY {
        let before = SystemTime::now() - Duration::from_millis(1);
        let names: [&[u8]; 3] = [b"/etc/passwd", b"/nowhere/caf\xe9", b"/nowhere/\"\\\n"];
        let mut command = Command::new("cat");
        command.args(names.map(OsStr::from_bytes));
        let records = records_of(builder().in_place(in_place), &mut command, opens()).await;
        let paths: Vec<_> = records.iter().flat_map(Record::paths).collect();
        for name in names {
            let path = Path::new(OsStr::from_bytes(name));
            assert_eq!(
                paths.iter().filter(|found| **found == path).count(),
                1,
                "{path:?}"
            );
        }
        for record in &records {
            assert_eq!(record.sysno(), Some(Sysno::openat));
            assert_eq!(record.nr, Sysno::openat as i64);
            assert_eq!(record.args[0] as i32, -100);
            assert_eq!(record.answer, Answer::Continued);
            assert_eq!((record.pid, record.child), (record.tid, records[0].child));
            assert!(record.held > Duration::ZERO && record.ran.is_none() && record.observed.is_none());
            assert!(record.time >= before && record.time <= SystemTime::now());
            assert!(record.memory.iter().all(|memory| memory.argument == 1));
        }
        assert!(
            records.is_sorted_by_key(|record| record.time),
            "a program of one thread"
        );
    }
}

#[tokio::test]
async fn buffers_are_cut_where_they_were_to_be() {
    let script = r"
import os, socket
os.write(1, b'abc'); os.write(1, b'0123456789'); os.write(1, b'')
os.writev(1, [b'ab', b'', b'cd', b'efg'])
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
try: s.connect('/nowhere/socket')
except OSError: pass
try: s.sendmsg([b'one', b'two'], [], 0, '/nowhere/other')
except OSError: pass
";
    let calls = [Sysno::write, Sysno::writev, Sysno::connect, Sysno::sendmsg];
    for in_place in EITHER_WAY {
        let records = records_of(
            builder().buffers(5).in_place(in_place),
            &mut python(script),
            Filter::new().trap(calls),
        )
        .await;
        let buffers: Vec<_> = records
            .iter()
            .flat_map(|record| &record.memory)
            .filter(|memory| memory.kind == MemoryKind::Buffer)
            .map(|memory| (memory.bytes.as_slice(), memory.truncated))
            .collect();
        let expected: [(&[u8], bool); 5] = [
            (b"abc", false),
            (b"01234", true),
            (b"", false),
            (b"abcde", true),
            (b"onetw", true),
        ];
        assert_eq!(buffers, expected);
        let addresses: Vec<_> = records
            .iter()
            .flat_map(|record| &record.memory)
            .filter(|memory| memory.kind == MemoryKind::Address)
            .map(|memory| memory.bytes.split_at(2).1.strip_suffix(b"\0").unwrap())
            .collect();
        assert_eq!(addresses, [&b"/nowhere/socket"[..], b"/nowhere/other"]);
        assert!(
            records
                .iter()
                .flat_map(|r| &r.memory)
                .all(|m| m.missing.is_none())
        );
    }

    // What was not asked for is not there.
    let filter = Filter::new().trap(calls);
    let records = records_of(builder().addresses(false), &mut python(script), filter).await;
    assert!(records.iter().all(|record| record.memory.is_empty()));
    let none = records_of(builder().paths(false), &mut Command::new("cat"), opens()).await;
    assert!(!none.is_empty() && none.iter().all(|record| record.memory.is_empty()));
}

#[test]
fn what_is_read_in_place_takes_no_other_thread() {
    in_process_of_its_own("programs::what_is_read_in_place_takes_no_other_thread", || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            for in_place in [true, false] {
                let records =
                    records_of(builder().in_place(in_place), &mut Command::new("cat"), opens()).await;
                assert!(records.iter().flat_map(Record::paths).count() > 0);
                // It waits for more to do for some seconds.
                assert_ne!(thread_runs("asm_tracer-look"), in_place);
            }
        });
    });
}

#[tokio::test]
async fn descendants_and_threads_are_told_apart() {
    let records = records_of(
        builder(),
        &mut shell("true; (cat /etc/passwd); cat /etc/group"),
        opens(),
    )
    .await;
    let processes: BTreeSet<_> = records.iter().map(|record| record.pid.unwrap()).collect();
    let trees: BTreeSet<_> = records.iter().map(|record| record.child).collect();
    assert_eq!((processes.len(), trees.len()), (3, 1));

    let script = "import threading, os; t = threading.Thread(target=lambda: os.mkdir('/nowhere/x') ); t.start(); t.join()";
    let records = records_of(builder(), &mut python(script), Filter::new().trap(Sysno::mkdir)).await;
    let [record] = &records[..] else {
        panic!("{records:?}")
    };
    assert!(record.pid.unwrap() != record.tid.unwrap());
    assert_eq!(record.paths().next(), Some(Path::new("/nowhere/x")));
}

#[tokio::test]
async fn every_call_of_a_program_is_recorded() {
    let script =
        "/usr/bin/env python3 -S -c 'import os\nfor _ in range(100): os.umask(0o22)'; mkdir /nowhere/x";
    let records = records_of(builder().buffers(64), &mut shell(script), Filter::trap_all()).await;
    assert_eq!(of(&records, "umask").count(), 100);
    let exits = of(&records, "exit_group")
        .map(|record| record.pid)
        .collect::<BTreeSet<_>>();
    assert_eq!(exits.len(), of(&records, "exit_group").count());
    assert!(of(&records, "execve").any(|record| record.paths().any(|path| path.ends_with("mkdir"))));
    let message = of(&records, "write").flat_map(|record| &record.memory);
    let said: Vec<u8> = message.flat_map(|memory| memory.bytes.clone()).collect();
    assert!(String::from_utf8(said).unwrap().contains("/nowhere/x"));
}
