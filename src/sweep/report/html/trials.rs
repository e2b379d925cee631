//! The trials: those with findings one by one, and all of them by their calls.

use std::fmt;

use super::super::Report;
use super::super::escape::{Html, HtmlLines};
use super::super::legend::{Rounded, class, gist, number, remarks, tally};
use super::super::matrix::{Matrix, Row};
use super::head::chip;
use crate::sweep::trial::{Trial, Verdict};

/// How many findings are open from the outset, to show what there is.
const OPEN: usize = 1;

pub(super) fn findings(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    let mut findings: Vec<_> = report.trials.iter().enumerate().collect();
    findings.retain(|(_, trial)| trial.verdict.is_finding());
    findings.sort_by_key(|(_, trial)| trial.rank());
    f.write_str("<section id=\"findings\">\n<h2>Findings</h2>\n")?;
    if findings.is_empty() {
        return f.write_str("<p>None.</p>\n</section>\n");
    }
    filter(f, report)?;
    for (position, (place, trial)) in findings.into_iter().enumerate() {
        let (class, open) = (class(trial.verdict), if position < OPEN { " open" } else { "" });
        writeln!(
            f,
            "<details class=\"finding {class}\" id=\"trial-{place}\"{open}>"
        )?;
        summary(f, trial)?;
        description(f, report, trial)?;
        f.write_str("</details>\n")?;
    }
    f.write_str("</section>\n")
}

/// A box to tick for each verdict, which the style acts on, and a search for the script.
fn filter(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    f.write_str("<div class=\"filter\">\n")?;
    for verdict in Verdict::ALL.into_iter().filter(|verdict| verdict.is_finding()) {
        if let count @ 1.. = report.count(verdict) {
            let class = class(verdict);
            write!(f, "<label><input type=\"checkbox\" id=\"show-{class}\" checked>")?;
            chip(f, verdict)?;
            writeln!(f, "{verdict} <b>{count}</b></label>")?;
        }
    }
    let label = "aria-label=\"Search the findings\" placeholder=\"Search\"";
    writeln!(f, "<input type=\"search\" id=\"search\" {label} hidden>\n</div>")
}

pub(super) fn by_call(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    f.write_str("<section id=\"calls\">\n<h2>All trials by call</h2>\n")?;
    for row in &Matrix::new(&report.trials).rows {
        call(f, report, row)?;
    }
    f.write_str("</section>\n")
}

fn call(f: &mut fmt::Formatter<'_>, report: &Report, row: &Row<'_>) -> fmt::Result {
    let mut trials: Vec<_> = row.cells.iter().flat_map(|cell| &cell.trials).collect();
    trials.sort_by_key(|(place, _)| *place);
    let (name, count) = (row.sysno.name(), number(trials.len() as u64, "trial"));
    writeln!(
        f,
        "<details class=\"call\">\n<summary><code>{name}</code> <b>{count}</b>"
    )?;
    writeln!(
        f,
        "<span class=\"ending\">{}</span></summary>",
        tally(&row.counts())
    )?;
    f.write_str("<ul class=\"trials\">\n")?;
    for &(place, trial) in trials {
        if trial.verdict.is_finding() {
            f.write_str("<li><div class=\"trial\">")?;
            line(f, trial, Some(place))?;
            f.write_str("</div></li>\n")?;
        } else {
            writeln!(f, "<li><details class=\"trial\" id=\"trial-{place}\">")?;
            summary(f, trial)?;
            description(f, report, trial)?;
            f.write_str("</details></li>\n")?;
        }
    }
    f.write_str("</ul>\n</details>\n")
}

fn summary(f: &mut fmt::Formatter<'_>, trial: &Trial) -> fmt::Result {
    f.write_str("<summary>")?;
    line(f, trial, None)?;
    f.write_str("</summary>\n")
}

/// A trial on a line, with a link to its place if it is elsewhere.
fn line(f: &mut fmt::Formatter<'_>, trial: &Trial, elsewhere: Option<usize>) -> fmt::Result {
    chip(f, trial.verdict)?;
    let case = trial.case.to_string();
    match elsewhere {
        Some(place) => write!(
            f,
            "<a class=\"what\" href=\"#trial-{place}\"><code>{}</code></a>",
            Html(&case)
        )?,
        None => write!(f, "<span class=\"what\"><code>{}</code></span>", Html(&case))?,
    }
    write!(f, "<span class=\"name\">{}</span>", trial.verdict)?;
    let gist = gist(trial).unwrap_or_default();
    write!(f, "<span class=\"gist\">{}</span>", Html(&gist))?;
    write!(
        f,
        "<span class=\"ending\">{} after {}",
        trial.ending,
        Rounded(trial.duration)
    )?;
    for remark in remarks(trial) {
        write!(f, "; {remark}")?;
    }
    f.write_str("</span>")
}

/// Everything that is known of a trial.
fn description(f: &mut fmt::Formatter<'_>, report: &Report, trial: &Trial) -> fmt::Result {
    f.write_str("<dl>\n")?;
    if !trial.message.trim().is_empty() {
        let message = trial.message.trim_end_matches('\n');
        // The first line break in such an element is not part of its text.
        writeln!(f, "<dt>message</dt><dd><pre>\n{}</pre></dd>", HtmlLines(message))?;
    }
    list(f, "hung", &trial.hung, |f, place| {
        write!(f, "<code>{}</code>", Html(place))
    })?;
    list(f, "files", &trial.files, |f, file| {
        write!(f, "<code>{}</code> {}", Html(&file.path), file.change)
    })?;
    write!(f, "<dt>fault</dt><dd><code>{}</code>", trial.case.sysno())?;
    if let Some(file) = &trial.file {
        write!(f, " on <code>{}</code>", Html(file))?;
    }
    writeln!(f, " fails: {}</dd>", Html(trial.case.errno().desc()))?;
    command(f, "again", &report.repeat(trial))?;
    if let Some(strace) = report.strace(trial) {
        command(f, "strace", &strace)?;
    }
    f.write_str("</dl>\n")
}

fn command(f: &mut fmt::Formatter<'_>, label: &str, command: &str) -> fmt::Result {
    writeln!(
        f,
        "<dt>{label}</dt><dd class=\"command\"><code>{}</code></dd>",
        Html(command)
    )
}

fn list<T>(
    f: &mut fmt::Formatter<'_>,
    label: &str,
    items: &[T],
    one: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    write!(f, "<dt>{label}</dt><dd><ul>")?;
    for item in items {
        f.write_str("<li>")?;
        one(f, item)?;
        f.write_str("</li>")?;
    }
    f.write_str("</ul></dd>\n")
}
