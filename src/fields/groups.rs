//! `Cache-Groups` and `Cache-Group-Invalidation` (RFC 9875).
//!
//! Knows both fields' syntax, a List of Strings, and how much of it counts. A field that is no such
//! list says nothing.
//! Must not know: which responses are in a group, or what an invalidation does.

use http::{HeaderMap, HeaderName};

use super::structured::{self, Bare, Member};

/// `Cache-Groups` (§2)
pub const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");

/// `Cache-Group-Invalidation` (§3)
pub const CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// Groups of one field that count: the first so many. §2: "MUST support at least 32".
pub const MAX_GROUPS: usize = 128;

/// Bytes of one name; a longer one does not count. §2: "at least 32 characters".
pub const MAX_NAME: usize = 256;

/// The groups that a field names: sorted, each once, perhaps none. Opaque, and compared
/// "character-by-character (case sensitive)" (§2.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups(Box<[Box<str>]>);

impl Groups {
    /// Those that a response belongs to (§2).
    pub fn of(headers: &HeaderMap) -> Self {
        Self::parse(headers, &CACHE_GROUPS)
    }

    /// Those that the response to an unsafe request invalidates (§3); on one to a safe request the
    /// field "MUST be ignored", which is for the caller to know.
    pub fn invalidated(headers: &HeaderMap) -> Self {
        Self::parse(headers, &CACHE_GROUP_INVALIDATION)
    }

    /// The names.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes on the heap.
    pub fn heap(&self) -> usize {
        self.0.iter().map(|name| name.len() + size_of::<Box<str>>()).sum()
    }

    fn parse(headers: &HeaderMap, field: &HeaderName) -> Self {
        let members = structured::list(headers, field).unwrap_or_default();
        // A member that is no String makes it another thing than a List of Strings.
        let names: Option<Vec<_>> = members.into_iter().map(name).collect();
        let counted = names.unwrap_or_default().into_iter().take(MAX_GROUPS);
        let mut names: Vec<_> = counted.filter(|name| name.len() <= MAX_NAME).collect();
        names.sort_unstable();
        names.dedup();
        Self(names.into())
    }
}

fn name(member: Member) -> Option<Box<str>> {
    match member {
        Member::Item(Bare::String(name)) => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn groups(lines: &[&str]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_GROUPS, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        assert!(Groups::invalidated(&headers).is_empty(), "another field");
        Groups::of(&headers).iter().map(str::to_owned).collect()
    }

    #[test]
    fn a_list_of_strings_names_groups() {
        let none: [&str; 0] = [];
        for (clause, lines, expected) in [
            ("absent", &[][..], &none[..]),
            ("§2", &["\"scripts\""], &["scripts"]),
            ("§2 order is not significant", &["\"b\", \"a\""], &["a", "b"]),
            ("§2 over lines", &["\"b\"", "\"a\", \"b\""], &["a", "b"]),
            ("§2.1 case counts", &["\"A\", \"a\""], &["A", "a"]),
            ("§2 parameters are ignored", &["\"a\";x=1"], &["a"]),
            ("§2 an empty name is a name", &["\"\""], &[""]),
            ("§2 a token is no String", &["\"a\", b"], &none),
            ("§2 an inner list is no String", &["(\"a\")"], &none),
            ("9651 §4.2 malformed", &["\"a\", \"b"], &none),
            ("9651 §4.2 malformed on another line", &["\"a\"", ","], &none),
        ] {
            assert_eq!(groups(lines), expected, "{clause}: {lines:?}");
        }
    }

    #[test]
    fn the_invalidation_field_is_read_alike() {
        let field = (CACHE_GROUP_INVALIDATION, HeaderValue::from_static("\"b\", \"a\""));
        let headers = HeaderMap::from_iter([field]);
        assert_eq!(Groups::invalidated(&headers).iter().collect::<Vec<_>>(), ["a", "b"], "§3");
        assert!(Groups::of(&headers).is_empty());
    }

    #[test]
    fn as_many_and_as_long_as_the_clause_asks_and_no_more_than_ours() {
        let names = |count: usize, len: usize| {
            (0..count).map(|nth| format!("\"{nth:0>len$}\"")).collect::<Vec<_>>().join(", ")
        };
        for (count, len, kept) in [
            (32, 32, 32),
            (MAX_GROUPS, MAX_NAME, MAX_GROUPS),
            (MAX_GROUPS + 1, 32, MAX_GROUPS),
            (1, MAX_NAME + 1, 0),
        ] {
            assert_eq!(groups(&[&names(count, len)]).len(), kept, "§2: {count} of {len}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_into_bounded_sorted_names(line in "[ -~]{0,80}") {
            let names = groups(&[&line]);
            prop_assert!(names.is_sorted_by(|a, b| a < b));
            prop_assert!(names.iter().all(|name| name.len() <= MAX_NAME));
        }
    }
}
