//! What Larder says about itself: figures, logs, health and purging, held against what was sent.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use support::process::{address_after, larder};
use support::{
    Connection, Gate, Larder, Origin, PATIENCE, RedisServer, Script, client, get, unused_address, within,
};

/// What one process stored, the next one must find, and their ports differ.
const HOST: (&str, &str) = ("Host", "api.test");

fn config(origin: &Origin, top: &str, redis: Option<&str>) -> String {
    let redis =
        redis.map_or(String::new(), |url| format!("[cache]\nredis = \"{url}\"\nredis_deadline = \"2s\""));
    format!(
        r#"
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
workers = 2
{top}
{redis}
[upstream.o]
servers = ["{}"]
[[route]]
name = "off"
match = {{ path = "/off/*" }}
upstream = "o"
cache = false
[[route]]
name = "api"
match = {{ path = "/api/*" }}
upstream = "o"
[route.cache]
ttl.default = "10m"
keep = "10m"
"#,
        origin.url()
    )
}

/// Waits until nothing is under way, so that every request sent has been counted: that is done when
/// its response has gone out, which the client may see a moment earlier.
fn settled(larder: &Larder, total: u64) -> Value {
    let mut stats = Value::Null;
    let settled = within(PATIENCE, || {
        stats = larder.stats();
        stats["active"] == 0 && stats["total"] == total
    });
    assert!(settled, "{total} requests were sent: {stats:#}");
    stats
}

/// Answers each target in the way that its name says.
fn behaviour(request: &support::Request, gate: &Gate) -> Script {
    let stale = ("Age", "60");
    match (request.target.as_str(), request.count) {
        ("/api/no-store", _) => Script::ok("x", &[("Cache-Control", "no-store")]),
        ("/api/vary", _) => Script::ok("x", &[("Vary", "Accept-Language")]),
        ("/api/stale", 1) => Script::ok("x", &[("Cache-Control", "max-age=10"), stale, ("ETag", "\"1\"")]),
        ("/api/etag", 1) => Script::ok("x", &[("Cache-Control", "max-age=10"), stale, ("ETag", "\"1\"")]),
        ("/api/etag", _) => Script::respond(304, &[("ETag", "\"1\"")], ""),
        ("/api/behind", 1) => {
            Script::ok("x", &[("Cache-Control", "max-age=10, stale-while-revalidate=600"), stale])
        }
        ("/api/error", 1) => Script::ok("x", &[("Cache-Control", "max-age=10, stale-if-error=600"), stale]),
        ("/api/error", _) => Script::respond(503, &[], "down"),
        ("/api/together", _) => Script::new().wait(gate).head(200, &[("Content-Length", "1")]).bytes("x"),
        ("/api/broken", _) => Script::new().bytes("no HTTP at all\r\n\r\n").close(),
        _ => Script::ok("x", &[]),
    }
}

/// A mix of requests of which each one's fate is known; gives how many were sent to `larder`.
fn send_the_mix(larder: &Larder, origin: &Origin, gate: &Gate) -> u64 {
    let sent = std::cell::Cell::new(0);
    let ask = |method: &str, path: &str, fields: &[(&str, &str)]| {
        sent.set(sent.get() + 1);
        let fields = [&[HOST], fields].concat();
        client::request(larder.proxy(), method, path, &fields, b"")
    };
    let expect = |path: &str, fields: &[(&str, &str)], x_cache: &str| {
        assert_eq!(ask("GET", path, fields).header("x-cache"), x_cache, "{path}");
    };
    expect("/api/a", &[], "MISS");
    expect("/api/a", &[], "HIT");
    expect("/api/a", &[], "HIT");
    assert_eq!(ask("HEAD", "/api/a", &[]).header("x-cache"), "HIT");
    expect("/api/redis", &[], "HIT");
    expect("/api/a", &[("Cookie", "a=b")], "BYPASS");
    assert_eq!(ask("POST", "/api/a", &[]).header("x-cache"), "BYPASS");
    expect("/api/a", &[], "MISS");
    expect("/api/a", &[("Cache-Control", "no-cache")], "MISS");
    expect("/api/a", &[("Cache-Control", "no-store")], "BYPASS");
    expect("/api/vary", &[("Accept-Language", "de")], "MISS");
    expect("/api/vary", &[("Accept-Language", "en")], "MISS");
    expect("/api/vary", &[("Accept-Language", "de")], "HIT");
    expect("/api/no-store", &[], "MISS");
    expect("/api/no-store", &[], "MISS");
    expect("/api/stale", &[], "MISS");
    expect("/api/stale", &[], "MISS");
    expect("/api/etag", &[], "MISS");
    expect("/api/etag", &[], "REVALIDATED");
    expect("/api/behind", &[], "MISS");
    expect("/api/behind", &[], "STALE");
    expect("/api/error", &[], "MISS");
    expect("/api/error", &[], "STALE");
    assert_eq!(ask("GET", "/api/broken", &[]).status, 502);
    for _ in 0..2 {
        expect("/off/a", &[], "BYPASS");
    }
    assert_eq!(ask("GET", "/nowhere", &[]).status, 404);

    // Five at once on a cold key.
    let before = larder.stats()["total"].as_u64().unwrap();
    assert_eq!(before, sent.get());
    thread::scope(|scope| {
        let five: Vec<_> =
            (0..5).map(|_| scope.spawn(|| get(larder.proxy(), "/api/together", &[HOST]).status)).collect();
        assert!(within(PATIENCE, || larder.stats()["active"] == 5), "{:#}", larder.stats());
        gate.open();
        assert!(five.into_iter().all(|client| client.join().unwrap() == 200));
    });
    // The refresh behind the stale one has reached the origin.
    assert!(within(PATIENCE, || origin.count("/api/behind") == 2));
    sent.get() + 5
}

#[test]
fn figures_agree_exactly_with_what_was_sent() {
    let (redis, gate) = (RedisServer::start(), Gate::new());
    let held = gate.clone();
    let origin = Origin::start(move |request| behaviour(request, &held));
    let config = config(&origin, "", Some(&redis.url()));
    let mut earlier = Larder::start(&config);
    get(earlier.proxy(), "/api/redis", &[HOST]);
    earlier.terminate();
    assert_eq!(earlier.wait_exit(PATIENCE), Some(0));
    assert_eq!(redis.keys_without("{fleet}").len(), 1);

    let larder = Larder::start(&config);
    let sent = send_the_mix(&larder, &origin, &gate);
    let stats = settled(&larder, sent);
    let fetched = origin.requests().len() as u64 - 1;

    assert_eq!((sent, fetched), (32, 22));
    let of = |value: &Value, keys: &[&str]| keys.iter().map(|key| value[key].clone()).collect::<Vec<_>>();
    let keys = ["total", "active", "completed", "failed", "client_closed", "slow"];
    assert_eq!(of(&stats, &keys), [32, 0, 31, 1, 0, 0].map(Value::from), "{stats:#}");
    assert_eq!(stats["success_rate"], 31.0 / 32.0);

    let api = &stats["routes"]["api"];
    assert_eq!(api["requests"], 29, "{api:#}");
    assert_eq!(api["hits"], json!({ "memory": 4, "redis": 1 }), "{api:#}");
    let misses = json!({ "uri-miss": 15, "vary-miss": 1, "stale": 2, "partial": 0, "request": 1 });
    assert_eq!(api["misses"], misses, "{api:#}");
    let causes =
        [("cold", 13), ("purged", 1), ("uncacheable", 1), ("vary", 1), ("changed", 1), ("expired", 1)];
    for (cause, times) in causes.into_iter().chain([("request", 1), ("evicted", 0)]) {
        assert_eq!(api["miss_causes"][cause], times, "{cause}: {api:#}");
    }
    let keys = ["stale", "stale_if_error", "revalidated", "collapsed", "bypass", "failed"];
    assert_eq!(of(api, &keys), [2, 1, 1, 4, 3, 1].map(Value::from), "{api:#}");
    let reasons = &api["bypass_reasons"];
    assert_eq!(of(reasons, &["method", "cookie", "request-no-store", "off"]), [1, 1, 1, 0].map(Value::from));
    assert_eq!(api["not_stored"]["no-store"], 2, "{api:#}");
    // From either tier, fresh or stale, over those plus misses; bypasses are apart.
    assert_eq!(api["hit_ratio"], 7.0 / (7.0 + 19.0), "{api:#}");
    assert_eq!(stats["hit_ratio"], 7.0 / 26.0);
    for window in ["1m", "10m", "1h", "all"] {
        let ratios = &stats["all"]["hit_ratios"][window];
        assert_eq!((&ratios["requests"], &ratios["looked"]), (&json!(7.0 / 26.0), &json!(26)), "{window}");
        // A HEAD has no body; the other hits and misses have one byte each, the failed one its own words.
        assert!(
            ratios["bytes"].as_f64() > Some(0.0) && ratios["bytes"].as_f64() < Some(7.0 / 26.0),
            "{ratios}"
        );
    }
    assert!(api["origin_seconds_saved"].as_f64() > Some(0.0), "{api:#}");
    let off = &stats["routes"]["off"];
    assert_eq!(of(off, &["requests", "bypass", "hit_ratio"]), [json!(2), json!(2), json!(0.0)], "{off:#}");
    assert_eq!(off["bypass_reasons"]["off"], 2);
    assert_eq!(stats["routes"]["-"]["results"]["local"], 1, "{stats:#}");
    assert_eq!(api["origin_fetches"].as_u64().unwrap() + off["origin_fetches"].as_u64().unwrap(), fetched);
    // A tier's own figures count fills too, which look there for something to confirm.
    assert!(stats["tiers"]["redis"]["hits"].as_u64() >= Some(1), "{stats:#}");
    assert_eq!(stats["tiers"]["redis"]["up"], true, "{stats:#}");
    assert!(stats["average_time_s"].as_f64().unwrap() > 0.0 && stats["uptime_s"].as_f64().unwrap() > 0.0);

    assert_metrics_agree(&larder, &stats);
}

/// Every counter of `/stats` that `/metrics` has too is the same there.
fn assert_metrics_agree(larder: &Larder, stats: &Value) {
    let page = Page(larder.metrics());
    for (route, counts) in stats["routes"].as_object().unwrap() {
        let label = format!("route=\"{route}\"");
        for (result, n) in counts["results"].as_object().unwrap() {
            let seen = page.sum("larder_requests_total", &[&label, &format!("result=\"{result}\"")]);
            assert_eq!(Some(seen), n.as_f64(), "{route} {result}");
        }
        for (tier, n) in counts["hits"].as_object().unwrap() {
            let labels = [label.as_str(), "result=\"hit\"", &format!("tier=\"{tier}\"")];
            assert_eq!(Some(page.sum("larder_requests_total", &labels)), n.as_f64(), "{route} {tier}");
        }
        let by_reason = [
            ("misses", "larder_misses_total"),
            ("bypass_reasons", "larder_bypasses_total"),
            ("not_stored", "larder_not_stored_total"),
        ];
        for (key, name) in by_reason {
            for (reason, n) in counts[key].as_object().unwrap() {
                let seen = page.sum(name, &[&label, &format!("reason=\"{reason}\"")]);
                assert_eq!(Some(seen), n.as_f64(), "{route} {name} {reason}");
            }
        }
        for (cause, n) in counts["miss_causes"].as_object().unwrap() {
            let seen = page.sum("larder_miss_causes_total", &[&label, &format!("cause=\"{cause}\"")]);
            assert_eq!(Some(seen), n.as_f64(), "{route} {cause}");
        }
        assert_ratios_agree(&page, "larder_hit_ratio", &[&label], &counts["hit_ratios"]);
        let plain = [
            ("requests", "larder_requests_total"),
            ("collapsed", "larder_collapsed_total"),
            ("bytes_out", "larder_response_bytes_total"),
            ("origin_fetches", "larder_origin_fetches_total"),
        ];
        for (key, name) in plain {
            assert_eq!(Some(page.sum(name, &[&label])), counts[key].as_f64(), "{route} {name}");
        }
    }
    assert_ratios_agree(&page, "larder_overall_hit_ratio", &[], &stats["all"]["hit_ratios"]);
    assert_eq!(Some(page.sum("larder_request_duration_seconds_count", &[])), stats["total"].as_f64());
    assert_eq!(Some(page.sum("larder_requests_failed_total", &[])), stats["failed"].as_f64());
    for (tier, figures) in stats["tiers"].as_object().unwrap() {
        for key in ["lookups", "hits", "misses"] {
            let seen = page.sum(&format!("larder_tier_{key}_total"), &[&format!("tier=\"{tier}\"")]);
            assert_eq!(Some(seen), figures[key].as_f64(), "{tier} {key}");
        }
    }
    for key in ["entries", "bytes", "budget"] {
        let name = if key == "budget" {
            "larder_memory_budget_bytes".into()
        } else {
            format!("larder_memory_{key}")
        };
        assert_eq!(Some(page.sum(&name, &[])), stats["tiers"]["memory"][key].as_f64(), "{key}");
    }
}

/// Over each window, in requests and in bytes.
fn assert_ratios_agree(page: &Page, name: &str, labels: &[&str], ratios: &Value) {
    for (window, of_window) in ratios.as_object().unwrap() {
        for of in ["requests", "bytes"] {
            let more = [format!("window=\"{window}\""), format!("of=\"{of}\"")];
            let seen = page.sum(name, &[labels, &more.each_ref().map(String::as_str)].concat());
            // serde_json reads the last digit of some numbers as its neighbour.
            let same = (seen - of_window[of].as_f64().unwrap()).abs() < 1e-12;
            assert!(same, "{name} {labels:?} {window} {of}: {seen}, {ratios}");
        }
    }
}

/// Prometheus text.
struct Page(String);

impl Page {
    /// The sum of the samples of this name that have all these labels; panics where there is none.
    fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let samples: Vec<f64> = self
            .0
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
            .collect();
        assert!(!samples.is_empty(), "no sample {name} {labels:?} in\n{}", self.0);
        samples.iter().sum()
    }
}

#[test]
fn promtool_is_content_with_the_metrics() {
    let redis = RedisServer::start();
    for redis in [None, Some(redis.url())] {
        let origin = Origin::ok("x", &[]);
        let larder = Larder::start(&config(&origin, "", redis.as_deref()));
        for path in ["/api/a", "/api/a", "/off/\"quoted\"", "/nowhere"] {
            larder.get(path, &[]);
        }
        settled(&larder, 4);
        let response = get(larder.admin(), "/metrics", &[]);
        assert_eq!(response.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the tests need promtool: install it, for example with `apt-get install prometheus`");
        promtool.stdin.take().unwrap().write_all(&response.body).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert_eq!((String::from_utf8_lossy(&said).as_ref(), output.status.code()), ("", Some(0)));
    }
}

#[test]
fn a_slow_request_is_one_event_with_its_phases() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |request| match request.target.as_str() {
        "/api/slow" => Script::new().wait(&held).head(200, &[("Content-Length", "4")]).bytes("slow"),
        _ => Script::ok("x", &[]),
    });
    let top = "[timing]\nslow_request = \"1s\"";
    let larder = Larder::start(&config(&origin, top, None));
    larder.get("/api/quick", &[]);
    thread::scope(|scope| {
        let slow = scope.spawn(|| larder.get("/api/slow", &[]).text());
        gate.wait_for_arrivals(1);
        // Time itself is what the request has to take.
        thread::sleep(Duration::from_millis(1300));
        gate.open();
        assert_eq!(slow.join().unwrap(), "slow");
    });
    let stats = settled(&larder, 2);
    assert_eq!(stats["slow"], 1);
    let is_slow = |line: &str| line.contains("larder::slow");
    let line = larder.err.wait_for_line(is_slow, PATIENCE);
    assert_eq!(larder.err.all().iter().filter(|line| is_slow(line)).count(), 1);
    let event: Value = serde_json::from_str(&line).unwrap();
    let words = [
        ("level", "warn"),
        ("msg", "slow request"),
        ("method", "GET"),
        ("path", "/api/slow"),
        ("route", "api"),
        ("outcome", "miss"),
        ("reason", "uri-miss"),
        ("end", "complete"),
    ];
    for (key, word) in words {
        assert_eq!(event[key], word, "{line}");
    }
    assert_eq!(event["status"], 200);
    let millis = |key: &str| event[key].as_f64().unwrap_or_else(|| panic!("no {key} in {line}"));
    assert!(millis("total_ms") >= 1300.0 && millis("first_byte_ms") >= 1200.0, "{line}");
    let phases = [
        "queue_ms",
        "memory_ms",
        "redis_ms",
        "wait_ms",
        "connect_ms",
        "hedge_ms",
        "first_byte_ms",
        "coding_ms",
        "body_ms",
    ];
    let sum: f64 = phases.into_iter().map(millis).sum();
    assert!(sum <= millis("total_ms") + 1.0, "{line}");
}

#[test]
fn a_slow_guest_is_slow_for_waiting() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin =
        Origin::start(move |_| Script::new().wait(&held).head(200, &[("Content-Length", "1")]).bytes("x"));
    let larder = Larder::start(&config(&origin, "[timing]\nslow_request = \"300ms\"", None));
    thread::scope(|scope| {
        let clients = [0, 1].map(|_| scope.spawn(|| larder.get("/api/a", &[]).status));
        assert!(within(PATIENCE, || larder.stats()["active"] == 2));
        thread::sleep(Duration::from_millis(500));
        gate.open();
        assert!(clients.into_iter().all(|client| client.join().unwrap() == 200));
    });
    assert_eq!(settled(&larder, 2)["slow"], 2);
    let is_guest = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap_or_default();
        event["target"] == "larder::slow" && event["wait_ms"].as_f64() > Some(400.0)
    };
    larder.err.wait_for_line(is_guest, PATIENCE);
}

#[test]
fn the_access_log_in_json_is_an_object_per_request_on_stdout() {
    let origin = Origin::start(|request| match request.target.as_str() {
        "/api/no" => Script::ok("x", &[("Cache-Control", "no-store")]),
        _ => Script::ok("body", &[]),
    });
    let mut larder = Larder::start(&config(&origin, "[log]\naccess = \"json\"", None));
    let rows = [
        ("GET", "/api/a?q=%22", 200, "api", "miss", "uri-miss", 4),
        ("GET", "/api/a?q=%22", 200, "api", "hit", "", 4),
        ("POST", "/api/a", 200, "api", "bypass", "method", 4),
        ("GET", "/off/a", 200, "off", "bypass", "off", 4),
        ("GET", "/api/no", 200, "api", "miss", "uri-miss", 1),
        ("HEAD", "/api/a?q=%22", 200, "api", "hit", "", 0),
        ("GET", "/nowhere", 404, "-", "local", "", -1),
    ];
    for (method, path, status, ..) in rows {
        assert_eq!(client::request(larder.proxy(), method, path, &[HOST], b"").status, status, "{path}");
    }
    larder.terminate();
    assert_eq!(larder.wait_exit(PATIENCE), Some(0));
    let lines = larder.out.all();
    assert_eq!(lines.len(), rows.len(), "{lines:#?}");
    for (line, (method, path, status, route, cache, reason, bytes)) in lines.iter().zip(rows) {
        let entry: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let seen =
            ["method", "path", "route", "cache", "host", "client", "end"].map(|key| entry[key].clone());
        assert_eq!(seen, [method, path, route, cache, "api.test", "127.0.0.1", "complete"], "{line}");
        assert_eq!(
            (entry["status"].as_u64(), entry["reason"].as_str()),
            (Some(status.into()), Some(reason).filter(|r| !r.is_empty())),
            "{line}"
        );
        assert!(entry["dur_ms"].as_f64().is_some_and(|millis| millis > 0.0), "{line}");
        assert!(bytes < 0 || entry["bytes_out"].as_i64() == Some(bytes), "{line}");
        let ts = entry["ts"].as_str().unwrap();
        assert!(ts.len() == 24 && ts.ends_with('Z') && ts.as_bytes()[10] == b'T', "{line}");
    }
}

#[test]
fn the_access_log_in_text_is_a_line_per_request_on_stdout() {
    let origin = Origin::ok("x", &[]);
    let larder = Larder::start(&config(&origin, "[log]\naccess = \"text\"", None));
    let rows =
        [("GET", "/api/a", "MISS"), ("GET", "/api/a", "HIT memory"), ("POST", "/api/a", "BYPASS method")];
    let mut from = 0;
    for (method, path, words) in rows {
        client::request(larder.proxy(), method, path, &[], b"");
        let (line, next) = larder.out.next_line(from, |_| true, PATIENCE);
        from = next;
        for expected in [method, path, "200", words, " ms"] {
            assert!(line.contains(expected), "{expected:?} is not in {line:?}");
        }
        // No terminal, no colours; and no second line.
        assert!(!line.contains('\u{1b}'), "{line:?}");
    }
    assert_eq!(larder.out.position(), rows.len());
    assert!(!larder.err.whole().contains("/api/a"), "{}", larder.err.whole());
}

#[test]
fn without_an_access_log_stdout_stays_silent() {
    let origin = Origin::ok("x", &[]);
    let mut larder = Larder::start(&config(&origin, "", None));
    larder.get("/api/a", &[]);
    larder.terminate();
    assert_eq!(larder.wait_exit(PATIENCE), Some(0));
    assert_eq!(larder.out.whole(), "");
}

#[test]
fn a_reader_of_stdout_that_does_not_read_holds_up_no_request_and_not_the_end() {
    let origin = Origin::ok("x", &[]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("proxy.toml");
    std::fs::write(&file, config(&origin, "[log]\naccess = \"json\"\naccess_queue = 50", None)).unwrap();
    // Not by the usual helper: that one reads.
    let mut command = larder();
    command.arg("run").arg("-c").arg(&file).stdin(Stdio::null());
    let mut child = KilledWhenDropped(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let unread = child.0.stdout.take().unwrap();
    let mut messages = BufReader::new(child.0.stderr.take().unwrap()).lines();
    let mut announced = |words: &str| {
        messages.by_ref().find_map(|line| address_after(&line.unwrap(), words)).expect("it has not started")
    };
    let proxy = announced("listening on http://");
    let admin = announced("admin on http://");

    // A pipe holds 64 KiB; this is ten times as much.
    let path = format!("/api/{}", "x".repeat(1800));
    let mut connection = Connection::open(proxy);
    for _ in 0..350 {
        assert_eq!(connection.request("GET", &path, &[HOST], b"").status, 200);
    }
    let dropped =
        within(PATIENCE, || get(admin, "/stats", &[]).json()["access_log_dropped"].as_u64().unwrap() > 0);
    assert!(dropped, "nothing was dropped");
    assert_eq!(get(admin, "/stats", &[]).json()["failed"], 0);
    let kill = format!("kill -TERM {}", child.0.id());
    assert!(Command::new("sh").arg("-c").arg(kill).status().unwrap().success());
    let mut ended = None;
    within(PATIENCE, || {
        ended = child.0.try_wait().unwrap();
        ended.is_some()
    });
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
    drop(unread);
}

struct KilledWhenDropped(std::process::Child);

impl Drop for KilledWhenDropped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_redis_that_is_down_is_degraded_and_not_unready() {
    let origin = Origin::ok("x", &[]);
    let redis = RedisServer::start();
    let nobody = format!("redis://{}", unused_address());
    let rows = [
        (None, json!([])),
        (Some(redis.url()), json!([])),
        (Some(nobody), json!(["redis is down: memory only"])),
    ];
    for (redis, degraded) in rows {
        let larder = Larder::start(&config(&origin, "", redis.as_deref()));
        let mut last = Value::Null;
        let as_expected = within(PATIENCE, || {
            let ready = get(larder.admin(), "/readyz", &[]);
            last = ready.json();
            if last["status"] == "warming" {
                return false;
            }
            assert_eq!(ready.status, 200);
            // How it stands with the fleet is told beside it, where there is one.
            let told: Vec<&str> =
                last["degraded"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            let of_redis: Vec<&str> = told.into_iter().filter(|said| !said.starts_with("purges ")).collect();
            last["status"] == "ready"
                && json!(of_redis) == degraded
                && last["coherence"].is_null() == redis.is_none()
        });
        assert!(as_expected, "{redis:?}: {last}");
        let live = get(larder.admin(), "/livez", &[]);
        assert_eq!((live.status, live.json()), (200, json!({ "status": "alive" })));
        assert_eq!(
            larder.metric("larder_redis_up"),
            redis.map(|_| f64::from(u8::from(degraded == json!([]))))
        );
    }
}

#[test]
fn a_purge_that_is_no_purge_is_told_what_is_wrong() {
    let origin = Origin::ok("x", &[]);
    let larder = Larder::start(&config(&origin, "", None));
    let post = |body: &[u8]| client::request(larder.admin(), "POST", "/purge", &[], body);
    let bad: [&[u8]; 9] = [
        b"",
        b"url",
        b"[]",
        b"{}",
        b"{\"url\": 1}",
        b"{\"url\": \"http://a/\", \"also\": 1}",
        b"{\"url\": \"/api/a\"}",
        b"{\"url\": \"api.test/a\"}",
        b"{\"url\": \"\"}",
    ];
    for body in bad {
        let answer = post(body);
        let said = answer.json()["error"].as_str().map(str::to_owned);
        let shown = String::from_utf8_lossy(body);
        assert_eq!(answer.status, 400, "{shown}");
        assert!(said.is_some_and(|said| said.contains("http://host/path")), "{shown}: {}", answer.text());
    }
    let large = format!("{{\"url\": \"http://a/{}\"}}", "x".repeat(1_100_000));
    assert_eq!(post(large.as_bytes()).status, 413);
    for method in ["GET", "PUT", "DELETE"] {
        let answer = client::request(larder.admin(), method, "/purge", &[], b"");
        assert_eq!((answer.status, answer.header("allow")), (405, "POST"), "{method}");
    }
    let answer = client::request(larder.admin(), "POST", "/stats", &[], b"");
    assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD"));
    let page = [("Origin", "http://evil.test")];
    let answer = client::request(larder.admin(), "POST", "/purge", &page, b"{\"url\": \"http://a/\"}");
    assert_eq!(answer.status, 403);
}

#[test]
fn a_purge_says_what_it_found_and_the_next_request_goes_to_the_origin() {
    let origin = Origin::start(|request| Script::ok(format!("#{}", request.count), &[]));
    let larder = Larder::start(&config(&origin, "", None));
    let purge = |url: &str| {
        let body = json!({ "url": url }).to_string();
        let answer = client::request(larder.admin(), "POST", "/purge", &[], body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let ask = || larder.get("/api/a?b=1&a=2", &[("Host", "Api.Test:80")]).text();
    assert_eq!([ask(), ask()], ["#1", "#1"]);
    // In any order of the query, in any case of the host, with the default port or without.
    for (n, url) in (2..).zip(["http://api.test/api/a?b=1&a=2", "HTTP://API.test:80/api/a?a=2&b=1#frag"]) {
        let said = purge(url);
        assert_eq!((&said["memory"], &said["redis"]), (&json!("purged"), &json!("not configured")), "{url}");
        assert_eq!(said["was_in_memory"], true, "{url}");
        assert_eq!([ask(), ask()], [format!("#{n}"), format!("#{n}")], "{url}");
    }
    let body = json!({ "url": "http://api.test/api/*" }).to_string();
    let refused = client::request(larder.admin(), "POST", "/purge", &[], body.as_bytes());
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("--prefix"), "{}", refused.text());
    let never = purge("http://api.test/api/other");
    assert_eq!((&never["memory"], &never["was_in_memory"]), (&json!("held nothing of it"), &json!(false)));
    assert_eq!(ask(), "#3");
}

#[test]
fn the_admin_listener_lists_its_pages_and_knows_no_others() {
    let origin = Origin::ok("x", &[]);
    let larder = Larder::start(&config(&origin, "", None));
    let index = get(larder.admin(), "/", &[]);
    for page in ["/stats", "/metrics", "/livez", "/readyz", "/purge"] {
        assert!(index.text().contains(page), "{page}");
    }
    // What each is stands below the others.
    let text = index.text();
    let pages = text.lines().filter(|line| line.starts_with("  GET  /") || line.starts_with("  POST /"));
    let uneven: Vec<&str> = pages
        .filter(|line| line.get(17..19).is_none_or(|at| !at.starts_with(' ') || at.ends_with(' ')))
        .collect();
    assert_eq!(uneven, Vec::<&str>::new());
    let unknown = get(larder.admin(), "/api/a", &[]);
    assert_eq!(unknown.status, 404);
    assert!(unknown.json()["error"].is_string());
    assert_eq!(origin.requests().len(), 0);
    let head = client::request(larder.admin(), "HEAD", "/stats", &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
}
