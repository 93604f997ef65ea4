//! The request fields that a response was chosen by (RFC 9111 §4.1).
//!
//! Knows when two requests match. What may be done to a value is only what cannot change its
//! meaning: lines are joined, and whitespace around the commas of a list is evened out.
//! Must not know: stored responses, tiers.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, COOKIE, REFERER, USER_AGENT};
use http::{HeaderMap, HeaderName};
use xxhash_rust::xxh3::Xxh3;

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
const NO_LIST: [HeaderName; 4] = [AUTHORIZATION, COOKIE, REFERER, USER_AGENT];

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
    if NO_LIST.contains(name) || is_even(&value) {
        return Some(value);
    }
    Some(Cow::Owned(evened(&value)))
}

/// Whether every comma outside quoted strings stands in ", ", with no other whitespace around it.
fn is_even(value: &[u8]) -> bool {
    evened_len_matches(value)
}

fn evened_len_matches(value: &[u8]) -> bool {
    evened(value) == value
}

fn evened(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + 8);
    let (mut quoted, mut escaped) = (false, false);
    for &byte in value {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        out.push(byte);
    }
    out
}
