//! What a proxy owes to both sides: fields of the connection stay on it, names are added, bodies
//! and upgrades pass, and malformed requests go no further.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::process::Command;

use support::wire::{self, Framing};
use support::{Connection, Gate, Larder, Origin, PATIENCE, Request, Script, send, within};

const STORABLE: &[(&str, &str)] = &[("Cache-Control", "max-age=60")];

#[test]
fn fields_of_the_clients_connection_do_not_reach_the_origin() {
    let (origin, larder) = echo_fields();
    for path in ["/cached", "/off"] {
        larder.get(
            path,
            &[
                ("Connection", "keep-alive, X-Mine, x-other"),
                ("X-Mine", "1"),
                ("X-Other", "2"),
                ("X-Kept", "3"),
                ("Keep-Alive", "timeout=5"),
                ("Proxy-Connection", "keep-alive"),
                ("Proxy-Authorization", "Basic eDp5"),
                ("TE", "trailers, gzip"),
                ("Upgrade", "h2c"),
            ],
        );
        let request = last_for(&origin, path);
        for name in ["x-mine", "x-other", "keep-alive", "proxy-connection", "proxy-authorization", "upgrade"]
        {
            assert_eq!(request.headers.get(name), None, "{path}: {name}");
        }
        assert!(!request.headers.lists("te", "gzip"), "{path}");
        assert!(!request.headers.lists("connection", "x-mine"), "{path}");
        assert_eq!(request.header("x-kept"), "3", "{path}");
    }
}

#[test]
fn fields_of_the_origins_connection_do_not_reach_the_client() {
    let origin = Origin::ok(
        "x",
        &[
            ("Connection", "X-Mine, keep-alive"),
            ("X-Mine", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "keep-alive"),
            ("Proxy-Authenticate", "Basic"),
            ("X-Kept", "3"),
            ("Cache-Control", "max-age=60"),
        ],
    );
    let larder = Larder::start(&config(&origin, ""));
    for (path, cache) in [("/cached", "MISS"), ("/cached", "HIT"), ("/off", "BYPASS")] {
        let response = larder.get(path, &[]);
        assert_eq!(response.header("x-cache"), cache);
        for name in ["x-mine", "keep-alive", "proxy-connection", "proxy-authenticate"] {
            assert_eq!(response.headers.get(name), None, "{path}, {cache}: {name}");
        }
        assert_eq!(response.header("x-kept"), "3");
    }
}

#[test]
fn fields_that_the_connection_may_not_name_are_kept() {
    let (origin, larder) = echo_fields();
    larder.get(
        "/off",
        &[("Connection", "Authorization, Cookie, close"), ("Authorization", "a"), ("Cookie", "b")],
    );
    let request = origin.last();
    assert_eq!((request.header("authorization"), request.header("cookie")), ("a", "b"));
}

#[test]
fn via_is_added_both_ways_after_what_is_there() {
    let origin = Origin::ok("x", &[("Via", "1.0 behind"), ("Cache-Control", "max-age=60")]);
    let larder = Larder::start(&config(&origin, ""));
    for (path, cache) in [("/cached", "MISS"), ("/cached", "HIT"), ("/off", "BYPASS")] {
        let response = larder.get(path, &[("Via", "1.1 before")]);
        assert_eq!(response.header("x-cache"), cache);
        let via: Vec<_> = response.headers.all("via").collect();
        assert_eq!((via.len(), via[0]), (2, "1.0 behind"), "{via:?}");
        assert!(via[1].starts_with("1.1 larder-"), "{via:?}");
        if cache != "HIT" {
            let sent = origin.last();
            let sent: Vec<_> = sent.headers.all("via").collect();
            assert_eq!(sent, ["1.1 before", via[1]]);
        }
    }
}

#[test]
fn an_upstream_that_leads_back_to_larder_is_a_loop() {
    // `larder check` refuses its own address as an upstream, so the way back leads over another.
    let own = support::unused_address();
    let other = Larder::start(&config_to(&format!("http://{own}"), ""));
    let text = config_to(&format!("http://{}", other.proxy()), "");
    let larder = Larder::start(&text.replacen("127.0.0.1:0", &own.to_string(), 1));
    for path in ["/cached", "/off"] {
        for _ in 0..2 {
            let response = larder.get(path, &[]);
            assert_eq!((response.status, response.complete), (508, true), "{path}");
            assert_eq!(response.json()["cause"], "loop");
        }
    }
}

#[test]
fn two_larders_in_a_row_are_no_loop() {
    let origin = Origin::ok("through both", STORABLE);
    let inner = Larder::start(&config(&origin, ""));
    let outer = Larder::start(&config_to(&format!("http://{}", inner.proxy()), ""));
    let response = outer.get("/cached", &[]);
    assert_eq!((response.status, response.text().as_str()), (200, "through both"));
    assert_eq!(response.headers.all("via").count(), 2);
    let hit = outer.get("/cached", &[]);
    let members: Vec<_> = hit.headers.all("cache-status").collect();
    assert_eq!(members.len(), 2, "{members:?}");
    assert!(members[1].starts_with("larder; hit"), "the one closest to the client comes last: {members:?}");
}

#[test]
fn a_strangers_word_about_itself_is_replaced() {
    let (origin, larder) = echo_fields();
    let lies = [
        ("X-Forwarded-For", "10.9.9.9"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil.test"),
        ("X-Real-IP", "10.9.9.9"),
        ("Forwarded", "for=10.9.9.9"),
        ("Host", "api.test:8080"),
    ];
    for path in ["/cached", "/off"] {
        larder.get(path, &lies);
        let request = last_for(&origin, path);
        assert_eq!(request.headers.all("x-forwarded-for").collect::<Vec<_>>(), ["127.0.0.1"]);
        assert_eq!(request.header("x-forwarded-proto"), "http");
        assert_eq!(request.header("x-forwarded-host"), "api.test:8080");
        assert_eq!(request.headers.all("x-real-ip").collect::<Vec<_>>(), ["127.0.0.1"]);
        assert_eq!(request.headers.get("forwarded"), None);
        assert_eq!(request.headers.all("host").collect::<Vec<_>>(), ["api.test:8080"], "Host is passed on");
    }
}

#[test]
fn a_trusted_proxys_word_is_kept_and_added_to() {
    let origin = Origin::ok("x", &[]);
    let larder = Larder::start(&config(&origin, "trusted_proxies = [\"127.0.0.0/8\"]"));
    larder.get(
        "/off",
        &[
            ("X-Forwarded-For", "198.51.100.1"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "public.test"),
            ("Forwarded", "for=198.51.100.1"),
        ],
    );
    let request = origin.last();
    assert_eq!(request.headers.all("x-forwarded-for").collect::<Vec<_>>(), ["198.51.100.1, 127.0.0.1"]);
    assert_eq!(request.header("x-forwarded-proto"), "https");
    assert_eq!(request.header("x-forwarded-host"), "public.test");
    let forwarded: Vec<_> = request.headers.all("forwarded").collect();
    assert_eq!(forwarded, ["for=198.51.100.1", "for=127.0.0.1"]);
    assert_eq!(request.header("x-real-ip"), "198.51.100.1");
}

#[test]
fn target_and_query_reach_the_origin_as_they_came() {
    let (origin, larder) = echo_fields();
    for target in ["/off?b=2&a=1&utm_source=x", "/off?", "/off?a=%2F%2f&b=+", "/cached/%7Euser/a%20b?x=1&x=1"]
    {
        larder.get(target, &[]);
        assert_eq!(origin.last().target, target);
    }
}

#[test]
fn a_client_that_expects_to_be_told_is_told_and_then_answered() {
    let (origin, larder) = echo_body();
    let mut connection = Connection::open(larder.proxy());
    connection.write_head("POST", "/post", &[("Content-Length", "5"), ("Expect", "100-continue")]);
    assert_eq!(connection.interim(), 100);
    connection.write(b"hello");
    let response = connection.response("POST");
    assert_eq!((response.status, response.text().as_str()), (200, "hello"));
    assert_eq!(origin.last().body, b"hello");
    // The same connection goes on.
    assert_eq!(connection.request("POST", "/post", &[], b"again").text(), "again");
}

#[test]
fn an_origin_that_refuses_the_body_early_is_heard() {
    let origin = Origin::early(|_| Script::respond(413, &[("Connection", "close")], "too large"));
    let larder = Larder::start(&config(&origin, ""));
    let mut connection = Connection::open(larder.proxy());
    connection.write_head("POST", "/post", &[("Content-Length", "10000000")]);
    // Enough for Larder to have something to forward, not enough to be a whole request.
    connection.write(&[b'x'; 1000]);
    let response = connection.response("POST");
    assert_eq!((response.status, response.text().as_str()), (413, "too large"));
}

#[test]
fn request_bodies_arrive_with_length_and_chunked() {
    let (origin, larder) = echo_body();
    let body: Vec<u8> = (0..100_000_u32).flat_map(u32::to_be_bytes).collect();
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let response = support::client::request(larder.proxy(), method, "/post", &[], &body);
        assert_eq!((response.status, response.body == body), (200, true), "{method}");
        let request = origin.last();
        assert_eq!(request.method, method);
        assert_eq!(request.header("content-length"), body.len().to_string());
    }
    let mut bytes = b"POST /post HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for piece in body.chunks(3000) {
        bytes.extend_from_slice(&wire::chunk(piece));
    }
    bytes.extend_from_slice(wire::LAST_CHUNK);
    assert!(send(larder.proxy(), &bytes).body == body);
    let request = origin.last();
    assert!(request.headers.lists("transfer-encoding", "chunked"));
    assert_eq!(request.headers.get("content-length"), None);
}

#[test]
fn a_request_body_streams_to_the_origin_as_it_comes() {
    // The origin answers when it has the head, and goes on reading: only a body that streams gets
    // an answer before its end.
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::early(move |_| Script::new().wait(&held).then(Script::ok("early", &[])));
    let larder = Larder::start(&config(&origin, ""));
    let mut connection = Connection::open(larder.proxy());
    connection.write_head("POST", "/post", &[("Transfer-Encoding", "chunked")]);
    connection.write(&wire::chunk(b"first"));
    gate.wait_for_arrivals(1);
    gate.open();
    assert_eq!(connection.response_head("POST").status, 200);
}

#[test]
fn an_upload_that_breaks_off_is_no_whole_request_for_the_origin() {
    for head in ["Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n", "Content-Length: 100\r\n\r\nfirst"] {
        let (origin, larder) = echo_body();
        let mut connection = Connection::open(larder.proxy());
        connection.write(format!("POST /post HTTP/1.1\r\nHost: a\r\n{head}").as_bytes());
        origin.wait_for_open_connections(1);
        connection.reset();
        origin.wait_for_open_connections(0);
        assert_eq!(origin.requests().len(), 0, "{head}");
        assert!(within(PATIENCE, || larder.stats()["active"] == 0), "{}", larder.stats());
    }
}

#[test]
fn the_trailers_of_a_request_go_no_further() {
    let (origin, larder) = echo_body();
    let response = send(
        larder.proxy(),
        b"POST /post HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
          2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n",
    );
    assert_eq!(response.text(), "hi");
    assert_eq!(origin.last().trailers.get("x-sum"), None);
    assert_eq!(origin.last().headers.get("trailer"), None);
}

#[test]
fn trailers_pass_to_a_client_that_takes_them() {
    let origin = Origin::start(|request| {
        let cache = if request.target == "/cached" { "max-age=60" } else { "no-store" };
        Script::chunked(&[("Trailer", "X-Sum"), ("Cache-Control", cache)])
            .chunk("hi")
            .trailers(&[("X-Sum", "7")])
    });
    let larder = Larder::start(&config(&origin, ""));
    for path in ["/off", "/uncacheable", "/cached"] {
        let response = larder.get(path, &[("TE", "trailers"), ("Connection", "TE")]);
        assert_eq!((response.text().as_str(), response.complete), ("hi", true), "{path}");
        assert_eq!(response.trailers.get("x-sum"), Some("7"), "{path}: {:?}", response.headers);
    }
    let without = larder.get("/off", &[]);
    assert_eq!((without.text().as_str(), without.complete), ("hi", true));
    let stored = larder.get("/cached", &[("TE", "trailers")]);
    assert_eq!((stored.header("x-cache"), stored.text().as_str(), stored.complete), ("HIT", "hi", true));
    assert_eq!(stored.headers.get("trailer"), None, "a trailer section is not stored, so none is announced");
}

#[test]
fn an_upgrade_becomes_a_tunnel_both_ways() {
    let origin = Origin::start(|_| {
        Script::new()
            .head(
                101,
                &[
                    ("Connection", "Upgrade"),
                    ("Upgrade", "websocket"),
                    ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9k"),
                ],
            )
            .bytes("hello")
            .echo()
    });
    let larder = Larder::start(&config(&origin, ""));
    for path in ["/off", "/cached"] {
        let mut connection = Connection::open(larder.proxy());
        connection.write_head(
            "GET",
            path,
            &[
                ("Connection", "keep-alive, Upgrade"),
                ("Upgrade", "websocket"),
                ("Sec-WebSocket-Key", "dGhlIHNhbXBsZQ=="),
                ("Sec-WebSocket-Version", "13"),
            ],
        );
        let response = connection.response_head("GET");
        assert_eq!(response.status, 101, "{path}");
        assert_eq!(response.header("upgrade").to_ascii_lowercase(), "websocket");
        assert!(response.headers.lists("connection", "upgrade"), "{:?}", response.headers);
        assert_eq!(response.header("sec-websocket-accept"), "s3pPLMBiTxaQ9k");
        assert_eq!(connection.read_some(5), b"hello", "the origin speaks first");
        for message in [&b"ping"[..], &[0xff; 100_000]] {
            connection.write(message);
            assert_eq!(connection.read_some(message.len()), message);
        }
        let request = last_for(&origin, path);
        assert!(request.headers.lists("connection", "upgrade"));
        assert_eq!(request.header("upgrade"), "websocket");
        assert_eq!(request.header("sec-websocket-key"), "dGhlIHNhbXBsZQ==");
        connection.end_writing();
        assert!(connection.closes(), "{path}");
    }
}

#[test]
fn an_upgrade_goes_no_further_where_the_route_does_not_ask_for_it() {
    let origin = Origin::start(|request| match request.headers.get("upgrade") {
        Some(_) => Script::new().head(101, &[("Connection", "Upgrade"), ("Upgrade", "websocket")]).echo(),
        None => Script::ok("plain", &[]),
    });
    let larder = Larder::start(&config(&origin, ""));
    let mut connection = Connection::open(larder.proxy());
    let ask = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    assert_eq!(connection.request("GET", "/plain", &ask, b"").text(), "plain");
    assert_eq!(connection.request("GET", "/plain", &[], b"").text(), "plain", "the connection goes on");
}

#[test]
fn an_upgrade_that_the_origin_declines_is_an_ordinary_answer() {
    let (origin, larder) = echo_fields();
    let mut connection = Connection::open(larder.proxy());
    let ask = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    assert_eq!(connection.request("GET", "/cached", &ask, b"").status, 200);
    assert_eq!(connection.request("GET", "/off", &[], b"").status, 200, "the connection goes on");
    assert_eq!(origin.last().headers.get("upgrade"), None);
}

#[test]
fn a_protocol_that_nobody_asked_for_is_a_bad_gateway() {
    let origin =
        Origin::start(|_| Script::new().head(101, &[("Connection", "Upgrade"), ("Upgrade", "x")]).echo());
    let larder = Larder::start(&config(&origin, ""));
    for path in ["/off", "/cached"] {
        assert_eq!(larder.get(path, &[]).status, 502, "{path}");
    }
}

#[test]
fn another_protocol_than_was_asked_for_is_a_bad_gateway() {
    let origin = Origin::start(|request| {
        let said = request.header("x-said").to_owned();
        let fields = [("Connection", "Upgrade"), ("Upgrade", said.as_str())];
        Script::new().head(101, &fields[..if said.is_empty() { 1 } else { 2 }]).echo()
    });
    let larder = Larder::start(&config(&origin, ""));
    let ask = |said: &str| {
        let mut connection = Connection::open(larder.proxy());
        let fields = [("Connection", "Upgrade"), ("Upgrade", "websocket, a/1"), ("X-Said", said)];
        connection.write_head("GET", "/off", &fields);
        connection.response_head("GET").status
    };
    // RFC 9110 §7.8: the server says to which of those it switches.
    for said in ["h2c", "websocket, h2c", "a/2", ""] {
        assert_eq!(ask(said), 502, "{said:?}");
    }
    for said in ["websocket", "WebSocket", "A/1"] {
        assert_eq!(ask(said), 101, "{said:?}");
    }
}

#[test]
fn an_http_1_0_client_gets_what_it_understands() {
    let gate = Gate::new();
    gate.open();
    let origin = Origin::start(move |request| match request.target.as_str() {
        "/length" => Script::ok("hello", STORABLE),
        _ => Script::chunked(STORABLE).chunk("hel").chunk("lo").last_chunk(),
    });
    let larder = Larder::start(&config(&origin, ""));
    for path in ["/length", "/chunked"] {
        for _ in 0..2 {
            let mut connection = Connection::open(larder.proxy());
            connection.write(format!("GET {path} HTTP/1.0\r\nHost: a\r\n\r\n").as_bytes());
            let response = connection.response("GET");
            assert_eq!((response.status, response.text().as_str(), response.complete), (200, "hello", true));
            assert_eq!(response.headers.get("transfer-encoding"), None);
            assert!(connection.closes());
        }
        assert_eq!(origin.count(path), 1);
    }
    assert!(origin.last().header("via").starts_with("1.0 larder-"), "{:?}", origin.last().headers);
    let mut connection = Connection::open(larder.proxy());
    for _ in 0..2 {
        connection.write(b"GET /length HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
        let response = connection.response("GET");
        assert_eq!((response.text().as_str(), response.header("connection")), ("hello", "keep-alive"));
    }
}

#[test]
fn http_2_with_prior_knowledge() {
    let (origin, larder) = echo_body();
    let url = |path: &str| format!("http://{}{path}", larder.proxy());
    let (status, body) = curl(&["--http2-prior-knowledge", &url("/post"), "-d", "a body"]);
    assert_eq!((status.as_str(), body.as_str()), ("2 200", "a body"));
    let request = origin.last();
    assert_eq!(request.header("host"), larder.proxy().to_string());
    assert!(request.header("via").starts_with("2 larder-"), "{:?}", request.headers);
    assert_eq!(request.header("content-length"), "6");

    for cache in ["MISS", "HIT"] {
        let (_, head) = curl(&["--http2-prior-knowledge", "-I", "-X", "GET", &url("/cached")]);
        assert!(head.contains(&format!("x-cache: {cache}")), "{head}");
    }
    assert_eq!(larder.get("/cached", &[]).header("x-cache"), "HIT", "one cache for both");
    let (status, _) = curl(&["--http2-prior-knowledge", "-I", &url("/cached")]);
    assert_eq!(status, "2 200");
}

#[test]
fn http_2_sends_large_bodies_both_ways() {
    let (_origin, larder) = echo_body();
    let file = larder.directory().join("body");
    let body = "0123456789abcdef".repeat(200_000);
    std::fs::write(&file, &body).unwrap();
    let upload = format!("@{}", file.display());
    let url = format!("http://{}/post", larder.proxy());
    let (status, answer) =
        curl(&["--http2-prior-knowledge", "--data-binary", &upload, "-H", "Expect:", &url]);
    assert_eq!(status, "2 200");
    assert!(answer == body, "{} bytes came back of {}", answer.len(), body.len());
}

#[test]
fn http_2_sees_a_broken_body_as_broken() {
    let origin = Origin::start(|_| Script::chunked(STORABLE).chunk("half").close());
    let larder = Larder::start(&config(&origin, ""));
    let url = format!("http://{}/cached", larder.proxy());
    let output = Command::new("curl").args(["-sS", "--http2-prior-knowledge", &url]).output().unwrap();
    assert!(!output.status.success());
    assert!(within(PATIENCE, || larder.stats()["failed"] == 1), "{}", larder.stats());
}

#[test]
fn a_client_that_offers_h2c_is_answered_in_http_1_from_the_cache() {
    let (origin, larder) = echo_body();
    let url = format!("http://{}/cached", larder.proxy());
    for _ in 0..2 {
        let (status, _) = curl(&["--http2", &url]);
        assert_eq!(status, "1.1 200");
    }
    assert_eq!(origin.count("/cached"), 1);
    assert_eq!(curl(&["--http2", &format!("http://{}/off", larder.proxy())]).0, "1.1 200");
    for request in origin.requests() {
        assert_eq!(request.headers.get("upgrade"), None, "an origin that accepts would be out of sight");
        assert_eq!(request.headers.get("http2-settings"), None);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let origin = Origin::start(|request| Script::ok(&request.target, STORABLE));
    let larder = Larder::start(&config(&origin, ""));
    let mut connection = Connection::open(larder.proxy());
    let paths: Vec<String> = (0..20).map(|n| format!("/cached/{}", n % 10)).collect();
    let requests: String = paths.iter().map(|p| format!("GET {p} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    connection.write(requests.as_bytes());
    for path in &paths {
        assert_eq!(&connection.response("GET").text(), path);
    }
    assert_eq!(origin.requests().len(), 10);
}

#[test]
fn a_pipelined_request_behind_a_body_is_not_part_of_it() {
    let (origin, larder) = echo_body();
    let mut connection = Connection::open(larder.proxy());
    connection.write(
        b"POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\noneGET /cached HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert_eq!(connection.response("POST").text(), "one");
    assert_eq!(connection.response("GET").status, 200);
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn a_kept_connection_serves_every_kind_of_answer() {
    let (_origin, larder) = echo_body();
    let mut connection = Connection::open(larder.proxy());
    for (method, path, status) in [
        ("GET", "/cached", 200),
        ("HEAD", "/cached", 200),
        ("GET", "/cached", 200),
        ("POST", "/post", 200),
        ("HEAD", "/off", 200),
        ("GET", "/nowhere", 404),
        ("GET", "/off", 200),
    ] {
        let response = connection.request(method, path, &[], b"");
        assert_eq!((response.status, response.complete), (status, true), "{method} {path}");
    }
    connection.write_head("GET", "/cached", &[("Connection", "close")]);
    let last = connection.response("GET");
    assert!(last.headers.lists("connection", "close"));
    assert!(connection.closes());
}

#[test]
fn the_authority_of_an_absolute_target_is_the_host() {
    let (origin, larder) = echo_fields();
    let response =
        send(larder.proxy(), b"GET http://real.test/off?x=1 HTTP/1.1\r\nHost: Real.test:80\r\n\r\n");
    assert_eq!(response.status, 200);
    let request = origin.last();
    assert_eq!((request.target.as_str(), request.header("host")), ("/off?x=1", "real.test"));
    // The same resource by either form.
    send(larder.proxy(), b"GET http://real.test/cached HTTP/1.1\r\nHost: real.test\r\n\r\n");
    assert_eq!(
        send(larder.proxy(), b"GET /cached HTTP/1.1\r\nHost: real.test\r\n\r\n").header("x-cache"),
        "HIT"
    );
    assert_eq!(
        send(larder.proxy(), b"GET /cached HTTP/1.1\r\nHost: other.test\r\n\r\n").header("x-cache"),
        "MISS"
    );
}

#[test]
fn requests_that_are_none_go_no_further() {
    let (origin, larder) = echo_fields();
    let rows: &[(&str, &str, u16)] = &[
        ("no Host", "GET /off HTTP/1.1\r\n\r\n", 400),
        ("two Hosts", "GET /off HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("the same Host twice", "GET /off HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("an empty Host", "GET /off HTTP/1.1\r\nHost:\r\n\r\n", 400),
        ("a Host that is none", "GET /off HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("userinfo in Host", "GET /off HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        ("CONNECT", "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n", 405),
        ("garbage", "what is this\r\n\r\n", 400),
        (
            "two lengths",
            "POST /off HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
            400,
        ),
        ("a length that is none", "POST /off HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx", 400),
        ("a space before the colon", "GET /off HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        ("a folded line", "GET /off HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n", 400),
        (
            "an encoding that ends in something else",
            "POST /off HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
            400,
        ),
    ];
    for (what, request, status) in rows {
        let response = send(larder.proxy(), request.as_bytes());
        assert_eq!(response.status, *status, "{what}");
        if *status == 405 {
            assert!(!response.header("allow").is_empty());
        }
    }
    assert_eq!(origin.requests().len(), 0, "{:?}", origin.requests());
}

#[test]
fn whatever_can_be_read_in_two_ways_is_refused_and_nothing_after_it_is_read() {
    let (origin, larder) = echo_body();
    let heads: &[(&str, u16)] = &[
        (
            "POST /off HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "POST /off HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("POST /off HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST /off HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", 400),
        (
            "POST /off HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("POST /off HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        ("POST /off HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n", 400),
        ("POST /off HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", 400),
        ("GET /off HTTP/1.1\nHost: a\n\n", 400),
        ("GET /off HTTP/1.1\r\nHost: a\r\nX: y\nZ: z\r\n\r\n", 400),
        ("GET /off#x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /off?\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http://b/off HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET ftp://a/off HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /off HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", 417),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 405),
        ("TRACE /off HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    ];
    for (head, status) in heads {
        let mut connection = Connection::open(larder.proxy());
        connection.write(format!("{head}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let response = connection.response("GET");
        assert_eq!(response.status, *status, "{head}");
        assert!(response.headers.lists("connection", "close") && connection.closes(), "{head}");
    }
    assert_eq!(origin.requests().len(), 0, "{:?}", origin.requests());
}

#[test]
fn a_chunked_body_that_is_none_is_cut_off() {
    let (origin, larder) = echo_body();
    for body in ["8000000000000000\r\nx", "1;\0\r\nx\r\n0\r\n\r\n", "1\r\nx\r\n0\r\n\n"] {
        let mut connection = Connection::open(larder.proxy());
        connection.write(b"POST /post HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        connection.write(body.as_bytes());
        connection.write(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(connection.response("POST").status, 400, "{body:?}");
        assert!(connection.closes(), "{body:?}");
    }
    origin.wait_for_open_connections(0);
    assert_eq!(origin.requests().len(), 0, "{:?}", origin.requests());
}

#[test]
fn options_that_go_no_further_are_answered_here() {
    let (origin, larder) = echo_fields();
    for request in [
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS /off HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n",
    ] {
        let response = send(larder.proxy(), request.as_bytes());
        assert_eq!((response.status, response.header("allow").is_empty()), (204, false), "{request}");
    }
    assert_eq!(origin.requests().len(), 0);
    let further = b"OPTIONS /off HTTP/1.1\r\nHost: a\r\nMax-Forwards: 5\r\n\r\n";
    assert_eq!(send(larder.proxy(), further).status, 200);
    assert_eq!(origin.last().header("max-forwards"), "4");
}

#[test]
fn head_is_answered_from_a_stored_get_with_its_length() {
    let (origin, larder) = echo_body();
    let length = larder.get("/cached", &[]).header("content-length").to_owned();
    let response = support::client::request(larder.proxy(), "HEAD", "/cached", &[], b"");
    assert_eq!((response.status, response.header("x-cache")), (200, "HIT"));
    assert_eq!((response.header("content-length"), response.framing), (length.as_str(), None::<Framing>));
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn route_edits_reach_both_sides_and_are_not_stored() {
    let origin = Origin::ok("x", &[("Server", "origin"), ("X-Mine", "0"), ("Cache-Control", "max-age=60")]);
    let larder = Larder::start(&config(&origin, ""));
    for _ in 0..2 {
        let response = larder.get("/edited", &[("X-Debug", "1"), ("X-Api-Version", "1")]);
        assert_eq!(response.headers.get("server"), None);
        assert_eq!(response.headers.all("x-served-by").collect::<Vec<_>>(), ["larder"]);
    }
    let request = origin.last();
    assert_eq!(request.headers.all("x-api-version").collect::<Vec<_>>(), ["2"]);
    assert_eq!(request.headers.get("x-debug"), None);
    assert_eq!(origin.requests().len(), 1);
}

fn config(origin: &Origin, top: &str) -> String {
    config_to(&origin.url(), top)
}

fn config_to(url: &str, top: &str) -> String {
    format!(
        r#"
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
workers = 2
{top}
[upstream.api]
servers = ["{url}"]
[[route]]
name = "off"
upstream = "api"
match = {{ path = "/off" }}
upgrade = true
cache = false
[[route]]
name = "plain"
upstream = "api"
match = {{ path = "/plain" }}
[[route]]
name = "edited"
upstream = "api"
match = {{ path = "/edited" }}
request_headers = {{ set = {{ "X-Api-Version" = "2" }}, remove = ["X-Debug"] }}
response_headers = {{ set = {{ "X-Served-By" = "larder" }}, remove = ["Server"] }}
[route.cache]
ttl.default = "60s"
[[route]]
name = "nowhere"
upstream = "api"
match = {{ path = "/nowhere", host = "elsewhere.test" }}
[[route]]
name = "all"
upstream = "api"
upgrade = true
match = {{ regex = "^/(cached|post|length|chunked|uncacheable)" }}
[route.cache]
ttl.default = "60s"
"#
    )
}

fn echo_fields() -> (Origin, Larder) {
    let origin = Origin::ok("x", &[]);
    let larder = Larder::start(&config(&origin, ""));
    (origin, larder)
}

fn echo_body() -> (Origin, Larder) {
    let origin = Origin::start(|request| Script::ok(&request.body, &[]));
    let larder = Larder::start(&config(&origin, ""));
    (origin, larder)
}

fn last_for(origin: &Origin, path: &str) -> Request {
    origin.requests().into_iter().rfind(|request| request.target == path).unwrap()
}

/// Runs curl; gives protocol version and status, and what it wrote.
fn curl(args: &[&str]) -> (String, String) {
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "20", "-w", "\n%{http_version} %{http_code}"])
        .args(args)
        .output()
        .expect("these tests need curl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, line) = text.rsplit_once('\n').unwrap();
    (line.to_owned(), body.to_owned())
}
