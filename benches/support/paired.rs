//! Measures two things in turn, so that whatever else the machine does meets both.

use std::time::Duration;

use criterion::BenchmarkGroup;
use criterion::measurement::WallTime;

/// Lets Criterion measure `subject`, each sample right after one of `floor`, and prints the median of their ratios.
pub(crate) fn paired(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    mut floor: impl FnMut(u64) -> Duration,
    mut subject: impl FnMut(u64) -> Duration,
) {
    let mut pairs = Vec::new();
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            let floor = floor(iterations);
            let subject = subject(iterations);
            pairs.push((
                floor.div_f64(iterations as f64),
                subject.div_f64(iterations as f64),
            ));
            subject
        });
    });
    if pairs.is_empty() {
        return; // Filtered out on the command line.
    }
    let ratio = median(
        pairs
            .iter()
            .map(|(floor, subject)| subject.as_secs_f64() / floor.as_secs_f64()),
    );
    let floor = median(pairs.iter().map(|(floor, _)| floor.as_secs_f64()));
    let subject = median(pairs.iter().map(|(_, subject)| subject.as_secs_f64()));
    println!(
        "RATIO {name}: {ratio:.2} (floor {:.3} µs, subject {:.3} µs, difference {:+.1} ns; medians of {} pairs)",
        floor * 1e6,
        subject * 1e6,
        (subject - floor) * 1e9,
        pairs.len()
    );
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
