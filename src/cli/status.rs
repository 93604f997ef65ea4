//! `larder status`: asks a running Larder how it is, and says so to people or to programs.
//!
//! Knows which pages of the admin listener tell what.
//! Must not know: how anything is measured.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use http::StatusCode;
use serde_json::{Value, json};

use super::shown::{counted, grouped, lasting, percent, plain, size};
use super::whom::{Asked, Named};
use super::{exit, print};
use crate::clock::Clock;

/// Asks the Larder that is named.
pub(super) fn status(named: &Named, as_json: bool) -> ExitCode {
    let larder = match named.asked() {
        Ok(larder) => larder,
        Err(code) => return code,
    };
    let told = match ask(&larder) {
        Ok(told) => told,
        Err(silent) => return silent.complain(&larder),
    };
    let summary = summary(&told);
    let text = if as_json {
        let mut text = serde_json::to_string_pretty(&summary).unwrap_or_default();
        text.push('\n');
        text
    } else {
        shown(&summary, larder.admin, Clock::system().now().as_secs())
    };
    let printed = print(&text);
    match summary.get("ok").and_then(Value::as_bool) {
        Some(true) => printed,
        _ => exit::FAILURE.into(),
    }
}

/// What the pages of the admin listener say.
struct Told {
    ready: Value,
    stats: Value,
    /// Its nodes, or why nobody knows; nothing where there is no fleet.
    fleet: Option<Value>,
}

/// Why nothing was told.
pub(super) enum Silent {
    Gone(io::Error),
    Refused(StatusCode),
}

impl Silent {
    /// Says so; gives what to end with.
    pub(super) fn complain(self, larder: &Asked) -> ExitCode {
        match self {
            Self::Refused(StatusCode::UNAUTHORIZED) => larder.unauthorized(""),
            Self::Refused(status) => larder.other(status),
            Self::Gone(error) => larder.no_answer(&error.to_string()),
        }
    }
}

/// The page of figures.
pub(super) fn stats(larder: &Asked) -> Result<Value, Silent> {
    let (status, body) = larder.get("/stats").map_err(Silent::Gone)?;
    let stats: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    if status != StatusCode::OK || !stats.is_object() {
        return Err(Silent::Refused(status));
    }
    Ok(stats)
}

fn ask(larder: &Asked) -> Result<Told, Silent> {
    let page = |path| {
        let (status, body) = larder.get(path).map_err(Silent::Gone)?;
        // What is no answer of a Larder's has no words of its own.
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    };
    // Open to all, and a 503 is an answer, too.
    let (_, ready) = page("/readyz")?;
    let stats = stats(larder)?;
    let (status, fleet) = page("/fleet")?;
    Ok(Told { ready, stats, fleet: (status != StatusCode::NOT_FOUND).then_some(fleet) })
}

/// All of it in one object, as `--json` has it.
fn summary(told: &Told) -> Value {
    let Told { ready, stats, fleet } = told;
    let of = |value: &Value, path: &str| value.pointer(path).cloned().unwrap_or(Value::Null);
    let status = of(ready, "/status");
    let degraded = of(ready, "/degraded");
    let is_well = status == "ready" && degraded.as_array().is_none_or(Vec::is_empty);
    let coherence = stats.get("fleet").filter(|fleet| fleet.is_object()).map(|fleet| {
        json!({
            "state": of(fleet, "/coherence"),
            "lag_s": of(fleet, "/lag_s"),
            "bound_s": of(fleet, "/bound_s"),
            "when_lost_s": of(fleet, "/when_lost_s"),
        })
    });
    let redis = stats.pointer("/tiers/redis").filter(|redis| redis.is_object()).map(|redis| {
        json!({ "up": of(redis, "/up"), "breaker": of(redis, "/breaker"), "hits": of(redis, "/hits") })
    });
    json!({
        "ok": is_well,
        "status": status,
        "degraded": if degraded.is_array() { degraded } else { json!([]) },
        "node": of(stats, "/fleet/node"),
        "uptime_s": of(stats, "/uptime_s"),
        "coherence": coherence,
        "redis": redis,
        "memory": {
            "entries": of(stats, "/tiers/memory/entries"),
            "bytes": of(stats, "/tiers/memory/bytes"),
            "budget": of(stats, "/tiers/memory/budget"),
        },
        "requests": of(stats, "/total"),
        "hit_ratio": of(stats, "/hit_ratio"),
        "looked": of(stats, "/all/hit_ratios/all/looked"),
        "warm_start": of(stats, "/warm_start"),
        "nodes": fleet.as_ref().map(|fleet| of(fleet, "/nodes")),
        "nodes_error": fleet.as_ref().map(|fleet| of(fleet, "/error")),
    })
}

/// The same for people. `now` is in seconds since the Unix epoch.
fn shown(summary: &Value, admin: SocketAddr, now: u64) -> String {
    let of = |path: &str| summary.pointer(path).unwrap_or(&Value::Null);
    let (count, secs) = (|path| of(path).as_u64().unwrap_or(0), |path| of(path).as_f64().unwrap_or(0.0));
    let mut text = String::new();
    let status = of("/status").as_str().unwrap_or("does not say whether it is ready");
    let _ = writeln!(text, "Larder at {admin}: {status}, up {}\n", lasting(secs("/uptime_s")));
    let mut line = |name: &str, says: String| {
        let _ = writeln!(text, "  {name:<11} {says}");
    };
    line("purges", purges(of("/coherence")));
    line("redis", redis(of("/redis")));
    let (bytes, budget) = (size(count("/memory/bytes")), size(count("/memory/budget")));
    line("memory", format!("{bytes} of {budget}, {}", counted(count("/memory/entries"), "key")));
    line("hit ratio", hit_ratio(secs("/hit_ratio"), count("/looked"), count("/requests")));
    if of("/coherence").is_object() {
        line("warm start", warm_start(of("/warm_start")));
    }
    for degraded in of("/degraded").as_array().into_iter().flatten().filter_map(Value::as_str) {
        line("degraded", plain(degraded));
    }
    match of("/nodes") {
        Value::Array(nodes) => text.push_str(&table(nodes, now)),
        Value::Null => {
            if let Some(why) = of("/nodes_error").as_str() {
                let _ = writeln!(text, "\nnodes: {}", plain(why));
            }
        }
        _ => {}
    }
    text
}

/// Of those that asked the cache: what never asked it counts on neither side.
fn hit_ratio(ratio: f64, looked: u64, requests: u64) -> String {
    let ratio = percent(ratio);
    match (looked, requests) {
        (_, 0) => "-, no request yet".to_owned(),
        (0, _) => format!("-, none of {} has asked the cache", counted(requests, "request")),
        // Read a moment apart, the one may be ahead of the other.
        _ if looked >= requests => format!("{ratio}, of {}", counted(looked, "request")),
        _ => format!(
            "{ratio}, of {} that asked the cache ({} in all)",
            counted(looked, "request"),
            grouped(requests)
        ),
    }
}

fn purges(coherence: &Value) -> String {
    let Some(state) = coherence.pointer("/state").and_then(Value::as_str) else {
        return "this Larder is alone: no redis is configured".to_owned();
    };
    let secs = |path| coherence.pointer(path).and_then(Value::as_f64);
    let (lag, bound) = (secs("/lag_s").unwrap_or(0.0), secs("/bound_s").unwrap_or(0.0));
    let heard = format!("{}: heard {} ago, bound {}", plain(state), lasting(lag), lasting(bound));
    match (state, secs("/when_lost_s")) {
        ("ok", _) => heard,
        (_, Some(limit)) => {
            format!("{heard}; what the origin has not confirmed within {} is validated first", lasting(limit))
        }
        (_, None) => format!("{heard}; what is stored is served for as long as it is fresh"),
    }
}

fn redis(redis: &Value) -> String {
    let Some(up) = redis.get("up").and_then(Value::as_bool) else { return "none is configured".to_owned() };
    let breaker = redis.get("breaker").and_then(Value::as_str).unwrap_or("-");
    format!("{}, breaker {}", if up { "up" } else { "down" }, plain(breaker))
}

fn warm_start(told: &Value) -> String {
    let count = |name| grouped(told.get(name).and_then(Value::as_u64).unwrap_or(0));
    let (loaded, skipped) = (count("loaded"), count("skipped"));
    let took = told.get("took_s").and_then(Value::as_f64).unwrap_or(0.0);
    let is = |name| told.get(name).and_then(Value::as_bool) == Some(true);
    match (is("enabled"), is("over")) {
        (false, _) => "off".to_owned(),
        (_, true) => format!("{loaded} read in {}, {skipped} passed over", lasting(took)),
        (_, false) => format!("under way: {loaded} read so far"),
    }
}

fn table(nodes: &[Value], now: u64) -> String {
    let text = |node: &Value, name: &str| plain(node.get(name).and_then(Value::as_str).unwrap_or("-"));
    let mut rows = vec![["node", "address", "version", "started", "seen", "purges"].map(str::to_owned)];
    for node in nodes {
        let is_this = node.get("this").and_then(Value::as_bool) == Some(true);
        let started = now.saturating_sub(node.get("started").and_then(Value::as_u64).unwrap_or(now));
        let seen = node.get("last_seen_s").and_then(Value::as_f64).unwrap_or(0.0);
        rows.push([
            format!("{}{}", text(node, "node"), if is_this { " *" } else { "" }),
            text(node, "address"),
            text(node, "version"),
            format!("{} ago", lasting(started as f64)),
            format!("{} ago", lasting(seen)),
            text(node, "coherence"),
        ]);
    }
    let mut out = format!("\n{} (* = this one)\n\n", counted(nodes.len() as u64, "node"));
    let widths: Vec<usize> = (0..6)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max())
        .map(|widest| widest.unwrap_or(0))
        .collect();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(out, "  {}", cells.join("  ").trim_end());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Told {
        Told {
            ready: json!({ "status": "ready", "degraded": [] }),
            stats: json!({
                "uptime_s": 93_784.5,
                "total": 12_345,
                "all": { "hit_ratios": { "all": { "requests": 0.8725, "bytes": 0.5, "looked": 12_300 } } },
                "hit_ratio": 0.8725,
                "tiers": {
                    "memory": { "entries": 1_234, "bytes": 12_900_000, "budget": 268_435_456 },
                    "redis": { "up": true, "breaker": "closed", "hits": 7 },
                },
                "fleet": { "node": "larder-1", "coherence": "ok", "lag_s": 0.05, "bound_s": 1.0, "when_lost_s": 10.0 },
                "warm_start": { "enabled": true, "over": true, "loaded": 20_000, "skipped": 3, "took_s": 0.81, "named": 5 },
            }),
            fleet: Some(json!({ "this": "larder-1", "nodes": [
                { "node": "larder-1", "this": true, "address": "10.0.0.1:9900", "version": "0.1.0",
                  "started": 1_000, "last_seen_s": 0.1, "coherence": "ok", "position": 3 },
                { "node": "larder-2\u{1b}[31m", "this": false, "address": "10.0.0.22:9900", "version": "0.1.0",
                  "started": 900, "last_seen_s": 61.0, "coherence": "lost", "position": 3 },
            ] })),
        }
    }

    #[test]
    fn a_fleet_that_is_well_is_told_of_at_a_glance() {
        let summary = summary(&told());
        assert_eq!(summary["ok"], true);
        assert_eq!(
            shown(&summary, "10.0.0.1:9900".parse().unwrap(), 1_100),
            "Larder at 10.0.0.1:9900: ready, up 1 d 2 h

  purges      ok: heard 0.1 s ago, bound 1.0 s
  redis       up, breaker closed
  memory      12.3 MiB of 256.0 MiB, 1,234 keys
  hit ratio   87.2 %, of 12,300 requests that asked the cache (12,345 in all)
  warm start  20,000 read in 0.8 s, 3 passed over

2 nodes (* = this one)

  node          address         version  started         seen           purges
  larder-1 *    10.0.0.1:9900   0.1.0    1 min 40 s ago  0.1 s ago      ok
  larder-2[31m  10.0.0.22:9900  0.1.0    3 min 20 s ago  1 min 1 s ago  lost
"
        );
    }

    #[test]
    fn the_ratio_is_of_those_that_asked_the_cache_and_is_shown_as_top_has_it() {
        let shown_with = |ratio: f64, looked: u64, total: u64| {
            let mut told = told();
            told.stats["hit_ratio"] = json!(ratio);
            told.stats["all"]["hit_ratios"]["all"]["looked"] = json!(looked);
            told.stats["total"] = json!(total);
            let text = shown(&summary(&told), "10.0.0.1:9900".parse().unwrap(), 1_100);
            text.lines().find_map(|line| line.strip_prefix("  hit ratio   ")).unwrap().to_owned()
        };
        for (ratio, looked, total, expected) in [
            (0.9996, 10_000, 10_000, "99.9 %, of 10,000 requests"),
            (0.5, 6, 8, "50.0 %, of 6 requests that asked the cache (8 in all)"),
            (1.0, 1, 1, "100.0 %, of 1 request"),
            (0.0, 0, 8, "-, none of 8 requests has asked the cache"),
            (0.0, 0, 0, "-, no request yet"),
        ] {
            assert_eq!(shown_with(ratio, looked, total), expected);
        }
    }

    #[test]
    fn what_is_not_well_is_said_and_is_no_success() {
        let lost = |told: &mut Told| {
            told.stats["warm_start"]["enabled"] = json!(false);
            told.ready["degraded"] = json!(["redis is down: memory only"]);
            told.stats["fleet"]["coherence"] = json!("lost");
            told.fleet = Some(json!({ "error": "redis does not say which nodes there are (deadline)" }));
        };
        let warming = |told: &mut Told| {
            told.ready = json!({ "status": "warming", "loaded": 5 });
            told.stats["warm_start"]["over"] = json!(false);
        };
        let alone = |told: &mut Told| {
            told.stats["fleet"] = Value::Null;
            told.stats["tiers"]["redis"] = Value::Null;
            told.fleet = None;
        };
        type Change<'a> = &'a dyn Fn(&mut Told);
        let rows: [(Change<'_>, bool, &[&str]); 3] = [
            (
                &lost,
                false,
                &[
                    "purges      lost: ",
                    "warm start  off",
                    "within 10 s is validated",
                    "degraded    redis is down",
                    "nodes: redis does",
                ],
            ),
            (&warming, false, &["9900: warming, up", "warm start  under way: 20,000"]),
            (&alone, true, &["purges      this Larder is alone", "redis       none is configured"]),
        ];
        for (change, is_well, expected) in rows {
            let mut told = told();
            change(&mut told);
            let summary = summary(&told);
            assert_eq!(summary["ok"], is_well, "{summary:#}");
            let text = shown(&summary, "10.0.0.1:9900".parse().unwrap(), 1_100);
            for words in expected {
                assert!(text.contains(words), "{words:?} is not in\n{text}");
            }
        }
    }
}
