//! The signals that break a sweep off.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Those that end a program from outside, unless it was started such that they don't, by `nohup(1)` for example.
pub(crate) struct Stop(Vec<(SignalKind, Signal)>);

impl Stop {
    /// From now on they don't end this program.
    pub(crate) fn catch() -> io::Result<Self> {
        let ignored = ignored()?;
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        let heeded = kinds
            .into_iter()
            .filter(|kind| ignored & 1 << (kind.as_raw_value() - 1) == 0);
        let caught = heeded.map(|kind| Ok((kind, signal(kind)?)));
        caught.collect::<io::Result<_>>().map(Self)
    }

    /// Waits for one of them, and gives its number.
    pub(crate) async fn signal(&mut self) -> u8 {
        std::future::poll_fn(|cx| {
            for (kind, signal) in &mut self.0 {
                if signal.poll_recv(cx).is_ready() {
                    return u8::try_from(kind.as_raw_value()).unwrap_or_default().into();
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

/// The set of signals that this program ignores.
fn ignored() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    u64::from_str_radix(set.unwrap_or("0").trim(), 16).map_err(io::Error::other)
}
