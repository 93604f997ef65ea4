//! `Range`, single byte ranges (RFC 9110 §14).
//!
//! Knows the syntax and how a range falls on a body of some length. Must not know: bodies, 206.

use super::list;

/// A range that was asked for, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeSpec {
    /// `bytes=5-`: from this byte to the end.
    From(u64),
    /// `bytes=5-9`: from the first to the last, both included; never last before first.
    FromTo(u64, u64),
    /// `bytes=-5`: the last so many.
    Last(u64),
    /// Several ranges; they are answered with the whole (§14.2 allows it).
    Several,
}

/// How a range falls on a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// 206 with these bytes, both included.
    Part {
        /// First byte, from 0.
        first: u64,
        /// Last byte, below the length.
        last: u64,
    },
    /// 416.
    Unsatisfiable,
    /// 200 with everything.
    Whole,
}

/// Reads a `Range` value; `None` = another unit or malformed, so the field is ignored (§14.2).
pub fn parse(value: &[u8]) -> Option<RangeSpec> {
    let (unit, set) = list::trim(value).split_at_checked(b"bytes=".len())?;
    // §14.1: range unit names are case-insensitive.
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let mut members = list::members(set);
    let first = spec(members.next()?)?;
    let mut only = first;
    for member in members {
        spec(member)?;
        only = RangeSpec::Several;
    }
    Some(only)
}

impl RangeSpec {
    /// How this falls on a body of `len` bytes (§14.1.2, §15.5.17).
    pub fn resolve(&self, len: u64) -> Resolved {
        let Some(end) = len.checked_sub(1) else {
            return match self {
                // A suffix of nothing is satisfiable, but no Content-Range can say so.
                Self::Last(1..) | Self::Several => Resolved::Whole,
                _ => Resolved::Unsatisfiable,
            };
        };
        match *self {
            Self::From(first) | Self::FromTo(first, _) if first > end => Resolved::Unsatisfiable,
            Self::From(first) => Resolved::Part { first, last: end },
            Self::FromTo(first, last) => Resolved::Part { first, last: last.min(end) },
            Self::Last(0) => Resolved::Unsatisfiable,
            Self::Last(count) => Resolved::Part { first: len.saturating_sub(count), last: end },
            Self::Several => Resolved::Whole,
        }
    }
}

fn spec(member: &[u8]) -> Option<RangeSpec> {
    let mut parts = member.splitn(2, |&b| b == b'-');
    let (first, last) = (parts.next()?, parts.next()?);
    match (first.is_empty(), last.is_empty()) {
        (true, true) => None,
        (true, false) => Some(RangeSpec::Last(number(last)?)),
        (false, true) => Some(RangeSpec::From(number(first)?)),
        (false, false) => {
            let (first, last) = (number(first)?, number(last)?);
            // §14.1.1: "An int-range is invalid if the last-pos value is present and less than
            // the first-pos."
            (first <= last).then_some(RangeSpec::FromTo(first, last))
        }
    }
}

/// Digits only; saturates (§14.1.2: recipients must anticipate large numerals).
fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |sum: u64, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        Some(sum.saturating_mul(10).saturating_add(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_read_or_ignored() {
        for (clause, value, expected) in [
            ("§14.1.2 first to last", "bytes=0-499", Some(RangeSpec::FromTo(0, 499))),
            ("§14.1.2 open", "bytes=9500-", Some(RangeSpec::From(9500))),
            ("§14.1.2 suffix", "bytes=-500", Some(RangeSpec::Last(500))),
            ("§14.1 unit in any case", "BYTES=1-2", Some(RangeSpec::FromTo(1, 2))),
            ("§14.1.2 several", "bytes=0-0,-1", Some(RangeSpec::Several)),
            ("§5.6.1 empty members", "bytes=, 1-2 ,", Some(RangeSpec::FromTo(1, 2))),
            ("§14.1.1 last before first", "bytes=5-4", None),
            ("§14.1.1 one of several invalid", "bytes=0-1,5-4", None),
            ("§14.2 other unit", "items=0-1", None),
            ("§14.1.1 no set", "bytes=", None),
            ("§14.1.1 no numbers", "bytes=-", None),
            ("§14.1.1 signs", "bytes=+1-2", None),
            ("§14.1.1 spaces", "bytes= 1 - 2", None),
            ("§14.1.1 spaces", "bytes =1-2", None),
            ("§14.1.1 nothing", "", None),
            ("large", "bytes=0-99999999999999999999999", Some(RangeSpec::FromTo(0, u64::MAX))),
        ] {
            assert_eq!(parse(value.as_bytes()), expected, "{clause}: {value}");
        }
    }

    #[test]
    fn ranges_fall_on_bodies() {
        let part = |first, last| Resolved::Part { first, last };
        for (clause, spec, len, expected) in [
            ("§14.1.2 inside", RangeSpec::FromTo(2, 4), 10, part(2, 4)),
            ("§14.1.2 beyond the end is cut", RangeSpec::FromTo(2, 40), 10, part(2, 9)),
            ("§14.1.2 open", RangeSpec::From(9), 10, part(9, 9)),
            ("§15.5.17 starts beyond", RangeSpec::From(10), 10, Resolved::Unsatisfiable),
            ("§15.5.17 starts beyond", RangeSpec::FromTo(10, 11), 10, Resolved::Unsatisfiable),
            ("§14.1.2 suffix", RangeSpec::Last(3), 10, part(7, 9)),
            ("§14.1.2 longer suffix is the whole", RangeSpec::Last(30), 10, part(0, 9)),
            ("§14.1.2 suffix of length 0", RangeSpec::Last(0), 10, Resolved::Unsatisfiable),
            ("§14.1.2 empty body", RangeSpec::From(0), 0, Resolved::Unsatisfiable),
            ("§14.1.2 suffix of an empty body", RangeSpec::Last(5), 0, Resolved::Whole),
            ("§14.1.2 empty suffix of an empty body", RangeSpec::Last(0), 0, Resolved::Unsatisfiable),
            ("§14.2 several", RangeSpec::Several, 10, Resolved::Whole),
        ] {
            assert_eq!(spec.resolve(len), expected, "{clause}: {spec:?} of {len}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_and_a_part_lies_inside(value: Vec<u8>, len: u64) {
            let mut prefixed = b"bytes=".to_vec();
            prefixed.extend(&value);
            for value in [&value, &prefixed] {
                if let Some(Resolved::Part { first, last }) = parse(value).map(|r| r.resolve(len)) {
                    prop_assert!(first <= last && last < len);
                }
            }
        }

        #[test]
        fn a_written_range_reads_back(first: u64, more in 0..1000u64, len in 1..u64::MAX) {
            let last = first.saturating_add(more);
            let spec = parse(format!("bytes={first}-{last}").as_bytes()).unwrap();
            prop_assert_eq!(spec, RangeSpec::FromTo(first, last));
            match spec.resolve(len) {
                Resolved::Part { first: f, last: l } => {
                    prop_assert!(f == first && l <= last && l < len);
                }
                other => prop_assert!(other == Resolved::Unsatisfiable && first >= len),
            }
        }
    }
}
