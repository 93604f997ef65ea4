//! The generic cell rate algorithm (ITU-T I.371): a leaky bucket held in one number.
//!
//! Knows when the next request is due if it keeps to the rate, and how far ahead of that it may come.
//! Pure: the time is an argument.
//! Must not know: whose count it is, or where it is held.

use std::time::Duration;

/// So many requests in so much time, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds from one request to the next.
    interval: u64,
    /// Nanoseconds that a request may come before it is due.
    tolerance: u64,
}

impl Rate {
    /// `count` requests in each `per`, `burst` of them at once. None of the three may be zero; one that
    /// is counts as the least there is.
    pub fn new(count: u32, per: Duration, burst: u32) -> Self {
        let per = u64::try_from(per.as_nanos()).unwrap_or(u64::MAX);
        // Rounded up: never more than was said.
        let interval = per.div_ceil(u64::from(count.max(1))).max(1);
        Self { interval, tolerance: interval.saturating_mul(u64::from(burst.max(1)) - 1) }
    }

    /// Takes a request that comes at `now`, when the next was due at `due` (nanoseconds both; whoever has
    /// not asked for long is due at or before `now`). When the next one is due then.
    ///
    /// # Errors
    /// How long to wait where it comes too early; it is then as if it had not come.
    pub fn take(self, due: u64, now: u64) -> Result<u64, Duration> {
        let earliest = due.saturating_sub(self.tolerance);
        if earliest > now {
            return Err(Duration::from_nanos(earliest - now));
        }
        Ok(due.max(now).saturating_add(self.interval))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_passes_at_once_and_then_one_in_each_interval() {
        let rate = Rate::new(2, Duration::from_secs(1), 3);
        let mut due = 0;
        let start = 10 * SECOND;
        // (half seconds since the start, how long to wait; none = it passes)
        let rows = [
            (0, None),
            (0, None),
            (0, None),
            (0, Some(500)),
            (1, None),
            (1, Some(500)),
            (2, None),
            // A second unused gives two, and no more than the burst however long it is.
            (4, None),
            (4, None),
            (4, Some(500)),
            (400, None),
            (400, None),
            (400, None),
            (400, Some(500)),
        ];
        for (at, wait) in rows {
            match (rate.take(due, start + at * SECOND / 2), wait) {
                (Ok(next), None) => due = next,
                (Err(told), Some(wait)) => assert_eq!(told, Duration::from_millis(wait), "at {at}"),
                (told, wait) => panic!("at {at}: {told:?} in place of {wait:?}"),
            }
        }
    }

    #[test]
    fn who_asks_too_early_loses_nothing_by_asking() {
        let rate = Rate::new(1, Duration::from_secs(60), 1);
        let due = rate.take(0, SECOND).unwrap();
        for second in 2..=60 {
            let wait = rate.take(due, second * SECOND).unwrap_err();
            assert_eq!(wait, Duration::from_secs(61 - second));
        }
        assert!(rate.take(due, 61 * SECOND).is_ok());
    }

    #[test]
    fn the_far_ends_do_not_overflow() {
        let slowest = Rate::new(1, Duration::MAX, u32::MAX);
        assert!(slowest.take(u64::MAX, u64::MAX).is_ok());
        assert!(Rate::new(0, Duration::ZERO, 0).take(0, 0).is_ok());
        assert_eq!(Rate::new(u32::MAX, Duration::from_secs(1), 1), Rate { interval: 1, tolerance: 0 });
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_has_more_than_the_burst_and_what_its_length_gives(
            (count, burst) in (1_u32..1000, 1_u32..50),
            gaps in prop::collection::vec(0_u64..20_000_000, 1..200),
        ) {
            let rate = Rate::new(count, Duration::from_secs(1), burst);
            let (mut now, mut due, mut passed) = (SECOND, 0, Vec::new());
            for gap in gaps {
                now += gap;
                match rate.take(due, now) {
                    Ok(next) => {
                        due = next;
                        passed.push(now);
                    }
                    // Whoever waits as long as it is told to is let through.
                    Err(wait) => prop_assert!(rate.take(due, now + wait.as_nanos() as u64).is_ok()),
                }
            }
            for (first, from) in passed.iter().enumerate() {
                for (last, to) in passed.iter().enumerate().skip(first) {
                    let earned = u128::from(to - from) * u128::from(count) / u128::from(SECOND);
                    prop_assert!((last - first + 1) as u128 <= u128::from(burst) + earned);
                }
            }
        }
    }
}
