//! The table of calls and errors, and what its cells show when they are pressed.

use std::fmt;

use super::super::Report;
use super::super::escape::Html;
use super::super::legend::{class, gist, letter, tally};
use super::super::matrix::{Cell, Matrix};
use super::head::chip;

pub(super) fn write(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    let matrix = Matrix::new(&report.trials);
    f.write_str("<section id=\"matrix\">\n<h2>Calls and errors</h2>\n")?;
    if matrix.rows.is_empty() {
        return f.write_str("<p>There are no trials.</p>\n</section>\n");
    }
    f.write_str(
        "<p class=\"hint\">Each cell has the worst of its trials and how many others there are. Press one for the \
         trials. Errors that led to something worse come first.</p>\n\
         <div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Calls and errors\">\n\
         <table class=\"matrix\">\n<thead><tr><td></td>",
    )?;
    for errno in &matrix.errnos {
        write!(
            f,
            "<th scope=\"col\" title=\"{}\"><span>{errno:?}</span></th>",
            Html(errno.desc())
        )?;
    }
    f.write_str("</tr></thead>\n<tbody>\n")?;
    for row in &matrix.rows {
        let name = row.sysno.name();
        write!(
            f,
            "<tr><th scope=\"row\" title=\"{}\">{name}</th>",
            tally(&row.counts())
        )?;
        for (errno, cell) in matrix.errnos.iter().zip(&row.cells) {
            button(
                f,
                &format!("{name}-{errno:?}"),
                &format!("{name}, {errno:?}"),
                cell,
            )?;
        }
        f.write_str("</tr>\n")?;
    }
    f.write_str("</tbody>\n</table>\n</div>\n")?;
    for row in &matrix.rows {
        for (errno, cell) in matrix.errnos.iter().zip(&row.cells) {
            let heading = format!("{} <span>fails with</span> {errno:?}", row.sysno);
            popover(f, &format!("{}-{errno:?}", row.sysno), &heading, cell)?;
        }
    }
    f.write_str("</section>\n")
}

fn button(f: &mut fmt::Formatter<'_>, id: &str, what: &str, cell: &Cell<'_>) -> fmt::Result {
    let Some(worst) = cell.worst() else {
        return f.write_str("<td></td>");
    };
    let (class, letter, tally) = (class(worst), letter(worst), tally(&cell.counts()));
    write!(
        f,
        "<td><button type=\"button\" class=\"{class}\" popovertarget=\"{id}\" title=\"{what}: {tally}\" \
         aria-label=\"{what}: {tally}\">{letter}"
    )?;
    match cell.trials.len() {
        1 => {}
        count => write!(f, "<small>+{}</small>", count - 1)?,
    }
    f.write_str("</button></td>")
}

fn popover(f: &mut fmt::Formatter<'_>, id: &str, heading: &str, cell: &Cell<'_>) -> fmt::Result {
    if cell.trials.is_empty() {
        return Ok(());
    }
    writeln!(
        f,
        "<div class=\"cell\" popover id=\"{id}\">\n<h3>{heading}</h3>\n<ul>"
    )?;
    for (place, trial) in &cell.trials {
        f.write_str("<li>")?;
        chip(f, trial.verdict)?;
        let case = trial.case.to_string();
        write!(
            f,
            "<a href=\"#trial-{place}\">{}</a> <span>{}</span>",
            Html(&case),
            trial.ending
        )?;
        if let Some(gist) = gist(trial) {
            write!(f, "<span class=\"gist\">{}</span>", Html(&gist))?;
        }
        f.write_str("</li>\n")?;
    }
    f.write_str("</ul>\n</div>\n")
}
