//! A progress bar, where somebody sees it.

use asm_tracer::sweep::Progress;
use indicatif::{ProgressBar, ProgressStyle};

/// On the standard error, if that is a terminal; nothing otherwise.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::no_length();
        bar.set_message("running the program without a fault");
        bar.set_style(style("{spinner} {msg}"));
        bar.enable_steady_tick(std::time::Duration::from_millis(100));
        Self(bar)
    }

    /// Shows how far the sweep is.
    pub(crate) fn watcher(&self) -> impl FnMut(&Progress<'_>) + Send + 'static {
        let bar = self.0.clone();
        move |progress| {
            let Some(last) = progress.last else { return };
            if bar.length() != Some(progress.total as u64) {
                bar.set_length(progress.total as u64);
                bar.reset_eta();
                bar.set_style(style(
                    "{spinner} {bar:30} {pos}/{len} runs, {per_sec:0}, {eta} left, {msg}",
                ));
            }
            bar.set_position(progress.done as u64);
            bar.set_message(format!("{} findings, {}", progress.findings, last.case));
        }
    }

    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
