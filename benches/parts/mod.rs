//! The parts of a hit that need no socket, each done so many times.
//!
//! Knows keys, facts, rules, memory, the codec. Must not know: how what it costs is measured.

pub mod tier;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use larder::clock::Timestamp;
use larder::config::{Config, SHIPPED};
use larder::rules::{self, Policy, RequestFacts, ResponseFacts, Reuse, reuse, storing};
use larder::store::{Class, Memory, PURGES, Purges};
use larder::stored::{self, Born, CacheKey, Content, Glob, KeyPolicy, Received, Standing, StoredResponse};

/// A name, what it is, and how it is done so many times.
pub type Part = (&'static str, &'static str, fn(u32));

/// All of them.
pub const PARTS: [Part; 7] = [
    ("key", "a URL's text and its hash, of a query whose arguments are sorted and one left out", key),
    ("asked", "a request's facts", asked),
    ("read", "a response's facts, of twelve fields: what a hit is spared", read),
    ("rules", "a variant, and whether it may answer", rules_alone),
    ("lookup", "facts, key, memory, variant, and whether it may answer", lookup),
    ("encode", "a response of twelve fields, and a record of the shared tier", encode),
    ("decode", "and back", decode),
];

const AT: Timestamp = Timestamp::from_secs(784_111_777);

fn now() -> Timestamp {
    AT.saturating_add(Duration::from_secs(5))
}

fn answer(more: u32) -> HeaderMap {
    let lines = [
        ("cache-control", "public, max-age=60, stale-while-revalidate=30"),
        ("content-type", "application/json"),
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("etag", "\"a\""),
        ("vary", "accept-encoding"),
    ];
    let known = lines.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    let mut fields = HeaderMap::from_iter(known);
    for nth in 0..more {
        fields.append(HeaderName::try_from(format!("x-field-{nth}")).unwrap(), HeaderValue::from(nth));
    }
    fields
}

fn request() -> HeaderMap {
    HeaderMap::from_iter(
        [("accept", "*/*"), ("accept-encoding", "gzip, br"), ("host", "api.test"), ("user-agent", "bench")]
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))),
    )
}

fn plain_key() -> CacheKey {
    CacheKey::of("http", "api.test", "/users/1", None, &HeaderMap::new(), &KeyPolicy::default())
}

fn response(more: u32) -> StoredResponse {
    response_of(more, plain_key(), &[])
}

fn response_of(more: u32, key: CacheKey, body: &[Bytes]) -> StoredResponse {
    let (answer, request) = (answer(more), request());
    let facts = ResponseFacts::of(200, &answer, AT, AT);
    let asked = RequestFacts::of(&Method::GET, &request);
    let permit = storing::judge(&asked, &facts, &Policy::default()).expect("storable");
    let received = Received {
        status: StatusCode::OK,
        headers: &answer,
        request_time: AT,
        response_time: AT,
        content: Content::Whole(StoredResponse::compact(body)),
        selecting: rules::selecting_fields(&facts.vary, &request, Policy::default().normalize),
        key,
        standing: Arc::new(Standing::plain(Born::Here(0))),
    };
    StoredResponse::new(permit, received)
}

fn stocked() -> Memory {
    let memory = Memory::new(&Config::parse(SHIPPED, "proxy.toml", &|_| None).unwrap().cache);
    assert!(memory.keep(Arc::new(response(0)), Class::Plain, &Purges::new(PURGES)));
    memory
}

fn key(times: u32) {
    let policy = KeyPolicy { ignore_query: vec![Glob::new("utm_*")], ..KeyPolicy::default() };
    let none = HeaderMap::new();
    for _ in 0..times {
        let query = black_box(Some("z=1&utm_source=a&b=2&a=3"));
        black_box(CacheKey::of("http", "api.test", black_box("/users/1"), query, &none, &policy));
    }
}

fn asked(times: u32) {
    let headers = request();
    for _ in 0..times {
        black_box(RequestFacts::of(&Method::GET, black_box(&headers)));
    }
}

fn read(times: u32) {
    let answer = answer(7);
    for _ in 0..times {
        black_box(ResponseFacts::of(200, black_box(&answer), AT, AT));
    }
}

fn rules_alone(times: u32) {
    let (memory, headers, policy) = (stocked(), request(), Policy::default());
    let resource = memory.find(&plain_key()).unwrap();
    let asked = RequestFacts::of(&Method::GET, &headers);
    for _ in 0..times {
        let stored = black_box(&resource).select(black_box(&headers), policy.normalize).unwrap();
        let verdict = reuse::judge(black_box(&asked), &stored.facts, &policy, black_box(now()));
        assert!(matches!(black_box(verdict), Reuse::Fresh(_)));
    }
}

fn lookup(times: u32) {
    let (memory, headers, policy) = (stocked(), request(), Policy::default());
    for _ in 0..times {
        let asked = RequestFacts::of(&Method::GET, black_box(&headers));
        let resource = memory.find(&plain_key()).unwrap();
        let stored = resource.select(&headers, policy.normalize).unwrap();
        let verdict = reuse::judge(&asked, &stored.facts, &policy, black_box(now()));
        assert!(matches!(black_box(verdict), Reuse::Fresh(_)));
    }
}

fn encode(times: u32) {
    let response = response(7);
    for _ in 0..times {
        black_box(stored::encode_response(black_box(&response), 1, "place"));
    }
}

fn decode(times: u32) {
    let (record, key) = (Bytes::from(stored::encode_response(&response(7), 1, "place")), plain_key());
    for _ in 0..times {
        black_box(stored::decode(black_box(record.clone()), &key, "place").unwrap());
    }
}
