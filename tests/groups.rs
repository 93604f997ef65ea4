//! Cache groups (RFC 9875): a write's answer makes whole groups of responses invalid.
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

use support::front::{Front, HIT, HOST, Lines, STORED, configuration, told};
use support::{Gate, Larder, Origin, PATIENCE, RedisServer, Request, Response, Script, client, within};

/// Answers with the groups that the request names, fresh for ten minutes.
fn grouped(request: &Request) -> Script {
    let named = [("Cache-Groups", "x-groups"), ("Cache-Group-Invalidation", "x-invalidate")];
    let mut fields = vec![("Cache-Control", "max-age=600")];
    fields.extend(named.iter().filter_map(|(name, from)| Some((*name, request.headers.get(from)?))));
    Script::respond(request.headers.get("x-status").map_or(200, |s| s.parse().unwrap()), &fields, "a")
}

const PURGED: &str = "MISS larder; fwd=uri-miss; stored; detail=purged";

fn write(front: &Front, groups: &str, others: Lines) -> Response {
    let mut fields = vec![("X-Invalidate", groups)];
    fields.extend(others);
    front.request("POST", "/write", &fields, b"x")
}

#[test]
fn a_writes_answer_makes_the_groups_that_it_names_invalid() {
    let front = Front::new("", grouped);
    let ask = |path: &str, groups: &str| told(&front.get(path, &[("X-Groups", groups)]));
    let rows = [
        ("/ab", "\"a\", \"b\""),
        ("/b", "\"b\";x=1"),
        ("/c", "\"c\""),
        ("/A", "\"A\""),
        ("/wrong", "\"a\", b"),
    ];
    for (path, groups) in rows {
        assert_eq!((ask(path, groups), ask(path, groups)), (STORED.into(), HIT.into()), "{path}");
    }
    assert_eq!(front.told("/none", &[], 2), [STORED, HIT]);
    for (invalidated, gone) in [
        ("\"a\"", &["/ab"][..]),
        ("\"x\", \"b\";y", &["/ab", "/b"]),
        ("\"b\", c", &[]),
        ("b", &[]),
        ("\"\"", &[]),
        ("\"A\", \"c\"", &["/A", "/c"]),
    ] {
        write(&front, invalidated, &[]);
        for (path, groups) in rows {
            let expected = if gone.contains(&path) { PURGED } else { HIT };
            assert_eq!(ask(path, groups), expected, "{path} after {invalidated}");
            assert_eq!(ask(path, groups), HIT, "{path} is stored anew");
        }
        assert_eq!(front.told("/none", &[], 1), [HIT]);
    }
}

#[test]
fn safe_methods_and_errors_invalidate_no_group() {
    let front = Front::new("", grouped);
    let asked = [("X-Groups", "\"a\"")];
    assert_eq!(front.told("/", &asked, 2), [STORED, HIT]);
    for method in ["GET", "HEAD", "OPTIONS", "QUERY"] {
        front.request(method, "/other", &[("X-Invalidate", "\"a\"")], b"");
        assert_eq!(front.told("/", &asked, 1), [HIT], "§3: {method}");
    }
    for status in ["404", "500"] {
        write(&front, "\"a\"", &[("X-Status", status)]);
        assert_eq!(front.told("/", &asked, 1), [HIT], "{status}");
    }
    write(&front, "\"a\"", &[("X-Status", "303")]);
    assert_eq!(front.told("/", &asked, 1), [PURGED]);
}

#[test]
fn a_group_is_of_one_origin() {
    let front = Front::new("", grouped);
    let (here, there) = ([("X-Groups", "\"a\"")], [("X-Groups", "\"a\""), ("Host", "other.test")]);
    for fields in [&here[..], &there] {
        assert_eq!(front.told("/", fields, 2), [STORED, HIT]);
    }
    write(&front, "\"a\"", &[("Host", "other.test")]);
    assert_eq!(front.told("/", &here, 1), [HIT]);
    assert_eq!(front.told("/", &there, 1), [PURGED]);
}

#[test]
fn all_variants_and_keys_in_a_group_go() {
    let front = Front::new("key.headers = [\"X-Tenant\"]\nmethods = [\"GET\", \"QUERY\"]", grouped);
    let asked: [(&str, Lines); 3] = [
        ("GET", &[("X-Groups", "\"a\"")]),
        ("GET", &[("X-Groups", "\"a\""), ("X-Tenant", "t")]),
        ("QUERY", &[("X-Groups", "\"a\"")]),
    ];
    for (method, fields) in asked {
        front.request(method, "/", fields, b"");
        assert_eq!(told(&front.request(method, "/", fields, b"")), HIT, "{method} {fields:?}");
    }
    write(&front, "\"a\"", &[]);
    for (method, fields) in asked {
        assert_eq!(told(&front.request(method, "/", fields, b"")), PURGED, "{method} {fields:?}");
    }
}

#[test]
fn a_route_may_not_listen_to_it() {
    let front = Front::new("group_invalidation = false", grouped);
    assert_eq!(front.told("/", &[("X-Groups", "\"a\"")], 2), [STORED, HIT]);
    write(&front, "\"a\"", &[]);
    assert_eq!(front.told("/", &[("X-Groups", "\"a\"")], 1), [HIT]);
}

#[test]
fn what_is_being_fetched_when_its_group_goes_is_not_kept() {
    let gate = Gate::new();
    let front = {
        let gate = gate.clone();
        Front::new("", move |request| match request.method.as_str() {
            "GET" if request.count == 1 => Script::new().wait(&gate).then(grouped(request)),
            _ => grouped(request),
        })
    };
    let proxy = front.larder.proxy();
    let asked = [("Host", HOST), ("X-Groups", "\"a\"")];
    let first = thread::spawn(move || client::get(proxy, "/slow", &asked).text());
    front.origin.wait_for_requests(1);
    write(&front, "\"a\"", &[]);
    gate.open();
    assert_eq!(first.join().unwrap(), "a");
    assert_eq!(front.told("/slow", &asked[1..], 2), [STORED, HIT]);
}

/// With a Redis, whose state every start waits for.
fn start(origin: &Origin, redis: &RedisServer) -> Larder {
    let more = format!(
        "[cache]\nredis = \"{}\"\nredis_deadline = \"2s\"\n[[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"api\"",
        redis.url()
    );
    let config = configuration(origin, &more).replace("admin = \"off\"", "admin = \"127.0.0.1:0\"");
    let larder = Larder::start(&config);
    assert!(within(PATIENCE, || larder.stats()["tiers"]["redis"]["up"] == true));
    larder
}

fn wait_until_written(larder: &Larder, writes: u64) {
    let written = || larder.stats()["tiers"]["redis"]["writes"].as_u64() >= Some(writes);
    assert!(within(PATIENCE, written), "{:#}", larder.stats()["tiers"]);
}

fn ask(larder: &Larder, path: &str, groups: &str) -> String {
    told(&larder.get(path, &[("Host", HOST), ("X-Groups", groups)]))
}

const FROM_REDIS: &str = "HIT larder; hit; detail=redis";

#[test]
fn other_processes_and_later_ones_see_it_in_redis() {
    let (redis, origin) = (RedisServer::start(), Origin::start(grouped));
    let first = start(&origin, &redis);
    for (path, groups) in [("/a", "\"a\", \"b\""), ("/c", "\"c\"")] {
        assert_eq!(ask(&first, path, groups), STORED);
    }
    wait_until_written(&first, 2);
    // Another one has it from there, and nothing has been purged yet.
    let second = start(&origin, &redis);
    assert_eq!(ask(&second, "/a", ""), FROM_REDIS);
    client::request(first.proxy(), "POST", "/w", &[("Host", HOST), ("X-Invalidate", "\"b\"")], b"x");
    drop((first, second));
    let third = start(&origin, &redis);
    assert_eq!(ask(&third, "/c", ""), FROM_REDIS);
    assert_eq!(ask(&third, "/a", "\"a\", \"b\""), STORED, "void");
    // What is fetched after it is good for everyone.
    wait_until_written(&third, 1);
    assert_eq!(ask(&start(&origin, &redis), "/a", ""), FROM_REDIS);
}

#[test]
fn a_redis_that_does_not_take_it_is_told_again() {
    let (redis, origin) = (RedisServer::start(), Origin::start(grouped));
    let larder = start(&origin, &redis);
    assert_eq!(ask(&larder, "/a", "\"a\""), STORED);
    wait_until_written(&larder, 1);
    redis.pause();
    let fields = [("Host", HOST), ("X-Invalidate", "\"a\"")];
    assert_eq!(client::request(larder.proxy(), "POST", "/w", &fields, b"x").status, 200);
    redis.resume();
    let told_again = || redis.keys().iter().any(|key| key.contains(":G:"));
    assert!(within(PATIENCE, told_again), "{:?}", redis.keys());
    drop(larder);
    assert_eq!(ask(&start(&origin, &redis), "/a", "\"a\""), STORED);
}

#[test]
fn what_stood_in_for_a_failing_origin_when_its_group_went_is_not_confirmed_back() {
    let front = Front::new("", |request| match (request.method.as_str(), request.header("if-none-match")) {
        ("POST", _) => grouped(request),
        (_, "") if request.count == 1 => {
            let kept = [("Cache-Control", "max-age=0, stale-if-error=600"), ("ETag", "\"old\"")];
            Script::ok("old", &[kept[0], kept[1], ("Cache-Groups", "\"a\"")])
        }
        (_, "") => Script::ok("new", &[("Cache-Control", "max-age=600")]),
        _ if request.count == 2 => Script::respond(503, &[], "down"),
        _ => Script::respond(304, &[("Cache-Control", "max-age=600"), ("ETag", "\"old\"")], ""),
    });
    assert_eq!(front.told("/x", &[], 1), [STORED]);
    assert_eq!(front.get("/x", &[]).header("x-cache"), "STALE");
    write(&front, "\"a\"", &[]);
    // The fetch that failed may still hold the key's seat; those who come meanwhile are noticed by it.
    let hit = || {
        let response = front.get("/x", &[]);
        assert_eq!(response.text(), "new");
        told(&response) == HIT
    };
    assert!(within(PATIENCE, hit));
    let conditional = |request: &&Request| !request.header("if-none-match").is_empty();
    assert_eq!(front.origin.requests().iter().filter(conditional).count(), 1, "before it went");
}
