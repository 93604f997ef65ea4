//! The text of an exposition, by what the counters and gauges are.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};

use super::super::families::{FAMILIES, MetricType};
use super::super::finish::{End, Finished, sample};
use super::super::metrics::Metrics;
use super::super::outcome::{Bypass, Detail, Miss, Outcome, Source};
use super::*;
use crate::clock::{Mono, Timestamp};
use crate::rules::NotStored;
use crate::telemetry::{SpanGauges, Timeline};

fn gauges() -> Gauges {
    let upstream = |server: &str| UpstreamGauges {
        upstream: "api".to_owned(),
        server: server.to_owned(),
        open: 3,
        idle: 1,
        connects: 4,
        ..UpstreamGauges::default()
    };
    Gauges {
        uptime: Duration::from_millis(12_500),
        started: Timestamp::from_millis(1_709_210_096_789),
        resident: Some(5_000_000),
        memory: MemoryGauges { entries: 2, lookups: 10, hits: 4, ..MemoryGauges::default() },
        fleet: Some(FleetGauges { state: "ok", ..FleetGauges::default() }),
        leases: Some(LeaseGauges { taken: 4, ..LeaseGauges::default() }),
        warm: WarmGauges { loaded: 5, ..WarmGauges::default() },
        redis: Some(RedisGauges { up: true, breaker: "closed", gets: 6, ..RedisGauges::default() }),
        upstreams: vec![upstream("http://a:1"), upstream("http://b:1"), upstream("http://a:1")],
        coding: CodingGauges { encoded: 3, ..CodingGauges::default() },
        connections: 5,
        proxy_headers: [1, 2, 3, 4, 5, 6, 7],
        heads: [8, 9],
        tunnels: 2,
        tunnels_ended: [3, 2, 1],
        interim_passed: 6,
        cuts: std::array::from_fn(|number| number as u64),
        interim_dropped: 7,
        fetches: 9,
        tasks: 10,
        panics: 8,
        reloads_done: 2,
        reloads_refused: 3,
        access_dropped: 1,
        spans: SpanGauges { sent: 4, dropped: 3, failed: 2, rejected: 1 },
    }
}

fn busy() -> Metrics {
    let metrics = Metrics::new(&["users".to_owned(), "od\"d\\na\nme".to_owned()], 2);
    let mut not_stored = Outcome::new(Source::Miss(Miss::Uri));
    not_stored.detail = Some(Detail::NotStored(NotStored::NoStore));
    let outcomes = [
        Outcome::new(Source::Hit(Tier::Memory)),
        Outcome::new(Source::Hit(Tier::Redis)),
        not_stored,
        Outcome::new(Source::Bypass(Bypass::Cookie)),
    ];
    let mut timeline = Timeline::new(Mono::default());
    timeline.add(Phase::Redis, Duration::from_micros(300));
    for (i, outcome) in outcomes.iter().enumerate() {
        metrics.shard(i).begin();
        sample::with(outcome, |r| {
            metrics.shard(i).finish(&Finished { timeline: &timeline, end: End::ClientGone, ..r });
        });
    }
    metrics.shard(1).origin_fetch(Some(0), Duration::from_millis(3));
    metrics
}

fn samples(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap()).map(|(k, v)| (k, v.parse().unwrap())).collect()
}

#[test]
fn what_happened_is_what_is_shown() {
    let text = busy().exposition(&gauges(), Format::Prometheus);
    let samples = samples(&text);
    let rows = [
        (r#"larder_requests_total{route="users",result="hit",tier="memory"}"#, 1.0),
        (r#"larder_requests_total{route="users",result="hit",tier="redis"}"#, 1.0),
        (r#"larder_requests_total{route="users",result="miss",tier="-"}"#, 1.0),
        (r#"larder_requests_total{route="-",result="local",tier="-"}"#, 0.0),
        (r#"larder_requests_total{route="od\"d\\na\nme",result="hit",tier="memory"}"#, 0.0),
        (r#"larder_misses_total{route="users",reason="uri-miss"}"#, 1.0),
        (r#"larder_bypasses_total{route="users",reason="cookie"}"#, 1.0),
        (r#"larder_not_stored_total{route="users",reason="no-store"}"#, 1.0),
        (r#"larder_responses_total{route="users",status_class="2xx"}"#, 4.0),
        (r#"larder_response_bytes_total{route="users"}"#, 148.0),
        (r#"larder_origin_fetches_total{route="users"}"#, 1.0),
        (r#"larder_request_duration_seconds_bucket{result="hit",le="0.0005"}"#, 0.0),
        (r#"larder_request_duration_seconds_bucket{result="hit",le="0.001"}"#, 2.0),
        (r#"larder_request_duration_seconds_sum{result="hit"}"#, 0.001624),
        (r#"larder_phase_duration_seconds_count{phase="redis"}"#, 4.0),
        (r#"larder_phase_duration_seconds_count{phase="wait"}"#, 0.0),
        ("larder_origin_fetch_duration_seconds_count", 1.0),
        ("larder_requests_active", 0.0),
        ("larder_client_closed_total", 4.0),
        ("larder_requests_failed_total", 0.0),
        (r#"larder_tier_misses_total{tier="memory"}"#, 6.0),
        (r#"larder_redis_breaker_state{state="closed"}"#, 1.0),
        (r#"larder_redis_breaker_state{state="half-open"}"#, 0.0),
        (r#"larder_upstream_connections{upstream="api",server="http://a:1",state="busy"}"#, 4.0),
        (r#"larder_upstream_connects_total{upstream="api",server="http://b:1"}"#, 4.0),
        ("process_start_time_seconds", 1_709_210_096.789),
        (r#"larder_heads_refused_total{reason="malformed"}"#, 8.0),
        (r#"larder_heads_refused_total{reason="too-long"}"#, 9.0),
        ("larder_fetches_in_flight", 9.0),
        ("larder_tasks", 10.0),
        ("larder_panics_total", 8.0),
        (r#"larder_connections_ended_total{reason="idle"}"#, 2.0),
        (r#"larder_reloads_total{result="done"}"#, 2.0),
        (r#"larder_reloads_total{result="refused"}"#, 3.0),
        ("larder_uptime_seconds", 12.5),
    ];
    for (name, value) in rows {
        assert_eq!(samples.get(name), Some(&value), "{name}");
    }
}

#[test]
fn the_text_has_the_structure_that_prometheus_expects() {
    let text = busy().exposition(&gauges(), Format::Prometheus);
    let mut families = Vec::new();
    let mut series = BTreeSet::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, sentence) = help.split_once(' ').unwrap();
            assert!(sentence.len() > 10 && !sentence.contains(['\\', '\n']), "{line}");
            let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).unwrap();
            families.push((name, kind));
            continue;
        }
        let (name, kind) = families.last().unwrap();
        let (sample, value) = line.rsplit_once(' ').unwrap();
        assert!(series.insert(sample), "a series twice: {sample}");
        assert!(value.parse::<f64>().is_ok_and(|v| v >= 0.0), "{line}");
        let suffix = sample.split('{').next().unwrap().strip_prefix(name).unwrap();
        let histogram = ["_bucket", "_sum", "_count"].contains(&suffix);
        assert_eq!(*kind == "histogram", histogram, "{line}");
        assert!(histogram || suffix.is_empty(), "{line}");
    }
    let declared: Vec<_> = FAMILIES.iter().map(|f| (f.name, f.kind.as_str())).collect();
    let (mut seen, mut expected) = (families.clone(), declared);
    seen.sort_unstable();
    expected.sort_unstable();
    assert_eq!(seen, expected, "each family is shown exactly once");
    assert!(text.ends_with('\n'));
}

#[test]
fn openmetrics_says_the_same_in_its_own_way() {
    let plain = busy().exposition(&gauges(), Format::Prometheus);
    let open = busy().exposition(&gauges(), Format::OpenMetrics);
    let whole = open.strip_suffix("# EOF\n").expect("the end is marked");
    assert!(!whole.contains("# EOF") && whole.ends_with('\n'));
    for family in FAMILIES {
        let called = match family.kind {
            MetricType::Counter => family.name.strip_suffix("_total").unwrap(),
            _ => family.name,
        };
        let kind = family.kind.as_str();
        assert!(whole.contains(&format!("# TYPE {called} {kind}\n")), "{called}");
        // A family's name with `_info`, `_created` or the like is taken for another type.
        assert!(family.kind == MetricType::Gauge || !called.ends_with("_info"), "{called}");
    }
    // The samples are the same, but for how whole bounds are written.
    let same = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.replace(".0\"", "\"")).collect::<Vec<_>>()
    };
    assert_eq!(same(whole), same(&plain));
    assert!(
        whole.contains(r#"le="1.0""#) && whole.contains(r#"le="0.00005""#) && !whole.contains(r#"le="1""#)
    );
}

#[test]
fn names_follow_the_conventions() {
    for family in FAMILIES {
        let name = family.name;
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        assert_eq!(family.kind == MetricType::Counter, name.ends_with("_total"), "{name}");
        assert!(!["_ms", "_millis", "_micros", "_kb"].iter().any(|unit| name.contains(unit)), "{name}");
        assert!(family.kind != MetricType::Histogram || name.ends_with("_seconds"), "{name}");
        assert!(family.help.ends_with('.') && !family.help.contains(['\n', '\\']), "{name}");
    }
}

#[test]
fn histograms_are_complete() {
    let text = busy().exposition(&gauges(), Format::Prometheus);
    let samples = samples(&text);
    let infinite: Vec<_> = samples.iter().filter(|(name, _)| name.contains(r#"le="+Inf""#)).collect();
    assert_eq!(infinite.len(), Kind::ALL.len() + Phase::ALL.len() + 1);
    for (name, value) in infinite {
        let plain = name.replace(r#",le="+Inf""#, "").replace(r#"{le="+Inf"}"#, "");
        assert_eq!(samples.get(plain.replace("_bucket", "_count").as_str()), Some(value), "{name}");
        assert!(samples.contains_key(plain.replace("_bucket", "_sum").as_str()), "{name}");
    }
}

#[test]
fn without_redis_and_upstreams_their_families_are_left_out() {
    let text = Metrics::new(&[], 1).exposition(&Gauges::default(), Format::Prometheus);
    assert!(!text.contains("redis_up") && !text.contains("upstream"));
    assert!(text.contains(r#"larder_tier_hits_total{tier="memory"} 0"#));
}

/// What `promtool check metrics` says of a text; `None` where it is not installed.
fn promtool(text: &str) -> Option<String> {
    let piped = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match piped {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
        other => other.unwrap(),
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let words = [output.stdout, output.stderr].concat();
    Some(format!("{}{}", output.status, String::from_utf8_lossy(&words)))
}

#[test]
fn promtool_where_installed_has_nothing_to_say() {
    for text in [
        busy().exposition(&gauges(), Format::Prometheus),
        Metrics::new(&[], 1).exposition(&Gauges::default(), Format::Prometheus),
    ] {
        if let Some(said) = promtool(&text) {
            assert_eq!(said, "exit status: 0");
        }
    }
}
