//! The report of a sweep as text, as a page and as JSON.
#![cfg(feature = "sweep")]

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use asm_tracer::sweep::{Report, Verdict};
use proptest::prelude::*;
use serde_json::{Value, json};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// Runs of `cp`, some of which have what a hostile program would write.
fn report() -> Report {
    serde_json::from_str(include_str!("fixtures/sweep_report.json")).unwrap()
}

fn report_with(change: impl FnOnce(&mut Value)) -> Report {
    let mut value = serde_json::to_value(report()).unwrap();
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

/// To be written anew, when it is meant to be another, with `REGENERATE=1`.
#[test]
fn the_text_is_the_one_that_was_looked_at() {
    let text = report().to_string();
    let path = fixture("sweep_report.txt");
    if std::env::var_os("REGENERATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert!(text == expected, "{text}");
}

#[test]
fn the_text_has_each_finding_and_how_to_repeat_it() {
    let report = report();
    let text = report.to_string();
    assert!(report.findings().len() > 10);
    for finding in report.findings() {
        assert!(
            text.contains(&format!("{}: {}", finding.verdict, finding.case)),
            "{}",
            finding.case
        );
        assert!(text.contains(&format!("again:   {}\n", report.repeat(finding))));
        if let Some(command) = report.strace(finding) {
            assert!(text.contains(&format!("strace:  {command}\n")));
        }
    }
}

/// However many errors there are.
#[test]
fn the_matrix_fits_on_a_terminal() {
    let report = of_every_error();
    let text = report.to_string();
    let (_, matrix) = text.split_once("it did not make the call this time\n").unwrap();
    let (matrix, _) = matrix.split_once("\n`+2`").unwrap();
    let mut headings = Vec::new();
    for line in matrix.lines() {
        assert!(line.len() <= 80, "{line}");
        headings.extend(line.split_whitespace().filter(|word| word.starts_with('E')));
    }
    headings.sort_unstable();
    let mut errnos: Vec<_> = report
        .trials
        .iter()
        .map(|trial| format!("{:?}", trial.case.errno()))
        .collect();
    errnos.sort_unstable();
    errnos.dedup();
    assert_eq!(headings, errnos);
}

/// A report with a trial for every error that there is, all of them crashes.
fn of_every_error() -> Report {
    report_with(|report| {
        let trial = report["trials"][3].clone();
        let errnos = (1..134).map(asm_tracer::Errno::from_raw);
        let errnos = errnos.filter(|errno| *errno != asm_tracer::Errno::UnknownErrno);
        let names = errnos.map(|errno| format!("openat#1={errno:?}"));
        let names = names.chain(["openat#2=EIO", "read#1=EIO"].map(str::to_owned));
        report["trials"] = names
            .map(|case| {
                let mut trial = trial.clone();
                trial["case"] = json!(case);
                trial
            })
            .collect();
    })
}

#[test]
fn long_lists_are_bounded_in_text_and_whole_in_the_page() {
    let report = of_every_error();
    let (text, page) = (report.to_string(), report.to_html());
    assert_eq!(text.matches("crash: openat#").count(), 50);
    assert!(text.contains(&format!("… and {} more findings\n", report.trials.len() - 50)));
    assert_eq!(
        page.matches("<details class=\"finding crash\"").count(),
        report.trials.len()
    );

    let report = report_with(|report| {
        let trial = &mut report["trials"][3];
        trial["message"] = json!("x".repeat(100_000) + "\nlast\n");
        trial["hung"] = json!(
            (0..32)
                .map(|thread| format!("thread {thread}"))
                .collect::<Vec<_>>()
        );
        let file = json!({"path": "p".repeat(100_000), "change": "extra"});
        trial["files"] = json!(vec![file; 32]);
        report["baseline"]["volatile"] = json!(vec!["v".repeat(100_000); 1000]);
    });
    let text = report.to_string();
    assert!(text.len() < 50_000, "{} bytes", text.len());
    assert!(text.contains("… and 28 more\n") && text.contains("… and 990 more\n") && text.contains("last\n"));
}

#[test]
fn a_report_of_nothing_is_one_too() {
    let report = report_with(|report| report["trials"] = json!([]));
    assert!(report.to_string().ends_with("No findings.\n"));
    check_page(&report.to_html());
}

#[test]
fn json_has_all_of_it() {
    let report = report();
    let json = report.to_json().unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
}

#[test]
fn the_page_has_every_trial_once() {
    let report = report();
    let page = report.to_html();
    for (place, trial) in report.trials.iter().enumerate() {
        assert_eq!(
            page.matches(&format!("id=\"trial-{place}\"")).count(),
            1,
            "{}",
            trial.case
        );
        assert!(
            page.contains(&format!("<code>{}</code>", trial.case)),
            "{}",
            trial.case
        );
    }
    for verdict in Verdict::ALL {
        assert!(page.contains(&format!("<span class=\"count\">{}</span>", report.count(verdict))));
    }
}

#[test]
fn the_page_is_well_formed() {
    check_page(&report().to_html());
    check_page(&of_every_error().to_html());
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let page = report().to_html();
    for reference in [
        "http:", "https:", "url(", "@import", "<link", "<img", "<iframe", "<script ", "<style ",
    ] {
        let found = page.find(reference).map(|place| page[place..].lines().next());
        assert_eq!(found, None, "{reference}");
    }
}

#[test]
fn what_a_program_wrote_is_inert() {
    let command = json!(["cp", "it's <script>alert(6)</script>\x1b[2J"]);
    let report = report_with(|report| report["command"] = command);
    let page = report.to_html();
    assert_eq!(page.matches("<script").count(), 1);
    assert_eq!(page.matches("</script").count(), 1);
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    for hostile in [
        "<script>alert",
        "<img",
        "<svg",
        "<b>&amp;",
        "<i>",
        "\x1b",
        "\u{202e}",
    ] {
        assert!(!page.contains(hostile), "{hostile:?}");
    }
    for (number, wrote) in [
        (1, "message"),
        (3, "file"),
        (4, "files"),
        (6, "command"),
        (7, "volatile"),
    ] {
        assert!(
            page.contains(&format!("&lt;script&gt;alert({number})")),
            "{wrote}"
        );
    }
}

/// A browser takes no other style or script than those whose hashes the page has.
#[test]
fn the_policy_allows_the_style_and_the_script() {
    let page = report().to_html();
    for element in ["style", "script"] {
        let (_, content) = page.split_once(&format!("<{element}>")).unwrap();
        let (content, _) = content.split_once(&format!("</{element}>")).unwrap();
        let source = format!("{element}-src 'sha256-{}'", base64(&sha256(content.as_bytes())));
        assert!(page.contains(&source), "the policy should have {source}");
    }
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    let mut command = Command::new("sha256sum");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    let hex = String::from_utf8(output.stdout).unwrap();
    let digits = hex.split_whitespace().next().unwrap();
    (0..64)
        .step_by(2)
        .map(|place| u8::from_str_radix(&digits[place..place + 2], 16).unwrap())
        .collect()
}

fn base64(bytes: &[u8]) -> String {
    let alphabet: Vec<char> = ('A'..='Z')
        .chain('a'..='z')
        .chain('0'..='9')
        .chain(['+', '/'])
        .collect();
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits =
            three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        let digits = (0..=three.len()).map(|digit| alphabet[(bits >> (18 - 6 * digit)) as usize % 64]);
        text.extend(digits);
        text.extend(std::iter::repeat_n('=', 3 - three.len()));
    }
    text
}

/// Elements that have no end.
const VOID: [&str; 3] = ["meta", "input", "br"];

/// Checks that each element ends where it should, that each attribute is quoted, that no name is given twice, and that
/// whatever is referred to is there.
fn check_page(page: &str) {
    let mut rest = page.strip_prefix("<!DOCTYPE html>\n").unwrap();
    let (mut open, mut ids, mut references) = (Vec::new(), HashMap::new(), Vec::new());
    while let Some((_, tag)) = rest.split_once('<') {
        let (tag, after) = tag_end(tag);
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{tag}");
            continue;
        }
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric()), "<{tag}>");
        for (attribute, value) in attributes_of(attributes) {
            match attribute {
                "id" => assert_eq!(ids.insert(value, ()), None, "{value}"),
                "popovertarget" => references.push(value),
                "href" => references.push(value.strip_prefix('#').unwrap()),
                "src" | "srcset" | "style" | "action" | "background" => panic!("<{tag}>"),
                _ => assert!(!attribute.starts_with("on"), "<{tag}>"),
            }
        }
        match name {
            "style" | "script" => {
                let (_, after) = rest.split_once(&format!("</{name}>")).unwrap();
                rest = after;
            }
            _ if VOID.contains(&name) => {}
            _ => open.push(name),
        }
    }
    assert_eq!(open, Vec::<&str>::new());
    assert!(references.iter().all(|reference| ids.contains_key(reference)));
}

/// A tag, and what follows it. There may be `>` within quotes.
fn tag_end(text: &str) -> (&str, &str) {
    let mut quoted = false;
    for (place, char) in text.char_indices() {
        match char {
            '"' => quoted = !quoted,
            '>' if !quoted => return (&text[..place], &text[place + 1..]),
            _ => {}
        }
    }
    panic!("a tag without an end: {text:.80}");
}

fn attributes_of(mut text: &str) -> Vec<(&str, &str)> {
    let mut attributes = Vec::new();
    while !text.is_empty() {
        let end = text.find([' ', '=']).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        assert!(
            name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'),
            "{name}"
        );
        let (value, rest) = match rest.strip_prefix("=\"") {
            Some(value) => value.split_once('"').unwrap(),
            None => ("", rest),
        };
        attributes.push((name, value));
        text = rest.strip_prefix(' ').unwrap_or_else(|| rest.trim_end());
    }
    attributes
}

/// Text as a hostile program might write it.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<String>(),
        "[<>&\"'/= \\\\\n\r\t\u{0}-\u{1f}\u{7f}-\u{9f}\u{200b}-\u{202e}a-z]{0,12}",
        Just("</script><script>alert(1)</script>".to_owned()),
        Just("\x1b]0;title\x07\x1b[2J".to_owned()),
        Just("--><!-- ]]> </pre></details>".to_owned()),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_is_more_than_text(texts in prop::collection::vec(text(), 9)) {
        let fill = |report: &mut Value, texts: [&str; 9]| {
            let [command, argument, volatile, lineage, message, file, path, hung, words] = texts;
            report["command"] = json!([command, argument]);
            report["repeat_with"] = json!(words);
            report["baseline"]["volatile"] = json!([volatile]);
            // One that is a finding, and one that isn't.
            for (trial, case) in [(3, "write#1=EIO"), (5, "read#1=EIO")] {
                let trial = &mut report["trials"][trial];
                trial["case"] = json!(format!("{lineage}:{case}"));
                trial["message"] = json!(message);
                trial["file"] = json!(file);
                trial["files"] = json!([{"path": path, "change": "extra"}]);
                trial["hung"] = json!([hung]);
            }
        };
        let texts: [&str; 9] = std::array::from_fn(|place| texts[place].as_str());
        let report = report_with(|report| fill(report, texts));

        let text = report.to_string();
        prop_assert!(!text.chars().any(|char| char.is_control() && char != '\n'), "{text:?}");

        // There is as much markup as with texts that have none. Of the message there may be no last line.
        let page = report.to_html();
        let plain = report_with(|report| fill(report, texts.map(|text| if text.trim().is_empty() { text } else { "x" })));
        check_page(&page);
        prop_assert_eq!(markup(&page), markup(&plain.to_html()));
        prop_assert!(!page.chars().any(|char| char.is_control() && char != '\n' && char != '\t'));

        prop_assert_eq!(serde_json::from_str::<Report>(&report.to_json().unwrap()).unwrap(), report);
    }
}

fn markup(page: &str) -> usize {
    page.matches('<').count()
}
