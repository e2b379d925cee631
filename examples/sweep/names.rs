//! Names of calls and errors on the command line.

use asm_tracer::{Errno, Sysno};

/// The calls with these names, with commas between them.
pub(crate) fn calls(names: &str) -> Result<Vec<Sysno>, String> {
    let known = Sysno::iter().map(|call| (call.name().to_owned(), call));
    list(names, "system call", &known.collect::<Vec<_>>())
}

/// The errors with these names, with commas between them.
pub(crate) fn errors(names: &str) -> Result<Vec<Errno>, String> {
    let known = (1..4096).map(Errno::from_raw);
    let known = known.filter(|errno| *errno != Errno::UnknownErrno);
    let known = known.map(|errno| (format!("{errno:?}"), errno));
    list(names, "error", &known.collect::<Vec<_>>())
}

fn list<T: Copy>(names: &str, what: &str, known: &[(String, T)]) -> Result<Vec<T>, String> {
    let one = |name: &str| {
        let found = known.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let refusal = format!("there is no {what} `{}`", name.escape_debug());
            match nearest(name, known.iter().map(|(name, _)| name)) {
                Some(meant) => format!("{refusal}; is `{meant}` meant?"),
                None => refusal,
            }
        })
    };
    names.split(',').map(one).collect()
}

/// The name that takes the fewest changes, if these are few.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    // No call has a longer one.
    let name = Some(name).filter(|name| name.len() < 40)?.to_lowercase();
    let distances = known.map(|other| (distance(&name, &other.to_lowercase()), other));
    let (distance, nearest) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + name.len() / 5).then_some(nearest)
}

/// How many letters have to be put in, taken out, replaced or swapped with the next (optimal string alignment).
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows = vec![(0..=other.len()).collect::<Vec<_>>()];
    for i in 1..=one.len() {
        let mut row = vec![i];
        for j in 1..=other.len() {
            let differ = usize::from(one[i - 1] != other[j - 1]);
            let mut least = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + differ);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}
