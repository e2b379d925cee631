//! The lines of `trace`, taken apart again.

/// `[pid/tid] name(arguments) = answer <held µs>`
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    pub(crate) name: String,
    pub(crate) arguments: String,
}

/// All lines, each of which must be whole, continued, and of printable characters alone.
pub(crate) fn parse(text: &str) -> Vec<Line> {
    text.lines()
        .map(|line| parse_line(line).unwrap_or_else(|| panic!("{line:?} in\n{text}")))
        .collect()
}

fn parse_line(line: &str) -> Option<Line> {
    let printable = |char: char| matches!(char, ' '..='~' | 'µ' | '…');
    let (who, rest) = line.strip_prefix('[')?.split_once("] ")?;
    let (pid, tid) = who.split_once('/').unwrap_or((who, who));
    let (call, held) = rest.rsplit_once(") = continued <")?;
    let (name, arguments) = call.split_once('(')?;
    let held: f64 = held.strip_suffix(" µs>")?.parse().ok()?;
    let sound = line.chars().all(printable) && held > 0.0 && held < 60e6;
    sound.then_some(Line {
        pid: pid.parse().ok()?,
        tid: tid.parse().ok()?,
        name: name.into(),
        arguments: arguments.into(),
    })
}

/// The arguments of all calls of this name, in order.
pub(crate) fn calls<'a>(lines: &'a [Line], name: &str) -> Vec<&'a str> {
    let named = lines.iter().filter(|line| line.name == name);
    named.map(|line| line.arguments.as_str()).collect()
}
