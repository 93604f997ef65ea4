//! What one client may take: time, bytes, connections. Each limit has its clear answer, the peer that oversteps
//! it is cut off, and nobody else notices.
//!
//! Over sockets, with small limits in place of the defaults. Nothing here measures time: where a limit is one
//! of time, the answer alone tells that it was met, and what is honest is far within it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{Connection, Larder, Origin, PATIENCE, Response, Script, client::request, send, within};

/// A Larder with these lines under `[limits]`. `/keyed` caches POST, `/small` takes 1000 bytes, the rest
/// passes.
fn larder(origin: &Origin, limits: &str) -> Larder {
    Larder::start(&format!(
        r#"
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
workers = 2
[limits]
{limits}
[upstream.api]
servers = ["{}"]
[[route]]
name = "keyed"
upstream = "api"
match = {{ path = "/keyed" }}
max_body = "2000B"
[route.cache]
methods = ["GET", "POST", "QUERY"]
max_request_body = "1000B"
ttl.default = "60s"
[[route]]
name = "small"
upstream = "api"
match = {{ path = "/small" }}
max_body = "1000B"
cache = false
[[route]]
name = "rest"
upstream = "api"
match = {{ path = "/*" }}
"#,
        origin.url()
    ))
}

/// Larder's own answer, which ends the connection.
#[track_caller]
fn is_refused(response: &Response, status: u16, cause: &str) {
    assert_eq!((response.status, response.complete), (status, true), "{}", response.text());
    assert_eq!(response.json()["cause"], cause, "{}", response.text());
    assert_eq!(response.header("connection"), "close");
}

/// Waits until nobody is being served any more but the one who asks.
#[track_caller]
fn is_let_go(larder: &Larder) {
    assert!(within(PATIENCE, || larder.stats()["connections"] == 0), "{}", larder.stats());
}

const IMPATIENT: &str = "body_rate = \"1MB\"\nbody_grace = \"300ms\"";

#[test]
fn a_body_that_stops_is_answered_408_wherever_it_was_going() {
    let origin = Origin::ok("x", &[]);
    let larder = larder(&origin, IMPATIENT);
    for (method, path) in [("POST", "/upload"), ("GET", "/rest"), ("POST", "/keyed"), ("QUERY", "/keyed")] {
        for framing in [("Content-Length", "2000"), ("Transfer-Encoding", "chunked")] {
            let mut connection = Connection::open(larder.proxy());
            connection.write_head(method, path, &[framing]);
            connection.write(b"5\r\n12345\r\n");
            is_refused(&connection.response(method), 408, "request-timeout");
            assert!(connection.closes(), "{method} {path}");
        }
    }
    // No origin has had a whole one, none is held up, and none is to blame.
    assert_eq!(origin.requests().len(), 0);
    origin.wait_for_open_connections(0);
    assert!(!larder.err.whole().contains("no answer"), "{}", larder.err.whole());
    is_let_go(&larder);
}

#[test]
fn a_body_that_trickles_is_answered_408_however_long_it_goes_on() {
    let origin = Origin::ok("x", &[]);
    let larder = larder(&origin, IMPATIENT);
    for path in ["/upload", "/keyed"] {
        let mut connection = Connection::open(larder.proxy());
        connection.write_head("POST", path, &[("Content-Length", "900")]);
        let mut writer = connection.stream().try_clone().unwrap();
        let trickle = std::thread::spawn(move || {
            // A byte at a time, until nobody takes any more; far longer than the grace in all.
            (0..900)
                .take_while(|_| {
                    std::thread::sleep(Duration::from_millis(20));
                    std::io::Write::write_all(&mut writer, b"x").is_ok()
                })
                .count()
        });
        is_refused(&connection.response("POST"), 408, "request-timeout");
        drop(connection);
        assert!(trickle.join().unwrap() < 900, "it was heard to its end");
    }
    assert_eq!(origin.requests().len(), 0);
}

#[test]
fn a_body_that_nobody_takes_for_a_while_is_not_its_clients_fault() {
    let origin = Origin::early(|_| Script::ok("enough", &[]));
    let larder = larder(&origin, IMPATIENT);
    assert_eq!(request(larder.proxy(), "POST", "/upload", &[], &[b'x'; 100_000]).status, 200);
    let slow = Origin::start(|request| Script::ok(request.body.len().to_string(), &[]));
    let larder = self::larder(&slow, IMPATIENT);
    let megabytes = vec![b'x'; 8 << 20];
    assert_eq!(request(larder.proxy(), "POST", "/upload", &[], &megabytes).text(), (8 << 20).to_string());
}

#[test]
fn a_client_that_waits_to_be_told_to_go_on_and_does_not_is_answered_408() {
    let origin = Origin::ok("x", &[]);
    let larder = larder(&origin, IMPATIENT);
    let mut connection = Connection::open(larder.proxy());
    connection.write_head("POST", "/upload", &[("Expect", "100-continue"), ("Content-Length", "5")]);
    assert_eq!(connection.interim(), 100);
    is_refused(&connection.response("POST"), 408, "request-timeout");
}

/// A request's body for HTTP/2: some pieces, then an end or none.
struct Pieces {
    left: Vec<&'static [u8]>,
    ends: bool,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.left.pop() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(piece))))),
            None if self.ends => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// One request by HTTP/2 with prior knowledge: status and body.
fn http2(to: SocketAddr, request: http::Request<Pieces>) -> (u16, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(to).await.unwrap();
        let (mut send, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let answer = tokio::time::timeout(PATIENCE, send.send_request(request)).await;
        let (head, body) = answer.expect("it hangs").unwrap().into_parts();
        // What is left of a refused body is cancelled after the answer.
        let text = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        (head.status.as_u16(), String::from_utf8_lossy(&text).into_owned())
    })
}

fn post(path: &str, left: Vec<&'static [u8]>, ends: bool) -> http::Request<Pieces> {
    http::Request::post(format!("http://h2.test{path}")).body(Pieces { left, ends }).unwrap()
}

#[test]
fn the_same_limits_hold_on_http2() {
    let origin = Origin::start(|request| Script::ok(request.body.len().to_string(), &[]));
    let larder = larder(&origin, &format!("{IMPATIENT}\nfields = 20\ntarget = \"500B\""));
    let to = larder.proxy();
    for path in ["/upload", "/keyed"] {
        let (status, text) = http2(to, post(path, vec![b"12345"], false));
        assert_eq!((status, text.contains("request-timeout")), (408, true), "{path}: {text}");
    }
    for path in ["/small", "/keyed"] {
        let (status, text) = http2(to, post(path, vec![&[b'x'; 900]; 3], true));
        assert_eq!((status, text.contains("request-too-large")), (413, true), "{path}: {text}");
    }
    assert_eq!(http2(to, post("/small", vec![&[b'x'; 500]; 2], true)), (200, "1000".into()));
    let mut many = post("/upload", vec![], true);
    for number in 0..30 {
        let name: http::HeaderName = format!("x-{number}").parse().unwrap();
        many.headers_mut().insert(name, "1".parse().unwrap());
    }
    let (status, text) = http2(to, many);
    assert_eq!((status, text.contains("too-many-fields")), (431, true), "{text}");
    let (status, text) = http2(to, post(&format!("/{}", "x".repeat(600)), vec![], true));
    assert_eq!((status, text.contains("target-too-long")), (414, true), "{text}");
}

#[test]
fn a_body_larger_than_its_route_takes_is_answered_413() {
    let origin = Origin::start(|request| Script::ok(request.body.len().to_string(), &[]));
    let larder = larder(&origin, "");
    for (path, most) in [("/small", 1000), ("/keyed", 2000)] {
        let fits = vec![b'x'; most];
        assert_eq!(request(larder.proxy(), "POST", path, &[], &fits).text(), most.to_string());
        let seen = origin.requests().len();
        // Announced: told before any of it is sent.
        let mut connection = Connection::open(larder.proxy());
        connection.write_head("POST", path, &[("Content-Length", &(most + 1).to_string())]);
        is_refused(&connection.response("POST"), 413, "request-too-large");
        assert!(connection.closes());
        let mut connection = Connection::open(larder.proxy());
        let fields = [("Expect", "100-continue"), ("Content-Length", "9223372036854775000")];
        connection.write_head("POST", path, &fields);
        let refused = connection.response("POST");
        is_refused(&refused, 413, "request-too-large");
        assert_eq!(refused.interim, [] as [u16; 0], "nobody is told to go on with what is not taken");
        // Not announced: cut off as soon as it is too large.
        let mut connection = Connection::open(larder.proxy());
        connection.write_head("POST", path, &[("Transfer-Encoding", "chunked")]);
        for _ in 0..3 {
            connection.write(&support::wire::chunk(&[b'x'; 800]));
        }
        is_refused(&connection.response("POST"), 413, "request-too-large");
        assert_eq!(origin.requests().len(), seen, "{path}");
    }
    assert!(!larder.err.whole().contains("no answer"), "{}", larder.err.whole());
}

#[test]
fn a_target_longer_than_any_that_is_taken_is_answered_414() {
    let origin = Origin::ok("x", &[]);
    let larder = larder(&origin, "target = \"500B\"");
    let path = |length: usize| format!("/{}", "x".repeat(length - 1));
    assert_eq!(larder.get(&path(500), &[]).status, 200);
    is_refused(&larder.get(&path(501), &[]), 414, "target-too-long");
    is_refused(&larder.get(&format!("/?{}", path(500)), &[]), 414, "target-too-long");
    assert_eq!(origin.requests().len(), 1);
    // Longer than hyper takes: its answer has no body, and ends the connection too.
    for length in [60_000, 70_000] {
        let line = format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", path(length));
        let mut connection = Connection::open(larder.proxy());
        connection.write(line.as_bytes());
        let refused = connection.response("GET");
        assert!(matches!(refused.status, 414 | 431), "{}", refused.status);
        assert_eq!(refused.header("connection"), "close");
    }
    assert_eq!(send(larder.proxy(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
}
