//! Durations counted into fixed buckets, 50 µs to 10 s.
//!
//! Knows the bounds. The number of observations is never kept apart but is the sum of the buckets,
//! so a scrape can never see the two disagree.
//! Must not know: what is measured, or how a histogram is shown.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::metrics::raise;
use super::timeline::nanos;

/// Upper bounds, inclusive: nanoseconds, and the value of the label `le` in seconds. The upper ten
/// are those of OpenTelemetry's `http.server.request.duration`, the lower ones are where hits live.
pub(super) const BOUNDS: [(u64, &str); 17] = [
    (50_000, "0.00005"),
    (100_000, "0.0001"),
    (250_000, "0.00025"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1"),
    (2_500_000_000, "2.5"),
    (5_000_000_000, "5"),
    (10_000_000_000, "10"),
];

/// One histogram; `C` is `AtomicU64` where it is filled and `u64` where it is read.
#[derive(Clone, Debug, Default)]
pub(super) struct Histogram<C> {
    /// One per bound, and one beyond; not cumulative.
    buckets: [C; BOUNDS.len() + 1],
    sum_nanos: C,
    /// The longest of all; of those of a while, what none of them exceeds.
    longest_nanos: C,
}

/// A count that can be read, whether others write it or not.
pub(super) trait Count {
    fn get(&self) -> u64;
}

impl Count for u64 {
    fn get(&self) -> u64 {
        *self
    }
}

impl Count for AtomicU64 {
    fn get(&self) -> u64 {
        self.load(Relaxed)
    }
}

impl Histogram<AtomicU64> {
    /// Of a histogram that no other thread writes.
    pub(super) fn observe(&self, took: Duration) {
        let took = nanos(took);
        let bucket = BOUNDS.partition_point(|(bound, _)| *bound < took);
        if let Some(bucket) = self.buckets.get(bucket) {
            raise(bucket, 1);
        }
        raise(&self.sum_nanos, took);
        if took > self.longest_nanos.load(Relaxed) {
            self.longest_nanos.store(took, Relaxed);
        }
    }

    pub(super) fn add_to(&self, sum: &mut Histogram<u64>) {
        sum.each(self, |to, from| *to = to.wrapping_add(from.load(Relaxed)));
    }
}

impl Histogram<u64> {
    /// Changes each counter by its like in another. The longest is that of either: what is added to one, and what is
    /// left of one, has none that is longer.
    pub(super) fn each<C: Count>(&mut self, from: &Histogram<C>, change: impl Fn(&mut u64, &C)) {
        self.buckets.iter_mut().zip(&from.buckets).for_each(|(to, from)| change(to, from));
        change(&mut self.sum_nanos, &from.sum_nanos);
        self.longest_nanos = self.longest_nanos.max(from.longest_nanos.get());
    }

    /// The time within which this part of all observations were, in seconds: as Prometheus' `histogram_quantile` has
    /// it, evenly spread within a bucket, and of those beyond all bounds the last bound; but never more than any can
    /// have taken, and of a single one what it has taken. `None` where there are none.
    pub(super) fn quantile(&self, part: f64) -> Option<f64> {
        let part = if self.count() == 1 { 1.0 } else { part };
        self.spread(part).map(|seconds| seconds.min(self.most() as f64 / 1e9))
    }

    /// What no observation exceeds, in nanoseconds: the longest ever, and what is left of the sum for one where all
    /// others took no longer than their buckets begin. So it is exact where there is only one.
    fn most(&self) -> u64 {
        let lowers = std::iter::once(0).chain(BOUNDS.iter().map(|(bound, _)| *bound));
        let (mut least, mut highest) = (0_u64, 0_u64);
        for (lower, n) in lowers.zip(&self.buckets).filter(|(_, n)| **n > 0) {
            (least, highest) = (least.saturating_add(lower.saturating_mul(*n)), lower);
        }
        let left = self.sum_nanos.saturating_sub(least.saturating_sub(highest));
        // The counters are read one after the other: one may be ahead of the other.
        left.min(self.longest_nanos).max(highest)
    }

    fn spread(&self, part: f64) -> Option<f64> {
        let rank = part * self.count() as f64;
        let (mut below, mut lower) = (0_u64, 0_u64);
        for ((upper, _), n) in BOUNDS.iter().zip(&self.buckets) {
            if *n > 0 && (below + n) as f64 >= rank {
                let within = ((rank - below as f64) / *n as f64).clamp(0.0, 1.0);
                return Some((lower as f64 + (upper - lower) as f64 * within) / 1e9);
            }
            (below, lower) = (below + n, *upper);
        }
        (self.count() > 0).then_some(lower as f64 / 1e9)
    }

    /// Observations.
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// All durations together.
    pub(super) fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_nanos)
    }

    /// Each `le` with the observations at or below it, `+Inf` last.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let bounds = BOUNDS.iter().map(|(_, le)| *le).chain(["+Inf"]);
        bounds.zip(&self.buckets).scan(0, |so_far, (le, n)| {
            *so_far += n;
            Some((le, *so_far))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(filled: &Histogram<AtomicU64>) -> Histogram<u64> {
        let mut sum = Histogram::default();
        filled.add_to(&mut sum);
        sum
    }

    #[test]
    fn a_bound_belongs_to_its_own_bucket_and_what_exceeds_all_to_the_last() {
        for (i, (bound, le)) in BOUNDS.iter().enumerate() {
            let histogram = Histogram::default();
            histogram.observe(Duration::from_nanos(*bound));
            histogram.observe(Duration::from_nanos(*bound + 1));
            let seen: Vec<_> = read(&histogram).cumulative().collect();
            assert_eq!(seen[i], (*le, 1));
            assert_eq!(seen[i + 1].1, 2);
        }
    }

    #[test]
    fn labels_say_the_same_as_the_bounds_and_rise() {
        for (bound, le) in BOUNDS {
            assert_eq!((le.parse::<f64>().unwrap() * 1e9).round() as u64, bound);
        }
        assert!(BOUNDS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn quantiles_are_those_that_prometheus_makes_of_the_same_buckets() {
        let histogram = Histogram::default();
        assert_eq!(read(&histogram).quantile(0.99), None);
        // 90 within 50 to 100 µs, 10 within 5 to 10 ms.
        (0..90).for_each(|_| histogram.observe(Duration::from_micros(60)));
        (0..10).for_each(|_| histogram.observe(Duration::from_micros(6_000)));
        let read_now = read(&histogram);
        let is = |part: f64, expected: f64| {
            let seconds = read_now.quantile(part).unwrap();
            assert!((seconds - expected).abs() < 1e-12, "{part}: {seconds}");
        };
        is(0.0, 50e-6);
        is(0.45, 75e-6);
        is(0.9, 100e-6);
        // Of what is spread over a bucket, nothing is beyond the longest.
        is(0.91, 5e-3 + 0.1 * 5e-3);
        is(0.99, 6e-3);
        is(1.0, 6e-3);
        // Spread over its bucket, half of it would have taken less.
        let single = Histogram::default();
        single.observe(Duration::from_micros(41));
        let single = read(&single);
        assert_eq!([0.0, 0.5, 0.99].map(|part| single.quantile(part)), [Some(41e-6); 3]);
        let beyond = Histogram::default();
        beyond.observe(Duration::from_secs(60));
        assert_eq!(read(&beyond).quantile(0.5), Some(10.0));
    }

    #[test]
    fn what_is_left_of_a_while_is_bounded_by_its_sum_though_there_was_a_longer_one_before() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_millis(900));
        let before = read(&histogram);
        histogram.observe(Duration::from_millis(101));
        let mut since = read(&histogram);
        since.each(&before, |to, from| *to -= from);
        assert_eq!((since.quantile(0.5), since.quantile(0.99)), (Some(0.101), Some(0.101)));
        histogram.observe(Duration::from_millis(110));
        let mut since = read(&histogram);
        since.each(&before, |to, from| *to -= from);
        // One of the two may have taken 100 ms, then the other took 111.
        assert_eq!(since.quantile(0.99), Some(0.111));
    }

    proptest! {
        #[test]
        fn no_quantile_is_beyond_the_longest(times in prop::collection::vec(1_u64..10_000_000_000, 1..20)) {
            let histogram = Histogram::default();
            times.iter().for_each(|t| histogram.observe(Duration::from_nanos(*t)));
            let longest = times.iter().max().copied().unwrap_or(0) as f64 / 1e9;
            for part in [0.0, 0.5, 0.99, 1.0] {
                let quantile = read(&histogram).quantile(part).unwrap();
                prop_assert!(quantile <= longest, "{part}: {quantile} {longest}");
            }
        }

        #[test]
        fn buckets_rise_to_the_count_and_the_sum_is_exact(times in prop::collection::vec(0_u64..20_000_000_000, 0..50)) {
            let histogram = Histogram::default();
            times.iter().for_each(|t| histogram.observe(Duration::from_nanos(*t)));
            let read = read(&histogram);
            let cumulative: Vec<u64> = read.cumulative().map(|(_, n)| n).collect();
            prop_assert!(cumulative.is_sorted());
            prop_assert_eq!(cumulative.last().copied(), Some(times.len() as u64));
            prop_assert_eq!(read.count(), times.len() as u64);
            prop_assert_eq!(read.sum(), Duration::from_nanos(times.iter().sum()));
        }
    }
}
