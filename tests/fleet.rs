//! Several Larders in front of one origin, with one Redis, as one cache.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{
    Gate, Larder, Mode, Origin, PATIENCE, RedisServer, Relay, Response, Script, client, tier, within,
};

/// What one node stored, the others must find, and their ports differ.
const HOST: (&str, &str) = ("Host", "api.test");

fn config(origin: &Origin, redis: &str, cache: &str, route: &str) -> String {
    let cache = format!("redis = \"{redis}\"\nredis_deadline = \"2s\"\n{cache}");
    tier::configuration(origin, &cache, &format!("keep = \"10m\"\n{route}"))
}

const COHERENCE: &str = "coherence = { bound = \"1s\", when_lost = \"2s\" }";

fn node(origin: &Origin, redis: &str) -> Larder {
    tier::join(&config(origin, redis, COHERENCE, ""))
}

/// An origin whose every answer says which one for its target it is; of ten, each one's first is tagged.
fn tagging() -> Origin {
    Origin::start(|request| {
        let number: usize = request.target.trim_start_matches('/').parse().unwrap_or(1);
        let tag = if number.is_multiple_of(10) { "tenth all" } else { "all" };
        Script::ok(format!("{} #{}", request.target, request.count), &[("Surrogate-Key", tag)])
    })
}

fn fetch(larder: &Larder, path: &str) -> Response {
    let response = larder.get(path, &[HOST]);
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    response
}

/// Fetches these by the first node, and once they are in Redis by the others: all of them hold the first answer.
fn warm(nodes: &[&Larder], paths: &[String]) {
    let (first, others) = nodes.split_first().unwrap();
    let writes = || first.stats()["tiers"]["redis"]["writes"].as_u64().unwrap();
    let before = writes();
    for path in paths {
        assert_eq!(fetch(first, path).text(), format!("{path} #1"));
    }
    assert!(within(PATIENCE, || writes() >= before + paths.len() as u64), "{:#}", first.stats()["tiers"]);
    for larder in others {
        for path in paths {
            assert_eq!(fetch(larder, path).text(), format!("{path} #1"));
        }
    }
}

fn purge(larder: &Larder, what: &Value) -> (u16, Value) {
    let response = client::request(
        larder.admin(),
        "POST",
        "/purge",
        &[("Content-Type", "application/json")],
        what.to_string().as_bytes(),
    );
    (response.status, response.json())
}

fn coherence(larder: &Larder) -> String {
    larder.stats()["fleet"]["coherence"].as_str().unwrap_or_default().to_owned()
}

/// Issue's first scene: what is tagged is fresh on every node within the bound, and nothing else is fetched.
#[test]
fn a_purge_of_a_tag_reaches_the_memory_of_every_node_and_touches_nothing_else() {
    let (redis, origin) = (RedisServer::start(), tagging());
    let nodes: Vec<Larder> = (0..3).map(|_| node(&origin, &redis.url())).collect();
    let all: Vec<&Larder> = nodes.iter().collect();
    warm(&all, &(0..1_000).map(|number| format!("/{number}")).collect::<Vec<_>>());
    for larder in &nodes {
        assert!(fetch(larder, "/1").header("cache-status").ends_with("detail=memory"));
    }
    let (status, receipt) = purge(&nodes[0], &json!({ "tags": ["tenth"], "wait": "5s" }));
    assert_eq!(status, 200, "{receipt:#}");
    assert_eq!(receipt["fleet"]["acknowledged"].as_array().map(Vec::len), Some(3), "{receipt:#}");
    assert_eq!(receipt["fleet"]["missing"], json!([]), "{receipt:#}");
    assert!(receipt["fleet"]["sequence"].as_u64() >= Some(1), "{receipt:#}");
    for number in 0..1_000 {
        let path = format!("/{number}");
        for larder in &nodes {
            let text = fetch(larder, &path).text();
            assert_eq!(text == format!("{path} #1"), number % 10 != 0, "{path}: {text}");
        }
    }
    for number in 0..1_000 {
        let count = origin.count(&format!("/{number}"));
        // A node that asks before another's answer has been written to Redis asks the origin.
        assert!(if number % 10 == 0 { (2..=4).contains(&count) } else { count == 1 }, "/{number}: {count}");
    }
}

#[test]
fn each_node_shows_the_purges_of_the_others_and_who_asked_for_its_own() {
    let (redis, origin) = (RedisServer::start(), tagging());
    let (a, b) = (node(&origin, &redis.url()), node(&origin, &redis.url()));
    for body in
        [json!({ "tags": ["tenth"], "wait": "5s" }), json!({ "url": "http://api.test/1", "wait": "5s" })]
    {
        assert_eq!(purge(&a, &body).0, 200);
    }
    let row = |receipt: &Value| ["by", "of", "first"].map(|name| receipt[name].as_str().unwrap().to_owned());
    let own: Vec<_> = a.purges().iter().map(row).collect();
    let by = "the admin listener";
    assert_eq!(own, [[by, "url 1", "http://api.test/1"], [by, "tag 1", "tenth"]]);
    let mut heard = Vec::new();
    let all = within(PATIENCE, || {
        heard = b.purges().iter().map(row).collect();
        heard.len() >= 2
    });
    assert!(all, "{heard:?}");
    heard.sort();
    assert_eq!(
        heard,
        [["another node", "tag", "tenth"], ["another node, or a write there", "url", "http://api.test/1"]]
    );
}

/// The second: a node that cannot hear serves nothing purged for longer than `when_lost`, says how it
/// stands, and heals by itself.
#[test]
fn a_node_that_is_cut_off_serves_nothing_purged_past_its_bound_and_heals() {
    let (redis, origin) = (RedisServer::start(), tagging());
    let relay = Relay::start(redis.addr());
    let (a, c) = (node(&origin, &redis.url()), node(&origin, &relay.url()));
    warm(&[&a, &c], &["/10", "/20", "/11"].map(str::to_owned));
    relay.set(Mode::Stall);
    let (status, receipt) = purge(&a, &json!({ "tags": ["tenth"], "wait": "100ms" }));
    let purged = Instant::now();
    assert_eq!(status, 200, "{receipt:#}");
    assert_eq!(receipt["fleet"]["missing"].as_array().map(Vec::len), Some(1), "{receipt:#}");
    let mut fresh = None;
    let heard = within(PATIENCE, || {
        let asked = Instant::now();
        if fetch(&c, "/10").text() == "/10 #1" {
            assert!(asked.duration_since(purged) <= Duration::from_millis(2_100), "purged, and served");
            return false;
        }
        fresh = Some(asked);
        true
    });
    assert!(heard && fresh.is_some());
    assert_ne!(coherence(&c), "ok");
    let ready = client::get(c.admin(), "/readyz", &[]);
    assert_eq!(ready.status, 200, "it serves on");
    assert!(ready.text().contains("purges"), "{}", ready.text());
    relay.set(Mode::Pass);
    assert!(within(PATIENCE, || coherence(&c) == "ok"), "{:#}", c.stats()["fleet"]);
    assert_eq!(fetch(&c, "/20").text(), "/20 #2", "made good before memory is trusted again");
    assert_eq!(
        origin.count("/11"),
        1,
        "within when_lost of its own fetch, or confirmed by what another stored"
    );
}

/// The third: what was being fetched when it was purged is not served afterwards, on any node.
#[test]
fn what_was_being_fetched_when_it_was_purged_is_not_served_after_it() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |request| {
        let script = Script::ok(format!("#{}", request.count), &[("Surrogate-Key", "t")]);
        if request.count == 1 { Script::new().wait(&held).then(script) } else { script }
    });
    let redis = RedisServer::start();
    let (a, b) = (node(&origin, &redis.url()), node(&origin, &redis.url()));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| fetch(&a, "/x"));
        assert!(within(PATIENCE, || origin.count("/x") == 1));
        let (status, receipt) = purge(&b, &json!({ "tags": ["t"], "wait": "5s" }));
        assert_eq!((status, receipt["fleet"]["missing"].clone()), (200, json!([])), "{receipt:#}");
        gate.open();
        assert_eq!(first.join().unwrap().text(), "#1", "who asked before it");
    });
    for larder in [&a, &b, &a, &b] {
        assert_ne!(fetch(larder, "/x").text(), "#1");
    }
}

/// With Redis gone a purge says that it has not reached the others, and reaches them later.
#[test]
fn a_purge_that_cannot_be_told_fails_loudly_and_is_not_lost() {
    let (mut redis, origin) = (RedisServer::start(), tagging());
    let (a, b) = (node(&origin, &redis.url()), node(&origin, &redis.url()));
    warm(&[&a, &b], &["/10".to_owned()]);
    redis.stop();
    assert!(within(PATIENCE, || a.stats()["tiers"]["redis"]["up"] == false));
    let (status, answer) = purge(&a, &json!({ "tags": ["tenth"] }));
    assert_eq!(status, 503, "{answer:#}");
    let said = answer["fleet"]["error"].as_str().unwrap_or_default().to_owned();
    assert!(said.contains("on this node only"), "{answer:#}");
    assert_eq!(fetch(&a, "/10").text(), "/10 #2");
    redis.restart_on_same_port();
    assert!(within(PATIENCE, || fetch(&b, "/10").text() != "/10 #1"), "told when Redis is back");
}

/// A write through one node purges the memory of the others.
#[test]
fn a_write_through_one_node_reaches_the_others() {
    let (redis, origin) = (RedisServer::start(), tagging());
    let (a, b) = (node(&origin, &redis.url()), node(&origin, &redis.url()));
    warm(&[&a, &b], &["/10".to_owned()]);
    let written = client::request(a.proxy(), "PUT", "/10", &[HOST], b"new");
    assert_eq!(written.status, 200);
    assert_eq!(fetch(&a, "/10").text(), "/10 #3", "the PUT was the second");
    assert!(within(PATIENCE, || fetch(&b, "/10").text() == "/10 #3"), "{}", fetch(&b, "/10").text());
}

/// The fleet's page names every node, and one that has left no more.
#[test]
fn the_nodes_of_a_fleet_are_listed_until_they_leave() {
    let (redis, origin) = (RedisServer::start(), tagging());
    let (a, mut b) = (node(&origin, &redis.url()), node(&origin, &redis.url()));
    let nodes = |larder: &Larder| client::get(larder.admin(), "/fleet", &[]).json()["nodes"].clone();
    assert!(within(PATIENCE, || nodes(&a).as_array().map(Vec::len) == Some(2)), "{:#}", nodes(&a));
    let listed = nodes(&a);
    let addresses: Vec<&str> =
        listed.as_array().unwrap().iter().filter_map(|node| node["address"].as_str()).collect();
    for larder in [&a, &b] {
        assert!(addresses.contains(&larder.admin().to_string().as_str()), "{listed:#}");
    }
    assert_eq!(listed.as_array().unwrap().iter().filter(|node| node["this"] == true).count(), 1);
    b.terminate();
    b.wait_exit(PATIENCE);
    assert!(within(PATIENCE, || nodes(&a).as_array().map(Vec::len) == Some(1)), "{:#}", nodes(&a));
}

/// A purge of as many as one request may name is told in few questions: the link takes 256 at a time, and the
/// node's own question must get through beside them.
#[test]
fn a_purge_of_a_thousand_names_at_once_is_told_to_all() {
    let (redis, origin) = (RedisServer::start(), tagging());
    let (a, b) = (node(&origin, &redis.url()), node(&origin, &redis.url()));
    warm(&[&a, &b], &["/1".to_owned()]);
    let tags: Vec<String> = (0..1_023).map(|number| format!("t{number}")).chain(["all".to_owned()]).collect();
    let urls: Vec<String> = (0..1_024).map(|number| format!("http://api.test/{number}")).collect();
    for names in [json!({ "tags": tags, "wait": "5s" }), json!({ "urls": urls, "wait": "5s" })] {
        let (status, receipt) = purge(&a, &names);
        assert_eq!(status, 200, "{:#} {:#}", receipt["redis"], receipt["fleet"]);
        assert_eq!(
            receipt["fleet"]["acknowledged"].as_array().map(Vec::len),
            Some(2),
            "{:#}",
            receipt["fleet"]
        );
        assert_eq!(coherence(&a), "ok");
    }
    assert_eq!(fetch(&b, "/1").text(), "/1 #2");
}
