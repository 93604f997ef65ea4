//! Which responses are worth encoding, and in which coding for whom.
//!
//! Knows the route's settings, and what of a response forbids another form of it. Decides, does
//! nothing.
//! Must not know: bodies, caches.

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderMap, HeaderName, StatusCode};

use crate::fields::accept_encoding::AcceptEncoding;
use crate::fields::content_coding::{Coding, ContentCoding};
use crate::fields::list;

/// `[route.compress]`: what is encoded on its way to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compress {
    /// The codings to choose from, the best first.
    pub codings: Vec<Coding>,
    /// Smaller bodies are left alone, bytes.
    pub min_size: u64,
    /// Larger bodies are left alone, bytes.
    pub max_size: u64,
    /// Media types, in lower case; one `*` may stand in each for anything.
    pub types: Vec<String>,
}

impl Default for Compress {
    fn default() -> Self {
        Self {
            // zstd costs least by far for what it saves, and gzip is what everybody reads.
            codings: vec![Coding::Zstd, Coding::Brotli, Coding::Gzip],
            // Below it the whole response fits one packet either way.
            min_size: 860,
            // As `max_object`: beyond it encoding holds a core for a second and more.
            max_size: 16 << 20,
            types: TYPES.iter().map(|pattern| (*pattern).to_owned()).collect(),
        }
    }
}

/// Text in its many forms. Images, video, archives and most fonts are compressed already.
const TYPES: [&str; 6] = ["text/*", "*json", "*xml", "*javascript", "*yaml", "application/wasm"];

/// Made to be read event by event. No `*` takes it: a client that waits for one line must not wait
/// for an encoder, and such streams are mostly made of small pieces.
const EVENTS: &str = "text/event-stream";

/// What of a response says that its bytes are to stay as they are (RFC 9530 §2, §3; RFC 1864): they
/// are digests over the content or the representation, coding included.
pub const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

impl Compress {
    /// Whether a response of this head is one that some clients get encoded. `length` of its
    /// content, where it is known.
    pub fn takes(&self, status: StatusCode, headers: &HeaderMap, length: Option<u64>) -> bool {
        // 203 is a 200 that somebody has changed on the way; other statuses rarely have much of a
        // body, and a 206 is bytes of one very form.
        (status == StatusCode::OK || status == StatusCode::NON_AUTHORITATIVE_INFORMATION)
            && ContentCoding::of(headers) == ContentCoding::Identity
            && length.is_none_or(|length| (self.min_size..=self.max_size).contains(&length))
            && self.takes_type(headers)
            && !headers.contains_key(CONTENT_RANGE)
            && !DIGESTS.iter().any(|name| headers.contains_key(name))
            && !no_transform(headers)
    }

    /// The coding that a request with these fields gets such a response in; none = as it is.
    pub fn choose(&self, request: &HeaderMap) -> Option<Coding> {
        // RFC 9110 §14.2: a range is one of the bytes as they are without coding, and so is what it
        // is put together with.
        if request.contains_key(RANGE) || no_transform(request) {
            return None;
        }
        AcceptEncoding::of(request).best(&self.codings)
    }

    fn takes_type(&self, headers: &HeaderMap) -> bool {
        let Some(Ok(value)) = headers.get(CONTENT_TYPE).map(|value| value.to_str()) else { return false };
        let essence = value.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case(EVENTS) {
            return self.types.iter().any(|pattern| pattern == EVENTS);
        }
        self.types.iter().any(|pattern| matches(pattern, essence))
    }
}

/// RFC 9111 §5.2.1.6, §5.2.2.6: "an intermediary […] MUST NOT transform the content".
pub fn no_transform(headers: &HeaderMap) -> bool {
    list::contains(headers, &CACHE_CONTROL, "no-transform")
}

/// The length that a head declares.
pub fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A pattern in lower case, with at most one `*`, against a media type.
fn matches(pattern: &str, essence: &str) -> bool {
    let Some((start, end)) = pattern.split_once('*') else { return essence.eq_ignore_ascii_case(pattern) };
    let part =
        |range: Option<&str>, wanted: &str| range.is_some_and(|part| part.eq_ignore_ascii_case(wanted));
    essence.len() >= start.len().saturating_add(end.len())
        && part(essence.get(..start.len()), start)
        && part(essence.get(essence.len().saturating_sub(end.len())..), end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn fields(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_response_is_taken_by_status_type_size_and_what_it_allows() {
        let json = ("content-type", "application/json");
        for (clause, status, pairs, length, taken) in [
            ("plain", 200, &[json][..], Some(1000), true),
            ("length unknown", 200, &[json], None, true),
            ("9110 §15.3.4", 203, &[json], None, true),
            ("9110 §15.3.7 part", 206, &[json, ("content-range", "bytes 0-1/2")], None, false),
            ("content-range anywhere", 200, &[json, ("content-range", "bytes 0-1/2")], None, false),
            ("an error", 404, &[json], Some(1000), false),
            ("too small", 200, &[json], Some(859), false),
            ("just large enough", 200, &[json], Some(860), true),
            ("just small enough", 200, &[json], Some(16 << 20), true),
            ("too large", 200, &[json], Some((16 << 20) + 1), false),
            ("coded already", 200, &[json, ("content-encoding", "gzip")], None, false),
            ("coded unknown", 200, &[json, ("content-encoding", "foo")], None, false),
            ("9110 §8.4 identity says nothing", 200, &[json, ("content-encoding", "identity")], None, true),
            ("9111 §5.2.2.6", 200, &[json, ("cache-control", "max-age=1, No-Transform")], None, false),
            ("RFC 9530 §2", 200, &[json, ("content-digest", "sha-256=:AA==:")], None, false),
            ("RFC 9530 §3", 200, &[json, ("repr-digest", "sha-256=:AA==:")], None, false),
            ("no type", 200, &[], Some(1000), false),
            ("a picture", 200, &[("content-type", "image/png")], Some(1000), false),
            ("a drawing", 200, &[("content-type", "image/svg+xml")], None, true),
            ("any case, with parameters", 200, &[("content-type", "Text/HTML ; charset=utf-8")], None, true),
            ("problem details", 200, &[("content-type", "application/problem+json")], None, true),
            ("events", 200, &[("content-type", "text/event-stream;charset=utf-8")], None, false),
        ] {
            let headers = fields(pairs);
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(Compress::default().takes(status, &headers, length), taken, "{clause}");
        }
    }

    #[test]
    fn events_are_taken_only_by_name() {
        let headers = fields(&[("content-type", "text/event-stream")]);
        let with = |types: &[&str]| {
            let types = types.iter().map(|t| (*t).to_owned()).collect();
            Compress { types, ..Compress::default() }.takes(StatusCode::OK, &headers, None)
        };
        assert!(!with(&["text/*", "*"]) && with(&["text/event-stream"]));
    }

    #[test]
    fn a_request_chooses_its_coding() {
        let accept = |value| ("accept-encoding", value);
        for (clause, pairs, coding) in [
            ("the route's order", &[accept("gzip, br, zstd")][..], Some(Coding::Zstd)),
            ("9110 §12.5.3", &[accept("gzip")], Some(Coding::Gzip)),
            ("9110 §12.5.3 absent", &[], None),
            ("not offered", &[accept("deflate")], None),
            ("9110 §14.2", &[accept("gzip"), ("range", "bytes=0-1")], None),
            ("9111 §5.2.1.6", &[accept("gzip"), ("cache-control", "no-transform")], None),
        ] {
            assert_eq!(Compress::default().choose(&fields(pairs)), coding, "{clause}");
        }
    }

    #[test]
    fn a_pattern_holds_one_star() {
        for (pattern, essence, expected) in [
            ("text/*", "text/css", true),
            ("text/*", "text/", true),
            ("text/*", "application/text/x", false),
            ("*+json", "application/ld+JSON", true),
            ("*+json", "application/json", false),
            ("a*a", "a", false),
            ("*", "anything", true),
            ("font/ttf", "FONT/TTF", true),
            ("font/ttf", "font/ttfx", false),
        ] {
            assert_eq!(matches(pattern, essence), expected, "{pattern} {essence}");
        }
    }

    proptest! {
        #[test]
        fn any_type_is_matched_or_not(pattern in "[a-z/*+é]{0,8}", essence in ".{0,12}") {
            let _ = matches(&pattern, &essence);
        }
    }
}
