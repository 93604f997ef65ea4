//! Origins and clients that fail: what the other side is told, what is tried again and what is
//! not, which limits hold, and that `/stats` counts it as it was.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::net::SocketAddr;
use std::thread::JoinHandle;

use support::client::request;
use support::{Connection, Gate, Larder, Origin, PATIENCE, Response, Script, get, within};

const STORABLE: &[(&str, &str)] = &[("Cache-Control", "max-age=60")];

#[test]
fn a_refused_connection_is_a_502_that_names_neither_the_upstream_nor_an_address() {
    let nobody = support::unused_address();
    let larder = Larder::start(&config(&[nobody], "", ""));
    for (method, path) in [("GET", "/cached"), ("GET", "/off"), ("HEAD", "/off"), ("POST", "/off")] {
        let response = request(larder.proxy(), method, path, &[], b"");
        if method == "HEAD" {
            assert_eq!(response.status, 502);
            continue;
        }
        is_failure(&response, 502, "connect-failed");
        assert!(!response.text().contains("api"), "{}", response.text());
        assert!(!response.text().contains(&nobody.port().to_string()), "{}", response.text());
    }
    agrees(&larder, 0, 4, 0);
}

#[test]
fn with_two_servers_the_one_that_answers_is_asked() {
    let origin = Origin::ok("alive", &[]);
    let larder = Larder::start(&config(&[support::unused_address(), origin.addr()], "", ""));
    for n in 0..6 {
        assert_eq!(larder.get(&format!("/cached/{n}"), &[]).text(), "alive");
        assert_eq!(request(larder.proxy(), "POST", "/off", &[], b"body").text(), "alive");
    }
    assert_eq!(origin.requests().len(), 12);
}

#[test]
fn an_origin_that_stays_silent_is_a_504() {
    let origin = Origin::start(|_| Script::new().stall());
    let larder = Larder::start(&config(&[origin.addr()], "timeout = { first_byte = \"200ms\" }", ""));
    for (method, path) in [("GET", "/cached"), ("GET", "/off"), ("POST", "/off")] {
        is_failure(&request(larder.proxy(), method, path, &[], b""), 504, "first-byte-timeout");
    }
    // It may still be at work on them, so nothing more is sent on these connections.
    origin.wait_for_open_connections(0);
    assert_eq!(origin.requests().len(), 3, "none is asked twice");
    agrees(&larder, 0, 3, 0);
}

#[test]
fn an_origin_that_begins_and_does_not_end_cuts_the_client_after_the_total() {
    let origin = Origin::start(|request| match request.target.as_str() {
        "/cached/length" => Script::new()
            .head(200, &[("Content-Length", "9"), ("Cache-Control", "max-age=60")])
            .bytes("half")
            .stall(),
        _ => Script::chunked(STORABLE).chunk("half").stall(),
    });
    let larder = Larder::start(&config(&[origin.addr()], "timeout = { total = \"500ms\" }", ""));
    for path in ["/cached", "/cached/length", "/off"] {
        let response = larder.get(path, &[]);
        assert_eq!((response.status, response.text().as_str()), (200, "half"), "{path}");
        assert!(!response.complete, "{path}: cut off, not ended");
    }
    origin.wait_for_open_connections(0);
    agrees(&larder, 0, 3, 0);
}

#[test]
fn an_origin_that_trickles_its_head_runs_into_the_limit_too() {
    let origin = Origin::start(|_| Script::new().bytes("HTTP/1.1 200 OK\r\nX-Slow: ").stall());
    let larder = Larder::start(&config(&[origin.addr()], "timeout = { first_byte = \"200ms\" }", ""));
    is_failure(&larder.get("/cached", &[]), 504, "first-byte-timeout");
}

#[test]
fn an_origin_that_hangs_up_without_a_word_is_a_502() {
    for script in
        [Script::new().close(), Script::new().reset(), Script::new().bytes("HTTP/1.1 200 O").close()]
    {
        let origin = Origin::start(move |_| script.clone());
        let larder = Larder::start(&config(&[origin.addr()], "", ""));
        for (method, path) in [("GET", "/cached"), ("GET", "/off"), ("POST", "/off")] {
            let response = request(larder.proxy(), method, path, &[], b"");
            is_failure(&response, 502, "reset");
        }
        assert_eq!(origin.requests().len(), 3, "a fresh connection that fails is no reason to ask again");
    }
}

#[test]
fn an_origin_that_does_not_speak_http_is_a_502() {
    for garbage in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "\x15\x03\x01\x00\x02\x02\x46",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    ] {
        let origin = Origin::start(move |_| Script::new().bytes(garbage).close());
        let larder = Larder::start(&config(&[origin.addr()], "", ""));
        for path in ["/cached", "/off"] {
            let response = larder.get(path, &[]);
            assert_eq!(response.status, 502, "{garbage:?}");
            assert_eq!(response.json()["cause"], "protocol", "{garbage:?}: {}", response.text());
        }
    }
}

#[test]
fn a_transfer_coding_that_is_not_chunked_is_a_502_and_nothing_is_stored() {
    for codings in ["gzip", "foo", "identity", "gzip, chunked", "chunked, gzip", "chunked, chunked"] {
        let origin = Origin::start(move |_| {
            let fields = [STORABLE[0], ("Transfer-Encoding", codings)];
            Script::new().head(200, &fields).bytes("5\r\nfirst\r\n0\r\n\r\n").close()
        });
        let larder = Larder::start(&config(&[origin.addr()], "", ""));
        for _ in 0..2 {
            is_failure(&get(larder.proxy(), "/cached", &[]), 502, "protocol");
        }
        assert_eq!(origin.count("/cached"), 2, "{codings}");
    }
}

#[test]
fn a_head_without_end_is_a_502() {
    let line = format!("X-Long: {}\r\n", "x".repeat(1000));
    let origin = Origin::start(move |_| Script::new().bytes("HTTP/1.1 200 OK\r\n").repeat(&line, 10_000));
    let larder = Larder::start(&config(&[origin.addr()], "", ""));
    is_failure(&larder.get("/cached", &[]), 502, "protocol");
    assert!(origin.bytes_sent() < 8 << 20, "it is not read to its end");
}

/// It takes requests and says nothing, or does not even take connections any more (a stopped process, a black hole):
/// its share of the requests used to be 504 for as long as it lasted.
#[test]
fn a_server_that_hangs_fails_no_request_that_another_can_answer_and_is_left_out() {
    const LIMITS: &str = "timeout = { first_byte = \"30s\", hedge_after = \"500ms\" }";
    let hung = Origin::start(|_| Script::new().stall());
    let sound = Origin::ok("sound", STORABLE);
    let larder = Larder::start(&config(&[hung.addr(), sound.addr()], LIMITS, ""));
    std::thread::scope(|scope| {
        for client in 0..8 {
            let larder = &larder;
            scope.spawn(move || {
                for n in 0..20 {
                    let path = if n % 2 == 0 { format!("/cached/{client}/{n}") } else { "/off".to_owned() };
                    let response = larder.get(&path, &[]);
                    assert_eq!((response.status, response.text().as_str()), (200, "sound"), "{path}");
                }
            });
        }
    });
    let (hung_stats, sound_stats) = (server(&larder, &hung), server(&larder, &sound));
    assert_eq!(hung_stats["hedges_won"], 0);
    assert_eq!(sound_stats["hedges"], sound_stats["hedges_won"], "each that was sent brought the answer");
    // Some 80 were its share.
    let asked = hung.requests().len();
    assert!((1..=30).contains(&asked), "{asked}");
    // Where this machine is slow, the hung one may have been sent some, too.
    let first = asked as u64 - hung_stats["hedges"].as_u64().unwrap();
    assert_eq!(sound_stats["hedges"], first, "each request to it was hedged, once");
    // Whoever gave up on it has closed its connection.
    hung.wait_for_open_connections(0);
    assert_eq!(server(&larder, &hung)["open"], 0);
    // What may not be sent twice is not sent there either.
    for _ in 0..4 {
        assert_eq!(request(larder.proxy(), "POST", "/off", &[], b"order").text(), "sound");
    }
    assert_eq!(hung.requests().len(), asked);
    larder.err.wait_for_line(|line| line.contains("takes requests and answers none"), PATIENCE);
}

#[test]
fn a_connection_that_had_gone_stale_is_replaced_once_without_the_client_noticing() {
    // The second request on a connection is answered by closing it.
    let origin = Origin::start(|request| match request.count {
        2 => Script::new().close(),
        n => Script::ok(n.to_string(), &[("Cache-Control", "no-store")]),
    });
    for (method, path) in [("GET", "/cached"), ("GET", "/off"), ("OPTIONS", "/off?2")] {
        let larder = Larder::start(&config(&[origin.addr()], "", ""));
        assert_eq!(request(larder.proxy(), method, path, &[], b"").text(), "1", "{method} {path}");
        wait_for_idle(&larder, &origin, 1);
        let second = request(larder.proxy(), method, path, &[], b"");
        assert_eq!((second.status, second.text().as_str()), (200, "3"), "{method} {path}");
        let connections: Vec<_> =
            origin.requests().iter().filter(|r| r.target == path).map(|r| r.connection).collect();
        assert_eq!((connections[0] == connections[1], connections[1] == connections[2]), (true, false));
        assert_eq!(server(&larder, &origin)["retries"], 1);
    }
}

#[test]
fn it_is_tried_again_once_and_no_more() {
    let origin = Origin::start(|request| match request.count {
        1 => Script::ok("first", &[]),
        _ => Script::new().close(),
    });
    let larder = Larder::start(&config(&[origin.addr()], "", ""));
    assert_eq!(larder.get("/off", &[]).text(), "first");
    wait_for_idle(&larder, &origin, 1);
    is_failure(&larder.get("/off", &[]), 502, "reset");
    assert_eq!(origin.count("/off"), 3);
}

#[test]
fn what_may_have_been_acted_upon_is_never_sent_again() {
    for (method, body) in
        [("POST", &b"order"[..]), ("POST", b""), ("PUT", b"x"), ("DELETE", b""), ("PATCH", b"x")]
    {
        let origin = Origin::start(|request| match request.count {
            1 => Script::ok("first", &[]),
            _ => Script::new().close(),
        });
        let larder = Larder::start(&config(&[origin.addr()], "", ""));
        assert_eq!(request(larder.proxy(), method, "/off", &[], body).text(), "first");
        wait_for_idle(&larder, &origin, 1);
        is_failure(&request(larder.proxy(), method, "/off", &[], body), 502, "reset");
        assert_eq!(origin.count("/off"), 2, "{method} has reached the origin once more than it was sent");
    }
}

#[test]
fn idle_connections_that_the_origin_closed_are_not_used() {
    let origin = Origin::ok("x", &[]);
    let larder = Larder::start(&config(&[origin.addr()], "", ""));
    for n in 1..=3 {
        assert_eq!(request(larder.proxy(), "POST", "/off", &[], b"body").status, 200);
        wait_for_idle(&larder, &origin, 1);
        origin.drop_connections();
        wait_for_idle(&larder, &origin, 0);
        assert_eq!(origin.connections(), n);
    }
}

#[test]
fn never_more_connections_than_allowed_and_they_are_used_again() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |request| Script::new().wait(&held).then_ok(&request.target, &[]));
    let pool = "pool = { max_connections = 3, queue_timeout = \"30s\" }\ntimeout = { first_byte = \"30s\" }";
    let larder = Larder::start(&config(&[origin.addr()], pool, ""));
    let clients: Vec<_> = (0..12).map(|n| client(&larder, format!("/off?{n}"))).collect();
    gate.wait_for_arrivals(3);
    assert!(within(PATIENCE, || server(&larder, &origin)["waiting"] == 9), "{}", larder.stats());
    assert_eq!((gate.arrived(), origin.open_connections()), (3, 3));
    assert_eq!(server(&larder, &origin)["open"], 3);
    gate.open();
    for (n, client) in clients.into_iter().enumerate() {
        assert_eq!(client.join().unwrap().text(), format!("/off?{n}"));
    }
    assert_eq!(origin.connections(), 3);
    let server = server(&larder, &origin);
    assert_eq!(
        (&server["connects"], &server["reused"], &server["waiting"]),
        (&3.into(), &9.into(), &0.into())
    );
}

#[test]
fn a_full_queue_is_a_503_at_once_and_a_long_wait_in_it_one_too() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| Script::new().wait(&held).then_ok(b"late", &[]));
    let pool = "pool = { max_connections = 1, queue = 1, queue_timeout = \"1s\" }";
    let larder = Larder::start(&config(&[origin.addr()], pool, ""));
    let first = client(&larder, "/off?first".to_owned());
    gate.wait_for_arrivals(1);
    let second = client(&larder, "/off?second".to_owned());
    assert!(within(PATIENCE, || server(&larder, &origin)["waiting"] == 1), "{}", larder.stats());
    let third = larder.get("/cached/third", &[]);
    is_failure(&third, 503, "queue-full");
    assert!(!third.header("retry-after").is_empty());
    is_failure(&second.join().unwrap(), 503, "queue-timeout");
    gate.open();
    assert_eq!(first.join().unwrap().text(), "late");
    assert_eq!(origin.requests().len(), 1, "those who gave up are not asked for later");
    assert_eq!(larder.get("/cached/third", &[]).status, 200, "neither is the failure remembered");
    agrees(&larder, 2, 2, 0);
}

#[test]
fn a_client_that_leaves_the_queue_leaves_its_place() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |request| Script::new().wait(&held).then_ok(&request.target, &[]));
    let pool = "pool = { max_connections = 1, queue = 1, queue_timeout = \"30s\" }";
    let larder = Larder::start(&config(&[origin.addr()], pool, ""));
    let first = client(&larder, "/off?1".to_owned());
    gate.wait_for_arrivals(1);
    let mut leaving = Connection::open(larder.proxy());
    leaving.write_head("GET", "/off?2", &[]);
    assert!(within(PATIENCE, || server(&larder, &origin)["waiting"] == 1), "{}", larder.stats());
    leaving.reset();
    assert!(within(PATIENCE, || server(&larder, &origin)["waiting"] == 0), "{}", larder.stats());
    let third = client(&larder, "/off?3".to_owned());
    assert!(within(PATIENCE, || server(&larder, &origin)["waiting"] == 1), "{}", larder.stats());
    gate.open();
    assert_eq!(first.join().unwrap().text(), "/off?1");
    assert_eq!(third.join().unwrap().text(), "/off?3");
    assert_eq!(origin.count("/off?2"), 0);
    agrees(&larder, 3, 0, 1);
}

#[test]
fn a_pass_whose_client_leaves_lets_go_of_the_origin() {
    let origin = Origin::start(|_| Script::new().stall());
    let larder = Larder::start(&config(&[origin.addr()], "", ""));
    let mut connection = Connection::open(larder.proxy());
    connection.write_head("GET", "/off", &[]);
    origin.wait_for_requests(1);
    connection.reset();
    origin.wait_for_open_connections(0);
    agrees(&larder, 1, 0, 1);
}

#[test]
fn a_client_that_reads_nothing_does_not_hold_a_connection_beyond_total() {
    let origin = Origin::start(|request| match request.target.as_str() {
        // More than all the buffers on its way.
        "/off?large" => Script::new().head(200, &[]).repeat([b'x'; 64 * 1024], 4096),
        _ => Script::ok("small", &[]),
    });
    let upstream = "pool = { max_connections = 1 }\ntimeout = { total = \"500ms\" }";
    let larder = Larder::start(&config(&[origin.addr()], upstream, ""));
    let mut stalled = Connection::open(larder.proxy());
    stalled.write_head("GET", "/off?large", &[]);
    let mut response = stalled.response_head("GET");
    assert_eq!(response.status, 200);
    origin.wait_for_open_connections(0);
    assert_eq!(larder.get("/off?small", &[]).text(), "small");
    assert!(origin.bytes_sent() < 4096 * 64 * 1024, "all of it fitted somewhere");
    stalled.finish(&mut response);
    assert!(!response.complete, "cut off, not ended");
    agrees(&larder, 1, 1, 0);
}

#[test]
fn what_is_stored_stands_in_for_an_origin_that_fails() {
    for (what, failure) in [
        ("a 503", Script::respond(503, &[], "down")),
        ("a 500", Script::respond(500, &[], "down")),
        ("a hang-up", Script::new().close()),
        ("silence", Script::new().stall()),
        ("garbage", Script::new().bytes("garbage\r\n\r\n").close()),
    ] {
        // Stale as it arrives, so that no test waits for it to become so.
        let origin = Origin::start(move |request| match request.count {
            1 => Script::ok("good", &[("Cache-Control", "max-age=60"), ("Age", "100")]),
            _ => failure.clone(),
        });
        let larder = Larder::start(&config(&[origin.addr()], "timeout = { first_byte = \"200ms\" }", ""));
        assert_eq!(larder.get("/cached", &[]).text(), "good");
        let stale = larder.get("/cached", &[]);
        assert_eq!((stale.status, stale.text().as_str()), (200, "good"), "{what}");
        assert_eq!(stale.header("x-cache"), "STALE", "{what}");
        origin.stop();
        assert_eq!(larder.get("/cached", &[]).text(), "good", "{what}, and nobody there at all");
        agrees(&larder, 3, 0, 0);
    }
}

#[test]
fn a_client_whose_head_does_not_come_is_closed() {
    let origin = Origin::ok("x", &[]);
    let larder = Larder::start(&config(
        &[origin.addr()],
        "",
        "[limits]\nheader_time = \"300ms\"\nfirst_byte_time = \"300ms\"",
    ));
    let rows: &[(&str, &[u8])] = &[
        ("nothing", b""),
        ("the first letter", b"P"),
        ("the first letters of either protocol", b"PR"),
        ("half a request line", b"GET /off HT"),
        ("half a head", b"GET /off HTTP/1.1\r\nHost: a\r\nX-A:"),
        ("half a preface", b"PRI * HTTP/2.0\r\n"),
    ];
    let mut connections: Vec<_> = rows
        .iter()
        .map(|(what, bytes)| {
            let mut connection = Connection::open(larder.proxy());
            connection.write(bytes);
            (what, connection)
        })
        .collect();
    for (what, connection) in &mut connections {
        let end = connection.try_response("GET");
        assert!(end.is_err() || end.is_ok_and(|response| response.status == 408), "{what}");
        assert!(connection.closes(), "{what}");
    }
    assert!(within(PATIENCE, || larder.stats()["connections"] == 0), "{}", larder.stats());
    assert_eq!(origin.requests().len(), 0);
}

#[test]
fn a_kept_connection_that_is_not_used_is_closed() {
    let origin = Origin::ok("x", &[]);
    let larder = Larder::start(&config(&[origin.addr()], "", "[limits]\nidle_time = \"300ms\""));
    let mut connection = Connection::open(larder.proxy());
    assert_eq!(connection.request("GET", "/off", &[], b"").status, 200);
    assert!(connection.closes());
}

#[test]
fn a_slow_answer_is_no_slow_head() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| Script::new().wait(&held).then_ok(b"late", &[]));
    let larder = Larder::start(&config(
        &[origin.addr()],
        "",
        "[limits]\nfirst_byte_time = \"100ms\"\nheader_time = \"100ms\"\nidle_time = \"100ms\"",
    ));
    let waiting = client(&larder, "/off".to_owned());
    gate.wait_for_arrivals(1);
    // Another connection runs into the limit meanwhile: three times, for good measure.
    for _ in 0..3 {
        assert!(Connection::open(larder.proxy()).closes());
    }
    gate.open();
    assert_eq!(waiting.join().unwrap().text(), "late");
}

#[test]
fn heads_beyond_the_limits_are_refused() {
    let origin = Origin::ok("x", &[]);
    let larder = Larder::start(&config(&[origin.addr()], "", "[limits]\nhead_size = \"16KiB\"\nfields = 20"));
    let long = "x".repeat(20_000);
    let many: Vec<(String, &str)> = (0..30).map(|n| (format!("X-{n}"), "1")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    for headers in [&[("X-Long", long.as_str())][..], &many] {
        let response = larder.get("/off", headers);
        assert_eq!(response.status, 431);
    }
    assert_eq!(origin.requests().len(), 0);
    let fits = "x".repeat(10_000);
    assert_eq!(larder.get("/off", &[("X-Long", &fits)]).status, 200);
}

#[test]
fn stats_agree_with_what_was_done() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |request| match request.target.as_str() {
        "/cached/held" => Script::new().wait(&held).then_ok(b"held", STORABLE),
        "/cached/error" => Script::respond(500, &[], "error"),
        "/cached/absent" => Script::respond(404, &[("Cache-Control", "no-store")], "absent"),
        "/cached/half" => Script::chunked(STORABLE).chunk("half").close(),
        _ => Script::ok("x", STORABLE),
    });
    let larder = Larder::start(&config(&[origin.addr()], "", ""));
    for _ in 0..4 {
        assert_eq!(larder.get("/cached", &[]).status, 200);
    }
    assert_eq!(larder.get("/cached/error", &[]).status, 500);
    assert_eq!(larder.get("/cached/absent", &[]).status, 404);
    // Cut off, before or after its head has left.
    let mut cut = Connection::open(larder.proxy());
    cut.write_head("GET", "/cached/half", &[]);
    assert!(!cut.try_response("GET").is_ok_and(|response| response.complete));
    assert_eq!(larder.get("/elsewhere", &[]).status, 404);
    assert_eq!(request(larder.proxy(), "POST", "/off", &[], b"x").status, 200);
    let mut leaving = Connection::open(larder.proxy());
    leaving.write_head("GET", "/cached/held", &[]);
    gate.wait_for_arrivals(1);
    let staying = client(&larder, "/cached/held".to_owned());
    assert!(within(PATIENCE, || larder.stats()["active"] == 2), "{}", larder.stats());
    leaving.reset();
    assert!(within(PATIENCE, || larder.stats()["active"] == 1), "{}", larder.stats());
    let stats = larder.stats();
    let seen = ["total", "completed", "failed", "client_closed"].map(|key| stats[key].as_u64().unwrap());
    assert_eq!(seen, [11, 8, 2, 1], "{stats}");
    gate.open();
    assert_eq!(staying.join().unwrap().text(), "held");
    agrees(&larder, 9, 2, 1);
    let stats = larder.stats();
    let route = &stats["routes"]["all"];
    assert_eq!(route["hits"]["memory"], 3, "{route}");
    assert_eq!(route["requests"], 9, "{route}");
    assert_eq!(route["failed"], 2, "{route}");
    assert_eq!(route["origin_fetches"], 5, "{route}");
    assert_eq!(stats["routes"]["off"]["bypass"], 1);
    assert!((stats["success_rate"].as_f64().unwrap() - 9.0 / 11.0).abs() < 1e-9);
    assert_eq!(larder.metric("larder_requests_active").unwrap_or(0.0), 0.0);
}

fn config(servers: &[SocketAddr], upstream: &str, top: &str) -> String {
    let servers: Vec<_> = servers.iter().map(|addr| format!("\"http://{addr}\"")).collect();
    format!(
        r#"
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
workers = 2
{top}
[upstream.api]
servers = [{}]
{upstream}
[[route]]
name = "off"
upstream = "api"
match = {{ path = "/off" }}
cache = false
[[route]]
name = "all"
upstream = "api"
match = {{ regex = "^/cached" }}
[route.cache]
ttl.default = "60s"
stale_if_error = "10m"
"#,
        servers.join(", ")
    )
}

fn client(larder: &Larder, path: String) -> JoinHandle<Response> {
    let addr = larder.proxy();
    std::thread::spawn(move || get(addr, &path, &[]))
}

/// An answer of Larder's own, whole, that names its cause.
fn is_failure(response: &Response, status: u16, cause: &str) {
    assert_eq!((response.status, response.complete), (status, true), "{}", response.text());
    assert_eq!(response.header("content-type"), "application/json");
    let json = response.json();
    assert_eq!(json["cause"], cause, "{json}");
    assert!(json["message"].as_str().is_some_and(|text| text.len() > 20), "{json}");
}

/// What `/stats` comes to when everyone has been answered.
fn agrees(larder: &Larder, completed: u64, failed: u64, client_closed: u64) {
    let keys = ["active", "total", "completed", "failed", "client_closed"];
    let wanted = [0, completed + failed, completed, failed, client_closed];
    let seen = || {
        let stats = larder.stats();
        keys.map(|key| stats[key].as_u64().unwrap())
    };
    // A client has its last byte a moment before its request is counted as over.
    assert!(within(PATIENCE, || seen() == wanted), "{keys:?}: {:?} in place of {wanted:?}", seen());
}

fn server(larder: &Larder, origin: &Origin) -> serde_json::Value {
    larder.stats()["upstreams"]["api"][origin.addr().to_string()].clone()
}

fn wait_for_idle(larder: &Larder, origin: &Origin, count: u64) {
    assert!(within(PATIENCE, || server(larder, origin)["idle"] == count), "{}", larder.stats());
}

#[test]
fn a_failure_of_the_origin_is_told_in_the_log_with_its_address() {
    let nobody = support::unused_address();
    let larder = Larder::start(&config(&[nobody], "", ""));
    assert_eq!(larder.get("/cached", &[]).status, 502);
    let line = larder.err.wait_for_line(|line| line.contains("connect-failed"), PATIENCE);
    assert!(line.contains(&nobody.to_string()) && line.contains("\"level\":\"warn\""), "{line}");
}

#[test]
fn an_error_that_leaves_a_body_unread_says_that_the_connection_ends() {
    let larder = Larder::start(&format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n[upstream.o]\nservers = [\"http://{}\"]\n\
         [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"o\"\n",
        support::unused_address()
    ));
    let mut connection = Connection::open(larder.proxy());
    connection.write_head("POST", "/", &[("Content-Length", "1000000")]);
    let response = connection.response("POST");
    assert!(response.status == 502 && response.headers.lists("connection", "close"), "{response:?}");
    // Without a body there is nothing left, and the connection stays.
    let mut connection = Connection::open(larder.proxy());
    for _ in 0..2 {
        let response = connection.request("POST", "/", &[], b"");
        assert!(response.status == 502 && !response.headers.lists("connection", "close"), "{response:?}");
    }
}
