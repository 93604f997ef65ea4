//! Hit ratios over the last minute, 10 minutes and hour: what the counters were then, and are now.
//!
//! The control thread remembers the counters once a second; requests know nothing of it. For each window 61 moments
//! or so are kept, a sixtieth of the window apart, so a window is up to a sixtieth longer than its name says.
//! Knows what a hit ratio is. Must not know: how anything is counted, or shown.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;

use super::metrics::Snapshot;
use super::recent::Recent;

/// A time over which a ratio is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Window {
    Minute,
    TenMinutes,
    Hour,
    /// Since the start.
    All,
}

impl Window {
    pub(super) const ALL: [Self; 4] = [Self::Minute, Self::TenMinutes, Self::Hour, Self::All];

    /// The word for labels and keys.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "1m",
            Self::TenMinutes => "10m",
            Self::Hour => "1h",
            Self::All => "all",
        }
    }

    /// In seconds; `None` where it has no end.
    const fn secs(self) -> Option<u64> {
        match self {
            Self::Minute => Some(60),
            Self::TenMinutes => Some(600),
            Self::Hour => Some(3600),
            Self::All => None,
        }
    }
}

/// What hit ratios are made of. `cached`: served from either tier, fresh or stale. `missed`: looked into the cache
/// and found nothing that could answer. What never asked the cache counts on neither side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) cached: u64,
    pub(super) missed: u64,
    /// Bytes of their bodies.
    pub(super) cached_bytes: u64,
    pub(super) missed_bytes: u64,
    /// Finished requests, those that never asked the cache included.
    pub(super) requests: u64,
    /// Times the origin was asked.
    pub(super) fetched: u64,
}

impl Tally {
    fn since(self, before: Self) -> Self {
        Self {
            cached: self.cached.saturating_sub(before.cached),
            missed: self.missed.saturating_sub(before.missed),
            cached_bytes: self.cached_bytes.saturating_sub(before.cached_bytes),
            missed_bytes: self.missed_bytes.saturating_sub(before.missed_bytes),
            requests: self.requests.saturating_sub(before.requests),
            fetched: self.fetched.saturating_sub(before.fetched),
        }
    }

    /// Requests that looked into the cache.
    pub(super) const fn looked(self) -> u64 {
        self.cached.saturating_add(self.missed)
    }

    /// See [`hit_ratio`].
    pub(super) fn of_requests(self) -> f64 {
        hit_ratio(self.cached, self.missed)
    }

    /// The same of the bytes of their bodies.
    pub(super) fn of_bytes(self) -> f64 {
        hit_ratio(self.cached_bytes, self.missed_bytes)
    }
}

/// The hit ratio, from 0.0 to 1.0; 0.0 when nothing was counted, never NaN. This is its one
/// definition, wherever Larder shows one:
///
/// `cached / (cached + missed)`
///
/// - `cached`: responses served from either tier, fresh or stale: the results `hit`, `stale` and
///   `stale-if-error`.
/// - `missed`: requests that looked into the cache and found nothing that could answer them: the
///   results `miss`, `revalidated` (the origin had to be asked, though only for a 304), and
///   `failed` where the cache had been asked first.
///
/// In bytes it is the same of the bodies that were delivered to these requests. Bypasses and Larder's own answers
/// count on neither side: the cache had no part in them.
pub fn hit_ratio(cached: u64, missed: u64) -> f64 {
    let (cached, missed) = (u128::from(cached), u128::from(missed));
    if cached + missed == 0 { 0.0 } else { cached as f64 / (cached + missed) as f64 }
}

/// What the counters of each route, and all of them, were a while ago.
#[derive(Debug, Default)]
pub(super) struct Windows {
    remembered: Mutex<Remembered>,
    /// All counters, of fewer moments.
    pub(super) recent: Recent,
}

#[derive(Debug, Default)]
struct Remembered {
    all: Rings,
    /// Of those routes that are shown.
    routes: HashMap<String, Rings>,
}

impl Windows {
    /// Remembers what was counted `uptime` after the start; of a route that is not there, nothing was yet.
    pub(super) fn remember(&self, snapshot: &Snapshot, uptime: Duration) {
        let now = uptime.as_secs();
        self.recent.remember(snapshot, now);
        let mut remembered = self.remembered.lock();
        remembered.all.push(now, snapshot.total().tally());
        for (name, counts) in &snapshot.routes {
            match remembered.routes.get_mut(*name) {
                Some(rings) => rings.push(now, counts.tally()),
                None => {
                    let mut rings = Rings::default();
                    // Up to now there was nothing to be remembered of it.
                    rings.push(now.saturating_sub(1), Tally::default());
                    rings.push(now, counts.tally());
                    remembered.routes.insert((*name).to_owned(), rings);
                }
            }
        }
        if remembered.routes.len() > snapshot.routes.len() {
            let shown = snapshot.names();
            remembered.routes.retain(|name, _| shown.contains(name.as_str()));
        }
    }

    /// What was counted of a route in each window, in the order of [`Window::ALL`]; of all together for `None`.
    pub(super) fn tallies(
        &self,
        route: Option<&str>,
        total: Tally,
        uptime: Duration,
    ) -> [(Window, Tally); 4] {
        let remembered = self.remembered.lock();
        let rings = route.map_or(Some(&remembered.all), |name| remembered.routes.get(name));
        Window::ALL.map(|window| {
            let before = rings.and_then(|rings| rings.before(window, uptime.as_secs()));
            (window, total.since(before.unwrap_or_default()))
        })
    }

    /// What came between each two moments that are kept of the last minute, and of the last hour: when that was over in
    /// seconds since the start, how many seconds it took, and what was counted.
    pub(super) fn history(&self, route: Option<&str>) -> [Vec<(u64, u64, Tally)>; 2] {
        let remembered = self.remembered.lock();
        let rings = route.map_or(Some(&remembered.all), |name| remembered.routes.get(name));
        [Window::Minute, Window::Hour].map(|window| rings.map_or_else(Vec::new, |rings| rings.steps(window)))
    }
}

/// The moments that are kept of one route, for each window that has an end: the oldest first.
#[derive(Debug, Default)]
struct Rings([VecDeque<(u64, Tally)>; 3]);

/// Moments that are kept within a window.
const MOMENTS: u64 = 60;

impl Rings {
    fn push(&mut self, now: u64, tally: Tally) {
        for (window, ring) in Window::ALL.into_iter().zip(&mut self.0) {
            let Some(secs) = window.secs() else { continue };
            if ring.back().is_none_or(|(at, _)| now >= at + secs / MOMENTS) {
                ring.push_back((now, tally));
            }
            // The first is the one to count from; those before it are too old.
            while ring.get(1).is_some_and(|(at, _)| at + secs <= now) {
                ring.pop_front();
            }
        }
    }

    /// See [`Windows::history`].
    fn steps(&self, window: Window) -> Vec<(u64, u64, Tally)> {
        let Some((_, ring)) = Window::ALL.into_iter().zip(&self.0).find(|(of, _)| *of == window) else {
            return Vec::new();
        };
        let pairs = ring.iter().zip(ring.iter().skip(1));
        pairs.map(|((from, before), (to, then))| (*to, to - from, then.since(*before))).collect()
    }

    /// What had been counted when the window began; `None` where that was before anything was.
    fn before(&self, window: Window, now: u64) -> Option<Tally> {
        let secs = window.secs()?;
        let (_, ring) = Window::ALL.into_iter().zip(&self.0).find(|(of, _)| *of == window)?;
        ring.iter().rev().find(|(at, _)| at + secs <= now).map(|(_, tally)| *tally)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::finish::{Finished, sample};
    use super::super::metrics::Metrics;
    use super::super::outcome::{Miss, Outcome, Source, Tier};
    use super::*;
    use crate::telemetry::Gauges;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn count(metrics: &Metrics, route: usize, source: Source, bytes: u64) {
        metrics.shard(0).begin();
        sample::with(&Outcome::new(source), |r| {
            metrics.shard(0).finish(&Finished { route: Some(route), bytes, ..r });
        });
    }

    const HIT: Source = Source::Hit(Tier::Memory);
    const MISS: Source = Source::Miss(Miss::Uri);

    fn at(metrics: &Metrics, secs: u64) -> Value {
        metrics.stats(&Gauges { uptime: Duration::from_secs(secs), ..Gauges::default() })
    }

    #[test]
    fn a_window_counts_what_came_in_it_per_route_and_overall_in_requests_and_in_bytes() {
        let metrics = Metrics::new(&["a".to_owned(), "b".to_owned()], 1);
        // Each second a miss of `a` for an hour and more; then, for 30 s, three hits of it and a miss of `b`.
        for second in 0..4000 {
            metrics.remember(Duration::from_secs(second));
            count(&metrics, 0, MISS, 10);
        }
        for second in 4000..4030 {
            metrics.remember(Duration::from_secs(second));
            (0..3).for_each(|_| count(&metrics, 0, HIT, 100));
            count(&metrics, 1, MISS, 100);
        }
        let stats = at(&metrics, 4030);
        let of = |ratio: f64| (ratio * 1000.0).round() / 1000.0;
        // In the last minute 30 misses of 10 bytes, and 90 hits of 100.
        let a = &stats["routes"]["a"]["hit_ratios"];
        assert_eq!(a["1m"]["looked"], 120, "{a:#}");
        assert_eq!(a["1m"]["requests"], 90.0 / 120.0);
        assert_eq!(a["1m"]["bytes"], 9000.0 / 9300.0);
        assert_eq!(a["10m"]["requests"], 90.0 / 660.0);
        assert_eq!(a["all"]["requests"], 90.0 / 4090.0);
        // The hour's moments are a minute apart: 3,600 s ago is 430 s after the start, and the last before is 420.
        assert_eq!(a["1h"]["looked"], 90 + 3580);
        let all = &stats["all"]["hit_ratios"];
        assert_eq!(of(all["1m"]["requests"].as_f64().unwrap()), of(90.0 / 150.0));
        assert_eq!(
            stats["routes"]["b"]["hit_ratios"]["1m"],
            json!({ "requests": 0.0, "bytes": 0.0, "looked": 30 })
        );
        // An hour later nothing of it is left but what was counted since the start.
        (4030..7730).for_each(|second| metrics.remember(Duration::from_secs(second)));
        let later = at(&metrics, 7730);
        assert_eq!(later["all"]["hit_ratios"]["1h"]["looked"], 0);
        assert_eq!(later["all"]["hit_ratios"]["1h"]["requests"], 0.0);
        assert_eq!(later["hit_ratio"], 90.0 / 4120.0);
    }

    #[test]
    fn a_young_process_has_been_there_for_all_of_each_window() {
        let metrics = Metrics::new(&["a".to_owned()], 1);
        count(&metrics, 0, HIT, 1);
        metrics.remember(Duration::from_secs(0));
        count(&metrics, 0, MISS, 1);
        let stats = at(&metrics, 5);
        for window in Window::ALL {
            assert_eq!(stats["all"]["hit_ratios"][window.as_str()]["looked"], 2, "{window:?}");
        }
    }

    #[test]
    fn a_reload_keeps_what_is_remembered_and_no_more_than_is_shown() {
        let metrics = Metrics::new(&["a".to_owned()], 1);
        (0..10).for_each(|_| count(&metrics, 0, MISS, 1));
        metrics.remember(Duration::from_secs(1));
        let after = metrics.after(&["a".to_owned(), "b".to_owned()]);
        count(&after, 0, HIT, 1);
        assert_eq!(at(&after, 62)["routes"]["a"]["hit_ratios"]["1m"]["requests"], 1.0);
        let mut last = after;
        for nth in 0..600 {
            last = last.after(&[format!("r{nth}")]);
            count(&last, 0, HIT, 1);
            last.remember(Duration::from_secs(100 + nth));
        }
        let remembered = last.snapshot().routes.len();
        assert!(remembered < 300, "{remembered}");
        assert_eq!(last.windows.remembered.lock().routes.len(), remembered);
    }

    #[test]
    fn history_has_a_step_for_each_second_of_the_minute_and_each_minute_of_the_hour() {
        let metrics = Metrics::new(&["a".to_owned()], 1);
        for second in 0..7300 {
            metrics.remember(Duration::from_secs(second));
            count(&metrics, 0, HIT, 1);
            if second % 2 == 0 {
                count(&metrics, 0, MISS, 1);
            }
        }
        for route in [None, Some("a")] {
            let [seconds, minutes] = metrics.windows.history(route);
            assert_eq!((seconds.len(), minutes.len()), (60, 60));
            assert!(seconds.iter().all(|(_, took, step)| *took == 1 && step.cached == 1), "{seconds:?}");
            assert_eq!(seconds.last().unwrap().0, 7299);
            let whole = |(_, took, step): &(u64, u64, Tally)| {
                (*took, step.cached, step.missed, step.requests) == (60, 60, 30, 90)
            };
            assert!(minutes.iter().all(whole), "{minutes:?}");
        }
        assert_eq!(metrics.windows.history(Some("nobody")), [vec![], vec![]]);
    }

    #[test]
    fn of_a_route_that_nobody_has_asked_for_nothing_is_remembered_and_its_first_request_is_told() {
        let metrics = Metrics::new(&["a".to_owned(), "b".to_owned()], 2);
        (0..100).for_each(|second| metrics.remember(Duration::from_secs(second)));
        let remembered =
            || metrics.windows.remembered.lock().routes.keys().cloned().collect::<HashSet<String>>();
        assert!(!remembered().contains("a") && !remembered().contains("b"));
        metrics.shard(1).begin();
        sample::with(&Outcome::new(HIT), |r| {
            metrics.shard(1).finish(&Finished { route: Some(1), bytes: 1, ..r });
        });
        metrics.remember(Duration::from_secs(100));
        assert!(!remembered().contains("a") && remembered().contains("b"));
        let [seconds, _] = metrics.windows.history(Some("b"));
        assert_eq!(
            seconds.iter().map(|(at, took, step)| (*at, *took, step.cached)).collect::<Vec<_>>(),
            [(100, 1, 1)]
        );
        (101..400).for_each(|second| metrics.remember(Duration::from_secs(second)));
        let ratios = at(&metrics, 400)["routes"]["b"]["hit_ratios"].clone();
        assert_eq!(["1m", "10m", "all"].map(|window| ratios[window]["looked"].clone()), [0, 1, 1]);
    }

    #[test]
    fn of_each_window_few_moments_are_kept() {
        let mut rings = Rings::default();
        (0..10_000).for_each(|now| rings.push(now, Tally::default()));
        assert!(
            rings.0.iter().all(|ring| (60..=62).contains(&ring.len())),
            "{:?}",
            rings.0.each_ref().map(VecDeque::len)
        );
    }

    proptest! {
        #[test]
        fn no_ratio_is_over_one_or_no_number(
            steps in prop::collection::vec((0_u64..400, any::<bool>(), 0_u64..u64::MAX / 64), 0..60),
            late in 0_u64..8000,
        ) {
            let metrics = Metrics::new(&["a".to_owned()], 1);
            let mut now = 0;
            for (wait, hit, bytes) in steps {
                now += wait;
                count(&metrics, 0, if hit { HIT } else { MISS }, bytes);
                metrics.remember(Duration::from_secs(now));
            }
            // Also where the clock is read before what was remembered.
            for moment in [now + late, now.saturating_sub(late)] {
                let stats = at(&metrics, moment);
                for window in Window::ALL {
                    for of in ["requests", "bytes"] {
                        let ratio = stats["all"]["hit_ratios"][window.as_str()][of].as_f64().unwrap();
                        prop_assert!((0.0..=1.0).contains(&ratio), "{ratio}");
                    }
                }
            }
        }
    }
}
