//! A report on a terminal: what was run, the matrix, the findings.
//!
//! The table of calls and errors is cut into blocks of columns that fit on a terminal of 80. Columns with findings
//! come first, such that the first block has what matters, and a call without a trial in a block has no row there.

use std::fmt;

use super::Report;
use super::escape::Plain;
use super::legend::{Rounded, last_lines, letter, meaning, number, remarks};
use super::matrix::{Cell, Matrix, Row};
use crate::sweep::trial::{Trial, Verdict};

/// The width of a terminal.
const WIDTH: usize = 80;
/// How many findings are described.
const FINDINGS: usize = 50;
/// How many lines of a message are shown, and files, and places where threads hang.
const LINES: usize = 4;
/// How many characters of a line of a message, of a path or of the like are shown.
const LENGTH: usize = 240;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        self.verdicts(f)?;
        self.matrix(f)?;
        self.list_findings(f)
    }
}

impl Report {
    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Fault sweep of {}\n", Plain(&self.command_line()))?;
        let baseline = &self.baseline;
        write!(
            f,
            "  undisturbed   {} after {}, ",
            baseline.ending,
            Rounded(baseline.duration)
        )?;
        write!(f, "{} in ", number(baseline.calls, "call"))?;
        writeln!(f, "{}", number(baseline.threads, "thread"))?;
        write!(
            f,
            "  trials        {} in {}",
            self.trials.len(),
            Rounded(self.elapsed)
        )?;
        match self.resumed {
            0 => f.write_str("\n")?,
            resumed => writeln!(f, ", {resumed} of them from the journal")?,
        }
        for (reason, count) in self.left_out.reasons() {
            writeln!(f, "  left out      {}: {reason}", number(count, "case"))?;
        }
        if baseline.unstable_calls > 0 {
            let calls = number(baseline.unstable_calls, "call");
            writeln!(f, "  unstable      {calls} not made in every run, and not swept")?;
        }
        let volatile = Bounded::new("  not compared  ", 10);
        volatile.write(f, &baseline.volatile, |f, what| {
            write!(f, "{}, which differs in each run", Short(what))
        })
    }

    fn verdicts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\n")?;
        for verdict in Verdict::ALL {
            let (count, letter, meaning) = (self.count(verdict), letter(verdict), meaning(verdict));
            writeln!(f, "  {count:>6}  {letter}  {:<15} {meaning}", verdict.name())?;
        }
        Ok(())
    }

    fn matrix(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let matrix = Matrix::new(&self.trials);
        let names: Vec<_> = matrix.rows.iter().map(|row| row.sysno.name()).collect();
        let label = names.iter().map(|name| name.len()).max().unwrap_or(0);
        let mut first = 0;
        while first < matrix.errnos.len() {
            let columns = Columns::fitting(&matrix, first, WIDTH.saturating_sub(label));
            first = columns.end;
            columns.write(f, &matrix, label)?;
        }
        if !matrix.rows.is_empty() {
            f.write_str("\n`+2`: two more trials of that call and error, which came to nothing worse.\n")?;
        }
        Ok(())
    }

    fn list_findings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let findings = self.findings();
        if findings.is_empty() {
            return f.write_str("\nNo findings.\n");
        }
        writeln!(
            f,
            "\n{}, the worst first",
            number(findings.len() as u64, "finding")
        )?;
        for (place, trial) in findings.iter().take(FINDINGS).enumerate() {
            self.finding(f, place + 1, trial)?;
        }
        match findings.len().saturating_sub(FINDINGS) {
            0 => Ok(()),
            more => writeln!(f, "\n… and {}", number(more as u64, "more finding")),
        }
    }

    fn finding(&self, f: &mut fmt::Formatter<'_>, number: usize, trial: &Trial) -> fmt::Result {
        let Trial { case, verdict, .. } = trial;
        writeln!(
            f,
            "\n{number:>4}. {}: {}",
            verdict.name(),
            Short(&case.to_string())
        )?;
        write!(
            f,
            "      ending:  {} after {}",
            trial.ending,
            Rounded(trial.duration)
        )?;
        for remark in remarks(trial) {
            write!(f, "; {remark}")?;
        }
        f.write_str("\n")?;
        if let Some(file) = &trial.file {
            writeln!(f, "      about:   {}", Short(file))?;
        }
        let (before, lines) = last_lines(&trial.message, LINES);
        let earlier =
            (before > 0).then(|| format!("({} before)", super::legend::number(before as u64, "line")));
        let lines: Vec<_> = earlier.as_deref().into_iter().chain(lines).collect();
        Bounded::new("      message: ", LINES + 1)
            .write(f, &lines, |f, line| write!(f, "{}", Short(line)))?;
        Bounded::new("      files:   ", LINES).write(f, &trial.files, |f, file| {
            write!(f, "{} {}", Short(&file.path), file.change)
        })?;
        Bounded::new("      hung:    ", LINES)
            .write(f, &trial.hung, |f, place| write!(f, "{}", Short(place)))?;
        // Whole, however long: a command that is cut short is of no use.
        writeln!(f, "      again:   {}", Plain(&self.repeat(trial)))?;
        match self.strace(trial) {
            Some(command) => writeln!(f, "      strace:  {}", Plain(&command)),
            None => Ok(()),
        }
    }
}

/// Columns of the matrix that fit beside each other.
struct Columns {
    start: usize,
    end: usize,
    /// The heading of each, and how wide it is.
    headings: Vec<(String, usize)>,
}

impl Columns {
    /// As many as have space, but at least one.
    fn fitting(matrix: &Matrix<'_>, start: usize, space: usize) -> Self {
        let mut headings: Vec<(String, usize)> = Vec::new();
        let mut used = 0;
        for (column, errno) in matrix.errnos.iter().enumerate().skip(start) {
            let name = format!("{errno:?}");
            let cells = matrix.rows.iter().map(|row| in_short(&row.cells[column]).len());
            let width = cells.max().unwrap_or(0).max(name.len());
            if used + 2 + width > space && !headings.is_empty() {
                break;
            }
            used += 2 + width;
            headings.push((name, width));
        }
        Self {
            start,
            end: start + headings.len(),
            headings,
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, matrix: &Matrix<'_>, label: usize) -> fmt::Result {
        let headings = self.headings.iter().map(|(name, width)| (name.clone(), *width));
        write!(f, "\n{}\n", line("", label, headings).trim_end())?;
        let rows = matrix
            .rows
            .iter()
            .map(|row| (row, &row.cells[self.start..self.end]));
        for (row, cells) in rows.filter(|(_, cells)| cells.iter().any(|cell| cell.worst().is_some())) {
            writeln!(f, "{}", self.row(row, cells, label).trim_end())?;
        }
        Ok(())
    }

    fn row(&self, row: &Row<'_>, cells: &[Cell<'_>], label: usize) -> String {
        let widths = self.headings.iter().map(|(_, width)| *width);
        line(row.sysno.name(), label, cells.iter().map(in_short).zip(widths))
    }
}

fn line(label: &str, width: usize, cells: impl Iterator<Item = (String, usize)>) -> String {
    let cells = cells.map(|(cell, width)| format!("  {cell:<width$}"));
    format!("{label:<width$}{}", cells.collect::<String>())
}

/// The worst of a cell, and how many others there are.
fn in_short(cell: &Cell<'_>) -> String {
    match (cell.worst(), cell.trials.len()) {
        (None, _) => ".".into(),
        (Some(worst), 1) => letter(worst).into(),
        (Some(worst), count) => format!("{}+{}", letter(worst), count - 1),
    }
}

/// Text of a program on a line, of which only the start may be shown.
struct Short<'a>(&'a str);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(LENGTH) {
            Some((cut, _)) => write!(
                f,
                "{}… and {} more bytes",
                Plain(&self.0[..cut]),
                self.0.len() - cut
            ),
            None => Plain(self.0).fmt(f),
        }
    }
}

/// A list with a label, of which only the start may be shown.
struct Bounded {
    label: &'static str,
    most: usize,
}

impl Bounded {
    fn new(label: &'static str, most: usize) -> Self {
        Self { label, most }
    }

    fn write<T>(
        &self,
        f: &mut fmt::Formatter<'_>,
        items: &[T],
        one: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
    ) -> fmt::Result {
        let indent = self.label.len();
        for (place, item) in items.iter().take(self.most).enumerate() {
            let label = if place == 0 { self.label } else { "" };
            write!(f, "{label:indent$}")?;
            one(f, item)?;
            f.write_str("\n")?;
        }
        match items.len().saturating_sub(self.most) {
            0 => Ok(()),
            more => writeln!(f, "{:indent$}… and {more} more", ""),
        }
    }
}
