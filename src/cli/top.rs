//! `larder top`: the figures of a running Larder, each second, at a terminal or for programs.
//!
//! Knows which of them tell what route to tune next. All of them are taken from `GET /stats` as they stand there; only
//! what is said per second is made here, of two answers.
//! Must not know: how anything is counted.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::args::Top;
use super::shown::{self, counted, grouped, lasting, percent, plain, size};
use super::whom::Named;
use super::{colours, exit, print_on, status};

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// Cursor to the top left, and nothing below.
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

/// Shows what the Larder that is named answers from its cache.
pub(super) fn top(named: &Named, args: &Top) -> ExitCode {
    let larder = match named.asked() {
        Ok(larder) => larder,
        Err(code) => return code,
    };
    let clear = if !args.once && !args.json && std::io::stdout().is_terminal() { CLEAR } else { "" };
    let mut before = None;
    loop {
        let stats = match status::stats(&larder) {
            Ok(stats) => stats,
            Err(silent) => return silent.complain(&larder),
        };
        // What is said per second is of two looks.
        if args.once && before.is_none() {
            before = Some(stats);
            std::thread::sleep(EVERY);
            continue;
        }
        let figures = figures(&stats, before.as_ref());
        let text =
            if args.json { format!("{figures}\n") } else { shown(&figures, larder.admin, Paint(colours())) };
        if let Err(code) = print_on(&format!("{clear}{text}")) {
            return code;
        }
        if args.once {
            return exit::DONE.into();
        }
        before = Some(stats);
        std::thread::sleep(EVERY);
    }
}

fn of(value: &Value, path: &str) -> Value {
    value.pointer(path).cloned().unwrap_or(Value::Null)
}

fn number(value: &Value, path: &str) -> f64 {
    value.pointer(path).and_then(Value::as_f64).unwrap_or(0.0)
}

/// What is shown, as `--json` has it. What is per second is `null` in the first answer, and after a restart.
fn figures(stats: &Value, before: Option<&Value>) -> Value {
    let took = before.map(|before| number(stats, "/uptime_s") - number(before, "/uptime_s"));
    let took = took.filter(|took| *took > 0.0);
    let per_second = |path: &str| {
        let (took, before) = (took?, before?);
        Some(((number(stats, path) - number(before, path)) / took).max(0.0))
    };
    let mut all = of_route(stats, "/all", &per_second);
    all.insert("origin_fetches_per_s".into(), json!(per_second("/all/origin_fetches")));
    let names = stats.get("routes").and_then(Value::as_object);
    let mut routes: Vec<Map<String, Value>> = Vec::new();
    for name in names.into_iter().flat_map(Map::keys) {
        // RFC 6901 §3: how a name with such characters is written in a path.
        let path = format!("/routes/{}", name.replace('~', "~0").replace('/', "~1"));
        let mut route = of_route(stats, &path, &per_second);
        route.insert("route".into(), json!(name));
        routes.push(route);
    }
    // The one that misses most is the one to tune; where none does, the busiest.
    let busy = |route: &Map<String, Value>| {
        let count = |name| route.get(name).and_then(Value::as_u64).unwrap_or(0);
        std::cmp::Reverse((count("missed"), count("requests")))
    };
    routes.sort_by_key(busy);
    json!({
        "uptime_s": of(stats, "/uptime_s"),
        "active": of(stats, "/active"),
        "connections": of(stats, "/connections"),
        "failed": of(stats, "/failed"),
        "slow": of(stats, "/slow"),
        "all": all,
        "routes": routes,
        "resident_bytes": of(stats, "/resident_bytes"),
        "memory": of(stats, "/tiers/memory"),
        "redis": of(stats, "/tiers/redis"),
    })
}

/// Of one route, or of all together.
fn of_route(stats: &Value, path: &str, per_second: &impl Fn(&str) -> Option<f64>) -> Map<String, Value> {
    let Some(counts) = stats.pointer(path) else { return Map::new() };
    let mut shown: Map<String, Value> = Map::new();
    for name in [
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
    ] {
        shown.insert(name.to_owned(), of(counts, &format!("/{name}")));
    }
    let sum = |name: &str| {
        let words = counts.get(name).and_then(Value::as_object);
        words.into_iter().flat_map(Map::values).filter_map(Value::as_u64).sum::<u64>()
    };
    shown.insert("missed".into(), json!(sum("misses")));
    shown.insert("top_miss_cause".into(), json!(most(counts, "miss_causes")));
    shown.insert("top_not_stored".into(), json!(most(counts, "not_stored")));
    shown.insert("requests_per_s".into(), json!(per_second(&format!("{path}/requests"))));
    shown
}

/// The word that was counted most, if any was.
fn most<'v>(counts: &'v Value, name: &str) -> Option<&'v str> {
    let words = counts.get(name).and_then(Value::as_object)?;
    let counted = words.iter().filter_map(|(word, n)| Some((n.as_u64().filter(|n| *n > 0)?, word.as_str())));
    counted.max_by_key(|(n, _)| *n).map(|(_, word)| word)
}

/// Colours, where there are to be any.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    /// A ratio in so many columns: green where most is answered by the cache, red where little is.
    fn ratio(self, ratios: &Value, window: &str, width: usize) -> String {
        let looked = number(ratios, &format!("/{window}/looked"));
        if looked == 0.0 {
            return format!("{:>width$}", "-");
        }
        let ratio = number(ratios, &format!("/{window}/requests"));
        let text = format!("{:>width$}", percent(ratio));
        let colour = match ratio {
            _ if !self.0 => return text,
            r if r >= 0.8 => "32",
            r if r >= 0.5 => "33",
            _ => "31",
        };
        format!("\u{1b}[{colour}m{text}\u{1b}[0m")
    }

    fn heading(self, text: &str) -> String {
        if self.0 { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

fn rate(per_second: Option<f64>) -> String {
    per_second.map_or("-".to_owned(), |n| if n < 10.0 { format!("{n:.1}") } else { grouped(n as u64) })
}

/// The same for people.
fn shown(figures: &Value, admin: SocketAddr, paint: Paint) -> String {
    let count = |path: &str| figures.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let rate_of = |path: &str| rate(figures.pointer(path).and_then(Value::as_f64));
    let mut text = String::new();
    let (up, requests) = (lasting(number(figures, "/uptime_s")), counted(count("/all/requests"), "request"));
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(
        text,
        "Larder at {admin}: up {up}, {requests}, {} under way, {}\n",
        grouped(count("/active")),
        counted(count("/connections"), "connection")
    );
    let mut line = |name: &str, says: String| {
        let _ = writeln!(text, "  {name:<11} {says}");
    };
    let ratios = of(figures, "/all/hit_ratios");
    let windows = [("1m", "1m"), ("10m", "10m"), ("1h", "1h"), ("all", "since the start")];
    let in_requests = windows.map(|(window, name)| format!("{name} {}", paint.ratio(&ratios, window, 0)));
    line("hit ratio", in_requests.join("   "));
    let in_bytes = windows.map(|(window, name)| {
        let looked = number(&ratios, &format!("/{window}/looked"));
        let ratio = percent(number(&ratios, &format!("/{window}/bytes")));
        format!("{name} {}", if looked == 0.0 { "-".to_owned() } else { ratio })
    });
    line("in bytes", in_bytes.join("   "));
    let saved = lasting(number(figures, "/all/origin_seconds_saved"));
    let (served, fetched) = (rate_of("/all/requests_per_s"), rate_of("/all/origin_fetches_per_s"));
    // Of two looks; the first of several has none to compare with.
    let measured = figures.pointer("/all/requests_per_s").is_some_and(Value::is_number);
    let span = if measured { ", in the last second" } else { "" };
    line("requests", format!("{served}/s, {fetched}/s from origins{span}; about {saved} of theirs saved"));
    let bytes = |path: &str| size(count(path));
    line(
        "memory",
        format!(
            "{} of {}, {} on their way, {} given up and still read; the process has {}",
            bytes("/memory/bytes"),
            bytes("/memory/budget"),
            bytes("/memory/in_flight"),
            bytes("/memory/lingering"),
            bytes("/resident_bytes"),
        ),
    );
    if let Some(redis) = figures.get("redis").filter(|redis| redis.is_object()) {
        let up = if redis.get("up").and_then(Value::as_bool) == Some(true) { "up" } else { "down" };
        let breaker = redis.get("breaker").and_then(Value::as_str).unwrap_or("-");
        let (read, written) = (bytes("/redis/read_bytes"), bytes("/redis/written_bytes"));
        let (errors, late) = (grouped(count("/redis/errors")), grouped(count("/redis/deadline_exceeded")));
        line(
            "redis",
            format!(
                "{up}, breaker {}, {read} read, {written} written, {errors} errors, {late} too slow",
                plain(breaker)
            ),
        );
    }
    table(&mut text, figures, paint);
    text
}

/// A line for each route.
fn table(text: &mut String, figures: &Value, paint: Paint) {
    let routes = figures.get("routes").and_then(Value::as_array);
    let name = |route: &Value| clipped(&shown::route(route.get("route").and_then(Value::as_str)));
    let widest =
        routes.into_iter().flatten().map(|route| name(route).chars().count()).max().unwrap_or(0).max(5);
    let heading = format!(
        "  {:<widest$} {:>9} {:>8} {:>8} {:>10} {:>9} {:>8} {:>9}  {:<12} {}",
        "route", "req/s", "hit 1m", "hit 1h", "memory", "redis", "stale", "missed", "due to", "not stored"
    );
    let _ = writeln!(text, "\n{}", paint.heading(&heading));
    for route in routes.into_iter().flatten() {
        let count = |path: &str| grouped(route.pointer(path).and_then(Value::as_u64).unwrap_or(0));
        let word = |name: &str| plain(route.get(name).and_then(Value::as_str).unwrap_or("-"));
        let ratios = of(route, "/hit_ratios");
        let _ = writeln!(
            text,
            "  {:<widest$} {:>9} {} {} {:>10} {:>9} {:>8} {:>9}  {:<12} {}",
            name(route),
            rate(route.get("requests_per_s").and_then(Value::as_f64)),
            paint.ratio(&ratios, "1m", 8),
            paint.ratio(&ratios, "1h", 8),
            count("/hits/memory"),
            count("/hits/redis"),
            count("/stale"),
            count("/missed"),
            word("top_miss_cause"),
            word("top_not_stored"),
        );
    }
}

/// A long name, by its beginning.
fn clipped(name: &str) -> String {
    if name.chars().count() <= 24 { name.to_owned() } else { name.chars().take(23).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(uptime: f64, requests: u64) -> Value {
        let ratios = json!({ "1m": { "requests": 0.9996, "bytes": 0.5, "looked": 10 }, "1h": { "requests": 0.25, "looked": 8 } });
        let route = |requests: u64, cold: u64| {
            json!({
                "requests": requests, "hits": { "memory": 7, "redis": 2 }, "stale": 1, "misses": { "uri-miss": cold },
                "miss_causes": { "cold": cold, "evicted": 0 }, "not_stored": { "private": 0 }, "origin_fetches": cold,
                "hit_ratios": ratios, "origin_seconds_saved": 90.0,
            })
        };
        json!({
            "uptime_s": uptime, "active": 1, "connections": 2, "resident_bytes": 3 << 20,
            "all": route(requests, 5), "routes": { "a/b": route(requests, 0), "-": route(0, 0), "evil\u{1b}[2J": route(1, 5) },
            "tiers": { "memory": { "bytes": 1024, "budget": 2048, "in_flight": 0, "lingering": 0 }, "redis": null },
        })
    }

    #[test]
    fn the_route_that_misses_most_comes_first_and_rates_are_of_two_answers() {
        let first = figures(&stats(10.0, 100), None);
        assert_eq!(first["all"]["requests_per_s"], Value::Null);
        assert_eq!(first["routes"][0]["top_miss_cause"], "cold");
        assert_eq!(
            (&first["routes"][1]["route"], &first["routes"][1]["top_miss_cause"]),
            (&json!("a/b"), &Value::Null)
        );
        let second = figures(&stats(12.0, 130), Some(&stats(10.0, 100)));
        assert_eq!(second["all"]["requests_per_s"], 15.0);
        assert_eq!(second["routes"][1]["requests_per_s"], 15.0, "a name with a slash is found, too");
        let restarted = figures(&stats(1.0, 3), Some(&stats(10.0, 100)));
        assert_eq!(restarted["all"]["requests_per_s"], Value::Null);
    }

    #[test]
    fn people_read_it_with_and_without_colours_and_no_name_gives_orders_to_the_terminal() {
        let figures = figures(&stats(12.0, 130), Some(&stats(10.0, 100)));
        let admin = "127.0.0.1:9900".parse().unwrap();
        let plain = shown(&figures, admin, Paint(false));
        assert!(!plain.contains('\u{1b}'), "{plain}");
        for words in [
            "up 12 s, 130 requests, 1 under way, 2 connections",
            "hit ratio   1m 99.9 %   10m -   1h 25.0 %",
            "in bytes    1m 50.0 %",
            "15/s, 0.0/s from origins, in the last second; about 1 min 30 s of theirs saved",
            "1.0 KiB of 2.0 KiB, 0 B on their way, 0 B given up and still read; the process has 3.0 MiB",
            "\n  (no route) ",
        ] {
            assert!(plain.contains(words), "{words:?} is not in\n{plain}");
        }
        let coloured = shown(&figures, admin, Paint(true));
        let stripped = ["\u{1b}[32m", "\u{1b}[33m", "\u{1b}[31m", "\u{1b}[1m", "\u{1b}[0m"]
            .iter()
            .fold(coloured.clone(), |text, code| text.replace(code, ""));
        assert_eq!(stripped, plain, "colours change no column");
        assert!(coloured.contains("\u{1b}[32m  99.9 %\u{1b}[0m \u{1b}[31m  25.0 %\u{1b}[0m"), "{coloured}");
        assert!(shown(&json!({}), admin, Paint(false)).contains("0 requests"), "whatever else answers");
    }
}
