//! What of a stored response answers a request: all of it, parts, or that it has not changed.
//!
//! Knows conditions and ranges. There is an answer only where all the bytes that it takes are held, so
//! whoever wants to deliver a stored response has to have come by here.
//! Must not know: freshness, fields that are added on the way, how parts are framed.

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::StoredResponse;
use crate::fields::range::{Resolved, Span};
use crate::rules::{ClientCondition, RequestFacts, ResponseFacts, client_condition, if_range_holds};

/// The bytes to answer with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The client's own copy still holds: 304.
    NotModified,
    /// Everything.
    Whole(Bytes),
    /// 206 with one part.
    Part(Span, Vec<Bytes>),
    /// 206 with several, in the order asked.
    Parts(Vec<(Span, Vec<Bytes>)>),
    /// 416.
    Unsatisfiable,
}

impl StoredResponse {
    /// The answer to a request with these fields where it is all of the content, or none since the client holds it already.
    /// The content is lent: the count of who holds it lies apart, in memory that a hit need not wait for.
    pub fn uncut(&self, asked: &RequestFacts, headers: &HeaderMap) -> Option<Option<&Bytes>> {
        if is_not_modified(asked, headers, &self.facts) {
            return Some(None);
        }
        match resolve(asked, headers, &self.facts, self.content.length()) {
            Resolved::Whole => self.content.whole().map(Some),
            Resolved::Part(_) | Resolved::Parts(_) | Resolved::Unsatisfiable => None,
        }
    }

    /// The answer to a request with these fields, as far as it is held.
    pub fn cut(&self, asked: &RequestFacts, headers: &HeaderMap) -> Option<Cut> {
        if is_not_modified(asked, headers, &self.facts) {
            return Some(Cut::NotModified);
        }
        let content = &self.content;
        match resolve(asked, headers, &self.facts, content.length()) {
            Resolved::Whole => content.whole().cloned().map(Cut::Whole),
            Resolved::Part(span) => content.cut(span).map(|bytes| Cut::Part(span, bytes)),
            Resolved::Parts(spans) => {
                let parts: Option<Vec<_>> =
                    spans.into_iter().map(|span| Some((span, content.cut(span)?))).collect();
                parts.map(Cut::Parts)
            }
            Resolved::Unsatisfiable => Some(Cut::Unsatisfiable),
        }
    }
}

/// Whether the client's own copy is this response (RFC 9111 §4.3.2).
pub fn is_not_modified(asked: &RequestFacts, headers: &HeaderMap, facts: &ResponseFacts) -> bool {
    // Of a QUERY, conditions mean what they mean of a GET (RFC 10008); of a POST they do not.
    let reads = matches!(asked.method, Method::GET | Method::HEAD | Method::QUERY);
    reads && asked.may_hold_it() && client_condition(headers, facts) == ClientCondition::NotModified
}

/// How the request's ranges fall on a representation of `length` bytes: RFC 9110 §14.2, on what would
/// be a 200 only; `If-Range` guards them (§13.1.5).
pub fn resolve(asked: &RequestFacts, headers: &HeaderMap, facts: &ResponseFacts, length: u64) -> Resolved {
    match &asked.ranges {
        Some(ranges) if matches!(facts.status, 200 | 206) && if_range_holds(headers, facts) => {
            ranges.resolve(length)
        }
        _ => Resolved::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::range::Span;
    use crate::stored::samples::{fields, key, stored};
    use crate::stored::{Born, Content, Parts};

    fn span(first: u64, last: u64) -> Span {
        Span { first, last }
    }

    /// What a GET with these fields gets of "0123456789", of which `held` alone is held.
    fn cut(held: Option<(u64, &'static str)>, asked: &[(&str, &str)]) -> Option<Cut> {
        let said = [("cache-control", "max-age=60"), ("etag", "\"a\"")];
        let mut response = (*stored(&key("/"), &[], &said, b"0123456789", Born::Here(0))).clone();
        if let Some((first, bytes)) = held {
            response.content = Parts::of(10, first, Bytes::from_static(bytes.as_bytes())).unwrap();
            std::sync::Arc::make_mut(&mut response.facts.said).status = 206;
        }
        let headers = fields(asked);
        let asked = RequestFacts::of(&Method::GET, &headers);
        let cut = response.cut(&asked, &headers);
        let uncut = match &cut {
            Some(Cut::NotModified) => Some(None),
            Some(Cut::Whole(bytes)) => Some(Some(bytes)),
            _ => None,
        };
        assert_eq!(response.uncut(&asked, &headers), uncut);
        cut
    }

    #[test]
    fn what_is_held_answers_and_nothing_else() {
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        let whole = || Some(Cut::Whole(bytes("0123456789")));
        let part = |first, last, text| Some(Cut::Part(span(first, last), vec![bytes(text)]));
        let (range, mid) = ("range", Some((2, "2345")));
        for (clause, held, asked, expected) in [
            ("9111 §4 the whole", None, &[][..], whole()),
            ("9110 §14.1.2 of the whole", None, &[(range, "bytes=2-3")], part(2, 3, "23")),
            ("9110 §14.1.2 suffix of the whole", None, &[(range, "bytes=-1")], part(9, 9, "9")),
            ("9110 §15.5.17", None, &[(range, "bytes=10-")], Some(Cut::Unsatisfiable)),
            ("9110 §14.2 nonsense is ignored", None, &[(range, "bytes=x")], whole()),
            (
                "9110 §13.1.5 If-Range holds",
                None,
                &[(range, "bytes=2-2"), ("if-range", "\"a\"")],
                part(2, 2, "2"),
            ),
            ("9110 §13.1.5 If-Range fails", None, &[(range, "bytes=2-2"), ("if-range", "\"b\"")], whole()),
            (
                "9110 §13.2.2 conditions first",
                None,
                &[(range, "bytes=2-2"), ("if-none-match", "\"a\"")],
                Some(Cut::NotModified),
            ),
            ("9111 §3.3 inside a part", mid, &[(range, "bytes=3-4")], part(3, 4, "34")),
            ("9111 §3.3 all of a part", mid, &[(range, "bytes=2-5")], part(2, 5, "2345")),
            ("9111 §3.3 not all of it", mid, &[(range, "bytes=3-6")], None),
            ("9111 §3.3 suffix", mid, &[(range, "bytes=-1")], None),
            ("9111 §3.3 the whole is not held", mid, &[], None),
            ("9111 §3.3 the whole, by If-Range", mid, &[(range, "bytes=3-4"), ("if-range", "\"b\"")], None),
            ("9110 §15.5.17 of a part", mid, &[(range, "bytes=10-")], Some(Cut::Unsatisfiable)),
            ("9111 §4.3.2 of a part", mid, &[("if-none-match", "\"a\"")], Some(Cut::NotModified)),
        ] {
            assert_eq!(cut(held, asked), expected, "{clause}");
        }
    }

    #[test]
    fn a_head_gets_no_part() {
        let response =
            stored(&key("/"), &[], &[("cache-control", "max-age=60")], b"0123456789", Born::Here(0));
        let headers = fields(&[("range", "bytes=0-1")]);
        let cut = response.cut(&RequestFacts::of(&Method::HEAD, &headers), &headers);
        assert!(matches!(cut, Some(Cut::Whole(_))), "9110 §14.2: Range is for GET");
        assert!(matches!(response.content, Content::Whole(_)));
    }
}
