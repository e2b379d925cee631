//! Which cases there are.

use nix::errno::Errno;

use super::case::Case;
use super::errors::documented_errors;
use super::learn::Kind;

/// Every call with every error that it documents: the first call of each kind comes first, then the second, and so on, so
/// that a sweep that does not come to the end has seen as much as it can.
pub(super) fn of<'a>(
    calls: &'a [(Kind, u64)],
    wanted: Option<&'a [Errno]>,
) -> impl Iterator<Item = Case> + 'a {
    let most = calls.iter().map(|(_, count)| *count).max().unwrap_or(0);
    let round = move |occurrence| {
        let made = calls.iter().filter(move |(_, count)| occurrence <= *count);
        made.flat_map(move |(kind, _)| {
            let errors = errors(kind, wanted);
            errors.map(move |errno| Case::new(&*kind.lineage, kind.sysno, occurrence, errno))
        })
    };
    (1..=most).flat_map(round)
}

/// How many there are.
pub(super) fn count(calls: &[(Kind, u64)], wanted: Option<&[Errno]>) -> u64 {
    let cases = calls
        .iter()
        .map(|(kind, count)| errors(kind, wanted).count() as u64 * count);
    cases.sum()
}

fn errors<'a>(kind: &Kind, wanted: Option<&'a [Errno]>) -> impl Iterator<Item = Errno> + 'a {
    let documented = documented_errors(kind.sysno).iter().copied();
    documented.filter(move |errno| wanted.is_none_or(|wanted| wanted.contains(errno)))
}
