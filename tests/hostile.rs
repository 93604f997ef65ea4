//! What a hostile or sloppy client must not bring about: another's response, a poisoned cache, a
//! message that origin and proxy read differently, a server that serves nobody else.
//!
//! Each test is named for a mistake that was once made here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::net::SocketAddr;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{Connection, Gate, Larder, Origin, RedisServer, Script, get, send, wire, within};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=60");

/// One cached route for everything, with these lines at the top and these in its cache section.
fn larder(origin: &Origin, top: &str, cache: &str) -> Larder {
    let servers = origin.url();
    Larder::start(&format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nworkers = 1\n{top}\n\
         [upstream.api]\nservers = [\"{servers}\"]\n\
         [[route]]\nname = \"all\"\nupstream = \"api\"\nmatch = {{ path = \"/*\" }}\n\
         [route.cache]\n{cache}\n"
    ))
}

/// One request by HTTP/2 with prior knowledge: status, fields and body, or what went wrong.
fn http2(
    to: SocketAddr,
    request: http::Request<Empty<Bytes>>,
) -> Result<(http::response::Parts, Bytes), hyper::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(to).await.unwrap();
        let (mut send, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let (head, body) = send.send_request(request).await?.into_parts();
        Ok((head, body.collect().await?.to_bytes()))
    })
}

fn http2_get(path: &str) -> http::request::Builder {
    http::Request::get(format!("http://h2.test{path}"))
}

#[test]
fn a_field_that_connection_takes_away_from_the_origin_does_not_choose_the_stored_response() {
    let origin = Origin::start(|request| {
        let mine = request.header("x-mine");
        Script::ok(format!("<{mine}>"), &[FRESH, ("Vary", "X-Mine")])
    });
    let larder = larder(&origin, "", "");
    let dropped = [("X-Mine", "fr"), ("Connection", "x-mine")];
    assert_eq!(larder.get("/", &dropped).text(), "<>");
    assert_eq!(larder.get("/", &[("X-Mine", "fr")]).text(), "<fr>", "poisoned");
}

#[test]
fn a_field_that_connection_takes_away_is_not_part_of_the_key() {
    let origin = Origin::start(|request| Script::ok(format!("<{}>", request.header("x-tenant")), &[FRESH]));
    let larder = larder(&origin, "", "key.headers = [\"X-Tenant\"]");
    assert_eq!(larder.get("/", &[("X-Tenant", "a"), ("Connection", "x-tenant")]).text(), "<>");
    assert_eq!(larder.get("/", &[("X-Tenant", "a")]).text(), "<a>", "poisoned");
}

#[test]
fn the_chunked_body_of_a_get_reaches_the_origin() {
    let origin = Origin::start(|request| Script::ok(&request.body, &[]));
    let larder = larder(&origin, "", "");
    let mut bytes = b"GET /search HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    bytes.extend([wire::chunk(b"query"), b"0\r\n\r\n".to_vec()].concat());
    assert_eq!(send(larder.proxy(), &bytes).text(), "query");
}

#[test]
fn the_crumbs_of_an_http2_cookie_are_one_field_to_the_origin() {
    let origin = Origin::ok("x", &[]);
    let larder = larder(&origin, "", "");
    let request = http2_get("/").header("cookie", "a=1").header("cookie", "b=2").body(Empty::new()).unwrap();
    http2(larder.proxy(), request).unwrap();
    assert_eq!(origin.last().headers.all("cookie").collect::<Vec<_>>(), ["a=1; b=2"]);
}

#[test]
fn nothing_that_an_untrusted_peer_says_of_its_way_reaches_the_origin() {
    let origin = Origin::ok("x", &[FRESH]);
    let larder = larder(&origin, "", "");
    let lies = [
        "X-Forwarded-Prefix",
        "X-Forwarded-Port",
        "X-Forwarded-Scheme",
        "X_Forwarded_Host",
        "X_Real_IP",
        "X-Original-URL",
        "X-Rewrite-URL",
    ];
    let fields: Vec<_> = lies.iter().map(|name| (*name, "evil")).collect();
    larder.get("/", &fields);
    for name in lies {
        assert_eq!(origin.last().headers.get(name), None, "{name}");
    }
}

#[test]
fn what_is_not_in_the_key_says_nothing_to_an_origin_whose_answer_is_kept() {
    let origin = Origin::start(|request| {
        let said: Vec<_> = HINTS.iter().filter_map(|name| request.headers.get(name)).collect();
        // Larder's own word.
        let said: Vec<_> = said.into_iter().filter(|value| !value.starts_with("127.")).collect();
        Script::ok(format!("<{}>", said.concat()), &[FRESH])
    });
    let larder = larder(&origin, "", "key.headers = [\"X-Original-Tenant\"]");
    for name in HINTS {
        let path = format!("/{name}");
        assert_eq!(larder.get(&path, &[(name, "evil")]).text(), "<>", "{name}");
        assert_eq!(larder.get(&path, &[]).text(), "<>", "{name}");
    }
    // A part of the key chooses among what is kept; and what is not kept may mean what it likes.
    assert_eq!(larder.get("/", &[("X-Original-Tenant", "a")]).header("x-cache"), "MISS");
    assert_eq!(origin.last().header("x-original-tenant"), "a");
    assert_eq!(larder.get("/", &[("X-Original-Tenant", "b")]).header("x-cache"), "MISS");
    let post =
        support::client::request(larder.proxy(), "POST", "/", &[("X-HTTP-Method-Override", "PUT")], b"");
    assert_eq!((post.text().as_str(), origin.last().header("x-http-method-override")), ("<PUT>", "PUT"));
}

const HINTS: [&str; 10] = [
    "X-Host",
    "X-HTTP-Host-Override",
    "X-Forwarded-Host",
    "X-Forwarded-Scheme",
    "X_Original_URL",
    "X-HTTP-Method-Override",
    "X-Method-Override",
    "Front-End-Https",
    "X-Custom-Port",
    "Transfer_Encoding",
];

#[test]
fn what_is_brought_by_a_key_or_an_identity_is_nobody_elses() {
    let origin = Origin::start(|request| {
        let who = ["x-api-key", "x-auth-request-user"].map(|name| request.header(name)).concat();
        Script::ok(format!("<{who}>"), &[FRESH])
    });
    let by_default = larder(&origin, "trusted_proxies = [\"127.0.0.1\"]", "");
    for (name, path) in [("X-Api-Key", "/a"), ("X-Auth-Request-User", "/b")] {
        for _ in 0..2 {
            let own = by_default.get(path, &[(name, "alice")]);
            assert_eq!((own.text().as_str(), own.header("x-cache")), ("<alice>", "BYPASS"), "{name}");
        }
        assert_eq!(by_default.get(path, &[]).text(), "<>", "{name}");
    }
    let keyed = larder(&origin, "", "key.headers = [\"X-Api-Key\"]");
    assert_eq!(keyed.get("/c", &[("X-Api-Key", "alice")]).header("x-cache"), "MISS");
    assert_eq!(keyed.get("/c", &[("X-Api-Key", "alice")]).header("x-cache"), "HIT");
    assert_eq!(keyed.get("/c", &[("X-Api-Key", "bob")]).text(), "<bob>");
    let shared = larder(&origin, "", "authorization = \"share\"");
    assert_eq!(shared.get("/d", &[("X-Api-Key", "alice")]).header("x-cache"), "MISS");
    assert_eq!(shared.get("/d", &[]).header("x-cache"), "HIT");
}

#[test]
fn a_field_written_with_an_underscore_is_not_taken_for_another() {
    let origin = Origin::ok("x", &[]);
    let larder = larder(&origin, "", "");
    let fields = [("Content_Length", "5"), ("Transfer_Encoding", "chunked"), ("Proxy", "http://evil.test/")];
    larder.get("/", &[&fields[..], &[("api_key", "k")]].concat());
    for (name, _) in fields {
        assert_eq!(origin.last().headers.get(name), None, "{name}");
    }
    assert_eq!(origin.last().header("api_key"), "k");
}

#[test]
fn connection_takes_no_field_away_that_an_origin_decides_by() {
    let origin = Origin::ok("x", &[]);
    let larder = larder(&origin, "trusted_proxies = [\"127.0.0.1\"]", "");
    let fields = [
        ("Authorization", "a"),
        ("Cookie", "b=c"),
        ("Origin", "http://d.test"),
        ("X-Forwarded-For", "192.0.2.1"),
    ];
    let all: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
    larder.get("/", &[&fields[..], &[("Connection", &all.join(", "))]].concat());
    for (name, value) in fields {
        assert!(origin.last().header(name).starts_with(value), "{name}");
    }
}

#[test]
fn trailers_that_nobody_announced_or_that_may_not_stand_there_reach_no_client() {
    let origin = Origin::start(|_| {
        Script::chunked(&[("Trailer", "X-Sum, Set-Cookie, Authorization")]).chunk("hi").trailers(&[
            ("X-Sum", "7"),
            ("Set-Cookie", "a=b"),
            ("Authorization", "a"),
            ("X-Other", "1"),
        ])
    });
    let larder = larder(&origin, "", "");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let trailers = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(larder.proxy()).await.unwrap();
        let (mut send, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = http2_get("/").header("te", "trailers").body(Empty::<Bytes>::new()).unwrap();
        let body = send.send_request(request).await.unwrap().into_body().collect().await.unwrap();
        body.trailers().cloned().unwrap()
    });
    assert_eq!(trailers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["x-sum"]);
    let without = larder.get("/", &[]);
    assert_eq!((without.headers.get("trailer"), without.trailers.get("x-sum")), (None, None));
}

#[test]
fn what_a_path_with_dot_segments_leads_to_is_not_stored() {
    let origin = Origin::start(|request| Script::ok(request.count.to_string(), &[]));
    let larder = larder(&origin, "", "ttl.default = \"60s\"\ncookies = \"ignore\"");
    for path in
        ["/static/../account", "/static/..%2Faccount", "/static/%2e%2E/account", "/static/..%5caccount"]
    {
        assert_eq!(larder.get(path, &[("Cookie", "session=1")]).text(), "1", "{path}");
        assert_eq!(larder.get(path, &[]).text(), "2", "{path}: another's account");
    }
    assert_eq!(larder.get("/a..b/...", &[]).text(), "1");
    assert_eq!(larder.get("/a..b/...", &[]).text(), "1", "no dot segment");
}

#[test]
fn a_storable_204_leaves_the_connection_open() {
    let origin = Origin::start(|_| Script::respond(204, &[FRESH], ""));
    let larder = larder(&origin, "", "");
    let mut connection = Connection::open(larder.proxy());
    for cached in [false, true] {
        let response = connection.request("GET", "/", &[], b"");
        assert_eq!((response.status, response.header("connection")), (204, ""), "cached: {cached}");
        assert_eq!(response.headers.get("transfer-encoding"), None);
    }
}

#[test]
fn larders_own_answer_to_a_head_has_no_body_in_http2() {
    let origin = Origin::ok("x", &[]);
    let larder = larder(&origin, "", "");
    let request = http::Request::head("http://h2.test/").header("via", "1.1 x");
    let request = request.header("cache-control", "only-if-cached").body(Empty::new()).unwrap();
    let (head, body) = http2(larder.proxy(), request).unwrap();
    assert_eq!((head.status.as_u16(), body.len()), (504, 0));
    assert!(head.headers.contains_key("content-length"));
}

#[test]
fn the_last_free_connection_is_not_kept_from_the_thread_that_needs_it() {
    let origin = Origin::ok("x", &[]);
    let config = format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"off\"\nworkers = 4\n[limits]\nconnections = 1\n\
         [upstream.api]\nservers = [\"{}\"]\n\
         [[route]]\nname = \"all\"\nupstream = \"api\"\nmatch = {{ path = \"/*\" }}\n",
        origin.url()
    );
    let larder = Larder::start(&config);
    // The kernel spreads connections over the threads; enough of them meet each one.
    for _ in 0..40 {
        assert_eq!(get(larder.proxy(), "/", &[("Connection", "close")]).status, 200);
    }
}

#[test]
fn a_host_that_is_written_otherwise_does_not_reach_the_origin_so() {
    let origin = Origin::start(|request| Script::ok(request.header("host"), &[FRESH]));
    let larder = larder(&origin, "", "");
    assert_eq!(larder.get("/", &[("Host", "SHOP.test:80")]).text(), "shop.test");
    assert_eq!(larder.get("/", &[("Host", "shop.test")]).text(), "shop.test");
    assert_eq!(origin.count("/"), 1);
}

#[test]
fn a_redirect_to_https_is_not_given_to_those_who_came_by_https() {
    let origin = Origin::start(|request| match request.header("x-forwarded-proto") {
        "https" => Script::ok("secure", &[FRESH]),
        _ => Script::respond(301, &[FRESH, ("Location", "https://shop.test/")], ""),
    });
    let larder = larder(&origin, "trusted_proxies = [\"127.0.0.1\"]", "");
    let by = |scheme| larder.get("/", &[("Host", "shop.test"), ("X-Forwarded-Proto", scheme)]);
    assert_eq!(by("http").status, 301);
    assert_eq!(by("https").text(), "secure");
    assert_eq!(by("http").status, 301);
    assert_eq!(origin.count("/"), 2);
}

#[test]
fn a_response_that_redis_had_in_its_grace_is_refreshed_once() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |request| {
        let stale = [("Cache-Control", "max-age=60, stale-while-revalidate=600"), ("Age", "100")];
        let script = if request.count == 1 { Script::new() } else { Script::new().wait(&held) };
        script.bytes(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n{}: {}\r\n{}: {}\r\n\r\nx",
            stale[0].0, stale[0].1, stale[1].0, stale[1].1
        ))
    });
    let redis = RedisServer::start();
    let cache = format!("[cache]\nredis = \"{}\"\nredis_deadline = \"1s\"", redis.url());
    let warm = larder(&origin, &cache, "");
    warm.get("/", &[("Host", "a.test")]);
    assert!(within(support::PATIENCE, || !redis.keys().is_empty()));
    let cold = larder(&origin, &cache, "");
    for _ in 0..3 {
        assert_eq!(cold.get("/", &[("Host", "a.test")]).header("x-cache"), "STALE");
        gate.wait_for_arrivals(1);
    }
    // One thread does it all in turn: what was begun before this has reached the origin by now.
    cold.get("/other", &[]);
    assert_eq!(gate.arrived(), 1);
    gate.open();
}

#[test]
fn a_malformed_request_does_not_keep_a_url_from_being_cached() {
    let origin = Origin::start(|request| match request.header("x-bad") {
        "" => Script::ok("good", &[FRESH]),
        _ => Script::respond(400, &[], "bad"),
    });
    let larder = larder(&origin, "", "");
    assert_eq!(larder.get("/", &[("X-Bad", "1")]).status, 400);
    assert_eq!(larder.get("/", &[]).text(), "good");
    assert_eq!(larder.get("/", &[]).header("x-cache"), "HIT");
}

#[test]
fn a_web_page_whose_name_was_bound_to_this_machine_reads_nothing_of_the_admin_listener() {
    let origin = Origin::ok("x", &[]);
    let larder = larder(&origin, "", "");
    let admin = larder.admin();
    let own = admin.to_string();
    for (host, status) in
        [("evil.test:9900", 403), ("localhost:9900", 200), ("[::1]:9900", 200), (&*own, 200)]
    {
        assert_eq!(get(admin, "/stats", &[("Host", host)]).status, status, "{host}");
    }
}
