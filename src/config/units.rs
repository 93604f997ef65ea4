//! Durations and sizes as they are written.
//!
//! Knows the units, and for a value that is not right, the one that was probably meant.
//! Must not know: which setting a value belongs to, or where it stands.

use std::time::Duration;

/// Why a value is refused, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    /// What is wrong.
    pub(super) message: String,
    /// What to write instead.
    pub(super) help: String,
}

impl Mistake {
    /// Whether nothing says what was meant, so that only an example can help.
    pub(super) fn needs_example(&self) -> bool {
        self.message == NO_DURATION || self.message == NO_SIZE
    }
}

const NO_DURATION: &str = "not a duration";
const NO_SIZE: &str = "not a size";
const DURATION_UNITS: &str = "the units are ms, s, m, h and d";
const SIZE_UNITS: &str = "the units are B, KiB, MiB, GiB, KB, MB and GB";

/// The longest duration: far beyond any use, and far from where sums of times overflow.
const LONGEST: Duration = Duration::from_secs(36_500 * 86_400);

/// Unit names with nanoseconds.
const DURATIONS: [(&str, u128); 5] = [
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// Unit names with bytes.
const SIZES: [(&str, u128); 7] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// Other spellings, in lower case, and ours.
const DURATION_ALIASES: [(&str, &str); 22] = [
    ("msec", "ms"),
    ("msecs", "ms"),
    ("millis", "ms"),
    ("millisecond", "ms"),
    ("milliseconds", "ms"),
    ("ms", "ms"),
    ("s", "s"),
    ("sec", "s"),
    ("secs", "s"),
    ("second", "s"),
    ("seconds", "s"),
    ("m", "m"),
    ("min", "m"),
    ("mins", "m"),
    ("minute", "m"),
    ("minutes", "m"),
    ("h", "h"),
    ("hr", "h"),
    ("hour", "h"),
    ("hours", "h"),
    ("day", "d"),
    ("days", "d"),
];

const SIZE_ALIASES: [(&str, &str); 14] = [
    ("b", "B"),
    ("byte", "B"),
    ("bytes", "B"),
    ("k", "KiB"),
    ("ki", "KiB"),
    ("kib", "KiB"),
    ("m", "MiB"),
    ("mi", "MiB"),
    ("mib", "MiB"),
    ("g", "GiB"),
    ("gi", "GiB"),
    ("gib", "GiB"),
    ("mb", "MB"),
    ("gb", "GB"),
];

/// Reads `"250ms"`, `"1.5s"`, `"10m"`, `"2h"`, `"1d"`. `typical` is the unit to offer where none
/// was written.
pub(super) fn duration(text: &str, typical: &str) -> Result<Duration, Mistake> {
    let number = Number::split(text).ok_or_else(|| none_at_all(NO_DURATION, DURATION_UNITS))?;
    if number.unit.is_empty() {
        let help = format!("write \"{}{typical}\"", number.digits);
        return Err(Mistake { message: "a duration needs a unit".into(), help });
    }
    let Some((_, nanos)) = DURATIONS.iter().find(|(unit, _)| *unit == number.unit) else {
        return Err(unknown_unit(&number, &DURATION_ALIASES, DURATION_UNITS));
    };
    let nanos = number.times(*nanos).and_then(|n| u64::try_from(n).ok()).map(Duration::from_nanos);
    nanos.filter(|d| *d <= LONGEST).ok_or_else(|| too_large("duration", "at most \"36500d\""))
}

/// Reads `"16MiB"`, `"1.5GB"`, `"512B"` as bytes.
pub(super) fn size(text: &str) -> Result<u64, Mistake> {
    let number = Number::split(text).ok_or_else(|| none_at_all(NO_SIZE, SIZE_UNITS))?;
    if number.unit.is_empty() {
        let help = format!("write \"{0}MiB\", or \"{0}B\" if bytes are meant", number.digits);
        return Err(Mistake { message: "a size needs a unit".into(), help });
    }
    let Some((_, bytes)) = SIZES.iter().find(|(unit, _)| *unit == number.unit) else {
        return Err(unknown_unit(&number, &SIZE_ALIASES, SIZE_UNITS));
    };
    let bytes = number.times(*bytes).filter(|n| *n <= i64::MAX.unsigned_abs().into());
    bytes.and_then(|n| u64::try_from(n).ok()).ok_or_else(|| too_large("size", "at most 8589934591GiB"))
}

/// The same the other way round: by the largest unit of which it is a whole number; what is below a millisecond is
/// left out.
pub fn written(time: Duration) -> String {
    let millis = Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).as_nanos();
    let unit = DURATIONS.iter().rev().find(|(_, unit)| millis >= *unit && millis.is_multiple_of(*unit));
    unit.map_or_else(|| "0ms".to_owned(), |(name, unit)| format!("{}{name}", millis / unit))
}

/// A decimal number and what stands behind it.
struct Number<'t> {
    digits: &'t str,
    whole: u64,
    fraction: &'t str,
    unit: &'t str,
}

impl<'t> Number<'t> {
    fn split(text: &'t str) -> Option<Self> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (digits, unit) = text.split_at_checked(end)?;
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let clean = !whole.is_empty() && !fraction.is_empty() && !fraction.contains('.');
        // A unit is one word of letters: `1m30s` and `10 s` are not numbers with a unit.
        let word = unit.chars().all(char::is_alphabetic);
        let whole = whole.parse().ok().filter(|_| clean && word)?;
        Some(Self { digits, whole, fraction, unit })
    }

    /// This many `unit`s, rounded down to whole parts.
    fn times(&self, unit: u128) -> Option<u128> {
        let fraction = self.fraction.get(..9).unwrap_or(self.fraction);
        let parts: u128 = fraction.parse().ok()?;
        let scale = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        u128::from(self.whole).checked_mul(unit)?.checked_add(parts.checked_mul(unit)? / scale)
    }
}

fn none_at_all(message: &str, units: &str) -> Mistake {
    Mistake { message: message.to_owned(), help: units.to_owned() }
}

fn too_large(what: &str, limit: &str) -> Mistake {
    Mistake { message: format!("this {what} is too large"), help: format!("write {limit}") }
}

fn unknown_unit(number: &Number<'_>, aliases: &[(&str, &str)], units: &str) -> Mistake {
    let unit = number.unit.to_lowercase();
    let help = match aliases.iter().find(|(other, _)| *other == unit) {
        Some((_, ours)) => format!("write \"{}{ours}\"", number.digits),
        None => units.to_owned(),
    };
    Mistake { message: format!("unknown unit `{}`", number.unit), help }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_exactly() {
        let rows = [
            ("250ms", 250_000_000),
            ("1.5s", 1_500_000_000),
            ("0.5ms", 500_000),
            ("10m", 600_000_000_000),
            ("2h", 7_200_000_000_000),
            ("1d", 86_400_000_000_000),
            ("0s", 0),
            ("0.1s", 100_000_000),
            ("1.000000001s", 1_000_000_001),
        ];
        for (text, nanos) in rows {
            assert_eq!(duration(text, "s"), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn a_duration_is_written_by_its_largest_unit() {
        for (millis, text) in [
            (0, "0ms"),
            (100, "100ms"),
            (1_500, "1500ms"),
            (60_000, "1m"),
            (66_000, "66s"),
            (7_200_000, "2h"),
            (86_400_000, "1d"),
        ] {
            let time = Duration::from_millis(millis);
            assert_eq!(written(time), text);
            assert_eq!(duration(text, "s"), Ok(time));
        }
    }

    #[test]
    fn a_wrong_duration_says_what_to_write() {
        let rows = [
            ("60", "a duration needs a unit", "write \"60s\""),
            ("1.5", "a duration needs a unit", "write \"1.5s\""),
            ("5min", "unknown unit `min`", "write \"5m\""),
            ("5M", "unknown unit `M`", "write \"5m\""),
            ("10Seconds", "unknown unit `Seconds`", "write \"10s\""),
            ("5us", "unknown unit `us`", "the units are ms, s, m, h and d"),
            ("s", "not a duration", "the units are ms, s, m, h and d"),
            ("", "not a duration", "the units are ms, s, m, h and d"),
            ("36501d", "this duration is too large", "write at most \"36500d\""),
            ("99999999999999999d", "this duration is too large", "write at most \"36500d\""),
        ];
        for (text, message, help) in rows {
            let want = Mistake { message: message.into(), help: help.into() };
            assert_eq!(duration(text, "s"), Err(want), "{text}");
        }
        for text in ["-5s", "1m30s", "10 s", ".5s", "5.s", "1.2.3s", "1e3s", "inf", "NaNs", "１s"] {
            assert!(duration(text, "s").is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_exactly() {
        let rows = [
            ("0B", 0),
            ("1B", 1),
            ("64KiB", 65_536),
            ("256MiB", 268_435_456),
            ("1GiB", 1_073_741_824),
            ("1KB", 1_000),
            ("1MB", 1_000_000),
            ("1.5GB", 1_500_000_000),
            ("0.5KiB", 512),
        ];
        for (text, bytes) in rows {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn a_wrong_size_says_what_to_write() {
        let rows = [
            ("256", "a size needs a unit", "write \"256MiB\", or \"256B\" if bytes are meant"),
            ("256M", "unknown unit `M`", "write \"256MiB\""),
            ("256mib", "unknown unit `mib`", "write \"256MiB\""),
            ("1TB", "unknown unit `TB`", "the units are B, KiB, MiB, GiB, KB, MB and GB"),
            ("99999999999GiB", "this size is too large", "write at most 8589934591GiB"),
        ];
        for (text, message, help) in rows {
            assert_eq!(size(text), Err(Mistake { message: message.into(), help: help.into() }), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,24}") {
            let _ = (duration(&text, "s"), size(&text));
        }

        #[test]
        fn a_longer_number_is_never_a_shorter_duration(a in 0u64..9_999, b in 0u64..9_999) {
            let read = |n: u64| duration(&format!("{}.{:03}s", n / 1000, n % 1000), "s").unwrap();
            prop_assert_eq!(a.cmp(&b), read(a).cmp(&read(b)));
        }
    }
}
