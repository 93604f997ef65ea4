//! What other answers than a fetch's bring for what is stored: a POST's that is a representation of its
//! target (RFC 9110 §9.3.3), a HEAD's (RFC 9111 §4.3.5), and a 304 for more than one stored response
//! (§4.3.4).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use support::front::{Front, HIT, HOST, Lines, STORED, told};
use support::{Gate, Larder, Origin, PATIENCE, RedisServer, Script, within};

const HOUR: (&str, &str) = ("Cache-Control", "max-age=3600");
const ITSELF: (&str, &str) = ("Content-Location", "/a");
const POSTED: &str = "BYPASS larder; fwd=method; stored";

#[test]
fn the_answer_to_a_post_serves_gets_where_it_says_so() {
    let front = Front::new("", |request| match request.method.as_str() {
        "POST" => Script::respond(200, &[HOUR, ITSELF, ("X", "posted")], &request.body),
        _ => Script::ok("got", &[HOUR]),
    });
    assert_eq!(told(&front.get("/a", &[])), STORED);
    let posted = front.request("POST", "/a", &[], b"one");
    assert_eq!((posted.status, posted.text().as_str(), told(&posted).as_str()), (200, "one", POSTED));
    let got = front.get("/a", &[]);
    assert_eq!((got.text().as_str(), got.header("x"), told(&got).as_str()), ("one", "posted", HIT));
    // A later one takes its place, and any other write makes it void.
    front.request("POST", "/a", &[], b"two");
    assert_eq!((front.get("/a", &[]).text().as_str(), front.origin.requests().len()), ("two", 3));
    front.request("DELETE", "/a", &[], b"");
    assert_eq!(front.get("/a", &[]).text(), "got");
}

#[test]
fn the_answer_to_a_post_serves_no_get_where_it_does_not() {
    type Row = (&'static str, u16, &'static [(&'static str, &'static str)], Lines<'static>);
    let rows: [Row; 8] = [
        ("9110 §9.3.3 no Content-Location", 200, &[HOUR], &[]),
        ("9110 §8.7 of another resource", 200, &[HOUR, ("Content-Location", "/b")], &[]),
        ("9110 §9.3.3 no explicit freshness", 200, &[ITSELF, ("ETag", "\"a\"")], &[]),
        ("9110 §9.3.3 about what was made", 201, &[HOUR, ITSELF], &[]),
        ("9111 §5.2.2.5", 200, &[("Cache-Control", "no-store, max-age=60"), ITSELF], &[]),
        ("9111 §5.2.2.7", 200, &[("Cache-Control", "private, max-age=60"), ITSELF], &[]),
        ("9111 §3.5", 200, &[HOUR, ITSELF], &[("Authorization", "Basic YTpi")]),
        ("9111 §5.2.1.5", 200, &[HOUR, ITSELF], &[("Cache-Control", "no-store")]),
    ];
    for (clause, status, fields, asked) in rows {
        let front = Front::new("ttl.default = \"60s\"", move |request| match request.method.as_str() {
            "POST" => Script::respond(status, fields, "posted"),
            _ => Script::ok("got", &[]),
        });
        let posted = front.request("POST", "/a", asked, b"x");
        assert_eq!(
            (posted.status, told(&posted).as_str()),
            (status, "BYPASS larder; fwd=method"),
            "{clause}"
        );
        assert_eq!(front.get("/a", &[]).text(), "got", "{clause}");
    }
}

#[test]
fn a_write_that_came_meanwhile_keeps_a_posts_answer_from_being_kept() {
    let gate = Gate::new();
    let held = gate.clone();
    let front = Front::new("", move |request| match (request.method.as_str(), request.target.as_str()) {
        ("POST", "/a") => Script::new().wait(&held).then(Script::respond(200, &[HOUR, ITSELF], "posted")),
        ("GET", _) => Script::ok("got", &[HOUR]),
        _ => Script::ok("", &[]),
    });
    let addr = front.larder.proxy();
    let slow =
        std::thread::spawn(move || support::client::request(addr, "POST", "/a", &[("Host", HOST)], b"x"));
    gate.wait_for_arrivals(1);
    front.request("DELETE", "/a", &[], b"");
    gate.open();
    assert_eq!(told(&slow.join().unwrap()), "BYPASS larder; fwd=method");
    assert_eq!(front.get("/a", &[]).text(), "got");
}

/// One route in front of `origin`, with a Redis.
fn with_redis(origin: &Origin, redis: &RedisServer) -> Larder {
    let larder = Larder::start(&format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n[cache]\nredis = \"{}\"\nredis_deadline = \"2s\"\n\
         [upstream.o]\nservers = [\"{}\"]\n[[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"o\"\n",
        redis.url(),
        origin.url()
    ));
    assert!(within(PATIENCE, || larder.stats()["tiers"]["redis"]["up"] == true));
    larder
}

fn end(mut larder: Larder) {
    larder.terminate();
    assert_eq!(larder.wait_exit(PATIENCE), Some(0));
}

const FROM_REDIS: &str = "HIT larder; hit; detail=redis";

#[test]
fn a_posts_answer_survives_a_restart_in_redis() {
    let redis = RedisServer::start();
    let origin = Origin::start(|request| match request.method.as_str() {
        "POST" => Script::respond(200, &[HOUR, ITSELF], "posted"),
        _ => Script::ok("got", &[HOUR]),
    });
    let larder = with_redis(&origin, &redis);
    support::client::request(larder.proxy(), "POST", "/a", &[("Host", HOST)], b"x");
    end(larder);
    let larder = with_redis(&origin, &redis);
    let got = larder.get("/a", &[("Host", HOST)]);
    assert_eq!((got.text().as_str(), told(&got).as_str()), ("posted", FROM_REDIS));
    // Two writes so close to each other may have been two nodes', of which nobody knows the order:
    // what the second brings stays out of Redis.
    support::client::request(larder.proxy(), "POST", "/a", &[("Host", HOST)], b"x");
    assert_eq!(told(&larder.get("/a", &[("Host", HOST)])), HIT);
    end(larder);
    let larder = with_redis(&origin, &redis);
    assert_eq!(larder.get("/a", &[("Host", HOST)]).text(), "got");
}

/// Stale as it comes.
const STALE: [(&str, &str); 3] = [("Cache-Control", "max-age=60"), ("Age", "60"), ("ETag", "\"v1\"")];

#[test]
fn a_head_freshens_what_is_stored() {
    let front = Front::new("", |request| match request.method.as_str() {
        "HEAD" => Script::respond(200, &[HOUR, ("ETag", "\"v1\""), ("X", "new")], "body"),
        _ => Script::ok("body", &[&STALE[..], &[("X", "old"), ("Y", "kept")]].concat()),
    });
    assert_eq!(told(&front.get("/", &[])), STORED);
    let head = front.request("HEAD", "/", &[], b"");
    assert_eq!((head.status, head.header("x")), (200, "new"));
    let got = front.get("/", &[]);
    assert_eq!((got.text().as_str(), told(&got).as_str()), ("body", HIT));
    assert_eq!((got.header("x"), got.header("y"), got.header("content-length")), ("new", "kept", "4"));
    assert_eq!(front.origin.requests().len(), 2);
}

#[test]
fn what_a_head_differs_from_is_stale_and_nothing_else_is() {
    let fields = [HOUR, ("ETag", "\"v1\""), ("Vary", "A")];
    for (clause, heard) in [
        ("9111 §4.3.5 another tag", &[HOUR, ("ETag", "\"v2\""), ("Content-Length", "4")][..]),
        ("9111 §4.3.5 another length", &[HOUR, ("ETag", "\"v1\""), ("Content-Length", "5")]),
        ("9111 §5.2.2.5 no longer to be kept", &[("Cache-Control", "no-store"), ("Content-Length", "4")]),
    ] {
        let front = Front::new("", move |request| match request.method.as_str() {
            "HEAD" => Script::new().head(200, heard),
            _ if request.header("if-none-match").is_empty() => Script::ok("body", &fields),
            _ => Script::ok("news", &fields),
        });
        front.get("/", &[("A", "1")]);
        front.get("/", &[("A", "2")]);
        // `no-cache` asks the origin's word.
        front.request("HEAD", "/", &[("A", "1"), ("Cache-Control", "no-cache")], b"");
        let other = front.get("/", &[("A", "2")]);
        assert_eq!((other.text().as_str(), told(&other).as_str()), ("body", HIT), "{clause}");
        let asked = front.get("/", &[("A", "1")]);
        assert_eq!(
            (asked.text().as_str(), told(&asked).as_str()),
            ("news", "MISS larder; fwd=stale; stored"),
            "{clause}"
        );
    }
    // Without a validator there is nothing to ask: it is forgotten.
    let front = Front::new("", |request| match request.method.as_str() {
        "HEAD" => Script::new().head(200, &[("Content-Length", "5")]),
        _ => Script::ok("body", &[HOUR]),
    });
    assert_eq!(told(&front.get("/", &[])), STORED);
    front.request("HEAD", "/", &[("Cache-Control", "no-cache")], b"");
    assert_eq!(told(&front.get("/", &[])), STORED);
}

/// A bug once: what leads a GET past the cache did not lead a POST's answer past it.
#[test]
fn a_post_is_not_adopted_where_a_get_would_pass_the_cache() {
    let posted = |request: &support::Request| match request.method.as_str() {
        "POST" => Script::respond(200, &[HOUR, ("Content-Location", "")], request.header("cookie")),
        _ => Script::ok("got", &[]),
    };
    let front = Front::new("cookies = \"bypass\"", posted);
    front.request("POST", "/a", &[("Cookie", "user=alice")], b"x");
    assert_eq!(front.get("/a", &[]).text(), "got");
    let front = Front::new("", posted);
    for path in ["/a/../b", "/a/%2e%2e/b"] {
        assert_eq!(told(&front.request("POST", path, &[], b"x")), "BYPASS larder; fwd=method", "{path}");
    }
}

#[test]
fn a_head_of_one_user_says_nothing_of_what_all_get() {
    let front = Front::new("stale_while_revalidate = \"1h\"", |request| match request.method.as_str() {
        "HEAD" => Script::new().head(200, &[("ETag", "\"mine\""), ("Content-Length", "9")]),
        _ => Script::ok("body", &STALE),
    });
    assert_eq!(told(&front.get("/", &[])), STORED);
    front.request("HEAD", "/", &[("Cookie", "sid=1"), ("Cache-Control", "no-cache")], b"");
    front.request("HEAD", "/", &[("Authorization", "Basic YTpi"), ("Cache-Control", "no-cache")], b"");
    assert_eq!(told(&front.get("/", &[])), "STALE larder; hit; detail=memory");
}

/// A bug once: only this process forgot it.
#[test]
fn what_a_304_takes_back_the_leave_to_store_is_gone_from_redis_too() {
    let redis = RedisServer::start();
    let origin = Origin::start(|request| match request.header("if-none-match") {
        "" => Script::ok("body", &[HOUR, ("ETag", "\"v1\"")]),
        _ => Script::respond(304, &[("ETag", "\"v1\""), ("Cache-Control", "private")], ""),
    });
    let larder = with_redis(&origin, &redis);
    larder.get("/", &[("Host", HOST)]);
    let last = larder.get("/", &[("Host", HOST), ("Cache-Control", "no-cache")]);
    assert_eq!(told(&last), "REVALIDATED larder; fwd=request; fwd-status=304; detail=private");
    end(larder);
    let larder = with_redis(&origin, &redis);
    assert_eq!(told(&larder.get("/", &[("Host", HOST)])), STORED);
}

#[test]
fn a_head_freshens_what_is_stored_in_redis_alone() {
    let redis = RedisServer::start();
    let origin = Origin::start(|request| match request.method.as_str() {
        "HEAD" => Script::respond(200, &[HOUR, ("ETag", "\"v1\"")], "body"),
        _ => Script::ok("body", &STALE),
    });
    let larder = with_redis(&origin, &redis);
    larder.get("/", &[("Host", HOST)]);
    for _ in 0..2 {
        end(with_redis(&origin, &redis));
    }
    end(larder);
    let larder = with_redis(&origin, &redis);
    support::client::request(larder.proxy(), "HEAD", "/", &[("Host", HOST)], b"");
    end(larder);
    let larder = with_redis(&origin, &redis);
    assert_eq!(told(&larder.get("/", &[("Host", HOST)])), FROM_REDIS);
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn a_304_freshens_every_response_that_its_strong_tag_names() {
    // The resource has varied on A, and then on B: a request with both could be given either.
    let on_b = Arc::new(AtomicBool::new(false));
    let varies = Arc::clone(&on_b);
    let front = Front::new("", move |request| {
        let vary = ("Vary", if varies.load(Ordering::Acquire) { "B" } else { "A" });
        match request.header("if-none-match") {
            "" => Script::ok("body", &[&STALE[..], &[vary]].concat()),
            _ => Script::respond(304, &[HOUR, ("ETag", "\"v1\"")], ""),
        }
    });
    let both = [("A", "1"), ("B", "1")];
    assert_eq!(told(&front.get("/", &[("A", "1")])), STORED);
    on_b.store(true, Ordering::Release);
    assert_eq!(told(&front.get("/", &[("A", "2"), ("B", "1")])), "MISS larder; fwd=vary-miss; stored");
    assert_eq!(told(&front.get("/", &both)), "REVALIDATED larder; fwd=stale; fwd-status=304; stored");
    // Only the one that varies on A can serve this.
    assert_eq!(told(&front.get("/", &[("A", "1"), ("B", "9")])), HIT);
    assert_eq!(told(&front.get("/", &both)), HIT);
    assert_eq!(front.origin.requests().len(), 3);
}
