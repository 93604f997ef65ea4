//! Interim responses (1xx, RFC 9110 §15.2): they reach the client that asked, in their place, and leave
//! nothing behind: not in the final response, not in the cache, not in the next message.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::io::{Read, Write};

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::front::{HIT, HOST, STORED, told};
use support::{Connection, Gate, Larder, Origin, PATIENCE, Request, Response, Script, send, within};

/// Responses without the fields that Larder adds of its own.
const BARE: &str = "response_headers = { remove = [\"Cache-Status\", \"X-Cache\"] }\n[timing]\n\
                    process_time = false\nserver_timing = false";
const FRESH: (&str, &str) = ("Cache-Control", "max-age=60");
const HINTS: &[(&str, &str)] = &[
    ("Link", "</a.css>; rel=preload; as=style"),
    ("Link", "</b.js>; rel=preload; as=script"),
    ("X-Early", "1"),
    ("Cache-Control", "no-store"),
    ("Set-Cookie", "early=1"),
];

fn front(route: &str, behaviour: impl Fn(&Request) -> Script + Send + Sync + 'static) -> (Origin, Larder) {
    let origin = Origin::start(behaviour);
    let larder = larder(&origin, route);
    (origin, larder)
}

fn larder(origin: &Origin, route: &str) -> Larder {
    Larder::start(&format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nworkers = 2\n[upstream.api]\nservers = [\"{}\"]\n\
         [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"api\"\n{route}\n",
        origin.url()
    ))
}

fn get(larder: &Larder, path: &str, headers: &[(&str, &str)]) -> Response {
    larder.get(path, &[&[("Host", HOST)], headers].concat())
}

/// How many passed and were dropped.
fn counts(larder: &Larder) -> (f64, f64) {
    let of =
        |result| larder.metric(&format!("larder_interim_responses_total{{result=\"{result}\"}}")).unwrap();
    (of("passed"), of("dropped"))
}

#[test]
fn hints_reach_the_client_and_are_no_part_of_what_is_stored() {
    let (origin, larder) =
        front("[route.cache]", |_| Script::interim(103, HINTS).then_ok("body", &[FRESH, ("X-Late", "1")]));
    let first = get(&larder, "/", &[]);
    assert_eq!((first.interim.as_slice(), first.status, first.text().as_str()), (&[103][..], 200, "body"));
    let hints = &first.interim_headers[0];
    let links: Vec<_> = hints.all("link").collect();
    assert_eq!(links, ["</a.css>; rel=preload; as=style", "</b.js>; rel=preload; as=script"]);
    assert_eq!(hints.get("x-early"), Some("1"));
    // §7.6.3: each message that is forwarded.
    assert_eq!(hints.get("via"), first.headers.get("via"));
    assert_eq!(told(&first), STORED, "no-store was not said of it");

    let second = get(&larder, "/", &[]);
    assert_eq!((told(&second).as_str(), second.interim.len()), (HIT, 0));
    for response in [&first, &second] {
        for name in ["link", "x-early", "set-cookie"] {
            assert_eq!(response.headers.get(name), None, "{name}");
        }
        assert_eq!(response.headers.all("cache-control").collect::<Vec<_>>(), ["max-age=60"]);
        assert_eq!(response.header("x-late"), "1");
    }
    assert_eq!(origin.count("/"), 1);
    assert_eq!(counts(&larder), (1.0, 0.0));
}

#[test]
fn they_come_while_the_origin_is_still_at_work() {
    let gate = Gate::new();
    let held = gate.clone();
    let (_origin, larder) = front("[route.cache]", move |_| {
        Script::interim(103, HINTS)
            .then(Script::interim(102, &[]))
            .wait(&held)
            .then(Script::interim(103, &[("Link", "</late>; rel=preload")]))
            .then_ok("body", &[FRESH])
    });
    // A miss, and a pass that is not looked up.
    for method in ["GET", "POST"] {
        let mut connection = Connection::open(larder.proxy());
        connection.write_request(method, "/", &[("Host", HOST)], b"");
        assert_eq!(connection.interim_head().headers.get("x-early"), Some("1"), "{method}");
        assert_eq!(connection.interim(), 102);
        gate.open();
        let response = connection.response(method);
        assert_eq!((response.interim.as_slice(), response.text().as_str()), (&[103][..], "body"));
        assert_eq!(response.interim_headers[0].get("link"), Some("</late>; rel=preload"));
    }
}

#[test]
fn what_concerns_the_origins_connection_or_is_not_for_clients_stays_behind() {
    let (_origin, larder) = front(
        "response_headers = { remove = [\"X-Secret\"], set = { X-Set = \"ours\" } }\n[route.cache]",
        |_| {
            let fields = [
                ("Connection", "keep-alive, X-Hop"),
                ("X-Hop", "1"),
                ("Keep-Alive", "timeout=5"),
                ("Content-Length", "0"),
                ("X-Secret", "1"),
                ("X-Set", "theirs"),
                ("Link", "</a>; rel=preload"),
            ];
            Script::interim(103, &fields).then_ok("body", &[FRESH])
        },
    );
    let response = get(&larder, "/", &[]);
    let names: Vec<_> = response.interim_headers[0].0.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["link", "via"]);
    assert_eq!((response.header("x-set"), response.text().as_str()), ("ours", "body"));
}

#[test]
fn a_client_of_http_1_0_gets_none() {
    let (_origin, larder) = front("[route.cache]", |_| Script::interim(103, HINTS).then_ok("body", &[FRESH]));
    for request in ["GET / HTTP/1.0\r\nHost: api.test\r\n\r\n", "POST / HTTP/1.0\r\nHost: api.test\r\n\r\n"] {
        let response = send(larder.proxy(), request.as_bytes());
        assert_eq!((response.interim.len(), response.status, response.text().as_str()), (0, 200, "body"));
        assert_eq!(response.headers.get("link"), None);
    }
}

#[test]
fn a_client_of_http_2_gets_the_final_response_alone() {
    let (_origin, larder) = front("[route.cache]", |_| Script::interim(103, HINTS).then_ok("body", &[FRESH]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(larder.proxy()).await.unwrap();
        let (mut send, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request =
            http::Request::get(format!("http://{HOST}/")).body(Empty::<bytes::Bytes>::new()).unwrap();
        let (head, body) = send.send_request(request).await.unwrap().into_parts();
        assert_eq!((head.status.as_u16(), head.headers.get("link")), (200, None));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "body");
    });
}

#[test]
fn an_origin_that_breaks_off_after_one_is_a_failure_and_is_not_asked_again() {
    let (origin, larder) = front("[route.cache]", |request| match request.target.as_str() {
        "/broken" => Script::interim(103, HINTS).close(),
        _ => Script::interim(102, &[]).then_ok("body", &[FRESH]),
    });
    let mut connection = Connection::open(larder.proxy());
    // The first leaves a connection in the pool, on which the second goes out.
    for (path, interim, status) in [("/", 102, 200), ("/broken", 103, 502), ("/more", 102, 200)] {
        let response = connection.request("GET", path, &[("Host", HOST)], b"");
        assert_eq!((response.interim.as_slice(), response.status), (&[interim][..], status), "{path}");
        assert_eq!(response.headers.get("link"), None);
    }
    assert_eq!(origin.count("/broken"), 1);
}

#[test]
fn pipelined_requests_get_exactly_their_own_byte_for_byte() {
    let (_origin, larder) = front(BARE, |request| {
        let of = request.target.clone();
        let date = ("Date", "Tue, 15 Nov 1994 08:12:31 GMT");
        let script = Script::interim(103, &[("X-Of", &of)]).then(Script::interim(102, &[]));
        script.then_ok([of.as_bytes(), &request.body].concat(), &[date])
    });
    let mut connection = Connection::open(larder.proxy());
    connection.write(
        b"GET /1 HTTP/1.1\r\nHost: api.test\r\n\r\n\
          POST /2 HTTP/1.1\r\nHost: api.test\r\nContent-Length: 4\r\n\r\nbody\
          HEAD /3 HTTP/1.1\r\nHost: api.test\r\n\r\n\
          POST /4 HTTP/1.1\r\nHost: api.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody\
          GET /5 HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n",
    );
    let output = String::from_utf8(connection.read_to_end()).unwrap();
    let via = output.split("via: ").nth(1).unwrap().split('\r').next().unwrap();
    let mut expected = String::new();
    for (number, method, body) in
        [(1, "GET", "/1"), (2, "POST", "/2body"), (3, "HEAD", "/3"), (4, "POST", "/4body"), (5, "GET", "/5")]
    {
        if number == 4 {
            expected.push_str("HTTP/1.1 100 Continue\r\n\r\n");
        }
        expected.push_str(&format!("HTTP/1.1 103 Early Hints\r\nx-of: /{number}\r\nvia: {via}\r\n\r\n"));
        expected.push_str(&format!("HTTP/1.1 102 Processing\r\nvia: {via}\r\n\r\n"));
        expected.push_str("HTTP/1.1 200 OK\r\ndate: Tue, 15 Nov 1994 08:12:31 GMT\r\n");
        expected.push_str(&format!("content-length: {}\r\nvia: {via}\r\n", body.len()));
        if number == 5 {
            expected.push_str("connection: close\r\n");
        }
        expected.push_str("\r\n");
        if method != "HEAD" {
            expected.push_str(body);
        }
    }
    assert_eq!(output, expected);
}

#[test]
fn they_come_while_the_request_is_still_being_sent() {
    // The origin speaks when it has the head, and goes on reading.
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::early(move |_| Script::interim(102, &[]).wait(&held).then_ok("body", &[]));
    let larder = larder(&origin, "[route.cache]");
    let mut connection = Connection::open(larder.proxy());
    connection.write_head("POST", "/", &[("Content-Length", "10")]);
    connection.write(b"first");
    assert_eq!(connection.interim(), 102);
    connection.write(b"other");
    gate.open();
    let response = connection.response("POST");
    assert_eq!((response.status, response.text().as_str()), (200, "body"));
}

#[test]
fn whoever_expects_a_100_gets_one_whatever_the_origin_sends() {
    let hundred = || Script::interim(100, &[("X-Origin", "1")]);
    let origin = Origin::early(move |_| {
        hundred().then(hundred()).then(Script::interim(103, HINTS)).then(hundred()).then_ok("body", &[])
    });
    let larder = larder(&origin, "[route.cache]");
    for expects in [true, false] {
        let mut connection = Connection::open(larder.proxy());
        let mut fields = vec![("Content-Length", "5")];
        if expects {
            fields.push(("Expect", "100-continue"));
        }
        connection.write_head("POST", "/", &fields);
        if !expects {
            connection.write(b"hello");
        }
        let response = connection.response("POST");
        assert_eq!((response.status, response.text().as_str()), (200, "body"));
        let hundreds = response.interim.iter().filter(|status| **status == 100).count();
        assert_eq!(hundreds, usize::from(expects), "{:?}", response.interim);
        assert_eq!(response.interim.iter().filter(|status| **status == 103).count(), 1);
        assert!(response.interim_headers.iter().all(|fields| fields.get("x-origin").is_none()));
    }
    assert!(origin.requests().iter().all(|request| request.headers.get("expect").is_none()));
}

#[test]
fn those_of_a_shared_fetch_go_to_the_client_that_caused_it() {
    let (early, late) = (Gate::new(), Gate::new());
    let (first, second) = (early.clone(), late.clone());
    let (origin, larder) = front("[route.cache]", move |_| {
        Script::new().wait(&first).then(Script::interim(103, HINTS)).wait(&second).then_ok("body", &[FRESH])
    });
    let ask = || {
        let mut connection = Connection::open(larder.proxy());
        connection.write_request("GET", "/", &[("Host", HOST)], b"");
        connection
    };
    let mut owner = ask();
    early.wait_for_arrivals(1);
    let mut guest = ask();
    assert!(within(PATIENCE, || larder.stats()["active"] == 2));
    early.open();
    assert_eq!(owner.interim(), 103);
    late.open();
    for connection in [&mut owner, &mut guest] {
        let response = connection.response("GET");
        assert_eq!((response.interim.len(), response.text().as_str()), (0, "body"));
        assert_eq!(response.headers.get("link"), None);
    }
    assert_eq!(origin.count("/"), 1);
}

#[test]
fn a_client_that_leaves_takes_nothing_with_it() {
    let gate = Gate::new();
    let held = gate.clone();
    let (origin, larder) = front("[route.cache]", move |_| {
        Script::interim(102, &[]).wait(&held).then(Script::interim(103, HINTS)).then_ok("body", &[FRESH])
    });
    let mut connection = Connection::open(larder.proxy());
    connection.write_request("GET", "/", &[("Host", HOST)], b"");
    assert_eq!(connection.interim(), 102);
    connection.reset();
    assert!(within(PATIENCE, || larder.stats()["active"] == 0));
    gate.open();
    // The fetch goes on, for whoever comes next.
    assert!(within(PATIENCE, || get(&larder, "/", &[]).header("x-cache") == "HIT"));
    assert_eq!((origin.count("/"), counts(&larder)), (1, (1.0, 1.0)));
}

#[test]
fn a_304_after_hints_confirms_what_is_stored_and_takes_nothing_of_them() {
    let (origin, larder) = front("[route.cache]", |request| match request.count {
        1 => Script::ok("body", &[("Cache-Control", "max-age=0"), ("ETag", "\"v1\"")]),
        _ => Script::interim(103, HINTS).then(Script::respond(304, &[("ETag", "\"v1\"")], "")),
    });
    assert_eq!(get(&larder, "/", &[]).status, 200);
    let response = get(&larder, "/", &[]);
    assert_eq!(origin.last().header("if-none-match"), "\"v1\"");
    assert_eq!((response.interim.as_slice(), response.status), (&[103][..], 200));
    assert_eq!((response.header("x-cache"), response.text().as_str()), ("REVALIDATED", "body"));
    for name in ["link", "x-early", "set-cookie"] {
        assert_eq!(response.headers.get(name), None, "{name}");
    }
}

#[test]
fn those_of_a_refresh_go_nowhere() {
    let (origin, larder) =
        front("[route.cache]\nstale_while_revalidate = \"100s\"", |request| match request.count {
            1 => Script::ok("old", &[FRESH, ("Age", "100")]),
            _ => Script::interim(103, HINTS).then_ok("new", &[FRESH]),
        });
    let mut connection = Connection::open(larder.proxy());
    let mut ask = || connection.request("GET", "/", &[("Host", HOST)], b"");
    assert_eq!(ask().text(), "old");
    let stale = ask();
    assert_eq!((stale.header("x-cache"), stale.interim.len()), ("STALE", 0));
    assert!(within(PATIENCE, || {
        let response = ask();
        assert_eq!(response.interim.len(), 0);
        response.text() == "new" && response.header("x-cache") == "HIT"
    }));
    assert_eq!((origin.count("/"), counts(&larder)), (2, (0.0, 0.0)));
}

#[test]
fn many_of_them_are_cut_short_and_the_final_response_is_none_the_worse() {
    let flood = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n";
    let (_origin, larder) =
        front("[route.cache]", move |_| Script::new().repeat(flood, 60).then_ok("body", &[FRESH]));
    let response = get(&larder, "/", &[]);
    assert_eq!((response.interim.as_slice(), response.text().as_str()), (&[103; 16][..], "body"));
    assert_eq!(counts(&larder), (16.0, 44.0));
}

#[test]
fn a_flood_of_them_is_a_502() {
    let flood = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n";
    let (_origin, larder) =
        front("[route.cache]", move |_| Script::new().repeat(flood, 5000).then_ok("body", &[FRESH]));
    let response = get(&larder, "/", &[]);
    assert_eq!((response.status, &response.json()["cause"]), (502, &"protocol".into()));
    assert!(response.interim.len() <= 16, "{}", response.interim.len());
}

#[test]
fn a_client_that_does_not_read_gets_the_final_response_whole_and_in_its_place() {
    let large = "x".repeat(15_000);
    let body = "y".repeat(300_000);
    let gates: Vec<Gate> = (0..16).map(|_| Gate::new()).collect();
    let (held, sent) = (gates.clone(), body.clone());
    let (_origin, larder) = front("[route.cache]", move |_| {
        let hints = |script: Script, gate: &Gate| {
            script.then(Script::interim(103, &[("X-Large", &large)])).wait(gate)
        };
        held.iter().fold(Script::new(), hints).then_ok(&sent, &[FRESH])
    });
    // Room for less than one of them, so that they get stuck on the way.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    socket.connect(&larder.proxy().into()).unwrap();
    let mut stream = std::net::TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n").unwrap();
    for (come, gate) in gates.iter().enumerate() {
        gate.wait_for_arrivals(1);
        assert!(within(PATIENCE, || {
            let (passed, dropped) = counts(&larder);
            passed + dropped == (come + 1) as f64
        }));
        gate.open();
    }
    let mut output = String::new();
    stream.read_to_string(&mut output).unwrap();
    let hint = format!("HTTP/1.1 103 Early Hints\r\nx-large: {}\r\nvia: ", "x".repeat(15_000));
    let (mut rest, mut hints) = (output.as_str(), 0.0);
    while let Some(after) = rest.strip_prefix(&hint) {
        rest = after.split_once("\r\n\r\n").unwrap().1;
        hints += 1.0;
    }
    assert_eq!(hints, counts(&larder).0);
    let (head, end) = rest.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && !head.contains("x-large"), "{head}");
    assert!(end == body, "{} bytes in place of {}", end.len(), body.len());
}

#[test]
fn an_upgrade_may_come_after_one() {
    let (_origin, larder) = front("upgrade = true", |_| {
        let switch = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
        Script::interim(103, HINTS).head(101, &switch).bytes("hello").echo()
    });
    let mut connection = Connection::open(larder.proxy());
    connection.write_head("GET", "/", &[("Connection", "Upgrade"), ("Upgrade", "websocket")]);
    let response = connection.response_head("GET");
    assert_eq!((response.interim.as_slice(), response.status), (&[103][..], 101));
    assert_eq!(response.headers.get("link"), None);
    assert_eq!(connection.read_some(5), b"hello");
    connection.write(b"ping");
    assert_eq!(connection.read_some(4), b"ping");
}
