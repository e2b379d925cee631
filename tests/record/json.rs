//! Traces as JSON lines, read back.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use asm_tracer::record::{self, Answer, Finished, Line, Missing, Record};
use asm_tracer::{Command, Errno, Filter, Observed, Stdio, Supervisor, Sysno};
use proptest::prelude::*;

use crate::support::within;
use crate::{builder, pass_all, python, record as call, shell, to_channel};

fn opens() -> Filter {
    Filter::new().trap(Sysno::openat)
}

fn read_whole(reader: impl Read) -> Vec<Line> {
    record::read(reader).collect::<io::Result<_>>().unwrap()
}

#[tokio::test]
async fn a_file_has_what_a_person_wants_to_read_and_a_program_reads_back() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("trace.jsonl");
    let recorder = builder().to_json(File::create(&file).unwrap()).unwrap();
    let names: [&[u8]; 3] = [b"/etc/passwd", b"/nowhere/caf\xe9", b"/nowhere/\xc3\xa9\"\\\n"];
    let mut command = Command::new("cat");
    command.args(names.map(OsStr::from_bytes)).filter(opens());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut supervisor = Supervisor::new();
    let mut child = supervisor.spawn(&mut command).await.unwrap();
    while let Some(call) = within("a call", supervisor.next()).await {
        let call = recorder.begin(call).await;
        let path = call.read_path(call.args()[1] as u64).unwrap();
        if path == Path::new("/etc/passwd") {
            call.error(Errno::EACCES).unwrap();
        } else if path.starts_with("/nowhere") {
            call.continue_and_observe().await.unwrap();
        } else {
            call.continue_syscall().unwrap();
        }
    }
    child.wait().await.unwrap();
    let finished = within("the trace", recorder.finish()).await;
    assert!(finished.error.is_none() && finished.dropped == 0);

    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(r#""text":"/etc/passwd"}"#), "{text}");
    assert!(
        text.contains(r#""answer":{"failed":{"errno":13,"name":"EACCES"}}"#),
        "{text}"
    );
    assert!(text.contains(r#""text":"/nowhere/caf","hex":"e9"}"#), "{text}");
    assert!(text.contains(r#""observed":{"returned":-2}"#), "{text}");
    let mut lines = read_whole(File::open(&file).unwrap());
    assert!(matches!(lines.pop(), Some(Line::End(sums)) if sums.written == finished.written));
    let records: Vec<Record> = lines.into_iter().map(call).collect();
    assert_eq!(records.len() as u64, finished.written);
    for name in names {
        let record = records
            .iter()
            .find(|record| record.paths().any(|path| path.as_os_str().as_bytes() == name));
        let record = record.unwrap_or_else(|| panic!("{name:?}"));
        let observed = Observed::Returned(-(Errno::ENOENT as i64));
        match name {
            b"/etc/passwd" => assert_eq!(record.answer, Answer::Failed(Errno::EACCES)),
            _ => assert_eq!(
                (record.answer, record.observed),
                (Answer::Continued, Some(observed))
            ),
        }
    }
    // Other programs can read it, too.
    let script = "import json, sys; print(len([json.loads(line) for line in open(sys.argv[1])]))";
    let counted = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(&file)
        .output()
        .unwrap();
    let counted = String::from_utf8(counted.stdout).unwrap();
    assert_eq!(counted.trim(), (finished.written + 1).to_string());
}

/// Makes this call so often.
fn calls(count: usize) -> Command {
    python(&format!("import os\nfor _ in range({count}): os.umask(0o22)"))
}

/// A destination that can be looked at.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn lines_are_the_same_after_they_were_written_and_read() {
    let (recorder, trace) = to_channel(builder().buffers(100));
    let mut command = shell("printf '\\377\\0x'; cat /etc/passwd; umask 022; exec false");
    pass_all(&recorder, &mut command, Filter::trap_all()).await;
    let _ = recorder.finish().await;
    let lines: Vec<Line> = trace.iter().collect();
    let mut text = Vec::new();
    for line in &lines {
        serde_json::to_writer(&mut text, line).unwrap();
        text.push(b'\n');
    }
    assert!(lines.len() > 50);
    assert_eq!(read_whole(&text[..]), lines);
}

#[tokio::test]
async fn lines_are_there_at_once_while_a_program_runs() {
    let destination = Shared::default();
    let recorder = builder().to_json(destination.clone()).unwrap();
    let mut supervisor = Supervisor::new();
    let mut command = Command::new("cat");
    command.arg("/etc/passwd").stdout(Stdio::null()).filter(opens());
    let mut child = supervisor.spawn(&mut command).await.unwrap();
    let mut count = 0;
    while let Some(call) = within("a call", supervisor.next()).await {
        recorder.pass(call).await.unwrap();
        count += 1;
        crate::support::until("its line is there", || {
            read_whole(&destination.0.lock().unwrap()[..]).len() == count
        })
        .await;
    }
    assert!(child.wait().await.unwrap().success() && count > 1);
}

#[tokio::test]
async fn a_pipe_that_nobody_reads_costs_records_and_no_time() {
    let (reader, writer) = io::pipe().unwrap();
    let recorder = builder()
        .queue(16)
        .grace(Duration::from_millis(100))
        .to_json(writer);
    let recorder = recorder.unwrap();
    pass_all(&recorder, &mut calls(4000), Filter::new().trap(Sysno::umask)).await;
    let dropped = recorder.dropped();
    assert!(dropped > 0);
    let reading = std::thread::spawn(move || read_whole(BufReader::new(reader)));
    let Finished {
        written,
        dropped,
        error,
        ..
    } = within("the trace", recorder.finish()).await;
    assert!(error.is_none());
    assert_eq!(written + dropped, 4000);
    let (mut calls, mut missing) = (0, 0);
    let mut lines = reading.join().unwrap();
    assert!(matches!(lines.pop(), Some(Line::End(_))));
    for line in lines {
        match line {
            Line::Call(_) => calls += 1,
            Line::Dropped(gap) => missing += gap.calls,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((calls, missing), (written, dropped));
}

#[tokio::test]
async fn a_full_disk_and_a_broken_pipe_end_the_trace_alone() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (reader, broken) = io::pipe().unwrap();
    drop(reader);
    let destinations: [(Box<dyn Write + Send>, Errno); 2] =
        [(Box::new(full), Errno::ENOSPC), (Box::new(broken), Errno::EPIPE)];
    for (destination, errno) in destinations {
        let recorder = builder().to_json(destination).unwrap();
        pass_all(&recorder, &mut calls(4), Filter::new().trap(Sysno::umask)).await;
        let finished = within("the end", recorder.finish()).await;
        assert_eq!((finished.written, finished.dropped), (0, 4));
        assert_eq!(finished.error.unwrap().raw_os_error(), Some(errno as i32));
    }
}

#[test]
fn what_is_no_line_is_an_error_and_the_next_one_is_read() {
    let text = b"{\"type\":\"end\",\"written\":1,\"dropped\":0}\nx\n{\"type\":\"else\"}\n\xff\n\
        {\"type\":\"dropped\",\"calls\":3,\"time_us\":5}\n{\"type\":\"end\",\"wri";
    let lines: Vec<_> = record::read(&text[..]).collect();
    let kinds: Vec<_> = lines
        .iter()
        .map(|line| line.as_ref().err().map(io::Error::kind))
        .collect();
    let invalid = Some(io::ErrorKind::InvalidData);
    let cut = Some(io::ErrorKind::UnexpectedEof);
    assert_eq!(kinds, [None, invalid, invalid, invalid, None, cut]);
    for bad in [
        r#"{"type":"dropped","calls":3,"time_us":18446744073709551615}"#,
        r#"{"type":"dropped","calls":-3,"time_us":1}"#,
        "[1,2]",
        "",
        "\n",
    ] {
        for line in record::read(bad.as_bytes()) {
            let _ = line;
        }
    }
    assert_eq!(record::read(&b""[..]).count(), 0);
}

const RECORD: &str = r#"{"type":"call","time_us":1,"held_ns":2,"child":3,"pid":null,"tid":null,"arch":"x86_64","nr":1,
    "name":"write","args":["0x0","0x0","0x0","0x0","0x0","0x0"],
    "memory":[{"argument":1,"kind":"buffer","text":""}],"answer":"continued"}"#;

fn example() -> Record {
    call(serde_json::from_str(RECORD).unwrap())
}

proptest! {
    /// Whatever the target hands over.
    #[test]
    fn bytes_registers_and_times_survive(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            "\\PC{0,20}".prop_map(String::into_bytes),
        ],
        args in any::<[i64; 6]>(),
        nr in any::<i32>(),
        (time, held, ran) in (0..1_u64 << 50, any::<u64>(), any::<Option<u64>>()),
        value in any::<i64>(),
        errno in 1..134,
        truncated in any::<bool>(),
        faulted in any::<bool>(),
    ) {
        let mut record = example();
        record.memory[0].bytes = bytes;
        record.memory[0].truncated = truncated;
        record.memory[0].missing = faulted.then_some(Missing::Fault);
        record.args = args;
        record.nr = nr.into();
        record.time = std::time::UNIX_EPOCH + Duration::from_micros(time);
        record.held = Duration::from_nanos(held);
        record.ran = ran.map(Duration::from_nanos);
        record.observed = Some(Observed::Returned(value));
        for answer in [
            Answer::Failed(Errno::from_raw(errno)),
            Answer::Returned(value),
            Answer::Rewritten { nr: value, args },
            Answer::Descriptor,
        ] {
            record.answer = answer;
            let line = Line::Call(Box::new(record.clone()));
            let text = serde_json::to_string(&line).unwrap();
            prop_assert!(!text.contains('\n'));
            prop_assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,60}", at in 0..RECORD.len(), byte in any::<u8>()) {
        for line in record::read(text.as_bytes()) {
            let _ = line;
        }
        let mut spoilt = RECORD.replace('\n', "").into_bytes();
        let at = at.min(spoilt.len() - 1);
        spoilt[at] = byte;
        for line in record::read(&spoilt[..]) {
            let _ = line;
        }
    }
}
