//! `Vary` (RFC 9110 §12.5.5).
//!
//! Knows the list of field names and the star, and what names an origin without saying so. Must not know: requests, or how they are compared.

use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, ORIGIN, VARY};
use http::{HeaderMap, HeaderName};

use super::list;

/// What else than the target URI a response was chosen by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vary {
    /// These request fields: sorted, each once, perhaps none.
    Names(Vec<HeaderName>),
    /// Something that no cache can know.
    Star,
}

impl Default for Vary {
    fn default() -> Self {
        Self::Names(Vec::new())
    }
}

impl Vary {
    /// From all `Vary` lines of a response. A member that is no field name counts as a star:
    /// nobody can say what the response was chosen by.
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut names = Vec::new();
        for member in list::all(headers, &VARY) {
            match HeaderName::from_bytes(member) {
                Ok(name) if name != "*" => names.push(name),
                _ => return Self::Star,
            }
        }
        // Fetch §3.3.3: a server that lets several origins in, one at a time, must say so by `Vary`, and many
        // do not. What names one is then for that one alone.
        if names_an_origin(headers) {
            names.push(ORIGIN);
        }
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        Self::Names(names)
    }

    /// Whether this field is one of those that it names.
    pub fn names(&self, field: &HeaderName) -> bool {
        matches!(self, Self::Names(names) if names.contains(field))
    }
}

/// Whether a response lets in one origin (or `null`, which is as good), and not all.
fn names_an_origin(headers: &HeaderMap) -> bool {
    headers.get_all(ACCESS_CONTROL_ALLOW_ORIGIN).iter().any(|value| value.as_bytes().trim_ascii() != b"*")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn vary(lines: &[&str]) -> Vary {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(VARY, line.parse().unwrap());
        }
        Vary::parse(&headers)
    }

    fn names(names: &[&'static str]) -> Vary {
        Vary::Names(names.iter().map(|n| HeaderName::from_static(n)).collect())
    }

    #[test]
    fn what_lets_one_origin_in_is_for_that_one() {
        for (allowed, expected) in [
            ("https://a.test", names(&["origin"])),
            ("null", names(&["origin"])),
            ("*", names(&[])),
            (" * ", names(&[])),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_str(allowed).unwrap());
            assert_eq!(Vary::parse(&headers), expected, "{allowed}");
            headers.append(VARY, HeaderValue::from_static("origin"));
            assert_eq!(Vary::parse(&headers), names(&["origin"]), "{allowed}");
            headers.append(VARY, HeaderValue::from_static("*"));
            assert_eq!(Vary::parse(&headers), Vary::Star, "{allowed}");
        }
    }

    #[test]
    fn names_are_lower_case_sorted_and_single_and_any_star_wins() {
        for (clause, lines, expected) in [
            ("§12.5.5 absent", &[][..], names(&[])),
            ("§12.5.5 empty", &[""], names(&[])),
            ("§12.5.5 case, order, repeats", &["Origin, ACCEPT", "accept"], names(&["accept", "origin"])),
            ("§12.5.5 star", &["*"], Vary::Star),
            ("§12.5.5 star among names", &["accept, *"], Vary::Star),
            ("§12.5.5 star on another line", &["accept", "*"], Vary::Star),
            ("not a field name", &["accept encoding"], Vary::Star),
            ("not a field name", &["\"accept\""], Vary::Star),
        ] {
            assert_eq!(vary(lines), expected, "{clause}: {lines:?}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read(bytes: Vec<u8>) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                headers.append(VARY, value);
            }
            if let Vary::Names(names) = Vary::parse(&headers) {
                prop_assert!(names.is_sorted_by(|a, b| a.as_str() < b.as_str()));
            }
        }
    }
}
