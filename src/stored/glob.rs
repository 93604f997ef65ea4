//! Patterns with `*`, for the names that a key leaves out.
//!
//! Knows one rule and keeps to linear time, since patterns meet names that anybody may send.
//! Must not know: queries, keys.

/// A pattern in which `*` stands for any run of characters, also none; nothing else is special.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Box<str>);

impl Glob {
    /// Every text is a pattern.
    pub fn new(pattern: &str) -> Self {
        Self(pattern.into())
    }

    /// Whether the whole of `text` matches. Time is linear in both lengths: each piece between two
    /// stars is sought once, leftmost, and never given up again.
    pub fn matches(&self, text: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else { return *self.0 == *text };
        let Some(text) = text.strip_prefix(first) else { return false };
        let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        let Some(mut text) = text.strip_suffix(last) else { return false };
        for piece in middle.split('*') {
            let Some(at) = text.find(piece) else { return false };
            text = text.get(at.saturating_add(piece.len())..).unwrap_or("");
        }
        true
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn globs_match_the_whole_text() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "abc", true),
            ("utm_*", "utm_", true),
            ("utm_*", "xutm_", false),
            ("*id", "gclid", true),
            ("*id", "idx", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "ac", false),
            ("a**c", "abc", true),
            ("*ab*ba*", "aba", false),
            ("[x]?", "[x]?", true),
        ] {
            assert_eq!(Glob::new(pattern).matches(text), expected, "{pattern:?} {text:?}");
        }
    }

    /// The textbook matcher: exponential, but plainly right.
    fn matches_slowly(pattern: &str, text: &str) -> bool {
        match pattern.chars().next() {
            None => text.is_empty(),
            Some('*') => {
                matches_slowly(&pattern[1..], text)
                    || (!text.is_empty() && matches_slowly(pattern, &text[1..]))
            }
            Some(c) => text.starts_with(c) && matches_slowly(&pattern[1..], &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn globs_agree_with_the_textbook(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(Glob::new(&pattern).matches(&text), matches_slowly(&pattern, &text));
        }
    }
}
