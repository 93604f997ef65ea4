//! Traces over OTLP/HTTP, to a collector that reads what comes: which spans there are, how they hang together, what they
//! tell, and that no request waits for them.
//!
//! Must not know: how spans are made or queued.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc;

use serde_json::Value;
use support::{Larder, Origin, PATIENCE, RedisServer, Script, within};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// What a collector is: an HTTP server for POSTs of `/v1/traces`.
fn collector() -> Origin {
    Origin::ok("{}", &[("content-type", "application/json")])
}

fn config(origin: &str, collector: &str, more: &str) -> String {
    format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nworkers = 1\notlp.endpoint = \"{collector}\"\n{more}\n\
         [upstream.api]\nservers = [\"{origin}\"]\n\
         [[route]]\nname = \"users\"\nmatch = {{ path = \"/users/*\" }}\nupstream = \"api\"\n\
         [[route]]\nname = \"rest\"\nmatch = {{ path = \"/*\" }}\nupstream = \"api\"\n"
    )
}

fn traceparent(flags: &str) -> (&'static str, String) {
    ("traceparent", format!("00-{TRACE}-{PARENT}-{flags}"))
}

fn get(larder: &Larder, path: &str, flags: &str) -> support::client::Response {
    let (name, value) = traceparent(flags);
    larder.get(path, &[(name, &value)])
}

/// All spans that a collector has been sent, with the attributes of their process.
fn spans(collector: &Origin) -> Vec<(Value, Value)> {
    let mut spans = Vec::new();
    for request in collector.requests() {
        let batch: Value = serde_json::from_slice(&request.body).unwrap();
        for of in batch["resourceSpans"].as_array().unwrap() {
            for scope in of["scopeSpans"].as_array().unwrap() {
                assert_eq!(scope["scope"]["name"], "larder");
                let all = scope["spans"].as_array().unwrap().iter();
                spans.extend(all.map(|span| (span.clone(), of["resource"].clone())));
            }
        }
    }
    spans
}

/// Waits until the collector has so many.
fn wait_for(collector: &Origin, count: usize) -> Vec<Value> {
    let all = || spans(collector).into_iter().map(|(span, _)| span).collect::<Vec<_>>();
    assert!(within(PATIENCE, || all().len() >= count), "{} of {count}: {:?}", all().len(), all());
    assert_eq!(all().len(), count, "{:?}", all());
    all()
}

/// The value of an attribute, as text; nothing where there is none.
fn attribute(of: &Value, name: &str) -> String {
    let all = of["attributes"].as_array().unwrap();
    let mut found = all.iter().filter(|attribute| attribute["key"] == name);
    let value = found.next().map(|attribute| &attribute["value"]);
    assert!(found.next().is_none(), "{name} is told twice in {of}");
    let value = value.and_then(|value| value.as_object()?.values().next());
    value.map_or(String::new(), |value| value.as_str().map_or(value.to_string(), str::to_owned))
}

fn named<'s>(spans: &'s [Value], name: &str) -> &'s Value {
    spans.iter().find(|span| span["name"] == name).unwrap_or_else(|| panic!("no {name} in {spans:?}"))
}

fn metric(larder: &Larder, result: &str) -> f64 {
    larder.metric(&format!("larder_spans_total{{result=\"{result}\"}}")).unwrap()
}

fn time(span: &Value, name: &str) -> u128 {
    span[name].as_str().unwrap().parse().unwrap()
}

#[test]
fn a_miss_has_a_span_and_children_for_redis_and_origin_and_a_hit_one_alone() {
    let (origin, collector, redis) =
        (Origin::ok("x", &[("cache-control", "max-age=60")]), collector(), RedisServer::start());
    let more = format!(
        "otlp.service_name = \"shop\"\notlp.attributes = {{ \"deployment.environment.name\" = \"test\" }}\n\
         otlp.headers = {{ X-Api-Key = \"abc\" }}\n[cache]\nredis = \"{}\"\nredis_deadline = \"10s\"\n",
        redis.url()
    );
    let larder = Larder::start(&config(&origin.url(), &collector.url(), &more));
    assert!(within(PATIENCE, || larder.metric("larder_redis_up") == Some(1.0)));
    assert_eq!(get(&larder, "/users/7?token=hunter2&a=1", "01").status, 200);
    let all = wait_for(&collector, 3);
    let (server, asked, found) = (named(&all, "GET users"), named(&all, "GET api"), named(&all, "redis get"));
    // Who is whose child.
    assert_eq!((&server["kind"], &asked["kind"], &found["kind"]), (&2.into(), &3.into(), &3.into()));
    assert!(all.iter().all(|span| span["traceId"] == TRACE), "{all:?}");
    assert_eq!((&server["parentSpanId"], &server["flags"]), (&PARENT.into(), &0x301.into()));
    for child in [asked, found] {
        assert_eq!((&child["parentSpanId"], &child["flags"]), (&server["spanId"], &0x101.into()));
        assert!(child["spanId"] != server["spanId"] && child["spanId"].as_str().unwrap().len() == 16);
        assert!(time(server, "startTimeUnixNano") <= time(child, "startTimeUnixNano"), "{child} {server}");
        assert!(time(child, "endTimeUnixNano") <= time(server, "endTimeUnixNano"), "{child} {server}");
    }
    let seen = origin.last();
    let passed_on: Vec<&str> = seen.header("traceparent").split('-').collect();
    assert_eq!((passed_on[1], passed_on[2], passed_on[3]), (TRACE, server["spanId"].as_str().unwrap(), "01"));
    // What is told.
    let (host, port) = (larder.proxy().ip().to_string(), larder.proxy().port().to_string());
    for (name, value) in [
        ("http.request.method", "GET"),
        ("url.scheme", "http"),
        ("url.path", "/users/7"),
        ("server.address", &*host),
        ("server.port", &*port),
        ("client.address", "127.0.0.1"),
        ("network.protocol.version", "1.1"),
        ("http.route", "users"),
        ("http.response.status_code", "200"),
        ("http.response.body.size", "1"),
        ("larder.cache.result", "miss"),
        ("larder.cache.reason", "uri-miss"),
        ("error.type", ""),
    ] {
        assert_eq!(attribute(server, name), value, "{name}");
    }
    assert!(attribute(server, "larder.phase.first_byte").parse::<f64>().unwrap() > 0.0);
    for (name, value) in [
        ("http.request.method", "GET"),
        ("server.port", &*origin.addr().port().to_string()),
        ("http.response.status_code", "200"),
        ("larder.upstream", "api"),
        ("larder.refresh", ""),
        ("error.type", ""),
    ] {
        assert_eq!(attribute(asked, name), value, "{name}");
    }
    let (system, result) = (attribute(found, "db.system.name"), attribute(found, "larder.redis.result"));
    assert_eq!((&*system, &*result), ("redis", "not-found"));
    // What is not told.
    let (query, full) = (attribute(server, "url.query"), attribute(asked, "url.full"));
    assert!(query.starts_with("token=redacted-") && query.ends_with("&a=1"), "{query}");
    assert!(full.starts_with(&format!("{}/users/7?token=redacted-", origin.url())), "{full}");
    let request = collector.last();
    assert!(!String::from_utf8_lossy(&request.body).contains("hunter2"));
    // To whom, and by whom.
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/v1/traces"));
    assert_eq!((request.header("content-type"), request.header("x-api-key")), ("application/json", "abc"));
    let (_, process) = &spans(&collector)[0];
    assert_eq!(attribute(process, "service.name"), "shop");
    assert_eq!(attribute(process, "deployment.environment.name"), "test");
    assert!(!attribute(process, "service.instance.id").is_empty());
    // A hit asks nobody.
    assert_eq!(get(&larder, "/users/7?token=hunter2&a=1", "01").header("x-cache"), "HIT");
    let all = wait_for(&collector, 4);
    let hit = &all[3];
    assert_eq!((&hit["name"], &hit["parentSpanId"]), (&"GET users".into(), &PARENT.into()));
    assert_eq!(
        (attribute(hit, "larder.cache.tier"), attribute(hit, "larder.cache.result")),
        ("memory".into(), "hit".into())
    );
    assert!(within(PATIENCE, || metric(&larder, "sent") == 4.0));
    assert_eq!(larder.stats()["spans"]["sent"], 4);
}

#[test]
fn only_what_is_sampled_is_sent_and_whoever_begins_a_trace_decides() {
    let (origin, collector) = (Origin::ok("x", &[("cache-control", "no-store")]), collector());
    let larder = Larder::start(&config(&origin.url(), &collector.url(), ""));
    assert_eq!(get(&larder, "/a", "00").status, 200);
    assert_eq!(larder.get("/b", &[]).status, 200);
    assert_eq!(get(&larder, "/c", "01").status, 200);
    let all = wait_for(&collector, 2);
    assert_eq!(attribute(named(&all, "GET rest"), "url.path"), "/c");
    drop(larder);
    // Larder begins them, and says of nearly all that they are not sampled.
    let more = "otlp.sample = \"1/1000000000\"\n[log]\ntrace = \"make\"\naccess = \"json\"\n";
    let larder = Larder::start(&config(&origin.url(), &collector.url(), more));
    assert_eq!(larder.get("/d", &[]).status, 200);
    assert!(origin.last().header("traceparent").ends_with("-02"), "{}", origin.last().header("traceparent"));
    assert_eq!(get(&larder, "/e", "01").status, 200);
    let all = wait_for(&collector, 4);
    assert!(all[2..].iter().all(|span| span["traceId"] == TRACE), "{all:?}");
    drop(larder);
    let larder = Larder::start(&config(&origin.url(), &collector.url(), "[log]\ntrace = \"make\"\n"));
    assert_eq!(larder.get("/f", &[]).status, 200);
    assert!(origin.last().header("traceparent").ends_with("-03"), "{}", origin.last().header("traceparent"));
    let all = wait_for(&collector, 6);
    let root = all[4..].iter().find(|span| span["kind"] == 2).unwrap();
    assert!(root.get("parentSpanId").is_none() && root["flags"] == 0x103, "{root}");
}

#[test]
fn an_origin_that_fails_is_an_error_of_both_and_a_client_error_of_the_one_who_asked() {
    let (origin, collector) = (Origin::ok("x", &[]), collector());
    let dead = support::unused_address();
    let text = config(&format!("http://{dead}"), &collector.url(), "");
    let larder = Larder::start(&text);
    assert_eq!(get(&larder, "/users/1", "01").status, 502);
    let all = wait_for(&collector, 2);
    let (server, asked) = (named(&all, "GET users"), named(&all, "GET api"));
    assert_eq!(
        (attribute(server, "error.type"), attribute(asked, "error.type")),
        ("502".into(), "connect-failed".into())
    );
    assert_eq!((&server["status"]["code"], &asked["status"]["code"]), (&2.into(), &2.into()));
    assert_eq!(attribute(asked, "server.port"), dead.port().to_string());
    drop((larder, origin));
}

#[test]
fn a_refresh_belongs_to_the_request_that_caused_it() {
    let fields = [("cache-control", "max-age=0, stale-while-revalidate=600"), ("etag", "\"a\"")];
    let (origin, collector) = (Origin::ok("x", &fields), collector());
    let larder = Larder::start(&config(&origin.url(), &collector.url(), ""));
    assert_eq!(get(&larder, "/users/1", "01").header("x-cache"), "MISS");
    wait_for(&collector, 2);
    assert_eq!(get(&larder, "/users/1", "01").header("x-cache"), "STALE");
    let all = wait_for(&collector, 4);
    let refresh = all.iter().find(|span| attribute(span, "larder.refresh") == "true").unwrap();
    let stale = all.iter().find(|span| attribute(span, "larder.cache.result") == "stale").unwrap();
    assert_eq!(refresh["parentSpanId"], stale["spanId"]);
}

#[test]
fn a_collector_that_is_not_there_delays_and_fails_no_request() {
    let origin = Origin::ok("x", &[("cache-control", "max-age=60")]);
    let dead = format!("http://{}", support::unused_address());
    let larder = Larder::start(&config(&origin.url(), &dead, "otlp.queue = 8\n"));
    for _ in 0..40 {
        assert_eq!(get(&larder, "/a", "01").status, 200);
    }
    // 41 spans: eight may wait, whatever becomes of them, and all others are dropped at once.
    assert!(within(PATIENCE, || metric(&larder, "dropped") >= 33.0), "{}", metric(&larder, "dropped"));
    larder.err.wait_for_line(|line| line.contains("takes no spans"), PATIENCE + PATIENCE);
    assert!(within(PATIENCE, || metric(&larder, "failed") >= 8.0));
    assert_eq!(metric(&larder, "sent"), 0.0);
}

#[test]
fn a_collector_that_hangs_delays_no_request_and_the_end_by_no_more_than_its_bound() {
    let origin = Origin::ok("x", &[("cache-control", "max-age=60")]);
    // It takes connections and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (tell, told) = mpsc::channel();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            if tell.send(stream).is_err() {
                return;
            }
        }
    });
    let text = config(&origin.url(), &format!("http://{address}"), "[limits]\nlame_duck = \"0s\"\n");
    let mut larder = Larder::start(&text);
    assert_eq!(get(&larder, "/a", "01").status, 200);
    let _held = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(get(&larder, "/b", "01").status, 200);
    larder.terminate();
    assert_eq!(larder.wait_exit(PATIENCE), Some(0));
    assert!(larder.err.whole().contains("has not taken the last spans"), "{}", larder.err.whole());
}

#[test]
fn what_waits_is_sent_at_the_end() {
    let (origin, collector) = (Origin::ok("x", &[]), collector());
    let text = config(&origin.url(), &collector.url(), "[limits]\nlame_duck = \"0s\"\n");
    let mut larder = Larder::start(&text);
    for nth in 0..5 {
        assert_eq!(get(&larder, &format!("/{nth}"), "01").status, 200);
    }
    larder.terminate();
    assert_eq!(larder.wait_exit(PATIENCE), Some(0));
    assert_eq!(spans(&collector).len(), 10);
}

#[test]
fn what_a_collector_refuses_is_counted_and_sent_again_only_where_that_may_help() {
    let origin = Origin::ok("x", &[("cache-control", "max-age=60")]);
    for (status, body, sent, failed, rejected) in [
        (500, "{}", 0.0, 2.0, 0.0),
        (200, r#"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"no"}}"#, 1.0, 0.0, 1.0),
    ] {
        let collector = Origin::start(move |_| Script::respond(status, &[], body));
        let larder = Larder::start(&config(&origin.url(), &collector.url(), ""));
        assert_eq!(get(&larder, &format!("/{status}"), "01").status, 200);
        let counts = || (metric(&larder, "sent"), metric(&larder, "failed"), metric(&larder, "rejected"));
        assert!(within(PATIENCE, || counts() == (sent, failed, rejected)), "{status}: {:?}", counts());
        assert_eq!(collector.requests().len(), 1, "{status}");
    }
}

#[test]
fn keys_stand_in_a_file_and_in_no_message() {
    let (origin, collector) = (Origin::ok("x", &[]), collector());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("headers");
    let write =
        |path: &Path, text: &str| std::fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
    write(&file, "# of the collector\nX-Api-Key: hunter2\n\nX-Other: b\n");
    let more = format!("otlp.headers_file = \"{}\"\n", file.display());
    let larder = Larder::start(&config(&origin.url(), &collector.url(), &more));
    assert_eq!(get(&larder, "/a", "01").status, 200);
    wait_for(&collector, 2);
    assert_eq!((collector.last().header("x-api-key"), collector.last().header("x-other")), ("hunter2", "b"));
    // Others may open it.
    larder.err.wait_for_line(|line| line.contains("exposed-secret"), PATIENCE);
    for wrong in ["hunter2", "X-Api-Key: hunter2\u{1}", "Host: hunter2"] {
        write(&file, wrong);
        let text = config(&origin.url(), &collector.url(), &more);
        write(&folder.path().join("proxy.toml"), &text);
        let finished = support::process::run_to_end(&["check"], folder.path());
        assert_eq!(finished.code, Some(78), "{wrong}");
        assert!(
            finished.err.contains("line 1 is not such as") && !finished.err.contains("hunter2"),
            "{}",
            finished.err
        );
    }
}
