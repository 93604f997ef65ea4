//! HTTP dates (RFC 9110 §5.6.7): the three forms in, IMF-fixdate out.
//!
//! Strict in form and zone, since a half-read date is a wrong lifetime; lenient on letter case
//! (RFC 9111 §4.2) and on a weekday that does not fit the date, which says nothing more.
//! Must not know: the time; whoever reads a two-digit year says what time it is.

use std::io::Write;

use http::HeaderValue;

use super::list;
use crate::clock::Timestamp;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const LONG_DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// 9999-12-31T23:59:59Z, the last second that has a four-digit year.
const LAST_SECOND: u64 = 253_402_300_799;

/// Reads a date; `None` where it has none of the three forms. Dates before 1970 read as 1970.
///
/// `now` places the two-digit years of the RFC 850 form: in the latest year that is not more than
/// 50 years ahead.
pub fn parse(value: &[u8], now: Timestamp) -> Option<Timestamp> {
    let value = list::trim(value);
    let text = Text(value);
    imf_fixdate(value).or_else(|| rfc850(text, now)).or_else(|| asctime(text))
}

/// Writes an IMF-fixdate, milliseconds cut off. Times after the year 9999 read as its end.
pub fn format(t: Timestamp) -> [u8; 29] {
    let secs = t.as_secs().min(LAST_SECOND);
    let (days, clock) = (secs / 86_400, secs % 86_400);
    let (year, month, day) = civil(i64::try_from(days).unwrap_or(0));
    let mut out = [b' '; 29];
    // 1970-01-01 was a Thursday. 29 bytes hold every year up to 9999, so this cannot fail.
    let _ = write!(
        out.as_mut_slice(),
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        named(&DAYS, days + 3),
        named(&MONTHS, u64::from(month).saturating_sub(1)),
        clock / 3600,
        clock / 60 % 60,
        clock % 60,
    );
    out
}

/// The same as a field value.
pub fn to_value(t: Timestamp) -> HeaderValue {
    HeaderValue::from_bytes(&format(t))
        .unwrap_or_else(|_| HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
}

/// A date as it is written, which is made once a second.
#[derive(Debug, Default)]
pub struct Written {
    second: u64,
    text: Vec<u8>,
}

impl Written {
    /// That of `now`.
    pub fn at(&mut self, now: Timestamp) -> &[u8] {
        if self.second != now.as_secs() || self.text.is_empty() {
            (self.second, self.text) = (now.as_secs(), format(now).into());
        }
        &self.text
    }
}

fn named(names: &[&'static str], at: u64) -> &'static str {
    let at = usize::try_from(at).unwrap_or(0);
    names.iter().cycle().nth(at % names.len().max(1)).copied().unwrap_or_default()
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`. By its places, since every response has some.
fn imf_fixdate(text: &[u8]) -> Option<Timestamp> {
    let text: &[u8; 29] = text.try_into().ok()?;
    let &[w, e, k, b',', b' ', d, a, b' ', m, o, n, b' ', ref rest @ ..] = text else { return None };
    let &[y, e_, a_, r, b' ', h, h_, b':', i, i_, b':', s, s_, b' ', ref zone @ ..] = rest else {
        return None;
    };
    let (day, month) = (lower([w, e, k]), lower([m, o, n]));
    if !zone.eq_ignore_ascii_case(b"GMT") || !DAYS.iter().any(|name| lower_of(name) == day) {
        return None;
    }
    let month = MONTHS.iter().position(|name| lower_of(name) == month)?;
    let year = two(y, e_)? * 100 + two(a_, r)?;
    let clock = time_of_day(two(h, h_)?, two(i, i_)?, two(s, s_)?)?;
    moment(year.into(), u32::try_from(month).ok()? + 1, two(d, a)?, clock)
}

/// Three letters in lower case. What is no letter becomes none.
const fn lower([a, b, c]: [u8; 3]) -> [u8; 3] {
    [a | 0x20, b | 0x20, c | 0x20]
}

fn lower_of(name: &str) -> [u8; 3] {
    name.as_bytes().try_into().map_or([0; 3], lower)
}

fn two(tens: u8, ones: u8) -> Option<u32> {
    let both = tens.is_ascii_digit() && ones.is_ascii_digit();
    both.then(|| u32::from(tens - b'0') * 10 + u32::from(ones - b'0'))
}

/// Seconds of the day. A leap second is taken as the one before it (RFC 9111 §4.2: "the nearest time equal to or
/// earlier").
fn time_of_day(hour: u32, minute: u32, second: u32) -> Option<u32> {
    (hour < 24 && minute < 60 && second <= 60).then(|| hour * 3600 + minute * 60 + second.min(59))
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850(mut text: Text<'_>, now: Timestamp) -> Option<Timestamp> {
    text.one_of(&LONG_DAYS)?;
    text.literal(", ")?;
    let day = text.number(2)?;
    text.literal("-")?;
    let month = text.one_of(&MONTHS)?;
    text.literal("-")?;
    let year = text.number(2)?;
    text.literal(" ")?;
    let clock = text.clock()?;
    text.literal(" GMT")?;
    text.end()?;
    moment(full_year(year, (month, day, clock), now), month, day, clock)
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(mut text: Text<'_>) -> Option<Timestamp> {
    text.one_of(&DAYS)?;
    text.literal(" ")?;
    let month = text.one_of(&MONTHS)?;
    text.literal(" ")?;
    let day = match text.literal(" ") {
        Some(()) => text.number(1)?,
        None => text.number(2)?,
    };
    text.literal(" ")?;
    let clock = text.clock()?;
    text.literal(" ")?;
    let year = text.number(4)?;
    text.end()?;
    moment(year.into(), month, day, clock)
}

/// §5.6.7: "MUST interpret a timestamp that appears to be more than 50 years in the future as
/// representing the most recent year in the past that had the same last two digits."
fn full_year(two: u32, rest: (u32, u32, u32), now: Timestamp) -> i64 {
    let (now_days, now_clock) = (now.as_secs() / 86_400, now.as_secs() % 86_400);
    let (now_year, now_month, now_day) = civil(i64::try_from(now_days).unwrap_or(0));
    let limit = now_year + 50;
    let year = limit - (limit - i64::from(two)).rem_euclid(100);
    let now_rest = (now_month, now_day, u32::try_from(now_clock).unwrap_or(0));
    if year == limit && rest > now_rest { year - 100 } else { year }
}

fn moment(year: i64, month: u32, day: u32, clock: u32) -> Option<Timestamp> {
    if day == 0 || day > last_of(year, month) {
        return None;
    }
    let days = days_from_civil(year, month, day);
    let secs = days * 86_400 + i64::from(clock);
    Some(Timestamp::from_secs(u64::try_from(secs).unwrap_or(0)))
}

/// The last day of a month.
const fn last_of(year: i64, month: u32) -> u32 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar. Years are counted from
/// March, so that the leap day is a year's last; 400 years have 146,097 days.
fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((i64::from(month) + 9) % 12) + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`]: year, month, day.
fn civil(days: i64) -> (i64, u32, u32) {
    let days = days.saturating_add(719_468);
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, u32::try_from(month).unwrap_or(0), u32::try_from(day).unwrap_or(0))
}

/// What is left to read.
#[derive(Clone, Copy)]
struct Text<'a>(&'a [u8]);

impl Text<'_> {
    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// Exactly this, in any letter case; nothing is read otherwise.
    fn literal(&mut self, text: &str) -> Option<()> {
        let (taken, rest) = self.0.split_at_checked(text.len())?;
        taken.eq_ignore_ascii_case(text.as_bytes()).then(|| self.0 = rest)
    }

    /// One of the names; its place counted from 1.
    fn one_of(&mut self, names: &[&str]) -> Option<u32> {
        let at = names.iter().position(|name| self.literal(name).is_some())?;
        u32::try_from(at + 1).ok()
    }

    /// Exactly so many digits.
    fn number(&mut self, digits: usize) -> Option<u32> {
        self.take(digits)?
            .iter()
            .try_fold(0, |sum: u32, digit| digit.is_ascii_digit().then(|| sum * 10 + u32::from(digit - b'0')))
    }

    /// `hh:mm:ss` as seconds of the day.
    fn clock(&mut self) -> Option<u32> {
        let hour = self.number(2)?;
        self.literal(":")?;
        let minute = self.number(2)?;
        self.literal(":")?;
        time_of_day(hour, minute, self.number(2)?)
    }

    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RFC_DAY: u64 = 784_111_777; // Sun, 06 Nov 1994 08:49:37 GMT
    const NOW: Timestamp = Timestamp::from_secs(1_753_000_000); // 2025-07-20

    fn secs(value: &str) -> Option<u64> {
        parse(value.as_bytes(), NOW).map(Timestamp::as_secs)
    }

    #[test]
    fn the_three_forms_are_read() {
        for (clause, value, expected) in [
            ("§5.6.7 IMF-fixdate", "Sun, 06 Nov 1994 08:49:37 GMT", RFC_DAY),
            ("§5.6.7 RFC 850", "Sunday, 06-Nov-94 08:49:37 GMT", RFC_DAY),
            ("§5.6.7 asctime", "Sun Nov  6 08:49:37 1994", RFC_DAY),
            ("§5.6.7 asctime, two digits", "Wed Nov 16 08:49:37 1994", RFC_DAY + 864_000),
            ("9111 §4.2 any case", "sUN, 06 nOV 1994 08:49:37 gmt", RFC_DAY),
            ("9111 §4.2 any case", "SUNDAY, 06-NOV-94 08:49:37 gmt", RFC_DAY),
            ("wrong weekday", "Mon, 06 Nov 1994 08:49:37 GMT", RFC_DAY),
            ("§5.6.3 whitespace around it", " \tSun, 06 Nov 1994 08:49:37 GMT ", RFC_DAY),
            ("the epoch", "Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("before the epoch", "Mon, 01 Jan 1900 00:00:00 GMT", 0),
            ("year 0", "Sat, 01 Jan 0000 00:00:00 GMT", 0),
            ("the last", "Fri, 31 Dec 9999 23:59:59 GMT", LAST_SECOND),
            ("leap day", "Tue, 29 Feb 2000 00:00:00 GMT", 951_782_400),
            ("leap second", "Sat, 31 Dec 2016 23:59:60 GMT", 1_483_228_799),
        ] {
            assert_eq!(secs(value), Some(expected), "{clause}: {value}");
        }
    }

    #[test]
    fn anything_else_is_no_date() {
        for (why, value) in [
            ("9111 §5.3 zero", "0"),
            ("nothing", ""),
            ("other zone", "Sun, 06 Nov 1994 08:49:37 UTC"),
            ("other zone", "Sun, 06 Nov 1994 08:49:37 EST"),
            ("numeric zone", "Sun, 06 Nov 1994 08:49:37 +0000"),
            ("no zone", "Sun, 06 Nov 1994 08:49:37"),
            ("one-digit day", "Sun, 6 Nov 1994 08:49:37 GMT"),
            ("one-digit hour", "Sun, 06 Nov 1994 8:49:37 GMT"),
            ("two spaces", "Sun, 06 Nov 1994  08:49:37 GMT"),
            ("two spaces", "Sun,  06 Nov 1994 08:49:37 GMT"),
            ("dashes in the first form", "Sun, 06-Nov-1994 08:49:37 GMT"),
            ("dashes", "Sun, 06-Nov-94 08:49:37 GMT"),
            ("spaces in the second form", "Sunday, 06 Nov 94 08:49:37 GMT"),
            ("four-digit year in the second form", "Sunday, 06-Nov-1994 08:49:37 GMT"),
            ("two-digit year in the first form", "Sun, 06 Nov 94 08:49:37 GMT"),
            ("zone after asctime", "Sun Nov  6 08:49:37 1994 GMT"),
            ("unpadded asctime", "Sun Nov 6 08:49:37 1994"),
            ("no comma", "Sun 06 Nov 1994 08:49:37 GMT"),
            ("no weekday", "06 Nov 1994 08:49:37 GMT"),
            ("no such weekday", "Xyz, 06 Nov 1994 08:49:37 GMT"),
            ("no such month", "Sun, 06 Foo 1994 08:49:37 GMT"),
            ("no such day", "Wed, 30 Feb 1994 08:49:37 GMT"),
            ("no such day", "Wed, 29 Feb 2100 08:49:37 GMT"),
            ("day 0", "Wed, 00 Jan 1994 08:49:37 GMT"),
            ("hour 24", "Sun, 06 Nov 1994 24:00:00 GMT"),
            ("minute 60", "Sun, 06 Nov 1994 08:60:00 GMT"),
            ("second 61", "Sun, 06 Nov 1994 08:49:61 GMT"),
            ("more after it", "Sun, 06 Nov 1994 08:49:37 GMT, x"),
            ("two dates", "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT"),
            ("ISO 8601", "1994-11-06T08:49:37Z"),
        ] {
            assert_eq!(secs(value), None, "{why}: {value}");
        }
    }

    #[test]
    fn two_digit_years_are_never_more_than_50_years_ahead() {
        for (now, value, expected) in [
            ("Sun, 20 Jul 2025 00:00:00 GMT", "Monday, 20-Jul-75 00:00:00 GMT", "20 Jul 2075"),
            ("Sun, 20 Jul 2025 00:00:00 GMT", "Monday, 20-Jul-75 00:00:01 GMT", "20 Jul 1975"),
            ("Sun, 20 Jul 2025 00:00:00 GMT", "Monday, 21-Jul-75 00:00:00 GMT", "21 Jul 1975"),
            ("Sun, 20 Jul 2025 00:00:00 GMT", "Monday, 01-Jan-76 00:00:00 GMT", "01 Jan 1976"),
            ("Sun, 20 Jul 2025 00:00:00 GMT", "Monday, 01-Jan-00 00:00:00 GMT", "01 Jan 2000"),
            ("Thu, 01 Jan 2090 00:00:00 GMT", "Monday, 01-Jan-05 00:00:00 GMT", "01 Jan 2105"),
            ("Thu, 01 Jan 2090 00:00:00 GMT", "Monday, 01-Jan-89 00:00:00 GMT", "01 Jan 2089"),
        ] {
            let now = parse(now.as_bytes(), NOW).unwrap();
            let read = format(parse(value.as_bytes(), now).unwrap());
            let read = std::str::from_utf8(&read).unwrap();
            assert!(read.contains(expected), "§5.6.7: {value} read as {read}");
        }
    }

    #[test]
    fn dates_are_written_as_imf_fixdate() {
        assert_eq!(&format(Timestamp::from_secs(RFC_DAY)), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(&format(Timestamp::from_millis(999)), b"Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(&format(Timestamp::from_millis(u64::MAX)), b"Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(to_value(Timestamp::from_secs(RFC_DAY)), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(secs in 0..=LAST_SECOND) {
            let t = Timestamp::from_secs(secs);
            prop_assert_eq!(parse(&format(t), NOW), Some(t));
        }

        #[test]
        fn later_is_written_with_the_right_weekday(secs in 0..=LAST_SECOND - 604_800) {
            let (a, b) = (format(Timestamp::from_secs(secs)), format(Timestamp::from_secs(secs + 604_800)));
            prop_assert_eq!(a.first_chunk::<3>(), b.first_chunk::<3>());
        }

        #[test]
        fn any_bytes_are_read_or_not(value: Vec<u8>, now: u64) {
            let _ = parse(&value, Timestamp::from_millis(now));
        }

        #[test]
        fn a_damaged_date_is_never_a_panic(
            at in 0..29usize, byte: u8, form in 0..3usize, now: u64,
        ) {
            let forms =
                ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"];
            let mut value = forms[form].as_bytes().to_vec();
            let at = at % value.len();
            value[at] = byte;
            let _ = parse(&value, Timestamp::from_millis(now));
            let _ = format(Timestamp::from_millis(now));
        }
    }
}
