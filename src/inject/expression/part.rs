//! Parts of an expression, and what is wrong with them.

use std::ops::Range;

/// A part of the expression, which knows its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) text: &'a str,
    pub(super) start: usize,
}

pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) place: Range<usize>,
}

pub(super) type Parsed<T> = Result<T, Wrong>;

impl<'a> Part<'a> {
    pub(super) fn wrong<T>(self, message: impl Into<String>) -> Parsed<T> {
        Err(Wrong {
            message: message.into(),
            place: self.start..self.start + self.text.len(),
        })
    }

    /// All but the first `n` bytes, which are ASCII.
    pub(super) fn skip(self, n: usize) -> Self {
        Self {
            text: &self.text[n..],
            start: self.start + n,
        }
    }

    pub(super) fn strip(self, prefix: &str) -> Option<Self> {
        self.text.starts_with(prefix).then(|| self.skip(prefix.len()))
    }

    pub(super) fn split_once(self, separator: &str) -> Option<(Self, Self)> {
        let at = self.text.find(separator)?;
        let head = Self {
            text: &self.text[..at],
            start: self.start,
        };
        Some((head, self.skip(at + separator.len())))
    }

    pub(super) fn split(self, separator: char) -> impl Iterator<Item = Self> {
        let mut rest = Some(self);
        std::iter::from_fn(move || {
            let part = rest?;
            let mut buffer = [0; 4];
            match part.split_once(separator.encode_utf8(&mut buffer)) {
                Some((head, tail)) => {
                    rest = Some(tail);
                    Some(head)
                }
                None => rest.take(),
            }
        })
    }
}

/// There is no such thing, but perhaps one that is spelled much like it.
pub(super) fn unknown<'a>(what: &str, given: &str, names: impl Iterator<Item = &'a str>) -> String {
    let lower = given.to_ascii_lowercase();
    let near = names
        .map(|name| (distance(&lower, &name.to_ascii_lowercase()), name))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= 2 && given.len() > 2);
    let hint = near.map_or(String::new(), |(_, name)| format!("; did you mean `{name}`?"));
    format!("there is no {what} `{}`{hint}", given.escape_debug())
}

/// How many letters must be inserted, removed or replaced to make one word of the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    if from.len().abs_diff(to.len()) > 2 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}
