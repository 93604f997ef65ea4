//! Conditional requests in both directions (RFC 9111 §4.3, RFC 9110 §13).
//!
//! Toward the origin: which conditions ask whether what is stored still holds, and what a 304
//! then changes. Toward the client: whether its own copy still holds.
//! Must not know: who asks first, or what is done where a 304 does not fit.

use http::header::{
    CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE, TRAILER,
};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::facts::ResponseFacts;
use crate::clock::Timestamp;
use crate::fields::validator::{ETag, EntityTags};
use crate::fields::{date, hop, targeted};

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

/// The `If-Range` that asks for more of the very representation that is stored in part (RFC 9110
/// §13.1.5); `None` where it has no strong validator, so that nothing may be put together with it.
pub fn our_if_range(resp: &ResponseFacts, stored: &HeaderMap) -> Option<HeaderValue> {
    match &resp.etag {
        Some(tag) => stored.get(ETAG).filter(|_| !tag.is_weak()).cloned(),
        None => stored.get(LAST_MODIFIED).filter(|_| has_strong_date(resp)).cloned(),
    }
}

/// Whether a part that came is of the representation that is stored in part: RFC 9110 §15.3.7.3, "only
/// ... if they all have in common the same strong validator".
pub fn same_representation(stored: &ResponseFacts, part: &ResponseFacts) -> bool {
    match (&stored.etag, &part.etag) {
        (Some(held), Some(came)) => held.strong_eq(came),
        (None, None) => has_strong_date(stored) && stored.last_modified == part.last_modified,
        _ => false,
    }
}

/// RFC 9110 §8.8.2.2: a date is strong where it is at least a second before `Date`.
fn has_strong_date(resp: &ResponseFacts) -> bool {
    let dates = resp.last_modified.zip(resp.date);
    // A Date that is the time of receipt may be ours (§6.6.1), and then by another clock: a minute between
    // the two is more than clocks differ by that mean anything.
    let ours = resp.date.is_some_and(|date| date.as_secs() == resp.response_time.as_secs());
    let apart = if ours { 60 } else { 1 };
    dates.is_some_and(|(modified, date)| date.as_secs() >= modified.as_secs().saturating_add(apart))
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
    let held = matches!(resp.status, 200 | 206) && still_held(request_headers, resp);
    if held { ClientCondition::NotModified } else { ClientCondition::None }
}

/// Whether a `Range` counts (RFC 9110 §13.1.5): `If-Range` is absent, or names just what is stored.
pub fn if_range_holds(request_headers: &HeaderMap, resp: &ResponseFacts) -> bool {
    let mut lines = request_headers.get_all(IF_RANGE).iter();
    let Some(value) = lines.next().map(HeaderValue::as_bytes) else { return true };
    if lines.next().is_some() {
        return false;
    }
    let same_tag = ETag::strong_eq_written(resp.etag.as_ref(), value);
    same_tag.unwrap_or_else(|| same_strong_date(value, resp))
}

/// The stored fields as a 304 updates them (§3.2, §4.3.4): what it carries replaces what is
/// stored, all lines of a field at once.
///
/// Not taken from it: fields of the connection and of proxies; what the stored bytes hang on
/// (`Content-Length`, `Content-Encoding`, `Content-Range`); fields that `no-cache` or `private`
/// name; and `Set-Cookie`, which is for the one client whose request asked the origin. `Date` and
/// `Age` are the 304's or none: the old ones tell of an older answer.
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

/// What a 304 carries for the one client whose request asked the origin: `Set-Cookie`, and the fields that
/// `no-cache` or `private` name (§5.2.2.7). [`freshen`] takes none of them, and nobody else is given them.
pub fn for_who_asked(stored: &HeaderMap, not_modified: &HeaderMap) -> HeaderMap {
    let named = named_fields(stored, not_modified);
    let mut own = HeaderMap::new();
    for (name, value) in not_modified {
        if (*name == header::SET_COOKIE || named.contains(name)) && !hop::is_hop_by_hop(name) {
            own.append(name.clone(), value.clone());
        }
    }
    own
}

/// Leaves in a 304 only what it says of the stored response as such, for how long and which one it is;
/// returns the rest.
///
/// What an origin says to a request with cookies may be about whoever sent them, also in a 304: fields that
/// it brought so are merged into nothing that others get, unless a word on sharing says that they may
/// ([`brought_for_all`](super::storing::brought_for_all)).
pub fn keep_to_the_stored(not_modified: &mut HeaderMap) -> HeaderMap {
    let others: Vec<_> = not_modified.keys().filter(|name| !OF_THE_STORED.contains(name)).cloned().collect();
    let mut rest = HeaderMap::new();
    for name in others {
        if let header::Entry::Occupied(entry) = not_modified.entry(name) {
            let (name, values) = entry.remove_entry_mult();
            rest.extend(values.map(|value| (name.clone(), value)));
        }
    }
    rest
}

const OF_THE_STORED: [HeaderName; 10] = [
    DATE,
    header::AGE,
    header::CACHE_CONTROL,
    header::CONNECTION,
    header::ETAG,
    header::EXPIRES,
    header::LAST_MODIFIED,
    header::VARY,
    targeted::CDN_CACHE_CONTROL,
    targeted::LARDER_CACHE_CONTROL,
];

/// Whether a 304 speaks of the stored response (§4.3.4): its validators, if it has any, are those
/// of the stored one.
///
/// Without any it does: our conditions named this one response and no other. (The RFC asks for a
/// stored response without a validator here; many servers leave out the `ETag` they must repeat.)
pub fn confirms(stored: &ResponseFacts, not_modified: &ResponseFacts) -> bool {
    match (&stored.etag, &not_modified.etag) {
        // A strong validator "identifies" the stored response, or none is updated.
        (held, Some(tag)) if !tag.is_weak() => held.as_ref().is_some_and(|held| held.strong_eq(tag)),
        (Some(held), Some(tag)) => held.weak_eq(tag),
        (None, Some(_)) => not_modified.last_modified.is_some() && same_date(stored, not_modified),
        (_, None) => not_modified.last_modified.is_none() || same_date(stored, not_modified),
    }
}

/// Whether a 304 that confirms one stored response speaks of this one, too: §4.3.4, "All the stored
/// responses in the initial set with one of those same strong validators are identified for update".
pub fn same_strong_validator(stored: &ResponseFacts, not_modified: &ResponseFacts) -> bool {
    let tags = stored.etag.as_ref().zip(not_modified.etag.as_ref());
    tags.is_some_and(|(held, came)| held.strong_eq(came))
}

/// Whether the answer to a HEAD is about the stored response, whose content is `length` bytes long
/// (§4.3.5): "matching values for any received validator fields ... and, if the HEAD response has a
/// Content-Length header field, the value of Content-Length matches".
pub fn speaks_of(stored: &ResponseFacts, length: u64, head: &ResponseFacts, declared: Option<u64>) -> bool {
    let tag = head.etag.is_none() || head.etag == stored.etag;
    let modified = head.last_modified.is_none() || head.last_modified == stored.last_modified;
    tag && modified && declared.is_none_or(|declared| declared == length)
}

/// Whether a 304 to a client carries this field of the stored response (RFC 9110 §15.4.5): all but
/// metadata of the representation, of which the clause lists what is due (`Cache-Control`,
/// `Content-Location`, `Date`, `ETag`, `Expires`, `Vary`). What speaks of the response itself, such as
/// `Via`, `Set-Cookie` or `Access-Control-Allow-Origin`, stays. `Last-Modified` belongs there too where
/// there is no `ETag`.
pub fn not_modified_fields(name: &HeaderName) -> bool {
    let representation = [
        CONTENT_ENCODING,
        CONTENT_LANGUAGE,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        LAST_MODIFIED,
        TRAILER,
    ];
    !representation.contains(name)
}

/// What no 304 changes.
const KEPT: [HeaderName; 5] = [
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::SET_COOKIE,
    header::TRAILER,
];

/// What `no-cache` or `private` name, by the `Cache-Control` (or targeted field) that will stand.
fn named_fields(stored: &HeaderMap, not_modified: &HeaderMap) -> Vec<HeaderName> {
    let mut standing = HeaderMap::new();
    for name in targeted::SOURCES {
        let from = if not_modified.contains_key(&name) { not_modified } else { stored };
        for value in from.get_all(&name) {
            standing.append(name.clone(), value.clone());
        }
    }
    let said = targeted::in_force(&standing).directives;
    let named = said.no_cache.fields().iter().chain(said.private.fields());
    // Without the field that names itself its word would be lost; with it, it is taken to mean the whole.
    named.filter(|name| !targeted::SOURCES.contains(name)).cloned().collect()
}

fn same_date(stored: &ResponseFacts, not_modified: &ResponseFacts) -> bool {
    stored.last_modified == not_modified.last_modified
}

fn still_held(request_headers: &HeaderMap, resp: &ResponseFacts) -> bool {
    // RFC 9110 §13.2.2: If-Modified-Since counts only where there is no If-None-Match.
    let held = EntityTags::weak_match_in(request_headers, IF_NONE_MATCH, resp.etag.as_ref());
    held.unwrap_or_else(|| unmodified_since(request_headers, resp))
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
    asked.is_some() && asked == resp.last_modified && has_strong_date(resp)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::rules::storing;
    use proptest::prelude::*;

    fn lines(headers: &HeaderMap) -> Vec<String> {
        headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect()
    }

    #[test]
    fn the_origin_is_asked_with_the_validators_as_they_came() {
        let odd = "last-modified: sun, 06 nov 1994 08:48:37 gmt";
        for (clause, status, fields, expected) in [
            (
                "§4.3.1 both",
                200,
                &["etag: W/\"a\"", odd][..],
                &["if-none-match: W/\"a\"", "if-modified-since: sun, 06 nov 1994 08:48:37 gmt"][..],
            ),
            ("§4.3.1 tag", 200, &["etag: \"a\""], &["if-none-match: \"a\""]),
            ("§4.3.1 date", 200, &[odd], &["if-modified-since: sun, 06 nov 1994 08:48:37 gmt"]),
            ("§4.3.1 no validator", 200, &["etag: a", "last-modified: 1"], &[]),
            ("9110 §13.2.1 not 2xx", 404, &["etag: \"a\""], &[]),
        ] {
            let found = origin_conditions(&response(status, fields), &headers(fields));
            assert_eq!(lines(&HeaderMap::from_iter(found)), expected, "{clause}");
        }
    }

    #[test]
    fn a_head_speaks_of_what_has_its_validators_and_its_length() {
        let (tag, modified) = ("etag: \"a\"", format!("last-modified: {BEFORE}"));
        let later = format!("last-modified: {AFTER}");
        let stored = response(200, &[tag, &modified]);
        for (clause, head, declared, expected) in [
            ("§4.3.5 nothing received", &[][..], None, true),
            ("§4.3.5 both", &[tag, &modified], Some(4), true),
            ("§4.3.5 another tag", &["etag: \"b\""], None, false),
            ("§4.3.5 another strength", &["etag: W/\"a\""], None, false),
            ("§4.3.5 another date", &[tag, &later], None, false),
            ("§4.3.5 another length", &[tag], Some(5), false),
        ] {
            assert_eq!(speaks_of(&stored, 4, &response(200, head), declared), expected, "{clause}");
        }
        let bare = response(200, &[]);
        assert!(!speaks_of(&bare, 4, &response(200, &[tag]), None), "§4.3.5 a tag where there was none");
    }

    #[test]
    fn a_304_speaks_of_all_with_its_strong_tag() {
        for (held, came, expected) in [
            (&["etag: \"a\""][..], &["etag: \"a\""][..], true),
            (&["etag: \"b\""], &["etag: \"a\""], false),
            (&["etag: W/\"a\""], &["etag: W/\"a\""], false),
            (&[], &["etag: \"a\""], false),
            (&["etag: \"a\""], &[], false),
        ] {
            let same = same_strong_validator(&response(200, held), &response(304, came));
            assert_eq!(same, expected, "§4.3.4 {held:?} {came:?}");
        }
    }

    #[test]
    fn parts_are_put_together_by_a_strong_validator_alone() {
        let (modified, later) = (format!("last-modified: {BEFORE}"), format!("date: {NOW}"));
        let soon = format!("date: {BEFORE}");
        let (strong, weak, other) = ("etag: \"a\"", "etag: W/\"a\"", "etag: \"b\"");
        for (clause, held, came, same) in [
            ("§15.3.7.3 strong tag", &[strong][..], &[strong][..], true),
            ("§15.3.7.3 another", &[strong], &[other], false),
            ("§15.3.7.3 weak", &[weak], &[weak], false),
            ("§15.3.7.3 none there", &[strong], &[], false),
            ("§15.3.7.3 none here", &[], &[strong], false),
            ("§8.8.2.2 strong date", &[&modified, &later], &[&modified], true),
            ("§8.8.2.2 weak date", &[&modified, &soon], &[&modified], false),
            ("§15.3.7.3 no validator", &[], &[], false),
        ] {
            let (stored, part) = (response(206, held), response(206, came));
            assert_eq!(same_representation(&stored, &part), same, "{clause}");
            let asks = our_if_range(&stored, &headers(held)).is_some();
            assert_eq!(asks, same || held == [strong], "{clause}");
        }
    }

    #[test]
    fn a_304_that_names_its_own_control_restricts_all_the_same() {
        let stored = headers(&["cache-control: max-age=60", "etag: \"a\""]);
        for line in
            ["cache-control: private=\"cache-control\"", "cdn-cache-control: private=\"cdn-cache-control\""]
        {
            let fresh = freshen(&stored, &headers(&["etag: \"a\"", line]));
            let facts = ResponseFacts::of(200, &fresh, AT, AT);
            assert!(facts.directives.private.is_all(), "§5.2.2.7 {line}: {:?}", lines(&fresh));
        }
    }

    #[test]
    fn our_own_date_makes_no_date_strong() {
        // Received at AT without a Date: stored with that of the receipt.
        let at = |secs: u64| {
            crate::fields::date::to_value(AT.saturating_add(std::time::Duration::from_secs(secs)))
        };
        let modified = |value: HeaderValue| format!("last-modified: {}", value.to_str().unwrap());
        let ours = format!("date: {NOW}");
        let a_minute = format!("last-modified: {BEFORE}");
        let strong = |fields: &[&str]| our_if_range(&response(206, fields), &headers(fields)).is_some();
        assert!(strong(&[&ours, &a_minute]), "9110 §8.8.2.2 a minute");
        let later = format!("date: {}", at(9).to_str().unwrap());
        assert!(!strong(&[&ours, &modified(at(0))]), "9110 §8.8.2.2 the same second");
        assert!(strong(&[&later, &modified(at(8))]), "9110 §8.8.2.2 a second, by the origin's clock");
    }

    #[test]
    fn a_fill_carries_no_condition_of_a_client() {
        let mut map = headers(&[
            "if-match: *",
            "if-none-match: *",
            "if-modified-since: x",
            "if-unmodified-since: x",
            "if-range: x",
            "range: bytes=0-",
            "accept: x",
        ]);
        strip_conditions(&mut map);
        assert_eq!(lines(&map), ["accept: x"]);
    }

    #[test]
    fn clients_conditions_are_evaluated() {
        let (modified, dated) = (format!("last-modified: {NOW}"), format!("date: {NOW}"));
        let tagged = &["etag: \"a\"", &modified][..];
        let weak = &["etag: W/\"a\""][..];
        let (modified, dated) = (&[&*modified][..], &[&*dated][..]);
        let since = |date: &str| format!("if-modified-since: {date}");
        let (before, now, later) = (&*since(BEFORE), &*since(NOW), &*since(AFTER));
        for (clause, asked, fields, expected) in [
            ("no condition", &["x: y"][..], tagged, false),
            ("§13.1.2 the same", &["if-none-match: \"a\""], tagged, true),
            ("§13.1.2 weak comparison", &["if-none-match: W/\"a\""], tagged, true),
            ("§13.1.2 weak comparison", &["if-none-match: \"a\""], weak, true),
            ("§13.1.2 one of a list", &["if-none-match: \"x\", \"a\""], tagged, true),
            ("§13.1.2 one of the lines", &["if-none-match: \"x\"", "if-none-match: \"a\""], tagged, true),
            ("§13.1.2 none", &["if-none-match: \"x\""], tagged, false),
            ("§13.1.2 star", &["if-none-match: *"], tagged, true),
            ("§13.1.2 star, no tag stored", &["if-none-match: *"], dated, true),
            ("§13.1.2 no tag stored", &["if-none-match: \"a\""], modified, false),
            ("§13.1.3 If-None-Match goes first", &["if-none-match: \"x\"", later], tagged, false),
            ("§13.1.3 If-None-Match goes first", &["if-none-match: \"a\"", before], tagged, true),
            ("§13.1.3 also where it is garbage", &["if-none-match: x", later], tagged, false),
            ("§13.1.3 the same time", &[now], modified, true),
            ("§13.1.3 later", &[later], modified, true),
            ("§13.1.3 earlier", &[before], modified, false),
            ("§13.1.3 no date", &["if-modified-since: yesterday"], modified, false),
            ("§13.1.3 several", &[later, later], modified, false),
            ("§13.1.3 several on a line", &[&format!("{later}, {AFTER}")], modified, false),
            ("9111 §4.3.2 Date in its place", &[now], dated, true),
            ("9111 §4.3.2 Date in its place", &[before], dated, false),
            ("9111 §4.3.2 time of receipt", &[now], &[], true),
            ("9111 §4.3.2 time of receipt", &[before], &[], false),
        ] {
            let expected = if expected { ClientCondition::NotModified } else { ClientCondition::None };
            let asked = headers(asked);
            assert_eq!(client_condition(&asked, &response(200, fields)), expected, "{clause}: {asked:?}");
            assert_eq!(
                client_condition(&asked, &response(404, fields)),
                ClientCondition::None,
                "{clause}, of a 404"
            );
        }
    }

    #[test]
    fn a_range_counts_if_the_client_means_what_is_stored() {
        let tag = "etag: \"a\"";
        let modified = format!("last-modified: {NOW}");
        let (soon, date_later) = (format!("date: {NOW}"), format!("date: {AFTER}"));
        for (clause, asked, fields, expected) in [
            ("§13.1.5 absent", &[][..], &[tag][..], true),
            ("§13.1.5 strong", &["if-range: \"a\""], &[tag], true),
            ("§13.1.5 another", &["if-range: \"b\""], &[tag], false),
            ("§13.1.5 weak", &["if-range: W/\"a\""], &[tag], false),
            ("§13.1.5 weak stored", &["if-range: \"a\""], &["etag: W/\"a\""], false),
            ("§13.1.5 none stored", &["if-range: \"a\""], &[], false),
            ("§13.1.5 strong date", &[&*format!("if-range: {NOW}")], &[&modified, &date_later], true),
            ("§8.8.2.2 weak date", &[&format!("if-range: {NOW}")], &[&modified, &soon], false),
            ("§8.8.2.2 no Date", &[&format!("if-range: {NOW}")], &[&modified], false),
            (
                "§13.1.5 later is not the same",
                &[&format!("if-range: {AFTER}")],
                &[&modified, &date_later],
                false,
            ),
            (
                "§13.1.5 earlier is not the same",
                &[&format!("if-range: {BEFORE}")],
                &[&modified, &date_later],
                false,
            ),
            ("§13.1.5 neither", &["if-range: a"], &[tag, &modified, &date_later], false),
            ("§13.1.5 two", &["if-range: \"a\"", "if-range: \"a\""], &[tag], false),
        ] {
            assert_eq!(
                if_range_holds(&headers(asked), &response(200, fields)),
                expected,
                "{clause}: {asked:?}"
            );
        }
    }

    #[test]
    fn a_304_speaks_of_the_stored_response_or_not() {
        let (now, before) = (format!("last-modified: {NOW}"), format!("last-modified: {BEFORE}"));
        let (a, weak_a, b, weak_b) = ("etag: \"a\"", "etag: W/\"a\"", "etag: \"b\"", "etag: W/\"b\"");
        for (clause, stored, fresh, expected) in [
            ("§4.3.4 strong, the same", &[a][..], &[a][..], true),
            ("§4.3.4 strong, another", &[a, &now], &[b, &now], false),
            ("§4.3.4 strong, a weak one stored", &[weak_a], &[a], false),
            ("§4.3.4 strong, no tag stored", &[&now], &[a, &now], false),
            ("§4.3.4 weak", &[weak_a], &[weak_a], true),
            ("§4.3.4 weakened on the way", &[a], &[weak_a], true),
            ("§4.3.4 weak, another", &[weak_a, &now], &[weak_b, &now], false),
            ("§4.3.4 weak, no tag stored", &[&now], &[weak_a, &now], true),
            ("§4.3.4 weak, no tag stored", &[&now], &[weak_a, &before], false),
            ("§4.3.4 weak, no tag stored", &[&now], &[weak_a], false),
            ("§4.3.4 date, the same", &[a, &now], &[&now], true),
            ("§4.3.4 date, another", &[a, &now], &[&before], false),
            ("§4.3.4 date, none stored", &[a], &[&now], false),
            ("none: it can mean no other", &[a, &now], &[], true),
        ] {
            assert_eq!(
                confirms(&response(200, stored), &response(304, fresh)),
                expected,
                "{clause}: {stored:?} {fresh:?}"
            );
        }
    }

    #[test]
    fn a_304_updates_fields_as_a_whole() {
        let stored = headers(&[
            "cache-control: max-age=1",
            "etag: W/\"a\"",
            "link: <a>",
            "link: <b>",
            "x-kept: 1",
            "content-length: 5",
            "content-type: text/plain",
            "content-encoding: gzip",
            "age: 50",
            "set-cookie: old",
            &format!("date: {BEFORE}"),
        ]);
        let fresh = headers(&[
            "cache-control: max-age=60",
            "link: <c>",
            "link: <d>",
            "x-new: 1",
            "content-length: 0",
            "content-type: text/html",
            "content-encoding: br",
            "content-range: bytes 0-0/1",
            "set-cookie: new",
            "connection: x-hop",
            "x-hop: 1",
            "keep-alive: 5",
            "transfer-encoding: chunked",
            "proxy-authenticate: x",
            &format!("date: {NOW}"),
        ]);
        let mut updated = lines(&freshen(&stored, &fresh));
        updated.sort();
        let date = format!("date: {NOW}");
        let expected = [
            "cache-control: max-age=60",
            "content-encoding: gzip",
            "content-length: 5",
            "content-type: text/html",
            &date,
            "etag: W/\"a\"",
            "link: <c>",
            "link: <d>",
            "set-cookie: old",
            "x-kept: 1",
            "x-new: 1",
        ];
        assert_eq!(updated, expected, "§3.2");
    }

    #[test]
    fn a_304_has_fields_for_who_asked_alone() {
        let stored =
            headers(&["cache-control: private=\"x-user\", max-age=1", "x-user: old", "set-cookie: old"]);
        let fresh = headers(&["set-cookie: a", "x-user: new", "set-cookie: b", "x: y", "etag: \"1\""]);
        let mut own = lines(&for_who_asked(&stored, &fresh));
        own.sort();
        assert_eq!(own, ["set-cookie: a", "set-cookie: b", "x-user: new"], "§5.2.2.7");
        assert_eq!(for_who_asked(&stored, &headers(&["x: y"])).len(), 0);
        let hop = headers(&["cache-control: no-cache=\"te, upgrade\"", "te: x", "upgrade: y"]);
        assert_eq!(for_who_asked(&stored, &hop).len(), 0, "§3.1");
    }

    #[test]
    fn a_304_without_date_or_age_leaves_no_old_ones() {
        let stored = headers(&["age: 50", &format!("date: {BEFORE}"), "x: y"]);
        assert_eq!(lines(&freshen(&stored, &HeaderMap::new())), ["x: y"], "§4.2.3");
        let fresh = headers(&["age: 3"]);
        let updated = freshen(&stored, &fresh);
        assert_eq!(ResponseFacts::of(200, &updated, AT, AT).age, 3, "§4.2.3");
    }

    #[test]
    fn a_304_brings_in_nothing_that_may_not_be_stored() {
        let stored = headers(&["cache-control: max-age=1, private=\"x-user\"", "etag: \"a\""]);
        let fresh = headers(&["x-user: me", "etag: \"a\""]);
        assert!(!freshen(&stored, &fresh).contains_key("x-user"), "§3.1 by the stored word");
        let stored = headers(&["cache-control: max-age=1", "x-user: old"]);
        let fresh = headers(&["cache-control: max-age=1, no-cache=\"x-user\"", "x-user: me"]);
        assert!(!freshen(&stored, &fresh).contains_key("x-user"), "§3.1 by the new word");
        let fresh = headers(&["cdn-cache-control: private=\"x-user\"", "x-user: 2"]);
        assert!(!freshen(&stored, &fresh).contains_key("x-user"), "RFC 9213 §2.2 by the targeted word");
    }

    #[test]
    fn a_304_to_a_client_carries_what_the_clause_lists() {
        for name in
            ["cache-control", "content-location", "date", "etag", "expires", "vary", "via", "set-cookie"]
        {
            assert!(not_modified_fields(&HeaderName::from_static(name)), "9110 §15.4.5 {name}");
        }
        for name in ["content-length", "content-type", "content-encoding", "last-modified"] {
            assert!(!not_modified_fields(&HeaderName::from_static(name)), "9110 §15.4.5 {name}");
        }
    }

    proptest! {
        #[test]
        fn freshening_keeps_repeats_in_order(
            stored in prop::collection::vec((0..4u8, 0..9u8), 0..12), fresh in prop::collection::vec((0..4u8, 0..9u8), 0..12),
        ) {
            let map = |fields: &[(u8, u8)]| {
                let lines: Vec<_> = fields.iter().map(|(name, value)| format!("x-{name}: {value}")).collect();
                headers(&lines.iter().map(String::as_str).collect::<Vec<_>>())
            };
            let (stored, fresh) = (map(&stored), map(&fresh));
            let updated = freshen(&stored, &fresh);
            for name in 0..4 {
                let name = format!("x-{name}");
                let from = if fresh.contains_key(&name) { &fresh } else { &stored };
                let expected: Vec<_> = from.get_all(&name).iter().collect();
                prop_assert_eq!(updated.get_all(&name).iter().collect::<Vec<_>>(), expected);
            }
        }

        #[test]
        fn a_response_is_confirmed_by_its_own_fields(fields in any::fields()) {
            let resp = ResponseFacts::of(200, &fields, AT, AT);
            let same = ResponseFacts::of(304, &fields, AT, AT);
            let strong_or_none = resp.etag.as_ref().is_none_or(|tag| !tag.is_weak());
            prop_assert!(confirms(&resp, &same) && strong_or_none);
            let updated = freshen(&fields, &fields);
            let again = ResponseFacts::of(200, &updated, AT, AT);
            prop_assert_eq!(&again.directives, &resp.directives);
        }

        #[test]
        fn a_freshened_response_holds_only_what_could_have_been_stored(
            stored in any::fields(), fresh in any::fields(), req in any::request(), policy in any::policy(),
        ) {
            let stored_facts = ResponseFacts::of(200, &stored, AT, AT);
            if let Ok(permit) = storing::judge(&req, &stored_facts, &policy) {
                let kept = storing::stored_fields(&stored, &permit);
                let updated = freshen(&kept, &fresh);
                let facts = ResponseFacts::of(200, &updated, AT, AT);
                prop_assert!(kept.contains_key("set-cookie") || !updated.contains_key("set-cookie"));
                let named = facts.directives.no_cache.fields().iter().chain(facts.directives.private.fields());
                for name in named {
                    prop_assert!(!updated.contains_key(name));
                }
            }
        }

        #[test]
        fn conditions_of_any_bytes_are_evaluated(tags: Vec<u8>, since: Vec<u8>, range: Vec<u8>, resp in any::facts()) {
            let mut map = HeaderMap::new();
            for (name, value) in [(IF_NONE_MATCH, tags), (IF_MODIFIED_SINCE, since), (IF_RANGE, range)] {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    map.append(name, value);
                }
            }
            let _ = (client_condition(&map, &resp), if_range_holds(&map, &resp));
        }
    }
}
