//! `Range` and `Content-Range`: byte ranges (RFC 9110 §14).
//!
//! Knows the syntax, how ranges fall on a representation of some length, and how many of them anybody
//! may ask for at once. Must not know: bodies, 206, which ranges a cache holds.

use super::list;

/// The ranges of one request that are looked at; a field with more is ignored, as §14.2 allows: "a
/// server MAY ignore or reject a Range header field ... with many small ranges".
pub const MOST: usize = 32;

/// Two ranges with at most this between them are sent as one: a part of its own costs about as much
/// (§15.3.7.2, "typical overhead ... is around 80 bytes").
const GAP: u64 = 80;

/// The ranges that a request asks for, in the order asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// One.
    One(RangeSpec),
    /// Two to [`MOST`].
    Several(Box<[RangeSpec]>),
}

/// A range that was asked for, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeSpec {
    /// `bytes=5-`: from this byte to the end.
    From(u64),
    /// `bytes=5-9`: from the first to the last, both included; never last before first.
    FromTo(u64, u64),
    /// `bytes=-5`: the last so many.
    Last(u64),
}

/// Some bytes of a representation: from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// First byte, from 0.
    pub first: u64,
    /// Last byte; never before the first.
    pub last: u64,
}

/// How ranges fall on a representation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// 206 with these bytes.
    Part(Span),
    /// 206 with these, each in a part of its own, in the order asked; two at least.
    Parts(Vec<Span>),
    /// 416.
    Unsatisfiable,
    /// 200 with everything.
    Whole,
}

/// What a `Content-Range` says (§14.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// The bytes that are enclosed; `None` = `*`, the range could not be satisfied.
    pub span: Option<Span>,
    /// Length of the whole representation; `None` = `*`, unknown.
    pub length: Option<u64>,
}

/// Reads a `Range` value; `None` = another unit, malformed or too many, so the field is ignored (§14.2).
pub fn parse(value: &[u8]) -> Option<Ranges> {
    let (unit, set) = list::trim(value).split_at_checked(b"bytes=".len())?;
    // §14.1: range unit names are case-insensitive.
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let mut members = list::members(set);
    let first = spec(members.next()?)?;
    let Some(second) = members.next() else { return Some(Ranges::One(first)) };
    let mut all = vec![first, spec(second)?];
    for member in members {
        if all.len() == MOST {
            return None;
        }
        all.push(spec(member)?);
    }
    Some(Ranges::Several(all.into()))
}

/// Reads a `Content-Range` value; `None` = another unit, malformed, or a range that does not fit its
/// length: "A recipient ... MUST NOT attempt to recombine" that (§14.4).
pub fn parse_content_range(value: &[u8]) -> Option<ContentRange> {
    let (unit, rest) = list::trim(value).split_at_checked(b"bytes ".len())?;
    if !unit.eq_ignore_ascii_case(b"bytes ") {
        return None;
    }
    let mut parts = rest.splitn(2, |&b| b == b'/');
    let (range, length) = (parts.next()?, parts.next()?);
    let length = if length == b"*" { None } else { Some(number(length)?) };
    if range == b"*" {
        // `*/*` says nothing at all; the syntax has no such form.
        return length.map(|length| ContentRange { span: None, length: Some(length) });
    }
    let RangeSpec::FromTo(first, last) = spec(range)? else { return None };
    let fits = length.is_none_or(|length| last < length);
    fits.then_some(ContentRange { span: Some(Span { first, last }), length })
}

impl Ranges {
    /// How these fall on a representation of `len` bytes (§14.1.2, §15.3.7.2, §15.5.17).
    ///
    /// Ranges that cannot be satisfied are left out. Those that overlap, touch or nearly do are made
    /// one, at the place of the first. Parts that would come to as much as the whole make it that.
    pub fn resolve(&self, len: u64) -> Resolved {
        let specs = match self {
            Self::One(spec) => return spec.resolve(len),
            Self::Several(specs) => specs,
        };
        let mut spans: Vec<Span> = Vec::new();
        for spec in specs {
            match spec.resolve(len) {
                Resolved::Part(span) => coalesce(&mut spans, span),
                // A suffix of an empty representation.
                Resolved::Whole | Resolved::Parts(_) => return Resolved::Whole,
                Resolved::Unsatisfiable => {}
            }
        }
        let sum = spans.iter().fold(0, |sum: u64, span| sum.saturating_add(span.len() + GAP));
        match spans.as_slice() {
            [] => Resolved::Unsatisfiable,
            [one] => Resolved::Part(*one),
            _ if sum >= len => Resolved::Whole,
            _ => Resolved::Parts(spans),
        }
    }
}

impl RangeSpec {
    /// How this falls on a representation of `len` bytes (§14.1.2, §15.5.17); never several parts.
    pub fn resolve(&self, len: u64) -> Resolved {
        let Some(end) = len.checked_sub(1) else {
            return match self {
                // A suffix of nothing is satisfiable, but no Content-Range can say so.
                Self::Last(1..) => Resolved::Whole,
                _ => Resolved::Unsatisfiable,
            };
        };
        let part = |first, last| Resolved::Part(Span { first, last });
        match *self {
            Self::From(first) | Self::FromTo(first, _) if first > end => Resolved::Unsatisfiable,
            Self::From(first) => part(first, end),
            Self::FromTo(first, last) => part(first, last.min(end)),
            Self::Last(0) => Resolved::Unsatisfiable,
            Self::Last(count) => part(len.saturating_sub(count), end),
        }
    }
}

impl std::fmt::Display for RangeSpec {
    /// As a `Range` field has it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::From(first) => write!(f, "bytes={first}-"),
            Self::FromTo(first, last) => write!(f, "bytes={first}-{last}"),
            Self::Last(count) => write!(f, "bytes=-{count}"),
        }
    }
}

impl Span {
    /// Bytes in it; at least one.
    pub fn len(&self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }

    /// Never: a span holds at least one byte.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// The first byte after it.
    pub fn end(&self) -> u64 {
        self.last.saturating_add(1)
    }
}

/// Adds a span to those before it, made one with every one that it overlaps or nearly touches.
fn coalesce(spans: &mut Vec<Span>, mut new: Span) {
    let near = |a: &Span, b: &Span| {
        a.first <= b.last.saturating_add(GAP + 1) && b.first <= a.last.saturating_add(GAP + 1)
    };
    // Each round takes one span out, so there are no more rounds than spans.
    let mut place = spans.len();
    while let Some(at) = spans.iter().position(|span| near(span, &new)) {
        let old = spans.remove(at);
        new = Span { first: new.first.min(old.first), last: new.last.max(old.last) };
        place = place.min(at);
    }
    spans.insert(place.min(spans.len()), new);
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

/// At least one digit, and only digits; saturates (§14.1.2: recipients must anticipate large numerals).
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0, |sum: u64, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        Some(sum.saturating_mul(10).saturating_add(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(spec: RangeSpec) -> Option<Ranges> {
        Some(Ranges::One(spec))
    }

    #[test]
    fn ranges_are_read_or_ignored() {
        use RangeSpec::*;
        let many = |count: usize| format!("bytes={}", vec!["0-0"; count].join(","));
        let several = |specs: &[RangeSpec]| Some(Ranges::Several(specs.into()));
        for (clause, value, expected) in [
            ("§14.1.2 first to last", "bytes=0-499", one(FromTo(0, 499))),
            ("§14.1.2 open", "bytes=9500-", one(From(9500))),
            ("§14.1.2 suffix", "bytes=-500", one(Last(500))),
            ("§14.1 unit in any case", "BYTES=1-2", one(FromTo(1, 2))),
            ("§14.1.2 several", "bytes=0-0,-1", several(&[FromTo(0, 0), Last(1)])),
            ("§14.1.2 several", "bytes=5-, 1-2 ,-3", several(&[From(5), FromTo(1, 2), Last(3)])),
            ("§5.6.1 empty members", "bytes=, 1-2 ,", one(FromTo(1, 2))),
            ("§14.1.1 last before first", "bytes=5-4", None),
            ("§14.1.1 one of several invalid", "bytes=0-1,5-4", None),
            ("§14.2 other unit", "items=0-1", None),
            ("§14.1.1 no set", "bytes=", None),
            ("§14.1.1 no numbers", "bytes=-", None),
            ("§14.1.1 signs", "bytes=+1-2", None),
            ("§14.1.1 spaces", "bytes= 1 - 2", None),
            ("§14.1.1 spaces", "bytes =1-2", None),
            ("§14.1.1 nothing", "", None),
            ("§14.2 as many as may be", &many(MOST), several(&[FromTo(0, 0); MOST])),
            ("§14.2 too many", &many(MOST + 1), None),
            ("large", "bytes=0-99999999999999999999999", one(FromTo(0, u64::MAX))),
        ] {
            assert_eq!(parse(value.as_bytes()), expected, "{clause}: {value}");
        }
    }

    #[test]
    fn content_ranges_are_read_or_refused() {
        let of = |first, last, length| Some(ContentRange { span: Some(Span { first, last }), length });
        for (clause, value, expected) in [
            ("§14.4", "bytes 42-1233/1234", of(42, 1233, Some(1234))),
            ("§14.4 unknown length", "bytes 42-1233/*", of(42, 1233, None)),
            ("§14.1 unit in any case", "Bytes 0-0/1", of(0, 0, Some(1))),
            ("§15.5.17", "bytes */1234", Some(ContentRange { span: None, length: Some(1234) })),
            ("§14.4 last beyond the length", "bytes 0-9/9", None),
            ("§14.4 last before first", "bytes 5-4/9", None),
            ("§14.4 open", "bytes 5-/9", None),
            ("§14.4 suffix", "bytes -5/9", None),
            ("§14.4 nothing known", "bytes */*", None),
            ("§14.4 no length", "bytes 0-4", None),
            ("§14.4 empty length", "bytes 0-4/", None),
            ("§14.4 as in Range", "bytes=0-4/9", None),
            ("§14.4 other unit", "items 0-4/9", None),
            ("§14.4 spaces", "bytes 0 - 4/9", None),
            ("§14.4 nothing", "", None),
        ] {
            assert_eq!(parse_content_range(value.as_bytes()), expected, "{clause}: {value}");
        }
    }

    #[test]
    fn a_range_falls_on_a_representation() {
        let part = |first, last| Resolved::Part(Span { first, last });
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
        ] {
            assert_eq!(spec.resolve(len), expected, "{clause}: {spec} of {len}");
        }
    }

    #[test]
    fn several_ranges_fall_on_a_representation() {
        let span = |first, last| Span { first, last };
        let parts = |spans: &[Span]| Resolved::Parts(spans.to_vec());
        for (clause, value, len, expected) in [
            ("§15.3.7.2 two", "bytes=0-9,500-599", 10_000, parts(&[span(0, 9), span(500, 599)])),
            (
                "§15.3.7.2 in the order asked",
                "bytes=500-599,0-9",
                10_000,
                parts(&[span(500, 599), span(0, 9)]),
            ),
            ("§15.3.7.2 overlapping", "bytes=0-99,50-199", 10_000, Resolved::Part(span(0, 199))),
            ("§15.3.7.2 a small gap", "bytes=0-9,90-99", 10_000, Resolved::Part(span(0, 99))),
            ("§15.3.7.2 a gap too wide", "bytes=0-9,91-99", 10_000, parts(&[span(0, 9), span(91, 99)])),
            (
                "§15.3.7.2 one bridges two",
                "bytes=0-9,1000-1009,2000-2009,10-999",
                10_000,
                parts(&[span(0, 1009), span(2000, 2009)]),
            ),
            ("§15.3.7.2 one satisfiable", "bytes=0-9,99999-", 10_000, Resolved::Part(span(0, 9))),
            ("§15.5.17 none satisfiable", "bytes=20000-,-0", 10_000, Resolved::Unsatisfiable),
            ("§15.3.7.2 as much as the whole", "bytes=0-0,100-199", 200, Resolved::Whole),
            ("§14.1.2 of nothing", "bytes=0-0,-5", 0, Resolved::Whole),
        ] {
            let ranges = parse(value.as_bytes()).unwrap();
            assert_eq!(ranges.resolve(len), expected, "{clause}: {value} of {len}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_and_parts_lie_inside_apart(value: Vec<u8>, set in "[0-9,-]{0,60}", len in 0..500_000u64) {
            let mut prefixed = b"bytes=".to_vec();
            prefixed.extend(&value);
            for value in [&value, &prefixed, &format!("bytes={set}").into_bytes()] {
                let _ = parse_content_range(value);
                match parse(value).map(|ranges| ranges.resolve(len)) {
                    Some(Resolved::Part(span)) => prop_assert!(span.first <= span.last && span.last < len),
                    Some(Resolved::Parts(mut spans)) => {
                        spans.sort();
                        prop_assert!(spans.len() >= 2);
                        prop_assert!(spans.iter().all(|span| span.first <= span.last && span.last < len));
                        prop_assert!(spans.windows(2).all(|pair| pair[0].last + GAP < pair[1].first));
                        let sum: u64 = spans.iter().map(Span::len).sum();
                        prop_assert!(sum < len);
                    }
                    _ => {}
                }
            }
        }

        #[test]
        fn a_written_range_reads_back(first: u64, more in 0..1000u64, len in 1..u64::MAX, kind in 0..3) {
            let last = first.saturating_add(more);
            let spec = [RangeSpec::FromTo(first, last), RangeSpec::From(first), RangeSpec::Last(first)][kind as usize];
            prop_assert_eq!(parse(spec.to_string().as_bytes()), Some(Ranges::One(spec)));
            if let Resolved::Part(span) = spec.resolve(len) {
                let text = format!("bytes {}-{}/{len}", span.first, span.last);
                let expected = ContentRange { span: Some(span), length: Some(len) };
                prop_assert_eq!(parse_content_range(text.as_bytes()), Some(expected));
            }
        }
    }
}
