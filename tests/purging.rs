//! Purges of each scope, hard and soft, over sockets: through the admin listener, the command line and the
//! method PURGE; in memory and in what is read from Redis; and while a fetch is under way.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::thread;

use serde_json::{Value, json};
use support::front::{self, HIT, HOST, STORED};
use support::process::run_to_end;
use support::{
    Connection, Gate, Larder, Origin, PATIENCE, RedisServer, Request, Response, Script, client, within,
};

/// What is gone is as what never was; see [`told`].
const PURGED: &str = STORED;
const CONFIRMED: &str = "REVALIDATED larder; fwd=stale; fwd-status=304; stored; detail=soft-purged";
const FROM_REDIS: &str = "HIT larder; hit; detail=redis";

/// A Larder in front of `origin`: `/a/…` is taken by the route `a`, all else by `rest`. `top` are settings of
/// the whole, `tags` is added to both routes.
fn config(origin: &Origin, top: &str, tags: &str) -> String {
    format!(
        r#"
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
workers = 2
{top}
[upstream.api]
servers = ["{}"]
[[route]]
name = "a"
upstream = "api"
match = {{ path = "/a/*" }}
{tags}
[[route]]
name = "rest"
upstream = "api"
match = {{ path = "/*" }}
{tags}
"#,
        origin.url()
    )
}

/// Fresh for ten minutes, confirmed by its tag; with the tags that the request names, each in its field.
fn tagged(request: &Request) -> Script {
    let validators = [("Cache-Control", "max-age=600, stale-while-revalidate=600"), ("ETag", "\"v\"")];
    let named = [
        ("Surrogate-Key", "x-surrogate"),
        ("xkey", "x-xkey"),
        ("Cache-Tag", "x-cache-tag"),
        ("Cache-Groups", "x-groups"),
        ("X-My-Tags", "x-mine"),
    ];
    let fields = named.iter().filter_map(|(name, from)| Some((*name, request.headers.get(from)?)));
    let fields: Vec<_> = validators.into_iter().chain(fields).collect();
    match request.headers.get("if-none-match") {
        Some(_) => Script::respond(304, &fields, ""),
        None => Script::ok(format!("{} #{}", request.target, request.count), &fields),
    }
}

/// As [`front::told`]; whether what was purged still lay in memory, or had been freed, is not told apart.
fn told(response: &Response) -> String {
    front::told(response).replace("; detail=purged", "")
}

fn ask(larder: &Larder, path: &str, fields: &[(&str, &str)]) -> Response {
    let mut sent = vec![("Host", HOST)];
    sent.extend(fields);
    let response = client::get(larder.proxy(), path, &sent);
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    response
}

fn post(larder: &Larder, body: &Value) -> Response {
    client::request(larder.admin(), "POST", "/purge", &[], body.to_string().as_bytes())
}

fn purge(larder: &Larder, body: &Value) -> Value {
    let answer = post(larder, body);
    assert_eq!(answer.status, 200, "{body}: {}", answer.text());
    answer.json()
}

const TAGS: &[(&str, &str)] = &[("X-Surrogate", "one two")];

/// What names `/a/1` on [`HOST`] with [`TAGS`], and not `/b/1` on another host with the tag `two` alone.
fn scopes() -> Vec<Value> {
    vec![
        json!({ "url": "http://api.test/a/1" }),
        json!({ "urls": ["http://api.test/x", "http://API.test:80/a/1"] }),
        json!({ "tags": ["one"] }),
        json!({ "tag": "one" }),
        json!({ "prefix": "/a/*" }),
        json!({ "prefixes": ["http://api.test/a/*", "/nothing*"] }),
        json!({ "route": "a" }),
        json!({ "routes": ["a"] }),
    ]
}

fn softly(mut body: Value) -> Value {
    body["soft"] = true.into();
    body
}

#[test]
fn each_scope_voids_what_it_names_in_memory_and_nothing_else() {
    let origin = Origin::start(tagged);
    let larder = Larder::start(&config(&origin, "", ""));
    let one = || told(&ask(&larder, "/a/1", TAGS));
    let other = || {
        let fields = [("Host", "other.test"), ("X-Surrogate", "two")];
        told(&client::get(larder.proxy(), "/b/1", &fields))
    };
    assert_eq!((one(), other()), (STORED.into(), STORED.into()));
    for body in scopes() {
        let said = purge(&larder, &body);
        assert_eq!((&said["purged"], &said["soft"]), (&json!(true), &json!(false)), "{said}");
        for (name, value) in body.as_object().unwrap().iter().filter(|(_, value)| value.is_array()) {
            assert_eq!(said[name], *value, "it tells what was purged");
        }
        assert_eq!([one(), one(), other()], [PURGED, HIT, HIT], "{body}");
        purge(&larder, &softly(body.clone()));
        assert_eq!([one(), one(), other()], [CONFIRMED, HIT, HIT], "soft {body}");
    }
    for body in [json!({ "tags": ["two"] }), json!({ "all": true }), json!({ "prefix": "/*" })] {
        purge(&larder, &body);
        assert_eq!([one(), other()], [PURGED, PURGED], "{body}");
        purge(&larder, &softly(body.clone()));
        assert_eq!([one(), other()], [CONFIRMED, CONFIRMED], "soft {body}");
    }
}

#[test]
fn any_number_may_be_named_at_once() {
    let origin = Origin::start(tagged);
    let larder = Larder::start(&config(&origin, "", ""));
    let paths: Vec<String> = (0..6).map(|nth| format!("/{nth}/x")).collect();
    let told = |path: &String| told(&ask(&larder, path, &[("X-Surrogate", &path[1..2])]));
    paths.iter().for_each(|path| assert_eq!(told(path), STORED));
    let urls = ["http://api.test/0/x", "http://api.test/1/x"];
    let said =
        purge(&larder, &json!({ "urls": urls, "tags": ["2", "3"], "prefixes": ["/4/*"], "wait": "1s" }));
    assert_eq!((&said["urls"], &said["tags"]), (&json!(urls), &json!(["2", "3"])), "{said}");
    let expected = [PURGED, PURGED, PURGED, PURGED, PURGED, HIT];
    assert_eq!(paths.iter().map(told).collect::<Vec<_>>(), expected);
}

#[test]
fn all_variants_and_keys_go_and_a_soft_purge_is_of_all_of_them_too() {
    let origin = Origin::start(tagged);
    let with_key = "[route.cache]\nkey.headers = [\"X-Tenant\"]";
    let larder = Larder::start(&config(&origin, "", with_key));
    let asked: [&[(&str, &str)]; 2] = [&[("X-Tenant", "t")], &[]];
    let told = |fields: &[(&str, &str)]| told(&ask(&larder, "/x?b=1&a=2", fields));
    asked.iter().for_each(|fields| assert_eq!(told(fields), STORED));
    for (body, word) in [
        (json!({ "url": "http://api.test/x?a=2&b=1" }), PURGED),
        (softly(json!({ "url": "http://api.test/x?a=2&b=1" })), CONFIRMED),
    ] {
        purge(&larder, &body);
        asked.iter().for_each(|fields| assert_eq!([told(fields), told(fields)], [word, HIT], "{body}"));
    }
}

#[test]
fn what_is_the_same_for_several_queries_goes_with_each_of_them() {
    let origin = Origin::start(|request| {
        let rule = ("No-Vary-Search", "params=(\"utm\")");
        let kept = [("Cache-Control", "max-age=600"), ("ETag", "\"v\""), rule];
        match request.headers.get("if-none-match") {
            Some(_) => Script::respond(304, &kept, ""),
            None => Script::ok("x", &kept),
        }
    });
    let larder = Larder::start(&config(&origin, "", ""));
    let one = |utm: &str| told(&ask(&larder, &format!("/x?id=1&utm={utm}"), &[]));
    assert_eq!([one("1"), one("2")], [STORED, HIT]);
    for (body, word) in [
        (json!({ "url": "http://api.test/x?id=1&utm=3" }), PURGED),
        (softly(json!({ "url": "http://api.test/x?id=1&utm=3" })), CONFIRMED),
        (json!({ "prefix": "/x*" }), PURGED),
        (softly(json!({ "route": "rest" })), CONFIRMED),
    ] {
        purge(&larder, &body);
        assert_eq!([one("4"), one("5")], [word, HIT], "{body}");
    }
}

#[test]
fn tags_come_from_each_field_and_from_the_route() {
    let origin = Origin::start(tagged);
    let tags = "tags = { static = [\"ours\"], header = \"X-My-Tags\" }";
    let larder = Larder::start(&config(&origin, "", tags));
    let fields = [
        ("X-Surrogate", "s1 s2"),
        ("X-Xkey", "x1, x2 x3"),
        ("X-Cache-Tag", "c 1,c2"),
        ("X-Groups", "\"g\""),
        ("X-Mine", "m1,m2"),
    ];
    let one = || told(&ask(&larder, "/x", &fields));
    assert_eq!(one(), STORED);
    for tag in ["s1", "s2", "x1", "x2", "x3", "c 1", "c2", "g", "m1", "m2", "ours"] {
        purge(&larder, &json!({ "tags": [tag] }));
        assert_eq!([one(), one()], [PURGED, HIT], "{tag}");
    }
    for tag in ["S1", "s1 s2", "c", "x", "rest"] {
        purge(&larder, &json!({ "tags": [tag] }));
        assert_eq!(one(), HIT, "{tag}");
    }
    // A 304 may bring others.
    let fields = [("X-Surrogate", "new")];
    purge(&larder, &softly(json!({ "tags": ["s1"] })));
    assert_eq!(told(&ask(&larder, "/x", &fields)), CONFIRMED);
    purge(&larder, &json!({ "tags": ["s1"] }));
    assert_eq!(one(), HIT, "no longer");
    purge(&larder, &json!({ "tags": ["new"] }));
    assert_eq!(one(), PURGED);
}

#[test]
fn clients_see_no_tags_unless_the_route_shows_them() {
    let hints = [("Link", "</a>; rel=preload"), ("xkey", "x"), ("X-My-Tags", "m")];
    let origin = Origin::start(move |request| match request.target.as_str() {
        "/hints" => Script::interim(103, &hints).then(tagged(request)),
        _ => tagged(request),
    });
    let fields =
        [("X-Surrogate", "s"), ("X-Xkey", "x"), ("X-Cache-Tag", "c"), ("X-Mine", "m"), ("X-Groups", "\"g\"")];
    for (tags, shown) in [("tags.header = \"X-My-Tags\"", false), ("tags.expose = true", true)] {
        let larder = Larder::start(&config(&origin, "", tags));
        let passed =
            || client::request(larder.proxy(), "POST", "/x", &[("Host", HOST), ("X-Surrogate", "s")], b"x");
        for response in [ask(&larder, "/x", &fields), ask(&larder, "/x", &fields)] {
            for name in ["surrogate-key", "xkey", "cache-tag", "x-my-tags"] {
                assert_eq!(response.headers.get(name).is_some(), shown, "{name} {tags}");
            }
            assert_eq!(response.header("cache-groups"), "\"g\"", "of a standard for all caches (RFC 9875)");
        }
        let mut connection = Connection::open(larder.proxy());
        connection.write_head("GET", "/hints", &[("Host", HOST)]);
        let interim = connection.interim_head();
        assert_eq!((interim.status, interim.header("link")), (103, "</a>; rel=preload"));
        for name in ["xkey", "x-my-tags"] {
            assert_eq!(interim.headers.get(name).is_some(), shown, "{name} {tags}");
        }
        assert_eq!(passed().headers.get("surrogate-key").is_some(), shown, "{tags}");
    }
}

#[test]
fn a_response_may_have_64_kib_of_tags_at_default_settings() {
    let tags: Vec<String> = (0..6_600).map(|nth| format!("tag-{nth:05}")).collect();
    let line = tags.join(" ");
    assert!(line.len() >= 64 * 1024, "{}", line.len());
    let sent = line.clone();
    let origin = Origin::start(move |request| {
        let fields = [("Cache-Control", "max-age=600"), ("Surrogate-Key", sent.as_str())];
        Script::ok(format!("#{}", request.count), &fields)
    });
    let redis = RedisServer::start();
    let larder = with_redis(&origin, &redis);
    assert_eq!([told(&ask(&larder, "/x", &[])), told(&ask(&larder, "/x", &[]))], [STORED, HIT]);
    assert_eq!(ask(&larder, "/x", &[]).headers.get("surrogate-key"), None);
    wait_until_written(&larder, 1);
    let second = with_redis(&origin, &redis);
    assert_eq!([told(&ask(&second, "/x", &[])), told(&ask(&second, "/x", &[]))], [FROM_REDIS, HIT]);
    purge(&larder, &json!({ "tags": ["tag-6600", "tag-"] }));
    assert_eq!([told(&ask(&larder, "/x", &[])), told(&ask(&second, "/x", &[]))], [HIT, HIT]);
    purge(&larder, &json!({ "tags": ["tag-06599"] }));
    assert_eq!(told(&ask(&larder, "/x", &[])), PURGED);
    assert!(within(PATIENCE, || ask(&second, "/x", &[]).text() != "#1"), "the other node hears of it");
    let shown = Larder::start(&config(&origin, "", "tags.expose = true"));
    assert_eq!(ask(&shown, "/x", &[]).header("surrogate-key"), line);
}

fn with_redis(origin: &Origin, redis: &RedisServer) -> Larder {
    let cache = format!("[cache]\nredis = \"{}\"\nredis_deadline = \"2s\"\n", redis.url());
    let larder = Larder::start(&config(origin, &cache, ""));
    assert!(within(PATIENCE, || larder.stats()["tiers"]["redis"]["up"] == true));
    larder
}

fn wait_until_written(larder: &Larder, writes: u64) {
    let written = || larder.stats()["tiers"]["redis"]["writes"].as_u64() >= Some(writes);
    assert!(within(PATIENCE, written), "{:#}", larder.stats()["tiers"]);
}

#[test]
fn each_scope_voids_what_is_read_from_redis() {
    let (origin, redis) = (Origin::start(tagged), RedisServer::start());
    let first = with_redis(&origin, &redis);
    let mut writes = 0;
    let everything = [json!({ "all": true }), json!({ "prefix": "/*" })];
    for body in scopes().into_iter().chain(everything) {
        // Each by a process that holds nothing in memory, and has heard of nothing.
        let second = with_redis(&origin, &redis);
        if writes == 0 {
            assert_eq!(told(&ask(&first, "/a/1", TAGS)), STORED);
            writes = 1;
            wait_until_written(&first, writes);
        }
        let one = || told(&ask(&second, "/a/1", TAGS));
        purge(&second, &softly(body.clone()));
        assert_eq!([one(), one()], [CONFIRMED, HIT], "soft {body}");
        wait_until_written(&second, 1);
        purge(&second, &body);
        // It is as if nothing were stored anywhere.
        assert_eq!([one(), one()], [PURGED, HIT], "{body}");
        wait_until_written(&second, 2);
        let third = with_redis(&origin, &redis);
        purge(&third, &body);
        assert_eq!(told(&ask(&third, "/a/1", TAGS)), STORED, "{body}");
        wait_until_written(&third, 1);
        // What was fetched since is good for all who have not purged it.
        let fourth = with_redis(&origin, &redis);
        assert_eq!(told(&ask(&fourth, "/a/1", TAGS)), FROM_REDIS, "{body}");
    }
}

#[test]
fn what_is_being_fetched_when_it_is_purged_is_not_kept() {
    let bodies = scopes().into_iter().chain([json!({ "all": true }), softly(json!({ "all": true }))]);
    for body in bodies {
        let (gate, origin) = {
            let gate = Gate::new();
            let held = gate.clone();
            let origin = Origin::start(move |request| match request.count {
                1 => Script::new().wait(&held).then(tagged(request)),
                _ => tagged(request),
            });
            (gate, origin)
        };
        let larder = Larder::start(&config(&origin, "", ""));
        thread::scope(|scope| {
            let first = scope.spawn(|| ask(&larder, "/a/1", TAGS));
            gate.wait_for_arrivals(1);
            purge(&larder, &body);
            gate.open();
            assert_eq!(first.join().unwrap().text(), "/a/1 #1", "asked before the purge");
        });
        let after = ask(&larder, "/a/1", TAGS);
        // Softly: what was fetched before is confirmed first.
        let expected = if body["soft"] == true { "/a/1 #1" } else { "/a/1 #2" };
        assert_eq!((after.text().as_str(), origin.count("/a/1")), (expected, 2), "{body}");
        assert_eq!(told(&ask(&larder, "/a/1", TAGS)), HIT, "{body}");
    }
}

#[test]
fn what_is_purged_softly_stands_in_for_an_origin_that_fails_and_is_no_grace() {
    let origin = Origin::start(|request| match request.count {
        2 => Script::respond(503, &[], "down"),
        _ => {
            let fields = [
                ("Cache-Control", "max-age=600, stale-while-revalidate=600, stale-if-error=600"),
                ("ETag", "\"v\""),
            ];
            match request.count {
                1 => Script::ok("body", &fields),
                _ => Script::respond(304, &fields, ""),
            }
        }
    });
    let larder = Larder::start(&config(&origin, "", ""));
    let one = || ask(&larder, "/x", &[]);
    assert_eq!(told(&one()), STORED);
    purge(&larder, &softly(json!({ "tags": ["other"], "url": "http://api.test/x" })));
    let stands_in = one();
    assert_eq!((stands_in.header("x-cache"), stands_in.text().as_str()), ("STALE", "body"));
    assert!(within(PATIENCE, || told(&one()) == HIT), "as soon as the origin has confirmed it");
    assert_eq!(origin.last().header("if-none-match"), "\"v\"");
}

#[test]
fn a_head_and_only_if_cached_are_not_answered_by_what_is_purged_softly() {
    let origin = Origin::start(tagged);
    let larder = Larder::start(&config(&origin, "", ""));
    assert_eq!(told(&ask(&larder, "/x", &[])), STORED);
    purge(&larder, &softly(json!({ "all": true })));
    let only = [("Host", HOST), ("Cache-Control", "only-if-cached")];
    assert_eq!(client::get(larder.proxy(), "/x", &only).status, 504);
    client::request(larder.proxy(), "HEAD", "/x", &[("Host", HOST)], b"");
    assert_eq!(origin.last().method, "HEAD", "asked");
}

#[test]
fn what_is_purged_is_freed_though_nobody_asks_for_it_again() {
    let origin = Origin::start(tagged);
    let larder = Larder::start(&config(&origin, "", ""));
    for nth in 0..20 {
        ask(&larder, &format!("/{nth}"), &[("X-Surrogate", if nth < 15 { "old" } else { "new" })]);
    }
    let entries = || larder.stats()["tiers"]["memory"]["entries"].as_u64().unwrap();
    assert_eq!(entries(), 20);
    for (body, left) in [(json!({ "tags": ["old"] }), 5), (json!({ "all": true }), 0)] {
        purge(&larder, &body);
        assert!(within(PATIENCE, || entries() == left), "{body}: {}", entries());
    }
}

#[test]
fn what_cannot_be_purged_is_refused_with_the_reason_and_nothing_is_done() {
    let origin = Origin::start(tagged);
    let larder = Larder::start(&config(&origin, "", ""));
    assert_eq!(told(&ask(&larder, "/a/1", TAGS)), STORED);
    let many: Vec<String> = (0..1_025).map(|nth| nth.to_string()).collect();
    for (body, why) in [
        (json!({}), "nothing is named"),
        (json!({ "soft": true }), "nothing is named"),
        (json!({ "all": false, "tags": [] }), "nothing is named"),
        (json!({ "tags": ["one"], "tgas": ["two"] }), "unknown field `tgas`"),
        (json!({ "tags": "one" }), "expected a sequence"),
        (json!({ "tags": ["one", ""] }), "an empty name"),
        (json!({ "tags": ["one", "x".repeat(9_000)] }), "at most 8192 bytes"),
        (json!({ "tags": ["one"], "url": "/a/1" }), "must be absolute"),
        (json!({ "tags": ["one"], "url": format!("http://api.test/{}", "x".repeat(9_000)) }), "at most 8192"),
        (json!({ "tags": ["one"], "prefix": "/a" }), "ends with *"),
        (json!({ "tags": ["one"], "prefixes": ["/a/*/b*"] }), "only at the end"),
        (json!({ "tags": ["one"], "route": "b" }), "there are: a, rest"),
        (json!({ "tags": ["one"], "wait": "1" }), "wait: a duration needs a unit"),
        (json!({ "tags": ["one"], "wait": "1h" }), "wait: at most"),
        (json!({ "tags": many }), "there may be 1024"),
    ] {
        let answer = post(&larder, &body);
        let said = answer.json()["error"].as_str().unwrap().to_owned();
        assert_eq!(answer.status, 400, "{said}");
        assert!(said.contains(why), "{why}: {said}");
    }
    assert_eq!(told(&ask(&larder, "/a/1", TAGS)), HIT);
}

#[test]
fn a_redis_that_does_not_take_a_url_is_told_of_loudly() {
    let (origin, redis) = (Origin::start(tagged), RedisServer::start());
    let larder = with_redis(&origin, &redis);
    assert_eq!(told(&ask(&larder, "/a/1", TAGS)), STORED);
    redis.pause();
    let body = json!({ "urls": ["http://api.test/a/1"], "wait": "50ms" });
    let answer = post(&larder, &body);
    assert_eq!(answer.status, 503, "{}", answer.text());
    let said = answer.json();
    assert_eq!((&said["purged"], &said["memory"]), (&json!(false), &json!("purged")), "{said}");
    assert!(said["redis"].as_str().unwrap().contains("told in the background"), "{said}");
    redis.resume();
    assert!(within(PATIENCE, || redis.keys().iter().any(|key| key.ends_with(":g"))), "{:?}", redis.keys());
    // A tag is judged here, whatever Redis does.
    assert_eq!(purge(&larder, &json!({ "tags": ["one"] }))["redis"], "judged when it is read");
}

fn purge_method(larder: &Larder, path: &str, fields: &[(&str, &str)]) -> Response {
    let mut sent = vec![("Host", HOST)];
    sent.extend(fields);
    client::request(larder.proxy(), "PURGE", path, &sent, b"")
}

#[test]
fn purge_is_a_method_for_those_whom_the_configuration_names() {
    let origin = Origin::start(tagged);
    let trusting = "trusted_proxies = [\"127.0.0.1\"]\n";
    for (top, fields, status) in [
        ("", &[][..], 405),
        ("purge_from = [\"10.0.0.0/8\"]", &[], 405),
        ("purge_from = [\"10.0.0.0/8\"]", &[("X-Forwarded-For", "10.1.2.3")], 405),
        (&format!("{trusting}purge_from = [\"127.0.0.1\"]"), &[("X-Forwarded-For", "192.0.2.1")], 405),
        (&format!("{trusting}purge_from = [\"10.0.0.0/8\"]"), &[("X-Forwarded-For", "10.1.2.3")], 200),
        ("purge_from = [\"127.0.0.0/8\"]", &[], 200),
    ] {
        let larder = Larder::start(&config(&origin, top, ""));
        assert_eq!(told(&ask(&larder, "/a/1?b=1&a=2", &[])), STORED);
        let answer = purge_method(&larder, "/a/1?a=2&b=1", fields);
        assert_eq!(answer.status, status, "{top} {fields:?}: {}", answer.text());
        let expected = if status == 200 { PURGED } else { HIT };
        assert_eq!(told(&ask(&larder, "/a/1?b=1&a=2", &[])), expected, "{top} {fields:?}");
        if status == 405 {
            assert!(answer.header("allow").contains("GET"), "RFC 9110 §15.5.6");
            continue;
        }
        let mut fields = fields.to_vec();
        fields.push(("Fastly-Soft-Purge", "1"));
        assert_eq!(purge_method(&larder, "/a/1?a=2&b=1", &fields).json()["status"], "ok");
        assert_eq!(told(&ask(&larder, "/a/1?b=1&a=2", &[])), CONFIRMED, "{top}");
    }
    assert!(origin.requests().iter().all(|request| request.method == "GET"), "no origin hears of it");
}

#[test]
fn purge_is_of_both_schemes() {
    let origin = Origin::start(tagged);
    let top = "trusted_proxies = [\"127.0.0.1\"]\npurge_from = [\"127.0.0.1\"]";
    let larder = Larder::start(&config(&origin, top, ""));
    let secure = [("X-Forwarded-Proto", "https")];
    let each = || [told(&ask(&larder, "/x", &[])), told(&ask(&larder, "/x", &secure))];
    assert_eq!([each(), each()], [[STORED, STORED], [HIT, HIT]]);
    assert_eq!(purge_method(&larder, "/x", &[]).status, 200);
    assert_eq!(each(), [PURGED, PURGED]);
}

#[test]
fn a_purge_by_the_method_notes_what_memory_held() {
    let origin = Origin::start(tagged);
    let larder = Larder::start(&config(&origin, "purge_from = [\"127.0.0.1\"]", ""));
    ask(&larder, "/x", &[]);
    for fields in [&[("Fastly-Soft-Purge", "1")][..], &[], &[]] {
        assert_eq!(purge_method(&larder, "/x", fields).status, 200);
    }
    let noted: Vec<_> = larder.purges().iter().map(|receipt| receipt["memory"].clone()).collect();
    assert_eq!(noted, ["held nothing of it", "purged", "to be validated"], "the latest first");
}

#[test]
fn the_command_line_purges_and_says_so() {
    let origin = Origin::start(tagged);
    let text = config(&origin, "admin_token = \"secret\"", "");
    let larder = Larder::start(&text);
    let folder = tempfile::tempdir().unwrap();
    let listening = text.replace("admin = \"127.0.0.1:0\"", &format!("admin = \"{}\"", larder.admin()));
    let write = |text: &str| std::fs::write(folder.path().join("proxy.toml"), text).unwrap();
    write(&listening);
    let run = |args: &[&str]| run_to_end(&[&["purge"], args].concat(), folder.path());
    let one = || told(&ask(&larder, "/a/1", TAGS));
    assert_eq!(one(), STORED);
    for (args, words) in [
        // Whether anything had such a tag nobody has looked.
        (
            &["--tag", "x", "--tag", "one"][..],
            "purged: 2 tags (memory: purged, whatever it held of it; redis: not configured)",
        ),
        (&["--url", "http://api.test/a/1"], "purged: 1 URL (memory: purged; redis: not configured)"),
        (&["--prefix", "/a/*", "--wait", "1s"], "purged: 1 prefix"),
        (&["--route", "a"], "purged: 1 route"),
        (&["--all"], "purged: everything"),
    ] {
        let done = run(args);
        assert_eq!(done.code, Some(0), "{args:?}: {}", done.err);
        assert!(done.out.starts_with(words), "{args:?}: {}", done.out);
        assert_eq!([one(), one()], [PURGED, HIT], "{args:?}");
        let done = run(&[args, &["--soft"]].concat());
        assert!(done.out.starts_with("purged softly: "), "{}{}", done.out, done.err);
        assert_eq!([one(), one()], [CONFIRMED, HIT], "soft {args:?}");
    }
    for (text, args, code, words) in [
        (&listening, &["--route", "b"][..], 1, "there are: a, rest"),
        (&listening, &["--prefix", "/a"], 1, "ends with *"),
        (&listening, &["--soft"], 2, "required"),
        (&listening.replace("secret", "another"), &["--all"], 77, "another admin_token"),
        (
            &text.replace("127.0.0.1:0\"\nworkers", "127.0.0.1:1\"\nworkers"),
            &["--all"],
            69,
            "no Larder answers",
        ),
        (&text.replace("admin = \"127.0.0.1:0\"", "admin = \"off\""), &["--all"], 78, "no admin listener"),
    ] {
        write(text);
        let done = run(args);
        assert_eq!(done.code, Some(code), "{args:?}: {}", done.err);
        assert!(done.err.contains(words), "{args:?}: {}", done.err);
    }
    assert_eq!(one(), HIT);
}
