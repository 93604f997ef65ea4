//! What TOML itself finds wrong with a file.
//!
//! Knows the words of the parser. It tells of a key that is written twice by the second place alone; the first is
//! sought here.
//! Must not know: what any setting means.

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::problems::Found;
use super::reader::Span;

/// Keys of a name that are tried as the first of two, the nearest before the second first: each costs a reading of
/// the file.
const TRIED: usize = 16;
/// The parser's word for it.
const TWICE: &str = "duplicate key";

/// One mistake in TOML's own syntax.
pub(super) fn found(text: &str, error: &Error) -> Found {
    let span = error.span().unwrap_or(text.len()..text.len());
    if error.message() != TWICE {
        return Found::new(span, format!("not TOML: {}", error.message()));
    }
    let first = first_of(text, &span);
    let found = Found::new(span, "this key is written twice").help("leave one out");
    match first {
        Some(first) => found.also(first, "the first"),
        None => found,
    }
}

/// Where the key stands that the one at `second` repeats: that without which it is no repetition.
fn first_of(text: &str, second: &Span) -> Option<Span> {
    let name = text.get(second.clone())?.trim_matches(['"', '\'']);
    let mut places = Vec::new();
    // Of a table that begins twice, the parser remembers the second beginning.
    for text in [text, text.get(..second.start)?] {
        let (file, _) = DeTable::parse_recoverable(text);
        places_of(name, file.get_ref(), &mut places);
    }
    places.retain(|place| place.end <= second.start);
    places.sort_by_key(|place| std::cmp::Reverse(place.start));
    places.dedup();
    places.into_iter().take(TRIED).find(|place| !is_twice_without(text, second, place))
}

fn places_of(name: &str, table: &DeTable<'_>, places: &mut Vec<Span>) {
    for (key, value) in table {
        if key.get_ref() == name {
            places.push(key.span());
        }
        places_within(name, value, places);
    }
}

fn places_within(name: &str, value: &Spanned<DeValue<'_>>, places: &mut Vec<Span>) {
    match value.get_ref() {
        DeValue::Table(table) => places_of(name, table, places),
        DeValue::Array(list) => list.iter().for_each(|value| places_within(name, value, places)),
        _ => {}
    }
}

/// Whether the key at `second` is still one too many where that at `place` has another name.
fn is_twice_without(text: &str, second: &Span, place: &Span) -> bool {
    const OTHER: &str = "\"a key that nobody writes\"";
    let mut other = text.to_owned();
    other.replace_range(place.clone(), OTHER);
    let moved = |at: usize| (at + OTHER.len()).saturating_sub(place.len());
    let second = moved(second.start)..moved(second.end);
    let (_, errors) = DeTable::parse_recoverable(&other);
    errors.iter().any(|error| error.message() == TWICE && error.span().as_ref() == Some(&second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_written_twice_is_told_with_its_first_place() {
        let rows = [
            ("«a» = 1\na = 2", "a"),
            ("a = 1\n[b]\n«a» = 1\na = 2", "a"),
            ("[b]\n«a» = 1\nc = { a = 1 }\na = 2", "a"),
            ("«[b]»\na = 1\n[c]\nb = 1\n[b]\n", "b"),
            ("x = { «a» = 1, b.a = 1, a = 2 }", "a"),
            ("x = { y = [{ «a» = 1, a = 2 }] }", "a"),
            ("[[r]]\na = 1\n[[r]]\n«a» = 1\n\"a\" = 2", "\"a\""),
            ("a.«b» = 1\nb = 1\na.b = 2", "b"),
            ("«a» = 1\n[a]\nb = 1", "a"),
        ];
        for (marked, name) in rows {
            let text = marked.replace(['«', '»'], "");
            let error = DeTable::parse(&text).unwrap_err();
            assert_eq!(error.message(), TWICE, "{text}");
            let second = error.span().unwrap();
            assert_eq!(&text[second.clone()], name, "{text}");
            let start = marked.find('«').unwrap();
            let end = marked.find('»').unwrap() - '«'.len_utf8();
            let place = first_of(&text, &second).unwrap_or_else(|| panic!("{text}"));
            assert!(start <= place.start && place.end <= end, "{text}: {place:?}");
        }
    }
}
