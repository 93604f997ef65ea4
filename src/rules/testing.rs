//! Requests and responses for the tests of this room, from lines as they are written on the wire.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::facts::{RequestFacts, ResponseFacts};
use super::policy::{Heuristic, Policy, Ttl};
use crate::clock::Timestamp;

/// When every test's response was asked for and received: Sun, 06 Nov 1994 08:49:37 GMT.
pub const AT: Timestamp = Timestamp::from_secs(784_111_777);

/// [`AT`] as a field value.
pub const NOW: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// A minute before [`AT`].
pub const BEFORE: &str = "Sun, 06 Nov 1994 08:48:37 GMT";

/// A minute after [`AT`].
pub const AFTER: &str = "Sun, 06 Nov 1994 08:50:37 GMT";

pub fn headers(lines: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').unwrap();
        let value = HeaderValue::from_bytes(value.trim().as_bytes()).unwrap();
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
    }
    headers
}

pub fn get(lines: &[&str]) -> RequestFacts {
    RequestFacts::of(&Method::GET, &headers(lines))
}

pub fn response(status: u16, lines: &[&str]) -> ResponseFacts {
    ResponseFacts::of(status, &headers(lines), AT, AT)
}

/// So many seconds after [`AT`].
pub fn after(secs: u64) -> Timestamp {
    AT.saturating_add(secs_of(secs))
}

pub fn secs_of(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub fn plain() -> Policy {
    Policy::default()
}

pub fn ttl_default(secs: u64) -> Policy {
    Policy { ttl: Ttl { default: Some(secs_of(secs)), ..Ttl::default() }, ..Policy::default() }
}

pub fn ttl_override(secs: u64) -> Policy {
    Policy { ttl: Ttl { r#override: Some(secs_of(secs)), ..Ttl::default() }, ..Policy::default() }
}

pub fn ttl_max(secs: u64) -> Policy {
    Policy { ttl: Ttl { max: Some(secs_of(secs)), ..Ttl::default() }, ..Policy::default() }
}

/// Random requests, responses and policies for the room's laws.
pub mod any {
    use super::*;
    use crate::rules::{Authorization, ClientCacheControl, Cookies, Methods, Normalize, SetCookie};
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};

    const SAID: [&str; 18] = [
        "no-store",
        "no-cache",
        "no-cache=\"x\"",
        "private",
        "private=\"x\"",
        "public",
        "must-revalidate",
        "proxy-revalidate",
        "must-understand",
        "immutable",
        "max-age=0",
        "max-age=60",
        "max-age=x",
        "s-maxage=0",
        "s-maxage=120",
        "stale-while-revalidate=30",
        "stale-if-error=90",
        "unknown=\"no-store\"",
    ];

    const FIELDS: [&str; 11] = [
        "age: 30",
        "expires: Sun, 06 Nov 1994 08:50:37 GMT",
        "expires: 0",
        "date: Sun, 06 Nov 1994 08:49:37 GMT",
        "date: Sun, 06 Nov 1994 08:49:30 GMT",
        "etag: \"a\"",
        "last-modified: Sun, 06 Nov 1994 08:48:37 GMT",
        "vary: accept",
        "vary: *",
        "set-cookie: a=b",
        "x: y",
    ];

    const ASKED: [&str; 11] = [
        "cache-control: no-store",
        "cache-control: no-cache",
        "cache-control: max-age=30",
        "cache-control: max-stale",
        "cache-control: max-stale=10",
        "cache-control: min-fresh=20",
        "authorization: a",
        "cookie: a=b",
        "range: bytes=0-1",
        "pragma: no-cache",
        "if-none-match: *",
    ];

    const STATUSES: [u16; 21] = [
        100, 200, 203, 204, 206, 226, 299, 301, 302, 304, 400, 404, 410, 412, 416, 429, 500, 503, 599, 600,
        999,
    ];

    pub fn fields() -> impl Strategy<Value = HeaderMap> {
        (subsequence(SAID.as_slice(), 0..=4), subsequence(FIELDS.as_slice(), 0..=FIELDS.len())).prop_map(
            |(said, fields)| {
                let control = format!("cache-control: {}", said.join(", "));
                headers(&[&fields[..], &[control.as_str()]].concat())
            },
        )
    }

    pub fn facts() -> impl Strategy<Value = ResponseFacts> {
        (select(STATUSES.as_slice()), fields(), 0..9_000u64).prop_map(|(status, fields, millis)| {
            ResponseFacts::of(status, &fields, AT, AT.saturating_add(Duration::from_millis(millis)))
        })
    }

    pub fn request() -> impl Strategy<Value = RequestFacts> {
        let methods = vec![Method::GET, Method::GET, Method::HEAD, Method::POST, Method::QUERY];
        let method = select(methods);
        (method, subsequence(ASKED.as_slice(), 0..=3))
            .prop_map(|(method, asked)| RequestFacts::of(&method, &headers(&asked)))
    }

    fn duration() -> impl Strategy<Value = Option<Duration>> {
        proptest::option::of((0..200u64).prop_map(Duration::from_secs))
    }

    pub fn policy() -> impl Strategy<Value = Policy> {
        let ttl = (duration(), duration(), duration()).prop_map(|(default, r#override, max)| Ttl {
            default,
            r#override,
            max,
        });
        let cookies = select(vec![Cookies::Origin, Cookies::Bypass, Cookies::Ignore, Cookies::Key(vec![])]);
        let authorization =
            select(vec![Authorization::Bypass, Authorization::PerCredential, Authorization::Share]);
        let set_cookie = select(vec![SetCookie::Origin, SetCookie::Never, SetCookie::Strip, SetCookie::Keep]);
        let methods =
            proptest::bool::ANY.prop_map(|more| Methods { query: more, post: more, ..Methods::default() });
        let credentials = (cookies, authorization, set_cookie);
        let heuristic = proptest::option::of(
            (0..=100u8, 0..200u64).prop_map(|(percent, max)| Heuristic { percent, max: secs_of(max) }),
        );
        let ttl = (ttl, heuristic, duration());
        (ttl, duration(), duration(), 0..900u64, credentials, methods).prop_map(
            |(ttl, stale_while_revalidate, stale_if_error, keep, credentials, methods)| {
                let (cookies, authorization, set_cookie) = credentials;
                let (ttl, heuristic, stale_if_disconnected) = ttl;
                Policy {
                    ttl,
                    heuristic,
                    client_cache_control: ClientCacheControl::Honour,
                    stale_while_revalidate,
                    stale_if_error,
                    stale_if_disconnected,
                    keep: Duration::from_secs(keep),
                    normalize: Normalize::default(),
                    cookies,
                    authorization,
                    set_cookie,
                    methods,
                    ..Policy::default()
                }
            },
        )
    }
}
