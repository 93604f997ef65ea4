//! A sample of hits is fetched again and compared: what then comes out, and that nobody is hindered by it.
//!
//! Every hit is of the sample here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use flate2::Compression;
use flate2::write::GzEncoder;
use support::front::{self, HIT, HOST, STORED, told};
use support::{Gate, Larder, Origin, PATIENCE, RedisServer, Request, Script, client, within};

const MINUTE: (&str, &str) = ("Cache-Control", "max-age=60");
const QUARANTINED: &str = "MISS larder; fwd=uri-miss; detail=quarantined";

fn larder_with(origin: &Origin, cache: &str, route: &str) -> Larder {
    let all = "[[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nupstream = \"api\"\n[route.cache]";
    let config = front::configuration(origin, &format!("[cache]\n{cache}\n{all}\n{route}"));
    Larder::start(&config.replace("admin = \"off\"", "admin = \"127.0.0.1:0\""))
}

fn larder(origin: &Origin) -> Larder {
    larder_with(origin, "verify = \"1/1\"", "")
}

fn get(larder: &Larder, path: &str, headers: &[(&str, &str)]) -> client::Response {
    larder.get(path, &[headers, &[("Host", HOST)]].concat())
}

fn found(larder: &Larder, finding: &str) -> f64 {
    larder.metric(&format!("larder_verified_total{{route=\"all\",finding=\"{finding}\"}}")).unwrap()
}

#[track_caller]
fn wait_for(larder: &Larder, finding: &str, times: usize) {
    let enough = || found(larder, finding) >= times as f64;
    assert!(within(PATIENCE, enough), "{finding}: {}", larder.metrics());
}

#[test]
fn an_answer_that_depends_on_what_the_key_does_not_count_is_taken_back() {
    let origin = Origin::start(|request| Script::ok(format!("for {}", request.header("x-user")), &[MINUTE]));
    let larder = larder(&origin);
    let of = |user| get(&larder, "/me?token=hush", &[("X-User", user)]);
    assert_eq!(told(&of("user-a")), STORED);
    assert_eq!(of("user-b").text(), "for user-a", "it is given once more, and looked at behind");
    wait_for(&larder, "unkeyed", 1);
    let line = larder.err.wait_for_line(|line| line.contains("larder::verify"), PATIENCE);
    assert!(line.contains("\"route\":\"all\"") && line.contains("\"finding\":\"unkeyed\""), "{line}");
    assert!(!line.contains("hush") && !line.contains("/me") && !line.contains("for user"), "{line}");
    for user in ["user-c", "user-d", "user-c"] {
        assert!(within(PATIENCE, || told(&of(user)) == QUARANTINED));
        assert_eq!(of(user).text(), format!("for {user}"));
    }
    assert_eq!(told(&get(&larder, "/other", &[])), STORED, "other keys are as before");
}

/// An origin that is told to put something else into what it says.
fn reflecting(request: &Request) -> Script {
    Script::ok(format!("from {}", request.header("x-evil")), &[MINUTE])
}

#[test]
fn what_was_planted_a_moment_ago_is_taken_back() {
    let origin = Origin::start(reflecting);
    let larder = larder(&origin);
    assert_eq!(get(&larder, "/", &[("X-Evil", "evil")]).text(), "from evil");
    assert_eq!(told(&get(&larder, "/", &[])), HIT);
    wait_for(&larder, "planted", 1);
    assert!(within(PATIENCE, || told(&get(&larder, "/", &[("X-Evil", "evil")])) == QUARANTINED));
    assert_eq!(get(&larder, "/", &[]).text(), "from ", "and cannot be planted again");
}

#[test]
fn a_redirect_or_a_permission_that_was_planted_is_found_without_any_body() {
    let origin = Origin::start(|request| {
        let to = format!("https://{}/", request.header("x-evil"));
        match request.target.as_str() {
            "/location" => Script::respond(301, &[MINUTE, ("Location", &to)], ""),
            _ => Script::ok("", &[MINUTE, ("Access-Control-Allow-Origin", &to)]),
        }
    });
    let larder = larder(&origin);
    for (nth, path) in ["/location", "/permission"].into_iter().enumerate() {
        get(&larder, path, &[("X-Evil", "evil.test")]);
        assert_eq!(told(&get(&larder, path, &[])), HIT, "{path}");
        wait_for(&larder, "planted", nth + 1);
    }
}

#[test]
fn the_key_is_cached_again_after_its_quarantine() {
    let origin = Origin::start(reflecting);
    let larder = larder_with(&origin, "verify = \"1/1\"\nquarantine = \"200ms\"\nhit_for_miss = \"1ms\"", "");
    get(&larder, "/", &[("X-Evil", "evil")]);
    get(&larder, "/", &[]);
    wait_for(&larder, "planted", 1);
    assert!(within(PATIENCE, || told(&get(&larder, "/", &[])) == HIT));
    assert_eq!(get(&larder, "/", &[]).text(), "from ");
    assert_eq!(found(&larder, "planted"), 1.0);
}

#[test]
fn what_is_the_same_stays_and_what_never_is_the_same_accuses_nobody() {
    let count = AtomicUsize::new(0);
    let origin = Origin::start(move |request| match request.target.as_str() {
        "/steady" => Script::ok("steady", &[MINUTE]),
        _ => Script::ok(format!("number {}", count.fetch_add(1, Ordering::Relaxed)), &[MINUTE]),
    });
    let larder = larder(&origin);
    for (path, finding, asked) in [("/steady", "same", 1), ("/number", "unstable", 4)] {
        assert_eq!(told(&get(&larder, path, &[])), STORED);
        assert_eq!(told(&get(&larder, path, &[])), HIT);
        wait_for(&larder, finding, 1);
        assert_eq!(origin.count(path), 1 + asked, "{path}");
        assert_eq!(told(&get(&larder, path, &[])), HIT, "{path}");
        wait_for(&larder, finding, 2);
    }
}

#[test]
fn what_has_changed_by_its_own_word_is_fetched_anew_and_looked_at_again() {
    let changed = Arc::new(AtomicBool::new(false));
    let says = Arc::clone(&changed);
    let origin = Origin::start(move |_| match says.load(Ordering::Acquire) {
        false => Script::ok("old", &[MINUTE]),
        // Changed since: later than any clock that runs this test.
        true => Script::ok("new", &[MINUTE, ("Last-Modified", "Fri, 01 Jan 2100 00:00:00 GMT")]),
    });
    let larder = larder(&origin);
    assert_eq!(told(&get(&larder, "/", &[])), STORED);
    changed.store(true, Ordering::Release);
    assert_eq!(get(&larder, "/", &[]).text(), "old");
    wait_for(&larder, "changed", 1);
    assert!(within(PATIENCE, || get(&larder, "/", &[]).text() == "new"));
    assert_eq!(told(&get(&larder, "/", &[])), HIT, "it is cached as before");
    wait_for(&larder, "same", 1);
    assert_eq!((found(&larder, "planted"), found(&larder, "unkeyed")), (0.0, 0.0));
}

/// An honest page changes when it does, also a moment after it was stored, and without a word.
#[test]
fn what_changes_a_moment_after_it_was_stored_is_no_attack() {
    let changed = Arc::new(AtomicBool::new(false));
    let says = Arc::clone(&changed);
    let origin = Origin::start(move |_| match says.load(Ordering::Acquire) {
        false => Script::ok("old", &[MINUTE, ("ETag", "\"1\"")]),
        true => Script::ok("new", &[MINUTE, ("ETag", "\"2\"")]),
    });
    let larder = larder(&origin);
    assert_eq!(told(&get(&larder, "/", &[("User-Agent", "a")])), STORED);
    changed.store(true, Ordering::Release);
    assert_eq!(get(&larder, "/", &[("User-Agent", "b")]).text(), "old");
    wait_for(&larder, "changed", 1);
    assert!(within(PATIENCE, || get(&larder, "/", &[]).text() == "new"));
    assert_eq!(told(&get(&larder, "/", &[])), HIT, "it is cached as before");
    assert_eq!((found(&larder, "planted"), found(&larder, "unkeyed")), (0.0, 0.0));
}

#[test]
fn an_attackers_own_hit_clears_nothing() {
    let changed = Arc::new(AtomicBool::new(false));
    let says = Arc::clone(&changed);
    let origin =
        Origin::start(move |request| match (says.load(Ordering::Acquire), request.header("x-evil")) {
            (false, _) => Script::ok("old", &[MINUTE]),
            (true, evil) => Script::ok(format!("new {evil}"), &[MINUTE]),
        });
    let larder = larder(&origin);
    get(&larder, "/", &[]);
    changed.store(true, Ordering::Release);
    get(&larder, "/", &[]);
    wait_for(&larder, "changed", 1);
    // The key is suspect now. Who plants something and asks for it at once gets it from either, of course.
    let evil = [("X-Evil", "evil")];
    assert!(within(PATIENCE, || get(&larder, "/", &evil).text() == "new evil"));
    assert_eq!(get(&larder, "/", &evil).text(), "new evil");
    wait_for(&larder, "unkeyed", 1);
    assert_eq!(found(&larder, "same"), 0.0);
    assert!(within(PATIENCE, || told(&get(&larder, "/", &[])) == QUARANTINED));
}

#[test]
fn what_was_planted_with_a_cookie_is_found_without_it() {
    let origin = Origin::start(|request| {
        Script::ok(format!("from {}", request.header("x-evil")), &[("Cache-Control", "public, max-age=60")])
    });
    let larder = larder(&origin);
    get(&larder, "/", &[("X-Evil", "evil"), ("Cookie", "mine=1")]);
    assert_eq!(get(&larder, "/", &[]).text(), "from evil");
    wait_for(&larder, "planted", 1);
    assert_eq!(origin.requests().iter().filter(|asked| !asked.header("cookie").is_empty()).count(), 1);
}

#[test]
fn an_origin_that_encodes_otherwise_each_time_says_the_same() {
    let level = AtomicUsize::new(0);
    let origin = Origin::start(move |_| {
        let level = level.fetch_add(1, Ordering::Relaxed) % 9 + 1;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level.try_into().unwrap()));
        encoder.write_all(&b"the same text over and over. ".repeat(400)).unwrap();
        Script::ok(
            encoder.finish().unwrap(),
            &[MINUTE, ("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")],
        )
    });
    let larder = larder(&origin);
    let gzip = [("Accept-Encoding", "gzip")];
    assert_eq!(told(&get(&larder, "/", &gzip)), STORED);
    assert_eq!(told(&get(&larder, "/", &gzip)), HIT);
    wait_for(&larder, "same", 1);
}

#[test]
fn what_vary_names_is_asked_for_as_it_was() {
    let origin = Origin::start(|request| {
        Script::ok(request.header("accept-language"), &[MINUTE, ("Vary", "Accept-Language")])
    });
    let larder = larder(&origin);
    for (nth, language) in ["de", "en"].into_iter().enumerate() {
        let fields = [("Accept-Language", language)];
        get(&larder, "/", &fields);
        assert_eq!(told(&get(&larder, "/", &fields)), HIT, "{language}");
        wait_for(&larder, "same", nth + 1);
    }
}

#[test]
fn nobodys_credentials_are_used_behind_their_back_and_off_means_off() {
    let origin = Origin::start(|_| Script::ok("x", &[("Cache-Control", "public, max-age=60")]));
    let larder = larder(&origin);
    get(&larder, "/", &[]);
    for fields in
        [("Cookie", "session=1"), ("Authorization", "Bearer x"), ("X-Csrf-Token", "x"), ("X-Wp-Nonce", "x")]
    {
        assert_eq!(told(&get(&larder, "/", &[fields])), HIT);
    }
    assert_eq!(told(&get(&larder, "/", &[])), HIT);
    wait_for(&larder, "same", 1);
    assert_eq!(origin.count("/"), 2, "once for the first, and once for the hit without credentials");

    // Also where the route says that who asks does not matter, or makes it part of the key.
    for (path, route) in
        [("/share", "authorization = \"share\""), ("/keyed", "key.headers = [\"X-Api-Key\"]")]
    {
        let larder = larder_with(&origin, "verify = \"1/1\"", route);
        let key = [("X-Api-Key", "mine")];
        get(&larder, path, &key);
        assert_eq!(told(&get(&larder, path, &key)), HIT);
        assert_eq!(told(&get(&larder, path, &key)), HIT);
        get(&larder, "/other", &[]);
        assert_eq!(told(&get(&larder, "/other", &[])), HIT);
        wait_for(&larder, "same", 1);
        assert_eq!(origin.count(path), 1, "{path}");
    }

    let silent = larder_with(&origin, "", "");
    get(&silent, "/off", &[]);
    for _ in 0..50 {
        assert_eq!(told(&get(&silent, "/off", &[])), HIT);
    }
    assert_eq!(origin.count("/off"), 1);
}

#[test]
fn a_hit_waits_for_no_look_and_only_so_many_are_taken_at_once() {
    let gate = Gate::new();
    let waiting = gate.clone();
    let origin = Origin::start(move |request| match request.count {
        1 => Script::ok("x", &[MINUTE]),
        _ => Script::new().wait(&waiting).then_ok("x", &[MINUTE]),
    });
    let larder = larder(&origin);
    get(&larder, "/", &[]);
    for _ in 0..20 {
        assert_eq!(told(&get(&larder, "/", &[])), HIT);
    }
    gate.wait_for_arrivals(2);
    assert_eq!(gate.arrived(), 2);
    gate.open();
    wait_for(&larder, "same", 2);
    assert_eq!(origin.count("/"), 3);
}

#[test]
fn an_origin_that_fails_or_sends_more_than_can_be_held_accuses_nobody() {
    let origin = Origin::start(|request| match (request.target.as_str(), request.count) {
        ("/fails", 1) => Script::ok("x", &[MINUTE]),
        ("/fails", _) => Script::respond(503, &[], "no"),
        (_, 1) => Script::ok("x", &[MINUTE]),
        _ => Script::ok(vec![b'x'; (1 << 20) + 1], &[MINUTE]),
    });
    let larder = larder(&origin);
    for (nth, path) in ["/fails", "/grows"].into_iter().enumerate() {
        get(&larder, path, &[]);
        assert_eq!(told(&get(&larder, path, &[])), HIT);
        wait_for(&larder, "unanswered", nth + 1);
        assert_eq!(told(&get(&larder, path, &[])), HIT);
    }
}

/// Who plants by way of a process that looks at nothing meets another that no longer takes the key's from there.
#[test]
fn a_suspect_key_takes_nothing_from_redis() {
    let redis = RedisServer::start();
    let changed = Arc::new(AtomicBool::new(false));
    let says = Arc::clone(&changed);
    let origin = Origin::start(move |request| match says.load(Ordering::Acquire) {
        false => Script::ok("old", &[MINUTE]),
        true => Script::ok(format!("new {}", request.header("x-evil")), &[MINUTE]),
    });
    let cache = format!("redis = \"{}\"\nredis_deadline = \"5s\"", redis.url());
    let larder = larder_with(&origin, &format!("verify = \"1/1\"\n{cache}"), "");
    get(&larder, "/", &[]);
    changed.store(true, Ordering::Release);
    get(&larder, "/", &[]);
    wait_for(&larder, "changed", 1);
    let holds_it = || redis.keys().iter().any(|key| key.ends_with(":-"));
    assert!(within(PATIENCE, || !holds_it()), "it is purged");
    let other = larder_with(&origin, &cache, "");
    assert_eq!(get(&other, "/", &[("X-Evil", "evil")]).text(), "new evil");
    assert!(within(PATIENCE, holds_it), "it is planted");
    let victim = get(&larder, "/", &[]);
    assert_eq!((told(&victim).as_str(), victim.text().as_str()), (STORED, "new "));
}

#[test]
fn what_was_planted_leaves_redis_too() {
    let redis = RedisServer::start();
    let origin = Origin::start(reflecting);
    let url = redis.url();
    let cache = format!("verify = \"1/1\"\nredis = \"{url}\"\nredis_deadline = \"5s\"");
    let larder = larder_with(&origin, &cache, "");
    get(&larder, "/", &[("X-Evil", "evil")]);
    assert!(within(PATIENCE, || redis.keys().iter().any(|key| key.ends_with(":-"))));
    get(&larder, "/", &[]);
    wait_for(&larder, "planted", 1);
    let line = larder.err.wait_for_line(|line| line.contains("larder::verify"), PATIENCE);
    assert!(line.contains("planted"), "{line}");
    // Another process, which has heard of nothing, finds nothing of it.
    let other = larder_with(&origin, &format!("redis = \"{url}\"\nredis_deadline = \"5s\""), "");
    let first = get(&other, "/", &[]);
    assert_eq!((told(&first).as_str(), first.text().as_str()), (STORED, "from "));
    // And the one that found it takes nothing from there for a while, whoever puts it there.
    assert_eq!(told(&get(&larder, "/", &[])), QUARANTINED);
}
