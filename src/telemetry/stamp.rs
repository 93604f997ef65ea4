//! Wall-clock time as logs write it: RFC 3339 in UTC with milliseconds.
//!
//! Knows the calendar. Must not know: the clock, or who logs.

use std::fmt;

use crate::clock::Timestamp;

/// Shows such as `2026-10-05T18:04:05.123Z`.
pub(super) struct Rfc3339(pub(super) Timestamp);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.0.as_secs() / 86_400);
        write!(f, "{year:04}-{month:02}-{day:02}T{}Z", TimeOfDay(self.0))
    }
}

/// Shows such as `18:04:05.123`.
pub(super) struct TimeOfDay(pub(super) Timestamp);

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0.as_secs() % 86_400, self.0.as_millis() % 1000);
        write!(f, "{:02}:{:02}:{:02}.{millis:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
///
/// The year is taken to begin in March, so that the leap day comes last: then a month's first day
/// is a straight line in its number, `(153 m + 2) / 5`, and 400 years have always 146,097 days.
fn civil(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468; // from 0000-03-01
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_based = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * march_based + 2) / 5 + 1;
    let month = if march_based < 10 { march_based + 3 } else { march_based - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rfc3339(millis: u64) -> String {
        Rfc3339(Timestamp::from_millis(millis)).to_string()
    }

    #[test]
    fn known_moments_are_written_as_rfc_3339() {
        let rows = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_709_210_096_789, "2024-02-29T12:34:56.789Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ];
        for (millis, expected) in rows {
            assert_eq!(rfc3339(millis), expected);
        }
    }

    #[test]
    fn days_follow_each_other_without_a_gap_for_eight_centuries() {
        let mut expected = (1970, 1, 1);
        for day in 0..292_194 {
            assert_eq!(civil(day), expected, "day {day}");
            expected = tomorrow(expected);
        }
    }

    fn tomorrow((year, month, day): (u64, u64, u64)) -> (u64, u64, u64) {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let last = match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        match (day < last, month < 12) {
            (true, _) => (year, month, day + 1),
            (false, true) => (year, month + 1, 1),
            (false, false) => (year + 1, 1, 1),
        }
    }

    #[test]
    fn the_far_end_of_time_does_not_overflow() {
        assert!(rfc3339(u64::MAX).ends_with('Z'));
    }
}
