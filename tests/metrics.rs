//! The closed sets of words by which Larder says why: each word of each is brought about by requests.
//!
//! The sets are read from `/stats`, so that a word that is new and has no row here fails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::collections::BTreeMap;

use serde_json::Value;
use support::process::run_to_end;
use support::{
    Connection, Gate, Larder, Origin, PATIENCE, RedisServer, Request, Response, Script, client, get, within,
};

const HOST: (&str, &str) = ("Host", "api.test");
const MINUTE: (&str, &str) = ("Cache-Control", "max-age=60");
const OVER: (&str, &str) = ("Cache-Control", "max-age=0");

fn config(origin: &Origin, cache: &str, routes: &str) -> String {
    format!(
        r#"
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
workers = 2
[cache]
{cache}
[upstream.o]
servers = ["{}"]
{routes}
[[route]]
name = "all"
match = {{ path = "/*" }}
upstream = "o"
[route.cache]
range = "part"
keep = "10m"
"#,
        origin.url()
    )
}

const ROUTES: &str = r#"
[[route]]
name = "off"
match = { path = "/off" }
upstream = "o"
cache = false
[[route]]
name = "methods"
match = { path = "/methods" }
upstream = "o"
[route.cache]
methods = ["GET", "QUERY", "POST"]
max_request_body = "1KiB"
[[route]]
name = "default"
match = { path = "/default/*" }
upstream = "o"
[route.cache]
ttl.default = "10m"
[[route]]
name = "up"
match = { path = "/up" }
upstream = "o"
upgrade = true
"#;

/// Answers each target in the way that its name says.
fn behaviour(request: &Request, gate: &Gate) -> Script {
    let first = request.count == 1;
    let tag = ("ETag", if first { "\"1\"" } else { "\"2\"" });
    match request.target.as_str() {
        "/no-store" => Script::ok("x", &[("Cache-Control", "no-store")]),
        "/private" => Script::ok("x", &[("Cache-Control", "private")]),
        "/no-cache" => Script::ok("x", &[("Cache-Control", "no-cache"), ("ETag", "\"1\"")]),
        "/expired" if first => Script::ok("x", &[OVER, ("ETag", "\"1\"")]),
        "/expired" => Script::respond(304, &[("ETag", "\"1\"")], ""),
        "/changed" => Script::ok("x", &[OVER, tag]),
        "/vary" => Script::ok("x", &[MINUTE, ("Vary", "Accept-Language")]),
        "/star" => Script::ok("x", &[MINUTE, ("Vary", "*")]),
        "/no-lifetime" | "/default/mine" | "/default/yours" | "/default/hers" => Script::ok("x", &[]),
        "/cookie" => Script::ok("x", &[MINUTE, ("Set-Cookie", "a=b")]),
        "/status" => Script::respond(403, &[MINUTE], "x"),
        "/odd" => Script::respond(404, &[MINUTE], "x"),
        "/large" => Script::ok("x".repeat(100_000), &[MINUTE]),
        "/ranges" if request.header("range").contains(',') => {
            Script::respond(206, &[MINUTE, ("Content-Type", "multipart/byteranges; boundary=x")], "--x--")
        }
        "/part" if !request.header("range").is_empty() => {
            Script::respond(206, &[MINUTE, ("ETag", "\"1\""), ("Content-Range", "bytes 0-1/4")], "01")
        }
        "/unasked-part" => Script::respond(206, &[MINUTE, ("Content-Range", "bytes 0-1/4")], "01"),
        "/page.css" => Script::ok(
            "x",
            &[("Content-Type", "text/html"), ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")],
        ),
        "/coded" => Script::ok("x", &[MINUTE, ("Content-Encoding", "compress")]),
        "/behind" if first => {
            Script::ok("x", &[("Cache-Control", "max-age=10, stale-while-revalidate=600"), ("Age", "60")])
        }
        "/error" if first => {
            Script::ok("x", &[("Cache-Control", "max-age=10, stale-if-error=600"), ("Age", "60")])
        }
        "/error" => Script::respond(503, &[], "down"),
        "/broken" => Script::new().bytes("no HTTP at all\r\n\r\n").close(),
        "/busy" => {
            Script::new().head(200, &[MINUTE, ("Content-Length", "60000")]).wait(gate).repeat("x", 60_000)
        }
        "/no-room" => Script::ok("x".repeat(20_000), &[MINUTE]),
        _ => Script::ok("x", &[MINUTE]),
    }
}

/// One request: method, path, fields, content.
type Ask = (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static str);

const fn plain(path: &'static str) -> Ask {
    ("GET", path, &[], "")
}

const fn with(path: &'static str, fields: &'static [(&'static str, &'static str)]) -> Ask {
    ("GET", path, fields, "")
}

/// A request, the last of its row, and the count of one word that it raises by one.
const ROWS: &[(&str, &str, &[Ask])] = &[
    ("results", "hit", &[plain("/hit"), plain("/hit")]),
    ("results", "stale", &[plain("/behind"), plain("/behind")]),
    ("results", "stale-if-error", &[plain("/error"), plain("/error")]),
    ("results", "revalidated", &[plain("/expired"), plain("/expired")]),
    ("results", "miss", &[plain("/miss")]),
    ("results", "bypass", &[plain("/off")]),
    ("results", "local", &[("GET", "/only", &[("Cache-Control", "only-if-cached")], "")]),
    ("results", "failed", &[plain("/broken")]),
    ("misses", "uri-miss", &[plain("/uri")]),
    (
        "misses",
        "vary-miss",
        &[with("/vary", &[("Accept-Language", "x")]), with("/vary", &[("Accept-Language", "y")])],
    ),
    ("misses", "stale", &[plain("/expired")]),
    ("misses", "partial", &[with("/part", &[("Range", "bytes=0-1")]), plain("/part")]),
    ("misses", "request", &[plain("/fresh"), with("/fresh", &[("Cache-Control", "no-cache")])]),
    ("miss_causes", "cold", &[plain("/cold")]),
    ("miss_causes", "purged", &[plain("/written"), ("POST", "/written", &[], ""), plain("/written")]),
    ("miss_causes", "expired", &[plain("/expired")]),
    ("miss_causes", "changed", &[plain("/changed"), plain("/changed")]),
    ("miss_causes", "no-cache", &[plain("/no-cache"), plain("/no-cache")]),
    ("miss_causes", "vary", &[with("/vary", &[("Accept-Language", "z")])]),
    (
        "miss_causes",
        "partial",
        &[
            with("/part", &[("Range", "bytes=0-1")]),
            ("POST", "/part", &[], ""),
            with("/part", &[("Range", "bytes=0-1")]),
            plain("/part"),
        ],
    ),
    ("miss_causes", "request", &[with("/fresh", &[("Cache-Control", "max-age=0")])]),
    (
        "miss_causes",
        "coding",
        &[
            with("/coded", &[("Accept-Encoding", "compress")]),
            with("/coded", &[("Accept-Encoding", "identity")]),
        ],
    ),
    ("miss_causes", "uncacheable", &[plain("/no-store"), plain("/no-store")]),
    ("bypass_reasons", "method", &[("POST", "/x", &[], "")]),
    ("bypass_reasons", "off", &[plain("/off")]),
    ("bypass_reasons", "cookie", &[plain("/default/mine"), with("/default/mine", &[("Cookie", "a=b")])]),
    ("bypass_reasons", "authorization", &[with("/default/mine", &[("Authorization", "Basic eDp5")])]),
    ("bypass_reasons", "upgrade", &[with("/up", &[("Connection", "upgrade"), ("Upgrade", "websocket")])]),
    ("bypass_reasons", "body", &[("GET", "/x", &[], "content")]),
    ("bypass_reasons", "request-no-store", &[with("/x", &[("Cache-Control", "no-store")])]),
    ("bypass_reasons", "path", &[plain("/a/../b")]),
    ("bypass_reasons", "large-body", &[("QUERY", "/methods", &[("Content-Type", "text/plain")], LARGE)]),
    (
        "bypass_reasons",
        "may-change",
        &[("POST", "/methods", &[("Content-Type", "application/json")], "{\"query\": \"mutation { a }\"}")],
    ),
    ("not_stored", "status", &[plain("/status")]),
    ("not_stored", "no-store", &[plain("/no-store")]),
    ("not_stored", "private", &[plain("/private")]),
    ("not_stored", "authorization", &[with("/default/yours", &[("Authorization", "Basic eDp5")])]),
    ("not_stored", "cookie", &[with("/default/hers", &[("Cookie", "a=b")])]),
    ("not_stored", "set-cookie", &[plain("/cookie")]),
    ("not_stored", "vary-star", &[plain("/star")]),
    ("not_stored", "partial-content", &[plain("/unasked-part")]),
    ("not_stored", "no-lifetime", &[plain("/no-lifetime")]),
    ("not_stored", "too-large", &[plain("/large")]),
    ("not_stored", "range", &[with("/ranges", &[("Range", "bytes=0-1,3-4")])]),
    ("not_stored", "head", &[("HEAD", "/head", &[], "")]),
    ("not_stored", "odd-request", &[with("/odd", &[("X-Odd", "\u{e9}")])]),
    ("not_stored", "deception", &[plain("/page.css")]),
    ("not_stored", "unvaried", &[with("/chosen", &[("HX-Request", "true")])]),
];

/// 1,600 bytes.
const LARGE: &str = {
    const LINE: [u8; 1600] = [b'y'; 1600];
    match std::str::from_utf8(&LINE) {
        Ok(text) => text,
        Err(_) => "",
    }
};

/// Words that no request can reach, and why.
const BEYOND: [(&str, &str, &str); 2] = [
    (
        "not_stored",
        "method",
        "what a POST is answered that may be stored for GETs is judged apart, and never looked up",
    ),
    ("not_stored", "request-no-store", "such a request does not ask the cache at all: a bypass"),
];

/// What each word of all closed sets has been counted, over several Larders.
#[derive(Default)]
struct Counts(BTreeMap<(String, String), u64>);

const SETS: [&str; 5] = ["results", "misses", "miss_causes", "bypass_reasons", "not_stored"];

impl Counts {
    fn add(&mut self, stats: &Value) {
        for set in SETS {
            for (word, count) in stats["all"][set].as_object().unwrap() {
                *self.0.entry((set.to_owned(), word.clone())).or_default() += count.as_u64().unwrap();
            }
        }
    }
}

fn ask(larder: &Larder, (method, path, fields, content): Ask) -> Response {
    client::request(larder.proxy(), method, path, &[&[HOST], fields].concat(), content.as_bytes())
}

fn settled(larder: &Larder) -> Value {
    let mut stats = Value::Null;
    assert!(
        within(PATIENCE, || {
            stats = larder.stats();
            stats["active"] == 0
        }),
        "{stats:#}"
    );
    stats
}

#[test]
fn every_word_of_every_closed_set_is_reached() {
    let mut counts = Counts::default();
    counts.add(&by_rows());
    counts.add(&evicted());
    counts.add(&softly_purged());
    counts.add(&quarantined());
    counts.add(&without_room());
    counts.add(&unheard());
    for ((set, word), count) in &counts.0 {
        let beyond = BEYOND.iter().any(|(of, beyond, _)| of == set && beyond == word);
        assert_eq!(*count == 0, beyond, "{set} {word}: {count}");
    }
    for (set, word, why) in BEYOND {
        assert!(counts.0.contains_key(&(set.to_owned(), word.to_owned())), "{set} {word}: {why}");
    }
}

/// Each row of the table raises the count of its own word by one with its last request.
fn by_rows() -> Value {
    let gate = Gate::new();
    let origin = Origin::start(move |request| behaviour(request, &gate));
    let larder = Larder::start(&config(&origin, "max_object = \"64KiB\"", ROUTES));
    for (set, word, asks) in ROWS {
        let (last, before) = asks.split_last().unwrap();
        before.iter().for_each(|request| drop(ask(&larder, *request)));
        let count = |stats: Value| stats["all"][set][word].as_u64().unwrap_or_else(|| panic!("{set} {word}"));
        let known = count(settled(&larder));
        let answer = ask(&larder, *last);
        assert!(
            within(PATIENCE, || count(larder.stats()) == known + 1),
            "{set} {word}: {} {} {}",
            known,
            answer.header("cache-status"),
            larder.stats()["all"]
        );
    }
    settled(&larder)
}

/// What more memory would have kept.
fn evicted() -> Value {
    let origin = Origin::ok("x".repeat(60_000), &[MINUTE]);
    let larder = Larder::start(&config(&origin, "memory = \"1MiB\"", ""));
    for _ in 0..2 {
        for number in 0..60 {
            get(larder.proxy(), &format!("/{number}"), &[HOST]);
        }
    }
    let stats = settled(&larder);
    let causes = &stats["all"]["miss_causes"];
    assert!(causes["evicted"].as_u64() >= Some(40), "{causes}");
    assert!(causes["cold"].as_u64() >= Some(60), "{causes}");
    let memory = &stats["tiers"]["memory"];
    assert!(memory["bytes"].as_u64() <= memory["budget"].as_u64(), "{memory}");
    assert!(memory["bytes"].as_u64() < stats["resident_bytes"].as_u64(), "{stats}");
    stats
}

fn softly_purged() -> Value {
    let origin = Origin::ok("x", &[MINUTE, ("ETag", "\"1\"")]);
    let larder = Larder::start(&config(&origin, "", ""));
    get(larder.proxy(), "/soft", &[HOST]);
    let body = b"{\"urls\": [\"http://api.test/soft\"], \"soft\": true}";
    assert_eq!(client::request(larder.admin(), "POST", "/purge", &[], body).status, 200);
    get(larder.proxy(), "/soft", &[HOST]);
    let stats = settled(&larder);
    assert_eq!(stats["all"]["miss_causes"]["soft-purged"], 1, "{stats:#}");
    stats
}

fn quarantined() -> Value {
    let origin = Origin::start(|request| Script::ok(format!("for {}", request.header("x-user")), &[MINUTE]));
    let larder = Larder::start(&config(&origin, "verify = \"1/1\"", ""));
    let of = |user| get(larder.proxy(), "/me", &[HOST, ("X-User", user)]);
    of("a");
    assert!(within(PATIENCE, || of("b").header("cache-status").contains("quarantined")));
    settled(&larder)
}

fn without_room() -> Value {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |request| behaviour(request, &held));
    let larder = Larder::start(&config(&origin, "max_object = \"64KiB\"\nin_flight = \"64KiB\"", ""));
    let mut busy = Connection::open(larder.proxy());
    busy.write_head("GET", "/busy", &[HOST]);
    let mut slow = busy.response_head("GET");
    assert!(larder.stats()["tiers"]["memory"]["in_flight"].as_u64() >= Some(60_000));
    get(larder.proxy(), "/no-room", &[HOST]);
    gate.open();
    busy.finish(&mut slow);
    settled(&larder)
}

fn unheard() -> Value {
    let mut redis = RedisServer::start();
    let origin = Origin::ok("x", &[MINUTE, ("ETag", "\"1\"")]);
    let cache =
        format!("redis = \"{}\"\ncoherence = {{ bound = \"300ms\", when_lost = \"0s\" }}", redis.url());
    let larder = Larder::start(&config(&origin, &cache, ""));
    assert!(within(PATIENCE, || larder.stats()["fleet"]["coherence"] == "ok"));
    get(larder.proxy(), "/far", &[HOST]);
    // What was written before, another Larder reads; both count bytes.
    assert!(within(PATIENCE, || larder.stats()["tiers"]["redis"]["writes"].as_u64() >= Some(1)));
    let other = Larder::start(&config(&origin, &cache, ""));
    assert!(within(PATIENCE, || other.stats()["fleet"]["coherence"] == "ok"));
    assert!(within(PATIENCE, || {
        get(other.proxy(), "/far", &[HOST]);
        other.stats()["all"]["hits"]["redis"].as_u64() >= Some(1)
    }));
    let redis_of = |larder: &Larder| larder.stats()["tiers"]["redis"].clone();
    assert!(redis_of(&other)["read_bytes"].as_u64() > Some(0), "{}", redis_of(&other));
    assert!(redis_of(&larder)["written_bytes"].as_u64() > Some(0), "{}", redis_of(&larder));
    redis.stop();
    assert!(within(PATIENCE, || {
        get(larder.proxy(), "/far", &[HOST]);
        larder.stats()["all"]["miss_causes"]["unheard"].as_u64() >= Some(1)
    }));
    settled(&larder)
}

/// Prometheus asks for OpenMetrics, and gets it; whoever asks for nothing gets the older text.
#[test]
fn openmetrics_comes_to_who_accepts_it() {
    let origin = Origin::ok("x", &[MINUTE]);
    let larder = Larder::start(&config(&origin, "", ""));
    let of = |fields: &[(&str, &str)]| get(larder.admin(), "/metrics", fields);
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    let asked = [("Accept", accept)];
    let open = of(&asked);
    assert_eq!(open.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(open.text().ends_with("# EOF\n") && open.text().contains("# TYPE larder_requests counter\n"));
    let plain = of(&[]);
    assert_eq!(plain.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert!(
        !plain.text().contains("# EOF") && plain.text().contains("# TYPE larder_requests_total counter\n")
    );
}

/// The same figures at a terminal, word for word.
#[test]
fn top_shows_what_stats_say() {
    let gate = Gate::new();
    let origin = Origin::start(move |request| behaviour(request, &gate));
    let larder = Larder::start(&config(&origin, "", ROUTES));
    for path in
        ["/hit", "/hit", "/hit", "/off", "/vary", "/private", "/changed", "/changed", "/error", "/error"]
    {
        get(larder.proxy(), path, &[HOST]);
    }
    let admin = larder.admin().to_string();
    let top = |args: &[&str]| {
        run_to_end(&[&["top", "--admin", &admin, "--once"], args].concat(), larder.directory())
    };
    let stats = settled(&larder);
    let told = top(&["--json"]);
    assert_eq!(told.code, Some(0), "{told:?}");
    let json: Value = serde_json::from_str(&told.out).unwrap();
    let fields = [
        "requests",
        "hits",
        "stale",
        "stale_if_error",
        "revalidated",
        "collapsed",
        "bypass",
        "failed",
        "bytes_out",
        "origin_fetches",
        "origin_seconds_saved",
        "miss_causes",
        "not_stored",
        "hit_ratio",
        "hit_ratios",
    ];
    let same = |shown: &Value, counted: &Value| {
        for field in fields {
            assert!(!shown[field].is_null(), "{field}");
            assert_eq!(shown[field], counted[field], "{field}");
        }
    };
    same(&json["all"], &stats["all"]);
    let routes = json["routes"].as_array().unwrap();
    assert_eq!(routes.len(), stats["routes"].as_object().unwrap().len());
    routes.iter().for_each(|route| same(route, &stats["routes"][route["route"].as_str().unwrap()]));
    assert_eq!((&routes[0]["route"], &routes[0]["missed"]), (&Value::from("all"), &Value::from(6)));
    for (name, tier) in [("memory", "memory"), ("redis", "redis")] {
        assert_eq!(json[name]["budget"], stats["tiers"][tier]["budget"]);
    }
    // Per second, over the second that it has looked.
    for rate in
        [&json["all"]["requests_per_s"], &json["all"]["origin_fetches_per_s"], &routes[0]["requests_per_s"]]
    {
        assert_eq!(rate, &0.0, "{json:#}");
    }
    let text = top(&[]).out;
    assert!(text.contains("0.0/s, 0.0/s from origins"), "{text}");
    let row = text.lines().find(|line| line.trim_start().starts_with("all ")).unwrap();
    let columns: Vec<&str> = row.split_whitespace().collect();
    // route, req/s, hit 1m, hit 1h, memory, redis, stale, missed, due to, not stored
    assert_eq!(
        columns,
        ["all", "0.0", "33.3", "%", "33.3", "%", "2", "0", "1", "6", "cold", "private"],
        "{text}"
    );
    assert!(text.contains("10 requests, 0 under way") && !text.contains('\u{1b}'), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
}
