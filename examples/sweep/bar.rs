//! A progress bar, where somebody sees it.

use std::time::{Duration, Instant};

use asm_tracer::sweep::Progress;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

/// On the standard error, if that is a terminal; nothing otherwise.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::no_length();
        bar.set_message("running the program without a fault");
        bar.set_style(style("{spinner} {wide_msg}"));
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }

    /// Shows how far the sweep is.
    pub(crate) fn watcher(&self) -> impl FnMut(&Progress<'_>) + Send + 'static {
        let bar = self.0.clone();
        let mut pace = None;
        move |progress| {
            let Some(last) = progress.last else { return };
            let pace = pace.get_or_insert_with(|| {
                bar.set_length(progress.total as u64);
                bar.set_style(style("{spinner} {bar:20} {pos}/{len}{prefix}, {wide_msg}"));
                Pace::from(progress.done)
            });
            bar.set_position(progress.done as u64);
            if let Some(left) = pace.left(progress) {
                bar.set_prefix(format!(", {left:#} left"));
            }
            let findings = match progress.findings {
                1 => "1 finding".into(),
                count => format!("{count} findings"),
            };
            bar.set_message(format!("{findings}, {}", last.case));
        }
    }

    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

/// How fast it goes, apart from what was done before.
struct Pace {
    since: Instant,
    done: usize,
}

impl Pace {
    /// Long enough to tell.
    const LEAST: Duration = Duration::from_millis(500);

    fn from(done: usize) -> Self {
        let since = Instant::now();
        Self { since, done }
    }

    /// For how much longer it goes on, as far as can be told.
    fn left(&self, progress: &Progress<'_>) -> Option<HumanDuration> {
        let elapsed = self.since.elapsed();
        let done = progress.done.checked_sub(self.done).filter(|done| *done > 0)?;
        let left = progress.total.saturating_sub(progress.done);
        let estimate = elapsed.mul_f64(left as f64 / done as f64);
        (elapsed >= Self::LEAST).then_some(HumanDuration(estimate))
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
