//! What the rules need to know of a request and of a response, parsed once.
//!
//! Facts are what was said and when, never a decision: the route's policy is applied to them
//! later, and may have changed by then. Only whether a client may direct the cache at all is settled
//! here, so that nothing that asks later can forget it.
//! Must not know: any other policy, time now.

use std::mem::size_of;
use std::ops::Deref;
use std::sync::Arc;

use http::header::{CONTENT_LANGUAGE, CONTENT_RANGE, RANGE, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::policy::ClientCacheControl;
use super::understood::{Understood, Words};
use crate::clock::Timestamp;
use crate::fields::cache_control::{Reach, RequestDirectives, ResponseDirectives, Seconds, delta_seconds};
use crate::fields::content_coding::ContentCoding;
use crate::fields::groups::{self, Groups};
use crate::fields::no_vary_search::{self, NoVarySearch};
use crate::fields::present::Present;
use crate::fields::range::{self, ContentRange, Ranges};
use crate::fields::targeted::{self, InForce};
use crate::fields::validator::ETag;
use crate::fields::vary::Vary;
use crate::fields::{accept, date, list, tags};

/// What the rules need to know of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFacts {
    /// Its method.
    pub method: Method,
    /// Which of the fields that count it had when it was read: it may have lost some since, and got none.
    pub present: Present,
    /// Its `Cache-Control` (or `Pragma`).
    pub directives: RequestDirectives,
    /// It carries `Authorization`.
    pub has_authorization: bool,
    /// It carries `Cookie`.
    pub has_cookie: bool,
    /// It carries `Range`, and its method is one for which that means something.
    pub range: bool,
    /// What the `Range` of a GET asks for, where it makes sense (RFC 9110 §14.2).
    pub ranges: Option<Ranges>,
    /// Its fields by which scripts choose what they want ([`claims::Told::chooses`](crate::fields::claims::Told::chooses)),
    /// but for those that the key counts or the origin does not get: settled where both are known.
    pub chosen_by: Vec<HeaderName>,
}

/// What the rules need to know of a response: of it alone, and what it has [said](Said).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseFacts {
    /// What others have said just so. Read as if it stood here.
    pub(crate) said: Arc<Said>,
    /// When the origin made it; `None` where it does not say or says nonsense.
    pub date: Option<Timestamp>,
    /// `Expires`
    pub expires: Option<Expires>,
    /// `Last-Modified`; `None` where it does not say or says nonsense.
    pub last_modified: Option<Timestamp>,
    /// `ETag`; `None` where it is no entity tag.
    pub etag: Option<ETag>,
    /// When the request for it was sent (§4.2.3).
    pub request_time: Timestamp,
    /// When its head arrived (§4.2.3).
    pub response_time: Timestamp,
    /// `Age`: how long it had been in other caches (§5.1); zero where it does not say.
    pub age: Seconds,
}

/// What most responses of an origin say alike, so that those that are stored may share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its status.
    pub status: u16,
    /// Its `Cache-Control`, or the targeted field in its place (RFC 9213).
    pub directives: ResponseDirectives,
    /// `Vary`
    pub vary: Vary,
    /// `Content-Language`, in lower case, where it names one language (RFC 9110 §8.5).
    pub language: Option<Box<str>>,
    /// `Content-Encoding`
    pub coding: ContentCoding,
    /// It carries `Set-Cookie`.
    pub set_cookie: bool,
    /// `Cache-Groups` (RFC 9875 §2)
    pub groups: Groups,
    /// `No-Vary-Search`; `None` where all of the query counts.
    pub no_vary_search: Option<NoVarySearch>,
    /// `Content-Range` of a 206; `None` where it does not say, or says nonsense.
    pub content_range: Option<ContentRange>,
}

impl Deref for ResponseFacts {
    type Target = Said;

    fn deref(&self) -> &Said {
        &self.said
    }
}

impl Said {
    /// Bytes of memory that it takes, beyond the few that names take.
    pub fn weight(&self) -> usize {
        size_of::<Self>()
            .saturating_add(self.groups.heap())
            .saturating_add(self.no_vary_search.as_ref().map_or(0, NoVarySearch::heap))
    }
}

/// What `Expires` says (§5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expires {
    /// Then.
    At(Timestamp),
    /// No date, or several: already expired.
    Invalid,
}

impl RequestFacts {
    /// Reads a request's fields.
    pub fn of(method: &Method, headers: &HeaderMap) -> Self {
        Self::knowing(method, headers, Present::of(headers))
    }

    /// The same where it is known which fields there are.
    pub fn knowing(method: &Method, headers: &HeaderMap, present: Present) -> Self {
        // RFC 9110 §14.2: to be ignored on every method but GET.
        let range = *method == Method::GET && present.has(Present::RANGE);
        let directives = present.has(Present::CACHE_CONTROL).then(|| RequestDirectives::parse(headers));
        Self {
            method: method.clone(),
            present,
            directives: directives.unwrap_or_default(),
            has_authorization: present.has(Present::AUTHORIZATION),
            has_cookie: present.has(Present::COOKIE),
            range,
            ranges: range.then(|| ranges(method, headers)).flatten(),
            chosen_by: Vec::new(),
        }
    }

    /// Whether the request has a condition that is the origin's to judge (§4.3.2).
    pub const fn has_precondition(&self) -> bool {
        self.present.has(Present::PRECONDITION)
    }

    /// Whether the request says that its client may hold the answer already (RFC 9110 §13.1).
    pub const fn may_hold_it(&self) -> bool {
        self.present.has(Present::HOLDING)
    }

    /// The same where the route does not let clients direct the cache (`client_cache_control`):
    /// as if they had said nothing (§5.2.1, §5.4).
    pub fn under(self, client: ClientCacheControl) -> Self {
        match client {
            ClientCacheControl::Honour => self,
            ClientCacheControl::Ignore => Self { directives: RequestDirectives::default(), ..self },
        }
    }
}

impl ResponseFacts {
    /// Reads a response's fields. Of a field that ought to stand once, the first line counts,
    /// but for `Expires`.
    pub fn of(status: u16, headers: &HeaderMap, request_time: Timestamp, response_time: Timestamp) -> Self {
        let lines = || headers.iter().map(|(name, value)| (name, value.as_bytes()));
        Self::of_lines(status, lines, request_time, response_time)
    }

    /// The same of fields that are in no map: every line of them, repeats of a field in their order.
    pub fn of_lines<'a, L: Iterator<Item = (&'a HeaderName, &'a [u8])>>(
        status: u16,
        lines: impl Fn() -> L,
        request_time: Timestamp,
        response_time: Timestamp,
    ) -> Self {
        let (mut words, mut own) = (Words::of(status), Own::default());
        for (name, value) in lines() {
            own.take(name.as_str(), value);
            words.take(name.as_str(), value);
        }
        let Understood { said, targeted } = words.understood(lines(), |these| read(status, these));
        let date_of = |line: Option<&[u8]>| date::parse(line?, response_time);
        Self {
            said,
            date: date_of(own.date),
            // RFC 9213 §2.2: beside a targeted field it does not count.
            expires: own.expires(response_time).filter(|_| !targeted),
            last_modified: date_of(own.last_modified),
            etag: own.etag.and_then(ETag::parse),
            request_time,
            response_time,
            age: own.age.map_or(0, age),
        }
    }

    /// The same of a response that had this `Content-Range`.
    pub fn of_part(mut self, range: Option<ContentRange>) -> Self {
        Arc::make_mut(&mut self.said).content_range = range;
        self
    }

    /// Whether the origin can be asked if it still holds (§4.3.1): it has a validator and a 2xx
    /// status. Of other statuses an origin ignores preconditions (RFC 9110 §13.2.1), so a 304
    /// would speak of something else than what is stored.
    pub fn has_validator(&self) -> bool {
        let validator = self.etag.is_some() || self.last_modified.is_some();
        validator && (200..300).contains(&self.status)
    }

    /// When it was made, so far as can be told: `Date`, or the time of receipt (RFC 9110 §6.6.1).
    pub(crate) fn made(&self) -> Timestamp {
        self.date.unwrap_or(self.response_time)
    }
}

/// Reads what is likely to be said by others just so.
fn read(status: u16, headers: &HeaderMap) -> Understood {
    let InForce { mut directives, targeted } = targeted::in_force(headers);
    whole_if_relied_on(&mut directives.no_cache);
    whole_if_relied_on(&mut directives.private);
    let said = Said {
        status,
        directives,
        vary: Vary::parse(headers),
        language: language(headers),
        coding: ContentCoding::of(headers),
        set_cookie: headers.contains_key(SET_COOKIE),
        groups: Groups::of(headers),
        no_vary_search: NoVarySearch::parse(headers),
        content_range: content_range(status, headers),
    };
    Understood { said: Arc::new(said), targeted }
}

/// The fields that each response has for itself: to look for one in a map takes as long as to go over them all.
#[derive(Default)]
struct Own<'a> {
    date: Option<&'a [u8]>,
    /// The first line, and whether it is the only one.
    expires: Option<(&'a [u8], bool)>,
    last_modified: Option<&'a [u8]>,
    etag: Option<&'a [u8]>,
    /// The first line that has a member.
    age: Option<&'a [u8]>,
}

impl<'a> Own<'a> {
    fn take(&mut self, name: &str, value: &'a [u8]) {
        match name {
            "date" => first(&mut self.date, value),
            "last-modified" => first(&mut self.last_modified, value),
            "etag" => first(&mut self.etag, value),
            "age" if self.age.is_none() => self.age = list::members(value).next(),
            "expires" => self.expires = Some(self.expires.map_or((value, true), |(line, _)| (line, false))),
            _ => {}
        }
    }

    /// §5.3: invalid dates are "in the past"; §4.2.1: of several, "the response should be considered
    /// stale".
    fn expires(&self, now: Timestamp) -> Option<Expires> {
        let (line, one) = self.expires?;
        let date = date::parse(line, now).filter(|_| one);
        Some(date.map_or(Expires::Invalid, Expires::At))
    }
}

fn first<'a>(known: &mut Option<&'a [u8]>, line: &'a [u8]) {
    known.get_or_insert(line);
}

/// §14.2: "A server MUST ignore a Range header field received with a request method that is
/// unrecognized or for which range handling is not defined", which is all but GET.
fn ranges(method: &Method, headers: &HeaderMap) -> Option<Ranges> {
    let value = only(headers, RANGE).filter(|_| *method == Method::GET)?;
    range::parse(value.as_bytes())
}

fn content_range(status: u16, headers: &HeaderMap) -> Option<ContentRange> {
    let value = only(headers, CONTENT_RANGE).filter(|_| status == 206)?;
    range::parse_content_range(value.as_bytes())
}

/// The value of a field that stands on one line.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none())
}

/// Whether a method is defined to change nothing (RFC 9110 §9.2.1). Unknown ones are not.
pub fn is_safe(method: &Method) -> bool {
    // The last ones are registered by RFC 10008, 4918, 3253 and 5323.
    matches!(
        method.as_str(),
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "QUERY" | "PROPFIND" | "REPORT" | "SEARCH"
    )
}

/// Fields that this cache itself goes by, or that the stored bytes mean nothing without. Left out
/// of what is stored (§5.2.2.4, §5.2.2.7) their word would be lost, so a directive that names one
/// is taken to mean the whole response, as "is often handled by caches".
const RELIED_ON: [HeaderName; 17] = [
    header::CACHE_CONTROL,
    targeted::LARDER_CACHE_CONTROL,
    targeted::CDN_CACHE_CONTROL,
    groups::CACHE_GROUPS,
    no_vary_search::NO_VARY_SEARCH,
    tags::SURROGATE_KEY,
    tags::XKEY,
    tags::CACHE_TAG,
    header::VARY,
    header::EXPIRES,
    header::DATE,
    header::AGE,
    header::ETAG,
    header::LAST_MODIFIED,
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
    header::CONTENT_RANGE,
];

fn whole_if_relied_on(reach: &mut Reach) {
    if reach.fields().iter().any(|name| RELIED_ON.contains(name)) {
        *reach = Reach::All;
    }
}

fn language(headers: &HeaderMap) -> Option<Box<str>> {
    let mut tags = list::all(headers, &CONTENT_LANGUAGE);
    let tag = tags.next().filter(|tag| accept::is_language(tag))?;
    let lower = std::str::from_utf8(tag).ok()?.to_ascii_lowercase();
    tags.next().is_none().then(|| lower.into())
}

/// §5.1: of a list the first member; what is no number is ignored.
fn age(member: &[u8]) -> Seconds {
    delta_seconds(member).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{AT, headers, response};
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    #[test]
    fn connection_has_no_power_over_what_the_cache_goes_by() {
        // Else what is judged as it came would mean something else as it is stored.
        let options = RELIED_ON.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(", ");
        let sent = headers(&[&format!("connection: {options}, x-hop")]);
        assert_eq!(crate::fields::hop::connection_options(&sent), ["x-hop"], "9110 §7.6.1");
    }

    #[test]
    fn age_is_the_first_member_or_nothing() {
        for (clause, fields, expected) in [
            ("§5.1", &["age: 10"][..], 10),
            ("§5.1 absent", &[], 0),
            ("§5.1 list", &["age: 10, 20"], 10),
            ("§5.1 lines", &["age: 10", "age: 20"], 10),
            ("§5.1 invalid first member", &["age: x, 20"], 0),
            ("§5.1 negative", &["age: -10"], 0),
            ("§5.1 fraction", &["age: 10.5"], 0),
            ("§1.2.2 large", &["age: 99999999999"], 1 << 31),
        ] {
            assert_eq!(response(200, fields).age, expected, "{clause}: {fields:?}");
        }
    }

    #[test]
    fn expires_is_one_date_or_the_past() {
        let at = Timestamp::from_secs(784_111_777);
        for (clause, fields, expected) in [
            ("§5.3 absent", &[][..], None),
            ("§5.3", &["expires: Sun, 06 Nov 1994 08:49:37 GMT"], Some(Expires::At(at))),
            ("§5.3 zero", &["expires: 0"], Some(Expires::Invalid)),
            ("§5.3 empty", &["expires:"], Some(Expires::Invalid)),
            (
                "§4.2.1 two lines",
                &["expires: Sun, 06 Nov 1994 08:49:37 GMT", "expires: Sun, 06 Nov 1994 08:49:37 GMT"],
                Some(Expires::Invalid),
            ),
        ] {
            assert_eq!(response(200, fields).expires, expected, "{clause}");
        }
    }

    #[test]
    fn a_targeted_field_stands_in_place_of_cache_control_and_expires() {
        for (clause, fields, max_age, expires) in [
            (
                "§2.2",
                &["cdn-cache-control: max-age=9", "cache-control: no-store", "expires: 0"][..],
                Some(9),
                None,
            ),
            (
                "§2.1 malformed",
                &["cdn-cache-control: max-age=9,", "expires: 0"],
                None,
                Some(Expires::Invalid),
            ),
        ] {
            let facts = response(200, fields);
            assert_eq!((facts.directives.max_age, facts.expires), (max_age, expires), "RFC 9213 {clause}");
            assert!(!facts.directives.no_store, "RFC 9213 {clause}");
        }
    }

    #[test]
    fn of_several_dates_the_first_counts() {
        let fields = [
            "date: Sun, 06 Nov 1994 08:49:37 GMT",
            "date: Sun, 06 Nov 1994 08:49:38 GMT",
            "last-modified: 1",
        ];
        let facts = response(200, &fields);
        assert_eq!(facts.date, Some(Timestamp::from_secs(784_111_777)));
        assert_eq!(facts.last_modified, None);
    }

    #[test]
    fn a_validator_counts_only_where_the_origin_evaluates_conditions() {
        for (clause, status, field, expected) in [
            ("§8.8.3", 200, "etag: \"a\"", true),
            ("§8.8.2", 200, "last-modified: Sun, 06 Nov 1994 08:49:37 GMT", true),
            ("§8.8.3 no entity tag", 200, "etag: a", false),
            ("§8.8.2 no date", 200, "last-modified: yesterday", false),
            ("§13.2.1 not 2xx", 404, "etag: \"a\"", false),
            ("§13.2.1 not 2xx", 301, "last-modified: Sun, 06 Nov 1994 08:49:37 GMT", false),
        ] {
            assert_eq!(
                response(status, &[field]).has_validator(),
                expected,
                "9110 {clause}: {status} {field}"
            );
        }
    }

    #[test]
    fn a_directive_that_names_what_the_cache_goes_by_means_everything() {
        for (field, all) in [
            ("cache-control: private=\"x\"", false),
            ("cache-control: private=\"x, Vary\"", true),
            ("cache-control: private=\"cache-control\"", true),
            ("cache-control: private=\"set-cookie\"", false),
            ("cache-control: private=\"cdn-cache-control\"", true),
            ("larder-cache-control: private=\"x, Cache-Groups\"", true),
            ("cdn-cache-control: private=\"x\"", false),
        ] {
            assert_eq!(response(200, &[field]).directives.private.is_all(), all, "§5.2.2.7 {field}");
            let no_cache = field.replace("private", "no-cache");
            assert_eq!(response(200, &[&no_cache]).directives.no_cache.is_all(), all, "§5.2.2.4 {no_cache}");
        }
    }

    #[test]
    fn groups_and_what_of_a_query_counts_are_noticed() {
        let facts = response(200, &["cache-groups: \"b\", \"a\"", "no-vary-search: params=(\"x\")"]);
        assert_eq!(facts.groups.iter().collect::<Vec<_>>(), ["a", "b"], "9875 §2");
        assert!(facts.no_vary_search.as_ref().is_some_and(|rule| rule.same("a=1&x=2", "a=1")));
        assert!(facts.said.weight() >= size_of::<Said>() + "abx".len());
        let facts = response(200, &["cache-groups: a", "no-vary-search: params=x"]);
        assert!(facts.groups.is_empty() && facts.no_vary_search.is_none());
        assert_eq!(facts.said.weight(), size_of::<Said>());
    }

    #[test]
    fn a_requests_fields_are_noticed() {
        let map = headers(&["authorization: x", "cookie: a=b", "range: bytes=0-"]);
        let facts = RequestFacts::of(&Method::GET, &map);
        assert!(facts.has_authorization && facts.has_cookie && facts.range);
        let facts = RequestFacts::of(&Method::HEAD, &HeaderMap::new());
        assert!(!facts.has_authorization && !facts.has_cookie && !facts.range);
        for (clause, line, precondition, holding) in [
            ("§4.3.2", "if-match: *", true, false),
            ("§4.3.2", "if-unmodified-since: x", true, false),
            ("9110 §13.1.2", "if-none-match: *", false, true),
            ("9110 §13.1.3", "if-modified-since: x", false, true),
            ("9110 §13.1.5", "if-range: x", false, false),
        ] {
            let facts = RequestFacts::of(&Method::GET, &headers(&[line]));
            assert_eq!((facts.has_precondition(), facts.may_hold_it()), (precondition, holding), "{clause}");
        }
    }

    #[test]
    fn a_route_may_leave_clients_no_say() {
        for line in ["no-store", "no-cache", "only-if-cached", "max-age=0", "min-fresh=9", "max-stale"] {
            let asked = || {
                RequestFacts::of(&Method::GET, &headers(&[&format!("cache-control: {line}"), "cookie: a"]))
            };
            assert_ne!(asked().directives, RequestDirectives::default(), "§5.2.1 {line}");
            assert_eq!(asked().under(ClientCacheControl::Honour), asked());
            let ignored = asked().under(ClientCacheControl::Ignore);
            assert_eq!(ignored.directives, RequestDirectives::default(), "§5.2.1 {line}");
            assert!(ignored.has_cookie, "nothing else is ignored");
        }
        let old = RequestFacts::of(&Method::GET, &headers(&["pragma: no-cache"]));
        assert_eq!(old.under(ClientCacheControl::Ignore).directives, RequestDirectives::default(), "§5.4");
    }

    proptest! {
        #[test]
        fn any_response_is_read(fields: Vec<(u8, Vec<u8>)>, status: u16) {
            let names = [header::AGE, header::DATE, header::EXPIRES, header::LAST_MODIFIED, header::ETAG, header::VARY, header::CACHE_CONTROL];
            let mut map = HeaderMap::new();
            for (name, value) in &fields {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    map.append(names[usize::from(*name) % names.len()].clone(), value);
                }
            }
            let facts = ResponseFacts::of(status, &map, AT, AT);
            prop_assert!(facts.age <= 1 << 31);
            let _ = RequestFacts::of(&Method::GET, &map);
        }
    }
}
