//! A request's body is gathered before a connection to the origin is taken where they are in demand: who sends slowly
//! holds none, and the origin gets what was sent as it was sent.
//!
//! Over sockets. That a body is being gathered is seen by what waits for it: `Expect: 100-continue` is answered
//! when somebody wants the body, and then the origin has been asked, or has not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use support::{Connection, Larder, Origin, PATIENCE, Request, Response, Script, client::request, within};

/// A Larder with two connections to its origin, so that they are always in demand. `/streams` gathers nothing, `/small` takes 1000 bytes.
fn larder(origin: &Origin, top: &str) -> Larder {
    larder_with(origin, top, 2)
}

fn larder_with(origin: &Origin, top: &str, connections: usize) -> Larder {
    Larder::start(&format!(
        r#"
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
workers = 2
{top}
[upstream.api]
servers = ["{}"]
pool = {{ max_connections = {connections}, queue_timeout = "30s", idle_timeout = "60s" }}
[[route]]
name = "streams"
upstream = "api"
match = {{ path = "/streams" }}
request_buffer = "0B"
[[route]]
name = "small"
upstream = "api"
match = {{ path = "/small" }}
max_body = "1000B"
[[route]]
name = "keyed"
upstream = "api"
match = {{ path = "/keyed" }}
[route.cache]
methods = ["GET", "POST"]
max_request_body = "100B"
[[route]]
name = "rest"
upstream = "api"
match = {{ path = "/*" }}
"#,
        origin.url()
    ))
}

fn echo(request: &Request) -> Script {
    Script::ok(&request.body, &[("Cache-Control", "no-store")])
}

/// A POST of a body of so many bytes that somebody waits for.
fn awaited(larder: &Larder, path: &str, length: usize) -> Connection {
    let mut connection = Connection::open(larder.proxy());
    let length = length.to_string();
    connection.write_head("POST", path, &[("Expect", "100-continue"), ("Content-Length", &length)]);
    assert_eq!(connection.interim(), 100);
    connection
}

#[test]
fn an_origin_is_not_asked_before_the_body_is_there() {
    let origin = Origin::start(echo);
    let larder = larder(&origin, "");
    for path in ["/upload", "/keyed"] {
        let mut slow = awaited(&larder, path, 200);
        slow.write(&[b'a'; 199]);
        // Whatever is asked after it comes first, and on the only connection that there is.
        assert_eq!(larder.get("/other", &[]).status, 200);
        // It is free a moment after its answer.
        let server = origin.url().replace("http://", "");
        let idle =
            format!("larder_upstream_connections{{upstream=\"api\",server=\"{server}\",state=\"idle\"}}");
        assert!(within(PATIENCE, || larder.metric(&idle) == Some(1.0)), "{}", larder.metrics());
        let before = origin.connections();
        assert_eq!((origin.count(path), origin.open_connections()), (0, 1), "{path}");
        slow.write(b"z");
        let answer = slow.response("POST");
        assert_eq!((answer.status, answer.body.len(), answer.body[199]), (200, 200, b'z'), "{path}");
        assert_eq!(origin.last().header("content-length"), "200");
        assert_eq!(origin.last().header("expect"), "");
        assert_eq!(origin.connections(), before, "{path}: it took one that was free");
    }
}

#[test]
fn slow_bodies_keep_nobody_from_the_origin() {
    let origin = Origin::start(echo);
    let larder = larder(&origin, "");
    let mut slow: Vec<_> = (0..40)
        .map(|_| {
            let mut connection = awaited(&larder, "/upload", 9999);
            connection.write(b"x");
            connection
        })
        .collect();
    for number in 0..20 {
        assert_eq!(larder.get(&format!("/{number}"), &[]).status, 200);
        assert_eq!(request(larder.proxy(), "POST", "/quick", &[], b"quick").text(), "quick");
    }
    assert_eq!(origin.count("/upload"), 0);
    // All of them are served when they have sent what they announced.
    for connection in &mut slow {
        connection.write(&[b'x'; 9998]);
    }
    for mut connection in slow {
        let answer = connection.response("POST");
        assert_eq!((answer.status, answer.body.len()), (200, 9999));
    }
    assert_eq!(origin.count("/upload"), 40);
}

#[test]
fn who_sends_the_beginning_at_once_and_then_trickles_does_not_keep_a_connection() {
    let origin = Origin::start(echo);
    // At ten bytes a second the whole body would have hours: its connection is what others wait for.
    let larder =
        larder(&origin, "[limits]\nbody_rate = \"10B\"\nbody_rate_in_demand = \"1MiB\"\nbody_grace = \"1s\"");
    for path in ["/upload", "/streams"] {
        let mut slow = awaited(&larder, path, 1 << 20);
        slow.write(&[b'a'; 128 << 10]);
        slow.set_patience(std::time::Duration::from_millis(20));
        let mut word = [0];
        assert!(within(PATIENCE, || {
            slow.try_write(b"0123456789").is_err() || slow.stream().peek(&mut word).is_ok()
        }));
        slow.set_patience(PATIENCE);
        let answer = slow.response("POST");
        assert_eq!(
            (answer.status, answer.json()["cause"].as_str()),
            (408, Some("request-timeout")),
            "{path}"
        );
    }
    // Who keeps up is served, also past what is gathered.
    let mut quick = awaited(&larder, "/upload", 200 << 10);
    quick.write(&[b'b'; 200 << 10]);
    assert_eq!(quick.response("POST").body.len(), 200 << 10);
}

#[test]
fn bodies_stream_while_connections_are_plenty() {
    let origin = Origin::start(echo);
    let larder = larder_with(&origin, "", 8);
    let mut first = Vec::new();
    for count in 1..=2 {
        first.push(awaited(&larder, "/upload", 10));
        origin.wait_for_open_connections(count);
    }
    // A quarter is in use: what comes now waits for its body.
    let mut second: Vec<_> = (0..8).map(|_| awaited(&larder, "/upload", 10)).collect();
    assert_eq!(larder.get("/other", &[]).status, 200);
    assert_eq!(origin.connections(), 3);
    for connection in first.iter_mut().chain(&mut second) {
        connection.write(b"0123456789");
        assert_eq!(connection.response("POST").text(), "0123456789");
    }
}

#[test]
fn nothing_of_a_body_is_lost_or_told_otherwise() {
    let origin = Origin::start(echo);
    let larder = larder(&origin, "");
    let buffer = 64 * 1024;
    for path in ["/upload", "/streams"] {
        for length in [1, 1000, buffer - 1, buffer, buffer + 1, 5 * buffer + 7] {
            let body: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let answer = request(larder.proxy(), "POST", path, &[], &body);
            assert_eq!((answer.status, answer.body == body), (200, true), "{path} {length}");
            assert_eq!(origin.last().header("content-length"), length.to_string());
            assert_eq!(origin.last().header("transfer-encoding"), "");
        }
        for pieces in [vec![], vec![1], vec![1, 2, 3], vec![buffer], vec![buffer - 1, 2], vec![40_000; 5]] {
            let mut connection = Connection::open(larder.proxy());
            connection.write_head("POST", path, &[("Transfer-Encoding", "chunked")]);
            for (number, length) in pieces.iter().enumerate() {
                connection.write(&support::wire::chunk(&vec![b'a' + number as u8; *length]));
            }
            connection.write(b"0\r\n\r\n");
            let sent = pieces.iter().enumerate();
            let sent: Vec<u8> = sent.flat_map(|(number, it)| vec![b'a' + number as u8; *it]).collect();
            let answer = connection.response("POST");
            assert_eq!((answer.status, answer.body == sent), (200, true), "{path} {pieces:?}");
            assert_eq!(origin.last().header("transfer-encoding"), "chunked", "{path} {pieces:?}");
            assert_eq!(origin.last().header("content-length"), "");
        }
    }
}

#[test]
fn an_origin_that_answers_while_it_reads_is_asked_at_once_where_its_route_says_so() {
    let origin = Origin::early(|_| Script::ok("early", &[]));
    let larder = larder(&origin, "");
    let mut streams = Connection::open(larder.proxy());
    streams.write_head("POST", "/streams", &[("Content-Length", "10")]);
    streams.write(b"x");
    assert_eq!(streams.response("POST").text(), "early");
    // Elsewhere when the buffer is full: what is larger is not waited for.
    let mut large = Connection::open(larder.proxy());
    large.write_head("POST", "/upload", &[("Content-Length", "1000000")]);
    large.write(&[b'x'; 80_000]);
    assert_eq!(large.response("POST").text(), "early");
}

#[test]
fn where_there_is_no_room_a_body_goes_on_as_it_comes() {
    let origin = Origin::early(|_| Script::ok("early", &[]));
    let larder = larder(&origin, "[cache]\nin_flight = \"16KiB\"\nmax_object = \"16KiB\"");
    let mut connection = Connection::open(larder.proxy());
    connection.write_head("POST", "/upload", &[("Content-Length", "30000")]);
    connection.write(&[b'x'; 20_000]);
    assert_eq!(connection.response("POST").text(), "early");
    let whole = Origin::start(echo);
    let larder = self::larder(&whole, "[cache]\nin_flight = \"16KiB\"\nmax_object = \"16KiB\"");
    let body: Vec<u8> = (0..60_000).map(|at| (at % 251) as u8).collect();
    assert!(request(larder.proxy(), "POST", "/upload", &[], &body).body == body);
    has_let_go(&larder);
}

/// Nobody is served, and nothing is held.
#[track_caller]
fn has_let_go(larder: &Larder) {
    let is_free = || {
        let stats = larder.stats();
        stats["connections"] == 0 && larder.metric("larder_memory_in_flight_bytes") == Some(0.0)
    };
    assert!(within(PATIENCE, is_free), "{}", larder.stats());
}

#[track_caller]
fn is_refused(response: &Response, status: u16, cause: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.json()["cause"], cause, "{}", response.text());
}

#[test]
fn what_is_wrong_with_a_body_is_told_before_the_origin_hears_of_it() {
    let origin = Origin::start(echo);
    let larder = larder(&origin, "[limits]\nbody_rate = \"1MB\"\nbody_grace = \"1s\"");
    let mut slow = awaited(&larder, "/upload", 10);
    slow.write(b"x");
    is_refused(&slow.response("POST"), 408, "request-timeout");
    let mut large = Connection::open(larder.proxy());
    large.write_head("POST", "/small", &[("Transfer-Encoding", "chunked")]);
    large.write(&support::wire::chunk(&[b'x'; 600]));
    large.write(&support::wire::chunk(&[b'x'; 600]));
    is_refused(&large.response("POST"), 413, "request-too-large");
    let mut broken = Connection::open(larder.proxy());
    broken.write_head("POST", "/upload", &[("Transfer-Encoding", "chunked")]);
    broken.write(b"3\r\nabcde\r\n");
    assert_eq!(broken.response("POST").status, 400);
    let mut short = awaited(&larder, "/upload", 10);
    short.write(b"x");
    short.end_writing();
    drop((slow, large, broken, short));
    has_let_go(&larder);
    assert_eq!(origin.connections(), 0);
    assert!(!larder.err.whole().contains("no answer"), "{}", larder.err.whole());
}

#[test]
fn who_leaves_while_its_body_is_gathered_leaves_nothing_behind() {
    let origin = Origin::start(echo);
    let larder = larder(&origin, "");
    let mut leaver = awaited(&larder, "/upload", 60_000);
    leaver.write(&[b'x'; 50_000]);
    assert!(within(PATIENCE, || larder.metric("larder_memory_in_flight_bytes") >= Some(50_000.0)));
    leaver.reset();
    has_let_go(&larder);
    assert_eq!(origin.connections(), 0);
}

#[test]
fn what_has_no_body_is_asked_at_once() {
    let origin = Origin::start(echo);
    let larder = larder(&origin, "");
    for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
        assert_eq!(request(larder.proxy(), method, "/", &[], b"").status, 200, "{method}");
    }
    let mut empty = Connection::open(larder.proxy());
    empty.write_head("POST", "/", &[("Content-Length", "0")]);
    assert_eq!(empty.response("POST").status, 200);
    assert_eq!(origin.last().header("content-length"), "0");
}
