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

/// A response of 64 MiB, more than any kernel holds for a client that does not read.
fn endless(_: &support::Request) -> Script {
    Script::new()
        .head(200, &[("Content-Length", "67108864"), ("Cache-Control", "no-store")])
        .repeat(vec![b'x'; 1 << 16], 1 << 10)
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let origin = Origin::start(endless);
    let larder = larder(&origin, "response_rate = \"1MB\"\nresponse_grace = \"300ms\"");
    let mut connection = Connection::open(larder.proxy());
    connection.write_head("GET", "/big", &[]);
    // Its head has come, and nothing more of it is ever read.
    let head = connection.response_head("GET");
    assert_eq!(head.status, 200);
    is_let_go(&larder);
    origin.wait_for_open_connections(0);
    assert_eq!(ended(&larder, "slow-reader"), 1.0);
    // Whoever reads gets all of it, at its own pace.
    let whole = larder.get("/big", &[]);
    assert_eq!((whole.body.len(), whole.complete), (64 << 20, true));
}

/// The system holds more of a large answer for who took others quickly (`server/unsent.rs`).
#[test]
fn a_client_that_has_been_quick_gets_all_in_order_and_is_cut_off_once_it_stops() {
    const SIZES: [(&str, usize); 3] = [("/short", 1000), ("/large", 1 << 20), ("/huge", 15 << 20)];
    let body = |target: &str| {
        let (_, size) = SIZES.iter().find(|(path, _)| *path == target).unwrap();
        // No two pieces are alike, so that none can be in another's place.
        (0_u32..).flat_map(u32::to_be_bytes).take(*size).collect::<Vec<u8>>()
    };
    let origin = Origin::start(move |request| {
        Script::ok(body(&request.target), &[("Cache-Control", "public, max-age=600")])
    });
    let larder = larder(&origin, "response_rate = \"1MB\"\nresponse_grace = \"1500ms\"");
    for (path, size) in SIZES {
        assert_eq!(larder.get(path, &[]).body.len(), size);
    }
    // Whom hyper answers, and whom not.
    let stopped: Vec<Connection> = [&[][..], &[("Upgrade", "x")][..]]
        .into_iter()
        .map(|fields| {
            let mut connection = Connection::open(larder.proxy());
            // Most of what it does not read waits on Larder's side.
            socket2::SockRef::from(connection.stream()).set_recv_buffer_size(64 * 1024).unwrap();
            for path in ["/large", "/large", "/short", "/large", "/huge", "/short", "/huge"] {
                let got = connection.request("GET", path, fields, b"");
                assert!(got.complete && got.body == body(path), "{path} {fields:?}");
            }
            connection.write_head("GET", "/huge", fields);
            assert_eq!(connection.response_head("GET").status, 200);
            connection
        })
        .collect();
    is_let_go(&larder);
    assert_eq!(ended(&larder, "slow-reader"), 2.0);
    assert_eq!(origin.requests().len(), SIZES.len());
    drop(stopped);
}

#[test]
fn an_answer_on_http2_that_its_client_does_not_take_ends_and_the_others_go_on() {
    let origin = Origin::start(|request| match request.target.as_str() {
        "/big" => endless(request),
        _ => Script::ok("x", &[]),
    });
    let larder = larder(&origin, "response_rate = \"1MB\"\nresponse_grace = \"300ms\"");
    // Its connection is driven while this thread waits: what stands still is the stream alone.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(larder.proxy()).await.unwrap();
        let (mut send, connection) =
            hyper::client::conn::http2::handshake::<_, _, Pieces>(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        // Its window stays shut: nothing of its body is read until the other end has given up.
        let stuck = send.send_request(post("/big", vec![], true)).await.unwrap();
        let metrics = || ended(&larder, "slow-reader") == 1.0;
        assert!(within(PATIENCE, metrics));
        let broken = tokio::time::timeout(PATIENCE, stuck.into_body().collect()).await.expect("it hangs");
        assert!(broken.is_err(), "it looks whole");
        let other = send.send_request(post("/other", vec![], true)).await.unwrap();
        assert_eq!(other.into_body().collect().await.unwrap().to_bytes(), "x");
    });
}

fn ended(larder: &Larder, reason: &str) -> f64 {
    larder.metric(&format!("larder_connections_ended_total{{reason=\"{reason}\"}}")).unwrap()
}

#[test]
fn a_head_that_trickles_is_answered_408_however_long_it_goes_on() {
    let origin = Origin::ok("x", &[]);
    let larder = larder(&origin, "header_time = \"400ms\"");
    for before in [0, 1] {
        let mut connection = Connection::open(larder.proxy());
        for _ in 0..before {
            assert_eq!(connection.request("GET", "/", &[], b"").status, 200);
        }
        connection.write(b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ");
        let mut writer = connection.stream().try_clone().unwrap();
        let trickle = std::thread::spawn(move || {
            (0..1000)
                .take_while(|_| {
                    std::thread::sleep(Duration::from_millis(20));
                    std::io::Write::write_all(&mut writer, b"x").is_ok()
                })
                .count()
        });
        is_refused(&connection.response("GET"), 408, "head-timeout");
        drop(connection);
        assert!(trickle.join().unwrap() < 1000);
    }
    assert_eq!(ended(&larder, "head"), 2.0);
}

#[test]
fn each_kind_of_waiting_has_its_own_limit() {
    let origin = Origin::ok("x", &[]);
    let silent = larder(&origin, "first_byte_time = \"200ms\"");
    assert!(Connection::open(silent.proxy()).closes());
    assert_eq!(ended(&silent, "first-byte"), 1.0);
    let idle = larder(&origin, "idle_time = \"200ms\"");
    let mut connection = Connection::open(idle.proxy());
    assert_eq!(connection.request("GET", "/", &[], b"").status, 200);
    assert!(connection.closes());
    assert_eq!(ended(&idle, "idle"), 1.0);
    // Neither is the other's: a new connection may be silent for as long as it likes here, and a used one there.
    let mut connection = Connection::open(silent.proxy());
    assert_eq!(connection.request("GET", "/", &[], b"").status, 200);
    let mut new = Connection::open(idle.proxy());
    for _ in 0..2 {
        assert!(Connection::open(silent.proxy()).closes());
        let mut used = Connection::open(idle.proxy());
        used.request("GET", "/", &[], b"");
        assert!(used.closes());
    }
    assert_eq!(connection.request("GET", "/", &[], b"").status, 200);
    assert_eq!(new.request("GET", "/", &[], b"").status, 200);
}

/// Frames of HTTP/2 (RFC 9113 §4.1) as a client writes them.
mod frames {
    pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;

    pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    /// `GET /` by indexed fields alone (RFC 7541 appendix A), and `:authority` written out.
    pub fn get(stream: u32) -> Vec<u8> {
        frame(1, 0x5, stream, &[&[0x82, 0x84, 0x86, 0x41, 0x01][..], b"a"].concat())
    }
}

/// The kinds of the frames that come until the other end closes.
fn kinds(connection: &mut Connection, mut at_each: impl FnMut(&mut Connection, u8)) -> Vec<u8> {
    let mut kinds = Vec::new();
    while !connection.closes() {
        let head = connection.read_some(9);
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = connection.read_some(length);
        // As every client does: a GOAWAY is final when a ping that was sent with it comes back.
        if head[3] == frames::PING && head[4] == 0 {
            let _ = connection.try_write(&frames::frame(frames::PING, 1, 0, &payload));
        }
        kinds.push(head[3]);
        at_each(connection, head[3]);
    }
    kinds
}

#[test]
fn a_connection_of_http2_on_which_nothing_is_asked_is_closed_with_a_goaway() {
    use frames::{GOAWAY, PING, PREFACE, SETTINGS, frame, get};
    let origin = Origin::ok("x", &[]);
    let larder = larder(&origin, "idle_time = \"300ms\"\nheader_time = \"300ms\"");
    // Before its first request: silent after the preface, or after its settings; and what it says is not asked.
    for said in [PREFACE.to_vec(), [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat()] {
        let mut connection = Connection::open(larder.proxy());
        connection.write(&said);
        kinds(&mut connection, |_, _| ());
    }
    // After one, though it pings all the time.
    let mut connection = Connection::open(larder.proxy());
    connection.write(&[PREFACE, &frame(SETTINGS, 0, 0, b""), &get(1), &frame(PING, 0, 0, &[7; 8])].concat());
    let seen = kinds(&mut connection, |connection, kind| {
        if kind == PING {
            std::thread::sleep(Duration::from_millis(10));
            let _ = connection.try_write(&frame(PING, 0, 0, &[7; 8]));
        }
    });
    assert!(seen.contains(&GOAWAY) && seen.contains(&PING), "{seen:?}");
    is_let_go(&larder);
}

#[test]
fn a_head_on_http2_that_trickles_beside_what_is_being_answered_ends_the_connection() {
    use frames::{GOAWAY, PREFACE, SETTINGS, frame, get};
    const HEADERS: u8 = 1;
    const CONTINUATION: u8 = 9;
    // Of the stream, and of the head.
    const ENDS: (u8, u8) = (1, 4);
    let gate = support::Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| Script::new().wait(&held).then_ok("late", &[]));
    let larder = larder(&origin, "header_time = \"300ms\"");
    let begun = [PREFACE, &frame(SETTINGS, 0, 0, b""), &get(1)].concat();
    let block = get(3).split_off(9);
    // Whole, in two frames: nobody is hurried.
    let mut honest = Connection::open(larder.proxy());
    honest.write(&[&begun[..], &frame(HEADERS, ENDS.0, 3, &block[..2])].concat());
    honest.write(&frame(CONTINUATION, ENDS.1, 3, &block[2..]));
    gate.wait_for_arrivals(1);
    for unfinished in [
        // In the middle of its first frame, between two, in the middle of the second.
        frame(HEADERS, ENDS.0 | ENDS.1, 3, &block)[..11].to_vec(),
        frame(HEADERS, ENDS.0, 3, &block[..2]),
        [frame(HEADERS, ENDS.0, 3, &block[..2]), frame(CONTINUATION, ENDS.1, 3, &block[2..])[..10].to_vec()]
            .concat(),
    ] {
        let mut connection = Connection::open(larder.proxy());
        connection.write(&begun);
        connection.write(&unfinished);
        let seen = kinds(&mut connection, |_, _| ());
        assert!(seen.contains(&GOAWAY), "{seen:?}");
    }
    assert_eq!(ended(&larder, "head"), 3.0);
    gate.open();
    // Both of its answers come: HEADERS twice.
    let mut answers = 0;
    while answers < 2 {
        let head = honest.read_some(9);
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        honest.read_some(length);
        answers += usize::from(head[3] == HEADERS);
    }
}

#[test]
fn a_client_of_http2_that_takes_most_requests_back_is_cut_off() {
    use frames::{PREFACE, SETTINGS, frame, get};
    let gate = support::Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |request| match request.target.as_str() {
        "/" => Script::new().wait(&held).then_ok("x", &[]),
        _ => Script::ok("x", &[]),
    });
    let larder = larder(&origin, "");
    let mut connection = Connection::open(larder.proxy());
    connection.write(&[PREFACE, &frame(SETTINGS, 0, 0, b"")].concat());
    let mut taken_back = 0;
    for stream in 0..2000 {
        let stream = 2 * stream + 1;
        let reset = frame(3, 0, stream, &8_u32.to_be_bytes());
        if connection.try_write(&get(stream)).and_then(|()| connection.try_write(&reset)).is_err() {
            break;
        }
        taken_back += 1;
    }
    kinds(&mut connection, |_, _| ());
    is_let_go(&larder);
    gate.open();
    assert!(taken_back > 0);
    assert_eq!(larder.get("/other", &[]).status, 200);
}

#[test]
fn the_last_request_of_a_connection_is_told_that_it_is() {
    let origin = Origin::ok("x", &[("Cache-Control", "max-age=60")]);
    let larder = larder(&origin, "requests = 3");
    let mut connection = Connection::open(larder.proxy());
    for number in 1..=3 {
        let response = connection.request("GET", "/", &[], b"");
        let last = if number == 3 { "close" } else { "" };
        assert_eq!((response.status, response.header("connection")), (200, last), "{number}");
    }
    assert!(connection.closes());
    // What was sent ahead is not answered, and its client has been told so.
    let mut connection = Connection::open(larder.proxy());
    connection.write(&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(5));
    let answers = (0..3).map(|_| connection.response("GET").status).collect::<Vec<_>>();
    assert_eq!((answers, connection.closes()), (vec![200; 3], true));
    let mut connection = Connection::open(larder.proxy());
    let asked =
        [frames::PREFACE, &frames::frame(4, 0, 0, b""), &frames::get(1), &frames::get(3), &frames::get(5)];
    connection.write(&asked.concat());
    let seen = kinds(&mut connection, |_, _| ());
    let heads = seen.iter().filter(|kind| **kind == 1).count();
    assert!(heads == 3 && seen.contains(&frames::GOAWAY), "{seen:?}");
    assert_eq!(ended(&larder, "requests"), 3.0);
}

#[test]
fn an_upload_that_is_refused_does_not_lose_the_answer() {
    let origin = Origin::ok("x", &[]);
    let larder = larder(&origin, "");
    for _ in 0..5 {
        // All of it is sent, whatever comes back meanwhile, and only then is the answer read: more than
        // any kernel holds.
        let mut connection = Connection::open(larder.proxy());
        connection.write_head("POST", "/small", &[("Content-Length", "20000000")]);
        for _ in 0..200 {
            connection.write(&[b'x'; 100_000]);
        }
        is_refused(&connection.response("POST"), 413, "request-too-large");
    }
    is_let_go(&larder);
}

#[test]
fn where_all_places_are_taken_the_one_that_is_unused_for_longest_makes_room() {
    let gate = support::Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |request| match request.target.as_str() {
        "/held" => Script::new().wait(&held).then_ok("late", &[]),
        _ => Script::ok("x", &[]),
    });
    let larder = larder(&origin, "connections = 3\nidle_time = \"5m\"\nfirst_byte_time = \"5m\"");
    let mut busy = Connection::open(larder.proxy());
    busy.write_head("GET", "/held", &[]);
    gate.wait_for_arrivals(1);
    // One that has said nothing yet, and one between requests.
    let mut silent = Connection::open(larder.proxy());
    assert!(within(PATIENCE, || larder.stats()["connections"] == 2), "{}", larder.stats());
    let mut idle = Connection::open(larder.proxy());
    assert_eq!(idle.request("GET", "/", &[], b"").status, 200);
    let mut first = Connection::open_from("127.0.0.2", larder.proxy());
    assert_eq!(first.request("GET", "/", &[], b"").status, 200);
    assert!(silent.closes());
    let mut second = Connection::open_from("127.0.0.2", larder.proxy());
    assert_eq!(second.request("GET", "/", &[], b"").status, 200);
    assert!(idle.closes());
    assert_eq!(first.request("GET", "/", &[], b"").status, 200, "it was used since");
    gate.open();
    assert_eq!(busy.response("GET").text(), "late", "what is being answered makes no room");
    assert_eq!(ended(&larder, "made-room"), 2.0);
}

#[test]
fn where_all_places_are_used_a_newcomer_is_told_so_and_those_who_have_one_go_on() {
    let gate = support::Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| Script::new().wait(&held).then_ok("late", &[]));
    let larder = larder(&origin, "connections = 2");
    let mut busy: Vec<_> = (0..2).map(|_| Connection::open(larder.proxy())).collect();
    for (number, connection) in busy.iter_mut().enumerate() {
        connection.write_head("GET", &format!("/held/{number}"), &[]);
    }
    gate.wait_for_arrivals(2);
    let refused = Connection::open_from("127.0.0.2", larder.proxy()).request("GET", "/", &[], b"");
    is_refused(&refused, 503, "too-many-connections");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(ended(&larder, "refused"), 1.0);
    gate.open();
    for connection in &mut busy {
        assert_eq!(connection.response("GET").text(), "late");
    }
    drop(busy);
    // Seen to be closed a moment later.
    assert!(within(PATIENCE, || larder.get("/", &[]).status == 200));
}

#[test]
fn a_head_that_is_refused_before_it_is_a_request_is_counted_and_told() {
    let origin = Origin::ok("x", &[]);
    let larder = larder(&origin, "");
    let refused =
        |reason: &str| larder.metric(&format!("larder_heads_refused_total{{reason=\"{reason}\"}}")).unwrap();
    let from = larder.err.position();
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n", "x".repeat(70_000));
    for (head, status, reason, times) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nNo colon\r\n\r\n", 400, "malformed", 1.0),
        ("NONSENSE\r\n\r\n", 400, "malformed", 2.0),
        (&long, 431, "too-long", 1.0),
    ] {
        // It stays where it is: that hides nothing.
        let mut connection = Connection::open(larder.proxy());
        connection.write(head.as_bytes());
        assert_eq!(connection.response("GET").status, status, "{head}");
        assert!(within(PATIENCE, || refused(reason) == times), "{}", larder.metrics());
    }
    let (line, _) =
        larder.err.next_line(from, |line| line.contains("a request's head was refused"), PATIENCE);
    assert!(line.contains("malformed") && line.contains("127.0.0.1") && !line.contains("colon"), "{line}");
    // One that is only broken off was no request, and nothing was refused.
    let mut gone = Connection::open(larder.proxy());
    gone.write(b"GET / HT");
    drop(gone);
    is_let_go(&larder);
    assert_eq!((refused("malformed"), refused("too-long")), (2.0, 1.0));
}

#[test]
fn an_address_has_no_more_connections_than_it_may() {
    let origin = Origin::ok("x", &[]);
    let larder = larder(&origin, "per_address = 2");
    let mut held: Vec<_> = (0..2).map(|_| Connection::open(larder.proxy())).collect();
    for connection in &mut held {
        assert_eq!(connection.request("GET", "/", &[], b"").status, 200);
    }
    is_refused(&larder.get("/", &[]), 503, "too-many-connections");
    assert_eq!(held[0].request("GET", "/", &[], b"").status, 200);
    assert_eq!(ended(&larder, "refused-address"), 1.0);
    drop(held.pop());
    // Seen to be closed a moment later.
    assert!(within(PATIENCE, || larder.get("/", &[]).status == 200));
}

#[test]
fn an_address_over_its_limit_has_nobody_evicted_before_it_is_refused() {
    let origin = Origin::ok("x", &[]);
    let larder = larder(&origin, "connections = 2\nper_address = 1");
    let mut held: Vec<_> =
        ["127.0.0.2", "127.0.0.3"].map(|from| Connection::open_from(from, larder.proxy())).into();
    for connection in &mut held {
        assert_eq!(connection.request("GET", "/", &[], b"").status, 200);
    }
    let mut greedy = Connection::open_from("127.0.0.2", larder.proxy());
    is_refused(&greedy.request("GET", "/", &[], b""), 503, "too-many-connections");
    assert_eq!((ended(&larder, "refused-address"), ended(&larder, "made-room")), (1.0, 0.0));
    for connection in &mut held {
        assert_eq!(connection.request("GET", "/", &[], b"").status, 200, "its connection is still its own");
    }
    // Who may have one more gets the place of the one that is unused for longest.
    let mut newcomer = Connection::open_from("127.0.0.4", larder.proxy());
    assert_eq!(newcomer.request("GET", "/", &[], b"").status, 200);
    assert!(held[0].closes());
}

/// Connections that hold on to what they can get: by each phase in which a client may be slow.
fn crowd(larder: &Larder, each: usize) -> Vec<Connection> {
    let rows: [&[u8]; 4] = [
        b"",
        b"GET /slow HTTP/1.1\r\nHost: a\r\nX-Slow: ",
        b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    let mut crowd = Vec::new();
    for said in rows {
        for _ in 0..each {
            let mut connection = Connection::open(larder.proxy());
            connection.write(said);
            crowd.push(connection);
        }
    }
    crowd
}

#[test]
fn hundreds_who_are_slow_in_every_way_do_not_keep_anybody_waiting() {
    support::allow_many_files();
    let origin = Origin::ok("x", &[("Cache-Control", "max-age=60")]);
    let larder = larder(&origin, "");
    let mut healthy = Connection::open(larder.proxy());
    assert_eq!(healthy.request("GET", "/hit", &[], b"").status, 200);
    let crowd = crowd(&larder, 100);
    for number in 0..200 {
        assert_eq!(healthy.request("GET", "/hit", &[], b"").status, 200);
        if number % 10 == 0 {
            assert_eq!(larder.get(&format!("/miss/{number}"), &[]).status, 200);
        }
    }
    assert!(larder.stats()["connections"].as_u64().unwrap() >= 400, "{}", larder.stats());
    drop(crowd);
    assert!(within(PATIENCE, || larder.stats()["connections"] == 1), "{}", larder.stats());
}

/// By hand: `cargo test --release --test limits -- --ignored --nocapture`.
#[test]
#[ignore = "20,000 connections, and more descriptors than CI may have"]
fn five_thousand_of_each_kind_of_slow_client_hurt_nobody() {
    support::allow_many_files();
    let origin = Origin::ok("x", &[("Cache-Control", "max-age=60")]);
    let larder = larder(&origin, "connections = 50000\nper_address = 50000");
    let mut healthy = Connection::open(larder.proxy());
    assert_eq!(healthy.request("GET", "/hit", &[], b"").status, 200);
    let memory = |when: &str| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", larder.id())).unwrap();
        println!("{when}: {}", status.lines().find(|line| line.starts_with("VmRSS")).unwrap());
    };
    memory("before");
    let crowd = crowd(&larder, 5000);
    memory("with all of them");
    for number in 0..20_000 {
        assert_eq!(healthy.request("GET", "/hit", &[], b"").status, 200);
        if number % 100 == 0 {
            assert_eq!(larder.get(&format!("/miss/{number}"), &[]).status, 200);
        }
    }
    drop(crowd);
    assert!(within(PATIENCE * 3, || larder.stats()["connections"].as_u64() <= Some(1)), "{}", larder.stats());
    memory("after");
}

#[test]
fn an_answer_that_breaks_off_never_ends_like_a_whole_one() {
    let origin = Origin::start(|_| Script::chunked(&[]).chunk("half of it").close());
    let larder = larder(&origin, "");
    for request in ["GET / HTTP/1.0\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut connection = Connection::open(larder.proxy());
        connection.write(request.as_bytes());
        let mut all = Vec::new();
        let end = std::io::Read::read_to_end(&mut connection.stream(), &mut all);
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset, "{request}");
    }
}
