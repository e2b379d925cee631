//! A call as a span of `tracing`, and its answer as an event. Without the feature, nothing.

#[cfg(feature = "tracing")]
mod present {
    use tracing::field::{Empty, debug};
    use tracing::{Level, event, span};

    use crate::notify::Notification;
    use crate::record::Record;

    const TARGET: &str = "asm_tracer::record";

    pub(in super::super) struct Span(pub(in super::super) tracing::Span);

    impl Span {
        pub(in super::super) fn none() -> Self {
            Self(tracing::Span::none())
        }

        pub(in super::super) fn new(call: &Notification) -> Self {
            let span = span!(
                target: TARGET,
                Level::DEBUG,
                "call",
                name = call.sysno().map(|sysno| sysno.name()),
                nr = call.nr(),
                tid = call.tid(),
                pid = Empty,
                args = Empty,
                paths = Empty,
            );
            if !span.is_disabled() {
                span.record("args", debug(call.args().map(Hex)));
            }
            Self(span)
        }

        pub(in super::super) fn is_enabled(&self) -> bool {
            !self.0.is_disabled()
        }

        pub(in super::super) fn looked(&self, record: &Record) {
            if self.is_enabled() {
                if let Some(pid) = record.pid {
                    self.0.record("pid", pid);
                }
                let paths: Vec<_> = record.paths().collect();
                if !paths.is_empty() {
                    self.0.record("paths", debug(paths));
                }
            }
        }

        pub(in super::super) fn answered(&self, record: &Record) {
            if self.is_enabled() {
                let observed = record.observed.map(debug);
                event!(
                    target: TARGET,
                    parent: &self.0,
                    Level::DEBUG,
                    answer = ?record.answer,
                    held_us = record.held.as_nanos() as f64 / 1e3,
                    observed,
                    "answered"
                );
            }
        }
    }

    struct Hex(i64);

    impl std::fmt::Debug for Hex {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{:#x}", self.0)
        }
    }
}

#[cfg(feature = "tracing")]
pub(super) use present::Span;

#[cfg(not(feature = "tracing"))]
pub(super) struct Span;

#[cfg(not(feature = "tracing"))]
impl Span {
    pub(super) fn none() -> Self {
        Self
    }

    pub(super) fn new(_: &crate::notify::Notification) -> Self {
        Self
    }

    pub(super) fn is_enabled(&self) -> bool {
        false
    }

    pub(super) fn looked(&self, _: &super::Record) {}

    pub(super) fn answered(&self, _: &super::Record) {}
}
