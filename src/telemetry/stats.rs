//! `GET /stats`: the counters and gauges as JSON.
//!
//! Knows the keys that people and scripts rely on. Must not know: how anything is counted, or HTTP.

use serde_json::{Map, Value, json};

use super::gauges::{
    CodingGauges, FleetGauges, Gauges, LeaseGauges, MemoryGauges, RedisGauges, UpstreamGauges, WarmGauges,
    merged,
};
use super::metrics::{RouteCounts, Snapshot};
use super::outcome::{Kind, Tier};
use super::windows::{Tally, Window, Windows};
use crate::stored::Damaged;

/// Keys and values of `GET /stats`.
///
/// - `failed`: a status of 500 or above, or a body that could not be completed; `completed`: all
///   other finished requests, those that the client gave up included (`client_closed`, a part of
///   `completed`). `total` is `active + completed + failed`, always.
/// - `success_rate`: `completed / (completed + failed)`; 1.0 while nothing is finished.
/// - `average_time_s`: of finished requests, from head to last byte; 0.0 while there are none.
/// - `all` is the routes together. In a route, `misses` by reason holds every request that looked and found nothing it could
///   use, so `hit_ratio` follows from `hits`, `stale` and `misses`; `revalidated` is a part of
///   `misses`, `stale_if_error` a part of `stale`. `results` has each request once.
pub(super) fn render(snapshot: &Snapshot, windows: &Windows, gauges: &Gauges) -> Value {
    let total = snapshot.total();
    let (finished, failed) = (total.requests(), total.failed.min(total.requests()));
    let active = snapshot.process.active(finished);
    let of_route = |(name, c): &(&str, RouteCounts<u64>)| {
        let tallies = windows.tallies(Some(*name), c.tally(), gauges.uptime);
        ((*name).to_owned(), route(c, tallies, &windows.recent.minute(Some(*name), c, gauges.uptime)))
    };
    let overall = windows.tallies(None, total.tally(), gauges.uptime);
    json!({
        "uptime_s": gauges.uptime.as_millis() as f64 / 1000.0,
        "total": active + finished,
        "active": active,
        "completed": finished - failed,
        "failed": failed,
        "client_closed": total.client_closed,
        "slow": snapshot.process.slow,
        "success_rate": ratio(finished - failed, finished, 1.0),
        "average_time_s": if finished == 0 { 0.0 } else { micros(total.seconds() / finished as f64) },
        "hit_ratio": total.tally().of_requests(),
        "resident_bytes": gauges.resident,
        "all": route(&total, overall, &windows.recent.minute(None, &total, gauges.uptime)),
        "connections": gauges.connections,
        "access_log_dropped": gauges.access_dropped,
        "spans": by_word(gauges.spans.by_result().into_iter()),
        "routes": snapshot.routes.iter().map(of_route).collect::<Map<_, _>>(),
        "tiers": { "memory": memory(&gauges.memory), "redis": gauges.redis.as_ref().map(redis) },
        "fleet": gauges.fleet.as_ref().map(fleet),
        "leases": gauges.leases.as_ref().map(leases),
        "warm_start": warm(&gauges.warm),
        "coding": coding(&gauges.coding),
        "upstreams": upstreams(&merged(&gauges.upstreams)),
    })
}

fn route(counts: &RouteCounts<u64>, tallies: [(Window, Tally); 4], minute: &RouteCounts<u64>) -> Value {
    json!({
        "requests": counts.requests(),
        "results": by_word(Kind::ALL.iter().map(|kind| (kind.as_str(), counts.of_kind(*kind)))),
        "hits": by_word(Tier::ALL.iter().map(|t| (t.as_str(), counts.answered(Kind::Hit, Some(*t))))),
        "stale": counts.of_kind(Kind::Stale) + counts.of_kind(Kind::StaleIfError),
        "stale_if_error": counts.of_kind(Kind::StaleIfError),
        "revalidated": counts.of_kind(Kind::Revalidated),
        "misses": by_word(counts.misses()),
        "miss_causes": by_word(counts.causes()),
        "not_stored": by_word(counts.not_stored()),
        "verified": by_word(counts.verified()),
        "bypass": counts.of_kind(Kind::Bypass),
        "bypass_reasons": by_word(counts.bypasses()),
        "collapsed": counts.collapsed,
        "failed": counts.failed,
        "client_closed": counts.client_closed,
        "bytes_out": counts.bytes(),
        "origin_fetches": counts.origin_fetches,
        "origin_requests_saved": counts.spared(),
        "origin_seconds_saved": micros(counts.origin_seconds_saved()),
        "rate_limited": counts.rate_limited,
        "hit_ratio": counts.tally().of_requests(),
        "hit_ratios": tallies.map(|(window, tally)| (window.as_str().to_owned(), ratios(tally))).into_iter().collect::<Map<_, _>>(),
        "durations": { "1m": durations(minute), "all": durations(counts) },
    })
}

/// How long requests took that a tier answered, and those that waited for the origin.
fn durations(counts: &RouteCounts<u64>) -> Value {
    let shown = |kinds: &[Kind]| {
        let took = counts.took(kinds);
        let [p50, p99] = [0.5, 0.99].map(|part| took.quantile(part).map(micros));
        json!({ "count": took.count(), "p50_s": p50, "p99_s": p99 })
    };
    json!({ "hits": shown(&[Kind::Hit, Kind::Stale]), "misses": shown(&[Kind::Miss, Kind::Revalidated]) })
}

/// Seconds, to the microsecond: what is finer is none of what was measured, and hard to read.
fn micros(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

fn ratios(tally: Tally) -> Value {
    json!({ "requests": tally.of_requests(), "bytes": tally.of_bytes(), "looked": tally.looked() })
}

fn by_word(counts: impl Iterator<Item = (&'static str, u64)>) -> Value {
    counts.map(|(word, n)| (word.to_owned(), Value::from(n))).collect::<Map<_, _>>().into()
}

fn memory(memory: &MemoryGauges) -> Value {
    json!({
        "entries": memory.entries,
        "bytes": memory.bytes,
        "budget": memory.budget,
        "in_flight": memory.in_flight,
        "lingering": memory.lingering,
        "lookups": memory.lookups,
        "hits": memory.hits,
        "misses": memory.misses(),
        "inserts": memory.inserts,
        "variants_capped": memory.variants_capped,
        "hit_ratio": ratio(memory.hits, memory.lookups, 0.0),
    })
}

fn coding(coding: &CodingGauges) -> Value {
    json!({
        "encoded": coding.encoded,
        "decoded": coding.decoded,
        "saved_bytes": coding.saved,
    })
}

/// Only what there is.
fn damaged_by(redis: &RedisGauges) -> Value {
    let some = |why: Damaged| redis.damaged.get(why.index()).filter(|count| **count > 0);
    Damaged::ALL.into_iter().filter_map(|why| Some((why.as_str(), *some(why)?))).collect()
}

fn warm(warm: &WarmGauges) -> Value {
    json!({
        "enabled": warm.enabled,
        "over": warm.over,
        "loaded": warm.loaded,
        "skipped": warm.skipped,
        "took_s": micros(warm.took.as_secs_f64()),
        "named": warm.named,
    })
}

fn fleet(fleet: &FleetGauges) -> Value {
    json!({
        "node": fleet.node,
        "coherence": fleet.state,
        "lag_s": micros(fleet.lag.as_secs_f64()),
        "bound_s": fleet.bound.as_secs_f64(),
        "when_lost_s": fleet.when_lost.map(|limit| limit.as_secs_f64()),
        "position": fleet.position,
        "purges_applied": fleet.applied,
        "purges_told": fleet.told,
        "purges_waiting": fleet.untold,
        "purges_lost": fleet.lost,
        "log_resumed": fleet.resumed,
        "horizons": fleet.horizons,
    })
}

fn leases(leases: &LeaseGauges) -> Value {
    json!({
        "hears": leases.hears,
        "held": leases.held,
        "waiting": leases.waiting,
        "taken": leases.taken,
        "waited": leases.waited,
        "stored": leases.stored,
        "not_stored": leases.not_stored,
        "expired": leases.expired,
        "alone": leases.alone,
    })
}

fn redis(redis: &RedisGauges) -> Value {
    json!({
        "up": redis.up,
        "breaker": redis.breaker,
        "lookups": redis.gets,
        "hits": redis.hits,
        "misses": redis.misses,
        "hit_ratio": ratio(redis.hits, redis.gets, 0.0),
        "errors": redis.errors,
        "deadline_exceeded": redis.deadline_exceeded,
        "refused": redis.refused,
        "damaged": redis.damaged.iter().sum::<u64>(),
        "damaged_by": damaged_by(redis),
        "writes": redis.writes,
        "written_bytes": redis.written_bytes,
        "read_bytes": redis.read_bytes,
        "write_errors": redis.write_errors,
        "dropped_writes": redis.dropped_writes,
        "queue_bytes": redis.queue_bytes,
    })
}

/// By upstream, then by server.
fn upstreams(upstreams: &[UpstreamGauges]) -> Value {
    let mut names = Map::new();
    for up in upstreams {
        let servers = names.entry(up.upstream.clone()).or_insert_with(|| json!({}));
        if let Some(servers) = servers.as_object_mut() {
            servers.insert(up.server.clone(), server(up));
        }
    }
    names.into()
}

fn server(up: &UpstreamGauges) -> Value {
    let flaws = up.flaws.iter().filter(|(_, count)| *count > 0);
    let flaws: Map<_, _> = flaws.map(|(flaw, count)| ((*flaw).to_owned(), json!(count))).collect();
    json!({
        "open": up.open,
        "idle": up.idle,
        "waiting": up.waiting,
        "connects": up.connects,
        "connect_errors": up.connect_errors,
        "reused": up.reused,
        "retries": up.retries,
        "hedges": up.hedges,
        "hedges_won": up.hedges_won,
        "flaws": flaws,
    })
}

/// `part / whole`, never above 1.0 although the two are read at slightly different moments.
fn ratio(part: u64, whole: u64, of_nothing: f64) -> f64 {
    if whole == 0 { of_nothing } else { part.min(whole) as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::finish::{End, Finished, sample};
    use super::super::metrics::Metrics;
    use super::super::outcome::any::any_outcome;
    use super::super::outcome::{Bypass, Detail, Miss, Outcome, Source};
    use super::*;
    use crate::rules::NotStored;
    use crate::telemetry::hit_ratio;
    use proptest::prelude::*;

    fn finish(metrics: &Metrics, source: Source, change: impl FnOnce(&mut Outcome)) {
        let mut outcome = Outcome::new(source);
        change(&mut outcome);
        metrics.shard(0).begin();
        sample::with(&outcome, |r| metrics.shard(0).finish(&r));
    }

    fn users() -> Metrics {
        Metrics::new(&["users".to_owned()], 1)
    }

    #[test]
    fn nothing_counted_is_neither_a_failure_nor_a_hit() {
        let stats = users().stats(&Gauges::default());
        assert_eq!(stats["total"], 0);
        assert_eq!(stats["success_rate"], 1.0);
        assert_eq!(stats["average_time_s"], 0.0);
        assert_eq!(stats["hit_ratio"], 0.0);
        assert_eq!(stats["routes"]["users"]["hit_ratio"], 0.0);
        assert_eq!(stats["tiers"]["redis"], Value::Null);
        assert_eq!(stats["upstreams"], json!({}));
    }

    #[test]
    fn a_route_shows_each_way_of_answering() {
        let metrics = users();
        finish(&metrics, Source::Hit(Tier::Memory), |_| {});
        finish(&metrics, Source::Hit(Tier::Memory), |_| {});
        finish(&metrics, Source::Hit(Tier::Redis), |_| {});
        finish(&metrics, Source::StaleWhileRevalidate(Tier::Memory), |_| {});
        finish(&metrics, Source::StaleIfError, |_| {});
        finish(&metrics, Source::Revalidated(Miss::Stale), |_| {});
        finish(&metrics, Source::Miss(Miss::Uri), |o| (o.stored, o.collapsed) = (true, true));
        finish(&metrics, Source::Miss(Miss::Vary), |o| {
            o.detail = Some(Detail::NotStored(NotStored::SetCookie));
        });
        finish(&metrics, Source::Failed(Miss::Uri), |_| {});
        finish(&metrics, Source::FailedBypass(Bypass::Method), |_| {});
        finish(&metrics, Source::Bypass(Bypass::Method), |_| {});
        metrics.shard(0).origin_fetch(Some(0), Duration::from_millis(1));
        metrics.shard(0).rate_limited(0);

        let users = &metrics.stats(&Gauges::default())["routes"]["users"];
        assert_eq!(users["requests"], 11);
        assert_eq!(users["hits"], json!({ "memory": 2, "redis": 1 }));
        assert_eq!((&users["stale"], &users["stale_if_error"]), (&json!(2), &json!(1)));
        assert_eq!(users["revalidated"], 1);
        assert_eq!(
            users["misses"],
            json!({ "uri-miss": 2, "vary-miss": 1, "stale": 1, "partial": 0, "request": 0 })
        );
        assert_eq!(users["not_stored"]["set-cookie"], 1);
        assert_eq!(users["not_stored"].as_object().unwrap().len(), NotStored::ALL.len());
        assert_eq!((&users["bypass"], &users["bypass_reasons"]["method"]), (&json!(1), &json!(1)));
        assert_eq!((&users["collapsed"], &users["origin_fetches"]), (&json!(1), &json!(1)));
        assert_eq!(users["rate_limited"], 1);
        // 5 from the cache; 4 looked for and not found: miss twice, revalidated, failed.
        assert_eq!(users["hit_ratio"], 5.0 / 9.0);
    }

    #[test]
    fn a_client_that_leaves_is_completed_and_a_broken_body_is_failed() {
        let rows = [
            (200, End::Complete, [1, 0, 0]),
            (499, End::ClientGone, [1, 0, 1]),
            (200, End::Broken, [0, 1, 0]),
            (502, End::Complete, [0, 1, 0]),
            (502, End::ClientGone, [0, 1, 0]),
            (404, End::Complete, [1, 0, 0]),
        ];
        for (status, end, expected) in rows {
            let metrics = users();
            metrics.shard(0).begin();
            sample::with(&Outcome::new(Source::Local), |r| {
                metrics.shard(0).finish(&Finished { status, end, ..r });
            });
            let stats = metrics.stats(&Gauges::default());
            let seen = ["completed", "failed", "client_closed"].map(|key| stats[key].as_u64().unwrap());
            assert_eq!(seen, expected, "{status} {end:?}");
        }
    }

    #[test]
    fn gauges_are_shown_by_tier_and_by_server() {
        let gauges = Gauges {
            uptime: Duration::from_millis(1500),
            memory: MemoryGauges { lookups: 4, hits: 1, ..MemoryGauges::default() },
            redis: Some(RedisGauges { breaker: "half-open", gets: 2, hits: 2, ..RedisGauges::default() }),
            upstreams: vec![UpstreamGauges {
                upstream: "api".to_owned(),
                server: "http://a:1".to_owned(),
                open: 2,
                ..UpstreamGauges::default()
            }],
            ..Gauges::default()
        };
        let stats = users().stats(&gauges);
        assert_eq!(stats["uptime_s"], 1.5);
        assert_eq!(stats["tiers"]["memory"]["misses"], 3);
        assert_eq!(stats["tiers"]["memory"]["hit_ratio"], 0.25);
        assert_eq!(stats["tiers"]["redis"]["breaker"], "half-open");
        assert_eq!(stats["tiers"]["redis"]["hit_ratio"], 1.0);
        assert_eq!(stats["upstreams"]["api"]["http://a:1"]["open"], 2);
    }

    #[test]
    fn the_average_is_over_finished_requests() {
        let metrics = users();
        for millis in [100, 300] {
            metrics.shard(0).begin();
            sample::with(&Outcome::new(Source::Local), |r| {
                metrics.shard(0).finish(&Finished { total: Duration::from_millis(millis), ..r });
            });
        }
        metrics.shard(0).begin();
        let stats = metrics.stats(&Gauges::default());
        assert!((stats["average_time_s"].as_f64().unwrap() - 0.2).abs() < 1e-9);
        assert_eq!(stats["active"], 1);
    }

    #[test]
    fn times_are_told_to_the_microsecond_and_none_is_longer_than_the_longest() {
        let metrics = users();
        for nanos in [1_234_567_u64, 1_300_001, 1_499_999] {
            metrics.shard(0).begin();
            sample::with(&Outcome::new(Source::Hit(Tier::Memory)), |r| {
                metrics.shard(0).finish(&Finished { total: Duration::from_nanos(nanos), ..r });
            });
        }
        metrics.shard(0).origin_fetch(None, Duration::from_nanos(333_333_333));
        let stats = metrics.stats(&Gauges::default());
        assert_eq!(stats["average_time_s"], 0.001_345);
        assert_eq!(stats["all"]["origin_seconds_saved"], 1.0);
        for window in ["1m", "all"] {
            let hits = &stats["all"]["durations"][window]["hits"];
            assert_eq!(hits["p99_s"], 0.0015, "{hits}");
            let p50 = hits["p50_s"].to_string();
            assert!(p50.len() <= "0.001234".len(), "{p50}");
        }
    }

    /// Begins (`None`) and finishes, as they may come from anywhere.
    fn any_events() -> impl Strategy<Value = Vec<Option<(Outcome, u16, u8)>>> {
        prop::collection::vec(prop::option::of((any_outcome(), any::<u16>(), 0_u8..3)), 0..60)
    }

    proptest! {
        #[test]
        fn total_is_active_and_completed_and_failed_whatever_happens(events in any_events()) {
            let metrics = Metrics::new(&["a".to_owned(), "b".to_owned()], 2);
            for (i, event) in events.iter().enumerate() {
                match event {
                    None => metrics.shard(i).begin(),
                    Some((outcome, status, end)) => sample::with(outcome, |r| {
                        let end = [End::Complete, End::ClientGone, End::Broken][usize::from(*end)];
                        let route = (i % 3 < 2).then_some(i % 3);
                        metrics.shard(i + 1).finish(&Finished { route, status: *status, end, ..r });
                    }),
                }
            }
            let stats = metrics.stats(&Gauges::default());
            let n = |key: &str| stats[key].as_u64().unwrap();
            let finished = events.iter().flatten().count() as u64;
            let begun = events.len() as u64 - finished;
            prop_assert_eq!(n("total"), n("active") + n("completed") + n("failed"));
            prop_assert_eq!(n("completed") + n("failed"), finished);
            prop_assert_eq!(n("active"), begun.saturating_sub(finished));
            prop_assert!(n("client_closed") <= n("completed"));
            for ratio in ["success_rate", "hit_ratio"] {
                prop_assert!((0.0..=1.0).contains(&stats[ratio].as_f64().unwrap()));
            }
            let routes = stats["routes"].as_object().unwrap();
            let sum = |f: &dyn Fn(&Value) -> u64| routes.values().map(f).sum::<u64>();
            prop_assert_eq!(sum(&|r| r["requests"].as_u64().unwrap()), finished);
            let all = |r: &Value, key: &str| r[key].as_object().unwrap().values().map(|v| v.as_u64().unwrap()).sum::<u64>();
            prop_assert_eq!(sum(&|r| all(r, "results")), finished);
            for route in routes.values() {
                let cached = all(route, "hits") + route["stale"].as_u64().unwrap();
                let ratio = route["hit_ratio"].as_f64().unwrap();
                prop_assert_eq!(ratio, hit_ratio(cached, all(route, "misses")));
                prop_assert_eq!(all(route, "bypass_reasons"), route["bypass"].as_u64().unwrap());
            }
        }

        #[test]
        fn a_hit_ratio_is_a_number_between_zero_and_one(cached: u64, missed: u64) {
            prop_assert!((0.0..=1.0).contains(&hit_ratio(cached, missed)));
        }
    }
}
