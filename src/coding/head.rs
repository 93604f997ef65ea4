//! What another form of a body changes in its head.
//!
//! Knows that a form is a representation of its own (RFC 9110 §8.8.3.3), chosen by
//! `Accept-Encoding`. Must not know: how the form is made.

use http::header::{ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, IF_NONE_MATCH, TRAILER, VARY};
use http::{HeaderMap, HeaderValue};

use super::policy::DIGESTS;
use crate::fields::content_coding::Coding;
use crate::fields::list;
use crate::fields::validator::{ETag, EntityTags};

/// The head of the same response in this coding.
pub fn encoded(headers: &mut HeaderMap, coding: Coding) {
    other_form(headers);
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
}

/// The head of the same response without its coding.
pub fn decoded(headers: &mut HeaderMap) {
    other_form(headers);
    headers.remove(CONTENT_ENCODING);
}

/// Says that the form depends on `Accept-Encoding`: on every response of which there is more than
/// one form, also on the one as it was stored (RFC 9110 §12.5.5).
pub fn vary(headers: &mut HeaderMap) {
    let said = |name| list::contains(headers, &VARY, name);
    if !said("*") && !said("accept-encoding") {
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

/// Whether these lines of `Vary` say so already.
pub fn tells<'a>(mut lines: impl Iterator<Item = &'a [u8]>) -> bool {
    lines.any(|line| {
        list::members(line).any(|name| name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding"))
    })
}

/// A 304 of the origin to a client that holds another form: it names the tag as the client has it,
/// which for another form is the weak one (see [`encoded`]).
pub fn not_modified(headers: &mut HeaderMap, request: &HeaderMap) {
    let (Some(tag), Some(EntityTags::List(held))) =
        (ETag::of(headers), EntityTags::parse(request, IF_NONE_MATCH))
    else {
        return;
    };
    if held.iter().any(|held| held.is_weak() && held.weak_eq(&tag)) {
        vary(headers);
        weaken(headers);
    }
}

/// What is true of the stored bytes alone goes; the tag says no more than that the meaning is the
/// same. Ranges of another form are not offered: it may be made anew, with other bytes.
fn other_form(headers: &mut HeaderMap) {
    vary(headers);
    weaken(headers);
    headers.remove(CONTENT_LENGTH);
    headers.remove(ACCEPT_RANGES);
    headers.remove(TRAILER);
    for name in DIGESTS {
        headers.remove(name);
    }
}

/// RFC 9110 §8.8.3.3: forms of different coding need different strong tags; a weak one may stand for
/// several (§8.8.1). What is no entity tag is dropped.
fn weaken(headers: &mut HeaderMap) {
    let Some(value) = headers.get(ETAG) else { return };
    match ETag::of(headers) {
        Some(tag) if tag.is_weak() => {}
        Some(_) => {
            let weak = [b"W/", list::trim(value.as_bytes())].concat();
            if let Ok(weak) = HeaderValue::from_bytes(&weak) {
                headers.insert(ETAG, weak);
            }
        }
        None => {
            headers.remove(ETAG);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn fields(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        headers
    }

    const WHOLE: [(&str, &str); 7] = [
        ("content-type", "text/html"),
        ("content-length", "1000"),
        ("etag", "\"a\""),
        ("accept-ranges", "bytes"),
        ("content-digest", "sha-256=:AA==:"),
        ("trailer", "x"),
        ("x-other", "1"),
    ];

    #[test]
    fn an_encoded_head_says_so_and_claims_nothing_of_the_bytes() {
        let mut headers = fields(&WHOLE);
        encoded(&mut headers, Coding::Zstd);
        let expected = fields(&[
            ("content-type", "text/html"),
            ("content-encoding", "zstd"),
            ("etag", "W/\"a\""),
            ("vary", "Accept-Encoding"),
            ("x-other", "1"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn a_decoded_head_has_no_coding() {
        let mut headers = fields(&[("content-encoding", "gzip"), ("etag", "W/\"a\""), ("vary", "origin")]);
        decoded(&mut headers);
        let expected = [("etag", "W/\"a\""), ("vary", "origin"), ("vary", "Accept-Encoding")];
        assert_eq!(headers, fields(&expected));
    }

    #[test]
    fn vary_is_said_once_and_a_star_says_all() {
        for (before, after) in [
            (&["Origin"][..], &["Origin", "Accept-Encoding"][..]),
            (&["origin, accept-ENCODING"], &["origin, accept-ENCODING"]),
            (&["*"], &["*"]),
            (&["a", "*"], &["a", "*"]),
            (&[], &["Accept-Encoding"]),
        ] {
            let lines = |values: &[&'static str]| -> HeaderMap {
                values.iter().fold(HeaderMap::new(), |mut map, value| {
                    map.append(VARY, HeaderValue::from_static(value));
                    map
                })
            };
            let mut headers = lines(before);
            vary(&mut headers);
            assert_eq!(headers, lines(after));
        }
    }

    #[test]
    fn a_tag_becomes_weak_and_what_is_none_goes() {
        for (before, after) in
            [("\"a\"", Some("W/\"a\"")), ("W/\"a\"", Some("W/\"a\"")), ("a", None), ("\"a\", \"b\"", None)]
        {
            let mut headers = fields(&[("etag", before)]);
            weaken(&mut headers);
            assert_eq!(headers.get(ETAG).map(|value| value.to_str().unwrap()), after, "{before}");
        }
    }

    #[test]
    fn a_304_names_the_tag_that_the_client_holds() {
        for (clause, held, after) in [
            ("it holds another form", "W/\"a\"", "W/\"a\""),
            ("among others", "\"b\", W/\"a\"", "W/\"a\""),
            ("it holds the form as stored", "\"a\"", "\"a\""),
            ("it holds something else", "W/\"b\"", "\"a\""),
            ("anything will do", "*", "\"a\""),
        ] {
            let mut headers = fields(&[("etag", "\"a\"")]);
            not_modified(&mut headers, &fields(&[("if-none-match", held)]));
            assert_eq!(headers.get(ETAG).unwrap(), after, "{clause}");
            assert_eq!(headers.contains_key(VARY), after.starts_with('W'), "{clause}");
        }
    }
}
