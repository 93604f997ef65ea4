//! What to tune next: of all that the cache did not answer in the last ten minutes and could have, what costs the origin
//! most time, and the setting that would change it.
//!
//! A reason weighs as many seconds as its requests kept the origin busy, by what a fetch of the route takes. What no
//! setting helps against (the first request for a URL, a write, an origin that forbids storing) is no advice. It is one
//! for a route; `larder explain` tells of one request, and tries whether a change would help.
//! Must not know: how anything is counted, or who reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::config::{self, Cache, Config, Route, RouteCache};

/// Pieces of advice.
const MOST: usize = 3;
/// Requests of which it is not worth speaking.
const FEW: u64 = 5;
/// URLs of one path that tell whether arguments keep them apart.
const ALIKE: usize = 4;
/// Arguments that are named in one piece of advice.
const ARGUMENTS: usize = 6;

/// What could be changed.
struct Change {
    /// As it would be written.
    line: String,
    /// Where.
    table: &'static str,
    why: &'static str,
    caution: &'static str,
}

const IN_ROUTE: &str = "[route.cache]";
const IN_CACHE: &str = "[cache]";

/// The advice, what is worth most first; `rows` are those of `telemetry`, `missed` names URLs of a route that were
/// missed.
pub(super) fn next(rows: &[Value], config: &Config, missed: impl Fn(&str) -> Vec<String>) -> Vec<Value> {
    let mut found: Vec<(f64, Value)> = Vec::new();
    for row in rows {
        let name = row.get("route").and_then(Value::as_str).unwrap_or_default();
        let Some(route) = config.routes.iter().find(|route| route.name == name) else { continue };
        let Some(cache) = &route.cache else { continue };
        let fetch = row.pointer("/recent/fetch_s").and_then(Value::as_f64).unwrap_or(0.0);
        for (of, word, count) in reasons(row).filter(|(_, _, count)| *count >= FEW) {
            let change = match (of, word) {
                ("miss_causes", "cold") => ignoring(&missed(name), cache),
                _ => change(of, word, cache, &config.cache),
            };
            let Some(change) = change else { continue };
            let seconds = count as f64 * fetch;
            found.push((seconds, told(route, of, word, count, seconds, &change)));
        }
    }
    found.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    found.into_iter().take(MOST).map(|(_, told)| told).collect()
}

/// Each reason of a row with its count.
fn reasons(row: &Value) -> impl Iterator<Item = (&'static str, &str, u64)> {
    ["miss_causes", "not_stored", "bypass_reasons"].into_iter().flat_map(move |of| {
        let words = row.pointer(&format!("/recent/{of}")).and_then(Value::as_object);
        words
            .into_iter()
            .flatten()
            .filter_map(move |(word, count)| Some((of, word.as_str(), count.as_u64()?)))
    })
}

fn told(route: &Route, of: &str, word: &str, count: u64, seconds: f64, change: &Change) -> Value {
    json!({
        "route": route.name,
        "route_line": route.line,
        "of": of,
        "reason": word,
        "requests": count,
        "origin_s": seconds,
        "line": change.line,
        "table": change.table,
        "why": change.why,
        "caution": change.caution,
    })
}

/// What a reason could be changed by.
fn change(of: &str, word: &str, route: &RouteCache, cache: &Cache) -> Option<Change> {
    let policy = &route.policy;
    let (line, table, why, caution) = match (of, word) {
        ("miss_causes", "evicted") => (
            format!("memory = \"{}\"", size(cache.memory.saturating_mul(2))),
            IN_CACHE,
            "memory was too small to keep what was asked for again",
            "the machine has to have it; larder simulate tells what more is worth",
        ),
        ("miss_causes", "expired" | "changed") => return Some(longer(route)),
        ("miss_causes", "no-cache") => (
            "Larder-Cache-Control: max-age=60".to_owned(),
            "the origin's answers",
            "the origin has each of them confirmed (no-cache); this field tells Larder alone",
            "what changes at the origin is seen as much later",
        ),
        ("miss_causes", "vary") if !policy.normalize.accept_language => (
            "vary.normalize = [\"accept-language\"]".to_owned(),
            IN_ROUTE,
            "the same was stored, for other fields of the request",
            "only where Vary names it, and the order of languages of equal weight means nothing to the origin",
        ),
        ("miss_causes", "partial") => (
            "range = \"fill\"".to_owned(),
            IN_ROUTE,
            "parts were asked for that were not stored",
            "the whole is then fetched for the first part",
        ),
        ("miss_causes", "purged") => (
            "{\"soft\": true}".to_owned(),
            "POST /purge",
            "purges void what is asked for again; what is purged softly is confirmed, not fetched anew",
            "worth it where the origin's answers have an ETag or Last-Modified",
        ),
        ("miss_causes", "request") | ("not_stored" | "bypass_reasons", "request-no-store") => (
            "client_cache_control = \"ignore\"".to_owned(),
            IN_ROUTE,
            "clients ask for the origin's word",
            "they can then no longer do so",
        ),
        ("not_stored", "no-lifetime") => (
            "ttl.default = \"60s\"".to_owned(),
            IN_ROUTE,
            "neither the origin nor the route says how long an answer is good for",
            "what changes at the origin is seen as much later",
        ),
        ("not_stored", "set-cookie") => (
            "set_cookie = \"strip\"".to_owned(),
            IN_ROUTE,
            "the answers set a cookie",
            "only where no client needs it",
        ),
        ("not_stored" | "bypass_reasons", "cookie") => (
            "cookies = \"ignore\"".to_owned(),
            IN_ROUTE,
            "the requests carry a cookie",
            "only where no answer of this route depends on a cookie",
        ),
        ("not_stored" | "bypass_reasons", "authorization") => (
            "authorization = \"share\"".to_owned(),
            IN_ROUTE,
            "the requests say who asks",
            "only where every client may have what one of them was given",
        ),
        ("not_stored", "too-large") => (
            format!("max_object = \"{}\"", size(cache.max_object.saturating_mul(2))),
            IN_CACHE,
            "the answers are larger than what may be stored",
            "a large one pushes out many small ones",
        ),
        ("not_stored", "in-flight-limit") => (
            format!("in_flight = \"{}\"", size(cache.in_flight.saturating_mul(2))),
            IN_CACHE,
            "too much was on its way into the cache at once",
            "it comes out of memory",
        ),
        ("bypass_reasons", "path") => (
            "key.dot_segments = \"resolve\"".to_owned(),
            IN_ROUTE,
            "the paths have dot segments",
            "only where the origin resolves them as RFC 3986 §5.2.4 has it",
        ),
        ("bypass_reasons", "large-body") => (
            format!("max_request_body = \"{}\"", size(route.max_request_body.saturating_mul(2))),
            IN_ROUTE,
            "the content of the requests is too large to be part of a key",
            "so much is read before anything is looked up",
        ),
        _ => return None,
    };
    Some(Change { line, table, why, caution })
}

/// What is past its lifetime: served while it is refreshed, or kept for longer.
fn longer(route: &RouteCache) -> Change {
    let (policy, later) = (&route.policy, "what changes at the origin is seen as much later");
    if policy.stale_while_revalidate.is_none_or(|window| window.is_zero()) {
        return Change {
            line: "stale_while_revalidate = \"30s\"".to_owned(),
            table: IN_ROUTE,
            why: "its lifetime was over; so it is served all the same, and refreshed behind the client's back",
            caution: later,
        };
    }
    let twice = |ttl: Duration| config::written(ttl.saturating_mul(2));
    let line = match (policy.ttl.r#override, policy.ttl.max, policy.ttl.default) {
        (Some(ttl), ..) => format!("ttl.override = \"{}\"", twice(ttl)),
        (None, Some(ttl), _) => format!("ttl.max = \"{}\"", twice(ttl)),
        (None, None, Some(ttl)) => format!("ttl.default = \"{}\"", twice(ttl)),
        (None, None, None) => "ttl.override = \"60s\"".to_owned(),
    };
    Change { line, table: IN_ROUTE, why: "its lifetime was over", caution: later }
}

/// Arguments that keep apart what may be one: those by which alone many URLs of one path differ, and that hardly ever
/// have the same value twice.
fn ignoring(urls: &[String], cache: &RouteCache) -> Option<Change> {
    let mut paths: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for url in urls {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        paths.entry(path).or_default().push(query);
    }
    let queries = paths.into_values().max_by_key(Vec::len)?;
    if queries.len() < ALIKE || queries.len() * 2 < urls.len() {
        return None;
    }
    let arguments = |query: &&str| query.split('&').map(str::to_owned).collect::<BTreeSet<String>>();
    let sets: Vec<BTreeSet<String>> = queries.iter().map(arguments).collect();
    let name = |argument: &String| argument.split('=').next().unwrap_or_default().to_owned();
    // A page's number differs, too: only what hardly ever comes twice is not worth a key.
    let mut values: BTreeMap<String, usize> = BTreeMap::new();
    for argument in sets.iter().flatten().collect::<BTreeSet<_>>() {
        *values.entry(name(argument)).or_default() += 1;
    }
    let differing = values.into_iter().filter(|(_, values)| values * 2 > sets.len()).map(|(name, _)| name);
    // What cannot be written as a name is for people to judge.
    let plain = |name: &String| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
    };
    let names: BTreeSet<String> = differing.filter(|name| plain(name) && !cache.key.ignores(name)).collect();
    if names.is_empty() || names.len() > ARGUMENTS {
        return None;
    }
    let already = cache.key.ignore_query.iter().map(|glob| glob.as_str().to_owned());
    let all: Vec<String> = already.chain(names).collect();
    Some(Change {
        line: format!("key.ignore_query = {all:?}"),
        table: IN_ROUTE,
        why: "many URLs of one path differ by these arguments, of which hardly a value comes twice",
        caution: "only where the origin's answer does not depend on these arguments",
    })
}

/// What says how long answers are good for; null where nothing is cached.
pub(super) fn lifetime(cache: Option<&RouteCache>) -> Value {
    let Some(RouteCache { policy, .. }) = cache else { return Value::Null };
    let written = |limit: Option<Duration>| limit.map(config::written);
    let parts = [
        ("override", policy.ttl.r#override),
        ("default", policy.ttl.default),
        ("max", policy.ttl.max),
        ("stale_while_revalidate", policy.stale_while_revalidate),
        ("stale_if_error", policy.stale_if_error),
    ];
    parts
        .into_iter()
        .map(|(name, limit)| (name.to_owned(), json!(written(limit))))
        .collect::<Map<_, _>>()
        .into()
}

/// As `proxy.toml` has it.
fn size(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1_u64 << 10)];
    let unit = units.into_iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{bytes}B"), |(name, unit)| format!("{}{name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::NotStored;
    use crate::telemetry::{Bypass, Cause};

    fn config(cache: &str) -> Config {
        let text = format!(
            "[upstream.o]\nservers = [\"http://127.0.0.1:1\"]\n[[route]]\nname = \"a\"\nmatch = {{ path = \"/*\" }}\n\
             upstream = \"o\"\n{cache}\n"
        );
        Config::parse(&text, "proxy.toml", &|_| None).unwrap_or_else(|why| panic!("{why}\n{text}"))
    }

    fn row(recent: Value) -> Value {
        json!({ "route": "a", "recent": recent })
    }

    #[test]
    fn what_costs_the_origin_most_comes_first_and_what_nothing_helps_against_is_no_advice() {
        let config = config("[route.cache]\nstale_while_revalidate = \"30s\"\nttl.default = \"90s\"");
        let rows = [row(json!({
            "fetch_s": 0.5,
            "miss_causes": { "expired": 10, "cold": 1000, "request": 4, "unheard": 50 },
            "not_stored": { "set-cookie": 30, "status": 90 },
            "bypass_reasons": { "cookie": 20, "method": 500, "off": 9 },
        }))];
        let told = next(&rows, &config, |_| Vec::new());
        let lines: Vec<_> = told.iter().map(|told| told["line"].as_str().unwrap()).collect();
        assert_eq!(lines, ["set_cookie = \"strip\"", "cookies = \"ignore\"", "ttl.default = \"3m\""]);
        assert_eq!((&told[0]["requests"], &told[0]["origin_s"]), (&json!(30), &json!(15.0)));
        assert_eq!(told[0]["route_line"], config.routes[0].line);
        let off = self::config("cache = false");
        assert!(next(&rows, &off, |_| Vec::new()).is_empty(), "who turns it off means it");
        assert!(next(&rows[..0], &config, |_| Vec::new()).is_empty());
    }

    /// Each line, as it would be written, is one that the configuration takes.
    #[test]
    fn every_change_is_a_line_that_the_configuration_takes() {
        let reasons = Cause::ALL.map(|cause| ("miss_causes", cause.as_str())).into_iter();
        let reasons = reasons.chain(NotStored::ALL.map(|why| ("not_stored", why.as_str())));
        let reasons = reasons.chain(Bypass::ALL.map(|why| ("bypass_reasons", why.as_str())));
        let (mut written, plain) = (BTreeSet::new(), config(""));
        let urls: Vec<String> = (0..9).map(|nth| format!("http://a/b?page=1&utm_source={nth}")).collect();
        for (of, word) in reasons {
            let mut recent = json!({ "fetch_s": 1.0 });
            recent[of] = json!({ word: 9 });
            for told in next(&[row(recent)], &plain, |_| urls.clone()) {
                let (line, table) = (told["line"].as_str().unwrap(), told["table"].as_str().unwrap());
                match table {
                    IN_ROUTE => drop(config(&format!("{IN_ROUTE}\n{line}"))),
                    IN_CACHE => drop(config(&format!("{IN_CACHE}\n{line}"))),
                    _ => {}
                }
                written.insert(line.to_owned());
            }
        }
        assert!(
            written.len() >= 14 && written.contains("key.ignore_query = [\"utm_source\"]"),
            "{written:?}"
        );
    }

    #[test]
    fn arguments_are_named_only_where_they_keep_many_urls_of_one_path_apart() {
        let of = |urls: &[&str], cache: &str| {
            let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
            ignoring(&urls, config(cache).routes[0].cache.as_ref().unwrap()).map(|change| change.line)
        };
        let some = ["h/a?x=1&s=1", "h/a?x=1&s=2", "h/a?s=3&x=1", "h/a?x=1&s=4", "h/b"];
        assert_eq!(of(&some, "").as_deref(), Some("key.ignore_query = [\"s\"]"));
        let ignored = "[route.cache]\nkey.ignore_query = [\"utm_*\"]";
        assert_eq!(of(&some, ignored).as_deref(), Some("key.ignore_query = [\"utm_*\", \"s\"]"));
        assert_eq!(of(&["h/a?s=1", "h/b?s=1", "h/c?s=1", "h/d?s=1", "h/e?s=1"], ""), None, "other paths");
        assert_eq!(of(&some[..3], ""), None, "few");
        assert_eq!(of(&[], ""), None);
    }

    #[test]
    fn times_and_sizes_are_written_as_the_file_has_them() {
        let times = [(90_000, "90s"), (120_000, "2m"), (1_500, "1500ms"), (86_400_000, "1d"), (0, "0ms")];
        for (millis, text) in times {
            assert_eq!(config::written(Duration::from_millis(millis)), text);
        }
        assert_eq!([size(512 << 20), size(2 << 30), size(1000)], ["512MiB", "2GiB", "1000B"]);
        assert_eq!(lifetime(None), Value::Null);
        let cache = config("[route.cache]\nttl.max = \"1h\"");
        assert_eq!(lifetime(cache.routes[0].cache.as_ref())["max"], "1h");
    }
}
