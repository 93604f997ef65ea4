//! The known name that a mistyped one was meant to be.
//!
//! Knows edit distance and nothing else.

/// The candidate that is fewest edits away, if few enough for it to be a slip.
pub(super) fn nearest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let name = plain(name);
    // Work is the product of the lengths, and no name of ours is this long.
    if name.len() > 64 {
        return None;
    }
    let scored = candidates.into_iter().map(|c| (distance(&name, &plain(c)), c));
    let (edits, best) = scored.min_by_key(|(edits, _)| *edits)?;
    let allowed = (name.len().max(best.chars().count()) / 3).max(1);
    (edits <= allowed).then_some(best)
}

fn plain(name: &str) -> Vec<char> {
    name.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// Insertions, deletions, replacements and swaps of neighbours (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut above: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    let mut left_char: Option<char> = None;
    for (i, &ca) in a.iter().enumerate() {
        let next = next_row(ca, left_char, b, i + 1, &row, &above);
        above = std::mem::replace(&mut row, next);
        left_char = Some(ca);
    }
    row.last().copied().unwrap_or(0)
}

fn next_row(
    ca: char,
    before: Option<char>,
    b: &[char],
    first: usize,
    row: &[usize],
    above: &[usize],
) -> Vec<usize> {
    let at = |row: &[usize], i: Option<usize>| i.and_then(|i| row.get(i).copied()).unwrap_or(usize::MAX / 2);
    let mut next = vec![first];
    for (j, &cb) in b.iter().enumerate() {
        let replaced = at(row, Some(j)) + usize::from(ca != cb);
        let shorter = (at(row, Some(j + 1)) + 1).min(at(&next, Some(j)) + 1);
        let previous = j.checked_sub(1).and_then(|i| b.get(i).copied());
        let swap = before == Some(cb) && previous == Some(ca);
        let swapped = if swap { at(above, j.checked_sub(1)) + 1 } else { usize::MAX };
        next.push(replaced.min(shorter).min(swapped));
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_a_stranger_does_not() {
        let known = ["name", "match", "upstream", "cache", "stale_while_revalidate", "ttl"];
        let rows = [
            ("nmae", Some("name")),
            ("nam", Some("name")),
            ("Name", Some("name")),
            ("upstraem", Some("upstream")),
            ("stale-while-revalidate", Some("stale_while_revalidate")),
            ("stale_while_revalidation", Some("stale_while_revalidate")),
            ("color", None),
            ("x", None),
            ("", None),
        ];
        for (typed, want) in rows {
            assert_eq!(nearest(typed, known), want, "{typed}");
        }
        assert_eq!(nearest(&"n".repeat(100), known), None);
    }

    #[test]
    fn a_swap_of_neighbours_is_one_edit() {
        let chars = |s: &str| s.chars().collect::<Vec<_>>();
        let rows =
            [("ab", "ba", 1), ("abc", "abc", 0), ("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3)];
        for (a, b, want) in rows {
            assert_eq!(distance(&chars(a), &chars(b)), want, "{a} {b}");
        }
    }
}
