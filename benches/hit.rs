//! What a hit costs: the same work so many times, for `valgrind --tool=callgrind` to count.
//!
//! `benches/instructions.sh` runs this twice and takes the difference, so that starting up does not
//! count. Knows the way from a request's fields to a verdict, and a client that asks over a socket.
//! Must not know: what is fast enough.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench: a surprise here ends it"
)]

use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use larder::clock::Timestamp;
use larder::config::{Config, SHIPPED};
use larder::rules::{self, Policy, RequestFacts, ResponseFacts, Reuse, reuse, storing};
use larder::store::{Class, Memory, PURGES, Purges};
use larder::stored::{Born, CacheKey, Content, KeyPolicy, Received, Standing, StoredResponse};

const USAGE: &str = "\
hit rules TIMES [FIELDS]    select a variant and judge it; FIELDS more are stored with it
hit lookup TIMES [FIELDS]   make the key, find it in memory, select, judge
hit read TIMES [FIELDS]     read a response's facts: what a hit is spared
hit ask ADDRESS TIMES       ask a Larder for /, over one connection
hit origin                  be an origin, and print where";

const AT: Timestamp = Timestamp::from_secs(784_111_777);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let number = |at: usize| words.get(at).map_or(0, |word| word.parse::<u32>().expect(USAGE));
    match words.first().map(String::as_str) {
        Some("rules") => rules_alone(number(1), number(2)),
        Some("lookup") => lookup(number(1), number(2)),
        Some("read") => read(number(1), number(2)),
        Some("ask") => ask(&words[1], number(2)),
        Some("origin") => origin(),
        _ => println!("{USAGE}"),
    }
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

fn key() -> CacheKey {
    CacheKey::of("http", "api.test", "/users/1", None, &HeaderMap::new(), &KeyPolicy::default())
}

fn stocked(more: u32) -> Memory {
    let (answer, request) = (answer(more), request());
    let facts = ResponseFacts::of(200, &answer, AT, AT);
    let asked = RequestFacts::of(&Method::GET, &request);
    let permit = storing::judge(&asked, &facts, &Policy::default()).expect("storable");
    let received = Received {
        status: StatusCode::OK,
        headers: &answer,
        request_time: AT,
        response_time: AT,
        content: Content::Whole(StoredResponse::compact(&[])),
        selecting: rules::selecting_fields(&facts.vary, &request, Policy::default().normalize),
        key: Arc::new(key()),
        standing: Arc::new(Standing::plain(Born::Here(0))),
    };
    let memory = Memory::new(&Config::parse(SHIPPED, "proxy.toml", &|_| None).unwrap().cache);
    assert!(memory.keep(Arc::new(StoredResponse::new(permit, received)), Class::Plain, &Purges::new(PURGES)));
    memory
}

fn rules_alone(times: u32, more: u32) {
    let (memory, headers, policy) = (stocked(more), request(), Policy::default());
    let (resource, now) = (memory.find(&key()).unwrap(), AT.saturating_add(Duration::from_secs(5)));
    let asked = RequestFacts::of(&Method::GET, &headers);
    for _ in 0..times {
        let stored = black_box(&resource).select(black_box(&headers), policy.normalize).unwrap();
        let verdict = reuse::judge(black_box(&asked), &stored.facts, &policy, black_box(now));
        assert!(matches!(black_box(verdict), Reuse::Fresh(_)));
    }
}

fn lookup(times: u32, more: u32) {
    let (memory, headers, policy) = (stocked(more), request(), Policy::default());
    let now = AT.saturating_add(Duration::from_secs(5));
    for _ in 0..times {
        let asked = RequestFacts::of(&Method::GET, black_box(&headers));
        let resource = memory.find(&key()).unwrap();
        let stored = resource.select(&headers, policy.normalize).unwrap();
        let verdict = reuse::judge(&asked, &stored.facts, &policy, black_box(now));
        assert!(matches!(black_box(verdict), Reuse::Fresh(_)));
    }
}

fn read(times: u32, more: u32) {
    let answer = answer(more);
    for _ in 0..times {
        black_box(ResponseFacts::of(200, black_box(&answer), AT, AT));
    }
}

fn ask(address: &str, times: u32) {
    let mut peer = BufReader::new(TcpStream::connect(address).unwrap());
    peer.get_ref().set_nodelay(true).unwrap();
    for _ in 0..times {
        peer.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: api.test\r\nAccept: */*\r\n\r\n").unwrap();
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            assert!(peer.read_line(&mut line).unwrap() > 0, "the connection ended");
            let lower = line.to_ascii_lowercase();
            length = lower.strip_prefix("content-length:").map_or(length, |n| n.trim().parse().unwrap());
        }
        let mut body = vec![0; length];
        peer.read_exact(&mut body).unwrap();
    }
}

fn origin() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap());
    for stream in listener.incoming() {
        std::thread::spawn(move || {
            let mut peer = BufReader::new(stream.unwrap());
            let mut line = String::new();
            while peer.read_line(&mut line).is_ok_and(|read| read > 0) {
                if line == "\r\n" {
                    let head =
                        "HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nContent-Length: 2\r\n\r\nok";
                    peer.get_mut().write_all(head.as_bytes()).unwrap();
                }
                line.clear();
            }
        });
    }
}
