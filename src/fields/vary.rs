//! `Vary` (RFC 9110 §12.5.5).
//!
//! Knows the list of field names and the star. Must not know: requests, or how they are compared.

use http::header::VARY;
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
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        Self::Names(names)
    }
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
