//! The head of the page: what was run, and how many came to what.

use std::fmt;

use super::super::Report;
use super::super::escape::Html;
use super::super::legend::{Rounded, class, letter, meaning, number};
use crate::sweep::trial::Verdict;

pub(super) fn write(f: &mut fmt::Formatter<'_>, report: &Report, command: &str) -> fmt::Result {
    write!(
        f,
        "<header>\n<p class=\"kind\">Fault sweep</p>\n<h1>{}</h1>\n",
        Html(command)
    )?;
    f.write_str("<p class=\"facts\">")?;
    let findings = number(report.findings().len() as u64, "finding");
    write!(
        f,
        "<b>{findings}</b> in {} ",
        number(report.trials.len() as u64, "trial")
    )?;
    write!(f, "in {}", Rounded(report.elapsed))?;
    if report.resumed > 0 {
        write!(f, ", {} of them from the journal", report.resumed)?;
    }
    let baseline = &report.baseline;
    write!(
        f,
        ". Undisturbed: {} after {}, ",
        baseline.ending,
        Rounded(baseline.duration)
    )?;
    let (calls, threads) = (number(baseline.calls, "call"), number(baseline.threads, "thread"));
    writeln!(f, "{calls} in {threads}.</p>")?;
    notes(f, report)?;
    f.write_str("<ul class=\"tiles\">\n")?;
    for verdict in Verdict::ALL {
        tile(f, verdict, report.count(verdict))?;
    }
    f.write_str("</ul>\n</header>\n")
}

fn tile(f: &mut fmt::Formatter<'_>, verdict: Verdict, count: usize) -> fmt::Result {
    let none = if count == 0 { " none" } else { "" };
    write!(f, "<li class=\"tile{none}\"><span class=\"count\">{count}</span>")?;
    chip(f, verdict)?;
    let (name, meaning) = (verdict.name(), meaning(verdict));
    writeln!(
        f,
        "<span class=\"name\">{name}</span><span class=\"meaning\">{meaning}</span></li>"
    )
}

/// What bounds the result: cases left out, calls not swept, what is not compared.
fn notes(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    let baseline = &report.baseline;
    let unstable = baseline.unstable_calls;
    if unstable == 0 && baseline.volatile.is_empty() && report.left_out.reasons().next().is_none() {
        return Ok(());
    }
    f.write_str("<ul class=\"notes\">\n")?;
    for (reason, count) in report.left_out.reasons() {
        writeln!(f, "<li><b>{}</b> left out: {reason}</li>", number(count, "case"))?;
    }
    if unstable > 0 {
        let calls = number(unstable, "call");
        writeln!(f, "<li><b>{calls}</b> not made in every run, and not swept</li>")?;
    }
    if !baseline.volatile.is_empty() {
        f.write_str("<li>Differs in each run, and is not compared: ")?;
        for (place, what) in baseline.volatile.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}<code>{}</code>", Html(what))?;
        }
        f.write_str("</li>\n")?;
    }
    f.write_str("</ul>\n")
}

/// The letter of a verdict in its colour.
pub(super) fn chip(f: &mut fmt::Formatter<'_>, verdict: Verdict) -> fmt::Result {
    write!(
        f,
        "<span class=\"chip {}\" title=\"{verdict}\">{}</span>",
        class(verdict),
        letter(verdict)
    )
}
