//! Calls as spans and events of `tracing`.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use asm_tracer::{Command, Errno, Filter, Stdio, Supervisor, Sysno};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::support::within;
use crate::{builder, finished, reader, to_channel};

/// Keeps what it is told about a span: its fields, its events, and whether it was closed.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Span>>>);

#[derive(Clone, Default, Debug)]
struct Span {
    fields: Vec<(String, String)>,
    events: Vec<Vec<(String, String)>>,
    closed: bool,
}

struct Fields<'a>(&'a mut Vec<(String, String)>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push((field.name().into(), format!("{value:?}")));
    }
}

impl Subscriber for Kept {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "asm_tracer::record" && *metadata.level() == Level::DEBUG
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        assert_eq!(attributes.metadata().name(), "call");
        let mut span = Span::default();
        attributes.record(&mut Fields(&mut span.fields));
        let mut spans = self.0.lock().unwrap();
        spans.push(span);
        Id::from_u64(spans.len() as u64)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let mut spans = self.0.lock().unwrap();
        values.record(&mut Fields(&mut spans[id.into_u64() as usize - 1].fields));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let id = event.parent().expect("an event of a call").into_u64();
        let mut fields = Vec::new();
        event.record(&mut Fields(&mut fields));
        let mut spans = self.0.lock().unwrap();
        let span = &mut spans[id as usize - 1];
        assert!(!span.closed);
        span.events.push(fields);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}

    fn try_close(&self, id: Id) -> bool {
        self.0.lock().unwrap()[id.into_u64() as usize - 1].closed = true;
        true
    }
}

fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut found = fields.iter().filter(|(field, _)| field == name);
    found.next().map(|(_, value)| value.as_str())
}

async fn cat(recorder: &asm_tracer::record::Recorder) -> (i32, usize) {
    let mut supervisor = Supervisor::new();
    let mut command = reader();
    let mut child = supervisor.spawn(&mut command).await.unwrap();
    let pid = child.id().unwrap() as i32;
    let mut count = 0;
    while let Some(call) = within("a call", supervisor.next()).await {
        let call = recorder.begin(call).await;
        count += 1;
        match call.read_path(call.args()[1] as u64).unwrap().ends_with("passwd") {
            true => call.error(Errno::EACCES).unwrap(),
            false => call.continue_syscall().unwrap(),
        };
    }
    child.wait().await.unwrap();
    (pid, count)
}

/// On a runtime of one thread, whose subscriber is that thread's own.
#[tokio::test]
async fn a_subscriber_sees_a_span_of_each_call_and_an_event_of_its_answer() {
    let kept = Kept::default();
    let _guard = tracing::subscriber::set_default(kept.clone());
    let recorder = builder().to_tracing();
    let (pid, count) = cat(&recorder).await;
    let finished = within("the end", recorder.finish()).await;
    assert_eq!((finished.written, finished.dropped), (0, 0));

    let spans = kept.0.lock().unwrap();
    assert_eq!(spans.len(), count);
    let pid = pid.to_string();
    for span in spans.iter() {
        assert_eq!(field(&span.fields, "name"), Some("\"openat\""));
        assert_eq!(field(&span.fields, "nr"), Some("257"));
        assert_eq!(field(&span.fields, "tid"), Some(pid.as_str()));
        assert_eq!(field(&span.fields, "pid"), Some(pid.as_str()));
        let args = field(&span.fields, "args").unwrap();
        assert!(args.starts_with("[0xffffff"), "{args}");
        let [event] = &span.events[..] else {
            panic!("{span:?}")
        };
        let denied = field(&span.fields, "paths") == Some("[\"/etc/passwd\"]");
        let answer = if denied { "Failed(EACCES)" } else { "Continued" };
        assert_eq!(field(event, "answer"), Some(answer));
        assert!(field(event, "held_us").unwrap().parse::<f64>().unwrap() > 0.0);
        assert!(span.closed);
    }
    let paths = spans.iter().filter(|span| field(&span.fields, "paths").is_some());
    assert_eq!(paths.count(), count);
}

#[tokio::test]
async fn spans_go_together_with_lines_and_are_not_made_unasked() {
    let kept = Kept::default();
    let _guard = tracing::subscriber::set_default(kept.clone());
    let (recorder, trace) = to_channel(builder());
    cat(&recorder).await;
    finished(recorder, trace).await;
    assert!(kept.0.lock().unwrap().is_empty());

    let (recorder, trace) = to_channel(builder().spans(true));
    let (_, count) = cat(&recorder).await;
    assert_eq!(finished(recorder, trace).await.len(), count);
    assert_eq!(kept.0.lock().unwrap().len(), count);
}

/// In a process in which there never was one.
#[test]
fn without_a_subscriber_nothing_is_looked_at() {
    let test = "spans::without_a_subscriber_nothing_is_looked_at";
    crate::support::in_process_of_its_own(test, || {
        crate::support::start::current_thread().block_on(async {
            let recorder = builder().to_tracing();
            let mut supervisor = Supervisor::new();
            let mut command = Command::new("cat");
            command.arg("/etc/passwd").stdout(Stdio::null());
            command.filter(Filter::new().trap(Sysno::openat));
            let mut child = supervisor.spawn(&mut command).await.unwrap();
            while let Some(call) = within("a call", supervisor.next()).await {
                let begun = futures::FutureExt::now_or_never(recorder.begin(call));
                let call = begun.expect("nothing to wait for");
                assert!(call.span().is_disabled());
                call.continue_syscall().unwrap();
            }
            assert!(child.wait().await.unwrap().success());
        });
    });
}
