//! Files whose names are drawn anew each time: `tmp.XXXXXX`, or one with a pid.

use std::collections::BTreeSet;

/// So many drawn names of an undisturbed run are looked for.
const MOST: usize = 256;

/// Takes out of `extra` what has taken the place of something in `gone`, each for one: a path with the same names in it but
/// for what may have been drawn.
pub(super) fn take_out(extra: &mut BTreeSet<&String>, gone: impl Iterator<Item = impl AsRef<str>>) {
    for path in gone.take(MOST) {
        let successor = extra
            .iter()
            .find(|other| is_similar(path.as_ref(), other))
            .copied();
        if let Some(successor) = successor {
            extra.remove(successor);
        }
    }
}

fn is_similar(one: &str, other: &str) -> bool {
    one.matches('/').count() == other.matches('/').count()
        && one
            .split('/')
            .zip(other.split('/'))
            .all(|(one, other)| one == other || is_drawn(one.as_bytes(), other.as_bytes()))
}

/// Whether what is between the common beginning and the common end may be drawn: letters and digits of the same number, or
/// a number.
fn is_drawn(one: &[u8], other: &[u8]) -> bool {
    let common = |pairs: &mut dyn Iterator<Item = (&u8, &u8)>| pairs.take_while(|(a, b)| a == b).count();
    let before = common(&mut one.iter().zip(other));
    let middle = |name: &[u8], after: usize| -> Option<Vec<u8>> {
        let end = name.len().checked_sub(after)?;
        Some(name.get(before..end)?.to_vec())
    };
    let rest = [one, other].map(|name| name.get(before..).unwrap_or_default());
    let after = common(&mut rest[0].iter().rev().zip(rest[1].iter().rev()));
    let (Some(one), Some(other)) = (middle(one, after), middle(other, after)) else {
        return false;
    };
    let all = |is_so: fn(&u8) -> bool| one.iter().chain(&other).all(is_so);
    let drawn = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-".contains(byte);
    all(u8::is_ascii_digit) || (one.len() == other.len() && all(drawn))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_names_are_told_from_others() {
        let similar = [
            ("tmp.Ab3dEf", "tmp.Zb3_E0"),
            ("$TMPDIR/cc12345.o", "$TMPDIR/cc999.o"),
            ("a-111/b", "a-222/b"),
            ("x/.lock.17", "x/.lock.18"),
        ];
        for (one, other) in similar {
            assert!(is_similar(one, other) && is_similar(other, one), "{one} {other}");
        }
        let others = [
            ("tmp.Ab3dEf", "tmp.Ab3dEfg"),
            ("a-111/b", "a-222/c/d"),
            ("a-111/b", "a-222/longer"),
            ("file.txt", "file.c.d"),
            ("$HOME/a", "$TMPDIR/a"),
        ];
        for (one, other) in others {
            assert!(
                !is_similar(one, other) && !is_similar(other, one),
                "{one} {other}"
            );
        }
    }

    #[test]
    fn each_accounts_for_one() {
        let names = ["tmp.AAAAAA", "tmp.BBBBBB", "other"].map(str::to_owned);
        let mut extra: BTreeSet<_> = names.iter().collect();
        take_out(&mut extra, ["tmp.CCCCCC"].iter());
        assert_eq!(extra, [&names[1], &names[2]].into());
    }
}
