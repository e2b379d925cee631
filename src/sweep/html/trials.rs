//! The trials: those with findings one by one, the others by their calls.

use std::fmt;

use super::super::escape::{Html, HtmlLines};
use super::super::legend::{Rounded, class, last_lines, number, remarks, tally};
use super::super::matrix::{Matrix, Row};
use super::super::report::Report;
use super::super::trial::{Trial, Verdict};
use super::head::chip;

/// How many findings are open from the outset.
const OPEN: usize = 3;

pub(super) fn findings(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    let mut findings: Vec<_> = report.trials.iter().enumerate().collect();
    findings.retain(|(_, trial)| trial.verdict.is_finding());
    findings.sort_by_key(|(_, trial)| (trial.verdict, !trial.steady));
    f.write_str("<section id=\"findings\">\n<h2>Findings</h2>\n")?;
    if findings.is_empty() {
        return f
            .write_str("<p>None: the program came to nothing that it should not come to.</p>\n</section>\n");
    }
    f.write_str("<div class=\"filter\">\n")?;
    for verdict in Verdict::ALL.into_iter().filter(|verdict| verdict.is_finding()) {
        if let count @ 1.. = report.count(verdict) {
            write!(
                f,
                "<label><input type=\"checkbox\" id=\"show-{}\" checked>",
                class(verdict)
            )?;
            chip(f, verdict)?;
            writeln!(f, "{verdict} <b>{count}</b></label>")?;
        }
    }
    f.write_str("<input type=\"search\" id=\"search\" aria-label=\"Search the findings\" placeholder=\"Search\" hidden>\n</div>\n")?;
    for (position, (place, trial)) in findings.into_iter().enumerate() {
        finding(f, report, place, trial, position < OPEN)?;
    }
    f.write_str("</section>\n")
}

fn finding(
    f: &mut fmt::Formatter<'_>,
    report: &Report,
    place: usize,
    trial: &Trial,
    open: bool,
) -> fmt::Result {
    let (class, open) = (class(trial.verdict), if open { " open" } else { "" });
    write!(
        f,
        "<details class=\"finding {class}\" id=\"trial-{place}\"{open}>\n<summary>"
    )?;
    chip(f, trial.verdict)?;
    let case = trial.case.to_string();
    write!(
        f,
        "<span class=\"what\"><code>{}</code> <span class=\"name\">{}</span></span>",
        Html(&case),
        trial.verdict
    )?;
    write!(f, "<span class=\"ending\">{}", trial.ending)?;
    for remark in remarks(trial) {
        write!(f, "; {remark}")?;
    }
    f.write_str("</span></summary>\n")?;
    description(f, report, trial)?;
    f.write_str("</details>\n")
}

/// Everything that is known of a trial.
fn description(f: &mut fmt::Formatter<'_>, report: &Report, trial: &Trial) -> fmt::Result {
    f.write_str("<dl>\n")?;
    write!(
        f,
        "<dt>error</dt><dd>{}</dd>\n<dt>ran</dt><dd>{}</dd>\n",
        Html(trial.case.errno().desc()),
        Rounded(trial.duration)
    )?;
    if let Some(file) = &trial.file {
        writeln!(f, "<dt>about</dt><dd><code>{}</code></dd>", Html(file))?;
    }
    if !trial.message.is_empty() {
        let message = trial.message.trim_end_matches('\n');
        // The first line break of such an element is not part of its text.
        writeln!(f, "<dt>message</dt><dd><pre>\n{}</pre></dd>", HtmlLines(message))?;
    }
    if !trial.files.is_empty() {
        f.write_str("<dt>files</dt><dd><ul>")?;
        for file in &trial.files {
            write!(f, "<li><code>{}</code> {}</li>", Html(&file.path), file.change)?;
        }
        f.write_str("</ul></dd>\n")?;
    }
    if !trial.hung.is_empty() {
        f.write_str("<dt>hung</dt><dd><ul>")?;
        for place in &trial.hung {
            write!(f, "<li><code>{}</code></li>", Html(place))?;
        }
        f.write_str("</ul></dd>\n")?;
    }
    writeln!(
        f,
        "<dt>again</dt><dd class=\"command\"><code>{}</code></dd>",
        Html(&report.repeat(trial))
    )?;
    if let Some(command) = report.strace(trial) {
        writeln!(
            f,
            "<dt>strace</dt><dd class=\"command\"><code>{}</code></dd>",
            Html(&command)
        )?;
    }
    f.write_str("</dl>\n")
}

pub(super) fn others(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    let matrix = Matrix::new(&report.trials);
    f.write_str("<section id=\"calls\">\n<h2>All trials by call</h2>\n")?;
    for row in &matrix.rows {
        call(f, report, row)?;
    }
    f.write_str("</section>\n")
}

fn call(f: &mut fmt::Formatter<'_>, report: &Report, row: &Row<'_>) -> fmt::Result {
    let mut trials: Vec<_> = row.cells.iter().flat_map(|cell| &cell.trials).collect();
    trials.sort_by_key(|(place, _)| *place);
    let (name, count) = (row.sysno.name(), number(trials.len() as u64, "trial"));
    write!(
        f,
        "<details class=\"call\">\n<summary><code>{name}</code> <b>{count}</b> "
    )?;
    writeln!(
        f,
        "<span class=\"ending\">{}</span></summary>",
        tally(&row.counts())
    )?;
    f.write_str("<ul class=\"trials\">\n")?;
    for (place, trial) in trials {
        match trial.verdict.is_finding() {
            true => reference(f, *place, trial)?,
            false => other(f, report, *place, trial)?,
        }
    }
    f.write_str("</ul>\n</details>\n")
}

/// A line for a trial that is among the findings.
fn reference(f: &mut fmt::Formatter<'_>, place: usize, trial: &Trial) -> fmt::Result {
    f.write_str("<li><div class=\"trial\">")?;
    chip(f, trial.verdict)?;
    let case = trial.case.to_string();
    write!(
        f,
        "<span class=\"what\"><a href=\"#trial-{place}\"><code>{}</code></a></span>",
        Html(&case)
    )?;
    writeln!(f, "<span class=\"ending\">{}</span></div></li>", trial.ending)
}

/// A trial that came to nothing that it should not come to.
fn other(f: &mut fmt::Formatter<'_>, report: &Report, place: usize, trial: &Trial) -> fmt::Result {
    write!(f, "<li><details class=\"trial\" id=\"trial-{place}\"><summary>")?;
    chip(f, trial.verdict)?;
    let case = trial.case.to_string();
    write!(f, "<span class=\"what\"><code>{}</code></span>", Html(&case))?;
    write!(f, "<span class=\"ending\">{}", trial.ending)?;
    if let Some(line) = last_lines(&trial.message, 1).1.first() {
        write!(f, " <q>{}</q>", Html(line))?;
    }
    f.write_str("</span></summary>\n")?;
    description(f, report, trial)?;
    f.write_str("</details></li>\n")
}
