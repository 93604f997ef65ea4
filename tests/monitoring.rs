//! What monitoring is given beside the figures: docs/metrics.md, a dashboard for Grafana, alerts for Prometheus. Each
//! names only what there is.
//!
//! `LARDER_WRITE_DOCS=1 cargo test --test monitoring` writes docs/metrics.md anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use larder::telemetry::{
    FAMILIES, FleetGauges, Format, Gauges, LeaseGauges, MetricType, Metrics, RedisGauges, UpstreamGauges,
};
use regex_lite::Regex;
use serde_json::Value;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap()
}

/// The labels of each metric, `le` apart, and the values of each.
type Labels = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// As they are in an exposition that has all there is.
fn labels() -> Labels {
    let gauges = Gauges {
        resident: Some(1),
        redis: Some(RedisGauges { breaker: "closed", ..RedisGauges::default() }),
        leases: Some(LeaseGauges::default()),
        fleet: Some(FleetGauges { state: "ok", ..FleetGauges::default() }),
        upstreams: vec![UpstreamGauges {
            upstream: "api".into(),
            server: "a:1".into(),
            flaws: vec![("flaw", 1)],
            ..UpstreamGauges::default()
        }],
        ..Gauges::default()
    };
    let text = Metrics::new(&["users".to_owned()], 1).exposition(&gauges, Format::Prometheus);
    let label = Regex::new(r#"([a-z_]+)="([^"]*)""#).unwrap();
    let mut found = Labels::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let sample = line.rsplit_once(' ').unwrap().0;
        let name = family(sample.split('{').next().unwrap());
        let of = found.entry(name.to_owned()).or_default();
        for label in label.captures_iter(sample).filter(|label| &label[1] != "le") {
            of.entry(label[1].to_owned()).or_default().insert(label[2].to_owned());
        }
    }
    found
}

/// The family of a sample's name.
fn family(sample: &str) -> &str {
    let known = |name: &str| FAMILIES.iter().any(|family| family.name == name);
    let of_histogram = ["_bucket", "_sum", "_count"].into_iter().find_map(|end| sample.strip_suffix(end));
    of_histogram.filter(|name| !known(sample) && known(name)).unwrap_or(sample)
}

/// Labels whose values are names that somebody has given, or that come from far below.
const OPEN: [&str; 5] = ["route", "upstream", "server", "version", "flaw"];

fn document() -> String {
    let labels = labels();
    let mut text = String::from(
        "# Metrics\n\n\
         `GET /metrics` of the admin listener: Prometheus text, or OpenMetrics 1.0 for who accepts it. This page is written\n\
         from the declarations (`LARDER_WRITE_DOCS=1 cargo test --test monitoring`), which a test compares. Counters only grow;\n\
         a reload keeps them. What the words of `reason` and `cause` mean is in [responses.md](responses.md) and\n\
         [stats.md](stats.md#what-misses-are-due-to). No label has a value that a client chooses.\n\n\
         `deploy/grafana.json` is a dashboard, `deploy/alerts.yml` has alerts.\n\n\
         | metric | type | labels | what it is |\n|---|---|---|---|\n",
    );
    for family in FAMILIES {
        let of: Vec<String> = labels[family.name].keys().map(|label| format!("`{label}`")).collect();
        let (name, kind, help) = (family.name, family.kind.as_str(), family.help);
        writeln!(text, "| `{name}` | {kind} | {} | {help} |", of.join(", ")).unwrap();
    }
    text.push_str("\n## The values of labels\n\n| label | of | values |\n|---|---|---|\n");
    let mut by_values: BTreeMap<(String, String), Vec<&str>> = BTreeMap::new();
    for (name, of) in &labels {
        for (label, values) in of.iter().filter(|(label, _)| !OPEN.contains(&label.as_str())) {
            let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
            by_values.entry((label.clone(), values.join(", "))).or_default().push(name);
        }
    }
    for ((label, values), names) in by_values {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        writeln!(text, "| `{label}` | {} | {values} |", names.join(", ")).unwrap();
    }
    let bounds = "\n`route` is a route's name (`-`: no route matched), `upstream` and `server` are as configured.\n\
                  Histograms have buckets (`le`) from 50 µs to 10 s.\n";
    text.push_str(bounds);
    text
}

#[test]
fn the_document_of_metrics_is_what_the_declarations_say() {
    let written = document();
    if std::env::var_os("LARDER_WRITE_DOCS").is_some() {
        std::fs::write(path("docs/metrics.md"), &written).unwrap();
    }
    assert!(
        read("docs/metrics.md") == written,
        "LARDER_WRITE_DOCS=1 cargo test --test monitoring writes it anew"
    );
}

#[test]
fn each_metric_has_a_sample_where_there_is_all_that_it_is_of() {
    let labels = labels();
    for family in FAMILIES {
        assert!(labels.contains_key(family.name), "{}", family.name);
    }
    assert_eq!(labels.len(), FAMILIES.len());
}

/// Every query of the dashboard, with its panel's title.
fn queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana.json")).unwrap();
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            found.push((panel["title"].as_str().unwrap().into(), target["expr"].as_str().unwrap().into()));
        }
    }
    found
}

/// The expressions of the alerts, as they are written.
fn alerts() -> String {
    read("deploy/alerts.yml")
}

/// What is wrong with the names, labels and values in an expression.
fn complaints(expression: &str, labels: &Labels) -> Vec<String> {
    let selector = Regex::new(r"\b((?:larder|process)_[a-z_]+)(?:\{([^}]*)\})?").unwrap();
    let matcher = Regex::new(r#"([a-z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)""#).unwrap();
    let mut wrong = Vec::new();
    for found in selector.captures_iter(expression) {
        let name = family(&found[1]);
        let Some(of) = labels.get(name) else {
            wrong.push(format!("no metric {name}"));
            continue;
        };
        let is_histogram = FAMILIES.iter().any(|f| f.name == name && f.kind == MetricType::Histogram);
        if is_histogram && name == &found[1] {
            wrong.push(format!("{name} is a histogram: its samples end in _bucket, _sum or _count"));
        }
        for matcher in matcher.captures_iter(found.get(2).map_or("", |inner| inner.as_str())) {
            let (label, value) = (&matcher[1], &matcher[3]);
            match of.get(label) {
                // What Prometheus adds.
                None if ["instance", "job"].contains(&label) => {}
                None => wrong.push(format!("{name} has no label {label}")),
                Some(_) if OPEN.contains(&label) => {}
                Some(values) => {
                    let unknown = value.split('|').filter(|value| !values.contains(*value));
                    wrong.extend(unknown.map(|value| format!("{name}: no {label} is {value}")));
                }
            }
        }
    }
    wrong
}

#[test]
fn the_check_itself_notices_what_is_wrong() {
    let labels = labels();
    for (expression, expected) in [
        ("rate(larder_requests_total[5m])", None),
        ("larder_hit_ratio{window=\"1m\", of=\"bytes\", route=\"x\", instance=\"y\"}", None),
        ("larder_request_duration_seconds_bucket{result=\"hit\"}", None),
        ("rate(larder_request_total[5m])", Some("no metric larder_request_total")),
        ("larder_hit_ratio{window=\"2m\"}", Some("larder_hit_ratio: no window is 2m")),
        ("larder_hit_ratio{tier=\"memory\"}", Some("larder_hit_ratio has no label tier")),
        ("larder_request_duration_seconds", Some("is a histogram")),
    ] {
        let found = complaints(expression, &labels);
        match expected {
            None => assert_eq!(found, Vec::<String>::new(), "{expression}"),
            Some(words) => assert!(found.len() == 1 && found[0].contains(words), "{expression}: {found:?}"),
        }
    }
}

#[test]
fn dashboard_and_alerts_name_only_what_there_is() {
    let labels = labels();
    let queries = queries();
    assert!(queries.len() > 40, "{}", queries.len());
    for (title, expression) in &queries {
        assert_eq!(complaints(expression, &labels), Vec::<String>::new(), "{title}: {expression}");
        assert!(expression.contains("instance=~\"$instance\""), "{title}: {expression}");
    }
    let alerts = alerts();
    assert!(alerts.matches("- alert: ").count() >= 10);
    assert_eq!(complaints(&alerts, &labels), Vec::<String>::new());
}

/// What Grafana asks of a dashboard before it shows one.
#[test]
fn the_dashboard_is_one_that_grafana_loads() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana.json")).unwrap();
    assert!(dashboard["schemaVersion"].as_u64() >= Some(36) && dashboard["title"] == "Larder");
    // Where it is imported it gets a number there; by its name it is found again and renewed.
    assert!(dashboard["id"].is_null() && dashboard["uid"] == "larder");
    let variables: Vec<&str> = dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["name"].as_str().unwrap())
        .collect();
    assert_eq!(variables, ["datasource", "instance"]);
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has a number of its own");
    let mut taken = BTreeSet::new();
    for panel in panels {
        let place = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{panel}");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "two panels in one place: {}", panel["title"]);
            }
        }
        match panel["type"].as_str() {
            Some("row") => {}
            Some("stat" | "timeseries") => {
                assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
                let targets = panel["targets"].as_array().unwrap();
                let refs: BTreeSet<&str> = targets.iter().map(|t| t["refId"].as_str().unwrap()).collect();
                assert!(!targets.is_empty() && refs.len() == targets.len(), "{panel}");
            }
            other => panic!("{other:?}"),
        }
    }
}

fn promtool_takes(rules: &std::path::Path) {
    let checked = Command::new("promtool").args(["check", "rules"]).arg(rules).output();
    let checked =
        checked.expect("the tests need promtool: install it, for example with `apt-get install prometheus`");
    let said = [checked.stdout, checked.stderr].concat();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn promtool_is_content_with_the_alerts_and_with_each_query_of_the_dashboard() {
    promtool_takes(&path("deploy/alerts.yml"));
    let mut rules = String::from("groups:\n- name: dashboard\n  rules:\n");
    for (nth, (_, expression)) in queries().into_iter().enumerate() {
        let plain = expression.replace("$__rate_interval", "5m").replace("$instance", ".*");
        let quoted = serde_json::to_string(&plain).unwrap();
        writeln!(rules, "  - record: dashboard:query_{nth}:x\n    expr: {quoted}").unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dashboard.yml");
    std::fs::write(&file, rules).unwrap();
    promtool_takes(&file);
}
