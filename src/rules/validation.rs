//! Conditional requests in both directions (RFC 9111 §4.3, RFC 9110 §13).
//!
//! Toward the origin: which conditions ask whether what is stored still holds, and what a 304
//! then changes. Toward the client: whether its own copy still holds.
//! Must not know: who asks first, or what is done where a 304 does not fit.

use http::header::{
    CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::facts::ResponseFacts;
use crate::clock::Timestamp;
use crate::fields::cache_control::ResponseDirectives;
use crate::fields::validator::{ETag, EntityTags};
use crate::fields::{date, hop};

/// What a client's conditions come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCondition {
    /// There are none that apply, or they ask for the response.
    None,
    /// The client's copy still holds: 304.
    NotModified,
}

/// The conditions that ask the origin whether a stored response still holds (§4.3.1); none where
/// it has no validator. Values go out as they came.
pub fn origin_conditions(resp: &ResponseFacts, stored: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    if !resp.has_validator() {
        return Vec::new();
    }
    let condition = |held: bool, from: HeaderName, name: HeaderName| {
        let value = stored.get(from).filter(|_| held)?;
        Some((name, value.clone()))
    };
    let tag = condition(resp.etag.is_some(), ETAG, IF_NONE_MATCH);
    let modified = condition(resp.last_modified.is_some(), LAST_MODIFIED, IF_MODIFIED_SINCE);
    tag.into_iter().chain(modified).collect()
}

/// Removes what a fill never carries: the client's own conditions and ranges. The answer is for
/// all, and whole.
pub fn strip_conditions(headers: &mut HeaderMap) {
    for name in [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, IF_RANGE, RANGE] {
        headers.remove(name);
    }
}

/// Whether the client's copy still holds (§4.3.2; RFC 9110 §13.2.2). The request is a GET or HEAD.
pub fn client_condition(request_headers: &HeaderMap, resp: &ResponseFacts) -> ClientCondition {
    // §4.3.2 speaks of stored 200s (and 206s).
    let held = resp.status == 200 && still_held(request_headers, resp);
    if held { ClientCondition::NotModified } else { ClientCondition::None }
}

/// Whether the request has a condition that is the origin's to judge (§4.3.2).
pub fn has_precondition(request_headers: &HeaderMap) -> bool {
    request_headers.contains_key(IF_MATCH) || request_headers.contains_key(IF_UNMODIFIED_SINCE)
}

/// Whether a `Range` counts (RFC 9110 §13.1.5): `If-Range` is absent, or names just what is stored.
pub fn if_range_holds(request_headers: &HeaderMap, resp: &ResponseFacts) -> bool {
    let mut lines = request_headers.get_all(IF_RANGE).iter();
    let Some(value) = lines.next().map(HeaderValue::as_bytes) else { return true };
    if lines.next().is_some() {
        return false;
    }
    match ETag::parse(value) {
        Some(tag) => resp.etag.as_ref().is_some_and(|stored| stored.strong_eq(&tag)),
        None => same_strong_date(value, resp),
    }
}

/// The stored fields as a 304 updates them (§3.2, §4.3.4): what it carries replaces what is
/// stored, all lines of a field at once.
///
/// Not taken from it: fields of the connection and of proxies; those that describe the stored
/// body (`Content-Length`, `Content-Encoding`, `Content-Type`, `Content-Range`); fields that
/// `no-cache` or `private` name; and `Set-Cookie`, which is for the one client whose request asked
/// the origin. `Date` and `Age` are the 304's or none: the old ones tell of an older answer.
pub fn freshen(stored: &HeaderMap, not_modified: &HeaderMap) -> HeaderMap {
    let options = hop::connection_options(not_modified);
    let named = named_fields(stored, not_modified);
    let taken = |name: &HeaderName| {
        !hop::is_hop_by_hop(name) && !KEPT.contains(name) && !options.contains(name) && !named.contains(name)
    };
    let mut fresh = HeaderMap::with_capacity(stored.len());
    for (name, value) in stored {
        let replaced = not_modified.contains_key(name) && taken(name);
        if !replaced && ![DATE, header::AGE].contains(name) && !named.contains(name) {
            fresh.append(name.clone(), value.clone());
        }
    }
    for (name, value) in not_modified.iter().filter(|(name, _)| taken(name)) {
        fresh.append(name.clone(), value.clone());
    }
    fresh
}

/// Whether a 304 speaks of the stored response (§4.3.4): its validators, if it has any, are those
/// of the stored one.
///
/// Without any it does: our conditions named this one response and no other. (The RFC asks for a
/// stored response without a validator here; many servers leave out the `ETag` they must repeat.)
pub fn confirms(stored: &ResponseFacts, not_modified: &ResponseFacts) -> bool {
    match (&not_modified.etag, not_modified.last_modified) {
        // A strong validator identifies the stored response, or none.
        (Some(tag), _) if !tag.is_weak() => stored.etag.as_ref().is_some_and(|held| held.strong_eq(tag)),
        (Some(tag), _) => stored.etag.as_ref().is_some_and(|held| held.weak_eq(tag)),
        (None, Some(modified)) => stored.last_modified == Some(modified),
        (None, None) => true,
    }
}

/// Whether a 304 to a client carries this field of the stored response (RFC 9110 §15.4.5).
/// `Last-Modified` belongs there too where there is no `ETag`.
pub fn not_modified_fields(name: &HeaderName) -> bool {
    [CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, VARY].contains(name)
}

/// What no 304 changes.
const KEPT: [HeaderName; 6] = [
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
    header::CONTENT_RANGE,
    header::SET_COOKIE,
    header::TRAILER,
];

/// What `no-cache` or `private` name, by the `Cache-Control` that will stand.
fn named_fields(stored: &HeaderMap, not_modified: &HeaderMap) -> Vec<HeaderName> {
    let said = if not_modified.contains_key(CACHE_CONTROL) { not_modified } else { stored };
    let said = ResponseDirectives::parse(said);
    said.no_cache.fields().iter().chain(said.private.fields()).cloned().collect()
}

fn still_held(request_headers: &HeaderMap, resp: &ResponseFacts) -> bool {
    // RFC 9110 §13.2.2: If-Modified-Since counts only where there is no If-None-Match.
    match EntityTags::parse(request_headers, IF_NONE_MATCH) {
        Some(EntityTags::Any) => true,
        Some(tags) => resp.etag.as_ref().is_some_and(|stored| tags.weak_match(stored)),
        None => unmodified_since(request_headers, resp),
    }
}

fn unmodified_since(request_headers: &HeaderMap, resp: &ResponseFacts) -> bool {
    let mut lines = request_headers.get_all(IF_MODIFIED_SINCE).iter();
    // RFC 9110 §13.1.3: ignored if it is no date or "has more than one member".
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let Some(since) = date::parse(line.as_bytes(), resp.response_time) else { return false };
    // §4.3.2: without Last-Modified, Date, or the time of receipt.
    let modified = resp.last_modified.unwrap_or_else(|| resp.made());
    modified.as_secs() <= since.as_secs()
}

/// RFC 9110 §13.1.5: exactly the stored date, and that one strong (§8.8.2.2: at least a second
/// before `Date`).
fn same_strong_date(value: &[u8], resp: &ResponseFacts) -> bool {
    let asked: Option<Timestamp> = date::parse(value, resp.response_time);
    let (Some(modified), Some(date)) = (resp.last_modified, resp.date) else { return false };
    asked == Some(modified) && date.as_secs() > modified.as_secs()
}
