//! The request fields that a response was chosen by (RFC 9111 §4.1).
//!
//! Knows when two requests match. What may be done to a value is only what cannot change its
//! meaning: lines are joined, and whitespace around the commas of a list is evened out.
//! Must not know: stored responses, tiers.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, REFERER, USER_AGENT};
use http::{HeaderMap, HeaderName};
use xxhash_rust::xxh3::{Xxh3, xxh3_128_with_seed};

use crate::fields::list;
use crate::fields::vary::Vary;

/// The fields that `Vary` nominates, with the values of one request: sorted by name, each once.
///
/// An absent field is a value of its own, other than an empty one (§4.1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SelectingFields(Vec<(HeaderName, Option<Box<[u8]>>)>);

/// What `vary` nominates, as the request has it.
pub fn selecting_fields(vary: &Vary, request_headers: &HeaderMap) -> SelectingFields {
    let names = match vary {
        Vary::Names(names) => names.as_slice(),
        Vary::Star => &[STAR],
    };
    let with_value = |name: &HeaderName| {
        let value = normalised(name, request_headers).map(|value| value.into_owned().into());
        (name.clone(), value)
    };
    SelectingFields(names.iter().map(with_value).collect())
}

impl SelectingFields {
    /// Whether a request with these fields may be given the response (§4.1).
    pub fn matches(&self, request_headers: &HeaderMap) -> bool {
        self.0.iter().all(|(name, value)| {
            *name != STAR && normalised(name, request_headers).as_deref() == value.as_deref()
        })
    }

    /// The nominated names.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.iter().map(|(name, _)| name)
    }

    /// xxh3-64 over, for each field: its name, a zero byte, then 0 where it is absent, else 1,
    /// the value's length as 8 bytes little-endian, the value. The same in every process and on
    /// every machine, so that tiers shared by many can use it in a key.
    pub fn hash(&self) -> u64 {
        let mut hash = Xxh3::new();
        for (name, value) in &self.0 {
            hash.update(name.as_str().as_bytes());
            hash.update(&[0, u8::from(value.is_some())]);
            if let Some(value) = value {
                hash.update(&u64::try_from(value.len()).unwrap_or(u64::MAX).to_le_bytes());
                hash.update(value);
            }
        }
        hash.digest()
    }

    /// Each name with its value, in order; for writing down.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = (&HeaderName, Option<&[u8]>)> {
        self.0.iter().map(|(name, value)| (name, value.as_deref()))
    }

    /// From what [`Self::parts`] gave.
    pub fn from_parts(parts: impl IntoIterator<Item = (HeaderName, Option<Box<[u8]>>)>) -> Self {
        let mut fields: Vec<_> = parts.into_iter().collect();
        fields.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
        fields.dedup_by(|a, b| a.0 == b.0);
        Self(fields)
    }

    /// Bytes of names and values, for weighing.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.as_str().len() + value.as_ref().map_or(0, |v| v.len())).sum()
    }
}

/// Stands for `Vary: *`; no request matches it.
const STAR: HeaderName = HeaderName::from_static("*");

/// Fields that are no lists: a comma in them is a comma.
const NO_LIST: [HeaderName; 2] = [REFERER, USER_AGENT];

/// Fields whose value lets its bearer in. What is kept of it is a digest, so that it stands in no
/// memory dump and no shared tier; only equality is ever asked.
const SECRET: [HeaderName; 3] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];

/// A field's lines joined by ", " (RFC 9110 §5.3), and one form of every list; `None` = absent.
/// Borrowed, and so free, where the request has it in that form already.
fn normalised<'a>(name: &HeaderName, headers: &'a HeaderMap) -> Option<Cow<'a, [u8]>> {
    let mut lines = headers.get_all(name).iter().map(|line| list::trim(line.as_bytes()));
    let mut value = Cow::Borrowed(lines.next()?);
    for line in lines {
        let joined = value.to_mut();
        joined.extend_from_slice(b", ");
        joined.extend_from_slice(line);
    }
    if SECRET.contains(name) {
        return Some(Cow::Owned(digest(&value)));
    }
    if NO_LIST.contains(name) || is_even(&value) {
        return Some(value);
    }
    Some(Cow::Owned(evened(&value)))
}

/// 256 bits in hex: xxh3-128 with the seeds 0 and 1. Not against somebody who knows the value and
/// looks for another with the same digest: they have the credential already.
fn digest(value: &[u8]) -> Vec<u8> {
    format!("{:032x}{:032x}", xxh3_128_with_seed(value, 0), xxh3_128_with_seed(value, 1)).into_bytes()
}

/// Whether every comma outside quoted strings stands as ", " already.
fn is_even(value: &[u8]) -> bool {
    list::pieces(value).enumerate().all(|(at, piece)| {
        let member = if at == 0 { Some(piece) } else { piece.strip_prefix(b" ") };
        member.is_some_and(|member| list::trim(member).len() == member.len())
    })
}

/// With exactly ", " for every comma that stands outside quoted strings.
fn evened(value: &[u8]) -> Vec<u8> {
    let mut even = Vec::with_capacity(value.len() + 8);
    for (at, piece) in list::pieces(value).enumerate() {
        if at > 0 {
            even.extend_from_slice(b", ");
        }
        even.extend_from_slice(list::trim(piece));
    }
    even
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http::header::ACCEPT_LANGUAGE;
    use proptest::prelude::*;

    fn request(lines: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT_LANGUAGE, HeaderValue::from_bytes(line).unwrap());
        }
        headers
    }

    fn on(name: HeaderName, headers: &HeaderMap) -> SelectingFields {
        selecting_fields(&Vary::Names(vec![name]), headers)
    }

    #[test]
    fn two_requests_match_as_the_clause_says() {
        for (clause, a, b, same) in [
            ("§4.1 the same", &[&b"en"[..]][..], &[&b"en"[..]][..], true),
            ("§4.1 another", &[b"en"], &[b"de"], false),
            ("§4.1 case is not known to be insignificant", &[b"en"], &[b"EN"], false),
            ("§4.1 order is not known to be insignificant", &[b"en, de"], &[b"de, en"], false),
            ("§4.1 whitespace", &[b"en,de"], &[b" en \t,   de "], true),
            ("§4.1 whitespace inside a member", &[b"en de"], &[b"en  de"], false),
            ("§4.1 whitespace in a quoted string", &[b"\"a,b\""], &[b"\"a, b\""], false),
            ("§4.1 lines combined", &[b"en", b"de"], &[b"en,de"], true),
            ("§4.1 an empty member is a member", &[b"en,,de"], &[b"en,de"], false),
            ("§4.1 both absent", &[], &[], true),
            ("§4.1 absent here", &[], &[b"en"], false),
            ("§4.1 absent there", &[b"en"], &[], false),
            ("§4.1 empty is not absent", &[b""], &[], false),
            ("obs-text", &[b"\xff"], &[b"\xff"], true),
        ] {
            let (a, b) = (request(a), request(b));
            let (of_a, of_b) = (on(ACCEPT_LANGUAGE, &a), on(ACCEPT_LANGUAGE, &b));
            assert_eq!(of_a.matches(&b), same, "{clause}");
            assert_eq!(of_b.matches(&a), same, "{clause}");
            assert_eq!(of_a == of_b, same, "{clause}");
            assert_eq!(of_a.hash() == of_b.hash(), same, "{clause}");
        }
    }

    #[test]
    fn a_comma_in_a_field_that_is_no_list_is_a_comma() {
        let agent =
            |value: &'static str| HeaderMap::from_iter([(USER_AGENT, HeaderValue::from_static(value))]);
        assert!(!on(USER_AGENT, &agent("x (a, b)")).matches(&agent("x (a,b)")));
    }

    #[test]
    fn credentials_are_compared_and_not_kept() {
        for name in SECRET {
            let with = |value| HeaderMap::from_iter([(name.clone(), HeaderValue::from_static(value))]);
            let fields = on(name.clone(), &with("s3cret, a"));
            assert!(fields.matches(&with("s3cret, a")));
            assert!(!fields.matches(&with("s3cret,a")) && !fields.matches(&with("")));
            assert!(!fields.matches(&HeaderMap::new()));
            let (_, kept) = fields.parts().next().unwrap();
            assert!(!String::from_utf8_lossy(kept.unwrap()).contains("s3cret"));
        }
    }

    #[test]
    fn a_star_matches_no_request() {
        let fields = selecting_fields(&Vary::Star, &HeaderMap::new());
        assert!(!fields.matches(&HeaderMap::new()));
        let again = SelectingFields::from_parts(fields.parts().map(|(n, v)| (n.clone(), v.map(Into::into))));
        assert!(!again.matches(&HeaderMap::new()));
    }

    #[test]
    fn the_hash_is_the_same_in_every_process() {
        // Written down in shared tiers: neither the bytes nor the figures may ever change.
        for (fields, bytes, hash) in [
            (SelectingFields::default(), &b""[..], 0x2d06_8005_38d3_94c2),
            (on(ACCEPT_LANGUAGE, &HeaderMap::new()), b"accept-language\0\0", 0x1246_4a13_6324_fc6f),
            (
                on(ACCEPT_LANGUAGE, &request(&[b"en,de"])),
                b"accept-language\0\x01\x06\0\0\0\0\0\0\0en, de",
                0xf5fd_363c_a62c_1099,
            ),
        ] {
            assert_eq!(fields.hash(), xxhash_rust::xxh3::xxh3_64(bytes));
            assert_eq!(fields.hash(), hash, "{:#x}", fields.hash());
        }
    }

    #[test]
    fn names_do_not_run_into_values() {
        let a = SelectingFields::from_parts([(HeaderName::from_static("a"), Some(Box::from(*b"b")))]);
        let b = SelectingFields::from_parts([
            (HeaderName::from_static("a"), Some(Box::from(*b""))),
            (HeaderName::from_static("b"), None),
        ]);
        assert_ne!(a.hash(), b.hash());
        assert_eq!((a.bytes(), b.bytes()), (2, 2));
    }

    proptest! {
        #[test]
        fn a_request_matches_itself_and_its_parts_come_back(lines in prop::collection::vec("[ ab,\"\\\\\t]{0,12}", 0..4)) {
            let lines: Vec<_> = lines.iter().map(String::as_bytes).collect();
            let headers = request(&lines);
            let fields = on(ACCEPT_LANGUAGE, &headers);
            prop_assert!(fields.matches(&headers));
            let parts = fields.parts().map(|(n, v)| (n.clone(), v.map(Into::into)));
            prop_assert_eq!(&SelectingFields::from_parts(parts), &fields);
        }

        #[test]
        fn an_even_value_is_left_alone(value in "[ ab,\"\\\\\t]{0,24}") {
            let once = evened(list::trim(value.as_bytes()));
            prop_assert_eq!(evened(&once), once.clone());
            prop_assert_eq!(is_even(value.as_bytes()), evened(value.as_bytes()) == value.as_bytes());
        }
    }
}
