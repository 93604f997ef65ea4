//! QUERY and read-only POST: keyed on their content where a route switches them on, and GraphQL
//! mutations never.
//!
//! Over sockets: memory alone, and with a Redis after a restart.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::thread;

use support::front::{Front, HIT, HOST, Lines, STALE, STORED, configuration, told};
use support::{Connection, Gate, Larder, Origin, PATIENCE, RedisServer, Request, Response, Script, within};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const MAY_CHANGE: &str = "BYPASS larder; fwd=bypass; detail=may-change";
const LARGE: &str = "BYPASS larder; fwd=bypass; detail=large-body";
const METHOD: &str = "BYPASS larder; fwd=method";

/// All four methods, fresh for a minute, and an origin that says what it was asked.
fn front(cache: &str) -> Front {
    Front::new(
        &format!("ttl.default = \"60s\"\nmethods = [\"GET\", \"HEAD\", \"QUERY\", \"POST\"]\n{cache}"),
        echo,
    )
}

fn echo(request: &Request) -> Script {
    let body = String::from_utf8_lossy(&request.body).into_owned();
    Script::ok(
        format!("{} {} {body} #{}", request.method, request.target, request.count),
        &[("ETag", "\"e\"")],
    )
}

impl Ask for Front {
    fn ask(&self, method: &str, path: &str, fields: Lines, body: &str) -> Response {
        self.request(method, path, fields, body.as_bytes())
    }
}

trait Ask {
    fn ask(&self, method: &str, path: &str, fields: Lines, body: &str) -> Response;

    fn asked(&self, method: &str, path: &str, fields: Lines, body: &str) -> String {
        told(&self.ask(method, path, fields, body))
    }
}

#[test]
fn neither_uses_the_cache_unless_the_route_says_so() {
    let front = Front::new("ttl.default = \"60s\"", echo);
    for method in ["QUERY", "POST"] {
        for _ in 0..2 {
            assert_eq!(front.asked(method, "/", &[JSON], "{}"), METHOD, "{method}");
        }
    }
    assert_eq!(front.told("/", &[], 2), [STORED, HIT]);
    // RFC 10008: QUERY is safe.
    front.ask("QUERY", "/", &[], "x");
    assert_eq!(front.told("/", &[], 1), [HIT]);
}

#[test]
fn a_route_may_leave_out_any_method() {
    let front = Front::new("ttl.default = \"60s\"\nmethods = [\"QUERY\"]", echo);
    assert_eq!(front.told("/", &[], 2), [METHOD, METHOD]);
    assert_eq!(front.asked("HEAD", "/", &[], ""), METHOD);
    assert_eq!(front.asked("QUERY", "/", &[], "x"), STORED);
    assert_eq!(front.asked("QUERY", "/", &[], "x"), HIT);
}

#[test]
fn each_content_is_a_resource_of_its_own() {
    let front = front("");
    for method in ["QUERY", "POST"] {
        let path = &format!("/{method}");
        let rows: [(Lines, &str); 7] = [
            (&[JSON], "{\"a\":1}"),
            (&[JSON], "{\"a\":2}"),
            (&[JSON], "{\"a\": 1}"),
            (&[JSON], ""),
            (&[("Content-Type", "application/x+json")], "{\"a\":1}"),
            (&[JSON, ("Content-Language", "de")], "{\"a\":1}"),
            (&[], "{\"a\":1}"),
        ];
        for (fields, body) in rows {
            // In JSON, nothing is not a read.
            if method == "POST" && body.is_empty() {
                continue;
            }
            assert_eq!(front.asked(method, path, fields, body), STORED, "{method} {fields:?} {body}");
            let sent = front.origin.last();
            assert_eq!((sent.method.as_str(), sent.body.as_slice()), (method, body.as_bytes()));
            assert_eq!(sent.header("content-length"), body.len().to_string());
            assert_eq!(sent.headers.get("content-type"), fields.first().map(|(_, value)| *value));
            let hit = front.ask(method, path, fields, body);
            assert_eq!(told(&hit), HIT, "{method} {fields:?} {body}");
            assert!(hit.text().starts_with(&format!("{method} {path} {body} #")), "{}", hit.text());
        }
        // The GET of the URL is another again, and so is the other method.
        assert_eq!(front.told(path, &[], 2), [STORED, HIT]);
    }
    assert_eq!(front.asked("POST", "/QUERY", &[JSON], "{\"a\":1}"), STORED);
    // The query of the URL counts as ever.
    assert_eq!(front.asked("QUERY", "/QUERY?b&a", &[JSON], "{\"a\":1}"), STORED);
    assert_eq!(front.asked("QUERY", "/QUERY?a&b", &[JSON], "{\"a\":1}"), HIT);
}

#[test]
fn what_a_post_brings_is_stored_only_with_a_lifetime() {
    let front = Front::new("methods = [\"GET\", \"QUERY\", \"POST\"]", |request| {
        let control = request.headers.get("x-control").map(|value| ("Cache-Control", value));
        Script::ok("a", &[control, Some(("ETag", "\"e\""))].into_iter().flatten().collect::<Vec<_>>())
    });
    let none = "MISS larder; fwd=uri-miss; detail=no-lifetime";
    for (method, control, expected) in [
        ("POST", None, none),
        ("POST", Some("public"), none),
        ("POST", Some("no-cache, max-age=60"), none),
        ("POST", Some("max-age=60"), STORED),
        ("POST", Some("no-store"), "MISS larder; fwd=uri-miss; detail=no-store"),
        ("QUERY", Some("max-age=60"), STORED),
        ("QUERY", None, STORED),
    ] {
        let path = format!("/{method}/{}", control.unwrap_or("none").replace([',', ' '], ""));
        let fields: Vec<_> = control.map(|control| ("X-Control", control)).into_iter().collect();
        assert_eq!(front.asked(method, &path, &fields, "x"), expected, "{method} {control:?}");
    }
}

#[test]
fn a_stale_query_is_confirmed_and_a_stale_post_is_asked_anew() {
    let front =
        Front::new("ttl.default = \"0s\"\nkeep = \"60s\"\nmethods = [\"QUERY\", \"POST\"]", |request| {
            match request.headers.get("if-none-match") {
                Some(_) => Script::respond(304, &[("ETag", "\"e\"")], ""),
                None => Script::ok(format!("#{}", request.count), &[("ETag", "\"e\"")]),
            }
        });
    assert_eq!(front.asked("QUERY", "/q", &[], "x"), STORED);
    let confirmed = front.ask("QUERY", "/q", &[], "x");
    assert_eq!(told(&confirmed), "REVALIDATED larder; fwd=stale; fwd-status=304; stored");
    assert_eq!(confirmed.text(), "#1");
    assert_eq!(front.origin.last().body, b"x");
    assert_eq!(front.asked("POST", "/p", &[], "x"), STORED);
    let anew = front.ask("POST", "/p", &[], "x");
    assert_eq!((told(&anew).as_str(), anew.text().as_str()), ("MISS larder; fwd=stale; stored", "#2"));
    assert_eq!(front.origin.last().headers.get("if-none-match"), None, "9110 §13.1.2: it would be a 412");
}

#[test]
fn conditions_and_ranges_of_the_client_mean_what_they_mean_for_the_method() {
    let front = front("");
    for (method, condition) in [("QUERY", 304), ("POST", 200)] {
        for _ in 0..2 {
            let response = front.ask(method, "/", &[("If-None-Match", "\"e\"")], "x");
            assert_eq!(response.status, condition, "{method}");
            // 9110 §14.2: for GET alone.
            let response = front.ask(method, "/", &[("Range", "bytes=0-0")], "x");
            assert_eq!(response.status, 200, "{method}");
        }
        assert_eq!(front.asked(method, "/", &[], "x"), HIT);
        // The origin's to judge, with the content.
        let passed = front.ask(method, "/", &[("If-Match", "\"e\"")], "x");
        assert_eq!(passed.header("x-cache"), "MISS", "{method}");
        let sent = front.origin.last();
        assert_eq!((sent.header("if-match"), sent.body.as_slice()), ("\"e\"", &b"x"[..]));
    }
}

#[test]
fn request_directives_hold_as_for_a_get() {
    let front = front("");
    let only = [("Cache-Control", "only-if-cached")];
    assert_eq!(front.ask("QUERY", "/", &only, "x").status, 504);
    assert_eq!(front.asked("QUERY", "/", &[], "x"), STORED);
    assert_eq!(front.asked("QUERY", "/", &only, "x"), HIT);
    assert_eq!(front.ask("QUERY", "/", &[("Cache-Control", "no-cache")], "x").header("x-cache"), "MISS");
    let bypass = "BYPASS larder; fwd=bypass; detail=request-no-store";
    assert_eq!(front.asked("QUERY", "/", &[("Cache-Control", "no-store")], "x"), bypass);
    assert_eq!(front.origin.last().body, b"x");
}

#[test]
fn many_at_once_make_one_fetch() {
    let gate = Gate::new();
    let origin = {
        let gate = gate.clone();
        Origin::start(move |_| Script::new().wait(&gate).then_ok("a", &[("Cache-Control", "max-age=60")]))
    };
    let route = "[[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nupstream = \"api\"\n[route.cache]\nmethods = [\"QUERY\"]";
    let larder = Larder::start(&configuration(&origin, route));
    let proxy = larder.proxy();
    let ask = move |body: &'static [u8]| {
        support::client::request(proxy, "QUERY", "/", &[("Host", HOST)], body).text()
    };
    let others: Vec<_> = (0..8).map(|_| thread::spawn(move || ask(b"same"))).collect();
    origin.wait_for_requests(1);
    let another = thread::spawn(move || ask(b"another"));
    origin.wait_for_requests(2);
    gate.open();
    assert!(others.into_iter().all(|other| other.join().unwrap() == "a"));
    another.join().unwrap();
    assert_eq!(origin.count("/"), 2);
}

#[test]
fn a_graphql_mutation_is_never_cached_and_makes_its_url_invalid() {
    let front = front("");
    let query = r#"{"query":"{ users { name } }"}"#;
    let rows: [(&str, &str); 8] = [
        ("application/json", r#"{"query":"mutation { add }"}"#),
        ("application/json", r#"{"query":"query A { a } mutation B { b }","operationName":"A"}"#),
        ("application/json", r#"[{"query":"{ a }"},{"query":"mutation { b }"}]"#),
        ("application/json", r#"{"extensions":{"persistedQuery":{"sha256Hash":"ab"}}}"#),
        ("application/json", "not json"),
        ("application/graphql", "subscription { a }"),
        ("text/plain", r#"{"query":"mutation { add }"}"#),
        ("application/x-www-form-urlencoded", "query=mutation%7Badd%7D"),
    ];
    for (content_type, body) in rows {
        let _ = front.ask("POST", "/graphql", &[JSON], query);
        assert_eq!(front.asked("POST", "/graphql", &[JSON], query), HIT);
        let changed = front.ask("POST", "/graphql", &[("Content-Type", content_type)], body);
        assert_eq!(told(&changed), MAY_CHANGE, "{body}");
        assert_eq!(front.origin.last().body, body.as_bytes());
        let again = front.ask("POST", "/graphql", &[JSON], query);
        assert_eq!(again.header("x-cache"), "MISS", "after {body}");
    }
    // In the URL, where some servers look first.
    let _ = front.ask("POST", "/graphql", &[JSON], query);
    assert_eq!(front.asked("POST", "/graphql?query=mutation%7Badd%7D", &[JSON], query), MAY_CHANGE);
    // A read makes nothing invalid, whether it is stored or not.
    front.ask("POST", "/graphql", &[JSON, ("Cache-Control", "no-store")], query);
    front.ask("POST", "/graphql", &[JSON], r#"{"query":"{ other }"}"#);
    assert_eq!(front.asked("POST", "/graphql", &[JSON], query), HIT);
}

#[test]
fn a_write_to_the_url_makes_all_contents_invalid() {
    let front = front("");
    for body in ["a", "b"] {
        assert_eq!(front.asked("QUERY", "/", &[], body), STORED);
        assert_eq!(front.asked("QUERY", "/", &[], body), HIT);
    }
    front.ask("PUT", "/", &[], "x");
    for body in ["a", "b"] {
        assert_eq!(front.ask("QUERY", "/", &[], body).header("x-cache"), "MISS", "{body}");
        assert_eq!(front.asked("QUERY", "/", &[], body), HIT, "{body}");
    }
}

#[test]
fn a_write_by_another_route_makes_them_invalid_too() {
    let route = |name, methods, cache| {
        format!(
            "[[route]]\nname = \"{name}\"\nmatch = {{ path = \"/*\", method = {methods} }}\nupstream = \"api\"\n[route.cache]\nttl.default = \"60s\"\n{cache}\n"
        )
    };
    let routes = route("reads", "[\"QUERY\"]", "methods = [\"QUERY\"]\nkey.ignore_query = [\"x\"]")
        + &route("rest", "[\"GET\", \"PUT\"]", "");
    let front = Front::with(&routes, echo);
    assert_eq!(front.asked("QUERY", "/?a&x", &[], "b"), STORED);
    assert_eq!(front.asked("QUERY", "/?a", &[], "b"), HIT);
    assert_eq!(front.told("/?a&x", &[], 2), [STORED, HIT]);
    front.ask("PUT", "/?a&x", &[], "x");
    assert_eq!(front.ask("QUERY", "/?a", &[], "b").header("x-cache"), "MISS");
    assert_eq!(front.ask("GET", "/?a&x", &[], "").header("x-cache"), "MISS");
}

#[test]
fn a_larger_content_passes_whole() {
    let front = front("max_request_body = \"1KiB\"");
    let (fits, larger) = ("x".repeat(1024), "y".repeat(1025));
    assert_eq!(front.asked("QUERY", "/", &[], &fits), STORED);
    assert_eq!(front.asked("QUERY", "/", &[], &fits), HIT);
    for _ in 0..2 {
        assert_eq!(front.asked("QUERY", "/", &[], &larger), LARGE);
        assert_eq!(front.origin.last().body, larger.as_bytes());
    }
    // Its length is known only when it has come.
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let mut connection = Connection::open(front.larder.proxy());
    connection.write_head("QUERY", "/", &[("Host", HOST), ("Transfer-Encoding", "chunked")]);
    for part in [&fits, "z", &fits] {
        connection.write(chunk(part).as_bytes());
    }
    connection.write(b"0\r\n\r\n");
    assert_eq!(told(&connection.response("QUERY")), LARGE);
    assert_eq!(front.origin.last().body, format!("{fits}z{fits}").as_bytes());
    let mut connection = Connection::open(front.larder.proxy());
    connection.write_head("QUERY", "/", &[("Host", HOST), ("Transfer-Encoding", "chunked")]);
    connection.write(
        format!("{}{}0\r\nX-Trailer: 1\r\n\r\n", chunk(&fits[..1000]), chunk(&fits[1000..])).as_bytes(),
    );
    assert_eq!(told(&connection.response("QUERY")), HIT, "the same content, however it is framed");
}

#[test]
fn a_client_that_waits_to_be_told_is_told_to_go_on() {
    let front = front("max_request_body = \"1KiB\"");
    for (length, expected) in [("5", STORED), ("2000", LARGE)] {
        let mut connection = Connection::open(front.larder.proxy());
        let fields = [("Host", HOST), ("Expect", "100-continue"), ("Content-Length", length)];
        connection.write_head("QUERY", "/", &fields);
        assert_eq!(connection.interim(), 100, "{length}");
        connection.write("h".repeat(length.parse().unwrap()).as_bytes());
        assert_eq!(told(&connection.response("QUERY")), expected);
        assert_eq!(front.origin.last().headers.get("expect"), None);
    }
}

#[test]
fn a_content_that_breaks_off_reaches_no_origin_and_one_that_stalls_is_told() {
    let routes = "[limits]\nbody_rate = \"1MB\"\nbody_grace = \"200ms\"\n[[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nupstream = \"api\"\n\
                  [route.cache]\nmethods = [\"QUERY\"]\nttl.default = \"60s\"";
    let front = Front::with(routes, echo);
    let mut connection = Connection::open(front.larder.proxy());
    connection.write_head("QUERY", "/", &[("Host", HOST), ("Content-Length", "10")]);
    connection.write(b"12345");
    let late = connection.response("QUERY");
    assert_eq!((late.status, late.json()["cause"].as_str()), (408, Some("request-timeout")));
    let mut connection = Connection::open(front.larder.proxy());
    connection.write_head("QUERY", "/", &[("Host", HOST), ("Transfer-Encoding", "chunked")]);
    connection.write(b"5\r\n12345\r\nnonsense\r\n");
    let broken = connection.response("QUERY");
    assert_eq!((broken.status, broken.json()["cause"].as_str()), (400, Some("request-body")));
    assert_eq!(front.origin.requests().len(), 0);
    assert_eq!(front.asked("QUERY", "/", &[], "1234567890"), STORED);
}

#[test]
fn a_refresh_behind_the_clients_back_asks_with_the_same_content() {
    let front = Front::new(
        "ttl.override = \"0s\"\nstale_while_revalidate = \"60s\"\nmethods = [\"POST\"]",
        |request| Script::ok(format!("{} #{}", request.method, request.count), &[]),
    );
    assert_eq!(front.asked("POST", "/", &[], "x"), STORED);
    assert_eq!(front.asked("POST", "/", &[], "x"), STALE);
    front.origin.wait_for_requests(2);
    assert_eq!(
        (front.origin.last().method.as_str(), front.origin.last().body.as_slice()),
        ("POST", &b"x"[..])
    );
}

#[test]
fn a_query_that_met_a_closing_connection_is_sent_again_and_a_post_is_not() {
    // Every second request on a connection is answered by a reset.
    let front = front_that_resets();
    assert_eq!(front.ask("QUERY", "/1", &[], "x").status, 200);
    assert_eq!(front.ask("QUERY", "/2", &[], "x").status, 200);
    assert_eq!(front.origin.last().body, b"x");
    let front = front_that_resets();
    assert_eq!(front.ask("POST", "/1", &[], "x").status, 200);
    assert_eq!(front.ask("POST", "/2", &[], "x").status, 502);
}

fn front_that_resets() -> Front {
    let served = std::sync::Mutex::new(std::collections::HashSet::new());
    let route = "ttl.default = \"60s\"\nmethods = [\"QUERY\", \"POST\"]";
    let routes = format!(
        "[[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"api\"\n[route.cache]\n{route}"
    );
    Front::with(&routes, move |request| match served.lock().unwrap().insert(request.connection) {
        true => Script::ok("a", &[]),
        false => Script::new().reset(),
    })
}

#[test]
fn what_a_content_brought_outlives_the_process_in_redis_and_goes_with_its_url() {
    let (redis, origin) = (RedisServer::start(), Origin::start(echo));
    let more = format!(
        "[cache]\nredis = \"{}\"\nredis_deadline = \"5s\"\n[[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"api\"\n\
         [route.cache]\nttl.default = \"10m\"\nmethods = [\"GET\", \"QUERY\", \"POST\"]",
        redis.url()
    );
    let start = || {
        let config = configuration(&origin, &more).replace("admin = \"off\"", "admin = \"127.0.0.1:0\"");
        let larder = Larder::start(&config);
        let up = || larder.stats()["tiers"]["redis"]["up"] == true;
        assert!(within(PATIENCE, up), "{:#}", larder.stats()["tiers"]);
        larder
    };
    let ask = |larder: &Larder, method, body: &str| {
        support::client::request(larder.proxy(), method, "/", &[("Host", HOST)], body.as_bytes())
    };
    let first = start();
    for (method, body) in [("QUERY", "a"), ("QUERY", "b"), ("POST", "a")] {
        assert_eq!(told(&ask(&first, method, body)), STORED);
    }
    let written = || first.stats()["tiers"]["redis"]["writes"].as_u64() >= Some(3);
    assert!(within(PATIENCE, written), "{:#}", first.stats()["tiers"]);
    drop(first);
    let second = start();
    for (method, body) in [("QUERY", "a"), ("QUERY", "b"), ("POST", "a")] {
        let hit = ask(&second, method, body);
        assert_eq!(told(&hit), "HIT larder; hit; detail=redis");
        assert!(hit.text().starts_with(&format!("{method} / {body} #")), "{}", hit.text());
    }
    assert_eq!(told(&ask(&second, "QUERY", "c")), STORED);
    ask(&second, "DELETE", "");
    drop(second);
    let third = start();
    for (method, body) in [("QUERY", "a"), ("QUERY", "b"), ("POST", "a")] {
        assert_eq!(told(&ask(&third, method, body)), STORED, "{method} {body}");
    }
}
