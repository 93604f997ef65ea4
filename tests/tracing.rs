//! Traces and ids: what origins and logs are told of `traceparent`, `tracestate` and `X-Request-Id`; and what logs
//! are not told.
//!
//! Must not know: how ids are made.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::collections::BTreeSet;

use serde_json::Value;
use support::{Larder, Origin, PATIENCE, get};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn larder(origin: &Origin, log: &str, more: &str) -> Larder {
    Larder::start(&format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"off\"\nworkers = 1\n[log]\naccess = \"json\"\n{log}\n{more}\n\
         [upstream.api]\nservers = [\"{}\"]\n[[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"api\"\n",
        origin.url()
    ))
}

/// The line of the access log about this path.
fn line(larder: &Larder, path: &str) -> Value {
    let wanted = format!("\"path\":\"{path}");
    let line = larder.out.wait_for_line(|line| line.contains(&wanted), PATIENCE);
    serde_json::from_str(&line).unwrap()
}

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

#[test]
fn a_trace_that_comes_goes_on_with_this_process_as_the_parent_and_stands_in_the_log() {
    let origin = Origin::ok("x", &[("cache-control", "max-age=60")]);
    let larder = larder(&origin, "", "");
    let sent = [("traceparent", &*traceparent("01")), ("tracestate", "a=b"), ("x-request-id", "r-1")];
    assert_eq!(larder.get("/a", &sent).status, 200);
    let seen = origin.last();
    let parts: Vec<&str> = seen.header("traceparent").split('-').collect();
    assert_eq!((parts[0], parts[1], parts[3]), ("00", TRACE, "01"));
    assert!(parts[2] != PARENT && parts[2] != "0".repeat(16) && parts[2].len() == 16, "{parts:?}");
    assert_eq!((seen.header("tracestate"), seen.header("x-request-id")), ("a=b", "r-1"));
    let missed = line(&larder, "/a");
    assert_eq!((&missed["trace_id"], &missed["span_id"]), (&TRACE.into(), &parts[2].into()));
    assert_eq!(missed["request_id"], "r-1");
    // A hit reaches no origin, and its line has a part of its own.
    let other = [("traceparent", &*traceparent("00")), ("x-request-id", "r-2")];
    assert_eq!(larder.get("/a", &other).header("x-cache"), "HIT");
    let hit = larder.out.wait_for_line(|line| line.contains("\"r-2\""), PATIENCE);
    let hit: Value = serde_json::from_str(&hit).unwrap();
    assert!(hit["trace_id"] == TRACE && hit["span_id"] != missed["span_id"], "{hit}");
}

#[test]
fn what_is_malformed_or_absent_is_not_passed_on_and_made_only_where_that_is_asked_for() {
    let zeros = format!("00-{}-{PARENT}-01", "0".repeat(32));
    let no_parent = format!("00-{TRACE}-{}-01", "0".repeat(16));
    let ff = format!("ff-{TRACE}-{PARENT}-01");
    // W3C Trace Context §3.2.2.3, §3.2.2.4, §3.2.2.1, §3.2.2; and what is not there.
    let rows = [Some(&*zeros), Some(&*no_parent), Some(&*ff), Some("nonsense"), None];
    for mode in ["accept", "make"] {
        let origin = Origin::ok("x", &[("cache-control", "no-store")]);
        let larder = larder(&origin, &format!("trace = \"{mode}\""), "");
        for (nth, bad) in rows.iter().enumerate() {
            let path = format!("/{mode}/{nth}/");
            let mut sent = vec![("tracestate", "a=b"), ("x-request-id", "r 1; forged")];
            sent.extend(bad.map(|bad| ("traceparent", bad)));
            assert_eq!(larder.get(&path, &sent).status, 200);
            let (seen, logged) = (origin.last(), line(&larder, &path));
            assert_eq!(seen.header("tracestate"), "", "{bad:?}: of a trace that is not known");
            if mode == "accept" {
                assert_eq!((seen.header("traceparent"), seen.header("x-request-id")), ("", ""), "{bad:?}");
                assert!(logged["trace_id"].is_null() && logged["request_id"].is_null(), "{logged}");
                continue;
            }
            let parts: Vec<&str> = seen.header("traceparent").split('-').collect();
            assert_eq!((parts[0], parts[1].len(), parts[2].len()), ("00", 32, 16), "{parts:?}");
            assert!(parts[1] != "0".repeat(32) && parts[1] != TRACE, "{parts:?}");
            assert_eq!((&logged["trace_id"], &logged["span_id"]), (&parts[1].into(), &parts[2].into()));
            assert_eq!(logged["request_id"].as_str().unwrap(), seen.header("x-request-id"));
            assert_eq!(seen.header("x-request-id").len(), 32);
        }
    }
}

#[test]
fn off_passes_all_as_it_came_and_logs_none_of_it() {
    let origin = Origin::ok("x", &[]);
    let larder = larder(&origin, "trace = \"off\"", "");
    assert_eq!(larder.get("/a", &[("traceparent", "nonsense"), ("tracestate", "a=b")]).status, 200);
    assert_eq!(
        (origin.last().header("traceparent"), origin.last().header("tracestate")),
        ("nonsense", "a=b")
    );
    assert!(line(&larder, "/a")["trace_id"].is_null());
}

#[test]
fn the_slow_log_tells_of_trace_and_id() {
    let origin = Origin::ok("x", &[]);
    let larder = larder(&origin, "format = \"json\"", "[timing]\nslow_request = \"0s\"");
    let sent = [("traceparent", &*traceparent("01")), ("x-request-id", "r-1")];
    assert_eq!(get(larder.proxy(), "/slow?token=hunter2", &sent).status, 200);
    let slow = larder.err.wait_for_line(|line| line.contains("slow request"), PATIENCE);
    let slow: Value = serde_json::from_str(&slow).unwrap();
    assert_eq!((&slow["trace_id"], &slow["request_id"]), (&TRACE.into(), &"r-1".into()));
    assert!(slow["path"].as_str().unwrap().starts_with("/slow?token=redacted-"), "{slow}");
}

#[test]
fn no_log_has_a_secret_that_stands_in_a_query_or_a_field_and_the_origin_has_them_all() {
    let origin = Origin::ok("x", &[("vary", "x-api-key")]);
    let larder = larder(&origin, "redact = [\"Ticket\"]", "");
    let fields = [("authorization", "Bearer hunter2"), ("cookie", "sid=hunter2"), ("x-api-key", "hunter2")];
    let path = "/a?ticket=hunter2&token=shown";
    assert_eq!(larder.get(path, &fields).status, 200);
    assert_eq!(origin.last().target, path);
    let logged = line(&larder, "/a?ticket=redacted-").to_string();
    assert!(!logged.contains("hunter2") && logged.contains("&token=shown"), "{logged}");
}

/// Every key of a line of the access log has a row in docs/logs.md, and every row a key.
#[test]
fn the_access_log_is_documented_key_by_key() {
    let origin = Origin::ok("x", &[]);
    let larder = larder(&origin, "", "");
    assert_eq!(larder.get("/a", &[]).status, 200);
    let line = line(&larder, "/a");
    let keys: BTreeSet<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
    let document = include_str!("../docs/logs.md");
    let (_, table) = document.split_once("| key | what it is |\n|---|---|\n").unwrap();
    let rows: Vec<&str> = table.lines().take_while(|line| line.starts_with('|')).collect();
    let told: BTreeSet<&str> =
        rows.iter().flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2)).collect();
    assert_eq!(told, keys);
}

/// Its usual effect is to end the process, and those who rotate logs send it.
#[test]
fn a_signal_to_reopen_logs_ends_nothing() {
    let origin = Origin::ok("x", &[]);
    let mut larder = larder(&origin, "", "");
    larder.signal("USR1");
    larder.err.wait_for_line(|line| line.contains("SIGUSR1 does nothing"), PATIENCE);
    assert_eq!(larder.get("/a", &[]).status, 200);
    assert!(larder.is_running());
}
