//! The trials of a report by call and error.

use nix::errno::Errno;
use syscalls::Sysno;

use crate::sweep::trial::{Trial, Verdict};

/// A table with a row for each call and a column for each error.
pub(super) struct Matrix<'a> {
    /// Those first that came to something worse.
    pub(super) errnos: Vec<Errno>,
    /// In the order in which the program first makes the calls.
    pub(super) rows: Vec<Row<'a>>,
}

/// What came of one kind of call.
pub(super) struct Row<'a> {
    pub(super) sysno: Sysno,
    /// As many as there are errors.
    pub(super) cells: Vec<Cell<'a>>,
}

/// The trials of one kind of call with one error; there may be none. Their places in the report go with them.
#[derive(Default)]
pub(super) struct Cell<'a> {
    pub(super) trials: Vec<(usize, &'a Trial)>,
}

impl<'a> Matrix<'a> {
    pub(super) fn new(trials: &'a [Trial]) -> Self {
        let errnos = columns(trials);
        let mut rows: Vec<Row<'a>> = Vec::new();
        for (place, trial) in trials.iter().enumerate() {
            let Some(column) = errnos.iter().position(|errno| *errno == trial.case.errno()) else {
                continue;
            };
            let sysno = trial.case.sysno();
            let row = rows
                .iter()
                .position(|row| row.sysno == sysno)
                .unwrap_or(rows.len());
            if row == rows.len() {
                rows.push(Row::new(sysno, errnos.len()));
            }
            rows[row].cells[column].trials.push((place, trial));
        }
        Self { errnos, rows }
    }
}

/// The errors, in the order of the worst that they led to, then of how often they led to a finding, then of their names.
fn columns(trials: &[Trial]) -> Vec<Errno> {
    let mut errnos: Vec<(Errno, Verdict, usize)> = Vec::new();
    for trial in trials {
        let errno = trial.case.errno();
        let finding = usize::from(trial.verdict.is_finding());
        match errnos.iter_mut().find(|(known, ..)| *known == errno) {
            Some((_, worst, findings)) => {
                *worst = trial.verdict.min(*worst);
                *findings += finding;
            }
            None => errnos.push((errno, trial.verdict, finding)),
        }
    }
    errnos.sort_by_cached_key(|&(errno, worst, findings)| {
        let worst = worst.is_finding().then_some(worst);
        (
            worst.is_none(),
            worst,
            std::cmp::Reverse(findings),
            format!("{errno:?}"),
        )
    });
    errnos.into_iter().map(|(errno, ..)| errno).collect()
}

impl Row<'_> {
    fn new(sysno: Sysno, columns: usize) -> Self {
        let cells = std::iter::repeat_with(Cell::default).take(columns).collect();
        Self { sysno, cells }
    }

    /// The verdicts of the trials of this call, and how many came to each, the worst first.
    pub(super) fn counts(&self) -> Vec<(Verdict, usize)> {
        counts(self.cells.iter().flat_map(|cell| &cell.trials))
    }
}

impl Cell<'_> {
    /// The worst of the verdicts.
    pub(super) fn worst(&self) -> Option<Verdict> {
        self.trials.iter().map(|(_, trial)| trial.verdict).min()
    }

    /// As [`Row::counts`].
    pub(super) fn counts(&self) -> Vec<(Verdict, usize)> {
        counts(&self.trials)
    }
}

fn counts<'a>(trials: impl IntoIterator<Item = &'a (usize, &'a Trial)>) -> Vec<(Verdict, usize)> {
    let mut counts = Verdict::ALL.map(|verdict| (verdict, 0));
    for (_, trial) in trials {
        let count = counts.iter_mut().find(|(verdict, _)| *verdict == trial.verdict);
        if let Some((_, count)) = count {
            *count += 1;
        }
    }
    counts.into_iter().filter(|(_, count)| *count > 0).collect()
}
