//! A line of a log, whichever program wrote it.
//!
//! Knows the forms by how they begin, and moments of time as logs write them.
//! Must not know: configurations.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use http::{HeaderMap, Method};

use super::{combined, json};
use crate::clock::Timestamp;

/// What a line says of a request.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// When it arrived.
    pub at: Timestamp,
    pub method: Method,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// `None` where the form has none.
    pub host: Option<Cow<'a, str>>,
    /// Path and query.
    pub target: Cow<'a, str>,
    pub status: u16,
    /// From its head to the end of its answer; `None` where the form does not say.
    pub took: Option<Duration>,
    /// Bytes of content that were sent.
    pub bytes: u64,
    /// All of it was sent.
    pub complete: bool,
    /// What the cache did, where a cache wrote it.
    pub outcome: Option<Outcome>,
    pub request: HeaderMap,
    pub answer: Option<HeaderMap>,
    /// Bytes of the whole representation.
    pub length: Option<u64>,
    /// Of what was stored.
    pub age: Option<Duration>,
}

/// What the cache did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub result: Result,
    pub reason: Reason,
    pub collapsed: bool,
}

/// The word of `cache`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Result {
    Cached,
    StaleIfError,
    Missed,
    Bypassed,
    Failed,
    Local,
}

/// The word of `reason`, as far as it is not due to a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    None,
    Upgrade,
    Body,
    Other,
}

/// Why a line is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw(pub(super) String);

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Flaw {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// Reads a line.
pub(super) fn read(line: &[u8]) -> std::result::Result<Line<'_>, Flaw> {
    let line = line.trim_ascii();
    let text = std::str::from_utf8(line).map_err(|_| Flaw::new("is no UTF-8"))?;
    if text.starts_with('{') { json::read(text) } else { combined::read(text) }
}

/// Such as `2026-10-05T18:04:05.123Z`: UTC alone, as Larder writes it.
pub(super) fn rfc3339(text: &str) -> Option<Timestamp> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (time, millis) = time.split_once('.').unwrap_or((time, "0"));
    let millis: u64 = format!("{millis:0<3}").get(..3)?.parse().ok()?;
    Some(Timestamp::from_millis(moment(year, month, day, time)? * 1000 + millis))
}

/// Such as `10/Oct/2000:13:55:36 -0700`.
pub(super) fn common(text: &str) -> Option<Timestamp> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (date, zone) = text.split_once(' ')?;
    let (date, time) = date.split_once(':')?;
    let mut date = date.splitn(3, '/');
    let (day, month, year) = (date.next()?.parse().ok()?, date.next()?, date.next()?.parse().ok()?);
    let month = MONTHS.iter().position(|name| *name == month)?;
    let (sign, zone) = zone.split_at_checked(1)?;
    let (hours, minutes) = zone.split_at_checked(2)?;
    let ahead = hours.parse::<u64>().ok()? * 3600 + minutes.parse::<u64>().ok()? * 60;
    let local = moment(year, u64::try_from(month).ok()? + 1, day, time)?;
    let utc = if sign == "-" { local.checked_add(ahead) } else { local.checked_sub(ahead) };
    utc.map(Timestamp::from_secs)
}

/// Seconds since 1970 of a date of the Gregorian calendar and `18:04:05`.
fn moment(year: u64, month: u64, day: u64, time: &str) -> Option<u64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let mut time = time.splitn(3, ':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // The year is taken to begin in March, so that the leap day comes last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + of_year;
    Some((days.checked_sub(719_468)?) * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_they_are_written() {
        let rows = [
            ("1970-01-01T00:00:00.000Z", Some(0)),
            ("2000-02-29T00:00:00.000Z", Some(951_782_400_000)),
            ("2024-02-29T12:34:56.789Z", Some(1_709_210_096_789)),
            ("2100-03-01T00:00:00Z", Some(4_107_542_400_000)),
            ("2024-02-29T12:34:56.7Z", Some(1_709_210_096_700)),
            ("2024-02-29T12:34:56.789+01:00", None),
            ("2024-13-29T12:34:56.789Z", None),
            ("yesterday", None),
            ("", None),
        ];
        for (text, millis) in rows {
            assert_eq!(rfc3339(text), millis.map(Timestamp::from_millis), "{text}");
        }
        let rows = [
            ("10/Oct/2000:13:55:36 -0700", Some(971_211_336)),
            ("10/Oct/2000:20:55:36 +0000", Some(971_211_336)),
            ("10/Oct/2000:22:25:36 +0130", Some(971_211_336)),
            ("10/Okt/2000:13:55:36 -0700", None),
            ("01/Jan/1970:00:00:00 +0100", None),
            ("10/Oct/2000:13:55:36", None),
        ];
        for (text, seconds) in rows {
            assert_eq!(common(text), seconds.map(Timestamp::from_secs), "{text}");
        }
    }
}
