//! An hour's worth of puts, purges, variants, and nodes that come and go, in seconds: what is left in Redis expires,
//! all of it, and is no more than its bounds say.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use support::client::{self, Connection};
use support::process::run_to_end;
use support::{Larder, Origin, PATIENCE, RedisServer, Reply, Script, tier};

const HOST: (&str, &str) = ("Host", "api.test");
/// Purges that the log holds, of each kind: the least that may be configured.
const RECORD: i64 = 1_024;
/// A purge of each kind every second, for an hour; in two halves, of which the second must take no more than the first.
const HALF: usize = 1_800;
/// Rounds in a half.
const ROUNDS: usize = 4;
/// A record lives for a week at most, a mark a minute longer, the log a week and a day.
const LONGEST: i64 = 8 * 24 * 3_600 * 1_000;

fn start(origin: &Origin, redis: &RedisServer) -> Larder {
    tier::join(&format!(
        r#"
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
workers = 2
[cache]
redis = "{}"
redis_deadline = "2s"
namespace = "churn"
purge_record = {RECORD}
warm_start = {{ every = "100ms" }}
[upstream.o]
servers = ["{}"]
[[route]]
name = "keyed"
match = {{ path = "/keyed/*" }}
upstream = "o"
[route.cache]
key.headers = ["X-Tenant"]
[[route]]
name = "all"
match = {{ path = "/*" }}
upstream = "o"
[route.cache]
keep = "2s"
"#,
        redis.url(),
        origin.url()
    ))
}

/// Says of each target which of its answers this is; what it says of storing is by the first part of the path.
fn origin() -> Origin {
    Origin::start(|request| {
        let fields: &[(&str, &str)] = match request.target.split('/').nth(1).unwrap_or_default() {
            "short" => &[("Cache-Control", "max-age=1"), ("Surrogate-Key", "short all")],
            "vary" => &[("Cache-Control", "max-age=3600"), ("Vary", "Accept"), ("Surrogate-Key", "vary all")],
            "group" => &[("Cache-Control", "max-age=60"), ("Cache-Groups", "\"g\"")],
            "query" => &[("Cache-Control", "max-age=60"), ("No-Vary-Search", "params")],
            "large" => &[("Cache-Control", "max-age=10"), ("Content-Type", "application/json")],
            _ => &[("Cache-Control", "max-age=60"), ("Surrogate-Key", "t1 t2 all")],
        };
        let body = format!("{} #{}", request.target, request.count);
        let body = if request.target.starts_with("/large") { body.repeat(500) } else { body };
        Script::ok(body, fields)
    })
}

fn purge(larder: &Larder, what: &Value) {
    let kind = [("Content-Type", "application/json")];
    let answer = client::request(larder.admin(), "POST", "/purge", &kind, what.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// What a round's clients ask for and write, through any node.
fn requests(larder: &Larder, round: usize) {
    let mut connection = Connection::open(larder.proxy());
    let mut ask = |method: &str, path: &str, field: (&str, &str)| {
        let body: &[u8] = if method == "PUT" { b"new" } else { b"" };
        let answer = connection.request(method, path, &[HOST, field], body);
        assert_eq!(answer.status, 200, "{method} {path}");
    };
    for nth in 0..10 {
        for path in ["short", "plain", "group", "large", "keyed"] {
            ask("GET", &format!("/{path}/{nth}"), ("X-Tenant", if nth % 2 == 0 { "a" } else { "b" }));
        }
        ask("GET", &format!("/vary/{}", nth % 5), ("Accept", ["a", "b"][nth / 5]));
        ask("GET", &format!("/query/{}?utm={round}", nth % 5), ("Accept", "a"));
    }
    for nth in 0..10 {
        ask("PUT", &format!("/plain/{nth}"), ("Accept", "a"));
    }
}

/// Half an hour: puts and purges through both nodes that stay, while others come, work, and go.
fn half(nodes: &[Larder; 2], origin: &Origin, redis: &RedisServer) {
    let each = HALF / ROUNDS;
    for round in 0..ROUNDS {
        let mut guest = start(origin, redis);
        for larder in [&nodes[0], &nodes[1], &guest] {
            requests(larder, round);
        }
        let by = &nodes[round % 2];
        let tags: Vec<String> = (0..each).map(|nth| format!("tag-{nth}")).collect();
        let urls: Vec<String> = (0..each).map(|nth| format!("http://api.test/plain/{nth}")).collect();
        purge(by, &json!({ "tags": tags }));
        purge(by, &json!({ "urls": urls, "soft": round % 3 == 0 }));
        purge(by, &json!({ "tags": ["short"], "prefixes": ["/vary/*"], "routes": ["keyed"] }));
        if round % 3 == 2 {
            purge(by, &json!({ "all": true }));
        }
        if round % 2 == 0 {
            guest.kill9();
        } else {
            guest.terminate();
            guest.wait_exit(PATIENCE);
        }
    }
}

/// All keys, step by step as whoever may not stop the server does it.
fn scan(redis: &RedisServer) -> Vec<String> {
    let (mut cursor, mut keys) = ("0".to_owned(), Vec::new());
    loop {
        let Reply::Array(answer) = redis.command(&["SCAN", &cursor, "COUNT", "500"]) else { panic!("SCAN") };
        let [next, Reply::Array(some)] = <[Reply; 2]>::try_from(answer).unwrap() else { panic!("SCAN") };
        keys.extend(some.into_iter().map(Reply::text));
        cursor = next.text();
        if cursor == "0" {
            keys.sort();
            keys.dedup();
            return keys;
        }
    }
}

/// How many keys there are of each kind, after each was found to expire in time.
fn every_key_expires(redis: &RedisServer) -> BTreeMap<&'static str, usize> {
    let mut kinds = BTreeMap::new();
    for key in scan(redis) {
        let left = redis.command(&["PTTL", &key]).int();
        // Expired between the two questions.
        if left == -2 {
            continue;
        }
        assert!((0..=LONGEST).contains(&left), "{key} lives for {left} ms");
        let rest = key.strip_prefix("churn:4:").unwrap_or_else(|| panic!("{key} is none of this fleet's"));
        let kind = match rest.split_once("}:").unwrap_or_else(|| panic!("{key}")) {
            ("{fleet", rest) if rest.starts_with("hot:") => "hot",
            ("{fleet", _) => "log",
            (_, "g") => "marks",
            (_, rest) if rest.starts_with("G:") => "group marks",
            (_, rest) if rest.starts_with("R:") => "rules",
            (_, rest) if rest.contains(':') => "variants",
            _ => "records",
        };
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

fn used_memory(redis: &RedisServer) -> usize {
    let info = redis.command(&["INFO", "memory"]).text();
    info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse().unwrap()
}

/// The issue's eighth scene.
#[test]
fn after_an_hour_of_churn_every_key_expires_and_the_record_of_purges_is_within_its_bound() {
    let (redis, origin) = (RedisServer::start(), origin());
    let nodes = [start(&origin, &redis), start(&origin, &redis)];
    half(&nodes, &origin, &redis);
    let (first, taken) = (every_key_expires(&redis), used_memory(&redis));
    for kind in ["hot", "log", "marks", "group marks", "rules", "variants", "records"] {
        assert!(first.contains_key(kind), "there is something to be seen: no {kind} in {first:?}");
    }
    half(&nodes, &origin, &redis);
    let (second, taken_then) = (every_key_expires(&redis), used_memory(&redis));
    println!("{taken} bytes of {first:?}, then {taken_then} bytes of {second:?}");

    let (head, lengths) = (
        redis.command(&["HGET", "churn:4:{fleet}:head", "n"]).text(),
        ["named", "marked"].map(|of| redis.command(&["XLEN", &format!("churn:4:{{fleet}}:{of}")]).int()),
    );
    assert!(head.parse::<usize>().unwrap() >= 4 * HALF, "purges were told: {head}");
    assert_eq!(lengths, [RECORD; 2], "full, and no fuller");
    assert_eq!(second["log"], 4);
    assert!(second["hot"] <= 16, "{second:?}");
    // Nodes that were killed are struck off after a minute; those that left are off at once.
    let listed = redis.command(&["HLEN", "churn:4:{fleet}:nodes"]).int();
    assert!((2..=2 + ROUNDS as i64).contains(&listed), "{listed}");
    // The same again takes no more: lists of hot keys are there for each node that named any, up to their bound.
    for (kind, count) in &second {
        let allowed = if *kind == "hot" { 16 } else { first[kind] + 50 };
        assert!(*count <= allowed, "{kind}: {first:?} {second:?}");
    }
    assert!(taken_then <= taken + taken / 4, "{taken} {taken_then}");

    let file = nodes[0].directory().join("proxy.toml");
    let audit = run_to_end(&["redis", "audit", "-c", file.to_str().unwrap()], nodes[0].directory());
    assert!(audit.code == Some(0) && audit.out.contains("every key expires"), "{audit:?}");
    assert!(!audit.out.contains("others"), "every key is of a kind: {}", audit.out);

    // And it is still one cache.
    for path in ["/plain/1", "/vary/1"] {
        let asked = origin.count(path);
        purge(&nodes[0], &json!({ "all": true, "wait": "5s" }));
        for larder in &nodes {
            let text = larder.get(path, &[HOST]).text();
            let number: usize = text.rsplit('#').next().unwrap().parse().unwrap();
            assert!(number > asked, "{path}: {text}, and {asked} were before the purge");
        }
    }
}
