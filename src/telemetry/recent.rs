//! All counters of the last minute and 10 minutes: for what is told by reason, and by how long it took.
//!
//! Few moments are kept, since each is all counters of a route: a window is up to a sixth longer than its name says.
//! Must not know: what is counted, or shown.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;

use super::metrics::{RouteCounts, Snapshot};

/// Seconds of each window.
const WINDOWS: [u64; 2] = [60, 600];
/// Moments that are kept within a window.
const MOMENTS: u64 = 6;

/// What the counters of each route, and all of them, were a while ago.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    all: Rings,
    routes: HashMap<String, Rings>,
}

/// For each window: the oldest moment first.
#[derive(Debug, Default)]
struct Rings([VecDeque<(u64, RouteCounts<u64>)>; WINDOWS.len()]);

impl Recent {
    /// Remembers what was counted `now` seconds after the start.
    pub(super) fn remember(&self, snapshot: &Snapshot, now: u64) {
        let mut remembered = self.0.lock();
        if remembered.all.is_due(now) {
            remembered.all.push(now, &snapshot.total());
        }
        for (name, counts) in &snapshot.routes {
            match remembered.routes.get_mut(*name) {
                Some(rings) => rings.push(now, counts),
                None => {
                    let mut rings = Rings::default();
                    // Up to now there was nothing to be remembered of it.
                    rings.push(now.saturating_sub(1), &RouteCounts::default());
                    rings.push(now, counts);
                    remembered.routes.insert((*name).to_owned(), rings);
                }
            }
        }
        if remembered.routes.len() > snapshot.routes.len() {
            let shown = snapshot.names();
            remembered.routes.retain(|name, _| shown.contains(name.as_str()));
        }
    }

    /// What was counted of a route, or of all together, in the last minute.
    pub(super) fn minute(
        &self,
        route: Option<&str>,
        total: &RouteCounts<u64>,
        uptime: Duration,
    ) -> RouteCounts<u64> {
        self.since(0, route, total, uptime)
    }

    /// The same of the last ten minutes.
    pub(super) fn ten_minutes(
        &self,
        route: &str,
        total: &RouteCounts<u64>,
        uptime: Duration,
    ) -> RouteCounts<u64> {
        self.since(1, Some(route), total, uptime)
    }

    fn since(
        &self,
        window: usize,
        route: Option<&str>,
        total: &RouteCounts<u64>,
        uptime: Duration,
    ) -> RouteCounts<u64> {
        let remembered = self.0.lock();
        let rings = route.map_or(Some(&remembered.all), |name| remembered.routes.get(name));
        match rings.and_then(|rings| rings.before(window, uptime.as_secs())) {
            Some(before) => total.since(before),
            None => total.clone(),
        }
    }
}

impl Rings {
    fn is_due(&self, now: u64) -> bool {
        let due = |(secs, ring): (u64, &VecDeque<(u64, _)>)| {
            ring.back().is_none_or(|(at, _)| now >= at + secs / MOMENTS)
        };
        WINDOWS.into_iter().zip(&self.0).any(due)
    }

    fn push(&mut self, now: u64, counts: &RouteCounts<u64>) {
        for (secs, ring) in WINDOWS.into_iter().zip(&mut self.0) {
            if ring.back().is_none_or(|(at, _)| now >= at + secs / MOMENTS) {
                ring.push_back((now, counts.clone()));
            }
            // The first is the one to count from; those before it are too old.
            while ring.get(1).is_some_and(|(at, _)| at + secs <= now) {
                ring.pop_front();
            }
        }
    }

    /// What had been counted when the window began; `None` where that was before anything was.
    fn before(&self, window: usize, now: u64) -> Option<&RouteCounts<u64>> {
        let (secs, ring) = (WINDOWS.get(window)?, self.0.get(window)?);
        ring.iter().rev().find(|(at, _)| at + secs <= now).map(|(_, counts)| counts)
    }
}

#[cfg(test)]
mod tests {
    use super::super::finish::{Finished, sample};
    use super::super::metrics::Metrics;
    use super::super::outcome::{Miss, Outcome, Source, Tier};
    use super::*;
    use crate::telemetry::Gauges;

    #[test]
    fn quantiles_of_the_last_minute_forget_what_was_before_and_reasons_last_ten() {
        let metrics = Metrics::new(&["a".to_owned()], 1);
        let count = |source, millis| {
            metrics.shard(0).begin();
            sample::with(&Outcome::new(source), |r| {
                metrics.shard(0).finish(&Finished { total: Duration::from_millis(millis), ..r });
            });
        };
        let at = |secs| metrics.stats(&Gauges { uptime: Duration::from_secs(secs), ..Gauges::default() });
        count(Source::Hit(Tier::Memory), 900);
        count(Source::Miss(Miss::Uri), 900);
        for second in 0..500 {
            metrics.remember(Duration::from_secs(second));
        }
        (0..3).for_each(|_| count(Source::Hit(Tier::Memory), 1));
        let stats = at(500);
        for of in ["/all", "/routes/a"] {
            let durations = stats.pointer(of).unwrap()["durations"].clone();
            assert_eq!(durations["1m"]["hits"]["count"], 3, "{durations:#}");
            assert_eq!(durations["1m"]["hits"]["p99_s"].as_f64().unwrap() * 1e3, 0.995, "{durations:#}");
            assert_eq!(durations["1m"]["misses"]["count"], 0);
            assert!(durations["1m"]["misses"]["p50_s"].is_null());
            assert_eq!(
                (&durations["all"]["hits"]["count"], &durations["all"]["misses"]["count"]),
                (&4.into(), &1.into())
            );
        }
        let snapshot = metrics.snapshot();
        let (name, counts) = snapshot.routes.first().unwrap();
        let recent =
            |secs| metrics.windows.recent.ten_minutes(name, counts, Duration::from_secs(secs)).requests();
        assert_eq!(recent(500), 5);
        (500..1300).for_each(|second| metrics.remember(Duration::from_secs(second)));
        assert_eq!(recent(1300), 0);
    }

    #[test]
    fn few_moments_are_kept() {
        let mut rings = Rings::default();
        (0..10_000).for_each(|now| rings.push(now, &RouteCounts::default()));
        assert!(rings.0.iter().all(|ring| (6..=8).contains(&ring.len())));
    }
}
