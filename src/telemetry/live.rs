//! What a page shows that looks on each second.
//!
//! All figures are taken from what `GET /stats` answers at the same moment: there is no second way to count. What is
//! added is when things came (`windows`), the last ten minutes by reason (`recent`), and examples (`noted`).
//! Must not know: who looks on, how it gets there, or the configuration.

use serde_json::{Map, Value, json};

use super::gauges::Gauges;
use super::metrics::{RouteCounts, Snapshot};
use super::noted::Noted;
use super::stats;
use super::windows::{Tally, Windows};

/// Keys that are shown of each kind.
const KEYS: usize = 12;

/// What is shown of each route while it is not opened: fields of `/stats` as they are.
const ROW: [&str; 16] = [
    "requests",
    "hits",
    "stale",
    "stale_if_error",
    "revalidated",
    "collapsed",
    "bypass",
    "failed",
    "rate_limited",
    "bytes_out",
    "origin_fetches",
    "origin_requests_saved",
    "origin_seconds_saved",
    "hit_ratio",
    "hit_ratios",
    "durations",
];

/// The whole of `/stats`, with a short row in place of each route; with `whole`, what came each second, too.
pub(super) fn render(snapshot: &Snapshot, windows: &Windows, gauges: &Gauges, whole: bool) -> Value {
    let mut stats = stats::render(snapshot, windows, gauges);
    let routes = stats.as_object_mut().and_then(|stats| stats.remove("routes")).unwrap_or_default();
    let rows = snapshot.routes.iter().filter_map(|(name, counts)| {
        let mut row = row(routes.get(*name)?);
        row.insert("route".to_owned(), json!(name));
        let recent = windows.recent.ten_minutes(name, counts, gauges.uptime);
        row.insert("recent".to_owned(), by_reason(&recent, counts));
        Some(Value::from(row))
    });
    let rows: Vec<Value> = rows.collect();
    let mut live = json!({ "stats": stats, "routes": rows });
    if let Some(live) = live.as_object_mut().filter(|_| whole) {
        let of_route = |(name, _): &(&str, _)| ((*name).to_owned(), history(windows, Some(*name)));
        let routes: Map<_, _> = snapshot.routes.iter().map(of_route).collect();
        live.insert("history".to_owned(), json!({ "all": history(windows, None), "routes": routes }));
    }
    live
}

/// All of one route.
pub(super) fn of_route(
    snapshot: &Snapshot,
    windows: &Windows,
    noted: &Noted,
    gauges: &Gauges,
    name: &str,
) -> Option<Value> {
    let (_, counts) = snapshot.routes.iter().find(|(known, _)| *known == name)?;
    let stats = stats::render(snapshot, windows, gauges);
    let [hot, missed] = noted.top(name, KEYS);
    let recent = windows.recent.ten_minutes(name, counts, gauges.uptime);
    Some(json!({
        "route": name,
        "stats": stats.get("routes").and_then(|routes| routes.get(name)),
        "recent": by_reason(&recent, counts),
        "history": history(windows, Some(name)),
        "hot": hot,
        "missed": missed,
    }))
}

fn row(stats: &Value) -> Map<String, Value> {
    let field = |name: &&str| Some(((*name).to_owned(), stats.get(*name)?.clone()));
    let mut row: Map<String, Value> = ROW.iter().filter_map(field).collect();
    let words = |name: &str| stats.get(name).and_then(Value::as_object);
    let counts = words("misses").into_iter().flat_map(Map::values).filter_map(Value::as_u64);
    row.insert("missed".to_owned(), json!(counts.sum::<u64>()));
    for (name, of) in [("top_miss_cause", "miss_causes"), ("top_not_stored", "not_stored")] {
        let counted = words(of).into_iter().flatten();
        let counted = counted.filter_map(|(word, n)| Some((n.as_u64().filter(|n| *n > 0)?, word)));
        row.insert(name.to_owned(), json!(counted.max_by_key(|(n, _)| *n).map(|(_, word)| word)));
    }
    row
}

/// Why the cache did not answer, in the last ten minutes, and what a fetch takes: then, or since the start where there
/// was none.
fn by_reason(recent: &RouteCounts<u64>, total: &RouteCounts<u64>) -> Value {
    let counted = |words: &mut dyn Iterator<Item = (&'static str, u64)>| -> Map<String, Value> {
        words.filter(|(_, n)| *n > 0).map(|(word, n)| (word.to_owned(), json!(n))).collect()
    };
    let of = if recent.origin_fetches > 0 { recent } else { total };
    let fetch = if of.origin_fetches > 0 { of.origin_seconds() / of.origin_fetches as f64 } else { 0.0 };
    json!({
        "requests": recent.requests(),
        "missed": recent.tally().missed,
        "miss_causes": counted(&mut recent.causes()),
        "not_stored": counted(&mut recent.not_stored()),
        "bypass_reasons": counted(&mut recent.bypasses()),
        "origin_fetches": recent.origin_fetches,
        "fetch_s": fetch,
    })
}

/// By column, since a page draws columns; `at` is when a step was over, in seconds since the start.
fn history(windows: &Windows, route: Option<&str>) -> Value {
    let [seconds, minutes] = windows.history(route).map(|steps| {
        let column = |of: fn(&(u64, u64, Tally)) -> u64| steps.iter().map(of).collect::<Vec<u64>>();
        json!({
            "at": column(|step| step.0),
            "took": column(|step| step.1),
            "cached": column(|step| step.2.cached),
            "missed": column(|step| step.2.missed),
            "requests": column(|step| step.2.requests),
            "fetched": column(|step| step.2.fetched),
        })
    });
    json!({ "seconds": seconds, "minutes": minutes })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::finish::{Finished, sample};
    use super::super::metrics::Metrics;
    use super::super::outcome::{Miss, Outcome, Source, Tier};
    use super::*;

    #[test]
    fn every_figure_is_the_one_that_stats_has_at_the_same_moment() {
        let metrics = Metrics::new(&["a".to_owned(), "b/c".to_owned()], 2);
        for nth in 0..40_usize {
            let source =
                if nth.is_multiple_of(3) { Source::Miss(Miss::Uri) } else { Source::Hit(Tier::Memory) };
            metrics.shard(nth).begin();
            sample::with(&Outcome::new(source), |r| {
                metrics.shard(nth).finish(&Finished { route: Some(nth % 2), ..r });
            });
            metrics.remember(Duration::from_secs(nth as u64));
        }
        let gauges = Gauges { uptime: Duration::from_secs(40), ..Gauges::default() };
        let (stats, live) = (metrics.stats(&gauges), metrics.live(&gauges, true));
        for (name, value) in stats.as_object().unwrap().iter().filter(|(name, _)| *name != "routes") {
            assert_eq!(&live["stats"][name], value, "{name}");
        }
        let rows = live["routes"].as_array().unwrap();
        assert_eq!(rows.len(), 3, "{live:#}");
        for row in rows {
            let of = &stats["routes"][row["route"].as_str().unwrap()];
            for name in ROW {
                assert!(of.get(name).is_some() && row[name] == of[name], "{name}");
            }
        }
        assert_eq!((&rows[0]["missed"], &rows[0]["top_miss_cause"]), (&json!(7), &json!("cold")));
        assert_eq!(rows[0]["recent"]["miss_causes"], json!({ "cold": 7 }));
        let of_route = metrics.of_route("b/c", &gauges).unwrap();
        assert_eq!(of_route["stats"], stats["routes"]["b/c"]);
        assert_eq!(of_route["history"], live["history"]["routes"]["b/c"]);
        assert_eq!(live["history"]["all"]["seconds"]["requests"].as_array().unwrap().len(), 39);
        assert!(metrics.of_route("nobody", &gauges).is_none());
        assert!(metrics.live(&gauges, false).get("history").is_none());
    }
}
