//! The Redis tier, end to end: a real redis-server, real processes, restarts and misbehaviour.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use support::{
    Connection, Gate, Larder, Mode, Origin, PATIENCE, RedisServer, Relay, Reply, Response, Script, client,
    get, tier, unused_address, within,
};

/// The host that every client asks for: what one process stored, the next one must find, and their
/// ports differ.
const HOST: (&str, &str) = ("Host", "api.test");

/// A Larder in front of `origin` with the Redis at `redis`; `cache` is added to its `[cache]`.
fn config_with(origin: &Origin, redis: &str, cache: &str) -> String {
    tier::configuration(origin, &format!("redis = \"{redis}\"\n{cache}"), "keep = \"10m\"")
}

fn config(origin: &Origin, redis: &str) -> String {
    // What one Larder has put there, another is to find there, not in memory.
    config_with(origin, redis, "redis_deadline = \"2s\"\nwarm_start = false")
}

/// Starts Larder and waits until every one of its threads is connected to Redis, for reading and for
/// writing.
fn start(config: &str) -> Larder {
    let larder = Larder::start(config);
    wait_until_up(&larder);
    larder
}

/// An origin whose every answer says which one for its target it is: `/a #1`, `/a #2`, ...
fn counting() -> Origin {
    Origin::start(|request| Script::ok(format!("{} #{}", request.target, request.count), &[]))
}

fn fetch(larder: &Larder, path: &str) -> Response {
    let response = larder.get(path, &[HOST]);
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    assert!(response.complete, "{path}");
    response
}

fn redis_figure(larder: &Larder, name: &str) -> u64 {
    larder.stats()["tiers"]["redis"][name].as_u64().unwrap()
}

fn is_up(larder: &Larder) -> bool {
    larder.stats()["tiers"]["redis"]["up"] == true
}

fn wait_until_up(larder: &Larder) {
    assert!(within(PATIENCE, || is_up(larder)), "Redis is not used: {:#}", larder.stats()["tiers"]);
}

fn wait_until_written(larder: &Larder, writes: u64) {
    let done = within(PATIENCE, || redis_figure(larder, "writes") >= writes);
    assert!(done, "not written to Redis: {:#}", larder.stats()["tiers"]);
}

/// Fills `path` and waits until it is in Redis.
fn fill(larder: &Larder, path: &str) -> Response {
    let before = redis_figure(larder, "writes");
    let response = fetch(larder, path);
    wait_until_written(larder, before + 1);
    response
}

/// Asks for new paths until one has been written to Redis: for a Redis that has just come back, whose
/// connection for writing may follow the one for reading.
fn fill_eventually(larder: &Larder) -> String {
    let before = redis_figure(larder, "writes");
    let mut paths = (0..).map(|i| format!("/after/{i}"));
    let mut last = String::new();
    let written = within(PATIENCE, || {
        last = paths.next().unwrap();
        fetch(larder, &last);
        within(Duration::from_millis(100), || redis_figure(larder, "writes") > before)
    });
    assert!(written, "Redis is not written to: {:#}", larder.stats()["tiers"]);
    last
}

fn assert_redis_hit(response: &Response, body: &str) {
    assert_eq!(response.text(), body);
    assert_eq!(response.header("x-cache"), "HIT", "{:?}", response.headers);
    let status = response.header("cache-status");
    assert!(status.starts_with("larder; hit; ttl=") && status.ends_with("; detail=redis"), "{status}");
}

fn assert_memory_hit(response: &Response, body: &str) {
    assert_eq!(response.text(), body);
    assert_eq!(response.header("x-cache"), "HIT", "{:?}", response.headers);
    assert!(response.header("cache-status").ends_with("; detail=memory"), "{:?}", response.headers);
}

fn assert_miss(response: &Response, body: &str) {
    assert_eq!(response.text(), body);
    assert_eq!(response.header("x-cache"), "MISS", "{:?}", response.headers);
    assert!(
        response.header("cache-status").starts_with("larder; fwd=uri-miss; stored"),
        "{:?}",
        response.headers
    );
}

#[test]
fn a_killed_larder_finds_its_responses_again_in_redis() {
    let (redis, origin) = (RedisServer::start(), counting());
    let config = config(&origin, &redis.url());
    let mut first = start(&config);
    assert_miss(&fill(&first, "/a"), "/a #1");
    first.kill9();

    let second = start(&config);
    let response = fetch(&second, "/a");
    assert_redis_hit(&response, "/a #1");
    assert!(response.header("age").parse::<u64>().is_ok(), "{:?}", response.headers);
    assert!(response.header("server-timing").contains("redis;dur="), "{:?}", response.headers);
    assert_memory_hit(&fetch(&second, "/a"), "/a #1");
    assert_eq!(origin.count("/a"), 1);
    assert_eq!(second.stats()["tiers"]["redis"]["hits"], 1);
}

#[test]
fn what_comes_out_of_redis_is_the_response_that_went_in() {
    let body: Vec<u8> = (0..200_000_u32).map(|i| (i * 31 % 251) as u8).collect();
    let sent = body.clone();
    let origin = Origin::start(move |_| {
        let fields = [
            ("Content-Type", "application/octet-stream"),
            ("ETag", "\"v1\""),
            ("Link", "</a>; rel=next"),
            ("Link", "</b>; rel=prev"),
            ("X-Odd", "caf\u{e9}"),
        ];
        Script::ok(&sent, &fields)
    });
    let redis = RedisServer::start();
    let config = config(&origin, &redis.url());
    let mut first = start(&config);
    let miss = first.get("/a", &[HOST]);
    wait_until_written(&first, 1);
    first.kill9();

    let second = start(&config);
    let hit = second.get("/a", &[HOST]);
    assert_eq!((hit.status, hit.header("x-cache")), (200, "HIT"));
    assert!(hit.body == body && miss.body == body, "the bodies differ");
    for name in ["content-type", "etag", "link", "x-odd", "content-length", "date", "via"] {
        let of = |response: &Response| response.headers.all(name).map(str::to_owned).collect::<Vec<_>>();
        if name != "via" {
            assert_eq!(of(&hit), of(&miss), "{name}");
        }
        assert!(!of(&hit).is_empty(), "{name}");
    }
    // And it serves ranges, conditions and HEAD as anything stored does.
    let range = second.get("/a", &[HOST, ("Range", "bytes=10-19")]);
    assert_eq!((range.status, range.header("content-range")), (206, "bytes 10-19/200000"));
    assert_eq!(range.body, &body[10..20]);
    let conditional = second.get("/a", &[HOST, ("If-None-Match", "\"v1\"")]);
    assert_eq!((conditional.status, conditional.body.len()), (304, 0));
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn variants_outlive_a_restart_each_for_its_own_request() {
    let origin = Origin::start(|request| {
        let language = request.header("accept-language").to_owned();
        Script::ok(language, &[("Vary", "Accept-Language")])
    });
    let redis = RedisServer::start();
    let config = config(&origin, &redis.url());
    let asks = |larder: &Larder, language: &str| larder.get("/v", &[HOST, ("Accept-Language", language)]);
    let mut first = start(&config);
    for (count, language) in (1..).zip(["de", "en", "fr"]) {
        assert_eq!(asks(&first, language).text(), language);
        wait_until_written(&first, count);
    }
    first.kill9();

    let second = start(&config);
    for language in ["en", "de"] {
        assert_redis_hit(&asks(&second, language), language);
    }
    for language in ["de", "en"] {
        assert_memory_hit(&asks(&second, language), language);
    }
    assert_redis_hit(&asks(&second, "fr"), "fr");
    assert_eq!(origin.requests().len(), 3);
    // A language that nobody asked for is neither of them.
    let fourth = asks(&second, "it");
    assert_eq!((fourth.text().as_str(), fourth.header("x-cache")), ("it", "MISS"));
    assert_eq!(origin.requests().len(), 4);
}

#[test]
fn with_a_secret_all_works_and_redis_holds_nothing_that_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("redis.secret");
    std::fs::write(&file, format!("{}\n", "0123456789abcdef".repeat(4))).unwrap();
    let redis = RedisServer::start();
    let origin = Origin::start(|request| {
        let fields = [("X-Telling", "telling"), ("Vary", "Accept-Language"), ("ETag", "\"v\"")];
        Script::ok(format!("telling {} #{}", request.target, request.count), &fields)
    });
    let cache = format!("redis_deadline = \"2s\"\nredis_secret_file = {:?}", file.to_str().unwrap());
    let config = config_with(&origin, &redis.url(), &cache);
    let mut first = start(&config);
    assert_eq!(fill(&first, "/telling").text(), "telling /telling #1");
    first.err.wait_for_line(|line| line.contains("chmod 600"), PATIENCE);
    first.kill9();
    for key in redis.keys_without("{fleet}") {
        let Reply::Bulk(Some(value)) = redis.command(&["GET", &key]) else { panic!("{key} is gone") };
        let seen = |part: &[u8]| value.windows(part.len()).any(|window| window == part);
        assert!(!seen(b"telling") && !seen(b"api.test"), "{key}: {}", value.escape_ascii());
    }
    let second = start(&config);
    assert_redis_hit(&fetch(&second, "/telling"), "telling /telling #1");
    assert_eq!(purge(&second, "http://api.test/telling").json()["redis"], "purged");
    assert_miss(&fill(&start(&config), "/telling"), "telling /telling #2");

    // Another secret takes a restart, and is refused by name until then.
    std::fs::write(&file, format!("{}\n", "fedcba9876543210".repeat(4))).unwrap();
    let answer = client::request(second.admin(), "POST", "/reload", &[], b"");
    assert!(answer.text().contains("cache.redis_secret_file"), "{}", answer.text());
    let third = start(&config);
    assert_miss(&fill(&third, "/telling"), "telling /telling #3");
    // And one that is none is told at the start.
    std::fs::write(&file, "hunter2").unwrap();
    for command in ["check", "run"] {
        let refused = support::process::run_to_end(&[command, "-c", "proxy.toml"], third.directory());
        let said = &refused.err;
        assert_eq!(refused.code, Some(78), "{said}");
        assert!(said.contains("line 1 is not a secret") && said.contains("openssl rand -hex 32"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn two_larders_share_one_redis() {
    let (redis, origin) = (RedisServer::start(), counting());
    let config = config(&origin, &redis.url());
    let (one, two) = (start(&config), start(&config));
    assert_miss(&fill(&one, "/a"), "/a #1");
    assert_redis_hit(&fetch(&two, "/a"), "/a #1");
    assert_miss(&fill(&two, "/b"), "/b #1");
    assert_redis_hit(&fetch(&one, "/b"), "/b #1");
    assert_eq!(origin.requests().len(), 2);
}

fn purge(larder: &Larder, url: &str) -> Response {
    let body = serde_json::json!({ "url": url }).to_string();
    client::request(larder.admin(), "POST", "/purge", &[], body.as_bytes())
}

#[test]
fn a_purge_empties_both_tiers() {
    let (redis, origin) = (RedisServer::start(), counting());
    let config = config(&origin, &redis.url());
    let one = start(&config);
    for path in ["/a", "/b", "/kept"] {
        fill(&one, path);
    }
    for path in ["/a", "/b"] {
        let answer = purge(&one, &format!("http://api.test{path}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let said = answer.json();
        assert_eq!(said["purged"], true, "{said}");
        assert_eq!((said["memory"].as_str(), said["redis"].as_str()), (Some("purged"), Some("purged")));
    }
    // Neither the one that was told serves it, nor one that has only Redis to go by.
    assert_miss(&fill(&one, "/a"), "/a #2");
    let fresh = start(&config);
    assert_miss(&fill(&fresh, "/b"), "/b #2");
    // What came after the purge is shared again, and the rest was never gone.
    assert_redis_hit(&fetch(&fresh, "/a"), "/a #2");
    assert_redis_hit(&fetch(&fresh, "/kept"), "/kept #1");
    assert_memory_hit(&fetch(&one, "/kept"), "/kept #1");
}

#[test]
fn a_purge_voids_every_variant_in_redis() {
    let origin = Origin::start(|request| {
        let text = format!("{} #{}", request.header("accept-language"), request.count);
        Script::ok(text, &[("Vary", "Accept-Language")])
    });
    let redis = RedisServer::start();
    let config = config(&origin, &redis.url());
    let asks = |larder: &Larder, language: &str| larder.get("/v", &[HOST, ("Accept-Language", language)]);
    let one = start(&config);
    asks(&one, "de");
    asks(&one, "en");
    wait_until_written(&one, 2);
    assert_eq!(purge(&one, "http://api.test/v").status, 200);
    let fresh = start(&config);
    assert_eq!(asks(&fresh, "en").text(), "en #3");
    assert_eq!(asks(&fresh, "de").text(), "de #4");
}

#[test]
fn a_purge_voids_what_is_keyed_on_request_fields_in_both_tiers() {
    let origin = Origin::start(|request| {
        Script::ok(format!("{} #{}", request.header("x-tenant"), request.count), &[])
    });
    let redis = RedisServer::start();
    let config = config(&origin, &redis.url()) + "key.headers = [\"X-Tenant\"]\n";
    let asks = |larder: &Larder, tenant: &str| larder.get("/k", &[HOST, ("X-Tenant", tenant)]);
    let one = start(&config);
    assert_eq!([asks(&one, "a"), asks(&one, "b")].map(|r| r.text()), ["a #1", "b #2"]);
    wait_until_written(&one, 2);
    let answer = purge(&one, "http://api.test/k");
    assert_eq!((answer.status, answer.json()["purged"].as_bool()), (200, Some(true)), "{}", answer.text());
    assert_eq!(asks(&one, "a").text(), "a #3");
    assert_eq!(asks(&start(&config), "b").text(), "b #4");
}

#[test]
fn a_purge_while_redis_is_away_reaches_it_when_it_is_back() {
    let (redis, origin) = (RedisServer::start(), counting());
    let relay = Relay::start(redis.addr());
    let config = config(&origin, &relay.url());
    let one = start(&config);
    fill(&one, "/a");
    relay.set(Mode::Cut);
    assert!(within(PATIENCE, || !is_up(&one)));
    let answer = purge(&one, "http://api.test/a");
    assert_eq!((answer.status, answer.json()["purged"].as_bool()), (503, Some(false)), "{}", answer.text());
    assert_eq!(fetch(&one, "/a").text(), "/a #2", "memory has forgotten it all the same");
    relay.set(Mode::Pass);
    let gone = within(PATIENCE, || {
        let marked = redis.keys_without("{fleet}").iter().any(|key| key.ends_with(":g"));
        marked && !redis.keys_without("{fleet}").iter().any(|key| key.ends_with(":-"))
    });
    assert!(gone, "{:?}", redis.keys_without("{fleet}"));
    assert_eq!(fetch(&start(&config), "/a").text(), "/a #3");
}

#[test]
fn a_write_through_larder_invalidates_redis_too() {
    let (redis, origin) = (RedisServer::start(), counting());
    let config = config(&origin, &redis.url());
    let mut first = start(&config);
    fill(&first, "/users/1");
    let posted = client::request(first.proxy(), "POST", "/users/1", &[HOST], b"{}");
    assert_eq!((posted.status, posted.header("x-cache")), (200, "BYPASS"));
    first.kill9();
    assert_miss(&fetch(&start(&config), "/users/1"), "/users/1 #3");
}

/// A URL's marker, or a path's.
fn is_marker(key: &str) -> bool {
    key.ends_with(":g") || key.contains(":G:")
}

#[test]
fn writes_to_urls_that_nobody_caches_cost_redis_minutes_and_the_cache_nothing() {
    let (redis, origin) = (RedisServer::start(), counting());
    let larder = start(&config(&origin, &redis.url()));
    fill(&larder, "/kept");
    let mut connection = Connection::open(larder.proxy());
    for i in 0..200 {
        let posted = connection.request("POST", &format!("/write/{i}"), &[HOST], b"{}");
        assert_eq!(posted.status, 200);
    }
    assert_memory_hit(&fetch(&larder, "/kept"), "/kept #1");
    let keys = redis.keys_without("{fleet}");
    let markers: Vec<_> = keys.iter().filter(|key| is_marker(key)).collect();
    assert_eq!((keys.len(), markers.len()), (401, 400), "markers of each URL and path, and what is kept");
    for key in markers {
        let left = redis.command(&["PTTL", key]).int();
        assert!((1..=600_000).contains(&left), "{key}: {left}");
    }
}

#[test]
fn a_fetch_that_began_before_a_purge_elsewhere_does_not_reach_redis() {
    let (redis, gate) = (RedisServer::start(), Gate::new());
    let held = gate.clone();
    let origin = Origin::start(move |request| match request.count {
        1 => Script::new().wait(&held).bytes("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold"),
        _ => Script::ok("new", &[]),
    });
    let config = config(&origin, &redis.url());
    let (slow, purging) = (start(&config), start(&config));
    thread::scope(|scope| {
        let fetching = scope.spawn(|| fetch(&slow, "/a"));
        gate.wait_for_arrivals(1);
        assert_eq!(purge(&purging, "http://api.test/a").status, 200);
        gate.open();
        assert_eq!(fetching.join().unwrap().text(), "old");
    });
    assert!(within(PATIENCE, || redis_figure(&slow, "dropped_writes") == 1), "{:#}", slow.stats()["tiers"]);
    assert!(
        redis.keys_without("{fleet}").iter().all(|key| is_marker(key)),
        "{:?}",
        redis.keys_without("{fleet}")
    );
    assert_miss(&fill(&purging, "/a"), "new");
    assert_redis_hit(&fetch(&start(&config), "/a"), "new");
}

#[test]
fn the_log_has_one_line_for_each_change_of_redis() {
    let (redis, origin) = (RedisServer::start(), counting());
    let relay = Relay::start(redis.addr());
    let mut larder = start(&config(&origin, &relay.url()));
    for _ in 0..2 {
        let from = larder.err.position();
        relay.set(Mode::Cut);
        assert!(within(PATIENCE, || !is_up(&larder)));
        fetch(&larder, "/a");
        relay.set(Mode::Pass);
        wait_until_up(&larder);
        // The link to the fleet's log is none of the tier's, and counts here, too.
        larder.err.next_line(from, |line| line.contains("redis answers"), PATIENCE);
    }
    larder.terminate();
    assert_eq!(larder.wait_exit(PATIENCE), Some(0));
    let told: Vec<bool> = larder
        .err
        .all()
        .iter()
        .filter(|line| line.contains("redis"))
        .map(|line| {
            let down = line.contains("redis does not answer: memory tier only (");
            assert!(down || line.contains("redis answers"), "{line}");
            !down
        })
        .collect();
    assert_eq!(told, [true, false, true, false, true], "{}", larder.err.whole());
}

/// Calls of a command since the statistics were reset.
fn calls(redis: &RedisServer, command: &str) -> u64 {
    let info = redis.command(&["INFO", "commandstats"]).text();
    let start = format!("cmdstat_{command}:calls=");
    let line = info.lines().find_map(|line| line.strip_prefix(&start));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

#[test]
fn a_burst_on_a_cold_key_costs_one_read_of_redis_and_one_fetch() {
    const CLIENTS: u64 = 40;
    let redis = RedisServer::start();
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |request| {
        let script = Script::new().head(200, &[("Content-Length", "4")]).bytes("done");
        if request.target == "/cold" { Script::new().wait(&held).then(script) } else { script }
    });
    let larder = start(&config(&origin, &redis.url()));
    // By the first miss Redis learns the script that takes a lease.
    fetch(&larder, "/first");
    wait_until_written(&larder, 1);
    let given_back =
        || larder.stats()["leases"]["held"] == 0 && redis.keys().iter().all(|key| !key.contains(":l:"));
    assert!(within(PATIENCE, given_back));
    redis.command(&["CONFIG", "RESETSTAT"]);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| fetch(&larder, "/cold"))).collect();
        assert!(within(PATIENCE, || larder.stats()["active"] == CLIENTS), "{:#}", larder.stats());
        gate.open();
        for client in clients {
            assert_eq!(client.join().unwrap().text(), "done");
        }
    });
    wait_until_written(&larder, 2);
    assert!(within(PATIENCE, given_back));
    assert_eq!(calls(&redis, "exists"), 1);
    assert_eq!(calls(&redis, "getrange"), 2, "the record and its URL's marker");
    assert_eq!(calls(&redis, "evalsha"), 1, "the lease, in the same question");
    assert_eq!(calls(&redis, "get"), 2, "the write's own look at the marker, and the lease's at its token");
    assert_eq!(redis_figure(&larder, "lookups"), 2);
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn a_memory_hit_never_asks_redis() {
    let (redis, origin) = (RedisServer::start(), counting());
    let larder = start(&config(&origin, &redis.url()));
    fill(&larder, "/a");
    let given_back =
        || larder.stats()["leases"]["held"] == 0 && redis.keys().iter().all(|key| !key.contains(":l:"));
    assert!(within(PATIENCE, given_back));
    redis.command(&["CONFIG", "RESETSTAT"]);
    for _ in 0..20 {
        assert_memory_hit(&fetch(&larder, "/a"), "/a #1");
    }
    assert_eq!((calls(&redis, "getrange"), calls(&redis, "get")), (0, 0));
}

#[test]
fn the_commands_that_the_security_document_names_are_all_that_it_needs() {
    let (redis, origin) = (RedisServer::start(), counting());
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security.md")).unwrap();
    let (_, rest) = document.split_once("an ACL with the commands").unwrap();
    let (named, _) = rest.split_once(" on `larder:*`").unwrap();
    let commands: Vec<String> = named.split('`').skip(1).step_by(2).map(|name| format!("+{name}")).collect();
    let mut words = vec!["ACL", "SETUSER", "larder", "on", ">pass", "~larder:*"];
    words.extend(commands.iter().map(String::as_str));
    assert_eq!(redis.command(&words), Reply::Simple("OK".into()));

    let url = redis.url().replace("redis://", "redis://larder:pass@");
    let larder =
        start(&config(&origin, &url).replace("warm_start = false", "warm_start = { every = \"100ms\" }"));
    fill(&larder, "/a");
    let named = |larder: &Larder| larder.stats()["warm_start"]["named"] == 1;
    assert!(within(PATIENCE, || named(&larder)), "{:#}", larder.stats()["warm_start"]);
    let warm = start(&config(&origin, &url).replace("warm_start = false", ""));
    let loaded = |larder: &Larder| larder.stats()["warm_start"]["loaded"] == 1;
    assert!(within(PATIENCE, || loaded(&warm)), "{:#}", warm.stats()["warm_start"]);
    let receipt = purge(&larder, "http://api.test/a").json();
    assert_eq!(
        (&receipt["redis"], receipt["fleet"]["error"].as_str()),
        (&"purged".into(), None),
        "{receipt:#}"
    );
    assert!(receipt["fleet"]["sequence"].as_u64() > Some(0), "{receipt:#}");
    let posted = client::request(larder.proxy(), "POST", "/a", &[HOST], b"{}");
    assert_eq!(posted.status, 200);
    fill(&larder, "/b");
    let key = redis.keys_without("{fleet}").into_iter().find(|key| key.ends_with(":-")).unwrap();
    redis.command(&["SET", &key, "damaged"]);
    let second = start(&config(&origin, &url));
    assert_miss(&fill(&second, "/b"), "/b #2");
    assert_redis_hit(&fetch(&start(&config(&origin, &url)), "/b"), "/b #2");
    let tier = second.stats()["tiers"]["redis"].clone();
    assert_eq!((tier["errors"].as_u64(), tier["write_errors"].as_u64()), (Some(0), Some(0)), "{tier:#}");
    assert_eq!(redis.command(&["ACL", "LOG"]), Reply::Array(vec![]), "nothing else is asked either");
}

#[test]
fn every_key_expires() {
    let origin = Origin::start(|request| match request.target.as_str() {
        "/long" => Script::ok("x", &[("Cache-Control", "max-age=31536000")]),
        "/vary" => Script::ok("x", &[("Vary", "Accept")]),
        _ => Script::ok("x", &[]),
    });
    let redis = RedisServer::start();
    let larder = start(&config(&origin, &redis.url()));
    for path in ["/plain", "/long", "/vary", "/purged", "/purged?again"] {
        fill(&larder, path);
    }
    assert_eq!(purge(&larder, "http://api.test/purged").status, 200);
    client::request(larder.proxy(), "DELETE", "/purged?again", &[HOST], b"");
    let keys = redis.keys_without("{fleet}");
    // Five responses, one of them with the names it varies on and a marker; two purged, with a marker
    // each, and one for the path that both have.
    assert_eq!(keys.len(), 8, "{keys:?}");
    let eight_days = 8 * 24 * 3600 * 1000;
    // Those of the fleet's log as well.
    for key in redis.keys() {
        let left = redis.command(&["PTTL", &key]).int();
        assert!((1..=eight_days).contains(&left), "{key}: {left}");
    }
}

#[test]
fn redis_stopped_under_load_fails_no_request_and_is_used_again_when_it_is_back() {
    const CLIENTS: usize = 4;
    const REQUESTS: usize = 250;
    let mut redis = RedisServer::start();
    let origin = Origin::start(|request| Script::ok(&request.target, &[]));
    let config = config(&origin, &redis.url());
    let mut larder = start(&config);
    let done = AtomicUsize::new(0);
    let stopped = AtomicBool::new(false);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (larder, done, stopped) = (&larder, &done, &stopped);
            scope.spawn(move || {
                let mut connection = Connection::open(larder.proxy());
                for i in 0..REQUESTS {
                    // Half of them stay behind until Redis has been stopped, so that there is load after it.
                    if i == REQUESTS / 2 {
                        assert!(within(PATIENCE, || stopped.load(Ordering::Acquire)));
                    }
                    // Mostly keys of its own, some that all share.
                    let path = if i % 3 == 0 { format!("/shared/{i}") } else { format!("/{client}/{i}") };
                    let response = connection.request("GET", &path, &[HOST], b"");
                    assert_eq!((response.status, response.text()), (200, path));
                    done.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        assert!(within(PATIENCE, || done.load(Ordering::Acquire) > REQUESTS / 4));
        redis.stop();
        stopped.store(true, Ordering::Release);
    });
    assert_eq!(done.load(Ordering::Acquire), CLIENTS * REQUESTS);
    let stats = larder.stats();
    assert_eq!((stats["failed"].as_u64(), stats["success_rate"].as_f64()), (Some(0), Some(1.0)), "{stats:#}");
    assert!(within(PATIENCE, || !is_up(&larder)));

    redis.restart_on_same_port();
    wait_until_up(&larder);
    let path = fill_eventually(&larder);
    larder.kill9();
    assert_redis_hit(&fetch(&start(&config), &path), &path);
}

#[test]
fn a_redis_that_freezes_is_given_up_after_a_few_deadlines_and_taken_up_again() {
    let (redis, origin) = (RedisServer::start(), counting());
    let mut config = config_with(&origin, &redis.url(), "redis_deadline = \"100ms\"");
    config = config.replace("workers = 2", "workers = 1");
    let larder = start(&config);
    redis.pause();
    for i in 0..30 {
        assert_miss(&fetch(&larder, &format!("/{i}")), &format!("/{i} #1"));
    }
    let tier = larder.stats()["tiers"]["redis"].clone();
    // Three in a row open the breaker, if a ping has not done so first; then nobody asks.
    assert!(tier["deadline_exceeded"].as_u64().unwrap() <= 3, "{tier:#}");
    assert!(tier["refused"].as_u64().unwrap() >= 27, "{tier:#}");
    assert_eq!(tier["up"], false, "{tier:#}");
    redis.resume();
    wait_until_up(&larder);
    fill_eventually(&larder);
}

#[test]
fn a_redis_that_talks_nonsense_or_nothing_makes_plain_misses() {
    let modes = [
        Mode::Garbage(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        Mode::Garbage(b"\x00\xff\xfe\x01"),
        Mode::Garbage(b"+OK\r\n"),
        Mode::Garbage(b"*2\r\n$1\r\nx\r\n$-1\r\n"),
        Mode::Garbage(b"*999999999\r\n"),
        Mode::Garbage(b"$536870912\r\nx"),
        Mode::Garbage(b"-LOADING Redis is loading the dataset in memory\r\n"),
        Mode::Stall,
        Mode::Cut,
    ];
    for mode in modes {
        let (redis, origin) = (RedisServer::start(), counting());
        let relay = Relay::start(redis.addr());
        let larder = start(&config_with(&origin, &relay.url(), "redis_deadline = \"100ms\""));
        relay.set(mode);
        for i in 0..8 {
            assert_miss(&fetch(&larder, &format!("/{i}")), &format!("/{i} #1"));
        }
        assert_eq!(larder.stats()["failed"], 0, "{mode:?}");
        assert_eq!(redis_figure(&larder, "hits"), 0, "{mode:?}");
        // It mends by itself.
        relay.set(Mode::Pass);
        wait_until_up(&larder);
        fill_eventually(&larder);
    }
}

/// Makes a bad value of a good one.
type Damage = fn(&[u8]) -> Vec<u8>;

#[test]
fn a_damaged_value_is_a_miss_and_is_replaced() {
    let damages: [Damage; 5] = [
        |_| b"garbage".to_vec(),
        |_| Vec::new(),
        |good| good[..good.len() / 2].to_vec(),
        |good| good.iter().enumerate().map(|(i, byte)| byte ^ u8::from(i == good.len() - 1)).collect(),
        |good| [good, b"tail"].concat(),
    ];
    let (redis, origin) = (RedisServer::start(), counting());
    let config = config(&origin, &redis.url());
    let first = start(&config);
    for i in 0..damages.len() {
        fill(&first, &format!("/{i}"));
    }
    drop(first);
    // Which key is which path's is not known here: all damages are applied in turn.
    let keys = redis.keys_without("{fleet}");
    assert_eq!(keys.len(), damages.len());
    for (key, damage) in keys.iter().zip(damages) {
        let Reply::Bulk(Some(good)) = redis.command(&["GET", key]) else { panic!("{key} is gone") };
        redis.command(&[b"SET", key.as_bytes(), &damage(&good), b"KEEPTTL"]);
    }
    let second = start(&config);
    for i in 0..damages.len() {
        assert_miss(&fill(&second, &format!("/{i}")), &format!("/{i} #2"));
    }
    assert_eq!(redis_figure(&second, "damaged"), damages.len() as u64);
    let third = start(&config);
    for i in 0..damages.len() {
        assert_redis_hit(&fetch(&third, &format!("/{i}")), &format!("/{i} #2"));
    }
}

#[test]
fn a_value_under_another_urls_key_is_not_served() {
    let (redis, origin) = (RedisServer::start(), counting());
    let config = config(&origin, &redis.url());
    let first = start(&config);
    fill(&first, "/a");
    let keys_of_a = redis.keys_without("{fleet}");
    fill(&first, "/b");
    let a = &keys_of_a[0];
    let b = redis.keys_without("{fleet}").into_iter().find(|key| key != a).unwrap();
    redis.command(&["COPY", a, &b, "REPLACE"]);
    assert_miss(&fetch(&start(&config), "/b"), "/b #2");
}

#[test]
fn what_waits_to_be_written_is_written_when_larder_is_told_to_stop() {
    let (redis, origin) = (RedisServer::start(), counting());
    let config = config(&origin, &redis.url());
    let mut first = start(&config);
    let paths: Vec<String> = (0..40).map(|i| format!("/{i}")).collect();
    for path in &paths {
        fetch(&first, path);
    }
    first.terminate();
    assert_eq!(first.wait_exit(PATIENCE), Some(0));
    let second = start(&config);
    for path in &paths {
        assert_redis_hit(&fetch(&second, path), &format!("{path} #1"));
    }
}

#[test]
fn writes_that_redis_has_not_taken_yet_are_waited_for_at_the_end() {
    let (redis, origin) = (RedisServer::start(), counting());
    // Without leases: a lookup that asks for one is a write to Redis, and waits with the others.
    let mut larder = start(&(config(&origin, &redis.url()) + "fleet_collapse = false\n"));
    // Redis goes on answering reads, and lets writes wait.
    redis.command(&["CLIENT", "PAUSE", "60000", "WRITE"]);
    for i in 0..40 {
        fetch(&larder, &format!("/{i}"));
    }
    assert_eq!(redis.keys_without("{fleet}").len(), 0);
    larder.terminate();
    larder.err.wait_for_line(|line| line.contains("stopping"), PATIENCE);
    redis.command(&["CLIENT", "UNPAUSE"]);
    assert_eq!(larder.wait_exit(PATIENCE), Some(0));
    // A write is tried for one second: on a machine that stands still for so long, some are lost.
    assert!(redis.keys_without("{fleet}").len() >= 30, "{:?}", redis.keys_without("{fleet}"));
}

/// A lookup asks for a lease, which is a write. What stands there is found all the same, once it is known that no such
/// question is answered.
#[test]
fn what_is_in_redis_is_read_on_while_its_writes_are_paused() {
    let (redis, origin) = (RedisServer::start(), counting());
    let config = config_with(&origin, &redis.url(), "redis_deadline = \"100ms\"\nwarm_start = false");
    let first = start(&config);
    let paths: Vec<String> = (0..40).map(|nth| format!("/{nth}")).collect();
    paths.iter().for_each(|path| drop(fetch(&first, path)));
    assert!(within(PATIENCE, || redis_figure(&first, "writes") == 40), "{:#}", first.stats()["tiers"]);
    let second = start(&config);
    redis.command(&["CLIENT", "PAUSE", "60000", "WRITE"]);
    let is_hit = |path: &String| {
        let asks = || second.stats()["tiers"]["redis"]["breaker"] == "closed";
        assert!(within(PATIENCE, asks), "{:#}", second.stats()["tiers"]);
        fetch(&second, path).header("cache-status").ends_with("detail=redis")
    };
    assert!(paths.iter().any(is_hit), "{:#}", second.stats()["tiers"]);
    redis.command(&["CLIENT", "UNPAUSE"]);
}

#[test]
fn a_redis_that_is_absent_at_the_start_is_said_and_used_once_it_is_there() {
    let origin = counting();
    let nobody = unused_address();
    let relay_target = RedisServer::start();
    let larder = Larder::start(&config(&origin, &format!("redis://{nobody}")));
    larder.err.wait_for_line(|line| line.contains("redis does not answer"), PATIENCE);
    assert_miss(&fetch(&larder, "/a"), "/a #1");
    assert_memory_hit(&fetch(&larder, "/a"), "/a #1");
    let ready = get(larder.admin(), "/readyz", &[]);
    assert_eq!(ready.status, 200);
    assert!(ready.text().contains("redis is down"), "{}", ready.text());

    let relay = Relay::start(relay_target.addr());
    relay.set(Mode::Cut);
    let late = Larder::start(&config(&origin, &relay.url()));
    assert_miss(&fetch(&late, "/b"), "/b #1");
    relay.set(Mode::Pass);
    wait_until_up(&late);
    fill_eventually(&late);
}

#[test]
fn a_first_request_finds_redis_the_moment_larder_listens() {
    let (redis, origin) = (RedisServer::start(), counting());
    let config = config(&origin, &redis.url());
    let mut first = Larder::start(&config);
    first.err.wait_for_line(|line| line.contains("redis answers"), PATIENCE);
    fetch(&first, "/a");
    first.terminate();
    assert_eq!(first.wait_exit(PATIENCE), Some(0));
    assert_redis_hit(&fetch(&Larder::start(&config), "/a"), "/a #1");
}

#[test]
fn a_stale_response_from_redis_is_served_while_it_is_refreshed() {
    let origin = Origin::start(|request| {
        let cache = ("Cache-Control", "max-age=10, stale-while-revalidate=600");
        let text = format!("#{}", request.count);
        // The first is stale when it comes, so nobody has to wait for it to become so.
        if request.count == 1 {
            Script::ok(text, &[cache, ("Age", "60")])
        } else {
            Script::ok(text, &[cache])
        }
    });
    let redis = RedisServer::start();
    let config = config(&origin, &redis.url());
    let mut first = start(&config);
    fill(&first, "/a");
    first.kill9();

    let second = start(&config);
    let stale = fetch(&second, "/a");
    assert_eq!((stale.text().as_str(), stale.header("x-cache")), ("#1", "STALE"), "{:?}", stale.headers);
    let status = stale.header("cache-status");
    assert!(status.contains("; hit; ttl=-") && status.ends_with("detail=redis"), "{status}");
    origin.wait_for_requests(2);
    wait_until_written(&second, 1);
    assert_memory_hit(&fetch(&second, "/a"), "#2");
    assert_redis_hit(&fetch(&start(&config), "/a"), "#2");
    assert_eq!(origin.count("/a"), 2);
}

#[test]
fn a_304_freshens_what_came_from_redis_in_both_tiers() {
    let origin = Origin::start(|request| {
        if request.header("if-none-match") == "\"v1\"" {
            return Script::respond(
                304,
                &[("ETag", "\"v1\""), ("Cache-Control", "max-age=600"), ("Age", "0")],
                "",
            );
        }
        Script::ok("body", &[("ETag", "\"v1\""), ("Cache-Control", "max-age=10"), ("Age", "60")])
    });
    let redis = RedisServer::start();
    let config = config(&origin, &redis.url());
    let mut first = start(&config);
    fill(&first, "/a");
    first.kill9();

    let second = start(&config);
    let response = fill(&second, "/a");
    assert_eq!((response.text().as_str(), response.header("x-cache")), ("body", "REVALIDATED"));
    assert_memory_hit(&fetch(&second, "/a"), "body");
    assert_redis_hit(&fetch(&start(&config), "/a"), "body");
    assert_eq!(origin.requests().len(), 2);
    assert_eq!(origin.last().header("if-none-match"), "\"v1\"");
}

#[test]
fn a_body_above_the_limit_for_redis_stays_in_memory_alone() {
    let origin = Origin::ok(vec![b'x'; 3000], &[]);
    let redis = RedisServer::start();
    let cache = "redis_deadline = \"2s\"\nredis_max_object = \"2KiB\"";
    let larder = start(&config_with(&origin, &redis.url(), cache));
    assert_eq!(fetch(&larder, "/a").header("x-cache"), "MISS");
    assert_eq!(fetch(&larder, "/a").header("x-cache"), "HIT");
    assert_eq!(redis_figure(&larder, "dropped_writes"), 1);
    assert!(redis.keys_without("{fleet}").is_empty());
}

#[test]
fn what_may_not_be_shared_never_reaches_redis() {
    let origin = Origin::start(|request| match request.target.as_str() {
        "/private" => Script::ok("x", &[("Cache-Control", "private, max-age=60")]),
        "/no-store" => Script::ok("x", &[("Cache-Control", "no-store")]),
        "/cookie" => Script::ok("x", &[("Set-Cookie", "session=1")]),
        _ => Script::ok("x", &[]),
    });
    let redis = RedisServer::start();
    let larder = start(&config(&origin, &redis.url()));
    for path in ["/private", "/no-store", "/cookie"] {
        fetch(&larder, path);
    }
    larder.get("/authorized", &[HOST, ("Authorization", "Basic eDp5")]);
    // The writes are in order, so after this one nothing of the others can be on its way; each of the
    // two threads has its own queue, hence one after the other until both had a turn.
    for i in 0..8 {
        fill(&larder, &format!("/public/{i}"));
    }
    let keys = redis.keys_without("{fleet}");
    assert_eq!(keys.len(), 8, "{keys:?}");
    assert!(within(Duration::ZERO, || redis_figure(&larder, "writes") == 8));
}

#[test]
fn a_head_and_a_range_are_answered_from_redis_after_a_restart() {
    for (method, fields, status) in
        [("HEAD", vec![HOST], 200), ("GET", vec![HOST, ("Range", "bytes=1-2")], 206)]
    {
        let origin = counting();
        let redis = RedisServer::start();
        let config = config(&origin, &redis.url());
        let mut first = start(&config);
        fill(&first, "/a");
        first.kill9();

        let second = start(&config);
        let response = support::client::request(second.proxy(), method, "/a", &fields, b"");
        let told = (response.status, response.header("x-cache"));
        assert_eq!(told, (status, "HIT"), "{method} {:?}", response.headers);
        assert!(response.header("cache-status").ends_with("detail=redis"), "{:?}", response.headers);
        assert_memory_hit(&fetch(&second, "/a"), "/a #1");
        assert_eq!(origin.count("/a"), 1);
    }
}

#[test]
fn a_password_of_redis_is_replaced_without_a_restart() {
    let (redis, origin) = (RedisServer::start(), Origin::ok("x", &[]));
    redis.command(&["ACL", "SETUSER", "larder", "on", ">first", "~larder:*", "+@all"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "first\n").unwrap();
    let table =
        format!("redis = {{ url = \"{}\", user = \"larder\", password_file = {file:?} }}", redis.url());
    let config = config(&origin, "HERE").replace("redis = \"HERE\"", &table);
    let larder = start(&config);

    redis.command(&["ACL", "SETUSER", "larder", "resetpass", ">second"]);
    std::fs::write(&file, "second\n").unwrap();
    let from = larder.err.position();
    larder.signal("HUP");
    let told = |line: &str| line.contains("is in force") || line.contains("in force stays");
    let (line, _) = larder.err.next_line(from, told, PATIENCE);
    assert!(line.contains("is in force"), "{line}");
    // Those that stand were let in by the first one, and would stay for as long as Redis lets them.
    assert!(
        redis.command(&["CLIENT", "KILL", "USER", "larder"]).int() >= 5,
        "2 of each thread, and the log's"
    );
    let let_in = || redis.command(&["CLIENT", "LIST"]).text().matches("user=larder").count();
    assert!(within(PATIENCE, || let_in() >= 5), "{}", let_in());
    wait_until_up(&larder);
    assert_eq!(larder.get("/a", &[HOST]).status, 200);
    assert!(within(PATIENCE, || redis.keys_without("{fleet}").len() == 1));
    assert!(!larder.err.whole().contains("second"), "{}", larder.err.whole());
}
