//! A node that starts reads into memory what the fleet is asked for most, before it says that it is ready.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::time::Duration;

use serde_json::json;
use support::client::{self, Connection};
use support::{
    Cluster, Larder, Mode, Origin, PATIENCE, RedisServer, Relay, Script, tier, unused_address, within,
};

/// What one node stored, the others must find, and their ports differ.
const HOST: (&str, &str) = ("Host", "api.test");
const OFTEN: &str = "warm_start = { every = \"100ms\" }";

fn config(origin: &Origin, redis: &str, cache: &str) -> String {
    let cache = format!("redis = \"{redis}\"\nredis_deadline = \"2s\"\n{cache}");
    tier::configuration(origin, &cache, "keep = \"10m\"\nkey.headers = [\"X-Tenant\"]")
}

fn start(origin: &Origin, redis: &str, cache: &str) -> Larder {
    Larder::start(&config(origin, redis, cache))
}

/// Starts one, and waits until it has joined the fleet and is ready.
fn node(origin: &Origin, redis: &RedisServer, cache: &str) -> Larder {
    let larder = tier::join(&config(origin, &redis.url(), cache));
    assert!(within(PATIENCE, || ready(&larder).0 == 200), "{:#}", larder.stats());
    larder
}

fn ready(larder: &Larder) -> (u16, String) {
    let answer = client::get(larder.admin(), "/readyz", &[]);
    (answer.status, answer.json()["status"].as_str().unwrap_or_default().to_owned())
}

fn warm_start(larder: &Larder, name: &str) -> u64 {
    larder.stats()["warm_start"][name].as_u64().unwrap()
}

/// Waits until so many responses are in Redis, and so many are named there by this node.
fn until_named(larder: &Larder, count: u64) {
    let writes = || larder.stats()["tiers"]["redis"]["writes"].as_u64().unwrap();
    assert!(within(PATIENCE, || writes() >= count), "{:#}", larder.stats()["tiers"]);
    assert!(within(PATIENCE, || warm_start(larder, "named") == count), "{:#}", larder.stats()["warm_start"]);
}

fn paths(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|nth| format!("/{name}/{nth}")).collect()
}

fn fetch(larder: &Larder, paths: &[String]) {
    let mut connection = Connection::open(larder.proxy());
    for path in paths {
        assert_eq!(connection.request("GET", path, &[HOST], b"").status, 200, "{path}");
    }
}

/// How many of these requests memory answers.
fn memory_hits(larder: &Larder, paths: &[String], headers: &[(&str, &str)]) -> usize {
    let headers = [&[HOST], headers].concat();
    let mut connection = Connection::open(larder.proxy());
    let mut of_memory = |path: &String| {
        let answer = connection.request("GET", path, &headers, b"");
        assert_eq!(answer.status, 200, "{path}");
        let status = answer.header("cache-status");
        status.starts_with("larder; hit") && status.ends_with("detail=memory")
    };
    paths.iter().filter(|path| of_memory(path)).count()
}

/// Requests by Zipf's law (the nth of `keys` is asked for 1/n as often as the first), the same for each seed.
fn zipf(keys: usize, count: usize, mut seed: u64) -> Vec<String> {
    let mut sums = Vec::with_capacity(keys);
    let total = (1..=keys).fold(0.0, |sum, nth| {
        sums.push(sum + 1.0 / nth as f64);
        sum + 1.0 / nth as f64
    });
    let mut next = || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = seed;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ (word >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    };
    (0..count).map(|_| format!("/item/{}", sums.partition_point(|sum| *sum < next() * total))).collect()
}

/// The seventh scene: two nodes under a Zipf load, one is killed; the first 1,000 requests that it is asked
/// again are answered from memory at 0.8 of its peer's ratio.
#[test]
fn a_restarted_node_is_as_warm_as_its_peer() {
    const KEYS: usize = 2_000;
    let (redis, origin) = (RedisServer::start(), Origin::ok("body", &[]));
    let a = node(&origin, &redis, OFTEN);
    let mut b = node(&origin, &redis, OFTEN);
    fetch(&a, &zipf(KEYS, 5_000, 1));
    fetch(&b, &zipf(KEYS, 5_000, 2));
    let entries = |larder: &Larder| larder.stats()["tiers"]["memory"]["entries"].as_u64().unwrap();
    for larder in [&a, &b] {
        assert!(within(PATIENCE, || warm_start(larder, "named") >= entries(larder)), "{:#}", larder.stats());
    }
    b.kill9();
    let b = node(&origin, &redis, OFTEN);
    let requests = zipf(KEYS, 1_000, 3);
    let (of_peer, of_new) = (memory_hits(&a, &requests, &[]), memory_hits(&b, &requests, &[]));
    println!(
        "memory hits of 1,000: {of_peer} on the peer, {of_new} on the new node; {:#}",
        b.stats()["warm_start"]
    );
    assert!(of_peer >= 700, "the peer is warm itself: {of_peer}");
    assert!(of_new * 10 >= of_peer * 8, "{of_new} of {of_peer}: {:#}", b.stats()["warm_start"]);
}

/// Until it has read what is named it says that it is warming; a node that has no time for that is ready without.
#[test]
fn a_node_says_that_it_is_warming_until_it_is_warm_or_its_time_is_over() {
    let (redis, origin) = (RedisServer::start(), Origin::ok("body", &[]));
    let all = paths("a", 2_000);
    let a = node(&origin, &redis, OFTEN);
    fetch(&a, &all);
    until_named(&a, 2_000);
    // Each answer of Redis takes a while, so there is something to be seen.
    let relay = Relay::start(redis.addr());
    relay.set(Mode::Late(Duration::from_millis(100)));
    let b = start(&origin, &relay.url(), "warm_start = { time = \"60s\" }");
    assert_eq!(ready(&b), (503, "warming".to_owned()));
    assert_eq!(client::get(b.admin(), "/livez", &[]).status, 200);
    assert_eq!(b.get("/a/0", &[HOST]).status, 200, "it serves meanwhile");
    assert!(within(PATIENCE, || ready(&b).0 == 200), "{:#}", b.stats()["warm_start"]);
    let (loaded, skipped) = (warm_start(&b, "loaded"), warm_start(&b, "skipped"));
    // What was asked for meanwhile is there already.
    assert!(loaded >= 1_999 && loaded + skipped == 2_000, "{loaded} {skipped}");
    relay.set(Mode::Pass);
    assert_eq!(memory_hits(&b, &all, &[]), 2_000);

    relay.set(Mode::Late(Duration::from_millis(100)));
    let c = start(&origin, &relay.url(), "warm_start = { time = \"300ms\" }");
    assert!(within(PATIENCE, || ready(&c).0 == 200), "{:#}", c.stats()["warm_start"]);
    assert!(warm_start(&c, "loaded") < 2_000, "{:#}", c.stats()["warm_start"]);
}

/// Keys with extras and variants are named and read as they are, in the clear and under a secret; nothing is read
/// that is purged, stale, or of another fleet.
#[test]
fn what_is_read_is_what_a_lookup_would_have_found() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "ab".repeat(32)).unwrap();
    let sealed = format!("redis_secret_file = \"{}\"", secret.path().display());
    for how in ["", sealed.as_str()] {
        let redis = RedisServer::start();
        let origin = Origin::start(|request| {
            let fields = match request.target.split('/').nth(1).unwrap_or_default() {
                "vary" => [("Vary", "Accept"), ("Cache-Control", "max-age=600")],
                "tagged" => [("Surrogate-Key", "t"), ("Cache-Control", "max-age=600")],
                // Kept to be validated.
                "stale" => [("ETag", "\"e\""), ("Cache-Control", "no-cache")],
                "group" => [("Cache-Groups", "\"g\""), ("Cache-Control", "max-age=600")],
                _ => [("X-Plain", "1"), ("Cache-Control", "max-age=600")],
            };
            Script::ok(format!("{} {}", request.target, request.header("accept")), &fields)
        });
        let mut a = node(&origin, &redis, &format!("{OFTEN}\n{how}"));
        let names = ["plain", "vary", "tagged", "stale", "group", "url"];
        let all: Vec<String> = names.iter().flat_map(|name| paths(name, 20)).collect();
        fetch(&a, &all);
        let english = [("Accept", "text/english")];
        memory_hits(&a, &paths("vary", 20), &english);
        let tenant = [("X-Tenant", "one")];
        memory_hits(&a, &paths("plain", 20), &tenant);
        until_named(&a, 160);
        a.kill9();
        // What names them is there to stay, and this one names nothing.
        let b = node(&origin, &redis, &format!("warm_start = false\n{how}"));
        assert_eq!((warm_start(&b, "loaded"), warm_start(&b, "skipped")), (0, 0));
        let urls: Vec<String> =
            paths("url", 20).iter().map(|path| format!("http://api.test{path}")).collect();
        let purge = json!({ "tags": ["t"], "urls": urls }).to_string();
        let kind = ("Content-Type", "application/json");
        assert_eq!(client::request(b.admin(), "POST", "/purge", &[kind], purge.as_bytes()).status, 200);

        let c = node(&origin, &redis, &format!("{OFTEN}\n{how}"));
        let counted = (warm_start(&c, "loaded"), warm_start(&c, "skipped"));
        assert_eq!(counted, (100, 60), "{how}: {:#}", c.stats()["warm_start"]);
        let asked = origin.requests().len();
        for (name, headers) in
            [("plain", &[][..]), ("plain", &tenant), ("vary", &[]), ("vary", &english), ("group", &[])]
        {
            assert_eq!(memory_hits(&c, &paths(name, 20), headers), 20, "{name} {headers:?} {how}");
        }
        assert_eq!(origin.requests().len(), asked);
        for name in ["tagged", "stale", "url"] {
            assert_eq!(memory_hits(&c, &paths(name, 20), &[]), 0, "{name} {how}");
        }
        let elsewhere = node(&origin, &redis, &format!("{OFTEN}\nnamespace = \"other\"\n{how}"));
        assert_eq!(warm_start(&elsewhere, "loaded"), 0);
    }
}

/// The hottest come first, where not all may be named.
#[test]
fn of_many_the_ones_asked_for_most_are_read() {
    let (redis, origin) = (RedisServer::start(), Origin::ok("body", &[]));
    let a = node(&origin, &redis, "warm_start = { keys = 20, every = \"100ms\" }");
    fetch(&a, &paths("cold", 300));
    let hot = paths("hot", 20);
    for _ in 0..100 {
        fetch(&a, &hot);
    }
    let named = || warm_start(&a, "named") == 20;
    assert!(within(PATIENCE, named), "{:#}", a.stats()["warm_start"]);
    // The list of before may name others.
    let read_by_another = || {
        let b = node(&origin, &redis, "warm_start = { keys = 20, every = \"60s\" }");
        assert_eq!(warm_start(&b, "loaded"), 20);
        memory_hits(&b, &hot, &[]) == 20
    };
    assert!(within(PATIENCE, read_by_another));
}

/// A Redis that is not there keeps nobody from being ready.
#[test]
fn without_redis_a_node_is_ready_at_once() {
    let origin = Origin::ok("body", &[]);
    let alone = start(&origin, &format!("redis://{}", unused_address()), "warm_start = { time = \"60s\" }");
    assert!(within(PATIENCE, || ready(&alone) == (200, "ready".to_owned())));
}

/// In a cluster the lists stand on one master and what they name on all.
#[test]
fn in_a_cluster_a_node_is_warmed_from_every_master() {
    let (cluster, origin) = (Cluster::start(), Origin::ok("body", &[]));
    let all = paths("a", 100);
    let a = start(&origin, &cluster.url(), OFTEN);
    let up = |larder: &Larder| larder.stats()["tiers"]["redis"]["up"] == true;
    assert!(within(PATIENCE, || up(&a)), "{:#}", a.stats()["tiers"]);
    fetch(&a, &all);
    until_named(&a, 100);
    let b = start(&origin, &cluster.url(), OFTEN);
    assert!(within(PATIENCE, || ready(&b).0 == 200));
    assert_eq!(warm_start(&b, "loaded"), 100, "{:#}", b.stats()["warm_start"]);
    assert_eq!(memory_hits(&b, &all, &[]), 100);
}

/// Lists are bounded in time: each expires.
#[test]
fn lists_expire_and_take_each_others_place() {
    let (redis, origin) = (RedisServer::start(), Origin::ok("body", &[]));
    for _ in 0..2 {
        let a = node(&origin, &redis, OFTEN);
        fetch(&a, &paths("a", 10));
        assert!(within(PATIENCE, || warm_start(&a, "named") == 10), "{:#}", a.stats()["warm_start"]);
    }
    let lists: Vec<String> = redis.keys().into_iter().filter(|key| key.contains(":hot:")).collect();
    assert_eq!(lists.len(), 2, "one of each: {lists:?}");
    for list in &lists {
        let left = redis.command(&["PTTL", list]).int();
        assert!((1..=24 * 3600 * 1000).contains(&left), "{list}: {left}");
    }
}
