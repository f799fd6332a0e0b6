//! Names that come close to one that is not known.
//!
//! Enters: a name of any length and the known names. Leaves: the few closest. Nothing may go wrong; the cost
//! is bounded: names over [`LONGEST`] bytes are not compared, nor more than [`MOST`] of them.

use smallvec::SmallVec;

const LONGEST: usize = 96;
const MOST: usize = 2048;

/// Up to `count` names closest to `asked`, the closest first. A name counts as close when at most a third of
/// `asked` is mistyped, or when one contains the other.
pub(crate) fn nearest<'n>(asked: &str, names: impl Iterator<Item = &'n str>, count: usize) -> Vec<&'n str> {
    let asked = asked.to_ascii_lowercase();
    if asked.len() > LONGEST || asked.len() < 2 {
        return Vec::new();
    }
    let allowed = (asked.len() / 3).max(1);
    let mut close: Vec<(usize, &str)> = Vec::new();
    for name in names.filter(|name| name.len() <= LONGEST).take(MOST) {
        let lower = name.to_ascii_lowercase();
        let part =
            asked.len() >= 3 && (lower.contains(&asked) || (lower.len() >= 3 && asked.contains(&lower)));
        // A name that only goes on after what was asked is closer than one that is spelt otherwise.
        let distance = if part { Some(1) } else { distance(asked.as_bytes(), lower.as_bytes(), allowed) };
        close.extend(distance.map(|distance| (distance, name)));
    }
    close.sort_unstable();
    close.into_iter().take(count).map(|(_, name)| name).collect()
}

/// Edits (insert, delete, replace) from `a` to `b`, if there are at most `most`.
fn distance(a: &[u8], b: &[u8], most: usize) -> Option<usize> {
    if a.len().abs_diff(b.len()) > most {
        return None;
    }
    let mut row: SmallVec<[usize; LONGEST]> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut best = left;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, y) in row.iter_mut().skip(1).zip(b) {
            let replaced = diagonal + usize::from(x != y);
            diagonal = *cell;
            left = replaced.min(left + 1).min(diagonal + 1);
            *cell = left;
            best = best.min(left);
        }
        if best > most {
            return None;
        }
    }
    row.last().copied().filter(|distance| *distance <= most)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 6] = [
        "claude-opus-4-6",
        "claude-sonnet-4-5",
        "claude-sonnet-4-6",
        "gemini-2.5-pro",
        "gpt-5",
        "team-a/fast",
    ];

    #[test]
    fn typing_errors_and_parts_of_names_are_found() {
        let ask = |asked| nearest(asked, NAMES.into_iter(), 3);
        assert_eq!(ask("cluade-sonnet-4-5"), ["claude-sonnet-4-5", "claude-sonnet-4-6"]);
        assert_eq!(ask("claude-sonnet"), ["claude-sonnet-4-5", "claude-sonnet-4-6"]);
        assert_eq!(ask("GPT5"), ["gpt-5"]);
        assert_eq!(ask("gpt-5-turbo"), ["gpt-5"]);
        assert_eq!(ask("fast"), ["team-a/fast"]);
        assert!(ask("no-such-model").is_empty());
        assert!(ask("").is_empty() && ask(&"x".repeat(1000)).is_empty());
    }

    fn slow(a: &[u8], b: &[u8]) -> usize {
        match (a, b) {
            ([], rest) | (rest, []) => rest.len(),
            ([x, a @ ..], [y, b @ ..]) if x == y => slow(a, b),
            ([_, at @ ..], [_, bt @ ..]) => 1 + slow(at, bt).min(slow(a, bt)).min(slow(at, b)),
        }
    }

    proptest! {
        #[test]
        fn the_distance_is_the_textbooks(a in "[abc]{0,6}", b in "[abc]{0,6}", most in 0usize..7) {
            let exact = slow(a.as_bytes(), b.as_bytes());
            prop_assert_eq!(distance(a.as_bytes(), b.as_bytes(), most), (exact <= most).then_some(exact));
        }
    }
}
