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
#[derive(Debug, Default)]
pub(super) struct Histogram<C> {
    /// One per bound, and one beyond; not cumulative.
    buckets: [C; BOUNDS.len() + 1],
    sum_nanos: C,
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
    }

    pub(super) fn add_to(&self, sum: &mut Histogram<u64>) {
        for (from, to) in self.buckets.iter().zip(&mut sum.buckets) {
            *to += from.load(Relaxed);
        }
        sum.sum_nanos = sum.sum_nanos.wrapping_add(self.sum_nanos.load(Relaxed));
    }
}

impl Histogram<u64> {
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

    proptest! {
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
