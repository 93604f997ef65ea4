//! Entity tags (RFC 9110 §8.8.3) and lists of them (§13.1).
//!
//! Knows their syntax and the two comparisons. A tag's quotes are its only framing: no escapes,
//! and a comma or space inside them is part of the tag.
//! Must not know: which field wants which comparison.

use http::header::ETAG;
use http::{HeaderMap, HeaderName};

use super::list;

/// An entity tag. Most are short, and every stored response has one: those need no memory of their own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ETag(Held);

/// It is always short where it can be, so that the same tags are the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Held {
    Short { weak: bool, length: u8, bytes: [u8; SHORT] },
    Long { weak: bool, opaque: Box<[u8]> },
}

/// Bytes of the longest short one.
const SHORT: usize = 21;

/// A list of entity tags, or the star (§13.1.1, §13.1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntityTags {
    /// `*`
    Any,
    /// These; what is no entity tag is left out, since it can match nothing.
    List(Vec<ETag>),
}

impl ETag {
    /// Exactly one entity tag, `"…"` or `W/"…"` (§8.8.3).
    pub fn parse(value: &[u8]) -> Option<Self> {
        Written::parse(value).map(Written::owned)
    }

    /// Whether `value` is this tag by the strong comparison; `None` where it is no entity tag. Builds
    /// nothing.
    pub fn strong_eq_written(tag: Option<&Self>, value: &[u8]) -> Option<bool> {
        let written = Written::parse(value)?;
        Some(tag.is_some_and(|tag| !tag.is_weak() && !written.weak && *tag.opaque() == *written.opaque))
    }

    /// The `ETag` of a response; the first line counts.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers.get(ETAG)?.as_bytes())
    }

    /// Whether it is marked `W/` (§8.8.1).
    pub fn is_weak(&self) -> bool {
        match self.0 {
            Held::Short { weak, .. } | Held::Long { weak, .. } => weak,
        }
    }

    /// Bytes on the heap.
    pub fn heap(&self) -> usize {
        match &self.0 {
            Held::Short { .. } => 0,
            Held::Long { opaque, .. } => opaque.len(),
        }
    }

    fn opaque(&self) -> &[u8] {
        match &self.0 {
            Held::Short { length, bytes, .. } => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Held::Long { opaque, .. } => opaque,
        }
    }

    /// The same, weak or not (§8.8.3.2).
    pub fn weak_eq(&self, other: &Self) -> bool {
        self.opaque() == other.opaque()
    }

    /// The same, and neither is weak (§8.8.3.2).
    pub fn strong_eq(&self, other: &Self) -> bool {
        !self.is_weak() && !other.is_weak() && self.opaque() == other.opaque()
    }
}

impl EntityTags {
    /// From all lines of `If-Match` or `If-None-Match`; `None` where there are none.
    ///
    /// A star counts only when it stands alone, as the syntax has it.
    pub fn parse(headers: &HeaderMap, name: HeaderName) -> Option<Self> {
        let lines = headers.get_all(name);
        let mut values = lines.iter().map(|line| list::trim(line.as_bytes()));
        if values.next()? == b"*" && values.next().is_none() {
            return Some(Self::Any);
        }
        let tags = lines.iter().flat_map(|line| tags(line.as_bytes()));
        Some(Self::List(tags.map(Written::owned).collect()))
    }

    /// What [`weak_match`](Self::weak_match) says of the field's tags; `None` where there is no such
    /// field. Where there is no `tag`, a star alone matches. Builds nothing.
    pub fn weak_match_in(headers: &HeaderMap, name: HeaderName, tag: Option<&ETag>) -> Option<bool> {
        let lines = headers.get_all(name);
        let mut values = lines.iter().map(|line| list::trim(line.as_bytes()));
        if values.next()? == b"*" && values.next().is_none() {
            return Some(true);
        }
        let mut written = lines.iter().flat_map(|line| tags(line.as_bytes()));
        Some(tag.is_some_and(|tag| written.any(|written| *tag.opaque() == *written.opaque)))
    }

    /// Whether one of them is `tag` by the weak comparison; a star is (§13.1.2).
    pub fn weak_match(&self, tag: &ETag) -> bool {
        match self {
            Self::Any => true,
            Self::List(tags) => tags.iter().any(|t| t.weak_eq(tag)),
        }
    }
}

/// An entity tag where it stands.
struct Written<'a> {
    weak: bool,
    opaque: &'a [u8],
}

impl<'a> Written<'a> {
    fn parse(value: &'a [u8]) -> Option<Self> {
        let (tag, rest) = next_tag(list::trim(value))?;
        rest.is_empty().then_some(tag)
    }

    fn owned(self) -> ETag {
        let (weak, mut bytes) = (self.weak, [0; SHORT]);
        ETag(match (bytes.get_mut(..self.opaque.len()), u8::try_from(self.opaque.len())) {
            (Some(room), Ok(length)) => {
                room.copy_from_slice(self.opaque);
                Held::Short { weak, length, bytes }
            }
            _ => Held::Long { weak, opaque: self.opaque.into() },
        })
    }
}

/// The entity tags of one line. Where there is none, the line is read on after the next comma.
fn tags(line: &[u8]) -> impl Iterator<Item = Written<'_>> {
    let mut rest = line;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let found = next_tag(list::trim(rest));
            let after = found.as_ref().map_or(rest, |(_, after)| after);
            let mut parts = after.splitn(2, |&b| b == b',');
            let between = parts.next().unwrap_or_default();
            rest = parts.next().unwrap_or_default();
            match found {
                // Something between a tag and the comma: not an entity tag after all.
                Some((tag, _)) if list::trim(between).is_empty() => return Some(tag),
                _ => {}
            }
        }
        None
    })
}

/// The tag that `value` begins with, and what follows it.
fn next_tag(value: &[u8]) -> Option<(Written<'_>, &[u8])> {
    // §8.8.3: the weakness indicator is case-sensitive.
    let (weak, quoted) = match value.strip_prefix(b"W/") {
        Some(quoted) => (true, quoted),
        None => (false, value),
    };
    let inner = quoted.strip_prefix(b"\"")?;
    let end = inner.iter().position(|&b| b == b'"')?;
    let (opaque, rest) = inner.split_at_checked(end)?;
    Some((Written { weak, opaque }, rest.strip_prefix(b"\"")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http::header::IF_NONE_MATCH;
    use proptest::prelude::*;

    fn tag(value: &str) -> ETag {
        ETag::parse(value.as_bytes()).unwrap()
    }

    fn tags_of(lines: &[&str]) -> Option<EntityTags> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(IF_NONE_MATCH, line.parse().unwrap());
        }
        EntityTags::parse(&headers, IF_NONE_MATCH)
    }

    #[test]
    fn comparisons_are_those_of_the_table() {
        // The rows of RFC 9110 §8.8.3.2.
        for (a, b, strong, weak) in [
            (r#"W/"1""#, r#"W/"1""#, false, true),
            (r#"W/"1""#, r#"W/"2""#, false, false),
            (r#"W/"1""#, r#""1""#, false, true),
            (r#""1""#, r#""1""#, true, true),
        ] {
            assert_eq!(tag(a).strong_eq(&tag(b)), strong, "§8.8.3.2 strong {a} {b}");
            assert_eq!(tag(a).weak_eq(&tag(b)), weak, "§8.8.3.2 weak {a} {b}");
        }
    }

    #[test]
    fn only_quoted_tags_are_tags() {
        for (clause, value, is) in [
            ("§8.8.3 strong", r#""xyzzy""#, true),
            ("§8.8.3 weak", r#"W/"xyzzy""#, true),
            ("§8.8.3 empty", r#""""#, true),
            ("§8.8.3 backslashes are no escapes", r#""a\""#, true),
            ("§8.8.3 unquoted", "xyzzy", false),
            ("§8.8.3 small w", r#"w/"xyzzy""#, false),
            ("§8.8.3 open", r#""xyzzy"#, false),
            ("§8.8.3 two", r#""a", "b""#, false),
            ("§8.8.3 nothing", "", false),
        ] {
            assert_eq!(ETag::parse(value.as_bytes()).is_some(), is, "{clause}: {value}");
        }
    }

    #[test]
    fn lists_of_tags_are_read_over_all_lines() {
        let list = |tags: &[&str]| Some(EntityTags::List(tags.iter().map(|t| tag(t)).collect()));
        for (clause, lines, expected) in [
            ("§13.1.2 absent", &[][..], None),
            ("§13.1.2 star", &["*"], Some(EntityTags::Any)),
            ("§13.1.2 star among tags is no tag", &[r#"*, "a""#], list(&[r#""a""#])),
            ("§13.1.2 star on a second line", &[r#""a""#, "*"], list(&[r#""a""#])),
            ("§13.1.2 two stars", &["*", "*"], list(&[])),
            ("§13.1.2 list", &[r#""a", W/"b" ,"c""#], list(&[r#""a""#, r#"W/"b""#, r#""c""#])),
            ("§5.3 lines", &[r#""a""#, r#""b""#], list(&[r#""a""#, r#""b""#])),
            ("§8.8.3 comma in a tag", &[r#""a,b", "c""#], list(&[r#""a,b""#, r#""c""#])),
            ("§5.6.1.2 empty members", &[r#", ,"a",,"#], list(&[r#""a""#])),
            ("garbage is left out", &[r#"a, "b", "c"x, "d""#], list(&[r#""b""#, r#""d""#])),
            ("garbage alone matches nothing", &["a"], list(&[])),
        ] {
            assert_eq!(tags_of(lines), expected, "{clause}: {lines:?}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read(line: Vec<u8>) {
            let _ = ETag::parse(&line);
            let _ = tags(&line).count();
            if let Ok(value) = HeaderValue::from_bytes(&line) {
                let headers = HeaderMap::from_iter([(IF_NONE_MATCH, value)]);
                prop_assert!(EntityTags::parse(&headers, IF_NONE_MATCH).is_some());
            }
        }

        #[test]
        fn what_builds_nothing_comes_to_the_same(
            lines in prop::collection::vec(r#"[ ,]{0,2}((W/)?"[ab]{0,1}"|\*|[ab"])?[ ,]{0,2}("[ab]")?"#, 0..3),
            tag in prop::option::of(r#"(W/)?"[ab]{0,1}""#),
        ) {
            let mut headers = HeaderMap::new();
            for line in &lines {
                headers.append(IF_NONE_MATCH, line.parse().unwrap());
            }
            let stored = tag.as_deref().and_then(|value| ETag::parse(value.as_bytes()));
            let parsed = EntityTags::parse(&headers, IF_NONE_MATCH);
            let expected = parsed.map(|tags| match &stored {
                Some(stored) => tags.weak_match(stored),
                None => tags == EntityTags::Any,
            });
            prop_assert_eq!(EntityTags::weak_match_in(&headers, IF_NONE_MATCH, stored.as_ref()), expected);
            for line in &lines {
                let one = ETag::parse(line.as_bytes());
                let strong = one.map(|one| stored.as_ref().is_some_and(|stored| stored.strong_eq(&one)));
                prop_assert_eq!(ETag::strong_eq_written(stored.as_ref(), line.as_bytes()), strong);
            }
        }

        #[test]
        fn comparisons_are_symmetric_and_strong_implies_weak(
            a in r#"(W/)?"[ab]{0,2}""#, b in r#"(W/)?"[ab]{0,2}""#,
        ) {
            let (a, b) = (tag(&a), tag(&b));
            prop_assert_eq!(a.weak_eq(&b), b.weak_eq(&a));
            prop_assert_eq!(a.strong_eq(&b), b.strong_eq(&a));
            prop_assert!(!a.strong_eq(&b) || a.weak_eq(&b));
            prop_assert!(a.weak_eq(&a));
            prop_assert_eq!(a.strong_eq(&a), !a.is_weak());
        }
    }
}
